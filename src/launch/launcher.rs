//! The launcher: the command-line process, which stays on the host side and walks its list.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::cgroups::{self, Cgroup};
use crate::child::Child;
use crate::error::{Failure, Place, Role};
use crate::hooks;
use crate::log::Log;
use crate::namespaces::{idmap, netdev};
use crate::notify::Proxy;
use crate::plan::rehearsal::Instead;
use crate::plan::{LauncherStep, Plan, Planned, StartSignal};
use crate::resctrl;
use crate::state::{Directory, Record, lifecycle};
use crate::sys::process::{self, Exit};
use crate::sys::{fs, signal, socket};

use super::link::LauncherLink;
use super::rehearsal::{self, Findings};
use super::{beginning, groups, pid_file};

mod birth;
mod conversation;
mod handles;

pub use handles::Handles;

/// What a plan is carried out on.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// Where warnings go.
    pub log: &'a Log,
    /// Warnings are errors.
    pub strict: bool,
    /// The container's directory, unless this is an exec.
    pub directory: Option<&'a Directory>,
    /// The container's record.
    pub record: &'a mut Record,
    /// What is opened already.
    pub handles: Handles,
    /// The groups of a running container, for exec; made by the plan otherwise.
    pub cgroup: Option<Cgroup>,
    /// The surveyed groups of a new container.
    pub survey: Option<cgroups::Survey>,
    /// What a rehearsal found out; nobody asks for it otherwise.
    pub findings: Option<&'a Findings>,
}

/// What a carried out plan leaves.
#[derive(Debug)]
pub struct Launched {
    /// Init.
    pub init: Child,
    /// The master of its terminal, if nobody else got it.
    pub terminal: Option<OwnedFd>,
    /// What tells of signals, all of which are blocked.
    pub signals: OwnedFd,
    /// Who hears what the program says to the service manager.
    pub notify: Option<Proxy>,
}

/// The state of a walk.
struct Walk<'a> {
    launch: Launch<'a>,
    signals: OwnedFd,
    console: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// Who gets init's pidfd.
    pidfd_socket: Option<OwnedFd>,
    /// Who hears what the program says to the service manager.
    notify: Option<Proxy>,
    /// The bridge or init, whoever was made last by us.
    child: Option<Child>,
    /// Init's or the bridge's link, whoever speaks now.
    link: Option<LauncherLink>,
    /// Init's link while the bridge speaks.
    next_link: Option<LauncherLink>,
    /// Init has said something, so it has survived its birth.
    heard: bool,
    born_in_cgroup: bool,
    /// The link has ended: who speaks there is dead or dying.
    gone: Cell<bool>,
    /// The child is in the container's systemd unit.
    in_unit: bool,
}

