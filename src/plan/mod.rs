//! The [`Plan`]: for each process the ordered list of what it will do, and who asked for it.
//!
//! All interpretation of the specification happens here and in the `plan.rs` of the areas, once, and without a system call: a plan
//! can be made for any machine ([`crate::host::Host`] is data), printed, and compared.

pub mod annotations;
pub mod automatic;
pub mod build;
mod common;
pub mod document;
pub mod exec;
pub mod mounts;
pub mod print;
pub mod rehearsal;
pub mod request;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use crate::cgroups::CgroupPlan;
use crate::error::Problem;
use crate::hooks::HookStep;
use crate::id::ContainerId;
use crate::launch::protocol::{FromInit, ToInit};
use crate::namespaces::idmap::IdMap;
use crate::namespaces::netdev::NetDevice;
use crate::namespaces::steps::KindList;
use crate::namespaces::{Kind, NamespaceStep};
use crate::process::ProcessStep;
use crate::process::numa::BitSet;
use crate::resctrl::ResctrlPlan;
use crate::rootfs::RootfsStep;
use crate::rootfs::steps::{MountKind, MountMap};
use crate::seccomp::Filter;
use crate::spec::{self, Field, Process, StringMap};

use self::rehearsal::Instead;

/// Where a step comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A path in config.json.
    Config(Field),
    /// A flag of the command line.
    Flag(&'static str),
    /// A default of the specification or of this runtime, with its name.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(field) => write!(f, "{field}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Default(name) => write!(f, "default: {name}"),
        }
    }
}

impl From<Field> for Origin {
    fn from(field: Field) -> Self {
        Self::Config(field)
    }
}

/// A step and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned<S> {
    /// What to do.
    pub step: S,
    /// Who asked for it.
    pub origin: Origin,
}

impl<S> Planned<S> {
    /// A step with its origin.
    pub fn new(step: S, origin: impl Into<Origin>) -> Self {
        Self { step, origin: origin.into() }
    }

    /// The same, as a step of a wider kind.
    pub fn into_step<T>(self, widen: impl FnOnce(S) -> T) -> Planned<T> {
        Planned { step: widen(self.step), origin: self.origin }
    }
}

/// What planning found: problems are errors, warnings are shown and the container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the config cannot be carried out.
    pub problems: Vec<Problem>,
    /// What will not be as the config says, though the container runs.
    pub warnings: Vec<Problem>,
    /// What is worth a debug message, because the specification or usage wants it passed over.
    pub notes: Vec<Problem>,
}

impl Findings {
    /// Notes something for the debug log.
    pub fn note(&mut self, field: Field, text: impl Into<String>) {
        self.notes.push(Problem::new(field, text));
    }

    /// Notes a problem.
    pub fn problem(&mut self, field: Field, text: impl Into<String>) {
        self.problems.push(Problem::new(field, text));
    }

    /// Notes a warning.
    pub fn warning(&mut self, field: Field, text: impl Into<String>) {
        self.warnings.push(Problem::new(field, text));
    }
}

/// Which processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// The launcher makes init.
    Direct,
    /// The launcher makes a bridge, which joins namespaces that nobody can leave again, and makes init.
    Bridged,
}

/// What tells init to become the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartSignal {
    /// `rt start` opens the fifo.
    Fifo,
    /// The launcher says so.
    Link,
}

