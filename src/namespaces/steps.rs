//! The kinds of namespaces and the steps that init and the bridge take in them.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// A type of namespace (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// User and group ids, capabilities.
    User,
    /// Process ids.
    Pid,
    /// Mount points.
    Mount,
    /// Network devices, addresses, ports.
    Network,
    /// Host and domain name.
    Uts,
    /// System V IPC, POSIX message queues.
    Ipc,
    /// The root of the control groups.
    Cgroup,
    /// The monotonic clocks.
    Time,
}

/// Every kind: name in the specification, name below /proc/PID/ns, clone flag.
const KINDS: [(Kind, &str, &str, i32); 8] = [
    (Kind::User, "user", "user", libc::CLONE_NEWUSER),
    (Kind::Pid, "pid", "pid", libc::CLONE_NEWPID),
    (Kind::Mount, "mount", "mnt", libc::CLONE_NEWNS),
    (Kind::Network, "network", "net", libc::CLONE_NEWNET),
    (Kind::Uts, "uts", "uts", libc::CLONE_NEWUTS),
    (Kind::Ipc, "ipc", "ipc", libc::CLONE_NEWIPC),
    (Kind::Cgroup, "cgroup", "cgroup", libc::CLONE_NEWCGROUP),
    (Kind::Time, "time", "time", libc::CLONE_NEWTIME),
];

impl Kind {
    /// Every kind, in the order in which they are joined: the user namespace comes first, the mount namespace is among
    /// the first that change what paths mean, but descriptors are opened before any of them is entered.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|entry| entry.0)
    }

    /// The kind of this name in the specification.
    pub fn from_spec(name: &str) -> Option<Self> {
        KINDS.iter().find(|entry| entry.1 == name).map(|entry| entry.0)
    }

    fn entry(self) -> &'static (Self, &'static str, &'static str, i32) {
        // KINDS is in the order of the enum.
        &KINDS[self as usize]
    }

    /// The name in the specification.
    pub fn spec_name(self) -> &'static str {
        self.entry().1
    }

    /// The file below /proc/PID/ns.
    pub fn proc_name(self) -> &'static str {
        self.entry().2
    }

    /// The `CLONE_NEW*` flag.
    pub fn flag(self) -> i32 {
        self.entry().3
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec_name())
    }
}

/// Kinds as messages list them: `pid, mount, network`.
pub struct KindList<'a>(pub &'a [Kind]);

impl fmt::Display for KindList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|kind| kind.spec_name()).collect();
        f.write_str(&names.join(", "))
    }
}

/// The clone flags of several kinds.
pub fn flags(kinds: &[Kind]) -> i32 {
    kinds.iter().fold(0, |flags, kind| flags | kind.flag())
}

/// A clock's offset: its name in timens_offsets, seconds, nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClockOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds below one second.
    pub nanoseconds: u32,
}

/// What init or the bridge does about namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceStep {
    /// Joins a namespace that the launcher has opened.
    Join {
        /// Its kind.
        kind: Kind,
        /// Where it was opened.
        path: PathBuf,
    },
    /// Joins the namespaces of a running container, by the pidfd of its first process.
    JoinContainer {
        /// Which.
        kinds: Vec<Kind>,
    },
    /// Makes new namespaces for the calling process.
    Unshare {
        /// Which.
        kinds: Vec<Kind>,
    },
    /// Makes a new time namespace with offsets and enters it.
    NewTime {
        /// The offsets, which can be set only before the first process enters.
        offsets: Vec<ClockOffset>,
    },
    /// Becomes the root of the user namespace: the files of the container will be made by its ids.
    BecomeRoot {
        /// The user id inside.
        uid: u32,
        /// The group id inside.
        gid: u32,
        /// Whether the inherited supplementary groups can be dropped.
        drop_groups: bool,
    },
    /// Sets the loopback interface up.
    LoopbackUp,
}

impl NamespaceStep {
    /// True if ids or capabilities of the process may change.
    pub fn changes_rights(&self) -> bool {
        match self {
            Self::LoopbackUp => false,
            Self::Unshare { kinds } => kinds.contains(&Kind::User),
            Self::Join { .. } | Self::JoinContainer { .. } | Self::NewTime { .. } | Self::BecomeRoot { .. } => true,
        }
    }
}

impl fmt::Display for NamespaceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join { kind, path } => write!(f, "join {kind} namespace {}", path.display()),
            Self::JoinContainer { kinds } => write!(f, "join namespaces of the container: {}", KindList(kinds)),
            Self::Unshare { kinds } => write!(f, "new namespaces: {}", KindList(kinds)),
            Self::NewTime { offsets } if offsets.is_empty() => write!(f, "new time namespace"),
            Self::NewTime { offsets } => {
                let list: Vec<String> = offsets
                    .iter()
                    .map(|offset| format!("{} {}.{:09} s", offset.clock, offset.seconds, offset.nanoseconds))
                    .collect();
                write!(f, "new time namespace with offsets {}", list.join(", "))
            }
            Self::BecomeRoot { uid, gid, .. } => write!(f, "become uid {uid}, gid {gid} of the user namespace"),
            Self::LoopbackUp => write!(f, "set the network device lo up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn table_is_in_enum_order() {
        for kind in Kind::all() {
            assert_eq!(Kind::from_spec(kind.spec_name()), Some(kind));
        }
    }
}
