//! Signals to everything in a cgroup.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::dir::is_gone;
use crate::error::{Doing, Failure};
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// How long to wait for killed processes to leave where we have to kill them one by one.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Sends a signal to every process in the container's cgroup and below, except to the caller.
    ///
    /// SIGKILL also reaches what is being forked meanwhile, and what is frozen. Where the kernel has `cgroup.kill` (Linux
    /// 5.14, in the unified tree of a hybrid host too) it does not wait for the processes to end; [`Cgroup::remove`] does.
    ///
    /// # Errors
    /// The kernel's, or if processes are left after 10 seconds of killing them one by one.
    pub fn kill(&self, signal: i32) -> Result<(), Failure> {
        let doing = || format!("send signal {signal} to the container's cgroup");
        if signal != libc::SIGKILL {
            return self.signal_all(signal).map(drop).doing(doing);
        }
        if self.kill_by_kernel()? { self.thaw_v1() } else { self.kill_each().doing(doing) }
    }

    fn kill_by_kernel(&self) -> Result<bool, Failure> {
        // Not where we would be among the dead.
        let Some(dir) = self.v2().filter(|_| !self.has_caller()) else { return Ok(false) };
        match dir.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) => Ok(false),
            // A threaded cgroup has no processes of its own.
            Err(error) if error.is(libc::EOPNOTSUPP) => Ok(false),
            other => other.map(|()| true).doing(|| "kill the container's cgroup"),
        }
    }

    fn has_caller(&self) -> bool {
        self.processes().is_ok_and(|pids| pids.contains(&own_pid()))
    }

    /// The freezer of version 1 holds even the killed.
    fn thaw_v1(&self) -> Result<(), Failure> {
        self.v1("freezer").map_or(Ok(()), |dir| match dir.write("freezer.state", "THAWED") {
            Err(error) if is_gone(&error) => Ok(()),
            other => other.doing(|| "thaw the killed processes"),
        })
    }

    /// Rounds of freezing, killing and thawing until nobody is left: what is frozen does not fork.
    fn kill_each(&self) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            if !self.signal_all(libc::SIGKILL)? {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Failure::because("processes are left after 10 seconds"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One round. False if there was nobody.
    fn signal_all(&self, signal: i32) -> Result<bool, Failure> {
        let was_frozen = self.is_frozen()?;
        // Without a freezer, or with one that takes too long, the processes are signalled as they run.
        let frozen = was_frozen || self.freeze_within(Duration::from_millis(500)).is_ok();
        let sent = self.signal_each(signal);
        if frozen && (!was_frozen || signal == libc::SIGKILL) {
            self.thaw()?;
        }
        sent
    }

    fn signal_each(&self, signal: i32) -> Result<bool, Failure> {
        let mut open = BTreeMap::new();
        for pid in self.processes()?.into_iter().filter(|pid| *pid != own_pid()) {
            if let Ok(pidfd) = pidfd_open(pid) {
                open.insert(pid, pidfd);
            }
        }
        // A number may have been recycled between the list and the descriptor. If it is in the cgroup now, the descriptor
        // either names that process or one that is dead.
        for pid in self.processes()? {
            let Some(pidfd) = open.get(&pid) else { continue };
            match pidfd_send_signal(pidfd, signal) {
                Err(error) if error.is(libc::ESRCH) => {}
                other => other.doing(|| format!("signal process {pid}"))?,
            }
        }
        Ok(!open.is_empty())
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}
