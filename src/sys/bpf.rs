//! bpf(2) for the device filter of cgroup v2.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{CallError, CallResult, check, check_fd};

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// A zeroed attribute of more than the kernel's full size: kernels 6.17 up to 7.2 may write past the end of a short one.
#[repr(C, align(8))]
struct Attr([u8; 256]);

impl Attr {
    fn new() -> Self {
        Self([0; 256])
    }
    fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }
    fn pointer<T>(&mut self, at: usize, value: *const T) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&(value.expose_provenance() as u64).to_ne_bytes());
        self
    }
    fn read_u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
    fn call(&mut self, command: i32, name: &str) -> CallResult<i64> {
        // The kernel accepts an attribute that is longer than its own as long as the rest is zero. 256 is above every size yet.
        let size = self.0.len();
        // SAFETY: the attribute has the given size; pointers in it are set by the callers to memory that outlives the call.
        let ret = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size) };
        check(ret, "bpf", || name)
    }
}

fn raw(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program of 8-byte instructions.
///
/// # Errors
/// The kernel's.
pub fn load_device_program(instructions: &[u64]) -> CallResult<OwnedFd> {
    let count = u32::try_from(instructions.len()).map_err(|_| CallError::new("bpf", "BPF_PROG_LOAD", libc::E2BIG))?;
    let mut attr = Attr::new();
    // prog_type, insn_cnt, insns, license (union bpf_attr of linux/bpf.h).
    attr.u32(0, BPF_PROG_TYPE_CGROUP_DEVICE).u32(4, count).pointer(8, instructions.as_ptr()).pointer(16, c"GPL".as_ptr());
    let ret = attr.call(BPF_PROG_LOAD, "BPF_PROG_LOAD")?;
    check_fd(ret, "bpf", || "BPF_PROG_LOAD")
}

/// Attaches a device program to a cgroup directory, beside those that are there already (`BPF_F_ALLOW_MULTI`).
///
/// # Errors
/// The kernel's.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> CallResult<()> {
    let mut attr = Attr::new();
    // target_fd, attach_bpf_fd, attach_type, attach_flags.
    attr.u32(0, raw(cgroup)).u32(4, raw(program)).u32(8, BPF_CGROUP_DEVICE).u32(12, BPF_F_ALLOW_MULTI);
    attr.call(BPF_PROG_ATTACH, "BPF_PROG_ATTACH, BPF_CGROUP_DEVICE").map(drop)
}

/// Puts a device program in the place of another one, at once: every access is decided by one or the other (Linux 5.6).
///
/// # Errors
/// The kernel's; ENOENT if the other one is not attached.
pub fn replace_device_program(cgroup: impl AsFd, program: impl AsFd, other: impl AsFd) -> CallResult<()> {
    let mut attr = Attr::new();
    // target_fd, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd.
    attr.u32(0, raw(cgroup)).u32(4, raw(program)).u32(8, BPF_CGROUP_DEVICE);
    attr.u32(12, BPF_F_ALLOW_MULTI | BPF_F_REPLACE).u32(16, raw(other));
    attr.call(BPF_PROG_ATTACH, "BPF_PROG_ATTACH, BPF_CGROUP_DEVICE, BPF_F_REPLACE").map(drop)
}

/// Detaches a device program from a cgroup directory.
///
/// # Errors
/// The kernel's.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> CallResult<()> {
    let mut attr = Attr::new();
    attr.u32(0, raw(cgroup)).u32(4, raw(program)).u32(8, BPF_CGROUP_DEVICE);
    attr.call(BPF_PROG_DETACH, "BPF_PROG_DETACH, BPF_CGROUP_DEVICE").map(drop)
}

/// The device programs attached to a cgroup directory itself, at most 64.
///
/// # Errors
/// The kernel's.
pub fn device_programs(cgroup: impl AsFd) -> CallResult<Vec<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut attr = Attr::new();
    // target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt.
    attr.u32(0, raw(cgroup)).u32(4, BPF_CGROUP_DEVICE).pointer(16, ids.as_mut_ptr()).u32(24, 64);
    attr.call(BPF_PROG_QUERY, "BPF_PROG_QUERY, BPF_CGROUP_DEVICE")?;
    let count = usize::try_from(attr.read_u32(24)).unwrap_or(0).min(ids.len());
    ids[..count]
        .iter()
        .map(|id| {
            let mut attr = Attr::new();
            attr.u32(0, *id);
            let ret = attr.call(BPF_PROG_GET_FD_BY_ID, "BPF_PROG_GET_FD_BY_ID")?;
            check_fd(ret, "bpf", || "BPF_PROG_GET_FD_BY_ID")
        })
        .collect()
}
