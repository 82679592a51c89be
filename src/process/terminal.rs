//! The container's terminal: opened from its own devpts after that has been verified, never by a name that the image chose.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::procfs::ProcFs;
use crate::rootfs::{InRoot, Root};
use crate::sys::tty::{self, Size};
use crate::sys::{At, CallError, CallResult, fs, mount};

/// Every ptmx node of a devpts has this inode number.
const PTMX_INODE: u64 = 2;

/// Opens a new pair from the ptmx of the container's devpts, which is looked at before it is opened.
///
/// # Errors
/// If there is no devpts at /dev/pts of the container (CVE-2025-52565: what is there may be the image's).
pub fn open(root: &Root, procfs: &ProcFs) -> Result<(OwnedFd, OwnedFd), Failure> {
    let verified = || -> CallResult<OwnedFd> {
        let node = root.resolve(&InRoot::new("/dev/pts/ptmx"))?;
        let stat = fs::fstat(&node)?;
        if fs::fstatfs(&node)?.magic != libc::DEVPTS_SUPER_MAGIC || stat.ino != PTMX_INODE || !stat.is_char_device(5, 2) {
            return Err(CallError::new("fstat", "\"/dev/pts/ptmx\" is not that of a devpts", libc::ENODEV));
        }
        procfs.reopen(&node, libc::O_RDWR | libc::O_NOCTTY)
    };
    let hint = "a terminal needs a devpts mounted on /dev/pts";
    let master = verified().doing(|| "open a terminal").map_err(|failure| failure.hint(hint))?;
    let peer = tty::open_peer(&master).doing(|| "open a terminal")?;
    Ok((master, peer))
}

/// Makes the terminal stdio and the controlling terminal of this session.
///
/// # Errors
/// The kernel's.
pub fn take(peer: &OwnedFd, size: Option<Size>) -> Result<(), Failure> {
    if let Some(size) = size {
        tty::set_size(peer, size)?;
    }
    tty::set_controlling(peer)?;
    for number in 0..3 {
        fs::dup2(peer, number)?;
    }
    Ok(())
}

/// Binds the terminal on /dev/console, which is made if it is missing and never followed.
///
/// # Errors
/// The kernel's.
pub fn bind_console(peer: &OwnedFd, root: &Root) -> Result<(), Failure> {
    let bind = || -> CallResult<()> {
        let (directory, name) = root.make_parent(&InRoot::new("/dev/console"))?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        if fs::fstatat(At::from(&directory), &name, libc::AT_SYMLINK_NOFOLLOW).is_err() {
            drop(fs::openat(At::from(&directory), &name, flags, 0o600)?);
        }
        let target = fs::openat(At::from(&directory), &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        if fs::fstat(&target)?.is(libc::S_IFLNK) {
            return Err(CallError::new("openat", "\"/dev/console\" is a symbolic link", libc::ELOOP));
        }
        let detached = mount::open_tree_clone(At::from(peer), Path::new(""), false, false)?;
        mount::move_mount(&detached, &target)
    };
    bind().doing(|| "bind the terminal on /dev/console")
}
