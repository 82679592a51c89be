//! The little of networking that a runtime does itself: the loopback interface.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use super::{CallResult, check, check_fd};

/// Sets the interface `lo` of the current network namespace up (netdevice(7), `SIOCSIFFLAGS`).
///
/// # Errors
/// The kernel's.
pub fn loopback_up() -> CallResult<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let socket = check_fd(ret, "socket", || "AF_INET, SOCK_DGRAM")?;
    // SAFETY: an all-zero ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = 0x41; // IFF_UP | IFF_RUNNING
    // SAFETY: the request outlives the call and is what this ioctl reads.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(ret.into(), "ioctl", || "SIOCSIFFLAGS, {\"lo\", IFF_UP|IFF_RUNNING}").map(drop)
}
