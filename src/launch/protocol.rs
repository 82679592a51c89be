//! The messages between the processes, and the conversation.
//!
//! ```text
//! launcher                                init
//!    | ------------- IdsMapped -----------> |   its ids mean something (new user namespace)
//!    | ------------- DevicesMoved --------> |   its network devices are there: they may have kernel parameters
//!    | ------------- CgroupJoined --------> |   it is in its control group of version 2; it may have a cgroup namespace
//!    | <------------ Rooted --------------- |   its control group is the root of what it sees; it may be moved below
//!    | <------------ RootfsBuilt ---------- |   the hooks of the runtime's side may look at the tree
//!    | ------------- HooksDone -----------> |
//!    | <------------ Terminal + fd -------- |   the master of its terminal
//!    | <------------ Ready ---------------- |   everything is set up, the program was found
//!    | ------------- Released ------------> |   the record is written: init outlives the launcher from here on
//!    | ------------- Start ---------------> |   `run` and `exec` only; after `create` the fifo says so
//!    | <---------- (end of file) ---------- |   init waits on its own, or the program runs
//! ```
//!
//! Which of these are said, and in which order, is computed from the plan ([`super::script`]); `Warned` and `Failed` may come from init
//! at any time. The bridge says `Born`, with init's pidfd, on a link of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// What the launcher says to init or the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToInit {
    /// The id maps of the new user namespace are written.
    IdsMapped,
    /// The network devices of the container are in its network namespace.
    DevicesMoved,
    /// The process is in its control group of version 2.
    CgroupJoined,
    /// The hooks in the runtime's namespaces have run.
    HooksDone,
    /// The record is written; the launcher may end.
    Released,
    /// Become the program.
    Start,
}

/// What init and the bridge say to the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromInit {
    /// Its cgroup namespace is as it stays.
    Rooted,
    /// The rootfs is built; nothing has been entered.
    RootfsBuilt,
    /// The master of the terminal comes along.
    Terminal,
    /// Everything is set up.
    Ready,
    /// The bridge has made init; its pidfd comes along.
    Born {
        /// Its pid in the launcher's pid namespace.
        pid: i32,
    },
    /// Something is not as planned, but goes on.
    Warned(String),
    /// In a rehearsal: this is refused, and the next step is tried all the same.
    Found(Box<Failure>),
    /// It is over.
    Failed(Box<Failure>),
}

impl fmt::Display for ToInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl fmt::Display for FromInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rooted => f.write_str("Rooted"),
            Self::RootfsBuilt => f.write_str("RootfsBuilt"),
            Self::Terminal => f.write_str("Terminal"),
            Self::Ready => f.write_str("Ready"),
            Self::Born { .. } => f.write_str("Born"),
            Self::Warned(_) => f.write_str("Warned"),
            Self::Found(_) => f.write_str("Found"),
            Self::Failed(_) => f.write_str("Failed"),
        }
    }
}
