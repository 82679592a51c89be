//! Signals to everything in a cgroup.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::dir::{Dir, is_gone};
use super::steps::Version;
use crate::error::{Doing, Failure};
use crate::procfs::ProcFs;
use crate::sys::CallResult;
use crate::sys::process::{pidfd_open, pidfd_send_signal, poll};

/// How long to wait for killed processes to leave.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long processes may take to stand still before they are signalled as they run.
const STILL: Duration = Duration::from_millis(500);

/// How long the killed may take before what slows them is taken away.
const UNHURRIED: Duration = Duration::from_millis(20);

/// Who has got a signal; of the killed it is kept who they are, to see them end.
type Signalled = BTreeMap<i32, Option<OwnedFd>>;

impl Cgroup {
    /// Sends a signal to every process in the container's cgroup and below, except to the caller.
    ///
    /// SIGKILL also reaches what is being forked meanwhile, and what is frozen. Where the kernel has `cgroup.kill` (Linux
    /// 5.14, in the unified tree of a hybrid host too) it does not wait for the processes to end; [`Cgroup::remove`] does.
    ///
    /// # Errors
    /// The kernel's, or if processes are left after 10 seconds of killing them one by one.
    pub fn kill(&self, signal: i32) -> Result<(), Failure> {
        let doing = || format!("send signal {signal} to the container's cgroup");
        if signal != libc::SIGKILL {
            return self.signal_all(signal).doing(doing);
        }
        // Not where we would be among the dead.
        if !self.has_caller() && self.kill_by_kernel()? {
            return self.thaw_v1();
        }
        self.kill_each(Instant::now() + PATIENCE, || ()).doing(doing)
    }