/// A step of the launcher.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LauncherStep {
    /// Opens a clone of the rootfs with the caller's rights.
    OpenRootfs {
        /// Where it is.
        path: PathBuf,
    },
    /// Opens a clone of the source of a bind mount with the caller's rights.
    OpenSource {
        /// The number of the mount.
        index: usize,
        /// Where it is.
        path: PathBuf,
        /// With all mounts below.
        recursive: bool,
        /// What a symbolic link leads to, not the link.
        #[serde(skip_serializing_if = "Clone::clone")]
        follow: bool,
    },
    /// Makes the filesystem of a mount with the caller's rights.
    MakeFilesystem {
        /// The number of the mount.
        index: usize,
        /// What is made.
        kind: MountKind,
    },
    /// Maps the ids of a mount that was opened or made.
    MapIds {
        /// The number of the mount.
        index: usize,
        /// How.
        map: MountMap,
    },
    /// Finds the source of a bind mount; init clones it.
    FindSource {
        /// The number of the mount.
        index: usize,
        /// Where it is.
        path: PathBuf,
        /// What a symbolic link leads to, not the link.
        #[serde(skip_serializing_if = "Clone::clone")]
        follow: bool,
    },
    /// Opens a namespace to be joined and checks its type.
    OpenNamespace {
        /// Its kind.
        kind: Kind,
        /// Where it is.
        path: PathBuf,
    },
    /// Connects to the socket that gets the master of the terminal.
    ConnectConsole {
        /// Where it is.
        path: PathBuf,
    },
    /// Connects to the socket that gets init's pidfd.
    ConnectPidfdSocket {
        /// Where it is.
        path: PathBuf,
    },
    /// Connects to the agent that gets the seccomp listener.
    ConnectListener {
        /// Where its socket is.
        path: PathBuf,
    },
    /// Opens a file for what hooks write, which it is appended to.
    OpenHookOutput {
        /// 0: standard output, 1: standard error.
        stream: usize,
        /// Where it is.
        path: PathBuf,
    },
    /// Makes the folder of the notify socket.
    MakeNotifyFolder,
    /// Makes the fifo on which init waits for start.
    MakeFifo,
    /// The processors that the launcher, and what it clones, runs on from here.
    CpuAffinity(BitSet),
    /// Makes the control groups and sets their limits.
    MakeCgroups,
    /// Lets systemd make a scope with the child in it.
    StartUnit {
        /// Its name.
        name: String,
    },
    /// Makes the next process.
    Clone {
        /// The namespaces that are made with it.
        new: Vec<Kind>,
        /// The namespaces that the launcher enters for this moment, so that the child is born in them.
        inside: Vec<Kind>,
        /// Born in the control group.
        into_cgroup: bool,
        /// Born where processes of a container can see it: not dumpable, so that they cannot look into it (CVE-2016-9962).
        hidden: bool,
        /// It is the bridge, not init.
        bridge: bool,
    },
    /// Gets init from the bridge.
    AwaitBirth,
    /// Sets init's score for the OOM killer.
    OomScoreAdj(i32),
    /// Writes an id map.
    WriteIdMap(IdMap),
    /// Compares the map of the user namespace that init has joined with the one that is configured.
    CompareIdMap(IdMap),
    /// Moves a network device into init's network namespace.
    MoveNetDevice(NetDevice),
    /// Makes the group of resctrl.
    MakeResctrl(ResctrlPlan),
    /// Puts the child into its group of resctrl.
    JoinResctrl {
        /// The directory of the group.
        tasks: PathBuf,
    },
    /// Puts the child into its control group of version 2, unless it was born there.
    JoinCgroup,
    /// Says something to the child.
    Tell(ToInit),
    /// Waits for init to say this.
    Await(FromInit),
    /// Writes into the record that hooks begin to run: those of init's side, where this side has none.
    RecordHooks,
    /// Runs hooks in the runtime's namespaces.
    Hooks(Vec<HookStep>),
    /// Writes the record: the container exists.
    Record,
    /// Writes the pid file.
    WritePidFile {
        /// Where.
        path: PathBuf,
    },
    /// Sends init's pidfd.
    SendPidfd,
    /// Waits for the end of the link: init does not depend on the launcher any more, or, where the launcher starts the program,
    /// has become it.
    AwaitEnd(StartSignal),
    /// In a rehearsal: what is done in place of a step with an effect.
    Rehearsed {
        /// The step.
        planned: Box<LauncherStep>,
        /// What is done.
        instead: Instead<LauncherStep>,
    },
}

/// A step of the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BridgeStep {
    /// Sets the OOM score, which init inherits: a process that is hidden from the container cannot open its own files any more.
    OomScoreAdj(i32),
    /// Waits for the launcher to say this.
    Await(ToInit),
    /// Moves itself, and so what it clones, into the control groups of version 1.
    JoinCgroups,
    /// Joins or makes a namespace.
    Namespace(NamespaceStep),
    /// Becomes not dumpable, so that processes of the container cannot look into it (CVE-2016-9962).
    Hide,
    /// Makes init, as a child of the launcher.
    CloneInit {
        /// The namespaces that are made with it.
        new: Vec<Kind>,
    },
}

/// A step of init.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum InitStep {
    /// Waits for the launcher to say this.
    Await(ToInit),
    /// Says something to the launcher.
    Send(FromInit),
    /// Moves itself into the control groups of version 1.
    JoinCgroups,
    /// A namespace.
    Namespace(NamespaceStep),
    /// The root filesystem.
    Rootfs(RootfsStep),
    /// Enters the root directory of a container that has no mount namespace of its own.
    EnterRoot,
    /// Hooks in the container's namespaces.
    Hooks(Vec<HookStep>),
    /// The process itself.
    Process(ProcessStep),
    /// Waits for start.
    AwaitStart(StartSignal),
    /// Becomes the program.
    Execute,
    /// In a rehearsal: what is done in place of a step with an effect.
    Rehearsed {
        /// The step.
        planned: Box<InitStep>,
        /// What is done.
        instead: Instead<InitStep>,
    },
}

