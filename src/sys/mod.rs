//! The only unsafe code of the crate: thin wrappers around system calls, without policy.
//!
//! Each wrapper bears the kernel's name, takes and returns owned descriptors, and fails with a [`CallError`] that
//! remembers its arguments, so that an error message reads like a line of strace.

#![allow(unsafe_code, reason = "this module is where the crate's unsafe code lives; everything outside is denied it")]

pub mod bpf;
pub mod cred;
mod descriptors;
pub mod errno;
pub mod exe;
mod flags;
pub mod fs;
pub mod heap;
pub mod libseccomp;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod ns;
pub mod process;
pub mod signal;
pub mod socket;
pub mod stack;
pub mod tty;

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A failed system call: its name, its arguments as text, and the error number it returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    /// The kernel's name of the call, such as `openat2`.
    pub call: String,
    /// The arguments as strace would print them.
    pub args: String,
    /// The error number (`errno`), positive.
    pub errno: i32,
}

impl CallError {
    /// Builds an error from the current `errno` of this thread.
    pub fn last(call: &str, args: impl Into<String>) -> Self {
        Self::new(call, args, std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// Builds an error with a given error number.
    pub fn new(call: &str, args: impl Into<String>, errno: i32) -> Self {
        Self { call: call.to_owned(), args: args.into(), errno }
    }

    /// Builds an error from one of the standard library's, which forgets its arguments.
    pub fn from_io(call: &str, args: impl Into<String>, error: &std::io::Error) -> Self {
        Self::new(call, args, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// True if the call failed with this error number.
    pub fn is(&self, errno: i32) -> bool {
        self.errno == errno
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {} ({})", self.call, self.args, errno::text(self.errno), errno::name(self.errno))
    }
}

impl std::error::Error for CallError {}

/// The result of a system call.
pub type CallResult<T> = Result<T, CallError>;

/// Turns the -1 of a libc call into a [`CallError`]; the arguments are formatted only on failure.
fn check<A: Into<String>>(ret: i64, call: &str, args: impl FnOnce() -> A) -> CallResult<i64> {
    if ret == -1 {
        let error = std::io::Error::last_os_error();
        return Err(CallError::from_io(call, args(), &error));
    }
    Ok(ret)
}

/// Like [`check`], for calls that return a small number (a descriptor, a pid, a count).
fn check_int<A: Into<String>>(ret: impl Into<i64>, call: &str, args: impl FnOnce() -> A) -> CallResult<i32> {
    let value = check(ret.into(), call, args)?;
    i32::try_from(value).map_err(|_| CallError::new(call, "result out of range", libc::EOVERFLOW))
}

/// Takes ownership of the descriptor that a successful call returned.
fn check_fd<A: Into<String>>(ret: impl Into<i64>, call: &str, args: impl FnOnce() -> A) -> CallResult<OwnedFd> {
    let raw = check_int(ret, call, args)?;
    // SAFETY: the kernel has just returned this descriptor to us, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A path or string as the kernel wants it. A NUL inside is an `EINVAL` of the call that would have received it.
fn c_string(call: &str, bytes: impl AsRef<[u8]>) -> CallResult<CString> {
    let bytes = bytes.as_ref();
    CString::new(bytes).map_err(|_| CallError::new(call, format!("{:?}", String::from_utf8_lossy(bytes)), libc::EINVAL))
}

/// See [`c_string`].
fn c_path(call: &str, path: &Path) -> CallResult<CString> {
    use std::os::unix::ffi::OsStrExt;
    c_string(call, path.as_os_str().as_bytes())
}

/// The directory descriptor argument of the `*at` calls.
#[derive(Clone, Copy, Debug)]
pub enum At<'fd> {
    /// Relative paths start at the current directory.
    Cwd,
    /// Relative paths start at this directory; an empty path may name the descriptor itself.
    Fd(BorrowedFd<'fd>),
}

impl At<'_> {
    fn raw(self) -> RawFd {
        match self {
            At::Cwd => libc::AT_FDCWD,
            At::Fd(fd) => fd.as_raw_fd(),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Cwd => f.write_str("AT_FDCWD"),
            At::Fd(fd) => write!(f, "{}", fd.as_raw_fd()),
        }
    }
}

impl<'fd, F: std::os::fd::AsFd> From<&'fd F> for At<'fd> {
    fn from(fd: &'fd F) -> Self {
        At::Fd(fd.as_fd())
    }
}
