//! Files and directories: open(2), openat2(2), and the `*at` family.

use std::ffi::{CStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::descriptors::*;

use super::{At, CallError, CallResult, c_path, check, check_fd, check_int, flags as words};

/// How openat2(2) resolves a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resolve(u64);

impl Resolve {
    /// `RESOLVE_IN_ROOT`: the directory descriptor is the root, `..` and absolute links stay below it. Linux 5.6.
    pub const IN_ROOT: Self = Self(0x10);
    /// `RESOLVE_BENEATH | RESOLVE_NO_XDEV`: what is safe below a verified procfs.
    pub const PROC: Self = Self(0x08 | 0x01);
    /// `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`.
    pub const PLAIN: Self = Self(0x08 | 0x04);
}

/// openat2(2) with `O_CLOEXEC`. Retries the EAGAIN of a rename race 128 times, the bound that libpathrs uses too.
///
/// # Errors
/// The kernel's; `EAGAIN` if the path kept changing.
pub fn openat2(at: At<'_>, path: &Path, flags: i32, mode: u32, resolve: Resolve) -> CallResult<OwnedFd> {
    let name = c_path("openat2", path)?;
    // SAFETY: an all-zero open_how is a valid value.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.mode = u64::from(mode);
    how.resolve = resolve.0;
    let mut tries = 0;
    loop {
        // SAFETY: `name` and `how` outlive the call, the size is that of `how`.
        let ret = unsafe { libc::syscall(libc::SYS_openat2, at.raw(), name.as_ptr(), &raw const how, size_of_val(&how)) };
        let result =
            check_fd(ret, "openat2", || format!("{at}, {path:?}, {}, {}", words::open(flags), words::resolve(how.resolve)));
        match result {
            Err(error) if (error.is(libc::EAGAIN) || error.is(libc::EINTR)) && tries < 128 => tries += 1,
            other => return other,
        }
    }
}

/// openat(2) with `O_CLOEXEC`.
///
/// # Errors
/// The kernel's.
pub fn openat(at: At<'_>, path: &Path, flags: i32, mode: u32) -> CallResult<OwnedFd> {
    let name = c_path("openat", path)?;
    loop {
        // SAFETY: `name` outlives the call.
        let ret = unsafe { libc::openat(at.raw(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        match check_fd(ret, "openat", || format!("{at}, {path:?}, {}", words::open(flags))) {
            Err(error) if error.is(libc::EINTR) => {}
            other => return other,
        }
    }
}

/// The facts of stat(2) that the crate uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// File type bits, `S_IFMT` of `st_mode`.
    pub kind: u32,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Device of the filesystem.
    pub dev: u64,
    /// Size in bytes of a regular file.
    pub size: u64,
    /// Inode number.
    pub ino: u64,
    /// How many names it has; a directory that was removed has none.
    pub links: u64,
    /// Last change of the content, since 1970.
    pub modified: Duration,
}

impl Stat {
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == libc::S_IFDIR
    }
    /// True for a character device with these numbers.
    pub fn is_char_device(&self, major: u32, minor: u32) -> bool {
        self.kind == libc::S_IFCHR && self.rdev == libc::makedev(major, minor)
    }
    /// True if the file type is this `S_IF*` value.
    pub fn is(&self, kind: u32) -> bool {
        self.kind == kind
    }
}

/// fstatat(2). An empty path means the descriptor itself.
///
/// # Errors
/// The kernel's.
pub fn fstatat(at: At<'_>, path: &Path, flags: i32) -> CallResult<Stat> {
    let name = c_path("fstatat", path)?;
    let mut out = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `name` outlives the call and `out` has room for a stat.
    let ret = unsafe { libc::fstatat(at.raw(), name.as_ptr(), out.as_mut_ptr(), flags | libc::AT_EMPTY_PATH) };
    check(ret.into(), "fstatat", || format!("{at}, {path:?}, {flags:#x}"))?;
    // SAFETY: the call succeeded, so the kernel has filled it.
    let out = unsafe { out.assume_init() };
    Ok(Stat {
        kind: out.st_mode & libc::S_IFMT,
        mode: out.st_mode & 0o7777,
        uid: out.st_uid,
        gid: out.st_gid,
        rdev: out.st_rdev,
        dev: out.st_dev,
        size: out.st_size.cast_unsigned(),
        ino: out.st_ino,
        links: out.st_nlink,
        modified: Duration::new(out.st_mtime.try_into().unwrap_or(0), out.st_mtime_nsec.try_into().unwrap_or(0)),
    })
}

/// fstat(2); works on `O_PATH` descriptors.
///
/// # Errors
/// The kernel's.
pub fn fstat(fd: impl AsFd) -> CallResult<Stat> {
    fstatat(At::Fd(fd.as_fd()), Path::new(""), 0)
}

/// The mount that a descriptor was reached through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountOf {
    /// Its number, the first field of proc_pid_mountinfo(5).
    pub number: u64,
    /// The descriptor names the root of the mount.
    pub is_its_root: bool,
}

/// statx(2) with `STATX_MNT_ID` and `STATX_ATTR_MOUNT_ROOT`, both Linux 5.8.
///
/// # Errors
/// The kernel's; `ENOSYS` from one that does not say.
pub fn mount_of(fd: impl AsFd) -> CallResult<MountOf> {
    const MNT_ID: u32 = 0x1000;
    const MOUNT_ROOT: u64 = 0x2000;
    let raw = fd.as_fd().as_raw_fd();
    let mut out = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a static empty string, `out` has room for a statx.
    let ret = unsafe { libc::statx(raw, c"".as_ptr(), libc::AT_EMPTY_PATH, MNT_ID, out.as_mut_ptr()) };
    let args = || format!("{raw}, STATX_MNT_ID");
    check(ret.into(), "statx", args)?;
    // SAFETY: all-zero is a valid statx, and the kernel has filled in what it knows.
    let out = unsafe { out.assume_init() };
    if out.stx_mask & MNT_ID == 0 || out.stx_attributes_mask & MOUNT_ROOT == 0 {
        return Err(CallError::new("statx", args(), libc::ENOSYS));
    }
    Ok(MountOf { number: out.stx_mnt_id, is_its_root: out.stx_attributes & MOUNT_ROOT != 0 })
}

/// What statfs(2) tells of a filesystem and of the mount it was reached through.
#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    /// The filesystem's magic number.
    pub magic: i64,
    /// Mount flags, `ST_RDONLY` and others.
    pub flags: u64,
}

