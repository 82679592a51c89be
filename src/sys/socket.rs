//! Unix sockets: pairs, connecting, and messages with descriptors (unix(7)).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::{CallError, CallResult, check, check_fd, check_int};

/// The size of a descriptor in a control message, and of a unix address: small constants of the ABI.
const FD_LEN: u32 = 4;
const ADDRESS_LEN: libc::socklen_t = 110;
const _: () = assert!(size_of::<RawFd>() == 4 && size_of::<libc::sockaddr_un>() == 110);

/// socketpair(2) of `SOCK_SEQPACKET`, close-on-exec.
///
/// # Errors
/// The kernel's.
pub fn seqpacket_pair() -> CallResult<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: the array has room for two descriptors.
    let ret = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) };
    check(ret.into(), "socketpair", || "AF_UNIX, SOCK_SEQPACKET")?;
    // SAFETY: the call has just made this descriptor for us.
    let first = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: the call has just made this descriptor for us.
    let second = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    Ok((first, second))
}

/// How long somebody may take to accept a connection, or to make room in it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// A unix socket connected to a path: `SOCK_STREAM` or `SOCK_DGRAM`. A path that is too long for the address is reached through
/// its directory's descriptor.
///
/// # Errors
/// The kernel's; `EAGAIN` if nobody accepts a stream, or, later, reads from it, within ten seconds.
pub fn connect(path: &Path, kind: i32) -> CallResult<OwnedFd> {
    let directory;
    let mut short = path.to_owned();
    if path.as_os_str().len() >= 108 {
        let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
        directory = super::fs::openat(super::At::Cwd, parent, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        short = Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    }
    let socket = unix(kind)?;
    if kind == libc::SOCK_STREAM {
        give_up_sending_after(&socket, PATIENCE)?;
    }
    let address = address("connect", &short, path)?;
    // SAFETY: the address outlives the call and the length is that of the whole structure.
    let ret = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) };
    check(ret.into(), "connect", || format!("{path:?}"))?;
    Ok(socket)
}

/// A datagram socket connected to an address as sd_notify(3) writes it: an absolute path, or `@` and a name that is no path.
///
/// # Errors
/// The kernel's; `EAFNOSUPPORT` for other forms.
pub fn connect_address(text: &std::ffi::OsStr) -> CallResult<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'/') => return connect(Path::new(text), libc::SOCK_DGRAM),
        Some(b'@') if bytes.len() < 108 => {}
        _ => return Err(CallError::new("connect", format!("{text:?}"), libc::EAFNOSUPPORT)),
    }
    let socket = unix(libc::SOCK_DGRAM)?;
    let mut address = address("connect", Path::new(text), Path::new(text))?;
    address.sun_path[0] = 0;
    let len = 2 + u32::try_from(bytes.len()).unwrap_or(0);
    // SAFETY: the address outlives the call; such a name ends where the length says, which is within the structure.
    let ret = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) };
    check(ret.into(), "connect", || format!("{text:?}"))?;
    Ok(socket)
}

/// A datagram socket that does not wait when it is read, bound to a new name in a directory.
///
/// # Errors
/// The kernel's; `EADDRINUSE` if the name is taken.
pub fn bind_datagram(at: super::At<'_>, name: &Path) -> CallResult<OwnedFd> {
    let path = Path::new(&format!("/proc/self/fd/{at}")).join(name);
    let socket = unix(libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?;
    let address = address("bind", &path, name)?;
    // SAFETY: the address outlives the call and the length is that of the whole structure.
    let ret = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) };
    check(ret.into(), "bind", || format!("{name:?}"))?;
    Ok(socket)
}

/// setsockopt(2) with `SO_SNDTIMEO`: sending fails with `EAGAIN` when there has been no room for so long (socket(7)).
///
/// # Errors
/// The kernel's.
pub fn give_up_sending_after(socket: impl AsFd, time: std::time::Duration) -> CallResult<()> {
    let raw = socket.as_fd().as_raw_fd();
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    let limit = libc::timeval { tv_sec: seconds, tv_usec: time.subsec_micros().into() };
    const LEN: libc::socklen_t = 16;
    const _: () = assert!(size_of::<libc::timeval>() == LEN as usize);
    // SAFETY: the structure outlives the call, and the length is its own.
    let ret = unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_SNDTIMEO, (&raw const limit).cast(), LEN) };
    check(ret.into(), "setsockopt", || format!("{raw}, SO_SNDTIMEO")).map(drop)
}

