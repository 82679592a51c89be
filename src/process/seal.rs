//! Keeping the runtime's own binary out of reach of the container (CVE-2019-5736).
//!
//! A process that enters a container can be looked at from inside; its /proc/PID/exe would lead to our binary, and so would an
//! image's interpreter line of /proc/self/exe. Commands that enter a container therefore do not run from the binary as it is
//! installed, but from a detached read-only clone of the mount that holds it, whose descriptor is closed at once: the anonymous
//! mount namespace goes with it, and after that nothing can make the clone writable again.
//!
//! There are three ways, the cheapest first. Where the binary cannot be written to anyway, nothing is done. A privileged caller maps itself
//! anew from the clone ([`crate::sys::exe`]), about 0.1 ms. Others, and kernels that do not let them, execute themselves anew from
//! the clone or from a sealed copy in memory, about 0.5 to 2 ms.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::process::capabilities::SYS_ADMIN;
use crate::sys::mount::{self, SetAttr, attr};
use crate::sys::{At, CallResult, cred, exe, fs, process};

/// Set across the execution, so that a clone that does not help is an error and not a loop.
const MARK: &str = "_RT_SEALED";

/// Makes sure that this process runs from a file that no container can write to. Returns if that is so already.
///
/// # Errors
/// If neither a read-only clone nor a sealed copy can be made.
pub fn seal() -> Result<(), Failure> {
    let exe = Path::new("/proc/self/exe");
    let binary = fs::openat(At::Cwd, exe, libc::O_RDONLY, 0).doing(|| "open the own binary")?;
    if is_safe(&binary)? {
        remove_mark();
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(Failure::because("protect the own binary: it can still be written to after it was sealed"));
    }
    if run_from_clone(&binary).is_ok() && is_safe(&fs::openat(At::Cwd, exe, libc::O_RDONLY, 0)?)? {
        return Ok(());
    }
    execute_anew(&sealed(&binary)?).map(|never| match never {}).doing(|| "execute the sealed binary")
}

/// True if the binary lies on a read-only mount, is a sealed memfd, or belongs to somebody whose rights no container of this
/// caller has.
fn is_safe(binary: &OwnedFd) -> CallResult<bool> {
    if fs::fstatfs(binary)?.flags & libc::ST_RDONLY != 0 {
        return Ok(true);
    }
    if fs::get_seals(binary).is_ok_and(|seals| seals & libc::F_SEAL_WRITE != 0) {
        return Ok(true);
    }
    let stat = fs::fstat(binary)?;
    let caller = cred::geteuid();
    Ok(caller != 0 && stat.uid == 0 && stat.mode & 0o022 == 0 && !is_privileged())
}

fn is_privileged() -> bool {
    cred::capget().is_ok_and(|caps| caps.effective >> SYS_ADMIN & 1 == 1)
}

/// A detached read-only clone of the binary alone.
fn clone(binary: &OwnedFd) -> CallResult<OwnedFd> {
    let clone = mount::open_tree_clone(At::from(binary), Path::new(""), false, false)?;
    mount::mount_setattr(&clone, &SetAttr { set: attr::RDONLY, ..SetAttr::default() }, false)?;
    Ok(clone)
}

/// Goes on from a clone without an execution. Both descriptors are closed at the end.
fn run_from_clone(binary: &OwnedFd) -> CallResult<()> {
    let clone = clone(binary)?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&clone));
    let file = fs::openat(At::Cwd, Path::new(&link), libc::O_RDONLY, 0)?;
    exe::replace(&file)
}

fn sealed(binary: &OwnedFd) -> Result<OwnedFd, Failure> {
    // Without the right to mount, or where the binary lies outside of the mount namespace, a copy in memory does it.
    clone(binary).or_else(|_| copy(binary)).doing(|| "protect the own binary")
}

fn copy(binary: &OwnedFd) -> CallResult<OwnedFd> {
    let len = std::fs::metadata("/proc/self/exe").map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0));
    let memory = fs::memfd_create("rt")?;
    fs::copy_file(binary, &memory, len)?;
    fs::add_all_seals(&memory)?;
    Ok(memory)
}

fn execute_anew(file: &OwnedFd) -> Result<Infallible, Failure> {
    let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| Failure::because("a NUL among the arguments"));
    let argv: Vec<CString> = std::env::args_os().map(|arg| c_string(arg.into_vec())).collect::<Result<_, _>>()?;
    let mut envp: Vec<CString> = Vec::new();
    for (key, value) in std::env::vars_os() {
        let entry = [key.into_vec(), value.into_vec()].join(&b'=');
        envp.push(c_string(entry)?);
    }
    envp.push(c_string(format!("{MARK}=1").into_bytes())?);
    Ok(process::fexecve(file, &argv, &envp)?)
}

fn remove_mark() {
    if std::env::var_os(MARK).is_some() {
        crate::sys::process::remove_variable(MARK);
    }
}
