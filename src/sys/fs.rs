//! Files and directories: open(2), openat2(2), and the `*at` family.

use std::ffi::{CStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// flock(2) without waiting. False if somebody else holds the lock.
///
/// # Errors
/// The kernel's, but not `EWOULDBLOCK`.
pub fn try_lock(fd: impl AsFd, exclusive: bool) -> CallResult<bool> {
    let fd = fd.as_fd().as_raw_fd();
    let operation = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::flock(fd, operation | libc::LOCK_NB) };
    match check(ret.into(), "flock", || format!("{fd}, {operation}")) {
        Err(error) if error.is(libc::EWOULDBLOCK) => Ok(false),
        other => other.map(|_| true),
    }
}

/// flock(2) with `LOCK_UN`.
///
/// # Errors
/// The kernel's.
pub fn unlock(fd: impl AsFd) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::flock(fd, libc::LOCK_UN) };
    check(ret.into(), "flock", || format!("{fd}, LOCK_UN")).map(drop)
}

/// Reads what there is, once, and forgets it.
pub fn drain(fd: impl AsFd) {
    let mut chunk = [0u8; 64];
    // A descriptor that does not wait has nothing to say: that is no error here.
    let _ = read(fd.as_fd(), &mut chunk);
}

/// read(2), retried after a signal.
///
/// # Errors
/// The kernel's.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> CallResult<usize> {
    let fd = fd.as_fd().as_raw_fd();
    loop {
        // SAFETY: the buffer has the given length.
        let ret = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        match check(ret as i64, "read", || format!("{fd}")) {
            Err(error) if error.is(libc::EINTR) => {}
            other => return other.map(|n| usize::try_from(n).unwrap_or(0)),
        }
    }
}

/// One write(2) of the whole buffer, as kernel files want it; a short write is continued.
///
/// # Errors
/// The kernel's.
pub fn write_all(fd: impl AsFd, mut buffer: &[u8]) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    while !buffer.is_empty() {
        // SAFETY: the buffer has the given length.
        let ret = unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) };
        match check(ret as i64, "write", || format!("{fd}, {}", beginning(buffer))) {
            Err(error) if error.is(libc::EINTR) => {}
            Err(error) => return Err(error),
            Ok(written) => buffer = &buffer[usize::try_from(written).unwrap_or(0)..],
        }
    }
    Ok(())
}

/// What is written, for a message, as strace would print it.
fn beginning(buffer: &[u8]) -> String {
    const LONGEST: usize = 100;
    let shown = String::from_utf8_lossy(&buffer[..buffer.len().min(LONGEST)]);
    let more = if buffer.len() > LONGEST { "..." } else { "" };
    format!("{shown:?}{more}")
}

/// Reads a descriptor to its end, at most `limit` bytes.
///
/// # Errors
/// The kernel's, and `EFBIG` above the limit.
pub fn read_to_end(fd: impl AsFd, limit: usize) -> CallResult<Vec<u8>> {
    let fd = fd.as_fd();
    let mut content = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let len = read(fd, &mut chunk)?;
        if len == 0 {
            return Ok(content);
        }
        content.extend_from_slice(&chunk[..len]);
        if content.len() > limit {
            return Err(CallError::new("read", format!("{}: more than {limit} bytes", fd.as_raw_fd()), libc::EFBIG));
        }
    }
}

/// Reads a regular file of this size, which may have changed since, in two calls.
///
/// # Errors
/// The kernel's, and `EFBIG` above the limit.
pub fn read_file(fd: impl AsFd, size: u64, limit: usize) -> CallResult<Vec<u8>> {
    let fd = fd.as_fd();
    // What is there, and a byte to see that there is no more.
    let mut content = vec![0; usize::try_from(size).unwrap_or(0).min(limit) + 1];
    let mut len = 0;
    while len < content.len() {
        match read(fd, &mut content[len..])? {
            0 => {
                content.truncate(len);
                return Ok(content);
            }
            more => len += more,
        }
    }
    content.append(&mut read_to_end(fd, limit.saturating_sub(len))?);
    if content.len() > limit {
        return Err(CallError::new("read", format!("{}: more than {limit} bytes", fd.as_raw_fd()), libc::EFBIG));
    }
    Ok(content)
}

