//! The mount API of Linux 5.2 and later: mounts are built detached and attached with move_mount(2).

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use super::{At, CallResult, c_path, c_string, check, check_fd};

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const AT_EMPTY_PATH: u32 = 0x1000;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// `MOUNT_ATTR_RDONLY` and its kin (mount_setattr(2)).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x01;
    /// No set-user-id programs.
    pub const NOSUID: u64 = 0x02;
    /// No device nodes.
    pub const NODEV: u64 = 0x04;
    /// No programs.
    pub const NOEXEC: u64 = 0x08;
    /// The field of access time settings; relatime is its zero.
    pub const ATIME: u64 = 0x70;
    /// Access times are not updated.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not updated.
    pub const NODIRATIME: u64 = 0x80;
    /// The mount maps ids (Linux 5.12).
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed (Linux 5.14).
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// fsopen(2): a filesystem context.
///
/// # Errors
/// The kernel's; `ENODEV` for an unknown filesystem type.
pub fn fsopen(kind: &str) -> CallResult<OwnedFd> {
    let name = c_string("fsopen", kind)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
    check_fd(ret, "fsopen", || format!("{kind:?}"))
}

/// fsconfig(2) with `FSCONFIG_SET_FLAG`.
///
/// # Errors
/// The kernel's.
pub fn fsconfig_flag(context: &OwnedFd, key: &str) -> CallResult<()> {
    let fd = context.as_raw_fd();
    let name = c_string("fsconfig", key)?;
    // SAFETY: `name` outlives the call, the value is null as this command demands.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_FLAG, name.as_ptr(), std::ptr::null::<u8>(), 0) };
    check(ret, "fsconfig", || format!("{fd}, FSCONFIG_SET_FLAG, {key:?}")).map(drop)
}

/// fsconfig(2) with `FSCONFIG_SET_STRING`; the kernel takes at most 255 bytes of value.
///
/// # Errors
/// The kernel's.
pub fn fsconfig_string(context: &OwnedFd, key: &str, value: &str) -> CallResult<()> {
    let fd = context.as_raw_fd();
    let name = c_string("fsconfig", key)?;
    let text = c_string("fsconfig", value)?;
    // SAFETY: both strings outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_STRING, name.as_ptr(), text.as_ptr(), 0) };
    check(ret, "fsconfig", || format!("{fd}, FSCONFIG_SET_STRING, {key:?}, {value:?}")).map(drop)
}

/// fsconfig(2) with `FSCONFIG_CMD_CREATE`: makes the superblock.
///
/// # Errors
/// The kernel's.
pub fn fsconfig_create(context: &OwnedFd) -> CallResult<()> {
    let fd = context.as_raw_fd();
    let null = std::ptr::null::<u8>();
    // SAFETY: key and value are null as this command demands.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) };
    check(ret, "fsconfig", || format!("{fd}, FSCONFIG_CMD_CREATE")).map(drop)
}

/// fspick(2): a context for the superblock of the mount that a descriptor names.
///
/// # Errors
/// The kernel's; `EPERM` without CAP_SYS_ADMIN over the filesystem.
pub fn fspick(mount: impl AsFd) -> CallResult<OwnedFd> {
    let fd = mount.as_fd().as_raw_fd();
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the path is a static empty string.
    let ret = unsafe { libc::syscall(libc::SYS_fspick, fd, c"".as_ptr(), flags) };
    check_fd(ret, "fspick", || format!("{fd}, FSPICK_EMPTY_PATH"))
}

/// fsconfig(2) with `FSCONFIG_CMD_RECONFIGURE`: changes what was named of a superblock, and nothing else.
///
/// # Errors
/// The kernel's.
pub fn fsconfig_reconfigure(context: &OwnedFd) -> CallResult<()> {
    let fd = context.as_raw_fd();
    let null = std::ptr::null::<u8>();
    // SAFETY: key and value are null as this command demands.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_RECONFIGURE, null, null, 0) };
    check(ret, "fsconfig", || format!("{fd}, FSCONFIG_CMD_RECONFIGURE")).map(drop)
}

/// What the filesystem has to say about a failed context: the last line of its message log, if any.
pub fn fscontext_message(context: &OwnedFd) -> Option<String> {
    let mut buffer = [0u8; 512];
    let mut last = None;
    // Each read returns one message: a letter (e, w, i), a blank, the text (fsopen(2)).
    while let Ok(len @ 1..) = super::fs::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..len]);
        last = Some(text.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start().to_owned());
    }
    last
}

