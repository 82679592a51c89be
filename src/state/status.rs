//! [`Status`], and how it follows from the record and from what the kernel says.

use std::fmt;

use crate::cgroups::{self, CgroupRecord};
use crate::error::Failure;

use super::record::{Phase, ProcessRef};

/// The status of a container (runtime.md, "State", and `paused` as all runtimes have it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// Init waits for start.
    Created,
    /// The program runs.
    Running,
    /// The program is frozen.
    Paused,
    /// The program has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// How a container is looked at. Each look is a few system calls: it is taken once, and only if the status depends on it.
pub(super) struct Looks<L, A, F> {
    /// Whether another command holds the lock of the container's directory.
    pub is_locked: L,
    /// Whether the first process lives.
    pub is_alive: A,
    /// Whether init waits for start.
    pub has_fifo: F,
}

impl<L, A, F> Looks<L, A, F>
where
    L: FnOnce() -> Result<bool, Failure>,
    A: FnOnce(ProcessRef) -> Result<bool, Failure>,
    F: FnOnce() -> bool,
{
    /// The status of a container of which this is recorded.
    ///
    /// # Errors
    /// Of the looks, or if the control groups cannot be read.
    pub fn status(self, phase: Phase, init: Option<ProcessRef>, cgroup: &CgroupRecord) -> Result<Status, Failure> {
        let is_being_made = phase == Phase::Creating;
        let Some(init) = init else {
            // A create that died leaves its record without anybody holding the lock.
            return Ok(if is_being_made && (self.is_locked)()? { Status::Creating } else { Status::Stopped });
        };
        if !(self.is_alive)(init)? {
            return Ok(Status::Stopped);
        }
        if is_being_made {
            return Ok(Status::Creating);
        }
        if cgroups::is_frozen(cgroup)? {
            return Ok(Status::Paused);
        }
        Ok(if (self.has_fifo)() { Status::Created } else { Status::Running })
    }
}
