//! Init: walks its list and becomes the payload.
//!
//! It starts as a copy of the launcher, with everything opened and compiled that it needs. It never prints; a failure goes over the link, or
//! after the start over the fifo.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Failure, Place, Role};
use crate::hooks::{self, HookStep};
use crate::namespaces::{Kind, NamespaceStep, join};
use crate::plan::rehearsal::Instead;
use crate::plan::{InitStep, Plan, StartSignal};
use crate::process::ProcessStep;
use crate::process::{examine, program};
use crate::procfs::ProcFs;
use crate::rootfs::options::PropagationChange;
use crate::rootfs::paths::Masks;
use crate::rootfs::steps::OpenedBy;
use crate::rootfs::{Root, RootfsStep, cover, devices, mounts, paths, switch};
use crate::seccomp::Listener;
use crate::seccomp::notify::Courier;
use crate::sys::process::Image;
use crate::sys::{fs, heap, mount, process, signal, socket};

use super::launcher::Handles;
use super::link::InitLink;
use super::protocol::{FromInit, ToInit};
use super::{rehearsal, wait};

mod payload;

/// What ps(1) shows of init until it is the program.
const INIT_NAME: &std::ffi::CStr = c"rt:[init]";

/// What init knows and holds while it walks its list.
struct Init<'a> {
    plan: &'a Plan,
    handles: &'a mut Handles,
    /// Closed when init waits on its own for start.
    link: Option<InitLink>,
    /// Failures go to the fifo once somebody listens there.
    fifo: Option<OwnedFd>,
    root: Option<Root>,
    masks: Masks,
    /// The state document of hooks that run in the container, with init's pid there.
    state: String,
    /// Init's pid as the launcher and the agent of a seccomp listener know it.
    host_pid: i32,
    /// Become not dumpable before others may be there. An ordinary user could not join a container whose init is (exec before start).
    hides: bool,
    env: Vec<String>,
    program: PathBuf,
    /// What is executed, laid out before a seccomp filter is loaded.
    image: Option<Image>,
}

