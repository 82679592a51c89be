//! Entering and leaving namespaces.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::child::Child;
use crate::error::{Doing, Failure};
use crate::plan::Origin;
use crate::procfs::ProcFs;
use crate::sys::process::{self, CloneArgs, Cloned};
use crate::sys::{At, cred, fs, net, ns};

use super::steps::{ClockOffset, Kind, NamespaceStep};

/// Namespaces that the launcher has opened by path.
pub type Opened = BTreeMap<Kind, OwnedFd>;

/// Opens a namespace file and checks its type.
///
/// # Errors
/// If it cannot be opened or is not a namespace of that type.
pub fn open(kind: Kind, path: &Path) -> Result<OwnedFd, Failure> {
    // A fifo would be waited for, without O_NONBLOCK.
    let fd = fs::openat(At::Cwd, path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)?;
    let found = ns::namespace_type(&fd);
    if found == Ok(kind.flag()) {
        return Ok(fd);
    }
    let found = found.ok().and_then(|flag| Kind::all().find(|kind| kind.flag() == flag));
    let what = found.map_or_else(|| "something that is not a namespace".to_owned(), |kind| format!("a {kind} namespace"));
    Err(Failure::because(format!("expected a {kind} namespace at {}, found {what}", path.display())))
}

/// Refuses the namespace that this command is in itself, for a container that changes its namespace: without one in the config
/// that is refused as well.
///
/// # Errors
/// The kernel's, or that it is our own.
pub fn check_foreign(kind: Kind, namespace: &OwnedFd, origin: &Origin, procfs: &ProcFs) -> Result<(), Failure> {
    let own = procfs.open_namespace(&format!("self/ns/{}", kind.proc_name()))?;
    let (own, there) = (fs::fstat(&own)?, fs::fstat(namespace)?);
    if (own.dev, own.ino) != (there.dev, there.ino) {
        return Ok(());
    }
    Err(Failure::because(format!("it is the {kind} namespace of the host, which {origin} would change; expected another one")))
}

/// What the steps of a process work on.
#[derive(Debug)]
pub struct Context<'a> {
    /// The host's procfs.
    pub procfs: &'a ProcFs,
    /// Namespaces opened by path.
    pub opened: &'a Opened,
    /// The first process of the container that exec joins.
    pub container: Option<&'a OwnedFd>,
}

/// Carries out one step.
///
/// # Errors
/// The kernel's.
pub fn run(step: &NamespaceStep, context: &Context<'_>) -> Result<(), Failure> {
    match step {
        NamespaceStep::Join { kind, .. } => {
            let fd = context.opened.get(kind).ok_or_else(|| Failure::because(format!("the {kind} namespace was not opened")))?;
            Ok(ns::setns(fd, kind.flag())?)
        }
        NamespaceStep::JoinContainer { kinds } => {
            let pidfd = context.container.ok_or_else(|| Failure::because("there is no container to join"))?;
            Ok(ns::setns(pidfd, super::steps::flags(kinds))?)
        }
        NamespaceStep::Unshare { kinds } => Ok(ns::unshare(super::steps::flags(kinds))?),
        NamespaceStep::NewTime { offsets } => new_time(offsets, context.procfs),
        NamespaceStep::BecomeRoot { uid, gid, drop_groups } => become_root(*uid, *gid, *drop_groups),
        NamespaceStep::LoopbackUp => Ok(net::loopback_up()?),
    }
}

/// A new time namespace takes only children; its offsets can be set until then, and after that setns enters it.
fn new_time(offsets: &[ClockOffset], procfs: &ProcFs) -> Result<(), Failure> {
    ns::unshare(libc::CLONE_NEWTIME)?;
    if !offsets.is_empty() {
        let line = |offset: &ClockOffset| format!("{} {} {}\n", offset.clock, offset.seconds, offset.nanoseconds);
        let text: String = offsets.iter().map(line).collect();
        procfs.write("self/timens_offsets", &text)?;
    }
    let children = procfs.open_namespace("self/ns/time_for_children").doing(|| "open the new time namespace")?;
    Ok(ns::setns(&children, libc::CLONE_NEWTIME)?)
}

fn become_root(uid: u32, gid: u32, drop_groups: bool) -> Result<(), Failure> {
    if drop_groups {
        match cred::setgroups(&[]) {
            // A namespace that was made without privilege denies setgroups (user_namespaces(7)); the groups stay and mean nothing
            // inside, because they are not mapped.
            Err(error) if error.is(libc::EPERM) => {}
            other => other?,
        }
    }
    cred::setresgid(gid)?;
    cred::setresuid(uid)?;
    Ok(())
}

/// clone3(2) while this process is in other namespaces, so that the child is born in them; the process itself comes back, from a mount
/// namespace with the root as its working directory. Those of the container that exec joins are entered with one call, others one by one.
/// Not for user namespaces, which nobody can leave again, nor for a container's cgroup namespace, which forbids to be born in groups that
/// it does not show. A pid namespace is entered by children only.
///
/// # Errors
/// The kernel's. If coming back fails the process is in no state to go on.
pub fn clone_inside(kinds: &[Kind], context: &Context<'_>, request: &CloneArgs<'_>) -> Result<Cloned, Failure> {
    if kinds.is_empty() {
        return Ok(process::clone3(request)?);
    }
    let home = Home::of(kinds, context.procfs)?;
    if let Err(failure) = enter(kinds, context) {
        home.come_back()?;
        return Err(failure);
    }
    let made = process::clone3(request);
    if matches!(made, Ok(Cloned::Child)) {
        return Ok(Cloned::Child);
    }
    if let Err(failure) = home.come_back() {
        // Nobody would look after the child.
        if let Ok(Cloned::Parent(pid, pidfd)) = made {
            drop(Child::new(pid, pidfd));
        }
        return Err(failure);
    }
    Ok(made?)
}

fn enter(kinds: &[Kind], context: &Context<'_>) -> Result<(), Failure> {
    if let Some(pidfd) = context.container {
        return ns::setns(pidfd, super::steps::flags(kinds)).doing(|| "join the container's namespaces");
    }
    kinds.iter().try_for_each(|kind| {
        let there = context.opened.get(kind).ok_or_else(|| Failure::because(format!("the {kind} namespace was not opened")))?;
        ns::setns(there, kind.flag()).doing(|| format!("join the {kind} namespace"))
    })
}

/// What a process leaves and comes back to.
struct Home {
    namespaces: Vec<(Kind, OwnedFd)>,
    /// The root directory, which goes with the mount namespace. So does the working directory, but it is not taken up again: it may be on
    /// a filesystem that denies itself to root, or never answers (FUSE).
    root: Option<OwnedFd>,
}

impl Home {
    fn of(kinds: &[Kind], procfs: &ProcFs) -> Result<Self, Failure> {
        let open = |kind: &Kind| {
            let home = procfs.open_namespace(&format!("self/ns/{}", kind.proc_name()));
            Ok((*kind, home.doing(|| format!("open the own {kind} namespace"))?))
        };
        let root = || fs::openat(At::Cwd, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0);
        let root = kinds.contains(&Kind::Mount).then(root).transpose()?;
        Ok(Self { namespaces: kinds.iter().map(open).collect::<Result<_, Failure>>()?, root })
    }

    fn come_back(&self) -> Result<(), Failure> {
        for (kind, home) in &self.namespaces {
            ns::setns(home, kind.flag()).doing(|| format!("return to the own {kind} namespace"))?;
        }
        let Some(root) = &self.root else { return Ok(()) };
        fs::fchdir(root).and_then(|()| fs::chroot(Path::new("."))).doing(|| "return to the own root directory")
    }
}
