//! Attaching the rootfs and becoming its inhabitant.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::sys::mount::{self as call, SetAttr};
use crate::sys::{At, fs};

use super::options::PropagationChange;
use super::root::Root;
use super::steps::Switch;

/// Sets the propagation of the mounts of this namespace, from `/` on.
///
/// # Errors
/// The kernel's.
pub fn set_propagation(change: PropagationChange) -> Result<(), Failure> {
    let slash = fs::openat(At::Cwd, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let request = SetAttr { propagation: change.flag, ..SetAttr::default() };
    Ok(call::mount_setattr(&slash, &request, change.recursive)?)
}

/// Attaches a clone of the rootfs over itself, so that it is a mount of its own, which pivot_root(2) demands. The descriptor of
/// the clone is the root from then on: it is not looked up by its name again.
///
/// # Errors
/// The kernel's.
pub fn attach_root(path: &Path, opened: Option<OwnedFd>) -> Result<Root, Failure> {
    let by_launcher = opened.is_some();
    let detached = match opened {
        Some(tree) => tree,
        None => call::open_tree_clone(At::Cwd, path, true, true)?,
    };
    if by_launcher {
        // It still belongs to the peer group of the host's mount.
        call::mount_setattr(&detached, &SetAttr { propagation: libc::MS_SLAVE, ..SetAttr::default() }, true)?;
    }
    // The user namespace may be unable to walk to the path (a directory of mode 0700 on the way): any directory will do
    // as the place, since nobody looks the root up by name. `/` itself is one that can always be reached.
    let target = match fs::openat(At::Cwd, path, libc::O_PATH | libc::O_DIRECTORY, 0) {
        Err(error) if by_launcher && error.is(libc::EACCES) => {
            fs::openat(At::Cwd, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0)?
        }
        other => other?,
    };
    call::move_mount(&detached, &target)?;
    // pivot_root(2) refuses a parent mount that is shared.
    Ok(Root::new(detached))
}

/// Makes the root `/` of this process.
///
/// # Errors
/// The kernel's.
pub fn switch(root: &Root, how: Switch) -> Result<(), Failure> {
    match how {
        Switch::Pivot => pivot(root),
        Switch::Move => {
            let slash = fs::openat(At::Cwd, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0)?;
            fs::fchdir(root.fd())?;
            call::move_mount(root.fd(), &slash)?;
            Ok(fs::chroot(Path::new("."))?)
        }
        Switch::Chroot => {
            fs::fchdir(root.fd())?;
            Ok(fs::chroot(Path::new("."))?)
        }
    }
}

/// pivot_root(".", ".") stacks the old root on the new one; it is unmounted from there.
fn pivot(root: &Root) -> Result<(), Failure> {
    let old = fs::openat(At::Cwd, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    fs::fchdir(root.fd())?;
    call::pivot_root_here().map_err(Failure::from).map_err(|failure| {
        if failure.is(libc::EINVAL) { failure.hint("a root on an initramfs needs --no-pivot") } else { failure }
    })?;
    // Nothing of the unmount may reach the host, whatever rootfsPropagation says.
    call::mount_setattr(&old, &SetAttr { propagation: libc::MS_SLAVE, ..SetAttr::default() }, true)?;
    fs::fchdir(&old)?;
    call::umount2(Path::new("."), libc::MNT_DETACH)?;
    fs::chdir(Path::new("/")).doing(|| "enter the new root")
}