fn unix(kind: i32) -> CallResult<OwnedFd> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) };
    check_fd(ret, "socket", || "AF_UNIX")
}

fn address(call: &str, path: &Path, shown: &Path) -> CallResult<libc::sockaddr_un> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: an all-zero sockaddr_un is a valid value.
    let mut address: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sun_family = 1; // AF_UNIX
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(CallError::new(call, format!("{shown:?}"), libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(address)
}

/// Room for the control message of one descriptor, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// sendmsg(2) of one message, with at most one descriptor. Never raises SIGPIPE.
///
/// # Errors
/// The kernel's.
pub fn send(socket: impl AsFd, data: &[u8], fd: Option<BorrowedFd<'_>>) -> CallResult<()> {
    let raw = socket.as_fd().as_raw_fd();
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut control = Control([0; 32]);
    // SAFETY: an all-zero msghdr is a valid value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control_space();
        put_descriptor(&mut control, fd.as_raw_fd());
    }
    loop {
        // SAFETY: everything that the header points at outlives the call.
        let ret = unsafe { libc::sendmsg(raw, &raw const message, libc::MSG_NOSIGNAL) };
        match check(ret as i64, "sendmsg", || format!("{raw}, {} bytes", data.len())) {
            Err(error) if error.is(libc::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

const fn control_len() -> usize {
    // SAFETY: CMSG_LEN only computes.
    unsafe { libc::CMSG_LEN(FD_LEN) as usize }
}

const fn control_space() -> usize {
    // SAFETY: CMSG_SPACE only computes.
    unsafe { libc::CMSG_SPACE(FD_LEN) as usize }
}

/// Lays out one SCM_RIGHTS control message: u64 length, i32 level, i32 type, i32 descriptor (cmsg(3)).
fn put_descriptor(control: &mut Control, fd: RawFd) {
    // SAFETY: CMSG_LEN only computes.
    let len = unsafe { libc::CMSG_LEN(FD_LEN) };
    control.0[..8].copy_from_slice(&u64::from(len).to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    control.0[16..20].copy_from_slice(&fd.to_ne_bytes());
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Its bytes; empty at the end of the stream.
    pub data: Vec<u8>,
    /// The descriptor that came along.
    pub fd: Option<OwnedFd>,
}

/// recvmsg(2) of one message of at most `limit` bytes, with at most one descriptor (close-on-exec).
///
/// # Errors
/// The kernel's; `EMSGSIZE` if the message was longer.
pub fn receive(socket: impl AsFd, limit: usize) -> CallResult<Received> {
    let mut data = Vec::new();
    let fd = receive_into(socket, limit, &mut data)?;
    Ok(Received { data, fd })
}

/// [`receive`] into memory that can be used again; what is in it is replaced. Returns the descriptor that came along.
///
/// # Errors
/// As [`receive`].
pub fn receive_into(socket: impl AsFd, limit: usize, data: &mut Vec<u8>) -> CallResult<Option<OwnedFd>> {
    let raw = socket.as_fd().as_raw_fd();
    data.clear();
    data.reserve(limit);
    // Not filled with zeros first: messages are short, and each page of the rest would have to be found for that.
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: limit };
    let mut control = Control([0; 32]);
    // SAFETY: an all-zero msghdr is a valid value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // Room for one and not, as with the padding, for a second one that nobody would close: a sender may be hostile.
    message.msg_controllen = control_len();
    let len = loop {
        // SAFETY: everything that the header points at outlives the call.
        let ret = unsafe { libc::recvmsg(raw, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check_int(ret as i64, "recvmsg", || format!("{raw}")) {
            Err(error) if error.is(libc::EINTR) => {}
            other => break other?,
        }
    };
    let fd = take_descriptor(&control, message.msg_controllen);
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(CallError::new("recvmsg", format!("{raw}: more than {limit} bytes"), libc::EMSGSIZE));
    }
    // SAFETY: the kernel has written this many bytes, which is not more than was reserved.
    unsafe { data.set_len(usize::try_from(len).unwrap_or(0)) };
    Ok(fd)
}

fn take_descriptor(control: &Control, len: usize) -> Option<OwnedFd> {
    let int = |at: usize| i32::from_ne_bytes([control.0[at], control.0[at + 1], control.0[at + 2], control.0[at + 3]]);
    if len < 20 || int(8) != libc::SOL_SOCKET || int(12) != libc::SCM_RIGHTS {
        return None;
    }
    // SAFETY: the kernel has just installed this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(int(16)) })
}
