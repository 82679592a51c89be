//! Mounts: built detached, attached to an `O_PATH` target below the root.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::procfs::ProcFs;
use crate::sys::mount::{self as call, SetAttr};
use crate::sys::{At, CallError, CallResult, fs, ns};

use super::options::{Change, PropagationChange};
use super::root::{InRoot, MountPoint, Root};
use super::steps::{MountKind, MountStep, OpenedBy};
use super::{cgroup_mount, copy_up};

/// The kernel's limit of an option value in fsconfig(2), with its NUL.
const MAX_FSCONFIG: usize = 256;

/// The trees that the launcher has opened (or found, as `O_PATH` descriptors), by the number of their mount.
pub type Sources = BTreeMap<usize, OwnedFd>;

/// A clone of a host tree, for the launcher (with its rights) or init (in its namespace). A symbolic link is cloned itself unless `follow`.
///
/// # Errors
/// The kernel's.
pub fn open_source(source: &Path, recursive: bool, follow: bool) -> Result<OwnedFd, Failure> {
    Ok(call::open_tree_clone(At::Cwd, source, recursive, follow)?)
}

/// A clone of what the launcher has found, made in the host's mount namespace, from where init comes back at once.
///
/// setns(2) moves root and working directory to the root of the namespace; the caller's root may be another one (chroot).
fn clone_outside(found: &OwnedFd, recursive: bool, host: Option<&OwnedFd>, procfs: &ProcFs) -> Result<OwnedFd, Failure> {
    let host = host.ok_or_else(|| Failure::because("the host's mount namespace was not opened"))?;
    let own = procfs.open_namespace("self/ns/mnt").doing(|| "open the container's mount namespace")?;
    let place = |path: &str| fs::openat(At::Cwd, Path::new(path), libc::O_PATH | libc::O_DIRECTORY, 0);
    let (root, cwd) = (place("/")?, place(".")?);
    ns::setns(host, libc::CLONE_NEWNS).doing(|| "go back to the host's mount namespace")?;
    let cloned = call::open_tree_clone(At::from(found), Path::new(""), recursive, false);
    ns::setns(&own, libc::CLONE_NEWNS).doing(|| "return to the container's mount namespace")?;
    fs::fchdir(&root)?;
    fs::chroot(Path::new("."))?;
    fs::fchdir(&cwd)?;
    Ok(cloned?)
}

/// What happened instead of what was planned: to be told to the user.
pub type Warning = Option<String>;

/// Carries a mount out. `host` is the host's mount namespace, if the plan needs it.
///
/// # Errors
/// The kernel's.
pub fn mount(
    step: &MountStep,
    root: &Root,
    sources: &Sources,
    host: Option<&OwnedFd>,
    procfs: &ProcFs,
) -> Result<Warning, Failure> {
    match &step.kind {
        MountKind::Filesystem { .. } => filesystem(step, root, sources, procfs),
        MountKind::Bind { source, recursive, opened_by } => {
            let opened;
            let by_launcher = || sources.get(&step.index).ok_or_else(|| Failure::because("the source was not opened"));
            let detached = match opened_by {
                OpenedBy::Launcher => by_launcher()?,
                OpenedBy::Init => {
                    opened = open_source(source, *recursive, step.links.of_source_followed())?;
                    &opened
                }
                OpenedBy::InitOutside => {
                    opened = clone_outside(by_launcher()?, *recursive, host, procfs)?;
                    &opened
                }
            };
            bind(step, root, detached).map(|()| None)
        }
        MountKind::Cgroup(mount) => {
            let target = root.mount_point(&step.destination, MountPoint::Directory)?;
            let attached = cgroup_mount::attach(mount, &target, step.own)?;
            propagate(&attached, &step.propagation)?;
            Ok(None)
        }
        MountKind::Remount { .. } => remount(step, root).map(|()| None),
    }
}

