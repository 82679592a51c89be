//! What flags of checkpoint and restore mean for the machine, and what CRIU cannot do for them.

use std::path::Path;

use super::message::{CgroupMode, NetworkLock};
use super::plan::RestoreFlags;
use crate::host::Host;
use crate::plan::Findings;
use crate::process::capabilities::SYS_RESOURCE;
use crate::spec::Field;

/// The bytes of the pipe through which CRIU's page server hands memory out (819 pages in 3.15 to 4.1). Where it may not make one, it goes
/// on, and fails at the first page that is not the first of its kind.
const PIPE_OF_PAGES: u64 = 819 << 12;

/// The oldest CRIU that notifies of everything that is waited for: 3.15.
const OLDEST: (i32, i32) = (3, 15);
/// The first CRIU that knows of settings of control groups of version 2 (<https://github.com/checkpoint-restore/criu/pull/1968>).
const SETTINGS_OF_V2: (i32, i32) = (3, 18);

/// What is asked of an installed CRIU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needed {
    /// That the kernel tells which memory has changed (`--pre-dump`, `--parent-path`).
    pub memory_changes: bool,
    /// That memory can come when it is used (`--lazy-pages`).
    pub lazy_pages: bool,
    /// `--network-lock`.
    pub network_lock: Option<NetworkLock>,
    /// `--manage-cgroups-mode`.
    pub cgroup_mode: Option<CgroupMode>,
    /// The container has a control group of version 2.
    pub cgroup_v2: bool,
}

impl Needed {
    /// What this version leaves out, if anything. It says nothing of that by itself: a lock that it does not know is none, or the wrong one.
    ///
    /// # Errors
    /// Which version is needed, and for what.
    pub fn judge(self, (major, minor, patch): (i32, i32, i32)) -> Result<Option<String>, String> {
        let (oldest, what) = match self.network_lock {
            Some(NetworkLock::Skip) => ((3, 19), " for --network-lock skip"),
            Some(NetworkLock::Nftables) => ((3, 16), " for --network-lock nftables"),
            Some(NetworkLock::Iptables) | None => (OLDEST, ""),
        };
        if (major, minor) < oldest {
            return Err(format!("version {major}.{minor}.{patch} is too old{what}; expected {}.{}", oldest.0, oldest.1));
        }
        let of_images = matches!(self.cgroup_mode, Some(CgroupMode::Full | CgroupMode::Strict));
        let left_out = of_images && self.cgroup_v2 && (major, minor) < SETTINGS_OF_V2;
        let text = "has no effect on cgroup version 2: the settings are those of config.json";
        let (first, second) = SETTINGS_OF_V2;
        let needed = format!("CRIU saves them since {first}.{second}, this one is {major}.{minor}.{patch}");
        Ok(left_out.then(|| format!("--manage-cgroups-mode {text} ({needed})")))
    }
}

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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_of_criu() {
        let lock = |network_lock| Needed { network_lock, ..Needed::default() };
        assert_eq!(lock(None).judge((3, 15, 0)), Ok(None));
        assert_eq!(lock(None).judge((3, 14, 2)), Err("version 3.14.2 is too old; expected 3.15".into()));
        let text = "version 3.17.1 is too old for --network-lock skip; expected 3.19";
        assert_eq!(lock(Some(NetworkLock::Skip)).judge((3, 17, 1)), Err(text.into()));
        assert_eq!(lock(Some(NetworkLock::Skip)).judge((4, 0, 0)), Ok(None));
        assert!(lock(Some(NetworkLock::Nftables)).judge((3, 15, 0)).is_err());
        let mode = |mode, cgroup_v2| Needed { cgroup_mode: Some(mode), cgroup_v2, ..Needed::default() };
        let warned = |needed: Needed, version| needed.judge(version).unwrap().is_some();
        assert!(warned(mode(CgroupMode::Full, true), (3, 17, 1)));
        assert!(!warned(mode(CgroupMode::Full, true), (3, 18, 0)));
        assert!(!warned(mode(CgroupMode::Full, false), (3, 17, 1)));
        assert!(!warned(mode(CgroupMode::Soft, true), (3, 17, 1)));
    }

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
