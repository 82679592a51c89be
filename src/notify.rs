//! Readiness (sd_notify(3)): what the program says on a socket of ours is passed on to the service manager of the caller.
//!
//! The program cannot be given the manager's own socket: its process ids mean something else there, and systemd believes only
//! processes of the unit. So a folder of the state directory is bound read-only to [`INSIDE`], and a socket in it is listened to by
//! whoever stays: `run` to the end, `start` and `run --detach` until the program says `READY=1`. No daemon does.
//!
//! What comes from a container is not trusted: only the assignments of `PASSED_ON` are handed on, no descriptors but that of a
//! barrier, and the main process is what the runtime knows it to be.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::error::{Doing, Error, Failure};
use crate::log::Log;
use crate::state::Directory;
use crate::sys::socket::{self, Received};
use crate::sys::{fs, process, signal};

/// The folder of the socket in the container, and the socket's name there.
pub const INSIDE: &str = "/run/notify";
/// See [`INSIDE`].
pub const SOCKET: &str = "notify.sock";
/// The variable with the socket's path.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// What a program may say about itself (sd_notify(3)).
const PASSED_ON: [&str; 11] = [
    "READY",
    "RELOADING",
    "STOPPING",
    "STATUS",
    "ERRNO",
    "BUSERROR",
    "EXIT_STATUS",
    "WATCHDOG",
    "WATCHDOG_USEC",
    "EXTEND_TIMEOUT_USEC",
    "MONOTONIC_USEC",
];

/// The longest message; the service manager reads no more (`NOTIFY_BUFFER_MAX`).
const MAX_MESSAGE: usize = 4096;

/// How long the service manager may take to make room for the news that the program is ready, and to read what was said before a command
/// that said it ends.
const BARRIER: Duration = Duration::from_secs(5);

/// The caller's socket: the variable, if it is set.
pub fn wanted() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|address| !address.is_empty())
}

/// Listens to a container for a service manager.
#[derive(Debug)]
pub struct Proxy {
    ours: OwnedFd,
    manager: OwnedFd,
    pid: i32,
    ready: bool,
}

