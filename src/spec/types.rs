//! The types of config.json, runtime-spec 1.3.0, as written: strings stay strings, order stays order.
//!
//! They are our own and not a crate's because the specification wants leniency where a strict enum would refuse the whole
//! document (an unknown capability is a warning), because order matters in maps that a hash map would shuffle
//! (`unified`), and because interpretation belongs into the plan, where all problems are reported together.
//! Every field is optional that the specification does not require, `null` counts as absent, and unknown properties are
//! ignored as the specification demands.

#![allow(missing_docs, reason = "the names and meanings are those of runtime-spec's config.md and config-linux.md")]

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::object::Object;

/// An object of string values in document order.
pub type StringMap = IndexMap<String, String>;

/// A list that may be absent or `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A value whose absence or `null` means its default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An object whose properties may be `null`, which counts as absent.
fn without_nulls<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<IndexMap<String, T>, D::Error> {
    let map = Option::<IndexMap<String, Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

macro_rules! spec_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", remote = "Self")]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(Object(deserializer))
            }
        }
    };
}

/// A value that means nothing on Linux; only whether it is there is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Foreign;

impl<'de> Deserialize<'de> for Foreign {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

spec_struct! {
/// config.json.
Spec {
    #[serde(default)]
    oci_version: Option<String>,
    #[serde(default)]
    root: Option<Root>,
    #[serde(default)]
    process: Option<Process>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    domainname: Option<String>,
    #[serde(default, deserialize_with = "list")]
    mounts: Vec<Mount>,
    #[serde(default)]
    hooks: Option<Hooks>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: StringMap,
    #[serde(default)]
    linux: Option<Linux>,
    #[serde(default, skip_serializing)]
    windows: Option<Foreign>,
    #[serde(default, skip_serializing)]
    solaris: Option<Foreign>,
    #[serde(default, skip_serializing)]
    vm: Option<Foreign>,
    #[serde(default, skip_serializing)]
    zos: Option<Foreign>,
    #[serde(default, skip_serializing)]
    freebsd: Option<Foreign>,
}}

spec_struct! {
Root {
    path: String,
    #[serde(default, deserialize_with = "or_default")]
    readonly: bool,
}}

spec_struct! {
Process {
    #[serde(default, deserialize_with = "or_default")]
    terminal: bool,
    #[serde(default)]
    console_size: Option<ConsoleSize>,
    #[serde(default, deserialize_with = "or_default")]
    user: User,
    #[serde(default, deserialize_with = "list")]
    args: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    cwd: String,
    #[serde(default)]
    capabilities: Option<Capabilities>,
    #[serde(default, deserialize_with = "list")]
    rlimits: Vec<Rlimit>,
    #[serde(default, deserialize_with = "or_default")]
    no_new_privileges: bool,
    #[serde(default)]
    apparmor_profile: Option<String>,
    #[serde(default)]
    oom_score_adj: Option<i32>,
    #[serde(default)]
    scheduler: Option<Scheduler>,
    #[serde(default)]
    selinux_label: Option<String>,
    #[serde(default, rename = "ioPriority")]
    io_priority: Option<IoPriority>,
    #[serde(default, rename = "execCPUAffinity")]
    exec_cpu_affinity: Option<CpuAffinity>,
    #[serde(default, skip_serializing)]
    command_line: Option<Foreign>,
}}

spec_struct! {
ConsoleSize {
    height: u64,
    width: u64,
}}

spec_struct! {
/// The ids are wider than the kernel's so that a value out of range is reported with its meaning, not as a type error.
User {
    #[serde(default, deserialize_with = "or_default")]
    uid: i64,
    #[serde(default, deserialize_with = "or_default")]
    gid: i64,
    #[serde(default)]
    umask: Option<i64>,
    #[serde(default, deserialize_with = "list")]
    additional_gids: Vec<i64>,
    #[serde(default, skip_serializing)]
    username: Option<Foreign>,
}}

spec_struct! {
Capabilities {
    #[serde(default, deserialize_with = "list")]
    bounding: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    effective: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    inheritable: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    permitted: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    ambient: Vec<String>,
}}

spec_struct! {
Rlimit {
    r#type: String,
    hard: u64,
    soft: u64,
}}

spec_struct! {
Scheduler {
    policy: String,
    #[serde(default)]
    nice: Option<i32>,
    #[serde(default)]
    priority: Option<i32>,
    #[serde(default, deserialize_with = "list")]
    flags: Vec<String>,
    #[serde(default)]
    runtime: Option<u64>,
    #[serde(default)]
    deadline: Option<u64>,
    #[serde(default)]
    period: Option<u64>,
}}

spec_struct! {
IoPriority {
    class: String,
    #[serde(default)]
    priority: Option<i32>,
}}

spec_struct! {
CpuAffinity {
    #[serde(default)]
    initial: Option<String>,
    #[serde(default)]
    r#final: Option<String>,
}}

spec_struct! {
Mount {
    destination: String,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default, deserialize_with = "list")]
    options: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    uid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "list")]
    gid_mappings: Vec<IdMapping>,
}}

