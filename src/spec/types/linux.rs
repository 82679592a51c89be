//! `linux`, without its resources.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::object::Object;
use super::{Resources, StringMap, list, or_default, without_nulls};

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
