//! When and where the calling process runs: priorities, processors, nodes of memory.

use crate::sys::{CallResult, check};

/// ioprio_set(2) of the calling process.
///
/// # Errors
/// The kernel's.
pub fn ioprio_set(value: i32) -> CallResult<()> {
    // IOPRIO_WHO_PROCESS is 1.
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) };
    check(ret, "ioprio_set", || format!("IOPRIO_WHO_PROCESS, 0, {value:#x}")).map(drop)
}

/// The nice value of the calling process (getpriority(2)).
///
/// # Errors
/// The kernel's.
pub fn nice() -> CallResult<i32> {
    // PRIO_PROCESS is 0. The kernel itself answers with 20 minus the nice value, so that no answer looks like an error.
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_getpriority, 0, 0) };
    check(ret, "getpriority", || "PRIO_PROCESS, 0").map(|value| 20 - i32::try_from(value).unwrap_or(20))
}

/// Sets the nice value of the calling process (setpriority(2)).
///
/// # Errors
/// `EACCES` if it would be favoured without CAP_SYS_NICE.
pub fn set_nice(value: i32) -> CallResult<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_setpriority, 0, 0, value) };
    check(ret, "setpriority", || format!("PRIO_PROCESS, 0, {value}")).map(drop)
}

/// The attributes of sched_setattr(2), `struct sched_attr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[repr(C)]
pub struct SchedAttr {
    /// Size of this structure.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value, for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Static priority, for SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// SCHED_DEADLINE, in nanoseconds.
    pub runtime: u64,
    /// SCHED_DEADLINE, in nanoseconds.
    pub deadline: u64,
    /// SCHED_DEADLINE, in nanoseconds.
    pub period: u64,
    /// Utilization clamp.
    pub util_min: u32,
    /// Utilization clamp.
    pub util_max: u32,
}

/// sched_setattr(2) of the calling process.
///
/// # Errors
/// The kernel's.
pub fn sched_setattr(attributes: &SchedAttr) -> CallResult<()> {
    // SAFETY: the structure outlives the call and carries its own size.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) };
    check(ret, "sched_setattr", || format!("0, {attributes:?}")).map(drop)
}

/// sched_setaffinity(2) of the calling process: 64 processors to a word.
///
/// # Errors
/// `EINVAL` if none of them may be used.
pub fn sched_setaffinity(set: &[u64]) -> CallResult<()> {
    let size = size_of_val(set);
    // SAFETY: the set has the given size and outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, set.as_ptr()) };
    check(ret, "sched_setaffinity", || format!("0, {set:x?}")).map(drop)
}

/// set_mempolicy(2) of the calling process: 64 nodes to a word.
///
/// # Errors
/// `EINVAL` if none of the nodes may be used, or the kernel does not know the mode.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> CallResult<()> {
    // The kernel takes one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has the given number of bits, or is null, and outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(ret, "set_mempolicy", || format!("{mode:#x}, {nodes:x?}")).map(drop)
}