    /// Ends every process of a container that is about to be removed, and waits for its first one. `alone`: that one has a pid namespace of
    /// its own, so that its end is the last one.
    ///
    /// # Errors
    /// As [`Cgroup::kill`], or if the first process does not end within 10 seconds. Nothing is killed if the caller is among them.
    pub fn kill_for_good(&self, first: Option<(i32, BorrowedFd<'_>)>, alone: bool) -> Result<(), Failure> {
        let doing = || "kill the container's processes";
        if self.has_caller() {
            return Err(Failure::because("the caller is in the container's cgroup, and has to leave it first").doing(doing()));
        }
        if let Some((_, pidfd)) = first {
            // It may end by itself at this moment.
            let _ = pidfd_send_signal(pidfd, libc::SIGKILL);
        }
        let end = Instant::now() + PATIENCE;
        if self.kill_by_kernel().doing(doing)? {
            self.thaw_v1()?;
            if first.is_none() || !alone {
                self.hurry();
            }
        } else {
            self.lift_quota();
            self.kill_each(end, || self.hurry()).doing(doing)?;
        }
        if self.wait_for(first, end)? { Ok(()) } else { Err(late().doing(doing())) }
    }

    /// Waits for the end of a killed process. False if it takes too long.
    fn wait_for(&self, first: Option<(i32, BorrowedFd<'_>)>, end: Instant) -> Result<bool, Failure> {
        let Some((pid, pidfd)) = first else { return Ok(true) };
        // Most often there are few of them.
        if has_ended(pidfd, UNHURRIED)? {
            return Ok(true);
        }
        self.hurry();
        let procfs = ProcFs::open()?;
        loop {
            if is_over(&procfs, pid) || has_ended(pidfd, UNHURRIED)? {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }

    /// Gives the killed what they need of a CPU to die. Hundreds who share the quota or the weight of a small container take seconds for it.
    /// Before they are killed this would only feed them.
    fn hurry(&self) {
        self.lift_quota();
        self.write_ours(&[("cpu.idle", "0"), ("cpu.shares", "262144")], &[("cpu.idle", "0"), ("cpu.weight", "10000")]);
    }

    fn lift_quota(&self) {
        self.write_ours(&[("cpu.cfs_quota_us", "-1")], &[("cpu.max", "max")]);
    }

    /// For groups that are ours and about to be removed.
    fn write_ours(&self, v1: &[(&str, &str)], v2: &[(&str, &str)]) {
        let ours = self.record.directories.iter().zip(&self.dirs).filter(|(recorded, _)| recorded.ours);
        for (place, dir) in ours.filter_map(|(recorded, dir)| Some((&recorded.place, dir.as_ref()?))) {
            match place.version {
                Version::V1 if place.has("cpu") => write_below(dir, v1),
                Version::V1 => {}
                Version::V2 => write_below(dir, v2),
            }
        }
    }

    fn kill_by_kernel(&self) -> Result<bool, Failure> {
        let Some(dir) = self.v2() else { return Ok(false) };
        match dir.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) => Ok(false),
            // A threaded cgroup has no processes of its own.
            Err(error) if error.is(libc::EOPNOTSUPP) => Ok(false),
            other => other.map(|()| true).doing(|| "kill the container's cgroup"),
        }
    }

    /// True if the calling process is in the container's cgroup.
    pub(super) fn has_caller(&self) -> bool {
        self.processes().is_ok_and(|pids| pids.contains(&own_pid()))
    }

    /// The freezer of version 1 holds even the killed, and a group that was frozen by itself stays so when the one above is thawed.
    fn thaw_v1(&self) -> Result<(), Failure> {
        self.v1("freezer").map_or(Ok(()), |dir| thaw_below(dir).doing(|| "thaw the killed processes"))
    }

    /// Rounds of killing until nobody is left. Whoever has got the signal is given the time to die before there is another round, which
    /// would hold it up.
    fn kill_each(&self, end: Instant, when_signalled: impl Fn()) -> Result<(), Failure> {
        let procfs = ProcFs::open()?;
        let mut dying = Signalled::new();
        loop {
            let lives = |pidfd: &OwnedFd| !has_ended(pidfd.as_fd(), Duration::ZERO).unwrap_or(true);
            dying.retain(|pid, pidfd| pidfd.as_ref().is_some_and(lives) && !is_over(&procfs, *pid));
            let new = self.processes()?.iter().any(|pid| *pid != own_pid() && !dying.contains_key(pid));
            if new {
                self.kill_once(&mut dying, &when_signalled)?;
            } else if dying.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Failure::because("processes are left after 10 seconds"));
            }
            match dying.values().flatten().next_back() {
                Some(last) => has_ended(last.as_fd(), Duration::from_millis(5)).map(drop)?,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Who is to be frozen does not fork any more, and whoever is just being born is to be frozen, too (fork(2) gives way to a signal, and
    /// freezing is one to it). So nobody has to be waited for: that needs a turn on a CPU of every one of them.
    fn kill_once(&self, dying: &mut Signalled, when_signalled: impl Fn()) -> Result<(), Failure> {
        // Who freezes itself does not go on.
        let held = !self.has_caller() && self.begin_to_freeze(Duration::ZERO).is_ok();
        let sent = self.signal_until_nobody_is_new(libc::SIGKILL, dying);
        when_signalled();
        if held {
            self.thaw_v2()?;
        }
        self.thaw_v1()?;
        sent
    }

    /// Every process gets the signal while it stands still, if it can be made to.
    fn signal_all(&self, signal: i32) -> Result<(), Failure> {
        let mut done = Signalled::new();
        if self.has_caller() || self.is_frozen()? {
            return self.signal_until_nobody_is_new(signal, &mut done);
        }
        let held = self.begin_to_freeze(STILL).is_ok();
        let sent = self.signal_until_nobody_is_new(signal, &mut done);
        if held {
            self.thaw()?;
        }
        sent
    }

    /// What stands still, or is about to, cannot go on making processes; otherwise there is an end all the same.
    fn signal_until_nobody_is_new(&self, signal: i32, done: &mut Signalled) -> Result<(), Failure> {
        for _ in 0..100 {
            if !self.signal_each(signal, done)? {
                break;
            }
        }
        Ok(())
    }

    /// False if there was nobody new.
    fn signal_each(&self, signal: i32, done: &mut Signalled) -> Result<bool, Failure> {
        let mut open = BTreeMap::new();
        for pid in self.processes()?.into_iter().filter(|pid| *pid != own_pid() && !done.contains_key(pid)) {
            match pidfd_open(pid) {
                // The others have their turn when these are done.
                Err(error) if error.is(libc::EMFILE) => break,
                Err(_) => {}
                Ok(pidfd) => drop(open.insert(pid, pidfd)),
            }
        }
        if open.is_empty() {
            return Ok(false);
        }
        // A number may have been recycled between the list and the descriptor. If it is in the cgroup now, the descriptor
        // either names that process or one that is dead.
        for pid in self.processes()? {
            let Some(pidfd) = open.remove(&pid) else { continue };
            match pidfd_send_signal(&pidfd, signal) {
                Err(error) if error.is(libc::ESRCH) => {}
                other => other.doing(|| format!("signal process {pid}"))?,
            }
            done.insert(pid, (signal == libc::SIGKILL).then_some(pidfd));
        }
        Ok(true)
    }
}

fn late() -> Failure {
    Failure::because(format!("the first one does not end within {} s of being killed", PATIENCE.as_secs()))
}

fn has_ended(pidfd: BorrowedFd<'_>, patience: Duration) -> Result<bool, Failure> {
    Ok(poll(&[(pidfd, false)], Some(patience))?[0].readable)
}

/// True of what only waits to be reaped, or for others to be.
fn is_over(procfs: &ProcFs, pid: i32) -> bool {
    procfs.process_stat(pid).is_ok_and(|(state, _)| matches!(state, 'Z' | 'X'))
}

fn thaw_below(dir: &Dir) -> CallResult<()> {
    match dir.write("freezer.state", "THAWED") {
        Err(error) if is_gone(&error) => return Ok(()),
        other => other?,
    }
    dir.children()?.iter().try_for_each(thaw_below)
}

/// From the top down: what is below is bounded by what is above. A file that is not there, or does not take the value, is left.
fn write_below(dir: &Dir, files: &[(&str, &str)]) {
    for (file, value) in files {
        let _ = dir.write(file, value);
    }
    dir.children().unwrap_or_default().iter().for_each(|child| write_below(child, files));
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}
