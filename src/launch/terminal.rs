//! Who gets the master of the container's terminal.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Doing, Failure};
use crate::sys::{socket, tty};

/// Hands the master that came along to the console socket. Without one it is returned, for the proxy.
///
/// # Errors
/// If none came along, or nobody listens.
pub fn hand_out(master: Option<OwnedFd>, console: Option<OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    let master = master.ok_or_else(|| Failure::because("no terminal came along"))?;
    if let Some(console) = console {
        socket::send(&console, b"/dev/ptmx", Some(master.as_fd())).doing(|| "send the terminal to the console socket")?;
        return Ok(None);
    }
    // Before the program asks: it has the size of the caller's terminal from the start.
    if let Ok(size) = tty::get_size(std::io::stdin()) {
        tty::set_size(&master, size)?;
    }
    Ok(Some(master))
}
