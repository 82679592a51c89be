//! Removing the directories.

use std::path::Path;
use std::time::{Duration, Instant};

use super::cgroup::{Cgroup, collect};
use super::dir::{self, Dir};
use super::freeze::wait_for;
use super::steps::{CgroupRecord, Recorded, Version};
use crate::error::{Doing, Failure};
use crate::sys::{CallError, CallResult};

/// How long killed processes may take to leave.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes the directories that we made, with everything below them: when this returns they are gone, and the same path
    /// can be used anew. Nothing is killed. A missing directory is success.
    ///
    /// # Errors
    /// If a directory is still in use after about 10 seconds, with the number of processes in it. The others are removed.
    pub fn remove(self) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        let mut result = Ok(());
        for recorded in self.record.directories.iter().filter(|recorded| recorded.ours) {
            let removed = remove(recorded, end).doing(|| format!("remove {}", recorded.place));
            result = result.and(removed);
        }
        result
    }
}

/// Removes what a record names if no process is in it, which costs one call for each directory. False if somebody is, or if a directory was
/// there before the container: then a part may be gone, and the rest is for [`Cgroup::kill`] and [`Cgroup::remove`].
///
/// # Errors
/// The kernel's.
pub fn remove_if_empty(record: &CgroupRecord) -> Result<bool, Failure> {
    if record.directories.iter().any(|recorded| !recorded.ours) {
        return Ok(false);
    }
    // First those that a kill would need.
    let knows_all = |recorded: &&Recorded| recorded.place.version == Version::V2 || recorded.place.has("freezer");
    let (first, others): (Vec<_>, Vec<_>) = record.directories.iter().partition(knows_all);
    for recorded in first.into_iter().rev().chain(others) {
        match dir::remove(&recorded.place.directory()) {
            Err(error) if is_busy(&error) => return Ok(false),
            other => other.doing(|| format!("remove {}", recorded.place))?,
        }
        remove_parents(recorded);
    }
    Ok(true)
}

fn remove(recorded: &Recorded, end: Instant) -> Result<(), Failure> {
    let path = recorded.place.directory();
    match dir::remove(&path) {
        Err(error) if is_busy(&error) => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
            if let Some(parent) = Dir::open_if_present(parent.to_path_buf())? {
                remove_patiently(&parent, Path::new(name), recorded.place.version, end)?;
            }
        }
        other => other?,
    }
    remove_parents(recorded);
    Ok(())
}

/// Others may use them by now, and then they are theirs to remove.
pub(super) fn remove_parents(recorded: &Recorded) {
    for above in recorded.parents.iter().rev() {
        dir::remove(&recorded.place.mount.join(above)).ok();
    }
}

/// Tries until the time is up, waiting for the processes in it to leave.
fn remove_patiently(parent: &Dir, name: &Path, version: Version, end: Instant) -> Result<(), Failure> {
    let mut pause = Duration::from_millis(1);
    loop {
        let error = match remove_tree(parent, name) {
            Err(error) if is_busy(&error) => error,
            other => return other.map_err(Failure::from),
        };
        if Instant::now() >= end {
            return Err(in_use(parent, name, error));
        }
        if version == Version::V2 && parent.find(name)?.is_some_and(|dir| wait_for(&dir, "populated 0", pause).unwrap_or(false)) {
            // Nobody is in it any more; what is left takes the kernel a moment.
            std::thread::sleep(Duration::from_micros(200));
        } else if version == Version::V1 {
            std::thread::sleep(pause);
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn is_busy(error: &CallError) -> bool {
    error.is(libc::EBUSY) || error.is(libc::ENOTEMPTY)
}

fn in_use(parent: &Dir, name: &Path, error: CallError) -> Failure {
    let mut pids = std::collections::BTreeSet::new();
    let counted = parent.find(name).and_then(|dir| dir.map_or(Ok(()), |dir| collect(&dir, &mut pids)));
    let failure = Failure::from(error);
    match counted {
        Ok(()) if !pids.is_empty() => Failure { reason: Some(format!("{} processes are still in it", pids.len())), ..failure },
        _ => failure,
    }
}

/// From the leaves up; most often there is only one directory, so it is tried first.
fn remove_tree(parent: &Dir, name: &Path) -> CallResult<()> {
    match parent.remove(name.as_os_str()) {
        Err(error) if is_busy(&error) => {}
        other => return other,
    }
    if let Some(dir) = parent.find(name)? {
        for child in dir.children()? {
            if let Some(name) = child.path().file_name() {
                remove_tree(&dir, Path::new(name))?;
            }
        }
    }
    parent.remove(name.as_os_str())
}
