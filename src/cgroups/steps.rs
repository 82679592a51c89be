//! What is done to control groups, as data: directories, writes, device filters.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::devices::Rule;
use super::systemd::UnitRecord;

/// The two interfaces of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy per controller (cgroups(7), "Cgroups version 1").
    V1,
    /// The unified hierarchy.
    V2,
}

/// The container's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which interface the files in it have.
    pub version: Version,
    /// Version 1: the controllers of the hierarchy (`name=systemd` for one without). Version 2: those it can have.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The directory below the mount point: relative, without `.` and `..`, never empty.
    pub path: PathBuf,
}

impl Place {
    /// The whole path.
    pub fn directory(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    /// True if the hierarchy has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Every directory from below the mount point to the container's own, outermost first, relative to the mount point.
    pub fn levels(&self) -> Vec<PathBuf> {
        let mut levels: Vec<PathBuf> =
            self.path.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_path_buf).collect();
        levels.reverse();
        levels
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {}", self.directory().display())
    }
}

/// What the kernel's refusal of a write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tolerance {
    /// An error.
    Required,
    /// A warning if the kernel has no such file or may not let us use it, else an error.
    WarnIfUnsupported,
    /// A warning.
    Warn,
    /// Nothing if the file does not exist, else an error.
    IfPresent,
}

/// A value for a file of a cgroup directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Write {
    /// Index into the plan's places.
    pub place: usize,
    /// The controller that offers the file.
    pub controller: String,
    /// The name of the file: one component, checked by the plan.
    pub file: String,
    /// One line, written with one write(2).
    pub value: String,
    /// What a refusal means.
    pub tolerance: Tolerance,
    /// If refused, try once more after the writes that follow: for pairs of values of which one bounds the other, where the
    /// right order depends on the values in force.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The file and value to use where `file` does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<(String, String)>,
}

/// A line for `devices.allow` or `devices.deny` of version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceLine {
    /// Which of the two files.
    pub allow: bool,
    /// Such as `c 1:3 rwm`.
    pub text: String,
}

/// One thing to do to the directories of a container once they exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Version 2: make controllers available by `cgroup.subtree_control` of every directory above.
    Enable {
        /// Index into the plan's places.
        place: usize,
        /// All that shall be enabled; those not required are for accounting only.
        controllers: Vec<String>,
        /// Those that later writes need.
        required: Vec<String>,
        /// What it means if a required one cannot be enabled.
        tolerance: Tolerance,
    },
    /// Version 2: refuse a memory limit below the current usage (`checkBeforeUpdate`).
    CheckMemory {
        /// Index into the plan's places.
        place: usize,
        /// The limit in bytes.
        limit: u64,
    },
    /// Set a value.
    Write(Write),
    /// Version 1: the list of allowed devices.
    DeviceList {
        /// Index into the plan's places.
        place: usize,
        /// In the order of writing.
        lines: Vec<DeviceLine>,
    },
    /// Version 2: the eBPF program that decides about devices.
    DeviceProgram {
        /// Index into the plan's places.
        place: usize,
        /// What it was made from; the last match decides.
        rules: Vec<Rule>,
        /// The program.
        #[serde(skip)]
        instructions: Vec<u64>,
    },
    /// Version 2: give the directory to the container's root user.
    Delegate {
        /// Index into the plan's places.
        place: usize,
        /// The user as the host sees it.
        uid: u32,
    },
    /// Version 2: make available in the directory what the one above it has, for the sake of accounting.
    Account {
        /// Index into the plan's places.
        place: usize,
        /// Those that are counted.
        controllers: Vec<String>,
    },
    /// Version 2: make a directory below, which the container's program manages.
    MakeChild {
        /// Index into the plan's places.
        place: usize,
        /// Its name.
        name: String,
        /// Whose it shall be, as the host sees the user.
        owner: Option<u32>,
    },
}

impl Step {
    /// The value that it sets, if it is about one.
    pub fn as_write(&self) -> Option<&Write> {
        match self {
            Self::Write(write) => Some(write),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enable { controllers, .. } => write!(f, "enable cgroup controllers {}", controllers.join(" ")),
            Self::CheckMemory { limit, .. } => write!(f, "check that at most {limit} bytes of memory are in use"),
            Self::Write(write) => write!(f, "{write}"),
            Self::DeviceList { lines, .. } => {
                let lines: Vec<String> =
                    lines.iter().map(|line| format!("{} {}", if line.allow { "allow" } else { "deny" }, line.text)).collect();
                write!(f, "device list: {}", lines.join(", "))
            }
            Self::DeviceProgram { rules, .. } => {
                let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                write!(f, "device program: {}", rules.join(", "))
            }
            Self::Delegate { uid, .. } => write!(f, "give the cgroup to uid {uid}"),
            Self::Account { controllers, .. } => write!(f, "count by cgroup controllers {}", controllers.join(" ")),
            Self::MakeChild { name, owner: None, .. } => write!(f, "make the cgroup {name} below it"),
            Self::MakeChild { name, owner: Some(uid), .. } => write!(f, "make the cgroup {name} below it, for uid {uid}"),
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {} to {:?}", self.file, self.value)
    }
}

/// What the container's record says about one directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Line")]
pub struct Recorded {
    /// The directory.
    #[serde(flatten)]
    pub place: Place,
    /// The directory is (to be) made by us, and removed with the container.
    pub ours: bool,
    /// Directories above it that are (to be) made by us, outermost first, relative to the mount point. They are removed
    /// with the container if nobody else uses them then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<PathBuf>,
}

/// The same as it is read: `flatten` would keep every value aside before it is known what it is for.
#[derive(Deserialize)]
struct Line {
    version: Version,
    controllers: Vec<String>,
    mount: PathBuf,
    path: PathBuf,
    ours: bool,
    #[serde(default)]
    parents: Vec<PathBuf>,
}

impl From<Line> for Recorded {
    fn from(Line { version, controllers, mount, path, ours, parents }: Line) -> Self {
        Self { place: Place { version, controllers, mount, path }, ours, parents }
    }
}

/// What the container's record says about its control groups: written before any of them is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRecord {
    /// One directory per hierarchy; none if the container has no cgroup of its own.
    pub directories: Vec<Recorded>,
    /// The systemd unit whose directory it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitRecord>,
    /// A directory below that of version 2 in which the container's processes are, unless its program has moved them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<String>,
}

impl CgroupRecord {
    /// The container's directory is not that of its unit, but one below.
    pub fn is_below_unit(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.subgroup.is_some())
    }
}
