//! Processes: clone3(2), pidfds, waiting, prctl(2), execve(2), resource limits.

use std::convert::Infallible;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use super::{CallError, CallResult, c_path, check, check_fd, check_int};

mod poll;
mod schedule;

pub use poll::{Ready, poll, poll_for, poll_priority};
pub use schedule::{SchedAttr, ioprio_set, nice, sched_setaffinity, sched_setattr, set_mempolicy, set_nice};

/// linux/sched.h; the libc crate's constant is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone3(2) shall do.
#[derive(Debug, Default)]
pub struct CloneArgs<'fd> {
    /// `CLONE_NEW*` and `CLONE_PARENT`.
    pub flags: u64,
    /// A cgroup v2 directory in which the child is born (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// Which side of a clone3(2) the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// The caller, with the pid of the child and its pidfd.
    Parent(i32, OwnedFd),
    /// The child, a copy of the caller.
    Child,
}

/// clone3(2) like fork(2), with a pidfd.
///
/// The calling process must have one thread: the child is a copy of that one only.
///
/// # Errors
/// The kernel's.
pub fn clone3(request: &CloneArgs<'_>) -> CallResult<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args is a valid value.
    let mut args: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    args.flags = request.flags | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    // With CLONE_PARENT the kernel wants the exit signal of the parent's own child, given as 0.
    args.exit_signal = if request.flags & (libc::CLONE_PARENT as u64) == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: `args` and the pidfd it points at outlive the call; without CLONE_VM and with a null stack the child runs
    // on a copy of our memory, as after fork(2). The process has one thread.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    let pid = check_int(ret, "clone3", || format!("{{flags={}}}", super::flags::clone(request.flags)))?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: CLONE_PIDFD has stored a new descriptor that nobody else knows.
    Ok(Cloned::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// pidfd_open(2).
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn pidfd_open(pid: i32) -> CallResult<OwnedFd> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check_fd(ret, "pidfd_open", || format!("{pid}"))
}

/// pidfd_send_signal(2).
///
/// # Errors
/// `ESRCH` if the process is gone.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> CallResult<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a null siginfo means the one that kill(2) would send.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0) };
    check(ret, "pidfd_send_signal", || format!("{fd}, {signal}")).map(drop)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

impl Exit {
    /// The status that a shell reports: the code, or 128 plus the signal number.
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// From a status as wait(2) gives it.
    pub fn from_wait_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) { Self::Signal(libc::WTERMSIG(status)) } else { Self::Code(libc::WEXITSTATUS(status)) }
    }
}

/// waitid(2) for the end of one child.
///
/// # Errors
/// `ECHILD` if it is not an own child.
pub fn wait_pidfd(pidfd: impl AsFd) -> CallResult<Exit> {
    let fd = pidfd.as_fd().as_raw_fd();
    let id = fd.cast_unsigned();
    waitid(libc::P_PIDFD, id, libc::WEXITED, || format!("P_PIDFD, {fd}, WEXITED"))
        .and_then(|exit| exit.ok_or_else(|| CallError::new("waitid", "no child", libc::ECHILD)))
}

/// Reaps one ended child of any kind, if there is one: for a subreaper.
pub fn reap_any() -> Option<Exit> {
    waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG, String::new).ok().flatten()
}

fn waitid(kind: libc::idtype_t, id: u32, options: i32, args: impl Fn() -> String) -> CallResult<Option<Exit>> {
    // SAFETY: an all-zero siginfo is a valid value.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    loop {
        // SAFETY: `info` outlives the call.
        let ret = unsafe { libc::waitid(kind, id, &raw mut info, options) };
        match check(ret.into(), "waitid", &args) {
            Err(error) if error.is(libc::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // SAFETY: after a successful waitid the pid field is set; 0 means that nothing has ended.
    if unsafe { info.si_pid() } == 0 {
        return Ok(None);
    }
    // SAFETY: for a SIGCHLD siginfo the status field is the one that is set.
    let status = unsafe { info.si_status() };
    Ok(Some(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) }))
}

/// eventfd(2), which does not wait when it is read.
///
/// # Errors
/// The kernel's.
pub fn eventfd() -> CallResult<OwnedFd> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check_fd(ret, "eventfd", || "0, EFD_CLOEXEC | EFD_NONBLOCK")
}

/// `PIDFD_GET_INFO` of linux/pidfd.h, with the first version of its structure: 64 bytes.
const PIDFD_GET_INFO: u64 = 0xc040_ff0b;
const PIDFD_INFO_EXIT: u32 = 1 << 3;

/// How a process ended, from its pidfd (Linux 6.15, once somebody has waited for it). Nothing if that is not known.
///
/// # Errors
/// The kernel's; `ENOTTY` before Linux 6.13.
pub fn pidfd_exit(pidfd: impl AsFd) -> CallResult<Option<Exit>> {
    let fd = pidfd.as_fd().as_raw_fd();
    // mask, cgroupid, eleven ids, exit code.
    let mut info = [0u32; 16];
    info[0] = PIDFD_INFO_EXIT;
    // SAFETY: the kernel writes at most the 64 bytes that the number of the request says.
    let ret = unsafe { libc::ioctl(fd, PIDFD_GET_INFO, info.as_mut_ptr()) };
    check(ret.into(), "ioctl", || format!("{fd}, PIDFD_GET_INFO"))?;
    let known = info[0] & PIDFD_INFO_EXIT != 0;
    Ok(known.then(|| Exit::from_wait_status(info[15].cast_signed())))
}