/// struct statfs of the 64-bit kernels; the one of the libc crate hides the flags.
#[repr(C)]
#[derive(Default)]
struct RawStatFs {
    magic: i64,
    block_size: i64,
    counts: [u64; 5],
    id: [i32; 2],
    name_len: i64,
    fragment_size: i64,
    flags: u64,
    spare: [i64; 4],
}

impl From<RawStatFs> for StatFs {
    fn from(raw: RawStatFs) -> Self {
        Self { magic: raw.magic, flags: raw.flags }
    }
}

/// fstatfs(2); works on `O_PATH` descriptors.
///
/// # Errors
/// The kernel's.
pub fn fstatfs(fd: impl AsFd) -> CallResult<StatFs> {
    let fd = fd.as_fd().as_raw_fd();
    let mut out = RawStatFs::default();
    // SAFETY: `out` has the layout that the kernel fills.
    let ret = unsafe { libc::syscall(libc::SYS_fstatfs, fd, &raw mut out) };
    check(ret, "fstatfs", || format!("{fd}"))?;
    Ok(out.into())
}

/// statfs(2).
///
/// # Errors
/// The kernel's.
pub fn statfs(path: &Path) -> CallResult<StatFs> {
    let name = c_path("statfs", path)?;
    let mut out = RawStatFs::default();
    // SAFETY: `name` outlives the call and `out` has the layout that the kernel fills.
    let ret = unsafe { libc::syscall(libc::SYS_statfs, name.as_ptr(), &raw mut out) };
    check(ret, "statfs", || format!("{path:?}"))?;
    Ok(out.into())
}

