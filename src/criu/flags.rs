//! What flags of checkpoint and restore mean for the machine, and what CRIU cannot do for them.

use std::path::Path;

use super::message::CgroupMode;
use super::plan::RestoreFlags;
use crate::host::Host;
use crate::plan::Findings;
use crate::process::capabilities::SYS_RESOURCE;
use crate::spec::Field;

/// The bytes of the pipe through which CRIU's page server hands memory out (819 pages in 3.15 to 4.1). Where it may not make one, it goes
/// on, and fails at the first page that is not the first of its kind.
const PIPE_OF_PAGES: u64 = 819 << 12;

/// `--lsm-profile` and what else can be wrong with the flags of restore by themselves.
pub fn check_restore(flags: &RestoreFlags, findings: &mut Findings) {
    let Some(text) = &flags.lsm_profile else { return };
    let known = |module: &str| ["apparmor", "selinux", "none"].contains(&module);
    if !text.split_once(':').is_some_and(|(module, name)| known(module) && !name.is_empty()) {
        findings.problem(Field::new("--lsm-profile"), format!("{text:?}; expected apparmor:NAME or selinux:LABEL"));
    }
}

/// CRIU's mode for restore. What `strict` asks for, that no group exists, is looked at before ours are made; then all settings are those of
/// the images.
pub fn cgroup_mode_of_restore(mode: Option<CgroupMode>) -> CgroupMode {
    match mode {
        Some(CgroupMode::Strict) => CgroupMode::Full,
        Some(other) => other,
        None => CgroupMode::Soft,
    }
}

/// Why pages that are to be sent when they are used will most likely not be.
pub fn warning_of_lazy_pages(host: &Host) -> Option<String> {
    let limit: u64 = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").ok()?.trim().parse().ok()?;
    if host.can(SYS_RESOURCE) || limit >= PIPE_OF_PAGES {
        return None;
    }
    let step = format!("CAP_SYS_RESOURCE, or {PIPE_OF_PAGES} in /proc/sys/fs/pipe-max-size (now {limit})");
    Some(format!("--lazy-pages: CRIU may fail when pages are asked for: it makes a large pipe, which needs {step}"))
}

/// Why `--lsm-mount-context` does nothing here.
pub fn warning_of_mount_context() -> Option<&'static str> {
    let has_selinux = Path::new("/sys/fs/selinux/enforce").exists();
    (!has_selinux).then_some("--lsm-mount-context has no effect: SELinux is not active on this host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_name_their_module() {
        for (text, fine) in [
            ("apparmor:x", true),
            ("selinux:a:b:c:s0", true),
            ("apparmor:", false),
            ("x", false),
            ("smack:x", false),
            ("", false),
        ] {
            let mut findings = Findings::default();
            let flags = RestoreFlags { lsm_profile: Some(text.to_owned()), ..RestoreFlags::default() };
            check_restore(&flags, &mut findings);
            assert_eq!(findings.problems.is_empty(), fine, "{text}");
        }
    }

    #[test]
    fn strict_is_ours_to_look_after() {
        assert_eq!(cgroup_mode_of_restore(None), CgroupMode::Soft);
        assert_eq!(cgroup_mode_of_restore(Some(CgroupMode::Strict)), CgroupMode::Full);
        assert_eq!(cgroup_mode_of_restore(Some(CgroupMode::Ignore)), CgroupMode::Ignore);
    }
}
