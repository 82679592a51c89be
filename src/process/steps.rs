//! The steps in which init takes on what the payload shall be.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::capabilities::Sets;
use super::numa::{BitSet, PolicyStep};
use super::rlimits::RlimitStep;
use crate::lsm::LsmStep;
use crate::sys::process::SchedAttr;
use crate::sys::tty::Size;

/// The user of the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserStep {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups, or `None` where the user namespace denies setgroups and there are none to set.
    pub groups: Option<Vec<u32>>,
}

/// What init does to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessStep {
    /// A new session.
    NewSession,
    /// An attribute for a security module.
    Lsm(LsmStep),
    /// A session keyring of the container's own.
    Keyring {
        /// Its name.
        name: String,
    },
    /// The OOM killer's adjustment.
    OomScoreAdj(i32),
    /// A scheduling policy.
    Scheduler(SchedAttr),
    /// The NUMA memory policy.
    MemoryPolicy(PolicyStep),
    /// The processors it may run on.
    CpuAffinity(BitSet),
    /// An I/O priority.
    IoPriority(i32),
    /// A limit, raised first and set at the very end where init still needs room.
    RaiseLimit(RlimitStep),
    /// A limit.
    SetLimit(RlimitStep),
    /// A terminal of the container's own: its master goes to the launcher, its other end becomes stdio and /dev/console.
    Terminal {
        /// The size, if the config gives one.
        size: Option<Size>,
        /// Whether /dev/console is provided.
        console: bool,
    },
    /// The file mode mask.
    Umask(u32),
    /// The working directory.
    Cwd {
        /// Where.
        path: PathBuf,
        /// Make it if it is missing.
        make: bool,
    },
    /// What no program in the container may ever be able to do.
    LimitBounding(u64),
    /// The user and groups.
    User(UserStep),
    /// The other capability sets.
    Capabilities {
        /// The sets.
        sets: Sets,
        /// Keep CAP_SYS_ADMIN until execve, to load a seccomp filter without no_new_privs.
        for_seccomp: bool,
    },
    /// No program gains privileges by being executed.
    NoNewPrivileges,
    /// HOME from the container's passwd, where the environment has none.
    Home {
        /// The user whose home it is.
        uid: u32,
    },
    /// The program is found and can be executed.
    FindProgram,
    /// Every descriptor but stdio, the preserved ones, and what init still needs is closed.
    CloseDescriptors {
        /// How many are preserved after stdio.
        preserve: u32,
    },
    /// The execution domain.
    Personality(u32),
    /// Default dispositions and an empty mask.
    CleanSignals,
    /// The seccomp filter.
    Seccomp,
}

impl fmt::Display for ProcessStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewSession => write!(f, "start a session"),
            Self::Lsm(step) => write!(f, "{step}"),
            Self::Keyring { name } => write!(f, "join session keyring {name}"),
            Self::OomScoreAdj(value) => write!(f, "set oom_score_adj to {value}"),
            Self::Scheduler(attributes) => write!(f, "set scheduling policy {}", attributes.policy),
            Self::MemoryPolicy(policy) => write!(f, "set memory policy {}, flags {:#x}", policy.name, policy.flags),
            Self::CpuAffinity(set) => write!(f, "run on processors {:x?}", set.0),
            Self::IoPriority(value) => write!(f, "set I/O priority class {} level {}", value >> 13, value & 7),
            Self::RaiseLimit(step) => write!(f, "raise {} to {}:{} if it is lower", step.name, step.limit.soft, step.limit.hard),
            Self::SetLimit(step) => write!(f, "set {} to {}:{}", step.name, step.limit.soft, step.limit.hard),
            Self::Terminal { size: Some(size), .. } => write!(f, "open a terminal of {}x{}", size.columns, size.rows),
            Self::Terminal { .. } => write!(f, "open a terminal"),
            Self::Umask(mask) => write!(f, "set umask {mask:04o}"),
            Self::Cwd { path, .. } => write!(f, "enter {}", path.display()),
            Self::LimitBounding(mask) => write!(f, "limit the bounding set to {} capabilities", mask.count_ones()),
            Self::User(user) => {
                write!(f, "become user {}:{}", user.uid, user.gid)?;
                match &user.groups {
                    Some(groups) if !groups.is_empty() => write!(f, ", groups {groups:?}"),
                    _ => Ok(()),
                }
            }
            Self::Capabilities { sets, .. } => write!(f, "set capabilities: {sets}"),
            Self::NoNewPrivileges => write!(f, "set no_new_privs"),
            Self::Home { uid } => write!(f, "set HOME of uid {uid}"),
            Self::FindProgram => write!(f, "find the program"),
            Self::CloseDescriptors { preserve: 0 } => write!(f, "close all descriptors but stdio"),
            Self::CloseDescriptors { preserve } => write!(f, "close all descriptors but stdio and {preserve} more"),
            Self::Personality(domain) => write!(f, "set personality {domain:#x}"),
            Self::CleanSignals => write!(f, "reset signals"),
            Self::Seccomp => write!(f, "load the seccomp filter"),
        }
    }
}