fn filesystem(step: &MountStep, root: &Root, sources: &Sources, procfs: &ProcFs) -> Result<Warning, Failure> {
    let MountKind::Filesystem { fstype, data, .. } = &step.kind else { return Ok(None) };
    let mode = hidden_mode(step, root);
    let target =
        if step.plain_destination { plain_target(root, &step.destination)? } else { directory(root, &step.destination)? };
    if needs_mount_call(&step.kind) {
        return by_string(step, &target, root, mode, procfs).map(|()| None);
    }
    let made;
    // The attributes come after what is written into it.
    let late = step.copy_up || mode.is_some();
    let detached = match sources.get(&step.index) {
        Some(made_by_launcher) => made_by_launcher,
        None => match detached(&step.kind, if late { 0 } else { step.own.set }) {
            Err(failure) if fstype == "sysfs" && failure.is(libc::EPERM) => return sysfs_stand_in(step, &target).map(Some),
            other => {
                made = other?;
                &made
            }
        },
    };
    if step.copy_up {
        let hidden = root.open(&step.destination, libc::O_RDONLY | libc::O_DIRECTORY)?;
        copy_up::copy(&hidden, detached, !data.iter().any(|(key, _)| key == "mode"))?;
    }
    keep_mode(detached, mode)?;
    if late || sources.contains_key(&step.index) {
        change(detached, step.own, false)?;
    }
    finish(step, detached, &target)?;
    if let Some(label) = &step.root_label {
        let directory = root.open(&step.destination, libc::O_RDONLY | libc::O_DIRECTORY)?;
        fs::fsetxattr(&directory, c"security.selinux", label.as_bytes()).doing(|| "label its root")?;
    }
    Ok(None)
}

/// The mode of the directory that a tmpfs is about to hide, if its options name none: an image's /run is no more writable for everybody
/// than it was, which the kernel's own default (1777) would make it. A mount point that is missing has no mode to be kept.
fn hidden_mode(step: &MountStep, root: &Root) -> Option<u32> {
    let MountKind::Filesystem { fstype, data, .. } = &step.kind else { return None };
    if fstype != "tmpfs" || step.copy_up || step.id_map.is_some() || data.iter().any(|(key, _)| key == "mode") {
        return None;
    }
    let hidden = root.open(&step.destination, libc::O_PATH | libc::O_DIRECTORY).and_then(|found| fs::fstat(&found));
    hidden.ok().map(|stat| stat.mode)
}

fn keep_mode(mount: &OwnedFd, mode: Option<u32>) -> CallResult<()> {
    mode.map_or(Ok(()), |mode| fs::fchmodat(At::from(mount), Path::new("."), mode))
}

fn directory(root: &Root, destination: &InRoot) -> Result<OwnedFd, Failure> {
    root.mount_point(destination, MountPoint::Directory)
}

/// The mount point of proc and sysfs: a link in the image must not lead it elsewhere.
fn plain_target(root: &Root, destination: &InRoot) -> Result<OwnedFd, Failure> {
    match root.resolve_plain(destination) {
        Err(error) if error.is(libc::ENOENT) => directory(root, destination),
        Err(error) if error.is(libc::ELOOP) => {
            Err(Failure::from(error).hint("the mount points of proc and sysfs must be plain directories in the image, not links"))
        }
        other => Ok(other?),
    }
}

/// A new superblock and a mount of it with these attributes. What the filesystem says about bad options becomes part of the error.
///
/// # Errors
/// The kernel's.
pub fn detached(kind: &MountKind, attributes: u64) -> Result<OwnedFd, Failure> {
    let MountKind::Filesystem { fstype, source, superblock, data } = kind else {
        return Err(Failure::because("not a filesystem"));
    };
    let context = context(fstype)?;
    with_message(&context, || {
        if let Some(source) = source {
            call::fsconfig_string(&context, "source", source)?;
        }
        configure(&context, superblock, data)?;
        call::fsconfig_create(&context)?;
        call::fsmount(&context, attributes)
    })
}

fn context(fstype: &str) -> Result<OwnedFd, Failure> {
    call::fsopen(fstype).map_err(|error: CallError| match error.is(libc::ENODEV) {
        true => Failure { reason: Some(format!("unknown filesystem type {fstype:?}")), ..Failure::from(error) },
        false => error.into(),
    })
}

/// Asks the kernel whether it knows a filesystem type and lets us use it.
///
/// # Errors
/// The kernel's.
pub fn know(kind: &MountKind) -> Result<(), Failure> {
    match kind {
        MountKind::Filesystem { fstype, .. } => context(fstype).map(drop),
        _ => Ok(()),
    }
}

