//! The files below /proc/self/attr, by which a process tells its security modules what it wants (proc_pid_attr(5)).

use crate::error::Failure;
use crate::procfs::ProcFs;
use crate::sys::CallResult;

use super::LsmStep;

/// Carries a step out.
///
/// # Errors
/// The kernel's.
pub fn write(step: &LsmStep, procfs: &ProcFs) -> Result<(), Failure> {
    match step {
        LsmStep::AppArmorProfile(profile) => apparmor(profile, procfs),
        LsmStep::ExecLabel(label) => Ok(procfs.write("self/attr/exec", label)?),
        LsmStep::KeyLabel(label) => Ok(procfs.write("self/attr/keycreate", label)?),
    }
}

/// The file of AppArmor's own exists since Linux 5.8; the older one belongs to whichever module came first.
fn apparmor(profile: &str, procfs: &ProcFs) -> Result<(), Failure> {
    let request = format!("exec {profile}");
    let is_there = |path: &str| -> CallResult<bool> {
        match procfs.open_file(path, libc::O_WRONLY) {
            Err(error) if error.is(libc::ENOENT) => Ok(false),
            other => other.map(|_| true),
        }
    };
    let own = "self/attr/apparmor/exec";
    let file = if is_there(own)? { own } else { "self/attr/exec" };
    procfs.write(file, &request).map_err(|error| {
        let missing = error.is(libc::ENOENT);
        let failure = Failure::from(error);
        if missing {
            failure.hint("the profile has to be loaded into the kernel before: see apparmor_parser(8)")
        } else {
            failure
        }
    })
}