/// Walks the list. Does not return: the process becomes the payload or ends.
pub fn run(plan: &Plan, handles: &mut Handles, link: InitLink) -> ! {
    let env = plan.process.as_ref().map(|process| program::last_wins(&process.env)).unwrap_or_default();
    let mut init = Init {
        plan,
        handles,
        link: Some(link),
        fifo: None,
        root: None,
        masks: Masks::default(),
        state: String::new(),
        host_pid: 0,
        hides: false,
        env,
        program: PathBuf::new(),
        image: None,
    };
    let failure = match init.walk() {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    init.report(failure);
    process::exit_now(1)
}

impl Init<'_> {
    fn walk(&mut self) -> Result<Infallible, Failure> {
        tie_to_launcher()?;
        process::set_name(INIT_NAME);
        // What the caller has in its environment is not for those who run beside an init that waits.
        process::forget_environment();
        fs::umask(0);
        self.host_pid = self.handles.procfs.own_pid()?;
        self.hides = self.handles.caller_is_root;
        if self.plan.container.is_some() {
            self.leave_the_host_s_procfs(0);
        }
        let plan = self.plan;
        let of = plan.init.len();
        for (index, planned) in plan.init.iter().enumerate() {
            let place = Place { role: Role::Init, step: index + 1, of };
            let named = |failure: Failure| failure.doing(&planned.step).origin(&planned.origin).at(place);
            match self.step(index, &planned.step).map_err(named) {
                Err(failure) if plan.rehearsal && rehearsal::goes_on_init(&planned.step) => {
                    self.link()?.send(&FromInit::Found(Box::new(failure.shortened())), None)?;
                }
                other => other?,
            }
        }
        Err(Failure::because("the list of steps ends without a program"))
    }

    fn report(&self, failure: Failure) {
        let failure = failure.shortened();
        // Nobody may be left to listen; then there is nobody to tell.
        let _ = match (&self.fifo, &self.link) {
            (Some(fifo), _) => serde_json::to_vec(&failure).is_ok_and(|bytes| fs::write_all(fifo, &bytes).is_ok()),
            (None, Some(link)) => link.send(&FromInit::Failed(Box::new(failure)), None).is_ok(),
            (None, None) => false,
        };
    }

    fn step(&mut self, index: usize, step: &InitStep) -> Result<(), Failure> {
        match step {
            InitStep::Await(message) => self.expect(*message),
            InitStep::Send(message) => self.link()?.send(message, None),
            InitStep::JoinCgroups => self.handles.doors.enter(),
            InitStep::Namespace(step) => {
                join::run(step, &self.handles.namespace_context())?;
                // A change of ids or capabilities takes the parent-death signal away.
                if step.changes_rights() { tie_to_launcher() } else { Ok(()) }
            }
            InitStep::Rootfs(step) => {
                if matches!(step, RootfsStep::SwitchRoot(_)) {
                    self.leave_the_host_s_procfs(index + 1);
                }
                self.rootfs(step)
            }
            InitStep::EnterRoot => {
                let root = self.handles.container_root.as_ref().ok_or_else(no_root)?;
                fs::fchdir(root)?;
                Ok(fs::chroot(Path::new("."))?)
            }
            InitStep::Hooks(steps) => self.hooks(steps),
            InitStep::Process(step) => self.process(step),
            InitStep::AwaitStart(StartSignal::Fifo) => self.await_fifo(index),
            InitStep::AwaitStart(StartSignal::Link) => self.expect(ToInit::Start),
            InitStep::Execute => self.execute(),
            InitStep::Rehearsed { planned, instead } => self.rehearse(index, planned, instead),
        }
    }

    fn rehearse(&mut self, index: usize, planned: &InitStep, instead: &Instead<InitStep>) -> Result<(), Failure> {
        match (instead, planned) {
            (Instead::Step(step), _) => {
                self.step(index, step)?;
                match &**step {
                    InitStep::Rootfs(RootfsStep::Mount(mount)) => cover::protect(mount, self.root()?),
                    _ => Ok(()),
                }
            }
            (Instead::Examine, InitStep::Rootfs(RootfsStep::Mount(mount))) => mounts::know(&mount.kind),
            (Instead::Examine, InitStep::Rootfs(attach)) => {
                // Nothing reaches the host, whatever namespace the plan has for mounts.
                switch::set_propagation(PropagationChange { flag: libc::MS_SLAVE, recursive: true })?;
                self.rootfs(attach)?;
                self.root = Some(cover::cover(self.root()?)?);
                Ok(())
            }
            (Instead::Examine, InitStep::Hooks(steps)) => hooks::examine_all(steps),
            (Instead::Examine, InitStep::AwaitStart(_)) => self.examine_program(),
            (Instead::Examine | Instead::Nothing, _) => Ok(()),
            (Instead::End, _) => process::exit_now(0),
        }
    }

    /// What execve(2) would say, as far as that can be seen from outside, and as the step that calls it.
    fn examine_program(&self) -> Result<(), Failure> {
        let execute = |failure: Failure| {
            let place = Place { role: Role::Init, step: self.plan.init.len(), of: self.plan.init.len() };
            failure.doing(InitStep::Execute).origin("process.args").at(place)
        };
        if self.program.as_os_str().is_empty() {
            // It was not found, or there is none.
            return Ok(());
        }
        let name = self.plan.process.as_ref().and_then(|process| process.args.first()).map_or("", String::as_str);
        examine::program(&self.program, name).map_err(execute)
    }

    fn expect(&self, expected: ToInit) -> Result<(), Failure> {
        hear(self.link()?, expected)?;
        if expected == ToInit::Released {
            process::set_parent_death_signal(false)?;
        }
        Ok(())
    }

    fn rootfs(&mut self, step: &RootfsStep) -> Result<(), Failure> {
        match step {
            RootfsStep::Propagation(change) => {
                switch::set_propagation(*change)?;
                self.masks.prepare()
            }
            RootfsStep::AttachRoot { path, opened_by } => {
                let opened = if *opened_by == OpenedBy::Launcher { self.handles.rootfs.take() } else { None };
                self.root = Some(switch::attach_root(path, opened)?);
                Ok(())
            }
            RootfsStep::Mount(mount) => {
                self.root()?.will_change();
                let host = self.handles.namespaces.get(&Kind::Mount);
                let warning = mounts::mount(mount, self.root()?, &self.handles.sources, host, &self.handles.procfs)?;
                self.handles.sources.remove(&mount.index);
                self.warn(warning)
            }
            RootfsStep::Device(device) => self.warn(devices::provide(device, self.root()?)?),
            RootfsStep::Link { path, target, replace } => devices::link(path, target, *replace, self.root()?),
            RootfsStep::Sysctl { path, value } => Ok(self.handles.procfs.write(&format!("sys/{path}"), value)?),
            RootfsStep::Hostname(name) => Ok(process::sethostname(name)?),
            RootfsStep::Domainname(name) => Ok(process::setdomainname(name)?),
            RootfsStep::ReadonlyPath(path) => paths::make_readonly(path, self.root()?),
            RootfsStep::MaskedPath(path) => {
                let root = self.root.as_ref().ok_or_else(no_root)?;
                self.masks.mask(path, root)
            }
            RootfsStep::ReadonlyRoot => {
                let change = mount::SetAttr { set: mount::attr::RDONLY, ..mount::SetAttr::default() };
                Ok(mount::mount_setattr(self.root()?.fd(), &change, false)?)
            }
            RootfsStep::SwitchRoot(how) => switch::switch(self.root()?, *how),
            RootfsStep::RootPropagation(change) => mounts::propagate(self.root()?.fd(), &[*change]),
        }
    }

    /// Programs of the container may run beside init from now on (exec in a created container, hooks), and the directory above the
    /// host's /proc is the host's root (the class of CVE-2024-21626). What the steps from `next` on may need is init's own entry, which a
    /// detached procfs has, too. Where none may be mounted (exec into a user namespace) it is the second lock that counts: nobody in there may
    /// look into a process that is not dumpable.
    fn leave_the_host_s_procfs(&mut self, next: usize) {
        if !self.plan.init[next..].iter().any(|planned| uses_procfs(&planned.step)) {
            return self.handles.procfs.close();
        }
        match ProcFs::detached() {
            Ok(own) => self.handles.procfs = own,
            Err(_) => self.hides = true,
        }
    }

    /// Tells the launcher what is not as the config says.
    fn warn(&self, warning: mounts::Warning) -> Result<(), Failure> {
        warning.map_or(Ok(()), |text| self.link()?.send(&FromInit::Warned(text), None))
    }

    fn link(&self) -> Result<&InitLink, Failure> {
        self.link.as_ref().ok_or_else(|| Failure::because("the link is closed"))
    }

    fn root(&self) -> Result<&Root, Failure> {
        self.root.as_ref().ok_or_else(no_root)
    }

    fn hooks(&mut self, steps: &[HookStep]) -> Result<(), Failure> {
        if self.state.is_empty() {
            // "For hooks executed in the container namespace, it is the pid as seen by the container" (runtime.md, "State").
            let own = i32::try_from(std::process::id()).unwrap_or(0);
            self.state = self.plan.hook_state("created", own);
        }
        // The hooks of createContainer start in the rootfs, those of startContainer where the program does.
        let before_switch = steps.iter().all(|step| step.moment == hooks::Moment::CreateContainer);
        let cwd = self.root.as_ref().map(Root::fd).filter(|_| before_switch);
        let around = hooks::Around { cwd, signals: None, output: Some(&self.handles.hook_output) };
        self.tell_start(wait::HOOKS_RUN);
        hooks::run_all(steps, &self.state, &around)?;
        self.tell_start(wait::HOOKS_DONE);
        Ok(())
    }

    /// `start` may have gone; then there is nobody to tell.
    fn tell_start(&self, mark: u8) {
        if let Some(fifo) = &self.fifo {
            let _ = fs::write_all(fifo, &[mark]);
        }
    }

    /// From here on the launcher is not needed any more. Where it can be done, init waits without the memory that it needed until now.
    fn await_fifo(&mut self, index: usize) -> Result<(), Failure> {
        self.link = None;
        let fifo = self.handles.fifo.take().ok_or_else(|| Failure::because("the start fifo was not opened"))?;
        let rest = wait::written_down(self.plan, index, &self.program, &self.env);
        if let (Some(rest), Some(procfs)) = (rest, self.handles.procfs.fd()) {
            heap::start_over(&rest, [fifo.as_fd(), procfs], wait::go_on)
        }
        self.fifo = Some(wait::await_start(&fifo, &self.handles.procfs)?);
        Ok(())
    }

    fn load_seccomp(&mut self) -> Result<(), Failure> {
        let filter = self.plan.seccomp.as_ref().ok_or_else(|| Failure::because("no filter"))?;
        self.image = Some(self.image()?);
        let Some(listener) = &filter.listener else {
            crate::seccomp::load::load(&filter.program, filter.flags, false)?;
            return Ok(());
        };
        let courier = self.courier(listener)?;
        if let Some(listener) = crate::seccomp::load::load(&filter.program, filter.flags, true)? {
            courier.deliver(listener);
        }
        Ok(())
    }

    /// Who sends the listener, with the state that config-linux.md, "The Container Process State", describes.
    fn courier(&mut self, listener: &Listener) -> Result<Courier, Failure> {
        let agent = self.handles.listener.take().ok_or_else(|| Failure::because("the agent's socket was not opened"))?;
        let message = self.plan.process_state(listener.metadata.as_deref(), self.host_pid);
        let (channel, by_fifo) = match (&self.fifo, &self.link) {
            (Some(fifo), _) => (fifo.as_fd(), true),
            (None, Some(link)) => (link.as_fd(), false),
            (None, None) => return Err(Failure::because("the link is closed")),
        };
        let channel = fs::duplicate(channel)?;
        let of = self.plan.init.len();
        let place = Place { role: Role::Init, step: of - 1, of };
        Courier::start(agent, message.into_bytes(), move |failure| {
            let failure = failure.origin("linux.seccomp.listenerPath").at(place);
            // As in `report`: if nobody listens, nobody is left to be told.
            let _ = if by_fifo {
                serde_json::to_vec(&failure).is_ok_and(|bytes| fs::write_all(&channel, &bytes).is_ok())
            } else {
                serde_json::to_vec(&FromInit::Failed(Box::new(failure)))
                    .is_ok_and(|bytes| socket::send(&channel, &bytes, None).is_ok())
            };
            process::exit_now(1)
        })
    }

    fn image(&self) -> Result<Image, Failure> {
        let args = &self.plan.process.as_ref().ok_or_else(|| Failure::because("no process"))?.args;
        program::prepare(&self.program, args, &self.env)
    }

    fn execute(&mut self) -> Result<(), Failure> {
        let image = match self.image.take() {
            Some(image) => image,
            None => self.image()?,
        };
        program::execute(&image).map(|never| match never {})
    }
}