/// What will happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The container.
    pub id: ContainerId,
    /// The bundle, absolute, as given.
    pub bundle: PathBuf,
    /// The root filesystem, absolute.
    pub rootfs: PathBuf,
    /// The annotations of the config.
    pub annotations: StringMap,
    /// The first process of the container that is joined, if this is the plan of another process in it.
    pub container: Option<i32>,
    /// Which processes there are.
    pub topology: Topology,
    /// What the launcher does.
    pub launcher: Vec<Planned<LauncherStep>>,
    /// What the bridge does.
    pub bridge: Vec<Planned<BridgeStep>>,
    /// What init does.
    pub init: Vec<Planned<InitStep>>,
    /// The program.
    pub process: Option<Process>,
    /// The control groups.
    pub cgroup: CgroupPlan,
    /// The group of resctrl.
    pub resctrl: Option<ResctrlPlan>,
    /// The seccomp filter.
    pub seccomp: Option<Filter>,
    /// What will not be as the config says.
    pub warnings: Vec<Problem>,
    /// It is carried out to see what is refused, and goes on after that where it can (see [`rehearsal`]).
    pub rehearsal: bool,
}

impl Plan {
    /// The state document that hooks read.
    pub fn hook_state(&self, status: &str, pid: i32) -> String {
        self.state(status, pid).to_string()
    }

    /// What the agent of a seccomp listener reads (config-linux.md, "The Container Process State").
    pub fn process_state(&self, metadata: Option<&str>, pid: i32) -> String {
        let (status, container) = match self.container {
            Some(init) => ("running", init),
            None => ("created", pid),
        };
        let mut message = json!({
            "ociVersion": spec::VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": self.state(status, container),
        });
        if let Some(metadata) = metadata {
            message["metadata"] = json!(metadata);
        }
        message.to_string()
    }

    fn state(&self, status: &str, pid: i32) -> serde_json::Value {
        let mut state = json!({
            "ociVersion": spec::VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
        });
        if !self.annotations.is_empty() {
            state["annotations"] = json!(self.annotations);
        }
        state
    }
}

impl Plan {
    /// True if the launcher starts the program, and not another command.
    pub fn starts_by_link(&self) -> bool {
        self.init.iter().any(|planned| planned.step == InitStep::AwaitStart(StartSignal::Link))
    }

    /// What asks for the first change that is made to a namespace of this kind, by name: a host name, or a kernel parameter.
    pub fn sets_in(&self, kind: Kind) -> Option<&Origin> {
        let sets = |step: &InitStep| match step {
            InitStep::Rootfs(RootfsStep::Hostname(_) | RootfsStep::Domainname(_)) => kind == Kind::Uts,
            InitStep::Rootfs(RootfsStep::Sysctl { path, .. }) => crate::rootfs::sysctl::namespace(path) == Some(kind),
            _ => false,
        };
        let asks = |planned: &&Planned<InitStep>| match &planned.step {
            InitStep::Rehearsed { planned, .. } => sets(planned),
            step => sets(step),
        };
        self.init.iter().find(asks).map(|planned| &planned.origin)
    }

    /// The mounts that end up in the caller's own mount namespace, the last one first: there are some if the container has none.
    pub fn host_mounts(&self) -> Vec<PathBuf> {
        let below = |path: &crate::rootfs::InRoot| self.rootfs.join(path.as_path().strip_prefix("/").unwrap_or(path.as_path()));
        let own = self.init.iter().any(|planned| matches!(planned.step, InitStep::Rootfs(RootfsStep::Propagation(_))));
        let place = |planned: &Planned<InitStep>| match &planned.step {
            InitStep::Rootfs(RootfsStep::AttachRoot { path, .. }) => Some(path.clone()),
            InitStep::Rootfs(RootfsStep::Mount(mount)) => Some(below(&mount.destination)),
            _ => None,
        };
        if own { Vec::new() } else { self.init.iter().rev().filter_map(place).collect() }
    }
}