/// Carries a plan out. On failure every process that was made is dead and reaped; groups and directories are the caller's to clean up.
///
/// # Errors
/// Of the first step that fails, in whichever process.
pub fn run(launch: Launch<'_>) -> Result<Launched, Failure> {
    signal::block_all()?;
    let mut walk = Walk {
        launch,
        signals: signal::signalfd_all()?,
        console: None,
        terminal: None,
        pidfd_socket: None,
        notify: None,
        child: None,
        link: None,
        next_link: None,
        heard: false,
        born_in_cgroup: false,
        gone: Cell::new(false),
        in_unit: false,
    };
    walk.all()?;
    let init = walk.child.take().ok_or_else(|| Failure::because("the plan made no process"))?;
    let notify = walk.notify.map(|notify| notify.about(init.pid));
    Ok(Launched { init, terminal: walk.terminal, signals: walk.signals, notify })
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), Failure> {
        let plan = self.launch.plan;
        let birth = plan.launcher.iter().position(|planned| matches!(planned.step, LauncherStep::Clone { .. }));
        let (before, after) = plan.launcher.split_at(birth.unwrap_or(plan.launcher.len()));
        self.steps(before, 0, true)?;
        match self.steps(after, before.len(), true) {
            Err(failure) => match self.killed_at_birth() {
                // A kernel bug (6.18, 7.2): a child is killed on its way into a control group if the caller's own group has ever
                // been killed with cgroup.kill. It is made again, and moved.
                Some(Exit::Signal(libc::SIGKILL)) if self.born_in_cgroup && self.oom_kills() == 0 => {
                    self.gone.set(false);
                    self.steps(after, before.len(), false).map_err(|failure| self.explain(failure, None))
                }
                exit => Err(self.explain(failure, exit)),
            },
            other => other,
        }
    }

    fn steps(&mut self, steps: &[Planned<LauncherStep>], offset: usize, into_cgroup: bool) -> Result<(), Failure> {
        let plan = self.launch.plan;
        let of = plan.launcher.len();
        for (index, planned) in steps.iter().enumerate() {
            let place = Place { role: Role::Launcher, step: offset + index + 1, of };
            let named = |failure: Failure| match failure.place {
                // It came from another process, which has said what it was doing.
                Some(_) => failure,
                None => failure.doing(&planned.step).origin(&planned.origin).at(place),
            };
            match self.step(&planned.step, into_cgroup).map_err(named) {
                Err(failure) if plan.rehearsal && rehearsal::goes_on_launcher(&planned.step) => self.found(failure),
                other => other?,
            }
        }
        Ok(())
    }

    fn found(&self, failure: Failure) {
        if let Some(findings) = self.launch.findings {
            findings.failures.borrow_mut().push(failure);
        }
    }

    fn refuses_births(&self) -> bool {
        self.launch.cgroup.as_ref().is_some_and(Cgroup::refuses_births)
    }

    fn step(&mut self, step: &LauncherStep, may_be_born_in_cgroup: bool) -> Result<(), Failure> {
        match step {
            LauncherStep::OpenRootfs { path } => self.launch.handles.open_rootfs(path),
            LauncherStep::OpenSource { index, path, recursive, follow } => {
                self.launch.handles.open_source(*index, path, *recursive, *follow)
            }
            LauncherStep::MakeFilesystem { index, kind } => self.launch.handles.make_filesystem(*index, kind),
            LauncherStep::MapIds { index, map } => self.launch.handles.map_ids(*index, map),
            LauncherStep::FindSource { index, path, follow } => self.launch.handles.find_source(*index, path, *follow),
            LauncherStep::OpenNamespace { kind, path } => {
                self.launch.handles.open_namespace(*kind, path, self.launch.plan.sets_in(*kind))
            }
            LauncherStep::ConnectConsole { path } => connect(path, &mut self.console),
            LauncherStep::ConnectPidfdSocket { path } => connect(path, &mut self.pidfd_socket),
            LauncherStep::ConnectListener { path } => connect(path, &mut self.launch.handles.listener),
            LauncherStep::OpenHookOutput { stream, path } => self.launch.handles.open_hook_output(*stream, path),
            LauncherStep::MakeNotifyFolder => self.make_notify_folder(),
            LauncherStep::MakeFifo => self.make_fifo(),
            LauncherStep::CpuAffinity(set) => Ok(process::sched_setaffinity(&set.0)?),
            LauncherStep::MakeCgroups => self.make_cgroups(),
            LauncherStep::StartUnit { .. } => self.start_unit(),
            LauncherStep::Clone { new, inside, into_cgroup, hidden, bridge } => {
                if *hidden {
                    process::set_dumpable(false)?;
                }
                self.clone_child(new, inside, *into_cgroup && may_be_born_in_cgroup, *bridge)?;
                // The child does not wait for this one.
                self.keep_filter()
            }
            LauncherStep::AwaitBirth => self.await_birth(),
            LauncherStep::OomScoreAdj(value) => {
                Ok(self.launch.handles.procfs.write(&format!("{}/oom_score_adj", self.pid()?), &value.to_string())?)
            }
            LauncherStep::WriteIdMap(map) => idmap::write(map, self.pid()?, &self.launch.handles.procfs),
            LauncherStep::CompareIdMap(map) => self.compare_ids(map),
            LauncherStep::MoveNetDevice(device) => self.move_device(device),
            LauncherStep::MakeResctrl(plan) => resctrl::group::make(plan),
            LauncherStep::JoinResctrl { tasks } => Ok(resctrl::group::join(tasks, self.pid()?)?),
            LauncherStep::JoinCgroup => self.join_cgroup(),
            LauncherStep::JoinDelegated => self.join_delegated(),
            LauncherStep::CheckPids => self.check_pids(),
            LauncherStep::Tell(message) => self.tell(*message),
            LauncherStep::Await(message) => self.expect(message),
            LauncherStep::RecordHooks => self.record_that_hooks_begin(),
            LauncherStep::Hooks(steps) => self.hooks(steps),
            LauncherStep::Record => self.record(),
            LauncherStep::WritePidFile { path } => pid_file::write(path, self.pid()?),
            LauncherStep::SendPidfd => self.send_pidfd(),
            LauncherStep::AwaitEnd(start) => {
                self.await_end()?;
                match start {
                    StartSignal::Fifo => Ok(()),
                    StartSignal::Link => beginning::confirm_execution(self.pid()?, &self.launch.handles.procfs),
                }
            }
            LauncherStep::Rehearsed { planned, instead } => self.rehearse(planned, instead),
        }
    }

    fn rehearse(&mut self, planned: &LauncherStep, instead: &Instead<LauncherStep>) -> Result<(), Failure> {
        match (instead, planned) {
            (Instead::Step(step), _) => self.step(step, false),
            (Instead::Examine, LauncherStep::MakeCgroups) => match self.launch.survey.take() {
                Some(survey) => {
                    survey.examine(&self.launch.plan.cgroup).into_iter().for_each(|failure| self.found(failure));
                    Ok(())
                }
                None => Ok(()),
            },
            (Instead::Examine, other) => rehearsal::examine(other),
            (Instead::Nothing | Instead::End, _) => Ok(()),
        }
    }

    fn pid(&self) -> Result<i32, Failure> {
        self.child.as_ref().map(|child| child.pid).ok_or_else(|| Failure::because("there is no process yet"))
    }

    fn make_fifo(&mut self) -> Result<(), Failure> {
        self.launch.handles.fifo = self.launch.directory.map(Directory::make_fifo).transpose()?;
        Ok(())
    }

    /// Whoever starts the program listens: for create that is another command.
    fn make_notify_folder(&mut self) -> Result<(), Failure> {
        let Some(directory) = self.launch.directory else { return Ok(()) };
        directory.make_notify_folder()?;
        if self.launch.plan.starts_by_link() {
            self.notify = Proxy::listen(directory, self.launch.log)?;
        }
        Ok(())
    }

    fn send_pidfd(&mut self) -> Result<(), Failure> {
        let pidfd = self.child.as_ref().and_then(Child::pidfd).ok_or_else(|| Failure::because("there is no process yet"))?;
        let connection = self.pidfd_socket.take().ok_or_else(|| Failure::because("the socket was not connected"))?;
        pid_file::send_pidfd(&connection, pidfd.as_fd(), self.launch.plan.container.is_none())
    }

    fn start_unit(&mut self) -> Result<(), Failure> {
        let unit = self.launch.plan.cgroup.unit.as_ref().ok_or_else(|| Failure::because("the plan has no unit"))?;
        groups::start_unit(unit, self.pid()?, self.launch.record, self.launch.directory)?;
        self.in_unit = true;
        Ok(())
    }

    fn make_cgroups(&mut self) -> Result<(), Failure> {
        let Some(survey) = self.launch.survey.take() else { return Ok(()) };
        let cgroup = groups::make(survey, self.launch.record, self.launch.directory)?;
        if self.launch.record.cgroup.is_below_unit() {
            // Nobody may be in the scope itself when controllers are passed on from it.
            cgroup.join_v2(self.pid()?)?;
        }
        let warnings = cgroup.apply(&self.launch.plan.cgroup)?;
        self.launch.cgroup = Some(cgroup);
        warnings.iter().try_for_each(|warning| self.warn(&warning.to_string()))
    }

    /// Something is not as the config says: shown now, kept for `state`, and with `--strict` the end.
    fn warn(&mut self, text: &str) -> Result<(), Failure> {
        if let Some(findings) = self.launch.findings {
            findings.warnings.borrow_mut().push(text.to_owned());
            return Ok(());
        }
        if self.launch.strict {
            return Err(Failure::because(format!("{text} (--strict)")));
        }
        self.launch.log.warning(text);
        self.launch.record.warnings.push(text.to_owned());
        Ok(())
    }

    fn compare_ids(&mut self, map: &idmap::IdMap) -> Result<(), Failure> {
        let different = idmap::compare(map, self.pid()?, &self.launch.handles.procfs)?;
        different.map_or(Ok(()), |text| self.warn(&text))
    }

    fn move_device(&mut self, device: &netdev::NetDevice) -> Result<(), Failure> {
        let warnings = netdev::move_into(device, self.pid()?, &self.launch.handles.procfs)?;
        warnings.iter().try_for_each(|warning| self.warn(warning))
    }

    fn hooks(&mut self, steps: &[hooks::HookStep]) -> Result<(), Failure> {
        self.record_that_hooks_begin()?;
        let state = self.launch.plan.hook_state("created", self.pid()?);
        let bundle = fs::openat(crate::sys::At::Cwd, &self.launch.plan.bundle, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let output = Some(&self.launch.handles.hook_output);
        hooks::run_all(steps, &state, &hooks::Around { cwd: Some(&bundle), signals: Some(&self.signals), output })
    }

    /// From here on the end of the container is the poststop hooks' business, too (runtime.md, "Lifecycle", steps 3 to 5).
    fn record_that_hooks_begin(&mut self) -> Result<(), Failure> {
        let record = &mut self.launch.record;
        if record.hooks_begun || record.poststop.is_empty() {
            return Ok(());
        }
        record.hooks_begun = true;
        self.launch.directory.map_or(Ok(()), |directory| directory.write_record(record))
    }

    fn record(&mut self) -> Result<(), Failure> {
        let pid = self.pid()?;
        self.launch.record.made(lifecycle::reference(pid, &self.launch.handles.procfs)?);
        let directory = self.launch.directory.ok_or_else(|| Failure::because("there is no state directory"))?;
        directory.write_record(self.launch.record)
    }
}

fn connect(path: &Path, connection: &mut Option<OwnedFd>) -> Result<(), Failure> {
    *connection = Some(socket::connect(path, libc::SOCK_STREAM)?);
    Ok(())
}