/// Waits for this message of the launcher.
///
/// # Errors
/// If another one comes.
pub(super) fn hear(link: &InitLink, expected: ToInit) -> Result<(), Failure> {
    match link.receive()? {
        Some((message, _)) if message == expected => Ok(()),
        Some((message, _)) => Err(Failure::because(format!("expected message {expected}, got {message}"))),
        // The launcher is gone; so is whoever would read this.
        None => process::exit_now(1),
    }
}

/// False if it is certain that a step does without procfs.
fn uses_procfs(step: &InitStep) -> bool {
    match step {
        InitStep::Rootfs(_) | InitStep::Rehearsed { .. } => true,
        InitStep::Namespace(step) => matches!(step, NamespaceStep::NewTime { .. }),
        InitStep::AwaitStart(start) => *start == StartSignal::Fifo,
        InitStep::Process(step) => {
            matches!(step, ProcessStep::Lsm(_) | ProcessStep::OomScoreAdj(_) | ProcessStep::Terminal { .. })
        }
        InitStep::Await(_) | InitStep::Send(_) | InitStep::JoinCgroups | InitStep::EnterRoot => false,
        InitStep::Hooks(_) | InitStep::Execute => false,
    }
}

fn no_root() -> Failure {
    Failure::because("the rootfs is not attached yet")
}

/// Until the container is recorded, init dies with the launcher, even if that happened before this call.
fn tie_to_launcher() -> Result<(), Failure> {
    process::set_parent_death_signal(true)?;
    Ok(())
}

/// Dispositions and mask as a program expects them; Rust's runtime ignores SIGPIPE, and callers leave their own marks.
///
/// # Errors
/// The kernel's.
pub fn clean_signals() -> Result<(), Failure> {
    signal::reset_dispositions()?;
    Ok(signal::unblock_all()?)
}
