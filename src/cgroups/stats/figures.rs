//! What there is to be told, by its names in runc's output.

use std::collections::BTreeMap;

use serde::Serialize;

/// A value that is left out when it is zero, as runc does.
fn none<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! figures {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        $(#[$meta])*
        #[allow(missing_docs, reason = "the names are those of the kernel's files and of runc's output")]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    };
}

figures! {
/// The `data` of a line of type `stats`.
Stats {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    /// Filled in by whoever knows about resource groups.
    intel_rdt: BTreeMap<String, u64>,
    /// Always `null` for a container without a network of the runtime's own.
    network_interfaces: Option<()>,
}}

figures! {
/// Times in nanoseconds.
CpuUsage {
    #[serde(skip_serializing_if = "none")]
    total: u64,
    #[serde(skip_serializing_if = "none")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "none")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "none")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}}

figures! {
/// Times in nanoseconds.
#[serde(rename_all = "camelCase")]
Throttling {
    #[serde(skip_serializing_if = "none")]
    periods: u64,
    #[serde(skip_serializing_if = "none")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "none")]
    throttled_time: u64,
}}

figures! {
/// CPU time.
Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}}

figures! {
/// Pressure of one kind: percentages, and a total in microseconds.
PsiLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}}

figures! {
/// Pressure stall information.
Psi {
    some: PsiLine,
    full: PsiLine,
}}

figures! {
/// CPUs and memory nodes.
Cpuset {
    #[serde(skip_serializing_if = "none")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "none")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}}

figures! {
/// Bytes; no limit is the greatest number.
MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "none")]
    usage: u64,
    #[serde(skip_serializing_if = "none")]
    max: u64,
    failcnt: u64,
}}

figures! {
/// Memory in bytes; `raw` is the kernel's memory.stat.
Memory {
    #[serde(skip_serializing_if = "none")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "none")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}}

figures! {
/// Processes; no limit is 0.
Pids {
    #[serde(skip_serializing_if = "none")]
    current: u64,
    #[serde(skip_serializing_if = "none")]
    limit: u64,
}}

figures! {
/// A figure of one device.
BlkioEntry {
    #[serde(skip_serializing_if = "none")]
    major: u64,
    #[serde(skip_serializing_if = "none")]
    minor: u64,
    #[serde(skip_serializing_if = "none")]
    op: String,
    #[serde(skip_serializing_if = "none")]
    value: u64,
}}

figures! {
/// Block devices.
#[serde(rename_all = "camelCase")]
Blkio {
    #[serde(skip_serializing_if = "none")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "none")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}}

figures! {
/// Huge pages of one size, in bytes.
Hugetlb {
    #[serde(skip_serializing_if = "none")]
    usage: u64,
    #[serde(skip_serializing_if = "none")]
    max: u64,
    failcnt: u64,
}}
