//! libseccomp, linked statically: the reference that our own compiler of filters is proven against (seccomp(3)).
//!
//! Nothing here touches the kernel; running containers does not need it.

use std::ffi::{CStr, CString, c_int, c_uint};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd};

use libseccomp_sys as raw;

use super::{CallError, CallResult, check_int};

/// One condition on an argument: index, operator (`SCMP_CMP_*`, 1 to 7), and its two values (of 7: mask and value).
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    /// Which argument.
    pub index: u32,
    /// `SCMP_CMP_NE` 1, `LT` 2, `LE` 3, `EQ` 4, `GE` 5, `GT` 6, `MASKED_EQ` 7.
    pub op: u32,
    /// The value, or the mask.
    pub a: u64,
    /// The value under the mask.
    pub b: u64,
}

impl Compare {
    fn raw(&self) -> raw::scmp_arg_cmp {
        use raw::scmp_compare::{
            SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_LE, SCMP_CMP_LT, SCMP_CMP_MASKED_EQ, SCMP_CMP_NE,
        };
        let op = match self.op {
            1 => SCMP_CMP_NE,
            2 => SCMP_CMP_LT,
            3 => SCMP_CMP_LE,
            4 => SCMP_CMP_EQ,
            5 => SCMP_CMP_GE,
            6 => SCMP_CMP_GT,
            _ => SCMP_CMP_MASKED_EQ,
        };
        raw::scmp_arg_cmp { arg: self.index, op, datum_a: self.a, datum_b: self.b }
    }
}

/// A filter that is being built.
#[derive(Debug)]
pub struct Context(raw::scmp_filter_ctx);

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is ours and nobody uses it any more.
        unsafe { raw::seccomp_release(self.0) }
    }
}

/// Turns the negative error number that libseccomp returns into an error.
fn result(ret: c_int, call: &str, args: impl FnOnce() -> String) -> CallResult<()> {
    if ret < 0 { Err(CallError::new(call, args(), -ret)) } else { Ok(()) }
}

impl Context {
    /// seccomp_init(3): a filter for the native architecture.
    ///
    /// # Errors
    /// `EINVAL` for an unknown action.
    pub fn new(default: u32) -> CallResult<Self> {
        // The library asks the running kernel what it supports, and refuses the rest: say that it is everything. What the
        // call returns is of no interest, a library without that level keeps its own.
        // SAFETY: takes a number; the library is used by one thread at a time, as its callers (tests) see to.
        let _ = unsafe { raw::seccomp_api_set(6) };
        // SAFETY: takes a number, returns a new context or null.
        let context = unsafe { raw::seccomp_init(default) };
        if context.is_null() {
            Err(CallError::new("seccomp_init", format!("{default:#x}"), libc::EINVAL))
        } else {
            Ok(Self(context))
        }
    }

    /// seccomp_arch_add(3).
    ///
    /// # Errors
    /// `EEXIST` if it is there already, `EDOM` if its byte order is another, `EINVAL` if it is unknown.
    pub fn arch_add(&mut self, token: u32) -> CallResult<()> {
        // SAFETY: the context is valid as long as we are.
        result(unsafe { raw::seccomp_arch_add(self.0, token) }, "seccomp_arch_add", || format!("{token:#x}"))
    }

    /// seccomp_attr_set(3) with `SCMP_FLTATR_CTL_OPTIMIZE`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for an unknown level.
    pub fn optimize(&mut self, level: u32) -> CallResult<()> {
        let attribute = raw::scmp_filter_attr::SCMP_FLTATR_CTL_OPTIMIZE;
        // SAFETY: the context is valid as long as we are.
        result(unsafe { raw::seccomp_attr_set(self.0, attribute, level) }, "seccomp_attr_set", || {
            format!("CTL_OPTIMIZE, {level}")
        })
    }

    /// seccomp_rule_add_array(3); the number is the native one, also for the other architectures.
    ///
    /// # Errors
    /// `EEXIST` if it contradicts another rule, `EACCES` if the action is the default, `EINVAL` for repeated arguments.
    pub fn rule_add(&mut self, action: u32, number: i32, conditions: &[Compare]) -> CallResult<()> {
        let args: Vec<raw::scmp_arg_cmp> = conditions.iter().map(Compare::raw).collect();
        let count = c_uint::try_from(args.len()).unwrap_or(c_uint::MAX);
        // SAFETY: the context is valid as long as we are; the array has the given length and outlives the call.
        let ret = unsafe { raw::seccomp_rule_add_array(self.0, action, number, count, args.as_ptr()) };
        result(ret, "seccomp_rule_add_array", || format!("{action:#x}, {number}, {conditions:?}"))
    }

    /// seccomp_export_bpf(3): the program.
    ///
    /// # Errors
    /// Those of libseccomp and of the memory file it writes to.
    pub fn export_bpf(&self) -> CallResult<Vec<u8>> {
        // SAFETY: the name is a C string.
        let ret = unsafe { libc::memfd_create(c"bpf".as_ptr(), libc::MFD_CLOEXEC) };
        let fd = check_int(ret, "memfd_create", || "\"bpf\", MFD_CLOEXEC")?;
        // SAFETY: the kernel has just returned this descriptor to us.
        let mut file = unsafe { File::from_raw_fd(fd) };
        // SAFETY: the context is valid as long as we are, the descriptor is open.
        result(unsafe { raw::seccomp_export_bpf(self.0, file.as_raw_fd()) }, "seccomp_export_bpf", || "memfd".to_owned())?;
        let mut bytes = Vec::new();
        let read = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
        read.map_err(|error| CallError::from_io("read", "memfd", &error))?;
        Ok(bytes)
    }
}

/// seccomp_syscall_resolve_name_arch(3); token 0 is the native architecture. Negative numbers other than -1 stand for
/// calls that the architecture lacks or multiplexes.
pub fn resolve_name(token: u32, name: &str) -> Option<i32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a C string that outlives the call.
    let number = unsafe { raw::seccomp_syscall_resolve_name_arch(token, name.as_ptr()) };
    (number != raw::__NR_SCMP_ERROR).then_some(number)
}

/// seccomp_syscall_resolve_num_arch(3).
pub fn resolve_number(token: u32, number: i32) -> Option<String> {
    // SAFETY: takes numbers, returns a new C string or null.
    let name = unsafe { raw::seccomp_syscall_resolve_num_arch(token, number) };
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string.
    let text = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    // SAFETY: allocated for us by malloc(3), and not used any more.
    unsafe { libc::free(name.cast_mut().cast()) };
    Some(text)
}

/// seccomp_version(3), such as `2.5.4`.
pub fn version() -> String {
    // SAFETY: takes nothing, returns a pointer to static data.
    let version = unsafe { raw::seccomp_version() };
    // SAFETY: static data of the library.
    let version = unsafe { &*version };
    format!("{}.{}.{}", version.major, version.minor, version.micro)
}
