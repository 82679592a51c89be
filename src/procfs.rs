//! [`ProcFs`]: the host's verified procfs, opened before any namespace is entered.
//!
//! Every write to procfs goes through this descriptor, and lookups below it neither follow links out nor cross mounts, so that
//! an image cannot redirect a write with a mount or link of its own (CVE-2019-16884, CVE-2025-52881).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Doing, Failure};
use crate::sys::fs::{self, Resolve};
use crate::sys::process::Exit;
use crate::sys::{At, CallError, CallResult, exe, mount};

/// The root of every procfs has this inode number (PROC_ROOT_INO).
const ROOT_INODE: u64 = 1;

/// The host's procfs.
#[derive(Debug)]
pub struct ProcFs {
    /// Nothing once it was closed.
    root: Option<OwnedFd>,
    /// See [`ProcFs::boot_offset`].
    boot_offset: OnceLock<i64>,
}

/// From the descriptor of one that was verified.
impl From<OwnedFd> for ProcFs {
    fn from(root: OwnedFd) -> Self {
        Self { root: Some(root), boot_offset: OnceLock::new() }
    }
}

impl ProcFs {
    /// Opens /proc and verifies that it is the root of a procfs.
    ///
    /// # Errors
    /// If /proc is missing or is something else.
    pub fn open() -> Result<Self, Failure> {
        let open = || -> CallResult<OwnedFd> {
            let root = fs::openat(At::Cwd, Path::new("/proc"), libc::O_PATH | libc::O_DIRECTORY, 0)?;
            if fs::fstatfs(&root)?.magic != libc::PROC_SUPER_MAGIC || fs::fstat(&root)?.ino != ROOT_INODE {
                return Err(CallError::new("fstatfs", "\"/proc\" is not a procfs", libc::EINVAL));
            }
            Ok(root)
        };
        let opened = Self::from(open().doing(|| "open the host's procfs")?);
        opened.check_pid_namespace()?;
        Ok(opened)
    }

    /// In another pid namespace than the caller's (`unshare --pid` without `--mount-proc`) the numbers that clone3(2) returns and
    /// pidfd_open(2) takes are those of other processes.
    fn check_pid_namespace(&self) -> Result<(), Failure> {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let known_as = match self.own_pid() {
            Ok(pid) if pid == own => return Ok(()),
            Ok(pid) => format!("process {pid} there"),
            Err(_) => "not there at all".to_owned(),
        };
        Err(Failure::because(format!("it belongs to another pid namespace: this process is {own} here, and {known_as}"))
            .doing("open the host's procfs")
            .hint("mount one of this pid namespace on /proc; `unshare --mount-proc` does"))
    }

    /// A procfs of the calling process's own pid namespace with nothing but processes in it, detached: what is below is what the container's
    /// own /proc shows, and nothing is above. Linux 5.8.
    ///
    /// # Errors
    /// The kernel's; `EPERM` where a user namespace may not mount one.
    pub fn detached() -> CallResult<Self> {
        let context = mount::fsopen("proc")?;
        mount::fsconfig_string(&context, "subset", "pid")?;
        mount::fsconfig_create(&context)?;
        let attributes = mount::attr::NOSUID | mount::attr::NODEV | mount::attr::NOEXEC;
        Ok(Self::from(mount::fsmount(&context, attributes)?))
    }

    /// Closes it: from now on every use is an error (`EBADF`).
    pub fn close(&mut self) {
        self.root = None;
    }

