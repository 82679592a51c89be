//! Credentials: user and group ids, capabilities.

use super::{CallResult, check};

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// The effective user id of this process.
pub fn geteuid() -> u32 {
    // SAFETY: geteuid cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective group id of this process.
pub fn getegid() -> u32 {
    // SAFETY: getegid cannot fail.
    unsafe { libc::getegid() }
}

/// setresuid(2) as a raw system call: the wrapper of libc would take the change to other threads, of which there are none.
///
/// # Errors
/// The kernel's.
pub fn setresuid(uid: u32) -> CallResult<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    check(ret, "setresuid", || format!("{uid}, {uid}, {uid}")).map(drop)
}

/// setresgid(2), see [`setresuid`].
///
/// # Errors
/// The kernel's.
pub fn setresgid(gid: u32) -> CallResult<()> {
    // SAFETY: no pointers are passed.
    let ret = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    check(ret, "setresgid", || format!("{gid}, {gid}, {gid}")).map(drop)
}

/// setgroups(2).
///
/// # Errors
/// The kernel's; `EPERM` where a user namespace denies it.
pub fn setgroups(groups: &[u32]) -> CallResult<()> {
    // SAFETY: the list has the given length.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(ret, "setgroups", || format!("{groups:?}")).map(drop)
}

/// The three sets that capset(2) changes, as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CapSets {
    /// What the process may do now.
    pub effective: u64,
    /// What it may take into its effective set.
    pub permitted: u64,
    /// What survives execve(2) together with the file's sets.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capget(2) of the calling process.
///
/// # Errors
/// The kernel's.
pub fn capget() -> CallResult<CapSets> {
    let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads a header and writes two data elements.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(ret, "capget", || "0")?;
    let join = |field: fn(&Data) -> u32| u64::from(field(&data[0])) | u64::from(field(&data[1])) << 32;
    Ok(CapSets { effective: join(|d| d.effective), permitted: join(|d| d.permitted), inheritable: join(|d| d.inheritable) })
}

/// capset(2) of the calling process.
///
/// # Errors
/// `EPERM` for a capability that is not permitted.
#[allow(clippy::cast_possible_truncation, reason = "the two halves of each mask")]
pub fn capset(sets: CapSets) -> CallResult<()> {
    let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads a header and two data elements.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    check(ret, "capset", || {
        format!("{{effective={:#x}, permitted={:#x}, inheritable={:#x}}}", sets.effective, sets.permitted, sets.inheritable)
    })
    .map(drop)
}

/// `PR_CAPBSET_DROP`.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
pub fn drop_from_bounding_set(capability: u32) -> CallResult<()> {
    // SAFETY: integer arguments only.
    let ret = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    check(ret.into(), "prctl", || format!("PR_CAPBSET_DROP, {capability}")).map(drop)
}

/// `PR_CAP_AMBIENT_CLEAR_ALL`.
///
/// # Errors
/// The kernel's.
pub fn clear_ambient() -> CallResult<()> {
    // SAFETY: integer arguments only.
    let ret = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0) };
    check(ret.into(), "prctl", || "PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL").map(drop)
}

/// `PR_CAP_AMBIENT_RAISE`.
///
/// # Errors
/// `EPERM` if the capability is not both permitted and inheritable.
pub fn raise_ambient(capability: u32) -> CallResult<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    // SAFETY: integer arguments only.
    let ret = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, libc::c_ulong::from(capability), 0, 0) };
    check(ret.into(), "prctl", || format!("PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, {capability}")).map(drop)
}

/// `PR_SET_KEEPCAPS`: keeps the permitted set when the user id changes from 0.
///
/// # Errors
/// The kernel's.
pub fn set_keep_caps(on: bool) -> CallResult<()> {
    // SAFETY: integer arguments only.
    let ret = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(on), 0, 0, 0) };
    check(ret.into(), "prctl", || format!("PR_SET_KEEPCAPS, {on}")).map(drop)
}
