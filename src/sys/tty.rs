//! Terminals: pseudo-terminal pairs, window size, raw mode (ioctl_tty(2), termios(3)).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{CallResult, check, check_fd};

/// Unlocks a pseudo-terminal master and opens its other end without resolving a path (`TIOCGPTPEER`, Linux 4.13).
///
/// # Errors
/// The kernel's.
pub fn open_peer(master: impl AsFd) -> CallResult<OwnedFd> {
    let fd = master.as_fd().as_raw_fd();
    let unlock: libc::c_int = 0;
    // SAFETY: this ioctl reads one int.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlock) };
    check(ret.into(), "ioctl", || format!("{fd}, TIOCSPTLCK, 0"))?;
    // SAFETY: the argument of this ioctl is a set of open flags.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    check_fd(ret, "ioctl", || format!("{fd}, TIOCGPTPEER"))
}

/// Makes a terminal the controlling one of this session (`TIOCSCTTY`).
///
/// # Errors
/// The kernel's.
pub fn set_controlling(tty: impl AsFd) -> CallResult<()> {
    let fd = tty.as_fd().as_raw_fd();
    // SAFETY: the argument of this ioctl is an integer.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) };
    check(ret.into(), "ioctl", || format!("{fd}, TIOCSCTTY, 0")).map(drop)
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// `TIOCGWINSZ`.
///
/// # Errors
/// `ENOTTY` if it is not a terminal.
pub fn get_size(tty: impl AsFd) -> CallResult<Size> {
    let fd = tty.as_fd().as_raw_fd();
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: this ioctl writes one winsize.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, size.as_mut_ptr()) };
    check(ret.into(), "ioctl", || format!("{fd}, TIOCGWINSZ"))?;
    // SAFETY: zeroed before, filled by the kernel now.
    let size = unsafe { size.assume_init() };
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// `TIOCSWINSZ`.
///
/// # Errors
/// `ENOTTY` if it is not a terminal.
pub fn set_size(tty: impl AsFd, size: Size) -> CallResult<()> {
    let fd = tty.as_fd().as_raw_fd();
    let value = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this ioctl reads one winsize.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const value) };
    check(ret.into(), "ioctl", || format!("{fd}, TIOCSWINSZ, {}x{}", size.columns, size.rows)).map(drop)
}

/// The settings of a terminal, to be put back later.
pub struct Settings(libc::termios);

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settings")
    }
}

/// tcgetattr(3).
///
/// # Errors
/// `ENOTTY` if it is not a terminal.
pub fn get_settings(tty: impl AsFd) -> CallResult<Settings> {
    let fd = tty.as_fd().as_raw_fd();
    let mut out = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: `out` has room for a termios.
    let ret = unsafe { libc::tcgetattr(fd, out.as_mut_ptr()) };
    check(ret.into(), "tcgetattr", || format!("{fd}"))?;
    // SAFETY: the call succeeded, so it is filled.
    Ok(Settings(unsafe { out.assume_init() }))
}

/// tcsetattr(3), at once.
///
/// # Errors
/// The kernel's.
pub fn put_settings(tty: impl AsFd, settings: &Settings) -> CallResult<()> {
    let fd = tty.as_fd().as_raw_fd();
    // SAFETY: the settings outlive the call.
    let ret = unsafe { libc::tcsetattr(fd, libc::TCSANOW, &raw const settings.0) };
    check(ret.into(), "tcsetattr", || format!("{fd}, TCSANOW")).map(drop)
}

/// The same settings in raw mode (cfmakeraw(3)).
pub fn raw(settings: &Settings) -> Settings {
    let mut copy = settings.0;
    // SAFETY: the structure is valid and ours.
    unsafe { libc::cfmakeraw(&raw mut copy) };
    Settings(copy)
}