/// True for what fsconfig(2) cannot express: long values (an overlay's `lowerdir`) and `iversion`.
pub fn needs_mount_call(kind: &MountKind) -> bool {
    let MountKind::Filesystem { superblock, data, .. } = kind else { return false };
    let long = |(_, value): &(String, Option<String>)| value.as_ref().is_some_and(|value| value.len() >= MAX_FSCONFIG);
    superblock.contains(&"iversion") || data.iter().any(long)
}

/// MS_LAZYTIME, which the libc crate lacks.
const MS_LAZYTIME: u64 = 1 << 25;

/// The mount(2) flags with one more property that every filesystem understands.
fn superblock_flag(flags: u64, key: &str) -> u64 {
    match key {
        "async" => flags & !libc::MS_SYNCHRONOUS,
        "dirsync" => flags | libc::MS_DIRSYNC,
        "iversion" => flags | libc::MS_I_VERSION,
        "lazytime" => flags | MS_LAZYTIME,
        "mand" => flags | libc::MS_MANDLOCK,
        "nolazytime" => flags & !MS_LAZYTIME,
        "nomand" => flags & !libc::MS_MANDLOCK,
        "sync" => flags | libc::MS_SYNCHRONOUS,
        _ => flags,
    }
}

/// mount(2) through the descriptor of the target, see [`needs_mount_call`].
fn by_string(step: &MountStep, target: &OwnedFd, root: &Root, mode: Option<u32>, procfs: &ProcFs) -> Result<(), Failure> {
    let MountKind::Filesystem { fstype, source, superblock, data } = &step.kind else { return Ok(()) };
    // A comma in a label would end it here; quotes keep it (mount(8), "context").
    let word = |key: &str, value: &str| match key {
        "context" if value.contains(',') => format!("{key}=\"{value}\""),
        _ => format!("{key}={value}"),
    };
    let words = data.iter().map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| word(key, value)));
    let options: Vec<String> = words.collect();
    let flags = superblock.iter().fold(0, |flags, key| superblock_flag(flags, key));
    // The working directory stands for the target: no path is resolved anew.
    let here = procfs.reopen(&fs::openat(At::Cwd, Path::new("."), libc::O_PATH, 0)?, libc::O_PATH)?;
    fs::fchdir(target)?;
    let mounted = call::mount(source.as_deref().unwrap_or(fstype), Path::new("."), fstype, flags, &options.join(","));
    fs::fchdir(&here)?;
    mounted?;
    let attached = root.resolve(&step.destination)?;
    keep_mode(&attached, mode)?;
    change(&attached, step.own, false)?;
    propagate(&attached, &step.propagation)
}

/// A sysfs cannot be mounted in a user namespace that does not own the network namespace: the host's is bound instead.
fn sysfs_stand_in(step: &MountStep, target: &OwnedFd) -> Result<String, Failure> {
    let detached =
        open_source(Path::new("/sys"), true, true).doing(|| "bind the host's /sys, because a sysfs may not be mounted here")?;
    // Whatever the config says, it is the host's: read-only, with everything below.
    let own = Change { set: step.own.set | call::attr::RDONLY, clear: step.own.clear & !call::attr::RDONLY };
    change(&detached, own, true)?;
    finish(step, &detached, target)?;
    Ok(format!(
        "{}: a sysfs may not be mounted in this user namespace without a network namespace of its own; the host's /sys is bound read-only",
        step.destination
    ))
}

fn bind(step: &MountStep, root: &Root, detached: &OwnedFd) -> Result<(), Failure> {
    let source = fs::fstat(detached)?;
    if step.links.copy && source.is(libc::S_IFLNK) {
        return copy_link(detached, &step.destination, root);
    }
    let target = bind_target(step, root, source.is_dir())?;
    change(detached, step.own, false)?;
    finish(step, detached, &target)
}

/// What a bind mount is mounted on, made if it is missing.
pub(super) fn bind_target(step: &MountStep, root: &Root, directory: bool) -> Result<OwnedFd, Failure> {
    let kind = if directory { MountPoint::Directory } else { MountPoint::File };
    let itself = || root.open(&step.destination, libc::O_PATH | libc::O_NOFOLLOW);
    match step.links.destination.then(itself) {
        Some(Ok(there)) => Ok(there),
        Some(Err(error)) if !error.is(libc::ENOENT) => Err(error.into()),
        _ => root.mount_point(&step.destination, kind),
    }
}

