//! Namespaces: setns(2), unshare(2), and the ioctls of ioctl_ns(2).

use std::os::fd::{AsFd, AsRawFd};

use super::{CallResult, check, check_int};

const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// setns(2) with a namespace descriptor (one type) or a pidfd (any set of types).
///
/// # Errors
/// The kernel's; `EINVAL` if the descriptor is not of that type.
pub fn setns(fd: impl AsFd, types: i32) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::setns(fd, types) };
    check(ret.into(), "setns", || format!("{fd}, {types:#x}")).map(drop)
}

/// unshare(2).
///
/// # Errors
/// The kernel's.
pub fn unshare(types: i32) -> CallResult<()> {
    // SAFETY: no pointers are passed; the process has one thread, so nothing is torn apart under another.
    let ret = unsafe { libc::unshare(types) };
    check(ret.into(), "unshare", || format!("{types:#x}")).map(drop)
}

/// The `CLONE_NEW*` type of a namespace descriptor. Linux 4.11.
///
/// # Errors
/// `ENOTTY` if the descriptor is not a namespace.
pub fn namespace_type(fd: impl AsFd) -> CallResult<i32> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: this ioctl takes no argument.
    let ret = unsafe { libc::ioctl(fd, NS_GET_NSTYPE) };
    check_int(ret, "ioctl", || format!("{fd}, NS_GET_NSTYPE"))
}