spec_struct! {
Hooks {
    #[serde(default, deserialize_with = "list")]
    prestart: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    create_runtime: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    create_container: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    start_container: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    poststart: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    poststop: Vec<Hook>,
}}

spec_struct! {
Hook {
    path: String,
    #[serde(default, deserialize_with = "list")]
    args: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    env: Vec<String>,
    #[serde(default)]
    timeout: Option<i64>,
}}

spec_struct! {
Linux {
    #[serde(default, deserialize_with = "list")]
    uid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "list")]
    gid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "or_default")]
    sysctl: StringMap,
    #[serde(default)]
    resources: Option<Resources>,
    #[serde(default)]
    cgroups_path: Option<String>,
    #[serde(default, deserialize_with = "list")]
    namespaces: Vec<Namespace>,
    #[serde(default, deserialize_with = "list")]
    devices: Vec<Device>,
    #[serde(default, deserialize_with = "or_default")]
    net_devices: IndexMap<String, NetDevice>,
    #[serde(default)]
    seccomp: Option<Seccomp>,
    #[serde(default)]
    rootfs_propagation: Option<String>,
    #[serde(default, deserialize_with = "list")]
    masked_paths: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    readonly_paths: Vec<String>,
    #[serde(default)]
    mount_label: Option<String>,
    #[serde(default)]
    intel_rdt: Option<IntelRdt>,
    #[serde(default)]
    memory_policy: Option<MemoryPolicy>,
    #[serde(default)]
    personality: Option<Personality>,
    #[serde(default, deserialize_with = "without_nulls")]
    time_offsets: IndexMap<String, TimeOffset>,
}}

impl Eq for IdMapping {}

spec_struct! {
IdMapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}}

spec_struct! {
Namespace {
    r#type: String,
    #[serde(default)]
    path: Option<String>,
}}

spec_struct! {
Device {
    r#type: String,
    path: String,
    #[serde(default)]
    major: Option<i64>,
    #[serde(default)]
    minor: Option<i64>,
    #[serde(default)]
    file_mode: Option<u32>,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
}}

spec_struct! {
NetDevice {
    #[serde(default)]
    name: Option<String>,
}}

spec_struct! {
TimeOffset {
    #[serde(default, deserialize_with = "or_default")]
    secs: i64,
    #[serde(default, deserialize_with = "or_default")]
    nanosecs: u32,
}}

spec_struct! {
Personality {
    domain: String,
    #[serde(default, deserialize_with = "list")]
    flags: Vec<String>,
}}

spec_struct! {
MemoryPolicy {
    mode: String,
    #[serde(default)]
    nodes: Option<String>,
    #[serde(default, deserialize_with = "list")]
    flags: Vec<String>,
}}

spec_struct! {
IntelRdt {
    #[serde(default, rename = "closID")]
    clos_id: Option<String>,
    #[serde(default, deserialize_with = "list")]
    schemata: Vec<String>,
    #[serde(default)]
    l3_cache_schema: Option<String>,
    #[serde(default)]
    mem_bw_schema: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    enable_monitoring: bool,
}}

