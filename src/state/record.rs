//! [`Record`]: what is written about a container, before the first effect and again when it has been made.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroups::CgroupRecord;
use crate::criu::plan::Outside;
use crate::id::ContainerId;
use crate::resctrl::group::ResctrlRecord;
use crate::rootfs::hot::Added;
use crate::seccomp::Listener;
use crate::spec::{Device, DeviceRule, Hook, IdMapping, Namespace, NetDevice, Process, StringMap};

/// The layout of the record; another number is a record of another version of rt.
pub const LAYOUT: u32 = 1;

/// Reads a record, or those fields of it that `T` has. `None` if it is truncated, or of another layout.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], layout: impl FnOnce(&T) -> u32) -> Option<T> {
    // Text that is validated as a whole is not validated again, name by name.
    let record: T = serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    (layout(&record) == LAYOUT).then_some(record)
}

/// How far making the container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is being made; what is listed may or may not exist.
    Creating,
    /// Init is ready and waits for `start` if the fifo is there, or has been started.
    Made,
}

/// A process that cannot be mistaken for another: its id and when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRef {
    /// The process id in the runtime's pid namespace.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub start_time: u64,
}

/// Everything that later commands need; the bundle is not read again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// See [`LAYOUT`].
    pub layout: u32,
    /// The container's id.
    pub id: ContainerId,
    /// How far it has come.
    pub phase: Phase,
    /// The bundle, absolute, as given.
    pub bundle: PathBuf,
    /// The root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When create began, RFC 3339.
    pub created: String,
    /// Effective user id of the caller of create.
    pub owner: u32,
    /// The annotations of the config.
    pub annotations: StringMap,
    /// The control groups, made or about to be made.
    pub cgroup: CgroupRecord,
    /// The device rules in force, as configured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<DeviceRule>,
    /// The devices of the config, which are allowed by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// The command that makes the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Option<ProcessRef>,
    /// The first process of the container, once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ProcessRef>,
    /// The process as configured: what exec inherits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The namespaces as configured.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// The user id map, if there is a user namespace.
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// The group id map, if there is a user namespace.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
    /// The flags of the seccomp filter whose program lies beside the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompRecord>,
    /// The execution domain of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<crate::spec::Personality>,
    /// The NUMA memory policy of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<crate::spec::MemoryPolicy>,
    /// The session keyring's name, unless `--no-new-keyring`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<String>,
    /// The network devices that were moved, or were about to be moved, into the container, by their names on the host.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub net_devices: IndexMap<String, NetDevice>,
    /// The group of resctrl, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<ResctrlRecord>,
    /// Hooks to run after start.
    #[serde(default)]
    pub poststart: Vec<Hook>,
    /// Hooks to run after delete.
    #[serde(default)]
    pub poststop: Vec<Hook>,
    /// Mount points that were made in the caller's own mount namespace and are removed by delete, the last one first.
    #[serde(default)]
    pub host_mounts: Vec<PathBuf>,
    /// The command that deletes it, while it runs the poststop hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remover: Option<ProcessRef>,
    /// How many of the poststop hooks have begun. They are not run twice.
    #[serde(default)]
    pub poststop_begun: usize,
    /// Hooks of create have begun to run: a create that fails after that runs the poststop hooks.
    #[serde(default)]
    pub hooks_begun: bool,
    /// What is not as the config says, as create said it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The mounts whose content is outside of the container, for checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<Outside>,
    /// The label of the files of its mounts (`linux.mountLabel`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    /// The mounts that were added to the container since it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<Added>,
}

impl Record {
    /// The container has been made, with this first process.
    pub fn made(&mut self, init: ProcessRef) {
        self.init = Some(init);
        self.phase = Phase::Made;
    }

    /// What tells a control group that this create has made from one that another has made at the same place.
    pub fn mark(&self) -> Option<String> {
        self.maker.map(|maker| format!("{} {} {}", maker.pid, maker.start_time, self.id))
    }

    /// True if the container's processes are alone in a pid namespace, so that the kernel ends them with the first one.
    pub fn has_own_pid_namespace(&self) -> bool {
        let is_own = |namespace: &Namespace| namespace.r#type == "pid" && namespace.path.as_deref().unwrap_or("").is_empty();
        self.namespaces.iter().any(is_own)
    }
}

/// The seccomp filter of the container, for exec.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompRecord {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
    /// Who gets the notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}