    /// Its root directory, unless it was closed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(OwnedFd::as_fd)
    }

    /// Makes it the working directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self) -> CallResult<()> {
        self.root.as_ref().map_or_else(|| self.root().map(drop), fs::fchdir)
    }

    fn root(&self) -> CallResult<At<'_>> {
        let closed = || CallError::new("openat", "/proc: it was closed", libc::EBADF);
        self.root.as_ref().map(At::from).ok_or_else(closed)
    }

    /// Opens a file below, such as `self/oom_score_adj`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_file(&self, path: &str, flags: i32) -> CallResult<OwnedFd> {
        fs::openat2(self.root()?, Path::new(path), flags, 0, Resolve::PROC)
    }

    /// Writes a file below in one write(2).
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, path: &str, value: &str) -> CallResult<()> {
        let file = self.open_file(path, libc::O_WRONLY)?;
        let named = |error: CallError| CallError { args: format!("/proc/{path}, {value:?}"), ..error };
        fs::write_all(&file, value.as_bytes()).map_err(named)
    }

    /// Reads a file below, at most one megabyte.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, path: &str) -> CallResult<String> {
        let file = self.open_file(path, libc::O_RDONLY)?;
        let content = fs::read_to_end(&file, 1 << 20)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// proc_pid_stat(5) of a process, which is one record.
    fn stat(&self, pid: i32) -> CallResult<String> {
        let content = fs::read_record(self.open_file(&format!("{pid}/stat"), libc::O_RDONLY)?)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Opens a descriptor of this process anew, following the magic link `self/fd/N`, with other flags.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reopen(&self, fd: &OwnedFd, flags: i32) -> CallResult<OwnedFd> {
        use std::os::fd::AsRawFd;
        fs::openat(self.root()?, Path::new(&format!("self/fd/{}", fd.as_raw_fd())), flags, 0)
    }

    /// As [`ProcFs::reopen`], of what may make the caller wait for long: it waits with little memory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reopen_and_wait(&self, fd: &OwnedFd, flags: i32) -> CallResult<OwnedFd> {
        use std::os::fd::AsRawFd;
        exe::open_without_code(self.root()?, Path::new(&format!("self/fd/{}", fd.as_raw_fd())), flags)
    }

    /// Opens a namespace of a process, such as `self/ns/time_for_children`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_namespace(&self, path: &str) -> CallResult<OwnedFd> {
        fs::openat(self.root()?, Path::new(path), libc::O_RDONLY, 0)
    }

    /// Opens what a magic link of a process leads to, such as `1234/root`, as an `O_PATH` descriptor.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_namespace_path(&self, path: &str) -> CallResult<OwnedFd> {
        fs::openat(self.root()?, Path::new(path), libc::O_PATH, 0)
    }

    /// The pid of the calling process in the pid namespace of this procfs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn own_pid(&self) -> CallResult<i32> {
        let link = fs::readlinkat(self.root()?, Path::new("self"))?;
        let pid = link.to_str().and_then(|text| text.parse().ok());
        pid.ok_or_else(|| CallError::new("readlinkat", format!("/proc/self: {link:?}"), libc::EINVAL))
    }

    /// State letter of a process, and whether it has executed anything since it was cloned: field 3, and the bit `PF_FORKNOEXEC` (0x40 of
    /// linux/sched.h) of field 9 of proc_pid_stat(5), which execve(2) takes away for good.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` or `ESRCH` if there is no such process.
    pub fn has_executed(&self, pid: i32) -> CallResult<(char, bool)> {
        const FORK_NO_EXEC: u64 = 0x40;
        let text = self.stat(pid)?;
        let fields = fields(&text);
        let state = fields.first().and_then(|field| field.chars().next());
        let flags = fields.get(6).and_then(|field| field.parse::<u64>().ok());
        let found = state.zip(flags).map(|(state, flags)| (state, flags & FORK_NO_EXEC == 0));
        found.ok_or_else(|| CallError::new("read", format!("/proc/{pid}/stat: {text:?}"), libc::EINVAL))
    }

    /// How a zombie ended, field 52 of proc_pid_stat(5); nothing for a process that lives.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` or `ESRCH` if there is no such process.
    pub fn process_exit(&self, pid: i32) -> CallResult<Option<Exit>> {
        let text = self.stat(pid)?;
        let fields = fields(&text);
        let status = fields.get(49).and_then(|field| field.parse().ok());
        Ok(status.filter(|_| fields.first() == Some(&"Z")).map(Exit::from_wait_status))
    }

    /// State letter and start time (in clock ticks since boot) of a process, fields 3 and 22 of proc_pid_stat(5). The time is the host's, whatever
    /// time namespace the caller is in, but for a rounding error of one tick. One that has given
    /// everything back, and only waits for others to be reaped, is as good as a zombie: `Z`. One whose first thread alone has ended is not:
    /// `S`, whatever the other threads do.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` or `ESRCH` if there is no such process.
    pub fn process_stat(&self, pid: i32) -> CallResult<(char, u64)> {
        let text = self.stat(pid)?;
        let fields = fields(&text);
        let state = fields.first().and_then(|field| field.chars().next());
        let start = fields.get(19).and_then(|field| field.parse::<u64>().ok());
        let start = start.map(|shown| shown.saturating_add_signed(-self.boot_offset()));
        let number = |index: usize| fields.get(index).and_then(|field| field.parse().ok()).unwrap_or(0);
        let (flags, threads): (u64, u64) = (number(6), number(17));
        let state = state.map(|state| match state {
            'Z' if threads > 1 => 'S',
            // Asleep or idle (`I`), by the kernel's age.
            'S' | 'I' if self.is_husk(pid, flags) => 'Z',
            state => state,
        });
        state.zip(start).ok_or_else(|| CallError::new("read", format!("/proc/{pid}/stat: {text:?}"), libc::EINVAL))
    }

    /// How many clock ticks (of 10 ms, for every user of procfs) the kernel adds to what it shows a caller of the time since boot: time_namespaces(7).
    fn boot_offset(&self) -> i64 {
        const TICK: i128 = 10_000_000;
        *self.boot_offset.get_or_init(|| {
            // PROC_TIME_INIT_INO of linux/proc_ns.h; a kernel without time namespaces has no such link.
            match self.root().and_then(|root| fs::readlinkat(root, Path::new("self/ns/time"))) {
                Ok(link) if link.as_os_str() != "time:[4026531834]" => {}
                _ => return 0,
            }
            let offsets = self.read("self/timens_offsets").unwrap_or_default();
            let boot = offsets.lines().find_map(|line| line.strip_prefix("boottime")).unwrap_or_default();
            let numbers: Vec<i128> = boot.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [seconds, nanoseconds] = numbers[..] else { return 0 };
            i64::try_from((seconds * 1_000_000_000 + nanoseconds).div_euclid(TICK)).unwrap_or(0)
        })
    }

    /// The first process of a pid namespace ends when everybody else in it has been reaped, and a process that was started from outside
    /// (`exec --detach`) is reaped outside, by whoever is the first process there: late, or never, as some first processes are. Until
    /// then it sleeps in exit(2), without memory, files, namespaces, or a place in a cgroup. It has the flag `PF_EXITING` (4 of
    /// linux/sched.h), and the file about its mounts says `EINVAL` when it has no namespaces any more.
    fn is_husk(&self, pid: i32, flags: u64) -> bool {
        const EXITING: u64 = 4;
        let has_no_mounts =
            || self.open_file(&format!("{pid}/mountinfo"), libc::O_RDONLY).is_err_and(|error| error.is(libc::EINVAL));
        flags & EXITING != 0 && has_no_mounts()
    }
}

/// The fields of proc_pid_stat(5) from the third on. The second is the command in parentheses and may contain anything; the last `)` ends it.
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default()
}
