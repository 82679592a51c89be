//! Signals: masks, dispositions, signalfd(2).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{CallResult, check, check_fd};

/// The highest signal number of Linux.
pub const MAX: i32 = 64;

fn set_mask(how: i32, fill: bool) -> CallResult<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    if fill {
        // SAFETY: `set` has room for a sigset.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
    } else {
        // SAFETY: `set` has room for a sigset.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    }
    // SAFETY: the set was filled in above; a null old set is allowed.
    let ret = unsafe { libc::sigprocmask(how, set.as_ptr(), std::ptr::null_mut()) };
    check(ret.into(), "sigprocmask", || format!("{how}, {}", if fill { "~[]" } else { "[]" })).map(drop)
}

/// Blocks every signal that can be blocked.
///
/// # Errors
/// The kernel's.
pub fn block_all() -> CallResult<()> {
    set_mask(libc::SIG_SETMASK, true)
}

/// While this lives every signal waits in its descriptor; then the mask is what it was.
#[derive(Debug)]
pub struct Held {
    fd: OwnedFd,
    before: libc::sigset_t,
}

impl Held {
    /// Blocks every signal, and forgets those that wait already: they were meant for what came before.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> CallResult<Self> {
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: a null new set is allowed, and the old one has room.
        let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, std::ptr::null(), before.as_mut_ptr()) };
        check(ret.into(), "sigprocmask", || "NULL")?;
        // SAFETY: the call has filled it in.
        let before = unsafe { before.assume_init() };
        block_all()?;
        let held = Self { fd: signalfd_all()?, before };
        while next_signal(&held.fd).is_some() {}
        Ok(held)
    }

    /// Where signals are read.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the set is what the kernel has said; a null old set is allowed.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Empties the signal mask.
///
/// # Errors
/// The kernel's.
pub fn unblock_all() -> CallResult<()> {
    set_mask(libc::SIG_SETMASK, false)
}

/// Blocks these signals and no others.
///
/// # Errors
/// The kernel's.
pub fn block_only(signals: &[i32]) -> CallResult<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` has room for a sigset.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was made empty above; a number that is no signal is refused.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: the set is filled in, a null old set is allowed.
    let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
    check(ret.into(), "sigprocmask", || "SIG_SETMASK".to_owned()).map(drop)
}

/// signalfd(2) for every signal; they must be blocked. Reads do not block.
///
/// # Errors
/// The kernel's.
pub fn signalfd_all() -> CallResult<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` has room for a sigset.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: the set was filled in above.
    let ret = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check_fd(ret, "signalfd", || "-1, ~[]")
}

/// The number of the next pending signal of a signalfd, if there is one.
pub fn next_signal(fd: impl AsFd) -> Option<i32> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: `info` has the given size.
    let ret = unsafe { libc::read(fd.as_fd().as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if usize::try_from(ret).ok() != Some(size) {
        return None;
    }
    // SAFETY: the kernel has filled the whole structure.
    let info = unsafe { info.assume_init() };
    i32::try_from(info.ssi_signo).ok()
}

/// Sets every signal to its default disposition, in a raw system call: libc refuses its two internal signals.
///
/// # Errors
/// The kernel's.
pub fn reset_dispositions() -> CallResult<()> {
    // struct kernel_sigaction: handler, flags, restorer, mask; all zero means SIG_DFL.
    let default = [0u64; 4];
    for signal in (1..=MAX).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP)) {
        let null = std::ptr::null_mut::<u8>();
        // SAFETY: the structure outlives the call, a null old action is allowed, 8 is the size of the kernel's mask.
        let ret = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), null, 8) };
        check(ret, "rt_sigaction", || format!("{signal}, SIG_DFL"))?;
    }
    Ok(())
}

extern "C" fn end_with(signal: libc::c_int) {
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(128 + signal) }
}

/// Makes this signal end the process with status 128 + N. The first process of a pid namespace ignores signals of default disposition,
/// so one that only waits has to do this to be ended by SIGTERM.
///
/// # Errors
/// The kernel's.
pub fn exit_on(signal: i32) -> CallResult<()> {
    // SAFETY: an all-zero sigaction is a valid value.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = end_with as *const () as usize;
    // SAFETY: the action outlives the call; its handler only calls _exit.
    let ret = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    check(ret.into(), "sigaction", || format!("{signal}")).map(drop)
}

/// Ignores SIGPIPE: a reader that goes away is an error of write(2), not the end of the process. Init sets every disposition back.
pub fn ignore_pipe() {
    // SAFETY: SIG_IGN is no handler, so nothing can be interrupted by one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// True for the signals by which somebody asks a command to end.
pub fn asks_to_end(signal: i32) -> bool {
    matches!(signal, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)
}