/// setxattr(2).
///
/// # Errors
/// The kernel's.
pub fn setxattr(path: &Path, name: &CStr, value: &[u8]) -> CallResult<()> {
    let file = c_path("setxattr", path)?;
    // SAFETY: both strings and the value outlive the call, and the size is that of the value.
    let ret = unsafe { libc::setxattr(file.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(ret.into(), "setxattr", || format!("{path:?}, {name:?}")).map(drop)
}

/// getxattr(2), of a value with at most so many bytes.
///
/// # Errors
/// The kernel's.
pub fn getxattr(path: &Path, name: &CStr, longest: usize) -> CallResult<Vec<u8>> {
    let file = c_path("getxattr", path)?;
    let mut value = vec![0_u8; longest];
    // SAFETY: both strings outlive the call, and the buffer has the given size.
    let ret = unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let len = check(ret as i64, "getxattr", || format!("{path:?}, {name:?}"))?;
    value.truncate(usize::try_from(len).unwrap_or(0));
    Ok(value)
}

/// mkdirat(2).
///
/// # Errors
/// The kernel's.
pub fn mkdirat(at: At<'_>, path: &Path, mode: u32) -> CallResult<()> {
    let name = c_path("mkdirat", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::mkdirat(at.raw(), name.as_ptr(), mode) };
    check(ret.into(), "mkdirat", || format!("{at}, {path:?}, {mode:#o}")).map(drop)
}

/// mknodat(2). `kind` is one of the `S_IF*` types, the mode is subject to the umask.
///
/// # Errors
/// The kernel's.
pub fn mknodat(at: At<'_>, path: &Path, kind: u32, mode: u32, dev: u64) -> CallResult<()> {
    let name = c_path("mknodat", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::mknodat(at.raw(), name.as_ptr(), kind | mode, dev) };
    check(ret.into(), "mknodat", || format!("{at}, {path:?}, {:#o}, {dev:#x}", kind | mode)).map(drop)
}

/// symlinkat(2).
///
/// # Errors
/// The kernel's.
pub fn symlinkat(target: &Path, at: At<'_>, path: &Path) -> CallResult<()> {
    let name = c_path("symlinkat", path)?;
    let content = c_path("symlinkat", target)?;
    // SAFETY: both strings outlive the call.
    let ret = unsafe { libc::symlinkat(content.as_ptr(), at.raw(), name.as_ptr()) };
    check(ret.into(), "symlinkat", || format!("{target:?}, {at}, {path:?}")).map(drop)
}

/// readlinkat(2). An empty path reads a link that was opened with `O_PATH | O_NOFOLLOW`.
///
/// # Errors
/// The kernel's.
pub fn readlinkat(at: At<'_>, path: &Path) -> CallResult<PathBuf> {
    let name = c_path("readlinkat", path)?;
    let mut buffer = vec![0u8; 4096];
    // SAFETY: `name` outlives the call and the buffer has the given length.
    let ret = unsafe { libc::readlinkat(at.raw(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let len = check_int(ret as i64, "readlinkat", || format!("{at}, {path:?}"))?;
    buffer.truncate(usize::try_from(len).unwrap_or(0));
    Ok(PathBuf::from(OsString::from_vec(buffer)))
}

/// unlinkat(2); `AT_REMOVEDIR` in the flags removes an empty directory.
///
/// # Errors
/// The kernel's.
pub fn unlinkat(at: At<'_>, path: &Path, flags: i32) -> CallResult<()> {
    let name = c_path("unlinkat", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::unlinkat(at.raw(), name.as_ptr(), flags) };
    check(ret.into(), "unlinkat", || format!("{at}, {path:?}, {flags:#x}")).map(drop)
}

/// renameat(2) within one directory.
///
/// # Errors
/// The kernel's.
pub fn renameat(at: At<'_>, from: &Path, to: &Path) -> CallResult<()> {
    let old = c_path("renameat", from)?;
    let new = c_path("renameat", to)?;
    // SAFETY: both strings outlive the call.
    let ret = unsafe { libc::renameat(at.raw(), old.as_ptr(), at.raw(), new.as_ptr()) };
    check(ret.into(), "renameat", || format!("{at}, {from:?}, {at}, {to:?}")).map(drop)
}

/// fchownat(2); `u32::MAX` leaves an id unchanged, an empty path means the descriptor itself.
///
/// # Errors
/// The kernel's.
pub fn fchownat(at: At<'_>, path: &Path, uid: u32, gid: u32) -> CallResult<()> {
    let name = c_path("fchownat", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::fchownat(at.raw(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) };
    check(ret.into(), "fchownat", || format!("{at}, {path:?}, {uid}, {gid}")).map(drop)
}

/// fchmod(2) of an ordinary (not `O_PATH`) descriptor.
///
/// # Errors
/// The kernel's.
pub fn fchmod(fd: impl AsFd, mode: u32) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::fchmod(fd, mode) };
    check(ret.into(), "fchmod", || format!("{fd}, {mode:#o}")).map(drop)
}

/// fchmodat(2), which follows a link in the last component: only for names that the caller has just made.
///
/// # Errors
/// The kernel's.
pub fn fchmodat(at: At<'_>, path: &Path, mode: u32) -> CallResult<()> {
    let name = c_path("fchmodat", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::fchmodat(at.raw(), name.as_ptr(), mode, 0) };
    check(ret.into(), "fchmodat", || format!("{at}, {path:?}, {mode:#o}")).map(drop)
}

/// mkfifoat(3).
///
/// # Errors
/// The kernel's.
pub fn mkfifoat(at: At<'_>, path: &Path, mode: u32) -> CallResult<()> {
    mknodat(at, path, libc::S_IFIFO, mode, 0)
}

/// faccessat2(2) with the effective ids (`AT_EACCESS`).
///
/// # Errors
/// The kernel's.
pub fn faccessat(at: At<'_>, path: &Path, mode: i32) -> CallResult<()> {
    let name = c_path("faccessat2", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_faccessat2, at.raw(), name.as_ptr(), mode, libc::AT_EACCESS) };
    check(ret, "faccessat2", || format!("{at}, {path:?}, {mode}")).map(drop)
}

/// chdir(2).
///
/// # Errors
/// The kernel's.
pub fn chdir(path: &Path) -> CallResult<()> {
    let name = c_path("chdir", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::chdir(name.as_ptr()) };
    check(ret.into(), "chdir", || format!("{path:?}")).map(drop)
}

/// fchdir(2).
///
/// # Errors
/// The kernel's.
pub fn fchdir(fd: impl AsFd) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::fchdir(fd) };
    check(ret.into(), "fchdir", || format!("{fd}")).map(drop)
}

/// chroot(2).
///
/// # Errors
/// The kernel's.
pub fn chroot(path: &Path) -> CallResult<()> {
    let name = c_path("chroot", path)?;
    // SAFETY: `name` outlives the call.
    let ret = unsafe { libc::chroot(name.as_ptr()) };
    check(ret.into(), "chroot", || format!("{path:?}")).map(drop)
}

/// getcwd(2), raw: the kernel's answer starts with `(unreachable)` if the directory is outside of the root.
///
/// # Errors
/// The kernel's.
pub fn getcwd() -> CallResult<PathBuf> {
    let mut buffer = vec![0u8; 4096];
    // SAFETY: the buffer has the given length.
    let ret = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let len = check(ret, "getcwd", String::new)?;
    buffer.truncate(usize::try_from(len).unwrap_or(1).saturating_sub(1));
    Ok(PathBuf::from(OsString::from_vec(buffer)))
}

/// umask(2). Returns the old mask.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: umask cannot fail and takes no pointer.
    unsafe { libc::umask(mask) }
}

/// The names in a directory, without `.` and `..`.
///
/// # Errors
/// The kernel's.
pub fn list_dir(fd: BorrowedFd<'_>) -> CallResult<Vec<OsString>> {
    // An O_PATH descriptor cannot be listed: open the directory itself anew.
    let dir = openat(At::Fd(fd), Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut names = Vec::new();
    let mut buffer = vec![0u8; 32 * 1024];
    loop {
        // SAFETY: the buffer has the given length.
        let ret = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let len = usize::try_from(check(ret, "getdents64", || format!("{}", dir.as_raw_fd()))?).unwrap_or(0);
        if len == 0 {
            return Ok(names);
        }
        let mut rest = &buffer[..len];
        // struct linux_dirent64: u64 ino, i64 off, u16 reclen, u8 type, name (getdents(2)).
        while rest.len() > 19 {
            let size = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[19..size].split(|byte| *byte == 0).next().unwrap_or_default();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
            rest = &rest[size..];
        }
    }
}
