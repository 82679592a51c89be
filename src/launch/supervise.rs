//! Staying with a foreground process: forwarding signals, serving its terminal, and waiting for its end.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::child::Child;
use crate::error::Failure;
use crate::sys::process::{self, Exit};
use crate::sys::{fs, signal, tty};

use super::launcher::Launched;

/// How much of the terminal's traffic is held for a reader that is slow.
const MAX_PENDING: usize = 64 * 1024;

/// Waits for init's end, forwarding every signal but those that are about ourselves. `subreaper` says that orphans of the
/// container become our children and are reaped, too.
///
/// # Errors
/// The kernel's.
pub fn foreground(launched: Launched, subreaper: bool) -> Result<Exit, Failure> {
    let Launched { init, terminal, signals, mut notify } = launched;
    let mut proxy = terminal.map(Proxy::new).transpose()?;
    while let Some(pidfd) = init.pidfd() {
        let mut watched = vec![(pidfd.as_fd(), false), (signals.as_fd(), false)];
        if let Some(proxy) = &proxy {
            watched.extend(proxy.watch());
        }
        watched.extend(notify.as_ref().map(|notify| (notify.fd(), false)));
        let ready = process::poll(&watched, proxy.as_ref().and_then(Proxy::patience))?;
        if ready[1].readable {
            while let Some(number) = signal::next_signal(&signals) {
                on_signal(number, &init, proxy.as_ref(), subreaper);
            }
        }
        if let Some(proxy) = &mut proxy {
            proxy.pump();
        }
        if let Some(notify) = &mut notify {
            notify.pump();
        }
        if ready[0].readable {
            break;
        }
    }
    let exit = init.wait()?;
    if let Some(proxy) = &mut proxy {
        proxy.drain();
    }
    Ok(exit)
}

fn on_signal(number: i32, init: &Child, proxy: Option<&Proxy>, subreaper: bool) {
    match number {
        libc::SIGCHLD => {
            // Init itself is left for the end of the loop: it is waited for by its pidfd.
            while subreaper && init.pidfd().is_some_and(|pidfd| !process::pidfd_is_dead(pidfd)) && process::reap_any().is_some() {
            }
        }
        libc::SIGWINCH => {
            if let Some(proxy) = proxy {
                proxy.resize();
            }
        }
        libc::SIGURG | libc::SIGPIPE => {}
        // With a terminal of its own the program gets these from there, when somebody types them.
        libc::SIGTTIN | libc::SIGTTOU => {}
        _ => {
            if let Some(pidfd) = init.pidfd() {
                // It may have ended this instant.
                let _ = process::pidfd_send_signal(pidfd, number);
            }
        }
    }
}

/// Carries bytes between our stdio and the master of the container's terminal.
struct Proxy {
    master: OwnedFd,
    /// The settings of our own terminal, put back at the end.
    saved: Option<tty::Settings>,
    to_master: VecDeque<u8>,
    to_stdout: VecDeque<u8>,
    input_open: bool,
    /// Nobody in the container has the terminal open: waiting for it would not block.
    hung_up: bool,
}

/// How often a terminal that nobody has open is looked at again.
const HUNG_UP_INTERVAL: Duration = Duration::from_millis(50);

impl Proxy {
    fn new(master: OwnedFd) -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        let saved = if stdin.is_terminal() { Some(tty::get_settings(&stdin)?) } else { None };
        if let Some(settings) = &saved {
            tty::put_settings(&stdin, &tty::raw(settings))?;
        }
        fs::set_nonblocking(&master)?;
        let proxy =
            Self { master, saved, to_master: VecDeque::new(), to_stdout: VecDeque::new(), input_open: true, hung_up: false };
        proxy.resize();
        Ok(proxy)
    }

    /// Gives the container's terminal the size of ours.
    fn resize(&self) {
        if let Ok(size) = tty::get_size(std::io::stdin()) {
            // A terminal that is gone has no size to be set.
            let _ = tty::set_size(&self.master, size);
        }
    }

    /// How long to wait for events at most.
    fn patience(&self) -> Option<Duration> {
        self.hung_up.then_some(HUNG_UP_INTERVAL)
    }

    fn watch(&self) -> Vec<(BorrowedFd<'_>, bool)> {
        let mut watched = Vec::new();
        if !self.hung_up {
            watched.push((self.master.as_fd(), !self.to_master.is_empty()));
        }
        if self.input_open && self.to_master.len() < MAX_PENDING {
            watched.push((fs::stdin(), false));
        }
        watched
    }

    /// Moves what can be moved now, without blocking.
    fn pump(&mut self) {
        let mut buffer = [0u8; 16 * 1024];
        if self.input_open && fs::is_readable(fs::stdin()) {
            match fs::read(fs::stdin(), &mut buffer) {
                Ok(0) | Err(_) => {
                    // End of input: what a person would type.
                    self.input_open = false;
                    self.to_master.push_back(4);
                }
                Ok(len) => self.to_master.extend(&buffer[..len]),
            }
        }
        loop {
            match fs::read_available(&self.master, &mut buffer) {
                Ok(0) => {
                    self.hung_up = false;
                    break;
                }
                Ok(len) => {
                    self.to_stdout.extend(&buffer[..len]);
                    self.flush_stdout();
                }
                Err(_) => {
                    self.hung_up = true;
                    break;
                }
            }
        }
        while !self.to_master.is_empty() {
            let Ok(len @ 1..) = fs::write_some(&self.master, self.to_master.make_contiguous()) else { break };
            self.to_master.drain(..len);
        }
    }

    fn flush_stdout(&mut self) {
        // A reader that is gone does not end the container.
        let _ = fs::write_all(std::io::stdout(), self.to_stdout.make_contiguous());
        self.to_stdout.clear();
    }

    /// What the program said last.
    fn drain(&mut self) {
        self.input_open = false;
        self.pump();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(settings) = &self.saved {
            // The terminal may be gone.
            let _ = tty::put_settings(std::io::stdin(), settings);
        }
    }
}
