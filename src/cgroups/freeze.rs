//! Freezing and thawing, bounded in time.

use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::dir::{Dir, line_if_present};
use super::steps::{CgroupRecord, Recorded, Version};
use crate::error::{Doing, Failure};
use crate::sys::CallResult;
use crate::sys::process::poll_priority;

/// How long a freeze may take: a process in an uninterruptible sleep holds it up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Freezes all processes and waits until they stand still: in the unified tree where it can, since what is frozen there
    /// can still be killed, else by the freezer of version 1.
    ///
    /// # Errors
    /// If there is no freezer, if the caller would stand still with them, or if they do not stand still within 10 seconds; then they are
    /// thawed again.
    pub fn freeze(&self) -> Result<(), Failure> {
        if self.has_caller() {
            return Err(
                Failure::because("the caller is in the container's cgroup, and would stand still as well").doing("freeze")
            );
        }
        if self.begin_to_freeze(PATIENCE)? {
            return Ok(());
        }
        let late =
            Failure::because(format!("the processes did not stand still within {} seconds", PATIENCE.as_secs())).doing("freeze");
        self.thaw().and(Err(late))
    }

    /// False if there are still processes that move when the time is up; they are on their way into the freezer.
    pub(super) fn begin_to_freeze(&self, patience: Duration) -> Result<bool, Failure> {
        let frozen = match (self.v2_freezer()?, self.v1("freezer")) {
            (Some(dir), _) => freeze_v2(dir, patience),
            (None, Some(dir)) => freeze_v1(dir, patience),
            (None, None) => return Err(Failure::because("the container has no cgroup that can be frozen").doing("freeze")),
        };
        frozen.doing(|| "freeze")
    }

    /// Thaws all processes, however they were frozen.
    ///
    /// # Errors
    /// The kernel's, or if version 2 still says frozen after 10 seconds (a frozen cgroup above).
    pub fn thaw(&self) -> Result<(), Failure> {
        self.thaw_v2()?;
        if let Some(dir) = self.v1("freezer") {
            dir.write("freezer.state", "THAWED").doing(|| "thaw")?;
        }
        Ok(())
    }

    /// Thaws what is frozen in the unified tree.
    pub(super) fn thaw_v2(&self) -> Result<(), Failure> {
        let Some(dir) = self.v2_freezer()? else { return Ok(()) };
        dir.write("cgroup.freeze", "0").doing(|| "thaw")?;
        if !wait_for(dir, "frozen 0", PATIENCE).doing(|| "thaw")? {
            return Err(Failure::because("the processes did not move within 10 seconds: is a cgroup above frozen?").doing("thaw"));
        }
        Ok(())
    }

    /// See [`is_frozen`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_frozen(&self) -> Result<bool, Failure> {
        is_frozen(&self.record)
    }

    /// The unified directory, if the kernel can freeze there (Linux 5.2).
    fn v2_freezer(&self) -> Result<Option<&Dir>, Failure> {
        let Some(dir) = self.v2() else { return Ok(None) };
        let content = dir.read_if_present("cgroup.freeze").doing(|| "look for a freezer")?;
        Ok(content.map(|_| dir))
    }
}

/// True if the processes of a container stand still, or are about to (version 1: `FREEZING`). Only the file that says it is opened, and
/// what does not exist (any more) is not frozen.
///
/// # Errors
/// The kernel's.
pub fn is_frozen(record: &CgroupRecord) -> Result<bool, Failure> {
    let says = |recorded: &Recorded| -> CallResult<bool> {
        let directory = || recorded.place.directory();
        match recorded.place.version {
            Version::V2 => Ok(line_if_present(&directory().join("cgroup.freeze"))?.is_some_and(|asked| asked == "1")),
            Version::V1 if recorded.place.has("freezer") => {
                Ok(line_if_present(&directory().join("freezer.state"))?.is_some_and(|state| state != "THAWED"))
            }
            Version::V1 => Ok(false),
        }
    };
    for recorded in &record.directories {
        if says(recorded).doing(|| "see whether the container is frozen")? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where everybody has died there is nothing to wait for; where another command has thawed them (`kill`), neither.
fn freeze_v2(dir: &Dir, patience: Duration) -> CallResult<bool> {
    const LOOK: Duration = Duration::from_millis(100);
    dir.write("cgroup.freeze", "1")?;
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if wait_for(dir, "frozen 1", LOOK)? {
            return Ok(true);
        }
        let events = dir.read_if_present("cgroup.events")?.unwrap_or_default();
        if events.lines().any(|line| line == "populated 0") {
            return Ok(true);
        }
        if dir.read_if_present("cgroup.freeze")?.is_none_or(|asked| asked.trim() != "1") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until cgroup.events has this line: the kernel announces each change as urgent data. False if it took too long.
/// A removed cgroup satisfies everybody.
pub(super) fn wait_for(dir: &Dir, line: &str, patience: Duration) -> CallResult<bool> {
    let end = Instant::now() + patience;
    loop {
        // A new descriptor each time: it is the read that tells the kernel what we know already.
        let Ok(events) = dir.open_file("cgroup.events") else { return Ok(true) };
        let content = match crate::sys::fs::read_to_end(&events, 4096) {
            Err(error) if super::dir::is_gone(&error) => return Ok(true),
            other => other?,
        };
        if String::from_utf8_lossy(&content).lines().any(|found| found == line) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        poll_priority(&events, left)?;
    }
}

/// The freezer of version 1 may stay in `FREEZING` when a process forks or sleeps at the wrong moment: asking again helps,
/// and from time to time so does letting them run for a moment.
fn freeze_v1(dir: &Dir, patience: Duration) -> CallResult<bool> {
    let end = Instant::now() + patience;
    for round in 1u32.. {
        dir.write("freezer.state", "FROZEN")?;
        if dir.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(true);
        }
        if Instant::now() >= end {
            break;
        }
        if round.is_multiple_of(50) {
            dir.write("freezer.state", "THAWED")?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}