impl Proxy {
    /// Begins to listen, if the caller has a service manager and the container was made with the folder. A manager that cannot be
    /// reached is a warning: the container is worth more than the message.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn listen(directory: &Directory, log: &Log) -> Result<Option<Self>, Failure> {
        let Some(address) = wanted().filter(|_| directory.has(super::state::store::NOTIFY)) else { return Ok(None) };
        let manager = match socket::connect_address(&address) {
            Ok(manager) => manager,
            Err(error) => {
                log.warning(&format!("{VARIABLE}: {error}; nobody hears when the container is ready"));
                return Ok(None);
            }
        };
        // One that does not read must not stop the command, however much a container says.
        fs::set_nonblocking(&manager)?;
        let ours = directory.listen_for_notifications().doing(|| "make the notify socket")?;
        Ok(Some(Self { ours, manager, pid: 0, ready: false }))
    }

    /// Says which process is the container's first.
    #[must_use]
    pub fn about(self, pid: i32) -> Self {
        Self { pid, ..self }
    }

    /// What becomes readable when the program speaks.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Passes on what has been said since, without waiting. A manager that does not listen any more is not the program's fault.
    pub fn pump(&mut self) {
        // Bounded: a program that never stops talking has no right to all of our time.
        for _ in 0..64 {
            match socket::receive(&self.ours, MAX_MESSAGE) {
                Ok(message) => self.pass_on(&message),
                Err(error) if error.is(libc::EMSGSIZE) => {}
                Err(_) => return,
            }
        }
    }

    fn pass_on(&mut self, message: &Received) {
        let text = String::from_utf8_lossy(&message.data);
        if text.trim_end() == "BARRIER=1" {
            // The descriptor closes when the manager has read everything up to here, and that is what the program waits for.
            if let Some(fd) = &message.fd {
                let _ = socket::send(&self.manager, b"BARRIER=1", Some(fd.as_fd()));
            }
            return;
        }
        let said = translate(&text, self.pid);
        let is_news = !self.ready && said.lines().any(|line| line == "READY=1");
        if !said.is_empty() {
            self.tell(&said, is_news);
        }
        self.ready |= is_news;
    }

    /// What finds no room is dropped, but for news, for which room is waited for.
    fn tell(&self, said: &str, is_news: bool) {
        let full = socket::send(&self.manager, said.as_bytes(), None).is_err_and(|error| error.is(libc::EAGAIN));
        if full && is_news && process::poll(&[(self.manager.as_fd(), true)], Some(BARRIER)).is_ok() {
            let _ = socket::send(&self.manager, said.as_bytes(), None);
        }
    }

    /// Waits until the program is ready, or has ended. `signals` ends the wait where they are blocked.
    ///
    /// # Errors
    /// If a signal asks this command to end.
    pub fn until_ready(mut self, init: &OwnedFd, signals: Option<&OwnedFd>) -> Result<(), Failure> {
        loop {
            self.pump();
            if self.ready {
                return self.barrier();
            }
            let mut watched = vec![(self.ours.as_fd(), false), (init.as_fd(), false)];
            watched.extend(signals.map(|signals| (signals.as_fd(), false)));
            let ready = process::poll(&watched, None)?;
            if ready[1].readable && !ready[0].readable {
                return Ok(());
            }
            while let Some(number) = signals.and_then(signal::next_signal) {
                if signal::asks_to_end(number) {
                    return Err(Failure::because(format!("interrupted by signal {number} before the program was ready")));
                }
            }
        }
    }

    /// Waits until the manager has read what was said: it asks the kernel about the sender, who must not be gone then.
    fn barrier(&self) -> Result<(), Failure> {
        let (ours, theirs) = socket::seqpacket_pair()?;
        if socket::send(&self.manager, b"BARRIER=1", Some(theirs.as_fd())).is_ok() {
            drop(theirs);
            process::poll(&[(ours.as_fd(), false)], Some(BARRIER))?;
        }
        Ok(())
    }
}

/// What the manager is told for what a program has said: known assignments only, and with the news that it is ready or has another
/// main process, the first process of the container as the main one. Its number in the container means nothing outside.
fn translate(text: &str, pid: i32) -> String {
    let known = |line: &&str| line.split_once('=').is_some_and(|(name, _)| PASSED_ON.contains(&name));
    let mut lines: Vec<String> = text.lines().filter(known).map(str::to_owned).collect();
    if text.lines().any(|line| line == "READY=1" || line.starts_with("MAINPID=")) {
        lines.push(format!("MAINPID={pid}"));
    }
    lines.join("\n")
}

/// After `start` and `run --detach`: stays until the program is ready.
///
/// # Errors
/// See [`Proxy::until_ready`].
pub fn wait(proxy: Option<Proxy>, pid: i32, init: &OwnedFd, signals: Option<&OwnedFd>) -> Result<(), Error> {
    Ok(proxy.map_or(Ok(()), |proxy| proxy.about(pid).until_ready(init, signals))?)
}

/// The variable as the program gets it.
pub fn variable() -> String {
    format!("{VARIABLE}={}", Path::new(INSIDE).join(SOCKET).display())
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn what_is_passed_on() {
        for (said, told) in [
            ("READY=1", "READY=1\nMAINPID=42"),
            ("STATUS=halfway\n", "STATUS=halfway"),
            ("MAINPID=1", "MAINPID=42"),
            ("MAINPID=7\nREADY=1\nSTATUS=up", "READY=1\nSTATUS=up\nMAINPID=42"),
            ("FDSTORE=1\nFDNAME=x", ""),
            ("NOTIFYACCESS=all", ""),
            ("READY=0", "READY=0"),
            ("", ""),
            ("WATCHDOG=1", "WATCHDOG=1"),
        ] {
            assert_eq!(translate(said, 42), told, "{said:?}");
        }
    }
}