spec_struct! {
Resources {
    #[serde(default, deserialize_with = "list")]
    devices: Vec<DeviceRule>,
    #[serde(default)]
    memory: Option<Memory>,
    #[serde(default)]
    cpu: Option<Cpu>,
    #[serde(default)]
    pids: Option<Pids>,
    #[serde(default, rename = "blockIO")]
    block_io: Option<BlockIo>,
    #[serde(default, deserialize_with = "list")]
    hugepage_limits: Vec<HugepageLimit>,
    #[serde(default)]
    network: Option<Network>,
    #[serde(default, deserialize_with = "or_default")]
    rdma: IndexMap<String, Rdma>,
    #[serde(default, deserialize_with = "or_default")]
    unified: StringMap,
}}

spec_struct! {
DeviceRule {
    allow: bool,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    major: Option<i64>,
    #[serde(default)]
    minor: Option<i64>,
    #[serde(default)]
    access: Option<String>,
}}

spec_struct! {
Memory {
    #[serde(default)]
    limit: Option<i64>,
    #[serde(default)]
    reservation: Option<i64>,
    #[serde(default)]
    swap: Option<i64>,
    #[serde(default)]
    kernel: Option<i64>,
    #[serde(default, rename = "kernelTCP")]
    kernel_tcp: Option<i64>,
    #[serde(default)]
    swappiness: Option<u64>,
    #[serde(default, rename = "disableOOMKiller")]
    disable_oom_killer: Option<bool>,
    #[serde(default)]
    use_hierarchy: Option<bool>,
    #[serde(default)]
    check_before_update: Option<bool>,
}}

spec_struct! {
Cpu {
    #[serde(default)]
    shares: Option<u64>,
    #[serde(default)]
    quota: Option<i64>,
    #[serde(default)]
    burst: Option<u64>,
    #[serde(default)]
    period: Option<u64>,
    #[serde(default)]
    realtime_runtime: Option<i64>,
    #[serde(default)]
    realtime_period: Option<u64>,
    #[serde(default)]
    cpus: Option<String>,
    #[serde(default)]
    mems: Option<String>,
    #[serde(default)]
    idle: Option<i64>,
}}

spec_struct! {
Pids {
    #[serde(default)]
    limit: Option<i64>,
}}

spec_struct! {
BlockIo {
    #[serde(default)]
    weight: Option<u16>,
    #[serde(default)]
    leaf_weight: Option<u16>,
    #[serde(default, deserialize_with = "list")]
    weight_device: Vec<WeightDevice>,
    #[serde(default, deserialize_with = "list")]
    throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(default, deserialize_with = "list")]
    throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(default, rename = "throttleReadIOPSDevice", deserialize_with = "list")]
    throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(default, rename = "throttleWriteIOPSDevice", deserialize_with = "list")]
    throttle_write_iops_device: Vec<ThrottleDevice>,
}}

spec_struct! {
WeightDevice {
    major: i64,
    minor: i64,
    #[serde(default)]
    weight: Option<u16>,
    #[serde(default)]
    leaf_weight: Option<u16>,
}}

spec_struct! {
ThrottleDevice {
    major: i64,
    minor: i64,
    rate: u64,
}}

spec_struct! {
HugepageLimit {
    page_size: String,
    limit: u64,
}}

spec_struct! {
Network {
    #[serde(default, rename = "classID")]
    class_id: Option<u32>,
    #[serde(default, deserialize_with = "list")]
    priorities: Vec<InterfacePriority>,
}}

spec_struct! {
InterfacePriority {
    name: String,
    priority: u32,
}}

spec_struct! {
Rdma {
    #[serde(default)]
    hca_handles: Option<u32>,
    #[serde(default)]
    hca_objects: Option<u32>,
}}

spec_struct! {
Seccomp {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "list")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "list")]
    syscalls: Vec<SyscallRule>,
}}

spec_struct! {
SyscallRule {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "list")]
    args: Vec<SyscallArg>,
}}

spec_struct! {
SyscallArg {
    index: u32,
    value: u64,
    #[serde(default, deserialize_with = "or_default")]
    value_two: u64,
    op: String,
}}