/// What execve(2) takes, laid out beforehand: under a seccomp filter it may be too late to ask for memory.
#[derive(Debug)]
pub struct Image {
    path: CString,
    argv: (Vec<CString>, Vec<*const libc::c_char>),
    envp: (Vec<CString>, Vec<*const libc::c_char>),
}

impl Image {
    /// Lays a program's path, arguments and environment out.
    ///
    /// # Errors
    /// `EINVAL` if the path contains a NUL.
    pub fn new(path: &Path, argv: Vec<CString>, envp: Vec<CString>) -> CallResult<Self> {
        // The pointers are to the strings' own memory, which does not move when the list does.
        let (argv_ptrs, envp_ptrs) = (pointers(&argv), pointers(&envp));
        Ok(Self { path: c_path("execve", path)?, argv: (argv, argv_ptrs), envp: (envp, envp_ptrs) })
    }

    /// execve(2). Returns only an error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn execute(&self) -> CallResult<Infallible> {
        // SAFETY: both lists end in null and their strings live as long as `self`; on success the call does not return.
        let _ = unsafe { libc::execve(self.path.as_ptr(), self.argv.1.as_ptr(), self.envp.1.as_ptr()) };
        Err(CallError::last("execve", format!("{:?}", self.path)))
    }

    /// The first argument.
    pub fn name(&self) -> String {
        self.argv.0.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// fexecve(3): executes the file that a descriptor names. Returns only an error.
///
/// # Errors
/// The kernel's.
pub fn fexecve(fd: impl AsFd, argv: &[CString], envp: &[CString]) -> CallResult<Infallible> {
    let fd = fd.as_fd().as_raw_fd();
    let (argv_ptrs, envp_ptrs) = (pointers(argv), pointers(envp));
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: as in `execve`; the path is a static empty string.
    let _ = unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv_ptrs.as_ptr(), envp_ptrs.as_ptr(), flags) };
    Err(CallError::last("execveat", format!("{fd}, AT_EMPTY_PATH")))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// _exit(2): ends the process without running destructors or exit handlers, as a clone of the launcher must.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

fn prctl(call: &str, option: i32, arg: libc::c_ulong) -> CallResult<i64> {
    // SAFETY: the options used in this module take integers only.
    let ret = unsafe { libc::prctl(option, arg, 0, 0, 0) };
    check(ret.into(), "prctl", || call)
}

/// `PR_SET_PDEATHSIG` with SIGKILL, or none. Cleared by the kernel when the ids or capabilities change.
///
/// # Errors
/// The kernel's.
pub fn set_parent_death_signal(on: bool) -> CallResult<()> {
    let signal = if on { libc::SIGKILL } else { 0 };
    prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, u64::from(signal.cast_unsigned())).map(drop)
}

/// `PR_SET_PDEATHSIG` with this signal, which execve(2) keeps.
///
/// # Errors
/// The kernel's; `ESRCH` if the parent is another than this one by now.
pub fn get_signal_when_parent_dies(signal: i32, parent: u32) -> CallResult<()> {
    prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, u64::from(signal.cast_unsigned()))?;
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(CallError::new("getppid", "", libc::ESRCH)) }
}

/// `PR_SET_DUMPABLE`: a process that is not dumpable cannot be traced, and its /proc entries are root's.
///
/// # Errors
/// The kernel's.
pub fn set_dumpable(on: bool) -> CallResult<()> {
    prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, u64::from(on)).map(drop)
}

/// `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
/// The kernel's.
pub fn set_no_new_privs() -> CallResult<()> {
    prctl("PR_SET_NO_NEW_PRIVS, 1", libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// `PR_SET_CHILD_SUBREAPER`.
///
/// # Errors
/// The kernel's.
pub fn set_child_subreaper() -> CallResult<()> {
    prctl("PR_SET_CHILD_SUBREAPER, 1", libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// getppid(2): 0 if the parent lives in an outer pid namespace.
pub fn getppid() -> i32 {
    // SAFETY: getppid cannot fail.
    unsafe { libc::getppid() }
}

/// setsid(2).
///
/// # Errors
/// `EPERM` for a process group leader.
pub fn setsid() -> CallResult<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::setsid() };
    check(ret.into(), "setsid", String::new).map(drop)
}

/// A resource limit: soft and hard value, `u64::MAX` for none (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limit {
    /// The value in force.
    pub soft: u64,
    /// Its ceiling.
    pub hard: u64,
}

/// prlimit(2): reads, and sets if given, a limit of a process (0 for the caller).
///
/// # Errors
/// The kernel's; `EPERM` when raising a hard limit without CAP_SYS_RESOURCE.
pub fn prlimit(pid: i32, resource: u32, new: Option<Limit>) -> CallResult<Limit> {
    let value = new.map(|limit| libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard });
    let new_ptr = value.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both structures outlive the call; a null new limit only reads.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new_ptr, &raw mut old) };
    check(ret, "prlimit64", || match new {
        Some(limit) => format!("{pid}, {resource}, {{{}, {}}}", limit.soft, limit.hard),
        None => format!("{pid}, {resource}"),
    })?;
    Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max })
}

