//! What the launcher says to the process that it has made, and hears from it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::Walk;
use crate::child::Child;
use crate::error::{Doing, Failure};
use crate::launch::protocol::{FromInit, ToInit};
use crate::launch::{link, terminal};
use crate::sys::{process, signal};

/// What exec says when there is nothing left to join.
pub(super) const CONTAINER_ENDED: &str = "the container has ended meanwhile";

impl Walk<'_> {
    pub(super) fn tell(&mut self, message: ToInit) -> Result<(), Failure> {
        let link = self.link.as_ref().ok_or_else(|| Failure::because("nobody to talk to"))?;
        match link.send(&message, None) {
            // The other end is gone; what it had to say before may still be there.
            Err(failure) if failure.is(libc::EPIPE) || failure.is(libc::ECONNRESET) => self.last_words(message),
            other => other,
        }
    }

    fn last_words(&mut self, untold: ToInit) -> Result<(), Failure> {
        loop {
            let said = self.link.as_ref().map_or(Ok(None), link::Link::receive)?;
            match said {
                Some((FromInit::Failed(told), _)) => return Err(*told),
                Some((FromInit::Warned(text), _)) => self.warn(&text)?,
                Some((FromInit::Found(failure), _)) => self.found(*failure),
                _ => return Err(self.vanished(untold)),
            }
        }
    }

    fn vanished(&self, awaited: impl std::fmt::Display) -> Failure {
        self.gone.set(true);
        let how = self.child.as_ref().and_then(Child::pidfd).map_or("", |_| " was killed");
        Failure::because(format!("init{how} before {awaited}"))
    }

    /// Waits for a message of init, or for a signal that ends the command.
    fn next(&mut self) -> Result<Option<(FromInit, Option<OwnedFd>)>, Failure> {
        let link = self.link.as_ref().ok_or_else(|| Failure::because("nobody to talk to"))?;
        loop {
            let mut watched = vec![(link.as_fd(), false), (self.signals.as_fd(), false)];
            // A link whose other end somebody else holds as well does not end with the process that was to speak.
            let child = self.child.as_ref().and_then(Child::pidfd);
            watched.extend(child.map(|pidfd| (pidfd.as_fd(), false)));
            // Frozen in the control group of a container that has ended, an exec would never say anything.
            let container = self.launch.handles.container.as_ref();
            watched.extend(container.map(|pidfd| (pidfd.as_fd(), false)));
            let ready = process::poll(&watched, None)?;
            if ready[0].readable || ready[0].hangup {
                return link.receive();
            }
            if child.is_some() && ready[2].readable {
                // Its last word may have come between the two looks of one poll.
                let late = process::poll(&watched[..1], Some(Duration::ZERO))?[0];
                return if late.readable { link.receive() } else { Ok(None) };
            }
            if ready[1].readable
                && let Some(number) = signal::next_signal(&self.signals)
                && signal::asks_to_end(number)
            {
                return Err(Failure::because(format!("interrupted by signal {number}")));
            }
            if container.is_some() && ready.last().is_some_and(|container| container.readable) {
                return Err(Failure::because(CONTAINER_ENDED));
            }
        }
    }

    pub(super) fn expect(&mut self, expected: &FromInit) -> Result<(), Failure> {
        loop {
            match self.next()? {
                Some((FromInit::Warned(text), _)) => self.warn(&text)?,
                Some((FromInit::Found(failure), _)) => self.found(*failure),
                Some((FromInit::Failed(failure), _)) => {
                    self.heard = true;
                    return Err(*failure);
                }
                Some((message, fd)) if message == *expected => {
                    self.heard = true;
                    return if message == FromInit::Terminal { self.got_terminal(fd) } else { Ok(()) };
                }
                Some((message, _)) => return Err(Failure::because(format!("expected message {expected}, got {message}"))),
                None => return Err(self.vanished(expected)),
            }
        }
    }

    fn got_terminal(&mut self, master: Option<OwnedFd>) -> Result<(), Failure> {
        self.terminal = terminal::hand_out(master, self.console.take())?;
        Ok(())
    }

    /// The bridge ends when it has made init, which is our child, too.
    pub(super) fn await_birth(&mut self) -> Result<(), Failure> {
        match self.next()? {
            Some((FromInit::Born { pid }, Some(pidfd))) => {
                self.heard = true;
                if let Some(bridge) = self.child.replace(Child::new(pid, pidfd)) {
                    bridge.wait().doing(|| "wait for the bridge")?;
                }
                self.link = self.next_link.take();
                Ok(())
            }
            Some((FromInit::Failed(failure), _)) => {
                self.heard = true;
                Err(*failure)
            }
            Some((message, _)) => Err(Failure::because(format!("expected message Born, got {message}"))),
            None => Err(self.vanished("Born")),
        }
    }

    /// Init closes the link when it has let go of us; the kernel does when the program is executed.
    pub(super) fn await_end(&mut self) -> Result<(), Failure> {
        loop {
            match self.next()? {
                Some((FromInit::Warned(text), _)) => self.warn(&text)?,
                Some((FromInit::Found(failure), _)) => self.found(*failure),
                Some((FromInit::Failed(failure), _)) => return Err(*failure),
                Some((message, _)) => return Err(Failure::because(format!("expected the end of the link, got {message}"))),
                None => return Ok(()),
            }
        }
    }
}
