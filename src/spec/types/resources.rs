//! `linux.resources`.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::object::Object;
use super::{StringMap, list, or_default};

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
