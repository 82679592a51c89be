//! A rootfs that takes every change and keeps none: an overlay in memory, for a rehearsal.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::sys::mount::{self as call, SetAttr, attr};
use crate::sys::{At, CallResult, fs};

use super::Root;
use super::steps::{MountKind, MountStep};

/// Covers the attached root. Where the kernel has no overlay for us the root becomes read-only instead: nothing is changed in either case,
/// but then what is missing in it cannot be made.
///
/// # Errors
/// The kernel's.
pub fn cover(root: &Root) -> Result<Root, Failure> {
    match overlay(root.fd()) {
        Ok(covered) => Ok(Root::new(covered)),
        Err(_) => {
            let change = SetAttr { set: attr::RDONLY, ..SetAttr::default() };
            call::mount_setattr(root.fd(), &change, true).doing(|| "protect the root filesystem from the rehearsal")?;
            Ok(Root::new(fs::openat(At::from(root.fd()), Path::new("."), libc::O_PATH | libc::O_DIRECTORY, 0)?))
        }
    }
}

fn overlay(lower: &OwnedFd) -> CallResult<OwnedFd> {
    let memory = call::fsopen("tmpfs")?;
    call::fsconfig_string(&memory, "mode", "0755")?;
    call::fsconfig_create(&memory)?;
    let memory = call::fsmount(&memory, 0)?;
    for name in ["upper", "work"] {
        fs::mkdirat(At::from(&memory), Path::new(name), 0o755)?;
    }
    own_as(lower, &memory)?;
    // Kernels below 6.15 make an overlay of attached mounts only. Nobody looks anything up through what lies on `/` itself.
    let slash = fs::openat(At::Cwd, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0)?;
    call::move_mount(&memory, &slash)?;
    let made = overlay_of(lower, &memory, true).or_else(|_| overlay_of(lower, &memory, false));
    // The overlay has its own hold of it.
    fs::fchdir(&memory)?;
    let gone = call::umount2(Path::new("."), libc::MNT_DETACH);
    fs::chdir(Path::new("/"))?;
    gone?;
    let overlay = made?;
    call::move_mount(&overlay, &slash)?;
    Ok(overlay)
}

/// A mount of the host's files takes no change any more, with all below it.
///
/// # Errors
/// The kernel's.
pub fn protect(mount: &MountStep, root: &Root) -> Result<(), Failure> {
    let MountKind::Bind { .. } = mount.kind else { return Ok(()) };
    let change = SetAttr { set: attr::RDONLY, ..SetAttr::default() };
    let place = root.resolve(&mount.destination)?;
    call::mount_setattr(&place, &change, true).doing(|| "protect the host's files from the rehearsal")
}

/// The root of an overlay belongs to whom its upper directory belongs.
fn own_as(lower: &OwnedFd, memory: &OwnedFd) -> CallResult<()> {
    let stat = fs::fstat(lower)?;
    let upper = Path::new("upper");
    fs::fchmodat(At::from(memory), upper, stat.mode)?;
    // An id that is not mapped cannot be set, and means nothing inside.
    let _ = fs::fchownat(At::from(memory), upper, stat.uid, stat.gid);
    Ok(())
}

fn overlay_of(lower: &OwnedFd, memory: &OwnedFd, user_attributes: bool) -> CallResult<OwnedFd> {
    let context = call::fsopen("overlay")?;
    let path = |fd: &OwnedFd, below: &str| format!("/proc/self/fd/{}{below}", fd.as_raw_fd());
    call::fsconfig_string(&context, "lowerdir", &path(lower, ""))?;
    call::fsconfig_string(&context, "upperdir", &path(memory, "/upper"))?;
    call::fsconfig_string(&context, "workdir", &path(memory, "/work"))?;
    if user_attributes {
        call::fsconfig_flag(&context, "userxattr")?;
    }
    call::fsconfig_create(&context)?;
    call::fsmount(&context, 0)
}
