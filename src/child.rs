//! [`Child`]: a process of ours that is waited for, or killed and reaped when it is dropped.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::sys::CallResult;
use crate::sys::process::{self, Exit};

/// A child process by its pidfd.
#[derive(Debug)]
pub struct Child {
    /// Its pid, valid as long as it is not waited for.
    pub pid: i32,
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Takes charge of a child.
    pub fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd: Some(pidfd) }
    }

    /// Its pidfd. `None` after it was waited for.
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(mut self) -> CallResult<Exit> {
        match self.pidfd.take() {
            Some(pidfd) => process::wait_pidfd(&pidfd),
            None => Ok(Exit::Code(0)),
        }
    }

    /// Waits for its end, at most for a while. `None` if it was killed because the time is over.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait_for(mut self, limit: Option<Duration>) -> CallResult<Option<Exit>> {
        let Some(pidfd) = self.pidfd.take() else { return Ok(None) };
        let in_time = process::poll(&[(pidfd.as_fd(), false)], limit)?[0].readable;
        if !in_time {
            process::pidfd_send_signal(&pidfd, libc::SIGKILL)?;
        }
        let exit = process::wait_pidfd(&pidfd)?;
        Ok(in_time.then_some(exit))
    }

    /// Lets it live on without us.
    pub fn release(mut self) {
        self.pidfd = None;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            // It may be gone already, or not ours to reap: nothing more can be done about it here.
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
            let _ = process::wait_pidfd(&pidfd);
        }
    }
}