/// fsmount(2): a detached mount of the created superblock.
///
/// # Errors
/// The kernel's.
pub fn fsmount(context: &OwnedFd, attributes: u64) -> CallResult<OwnedFd> {
    let fd = context.as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) };
    check_fd(ret, "fsmount", || format!("{fd}, FSMOUNT_CLOEXEC, {attributes:#x}"))
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached copy of a mount, or of the whole tree of mounts below.
///
/// An empty path clones what the descriptor names. The last link of the path is followed if `follow`.
///
/// # Errors
/// The kernel's.
pub fn open_tree_clone(at: At<'_>, path: &Path, recursive: bool, follow: bool) -> CallResult<OwnedFd> {
    let name = c_path("open_tree", path)?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | AT_EMPTY_PATH;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    if !follow {
        flags |= AT_SYMLINK_NOFOLLOW;
    }
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_open_tree, at.raw(), name.as_ptr(), flags) };
    let what = if recursive { "OPEN_TREE_CLONE|AT_RECURSIVE" } else { "OPEN_TREE_CLONE" };
    check_fd(ret, "open_tree", || format!("{at}, {path:?}, {what}"))
}

/// move_mount(2): attaches a detached mount at an `O_PATH` target.
///
/// # Errors
/// The kernel's.
pub fn move_mount(mount: impl AsFd, target: impl AsFd) -> CallResult<()> {
    let (from, to) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty C strings with static lifetime.
    let ret = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    check(ret, "move_mount", || format!("{from}, {to}")).map(drop)
}

/// move_mount(2): attaches a detached mount at a name in a directory; a link there is not followed.
///
/// # Errors
/// The kernel's.
pub fn move_mount_to(mount: impl AsFd, directory: At<'_>, name: &Path) -> CallResult<()> {
    let from = mount.as_fd().as_raw_fd();
    let path = c_path("move_mount", name)?;
    // SAFETY: both paths are C strings that outlive the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), directory.raw(), path.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
    };
    check(ret, "move_mount", || format!("{from}, {directory}, {name:?}")).map(drop)
}

/// The changes of one mount_setattr(2).
#[derive(Clone, Debug, Default)]
pub struct SetAttr<'fd> {
    /// Attributes to set, see [`attr`].
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Propagation type, `MS_PRIVATE` and its kin, or 0 to leave it.
    pub propagation: u64,
    /// The user namespace whose maps an idmapped mount applies.
    pub userns: Option<std::os::fd::BorrowedFd<'fd>>,
}

impl fmt::Display for SetAttr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{set={:#x}, clear={:#x}, propagation={:#x}}}", self.set, self.clear, self.propagation)
    }
}

/// mount_setattr(2) on the mount that a descriptor names, and on the mounts below it if `recursive`.
///
/// # Errors
/// The kernel's.
pub fn mount_setattr(mount: impl AsFd, change: &SetAttr<'_>, recursive: bool) -> CallResult<()> {
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: an all-zero mount_attr is a valid value.
    let mut attributes: libc::mount_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    attributes.attr_set = change.set;
    attributes.attr_clr = change.clear;
    attributes.propagation = change.propagation;
    attributes.userns_fd = change.userns.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned()));
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let size = size_of_val(&attributes);
    // SAFETY: the path is a static empty string, the size is that of `attributes`.
    let ret = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attributes, size) };
    let how = if recursive { "AT_RECURSIVE" } else { "0" };
    check(ret, "mount_setattr", || format!("{fd}, {how}, {change}")).map(drop)
}

/// mount(2), for the two things that the descriptor API cannot do: `iversion` and option values above 255 bytes.
///
/// # Errors
/// The kernel's.
pub fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: &str) -> CallResult<()> {
    let (source_c, target_c) = (c_string("mount", source)?, c_path("mount", target)?);
    let (kind_c, data_c) = (c_string("mount", kind)?, c_string("mount", data)?);
    // SAFETY: the four strings outlive the call.
    let ret = unsafe { libc::mount(source_c.as_ptr(), target_c.as_ptr(), kind_c.as_ptr(), flags, data_c.as_ptr().cast()) };
    check(ret.into(), "mount", || format!("{source:?}, {target:?}, {kind:?}, {flags:#x}, {data:?}")).map(drop)
}

/// pivot_root(".", "."): the current directory becomes the root, the old root is stacked on it.
///
/// # Errors
/// The kernel's.
pub fn pivot_root_here() -> CallResult<()> {
    // SAFETY: both paths are static strings.
    let ret = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check(ret, "pivot_root", || "\".\", \".\"").map(drop)
}

/// umount2(2).
///
/// # Errors
/// The kernel's.
pub fn umount2(path: &Path, flags: i32) -> CallResult<()> {
    let name = c_path("umount2", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::umount2(name.as_ptr(), flags) };
    check(ret.into(), "umount2", || format!("{path:?}, {flags:#x}")).map(drop)
}

/// umount2(2) of the mount whose root a descriptor names, with all mounts below, whatever its path is by now.
///
/// # Errors
/// The kernel's; `EINVAL` if it is not the root of a mount.
pub fn unmount_descriptor(mount: &OwnedFd) -> CallResult<()> {
    umount2(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())), libc::MNT_DETACH)
}