/// Makes the link that was opened as a source. The same link may be there already; anything else is left alone.
fn copy_link(link: &OwnedFd, destination: &InRoot, root: &Root) -> Result<(), Failure> {
    let target = fs::readlinkat(At::from(link), Path::new(""))?;
    let (parent, name) = root.make_parent(destination)?;
    match fs::symlinkat(&target, At::from(&*parent), &name) {
        Err(error) if error.is(libc::EEXIST) => match fs::readlinkat(At::from(&*parent), &name) {
            Ok(found) if found == target => Ok(()),
            Ok(found) => {
                Err(Failure::because(format!("{destination} is a link to {found:?} already; expected one to {target:?}")))
            }
            Err(_) => Err(Failure::because(format!("{destination} is there already; expected nothing, or a link to {target:?}"))),
        },
        other => Ok(other?),
    }
}

/// Maps the ids of a detached mount as a user namespace maps them (Linux 5.12).
///
/// # Errors
/// The kernel's; `EINVAL` from a filesystem that does not support it.
pub fn map_ids(mount: &OwnedFd, namespace: &OwnedFd, recursive: bool) -> Result<(), Failure> {
    let request = SetAttr { set: call::attr::IDMAP, userns: Some(namespace.as_fd()), ..SetAttr::default() };
    call::mount_setattr(mount, &request, recursive).map_err(|error| {
        let hint = match error.errno {
            libc::EINVAL => {
                "this kernel does not support mapped ids on this filesystem, or its ids are mapped by that very namespace"
            }
            libc::EPERM => {
                "the filesystem belongs to a user namespace in which the caller has no rights, or its ids are mapped already"
            }
            libc::ENOSYS => "mapped ids need Linux 5.12",
            _ => return error.into(),
        };
        Failure::from(error).hint(hint)
    })
}

pub(super) fn finish(step: &MountStep, detached: &OwnedFd, target: &OwnedFd) -> Result<(), Failure> {
    change(detached, step.all, true)?;
    call::move_mount(detached, target)?;
    propagate(detached, &step.propagation)
}

pub(super) fn change(mount: &OwnedFd, change: Change, recursive: bool) -> Result<(), Failure> {
    if change.is_empty() {
        return Ok(());
    }
    let request = SetAttr { set: change.set, clear: change.clear, ..SetAttr::default() };
    Ok(call::mount_setattr(mount, &request, recursive)?)
}

/// Sets the propagation of a mount.
///
/// # Errors
/// The kernel's.
pub fn propagate(mount: &OwnedFd, changes: &[PropagationChange]) -> Result<(), Failure> {
    for change in changes {
        let request = SetAttr { propagation: change.flag, ..SetAttr::default() };
        call::mount_setattr(mount, &request, change.recursive)?;
    }
    Ok(())
}

/// Only what is named changes: mount(2) with `MS_REMOUNT` would also clear every attribute that it is not told of.
fn remount(step: &MountStep, root: &Root) -> Result<(), Failure> {
    let MountKind::Remount { superblock, data } = &step.kind else { return Ok(()) };
    let target = root.resolve(&step.destination)?;
    if !superblock.is_empty() || !data.is_empty() {
        let context = call::fspick(&target)?;
        with_message(&context, || {
            configure(&context, superblock, data)?;
            call::fsconfig_reconfigure(&context)
        })?;
    }
    change(&target, step.own, false)?;
    change(&target, step.all, true)?;
    propagate(&target, &step.propagation)
}

/// Tells a filesystem context its options.
fn configure(context: &OwnedFd, superblock: &[&'static str], data: &[(String, Option<String>)]) -> CallResult<()> {
    for key in superblock {
        call::fsconfig_flag(context, key)?;
    }
    for (key, value) in data {
        match value {
            Some(value) => call::fsconfig_string(context, key, value)?,
            None => call::fsconfig_flag(context, key)?,
        }
    }
    Ok(())
}

/// What the filesystem says about bad options becomes part of the error.
fn with_message<T>(context: &OwnedFd, action: impl FnOnce() -> CallResult<T>) -> Result<T, Failure> {
    action().map_err(|error| match call::fscontext_message(context) {
        Some(message) => Failure { reason: Some(message), ..Failure::from(error) },
        None => error.into(),
    })
}