/// seccomp(2) with `SECCOMP_SET_MODE_FILTER`. Returns the listener if the flags ask for one.
///
/// # Errors
/// The kernel's; `EACCES` without no_new_privs and CAP_SYS_ADMIN.
pub fn seccomp_load(program: &[u8], flags: u64) -> CallResult<Option<OwnedFd>> {
    let instructions = u16::try_from(program.len() / 8)
        .map_err(|_| CallError::new("seccomp", "SECCOMP_SET_MODE_FILTER, more than 65535 instructions", libc::EINVAL))?;
    // sock_filter is 8 bytes with an alignment of 4; a Vec<u64> copy provides it.
    let words: Vec<u64> = program
        .chunks_exact(8)
        .map(|chunk| u64::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]))
        .collect();
    let fprog = libc::sock_fprog { len: instructions, filter: words.as_ptr().cast_mut().cast() };
    // SAFETY: the program outlives the call and has the given number of instructions.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    let value = check_int(ret, "seccomp", || format!("SECCOMP_SET_MODE_FILTER, {flags:#x}, {{{instructions} instructions}}"))?;
    // To give memory back may be a system call, which the filter could answer badly.
    std::mem::forget(words);
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the result is a new descriptor that nobody else knows.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(value) }))
}

/// keyctl(2): joins (and makes, if need be) a session keyring of this name and returns its serial number.
///
/// # Errors
/// The kernel's; `ENOSYS` where keyrings are not offered.
pub fn join_session_keyring(name: &str) -> CallResult<i32> {
    let text = super::c_string("keyctl", name)?;
    // SAFETY: `text` outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, text.as_ptr(), 0, 0, 0) };
    check_int(ret, "keyctl", || format!("KEYCTL_JOIN_SESSION_KEYRING, {name:?}"))
}

/// keyctl(2): lets the owner (uid) of the session keyring search it, as the other runtimes do for processes that
/// change their user id later.
///
/// # Errors
/// The kernel's.
pub fn allow_keyring_search(serial: i32) -> CallResult<()> {
    // All for the possessor and search for the user (keyctl_setperm(3)).
    let permissions: u32 = 0x3f00_0000 | 0x0008_0000;
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, permissions, 0, 0) };
    check(ret, "keyctl", || format!("KEYCTL_SETPERM, {serial}, {permissions:#x}")).map(drop)
}

/// sethostname(2).
///
/// # Errors
/// The kernel's.
pub fn sethostname(name: &str) -> CallResult<()> {
    // SAFETY: the string has the given length.
    let ret = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    check(ret.into(), "sethostname", || format!("{name:?}")).map(drop)
}

/// setdomainname(2).
///
/// # Errors
/// The kernel's.
pub fn setdomainname(name: &str) -> CallResult<()> {
    // SAFETY: the string has the given length.
    let ret = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(ret.into(), "setdomainname", || format!("{name:?}")).map(drop)
}

/// personality(2).
///
/// # Errors
/// The kernel's.
pub fn personality(value: u32) -> CallResult<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::personality(u64::from(value)) };
    check(ret.into(), "personality", || format!("{value:#x}")).map(drop)
}

/// A descriptor to wait for: readable when the process has ended.
pub fn pidfd_is_dead(pidfd: impl AsFd) -> bool {
    poll(&[(pidfd.as_fd(), false)], Some(Duration::ZERO)).is_ok_and(|ready| ready[0].readable)
}

/// Removes a variable from the environment of this process, which must have one thread.
pub fn remove_variable(name: &str) {
    // SAFETY: the process has one thread (the crate starts none), so nobody reads the environment at the same time.
    unsafe { std::env::remove_var(name) };
}

/// Overwrites the variables of this process, so that /proc/PID/environ has nothing to show. From then on all of them are empty.
pub fn forget_environment() {
    unsafe extern "C" {
        /// environ(7).
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: the C library's variable; one thread, so nobody changes it at the same time.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: the list ends with a null pointer, which is not gone beyond.
        let text = unsafe { *entry };
        if text.is_null() {
            return;
        }
        // SAFETY: every entry is a NUL-terminated string.
        let len = unsafe { libc::strlen(text) };
        // SAFETY: the string has this length, the kernel has put it on our stack, where it may be written to, and nobody refers to it.
        unsafe { text.write_bytes(0, len) };
        entry = entry.wrapping_add(1);
    }
}

/// prctl(2) `PR_SET_NAME`: the name that ps(1) shows, at most 15 bytes.
pub fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the name is a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}
