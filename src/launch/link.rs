//! [`Link`]: one end of a `SOCK_SEQPACKET` pair, typed by what it sends and receives.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Doing, Failure};
use crate::sys::socket;

use super::protocol::{FromInit, ToInit};

/// The longest message: a failure with its texts. What comes from a process in foreign namespaces is not trusted to be shorter.
const MAX_MESSAGE: usize = 64 * 1024;

/// One end of a link.
#[derive(Debug)]
pub struct Link<Send, Receive> {
    fd: OwnedFd,
    /// Room for what is received, the same for all messages.
    room: RefCell<Vec<u8>>,
    types: PhantomData<(Send, Receive)>,
}

/// The launcher's end.
pub type LauncherLink = Link<ToInit, FromInit>;
/// Init's or the bridge's end.
pub type InitLink = Link<FromInit, ToInit>;

/// A new pair.
///
/// # Errors
/// The kernel's.
pub fn pair() -> Result<(LauncherLink, InitLink), Failure> {
    let (first, second) = socket::seqpacket_pair()?;
    Ok((Link::new(first), Link::new(second)))
}

impl<Send, Receive> Link<Send, Receive> {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, room: RefCell::default(), types: PhantomData }
    }
}

impl<Send: Serialize, Receive: DeserializeOwned> Link<Send, Receive> {
    /// Sends a message, with a descriptor where the protocol says so.
    ///
    /// # Errors
    /// If the other end is gone.
    pub fn send(&self, message: &Send, fd: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(message).map_err(|error| Failure::because(error.to_string()))?;
        socket::send(&self.fd, &bytes, fd).doing(|| "send a message between launcher and init")
    }

    /// Receives a message; `None` if the other end is gone.
    ///
    /// # Errors
    /// If what came is not a message.
    pub fn receive(&self) -> Result<Option<(Receive, Option<OwnedFd>)>, Failure> {
        let mut data = self.room.borrow_mut();
        let fd = match socket::receive_into(&self.fd, MAX_MESSAGE, &mut data) {
            // The other end died with a message of ours unread. The kernel says so once, before what it had sent (the error of a socket
            // is looked at first); its last word is still there.
            Err(error) if error.is(libc::ECONNRESET) => socket::receive_into(&self.fd, MAX_MESSAGE, &mut data),
            other => other,
        }
        .doing(|| "receive a message between launcher and init")?;
        if data.is_empty() {
            return Ok(None);
        }
        let message = serde_json::from_slice(&data)
            .map_err(|error| Failure::because(format!("unknown message between launcher and init: {error}")))?;
        Ok(Some((message, fd)))
    }
}

impl<Send, Receive> AsFd for Link<Send, Receive> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