/// Reads what the kernel hands out as one record (most files of procfs and cgroupfs that hold one line): at most a page, by one call.
///
/// # Errors
/// The kernel's.
pub fn read_record(fd: impl AsFd) -> CallResult<Vec<u8>> {
    let mut page = [0u8; 4096];
    let len = read(fd, &mut page)?;
    Ok(page[..len].to_vec())
}

/// Reads a regular file to its end, which a short read tells.
///
/// # Errors
/// The kernel's; `EFBIG` above the limit.
pub fn read_regular(fd: impl AsFd, limit: usize) -> CallResult<Vec<u8>> {
    let fd = fd.as_fd();
    let mut content = Vec::new();
    let mut chunk = [0u8; 16 << 10];
    loop {
        let len = read(fd, &mut chunk)?;
        content.extend_from_slice(&chunk[..len]);
        if content.len() > limit {
            return Err(CallError::new("read", format!("{}: more than {limit} bytes", fd.as_raw_fd()), libc::EFBIG));
        }
        if len < chunk.len() {
            return Ok(content);
        }
    }
}

/// memfd_create(2) with `MFD_CLOEXEC | MFD_ALLOW_SEALING`.
///
/// # Errors
/// The kernel's.
pub fn memfd_create(name: &str) -> CallResult<OwnedFd> {
    let text = super::c_string("memfd_create", name)?;
    // SAFETY: `text` outlives the call.
    let ret = unsafe { libc::memfd_create(text.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    check_fd(ret, "memfd_create", || format!("{name:?}"))
}

/// Seals a memfd against every change, and its seals against removal (`fcntl(F_ADD_SEALS)`).
///
/// # Errors
/// The kernel's.
pub fn add_all_seals(fd: impl AsFd) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) };
    check(ret.into(), "fcntl", || format!("{fd}, F_ADD_SEALS")).map(drop)
}

/// The seals of a memfd (`fcntl(F_GET_SEALS)`).
///
/// # Errors
/// `EINVAL` if the descriptor is not a memfd.
pub fn get_seals(fd: impl AsFd) -> CallResult<i32> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    check_int(ret, "fcntl", || format!("{fd}, F_GET_SEALS"))
}

/// sendfile(2) of a whole file from its start.
///
/// # Errors
/// The kernel's.
pub fn copy_file(from: impl AsFd, to: impl AsFd, len: usize) -> CallResult<()> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let mut done = 0;
    while done < len {
        // SAFETY: a null offset means the file position, no other pointer is passed.
        let ret = unsafe { libc::sendfile(to, from, std::ptr::null_mut(), len - done) };
        match check(ret as i64, "sendfile", || format!("{to}, {from}"))? {
            0 => return Err(CallError::new("sendfile", "unexpected end of file", libc::EIO)),
            n => done += usize::try_from(n).unwrap_or(0),
        }
    }
    Ok(())
}

/// dup2(2): makes `target` a copy of `fd`, without close-on-exec.
///
/// # Errors
/// The kernel's.
pub fn dup2(fd: impl AsFd, target: RawFd) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed. The callers own the meaning of the target number (stdio).
    let ret = unsafe { libc::dup2(fd, target) };
    check(ret.into(), "dup2", || format!("{fd}, {target}")).map(drop)
}

/// True if the descriptor number is open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    ret != -1
}

/// fcntl(2) `F_DUPFD_CLOEXEC`: another descriptor for the same open file.
///
/// # Errors
/// The kernel's.
pub fn duplicate(fd: BorrowedFd<'_>) -> CallResult<OwnedFd> {
    let raw = fd.as_raw_fd();
    fd.try_clone_to_owned().map_err(|error| CallError::from_io("fcntl", format!("{raw}, F_DUPFD_CLOEXEC"), &error))
}

/// Sets or clears close-on-exec on a number that we do not own (a descriptor handed down by the caller).
///
/// # Errors
/// `EBADF` if the number is not open.
pub fn set_cloexec(fd: RawFd, on: bool) -> CallResult<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) };
    check(ret.into(), "fcntl", || format!("{fd}, F_SETFD")).map(drop)
}

