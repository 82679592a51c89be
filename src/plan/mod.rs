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
pub mod steps;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use crate::cgroups::CgroupPlan;
use crate::error::Problem;
use crate::id::ContainerId;
use crate::namespaces::Kind;
use crate::resctrl::ResctrlPlan;
use crate::rootfs::RootfsStep;
use crate::seccomp::Filter;
use crate::spec::{self, Field, Process, StringMap};

pub use self::steps::{BridgeStep, InitStep, LauncherStep};

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
