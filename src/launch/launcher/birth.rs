//! Making the child, with its control groups, and how it has ended if it does so before its time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use super::Walk;
use super::conversation::CONTAINER_ENDED;
use crate::cgroups::systemd::Manager;
use crate::cgroups::{Cgroup, Doors};
use crate::child::Child;
use crate::error::{Failure, Role};
use crate::launch::{bridge, init, link};
use crate::namespaces::{Kind, join};
use crate::state::store::SECCOMP;
use crate::sys::heap;
use crate::sys::process::{self, CloneArgs, Cloned, Exit};

impl Walk<'_> {
    /// How the child ended, if it did so without a word.
    pub(super) fn killed_at_birth(&mut self) -> Option<Exit> {
        if self.heard {
            return None;
        }
        self.death()
    }

    /// How the child ended. One that still lives is killed. Its end of the link closes a moment before the kernel says that it is dead, so
    /// that is waited for.
    fn death(&mut self) -> Option<Exit> {
        let child = self.child.take()?;
        let patience = if self.gone.get() { Duration::from_secs(1) } else { Duration::ZERO };
        let dead = process::poll(&[(child.pidfd()?.as_fd(), false)], Some(patience)).is_ok_and(|ready| ready[0].readable);
        if dead { child.wait().ok() } else { None }
    }

    /// True if this is an exec into a container that is not there any more.
    fn container_has_ended(&self, failure: &Failure, exit: Option<Exit>) -> bool {
        let traces = [libc::ESRCH, libc::ENOMEM, libc::ENOENT, libc::ENODEV];
        let ending = exit.is_some() || traces.iter().any(|errno| failure.is(*errno));
        let patience = if ending { Duration::from_millis(100) } else { Duration::ZERO };
        let container = self.launch.handles.container.as_ref().map(|pidfd| (pidfd.as_fd(), false));
        container.is_some_and(|container| process::poll(&[container], Some(patience)).is_ok_and(|ready| ready[0].readable))
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.launch.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok().flatten()).unwrap_or(0)
    }

    /// A process that vanished without a word was killed; the most frequent reason can be found out.
    pub(super) fn explain(&mut self, failure: Failure, exit: Option<Exit>) -> Failure {
        // Also the container's first process does not end before the child has been reaped.
        let exit = exit.or_else(|| self.death());
        if failure.place.as_ref().is_some_and(|place| place.role == Role::Launcher) && self.container_has_ended(&failure, exit) {
            // Each step has another word for it.
            return Failure { call: None, reason: Some(CONTAINER_ENDED.to_owned()), hint: None, ..failure };
        }
        let Some(cgroup) = &self.launch.cgroup else { return failure };
        let oom = self.oom_kills();
        match exit {
            // It knows better than any hint that was given on suspicion.
            Some(Exit::Signal(libc::SIGKILL)) if oom > 0 => Failure { hint: Some(too_little_memory(cgroup)), ..failure },
            _ if refused(&failure, libc::EAGAIN) => too_few_processes(failure, cgroup),
            _ => failure,
        }
    }

    pub(super) fn clone_child(&mut self, new: &[Kind], inside: &[Kind], into_cgroup: bool, bridge: bool) -> Result<(), Failure> {
        if let Some(cgroup) = &self.launch.cgroup {
            self.launch.handles.doors = cgroup.doors()?;
        }
        let (ours, theirs) = link::pair()?;
        let (init_ours, init_theirs) =
            if bridge { link::pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))? } else { (None, None) };
        // Exec is where init is, if that is up to the container's program, or init is a systemd.
        let home = match self.launch.record.init.filter(|_| into_cgroup) {
            Some(init) if self.delegates() => self.nested_cgroup(init.pid)?,
            // If init has ended meanwhile the clone says so.
            Some(init) => self.launch.cgroup.as_ref().and_then(|cgroup| cgroup.v2_of_systemd(init.pid).unwrap_or_default()),
            None => None,
        };
        let own = self.launch.cgroup.as_ref().filter(|_| into_cgroup).and_then(Cgroup::v2_fd);
        let cgroup = home.as_ref().map(AsFd::as_fd).or(own);
        let flags = u64::from(crate::namespaces::steps::flags(new).cast_unsigned());
        let request = CloneArgs { flags, cgroup };
        self.born_in_cgroup = cgroup.is_some();
        heap::leave();
        let mut made = self.clone_once(inside, &request);
        let nested = match (&made, self.launch.record.init) {
            // Controllers were enabled below the container's cgroup, which has no processes of its own then: init knows where.
            (Err(failure), Some(init)) if refused(failure, libc::EBUSY) && self.born_in_cgroup => self.nested_cgroup(init.pid)?,
            _ => None,
        };
        if let Some(nested) = &nested {
            made = self.clone_once(inside, &CloneArgs { flags, cgroup: Some(nested.as_fd()) });
        }
        // The caller may not write to the cgroup that both have in common, and it is moved by somebody who may. Or nobody may be born there
        // (`pids.limit` 0), and the first process is moved, which no limit forbids; exec has to keep to the limit.
        let may_be_moved = |failure: &Failure| {
            let is_first = self.launch.directory.is_some() && !bridge;
            refused(failure, libc::EACCES) || (refused(failure, libc::EAGAIN) && is_first && self.refuses_births())
        };
        if self.born_in_cgroup && made.as_ref().is_err_and(may_be_moved) {
            self.born_in_cgroup = false;
            made = self.clone_once(inside, &CloneArgs { flags, cgroup: None });
        }
        match made? {
            Cloned::Child => {
                drop((ours, init_ours));
                match init_theirs {
                    Some(init_link) => bridge::run(self.launch.plan, &mut self.launch.handles, theirs, init_link),
                    None => init::run(self.launch.plan, &mut self.launch.handles, theirs),
                }
            }
            Cloned::Parent(pid, pidfd) => {
                self.launch.handles.doors = Doors::default();
                self.child = Some(Child::new(pid, pidfd));
                self.link = Some(ours);
                self.next_link = init_ours;
                Ok(())
            }
        }
    }

    /// The child is born in the namespaces that the launcher enters for that moment.
    fn clone_once(&self, inside: &[Kind], request: &CloneArgs<'_>) -> Result<Cloned, Failure> {
        join::clone_inside(inside, &self.launch.handles.namespace_context(), request)
    }

    /// Keeps the compiled filter for exec.
    pub(super) fn keep_filter(&self) -> Result<(), Failure> {
        match (self.launch.directory, &self.launch.plan.seccomp) {
            (Some(directory), Some(filter)) => directory.write_file(SECCOMP, filter.program.as_bytes()),
            _ => Ok(()),
        }
    }

    fn nested_cgroup(&self, pid: i32) -> Result<Option<OwnedFd>, Failure> {
        self.launch.cgroup.as_ref().map_or(Ok(None), |cgroup| cgroup.v2_of(pid))
    }

    /// Who is moved into a group is not held against its limit (cgroup-v2.rst, "PID"), but exec has to keep to it.
    pub(super) fn check_pids(&self) -> Result<(), Failure> {
        let Some(cgroup) = &self.launch.cgroup else { return Ok(()) };
        match cgroup.passed_pids_limit(self.born_in_cgroup)? {
            Some(limit) => Err(Failure::because(format!("the container's pids limit of {limit} is reached"))),
            None => Ok(()),
        }
    }

    pub(super) fn join_cgroup(&self) -> Result<(), Failure> {
        let Some(cgroup) = &self.launch.cgroup else { return Ok(()) };
        let pid = self.pid()?;
        if self.born_in_cgroup || self.in_unit {
            return Ok(());
        }
        let is_exec = self.launch.directory.is_none();
        let joined = if is_exec && self.delegates() { cgroup.join_delegated(pid) } else { cgroup.join_v2(pid) };
        match (joined, &self.launch.record.cgroup.unit) {
            // An ordinary user whose own cgroup is not below that of the user's systemd: it may move the process, and does.
            (Err(failure), Some(unit)) if failure.is(libc::EACCES) || failure.is(libc::EPERM) => {
                let delegated = cgroup.record().delegated.iter().filter(|_| is_exec);
                let below: PathBuf = unit.subgroup.iter().chain(delegated).collect();
                Manager::connect(unit.which)?.attach(&unit.name, &below, pid)
            }
            (joined, _) => joined,
        }
    }

    /// The container's program manages where its processes are.
    fn delegates(&self) -> bool {
        self.launch.cgroup.as_ref().is_some_and(|cgroup| cgroup.record().delegated.is_some())
    }

    pub(super) fn join_delegated(&self) -> Result<(), Failure> {
        let pid = self.pid()?;
        self.launch.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.join_delegated(pid))
    }
}

/// True if clone3(2) has refused with this errno, and not the way to it or back.
fn refused(failure: &Failure, errno: i32) -> bool {
    failure.call.as_ref().is_some_and(|call| call.call == "clone3" && call.is(errno))
}

fn too_little_memory(cgroup: &Cgroup) -> String {
    let limit = cgroup.stats().map(|stats| stats.memory.usage.limit).unwrap_or(0);
    let need = format!("a start needs {} KiB or more, and the program its own", cgroup.least_memory() >> 10);
    format!("the container's memory limit of {limit} bytes is too low: the kernel's OOM killer ended init; {need}")
}

fn too_few_processes(failure: Failure, cgroup: &Cgroup) -> Failure {
    if cgroup.refuses_births() {
        return failure.hint("the container's pids limit of 0 lets no process be made in it");
    }
    let Ok(stats) = cgroup.stats() else { return failure };
    // A limit of 0 is none in the figures.
    if stats.pids.limit == 0 || stats.pids.current < stats.pids.limit {
        return failure;
    }
    let (limit, current) = (stats.pids.limit, stats.pids.current);
    failure.hint(format!("the container's pids limit of {limit} is reached: {current} processes run, and this needs one more"))
}
