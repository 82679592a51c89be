//! Loads a program into the kernel: the one thing that happens in the process to be confined.

use std::os::fd::OwnedFd;

use super::Bpf;
use crate::sys::{CallResult, process};

/// Puts the calling thread under a filter, for good. With `listener` the result is the descriptor of the notifications.
///
/// # Errors
/// seccomp(2)'s; `EACCES` with neither no_new_privs nor CAP_SYS_ADMIN.
pub fn load(filter: &Bpf, flags: u64, listener: bool) -> CallResult<Option<OwnedFd>> {
    let wanted = if listener { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    process::seccomp_load(filter.as_bytes(), flags | wanted)
}
