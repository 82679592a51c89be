//! What is done with open descriptors: reading, writing, locking, copying, closing. [`super::fs`] shows them beside what opens files.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{CallError, CallResult, check, check_fd, check_int};

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

/// lseek(2).
///
/// # Errors
/// The kernel's; `ENXIO` if there are no data (`SEEK_DATA`) from there on.
pub fn lseek(fd: impl AsFd, offset: u64, whence: i32) -> CallResult<u64> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::lseek(fd, offset.cast_signed(), whence) };
    check(ret, "lseek", || format!("{fd}, {offset}, {whence}")).map(i64::cast_unsigned)
}

/// ftruncate(2): makes a file this long; what is new is a hole.
///
/// # Errors
/// The kernel's.
pub fn ftruncate(fd: impl AsFd, size: u64) -> CallResult<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::ftruncate(fd, size.cast_signed()) };
    check(ret.into(), "ftruncate", || format!("{fd}, {size}")).map(drop)
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

/// True if the descriptor number was open when this program was executed: what has been opened since is close-on-exec.
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: no pointers are passed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC == 0
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