/// close_range(2) that marks every descriptor from `first` on as close-on-exec. Linux 5.11.
///
/// # Errors
/// The kernel's.
pub fn close_range_cloexec(first: u32) -> CallResult<()> {
    // SAFETY: no pointers are passed; nothing is closed now.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(ret, "close_range", || format!("{first}, ~0U, CLOSE_RANGE_CLOEXEC")).map(drop)
}

/// close_range(2) that closes every descriptor from `first` to `last`.
///
/// The caller must not use an owned descriptor in this range afterwards. It serves init, which is about to become
/// another program and keeps the few descriptors that it still needs outside of the range.
///
/// # Errors
/// The kernel's.
pub fn close_range(first: u32, last: u32) -> CallResult<()> {
    // SAFETY: no pointers are passed. Descriptors closed under their owners are harmless here: the owners are never
    // dropped, because the process ends in execve or _exit (see launch::init).
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    check(ret, "close_range", || format!("{first}, {last}, 0")).map(drop)
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

/// lseek(2) to the start.
///
/// # Errors
/// The kernel's.
pub fn rewind(fd: impl AsFd) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::lseek(fd, 0, libc::SEEK_SET) };
    check(ret, "lseek", || format!("{fd}, 0, SEEK_SET")).map(drop)
}

/// Sets `O_NONBLOCK` on the open file description.
///
/// # Errors
/// The kernel's.
pub fn set_nonblocking(fd: impl AsFd) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let flags = check_int(flags, "fcntl", || format!("{fd}, F_GETFL"))?;
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    check(ret.into(), "fcntl", || format!("{fd}, F_SETFL, O_NONBLOCK")).map(drop)
}

/// True if read(2) would not block.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    super::process::poll(&[(fd, false)], Some(std::time::Duration::ZERO)).is_ok_and(|ready| ready[0].readable || ready[0].hangup)
}

/// One read(2) of a non-blocking descriptor; 0 if there is nothing.
///
/// # Errors
/// The kernel's, but not `EAGAIN`; `EIO` from a terminal whose other end is closed.
pub fn read_available(fd: impl AsFd, buffer: &mut [u8]) -> CallResult<usize> {
    match read(fd, buffer) {
        Err(error) if error.is(libc::EAGAIN) => Ok(0),
        other => other,
    }
}

/// One write(2); 0 if there is no room.
///
/// # Errors
/// The kernel's, but not `EAGAIN`.
pub fn write_some(fd: impl AsFd, buffer: &[u8]) -> CallResult<usize> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer has the given length.
    let ret = unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) };
    match check(ret as i64, "write", || format!("{fd}")) {
        Err(error) if error.is(libc::EAGAIN) || error.is(libc::EINTR) => Ok(0),
        other => other.map(|n| usize::try_from(n).unwrap_or(0)),
    }
}

/// fsetxattr(2): sets or replaces an extended attribute.
///
/// # Errors
/// The kernel's.
pub fn fsetxattr(fd: impl AsFd, name: &CStr, value: &[u8]) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the name ends with a NUL, the value has the given length, and both outlive the call.
    let ret = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(ret.into(), "fsetxattr", || format!("{fd}, {name:?}")).map(drop)
}

/// Standard input, which stays open as long as the process lives.
pub fn stdin() -> BorrowedFd<'static> {
    // SAFETY: nothing in this crate closes descriptor 0.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Copies of the first three descriptors, close-on-exec, with numbers above theirs.
///
/// # Errors
/// The kernel's.
pub fn duplicate_stdio() -> CallResult<[OwnedFd; 3]> {
    let copy = |number: RawFd| {
        // SAFETY: nothing in this crate closes the first three descriptors.
        duplicate(unsafe { BorrowedFd::borrow_raw(number) })
    };
    Ok([copy(0)?, copy(1)?, copy(2)?])
}

/// Opens /dev/null in place of stdio that the caller has closed: otherwise a descriptor of ours would get the number, and a container
/// would inherit it.
pub fn ensure_stdio() {
    let mut list = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the list has the given length and outlives the call.
    unsafe { libc::poll(list.as_mut_ptr(), 3, 0) };
    for _ in list.iter().filter(|entry| entry.revents & libc::POLLNVAL != 0) {
        // The lowest free number is the missing one.
        // SAFETY: the path is a static string; the descriptor stays open for the life of the process.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
}
