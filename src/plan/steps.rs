//! The steps of the three processes.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::StartSignal;
use super::rehearsal::Instead;
use crate::hooks::HookStep;
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
    /// Moves init below its control group, into the directory that its program manages.
    JoinDelegated,
    /// Refuses a process that the container has no room for: the kernel does so only where it is born in its control group.
    CheckPids,
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
            Self::JoinDelegated => write!(f, "move init into the control group that its program manages"),
            Self::CheckPids => write!(f, "compare the processes with their limit, unless the kernel did"),
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
