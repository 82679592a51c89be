//! Waiting for descriptors: poll(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::sys::{CallResult, check};

/// The events of poll(2) that the crate looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other end is gone (`POLLHUP` or `POLLERR`).
    pub hangup: bool,
}

/// poll(2) on descriptors, for reading and, where the flag says so, for writing. `None` waits without end.
///
/// # Errors
/// The kernel's, but not `EINTR`, after which nothing is ready.
pub fn poll(fds: &[(BorrowedFd<'_>, bool)], timeout: Option<Duration>) -> CallResult<Vec<Ready>> {
    let events = |write: bool| libc::POLLIN | if write { libc::POLLOUT } else { 0 };
    let mut list: Vec<libc::pollfd> =
        fds.iter().map(|(fd, write)| libc::pollfd { fd: fd.as_raw_fd(), events: events(*write), revents: 0 }).collect();
    let millis = timeout.map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: the list has the given length and outlives the call.
    let ret = unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, millis) };
    match check(ret.into(), "poll", || format!("{} descriptors, {millis}", list.len())) {
        Err(error) if error.is(libc::EINTR) => list.iter_mut().for_each(|entry| entry.revents = 0),
        other => {
            other?;
        }
    }
    let ready = |entry: &libc::pollfd| Ready {
        readable: entry.revents & libc::POLLIN != 0,
        writable: entry.revents & libc::POLLOUT != 0,
        hangup: entry.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0,
    };
    Ok(list.iter().map(ready).collect())
}

/// poll(2) with the given events per descriptor, such as `POLLPRI`. Returns the events that came; none after a signal.
///
/// # Errors
/// The kernel's, but not `EINTR`.
pub fn poll_for(fds: &[(BorrowedFd<'_>, i16)], timeout: Option<Duration>) -> CallResult<Vec<i16>> {
    let entry = |(fd, events): &(BorrowedFd<'_>, i16)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 };
    let mut list: Vec<libc::pollfd> = fds.iter().map(entry).collect();
    // Rounded up, so that the rest of a millisecond is not spun away.
    let millis = timeout.map_or(-1, |limit| i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: the list has the given length and outlives the call.
    let ret = unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, millis) };
    match check(ret.into(), "poll", || format!("{} descriptors, {millis}", list.len())) {
        Err(error) if error.is(libc::EINTR) => return Ok(vec![0; list.len()]),
        other => other?,
    };
    Ok(list.iter().map(|entry| entry.revents).collect())
}

/// poll(2) for urgent data (`POLLPRI`), by which kernel files such as cgroup.events announce a change. False after the
/// timeout or a signal.
///
/// # Errors
/// The kernel's, but not `EINTR`.
pub fn poll_priority(fd: impl AsFd, timeout: Duration) -> CallResult<bool> {
    let mut entry = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    // Rounded up, so that the rest of a millisecond is not spun away.
    let millis = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: the one entry outlives the call.
    let ret = unsafe { libc::poll(&raw mut entry, 1, millis) };
    match check(ret.into(), "poll", || format!("[{{{}, POLLPRI}}], {millis}", entry.fd)) {
        Err(error) if error.is(libc::EINTR) => Ok(false),
        other => other.map(|ready| ready > 0),
    }
}