impl fmt::Display for LauncherStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenRootfs { path } => write!(f, "open rootfs {}", path.display()),
            Self::OpenSource { path, follow, .. } => {
                write!(f, "open mount source {}{}", path.display(), if *follow { "" } else { ", a link itself" })
            }
            Self::MakeFilesystem { index, kind: MountKind::Filesystem { fstype, .. } } => {
                write!(f, "make the {fstype} of mounts[{index}]")
            }
            Self::MakeFilesystem { index, .. } => write!(f, "make the filesystem of mounts[{index}]"),
            Self::MapIds { index, map } => write!(f, "map the ids of mounts[{index}]{map}"),
            Self::FindSource { path, .. } => write!(f, "find mount source {}", path.display()),
            Self::OpenNamespace { kind, path } => write!(f, "open {kind} namespace {}", path.display()),
            Self::ConnectConsole { path } => write!(f, "connect to console socket {}", path.display()),
            Self::ConnectPidfdSocket { path } => write!(f, "connect to pidfd socket {}", path.display()),
            Self::OpenHookOutput { stream, path } => {
                write!(f, "open {} for what hooks say on standard {}", path.display(), ["output", "error"][*stream % 2])
            }
            Self::ConnectListener { path } => write!(f, "connect to the seccomp agent at {}", path.display()),
            Self::MakeNotifyFolder => write!(f, "make the folder of the notify socket"),
            Self::MakeFifo => write!(f, "make the start fifo"),
            Self::CpuAffinity(set) => write!(f, "run on processors {:x?}", set.0),
            Self::MakeCgroups => write!(f, "make control groups"),
            Self::StartUnit { name } => write!(f, "start systemd unit {name} with the child in it"),
            Self::Clone { new, inside, into_cgroup, hidden, bridge } => {
                write!(f, "clone {}", if *bridge { "the bridge" } else { "init" })?;
                if !new.is_empty() {
                    write!(f, " into new namespaces: {}", KindList(new))?;
                }
                if !inside.is_empty() {
                    write!(f, "; from inside of: {}", KindList(inside))?;
                }
                f.write_str(if *into_cgroup { "; born in its control group" } else { "" })?;
                f.write_str(if *hidden { "; not dumpable" } else { "" })
            }
            Self::AwaitBirth => write!(f, "get init from the bridge"),
            Self::OomScoreAdj(value) => write!(f, "set oom_score_adj of init to {value}"),
            Self::WriteIdMap(map) => write!(f, "{map}"),
            Self::CompareIdMap(map) => write!(f, "compare with the map of the joined user namespace: {map}"),
            Self::MoveNetDevice(device) if device.name == device.inside => {
                write!(f, "move network device {} into the container", device.name)
            }
            Self::MoveNetDevice(device) => {
                write!(f, "move network device {} into the container as {}", device.name, device.inside)
            }
            Self::MakeResctrl(plan) => write!(f, "{plan}"),
            Self::JoinResctrl { tasks } => write!(f, "move the child into resctrl group {}", tasks.display()),
            Self::JoinCgroup => write!(f, "move the child into its control group, unless it is there"),
            Self::Tell(message) => write!(f, "say {message}"),
            Self::Await(message) => write!(f, "wait for {message}"),
            Self::RecordHooks => write!(f, "record that hooks begin"),
            Self::Hooks(steps) => write_hooks(f, steps),
            Self::Record => write!(f, "record the container as made"),
            Self::WritePidFile { path } => write!(f, "write pid file {}", path.display()),
            Self::SendPidfd => write!(f, "send init's pidfd"),
            Self::AwaitEnd(StartSignal::Fifo) => write!(f, "wait until init is on its own"),
            Self::AwaitEnd(StartSignal::Link) => write!(f, "wait until the program runs"),
            Self::Rehearsed { planned, .. } => write!(f, "{planned}"),
        }
    }
}

fn write_hooks(f: &mut fmt::Formatter<'_>, steps: &[HookStep]) -> fmt::Result {
    let list: Vec<String> = steps.iter().map(ToString::to_string).collect();
    f.write_str(&list.join("; "))
}

impl fmt::Display for BridgeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Await(message) => write!(f, "wait for {message}"),
            Self::JoinCgroups => write!(f, "join the control groups of version 1"),
            Self::Namespace(step) => write!(f, "{step}"),
            Self::OomScoreAdj(value) => write!(f, "set oom_score_adj to {value}"),
            Self::Hide => write!(f, "become not dumpable"),
            Self::CloneInit { new } if new.is_empty() => write!(f, "clone init, say Born"),
            Self::CloneInit { new } => write!(f, "clone init into new namespaces: {}; say Born", KindList(new)),
        }
    }
}

impl fmt::Display for InitStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Await(message) => write!(f, "wait for {message}"),
            Self::Send(message) => write!(f, "say {message}"),
            Self::JoinCgroups => write!(f, "join the control groups of version 1"),
            Self::Namespace(step) => write!(f, "{step}"),
            Self::Rootfs(step) => write!(f, "{step}"),
            Self::EnterRoot => write!(f, "enter the root of the container"),
            Self::Hooks(steps) => write_hooks(f, steps),
            Self::Process(step) => write!(f, "{step}"),
            Self::AwaitStart(StartSignal::Fifo) => write!(f, "wait for start on the fifo"),
            Self::AwaitStart(StartSignal::Link) => write!(f, "wait for Start"),
            Self::Execute => write!(f, "execute the program"),
            Self::Rehearsed { planned, .. } => write!(f, "{planned}"),
        }
    }
}
