//! Handing the listener of a filter to the agent that asked for it, without a call that the filter could stop.
//!
//! Between loading the filter and execve(2) every call of init is subject to the filter, and a call that it reports waits for an agent
//! that does not have the listener yet. So init makes none: a second thread, started before and not under the filter, sends
//! the listener, while init waits for that by looking at memory. It must be a thread and not a process: a process would be a child
//! of the payload, which knows nothing of it; a thread is ended by execve(2) and leaves no trace.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Doing, Failure};
use crate::sys::{CallError, socket};

/// Room for one sendmsg(2) and a report of its failure.
const STACK: usize = 128 * 1024;
/// How often the courier looks for the listener.
const POLL: Duration = Duration::from_micros(20);
/// After looking at memory so often (about a second) init offers the processor by a call, which the filter may see: real-time
/// policies would otherwise never let the courier run on a single processor. Even to look at a clock may be a call.
const PATIENCE: u32 = 50_000_000;

#[derive(Debug, Default)]
struct Slot {
    listener: OnceLock<OwnedFd>,
    delivered: AtomicBool,
}

/// The thread that waits for the listener.
#[derive(Debug)]
pub struct Courier {
    slot: Arc<Slot>,
}

impl Courier {
    /// Starts the thread. If it cannot deliver, it reports that, which ends the process.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(
        agent: OwnedFd,
        message: Vec<u8>,
        report: impl FnOnce(Failure) -> Infallible + Send + 'static,
    ) -> Result<Self, Failure> {
        let slot = Arc::new(Slot::default());
        let theirs = Arc::clone(&slot);
        let work = move || {
            if let Err(failure) = theirs.send(&agent, &message) {
                match report(failure) {}
            }
        };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
        let thread = thread.map_err(|error| CallError::from_io("clone3", "CLONE_THREAD", &error));
        // Nobody joins it, and to let go of its handle could be a call under the filter.
        std::mem::forget(thread.doing(|| "start the thread that sends the seccomp listener")?);
        Ok(Self { slot })
    }

    /// Hands the listener over and returns when it has been sent. Makes no system call, closes and frees nothing.
    pub fn deliver(self, listener: OwnedFd) {
        let rejected = self.slot.listener.set(listener);
        // There is one listener and this is it; a rejected one must not be closed here in any case.
        std::mem::forget(rejected);
        let mut looks = 0_u32;
        while !self.slot.delivered.load(Ordering::Acquire) {
            looks = looks.saturating_add(1);
            if looks > PATIENCE {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        std::mem::forget(self.slot);
    }
}

impl Slot {
    fn send(&self, agent: &OwnedFd, message: &[u8]) -> Result<(), Failure> {
        use std::os::fd::AsFd;
        let listener = loop {
            match self.listener.get() {
                Some(listener) => break listener,
                None => std::thread::sleep(POLL),
            }
        };
        socket::send(agent, message, Some(listener.as_fd())).doing(|| "send the seccomp listener to its agent")?;
        self.delivered.store(true, Ordering::Release);
        // The rest of this thread's life, with all that it frees, is as long as that of the process.
        loop {
            std::thread::park();
        }
    }
}
