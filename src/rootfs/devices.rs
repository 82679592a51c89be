//! Device nodes, made in a directory that was resolved below the root, or bound from the host.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::sys::mount as call;
use crate::sys::{At, CallError, fs};

use super::mounts::Warning;
use super::root::{InRoot, MountPoint, Root};
use super::steps::DeviceStep;

/// Makes a device available. A node that is there already, or is the host's, keeps its mode and owner: a warning, if the config wants others.
///
/// # Errors
/// The kernel's; or if something else is at its path.
pub fn provide(step: &DeviceStep, root: &Root) -> Result<Warning, Failure> {
    if step.bind { bind(step, root) } else { make(step, root) }
}

fn make(step: &DeviceStep, root: &Root) -> Result<Warning, Failure> {
    let (parent, name) = root.make_parent(&step.path)?;
    let device = libc::makedev(step.major, step.minor);
    match fs::mknodat(At::from(&parent), &name, step.kind, step.mode, device) {
        Err(error) if error.is(libc::EEXIST) => return expect_device(step, &parent, &name),
        other => other?,
    }
    // Init's umask is 0, so the mode is exact. It is not set by name again: somebody with access to the rootfs could have put a link there.
    if (step.uid, step.gid) != (0, 0) {
        fs::fchownat(At::from(&parent), &name, step.uid, step.gid)?;
    }
    Ok(None)
}

/// "If a file already exists at path that does not match the requested device, the runtime MUST generate an error"
/// (config-linux.md, "Devices").
fn expect_device(step: &DeviceStep, parent: &OwnedFd, name: &Path) -> Result<Warning, Failure> {
    let stat = fs::fstatat(At::from(parent), name, libc::AT_SYMLINK_NOFOLLOW)?;
    let matches = stat.is(step.kind) && (step.kind == libc::S_IFIFO || stat.rdev == libc::makedev(step.major, step.minor));
    if matches {
        return Ok(kept(step, &stat));
    }
    let expected = described(step.kind, step.major, step.minor);
    let found = described(stat.kind, libc::major(stat.rdev), libc::minor(stat.rdev));
    Err(Failure::because(format!("{} exists and is not the requested device: expected {expected}, found {found}", step.path)))
}

/// What a node that is not ours keeps against the config.
fn kept(step: &DeviceStep, stat: &fs::Stat) -> Warning {
    let mode = step.mode_asked && (step.mode ^ stat.mode) & 0o777 != 0;
    let owner = (step.uid, step.gid) != (0, 0) && (step.uid, step.gid) != (stat.uid, stat.gid);
    let text = || format!("{} was there before and keeps mode {:o} and owner {}:{}", step.path, stat.mode, stat.uid, stat.gid);
    (mode || owner).then(text)
}

/// What is at a path, in words.
fn described(kind: u32, major: u32, minor: u32) -> String {
    match kind {
        libc::S_IFCHR => format!("character device {major}:{minor}"),
        libc::S_IFBLK => format!("block device {major}:{minor}"),
        libc::S_IFIFO => "a fifo".to_owned(),
        libc::S_IFDIR => "a directory".to_owned(),
        libc::S_IFLNK => "a symbolic link".to_owned(),
        libc::S_IFREG => "a file".to_owned(),
        _ => "something else".to_owned(),
    }
}

/// A user namespace may not make device nodes: the host's node of the same name is bound, if it is the right one.
fn bind(step: &DeviceStep, root: &Root) -> Result<Warning, Failure> {
    if step.kind == libc::S_IFIFO {
        return make(step, root);
    }
    let source = step.path.as_path();
    let node = fs::openat(At::Cwd, source, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let stat = fs::fstat(&node)?;
    if !stat.is(step.kind) || stat.rdev != libc::makedev(step.major, step.minor) {
        return Err(Failure::because(format!("the host's {} is not device {}:{}", source.display(), step.major, step.minor)));
    }
    let (parent, name) = root.make_parent(&step.path)?;
    let exists = fs::fstatat(At::from(&parent), &name, libc::AT_SYMLINK_NOFOLLOW);
    // An empty file is what an earlier mount on it has left.
    if exists.is_ok_and(|stat| !(stat.is(libc::S_IFREG) && stat.size == 0)) {
        return expect_device(step, &parent, &name);
    }
    let detached = call::open_tree_clone(At::from(&node), Path::new(""), false, false)?;
    let target = root.mount_point(&step.path, MountPoint::File)?;
    call::move_mount(&detached, &target)?;
    Ok(kept(step, &stat))
}

/// Makes a symbolic link. What is there stays, or makes way if `replace`: /dev/ptmx has to be the container's own
/// (config-linux.md, "Default Devices").
///
/// # Errors
/// The kernel's.
pub fn link(path: &InRoot, target: &Path, replace: bool, root: &Root) -> Result<(), Failure> {
    let (parent, name) = root.make_parent(path)?;
    match fs::symlinkat(target, At::from(&parent), &name) {
        Err(error) if error.is(libc::EEXIST) => {}
        other => return Ok(other?),
    }
    if !replace || fs::readlinkat(At::from(&parent), &name).is_ok_and(|found| found == target) {
        return Ok(());
    }
    fs::unlinkat(At::from(&parent), &name, 0)?;
    Ok(fs::symlinkat(target, At::from(&parent), &name)?)
}

/// A descriptor of the real /dev/null of the host, verified: character device 1:3.
///
/// # Errors
/// If it is something else (CVE-2025-31133).
pub fn null() -> Result<OwnedFd, Failure> {
    let open = || {
        let null = fs::openat(At::Cwd, Path::new("/dev/null"), libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        if !fs::fstat(&null)?.is_char_device(1, 3) {
            return Err(CallError::new("fstat", "\"/dev/null\" is not character device 1:3", libc::ENODEV));
        }
        Ok(null)
    };
    open().doing(|| "open /dev/null")
}
