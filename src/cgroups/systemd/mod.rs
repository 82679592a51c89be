//! The systemd driver (`--systemd-cgroup`): the container's cgroup is that of a transient scope, which systemd makes for us.
//!
//! [`mod@plan`] turns `slice:prefix:name` and the limits into a [`UnitPlan`], without a system call; [`Manager`] talks to systemd over
//! D-Bus (`bus`, `wire`). A scope needs a process at birth, so it is made after the clone, with the child in it; init waits for
//! `CgroupJoined`. Its name is in the container's record before.
//!
//! What systemd is told is what the files will say: the properties are derived from the planned writes, and the files are written
//! as well. So a reload of systemd writes the values that are there already. It is told nothing about devices: a scope without
//! device rules has no device program of systemd's, and nothing takes ours away when systemd reloads its units.
//!
//! Why no D-Bus crate: those without a thread or an async runtime bring derive macros, a signature compiler and their own event
//! loop for what are seven calls and one signal here.

mod bus;
mod manager;
pub mod plan;
mod text;
mod wire;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use manager::{Manager, Started};
pub use plan::{Property, UnitPlan, plan, properties};
pub use wire::Value;

/// Which systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The system's, for root.
    System,
    /// The user's own.
    User,
}

impl Which {
    /// What is being done when it does not answer.
    fn reaching(self) -> &'static str {
        match self {
            Self::System => "reach systemd (--systemd-cgroup)",
            Self::User => "reach the user's systemd (--systemd-cgroup)",
        }
    }

    /// What may be the reason.
    fn unreachable(self) -> &'static str {
        match self {
            Self::System => "this machine may not be run by systemd",
            Self::User => "is there a login session? see `loginctl enable-linger`",
        }
    }
}

/// What planning has to know about systemd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Systemd {
    /// Which one.
    pub which: Which,
    /// Its own cgroup, above which it does not reach: `/` for the system's.
    pub control_group: PathBuf,
}

/// What the container's record says about its unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// Which systemd has it.
    pub which: Which,
    /// Its name.
    pub name: String,
    /// The directory below its own that is the container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subgroup: Option<String>,
}

/// The cgroup of a slice below its manager's: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> PathBuf {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem == "-" {
        return PathBuf::new();
    }
    slice_names(slice).iter().collect()
}

/// The slice and those above it, outermost first, without the root slice.
fn slice_names(slice: &str) -> Vec<String> {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem == "-" {
        return Vec::new();
    }
    let ends = stem.match_indices('-').map(|(index, _)| index).chain([stem.len()]);
    ends.map(|end| format!("{}.slice", &stem[..end])).collect()
}

/// Where a unit's cgroup is, relative to the mount point.
fn unit_path(control_group: &Path, slice: &str, unit: &str) -> PathBuf {
    control_group.strip_prefix("/").unwrap_or(control_group).join(slice_path(slice)).join(unit)
}
