//! The pid file, and the pidfd that is sent to a socket: how a caller learns which process init is.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Doing, Failure};
use crate::sys::{At, CallResult, fs, socket};

/// Writes the pid, digits without a newline, under a temporary name, and renames it: who waits for the file finds it complete.
///
/// The temporary file is new and next to the pid file; no link is followed to it.
///
/// # Errors
/// The kernel's; no temporary file is left.
pub fn write(path: &Path, pid: i32) -> Result<(), Failure> {
    let name = path.file_name().ok_or_else(|| Failure::because(format!("{path:?}: expected the name of a file")))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = fs::openat(At::Cwd, parent, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let (temporary, file) = temporary(&directory, &name.to_string_lossy())?;
    let done = fs::write_all(&file, pid.to_string().as_bytes())
        .and_then(|()| fs::renameat(At::from(&directory), &temporary, Path::new(name)));
    if done.is_err() {
        // The error that is reported is the first one.
        let _ = fs::unlinkat(At::from(&directory), &temporary, 0);
    }
    done.doing(|| format!("write {path:?}"))
}

/// A new file. What has its name is what a command of the same pid has left, or somebody's trap: another name is taken.
fn temporary(directory: &OwnedFd, name: &str) -> CallResult<(PathBuf, OwnedFd)> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let mut attempt = 0;
    loop {
        // The name of a pid file may be as long as a name can be.
        let short: String = name.chars().take(40).collect();
        let path = PathBuf::from(format!(".{short}.{}.{attempt}", std::process::id()));
        match fs::openat(At::from(directory), &path, flags, 0o644) {
            Err(error) if error.is(libc::EEXIST) && attempt < 100 => attempt += 1,
            other => return other.map(|file| (path, file)),
        }
    }
}

/// Sends a pidfd over a connection, with a word that says of what kind the process is: `standard` for the first process of a
/// container, `setns` for one that joins it, as runc has it.
///
/// # Errors
/// If nobody listens any more.
pub fn send_pidfd(connection: &OwnedFd, pidfd: BorrowedFd<'_>, first: bool) -> Result<(), Failure> {
    let word: &[u8] = if first { b"standard" } else { b"setns" };
    socket::send(connection, word, Some(pidfd)).doing(|| "send the pidfd")
}
