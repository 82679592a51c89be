//! [`Host`]: every fact about the machine and the caller that planning may use.
//!
//! Probed once per command, and only what the config asks about; in tests it is a fixture.

pub mod delegation;
pub mod probe;
pub mod subordinate;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cgroups;
use crate::error::Failure;
use crate::spec::{Process, Spec};
use crate::sys::{cred, fs};

/// What planning may know about the machine and the caller.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Effective user id of the caller.
    pub uid: u32,
    /// Effective group id of the caller.
    pub gid: u32,
    /// Effective capabilities of the caller, as a bit mask.
    pub effective: u64,
    /// Permitted capabilities of the caller, as a bit mask: what it can hand on without a user namespace.
    pub permitted: u64,
    /// False inside a user namespace, where device nodes cannot be made.
    pub initial_user_namespace: bool,
    /// The caller's user namespace was made without privilege: nobody in it, and in those below, may set groups.
    pub setgroups_denied: bool,
    /// The control group hierarchies.
    pub cgroups: cgroups::Facts,
    /// Control groups that cannot be changed are an error; otherwise a warning.
    pub cgroups_required: bool,
    /// AppArmor is active.
    pub apparmor: bool,
    /// SELinux is active.
    pub selinux: bool,
    /// Where resctrl is mounted.
    pub resctrl: Option<PathBuf>,
    /// What the caller may map, where it is asked for.
    pub subordinate: Option<subordinate::Subordinate>,
}

/// The inode number of the initial user namespace (PROC_USER_INIT_INO).
const INITIAL_USER_NAMESPACE: u64 = 0xeffffffd;

impl Host {
    /// Looks at the machine. `systemd`: it shall manage the container's control group. `required`: whether there have to be control groups,
    /// where the caller knows better than the facts.
    ///
    /// # Errors
    /// If a fact cannot be read that every container needs.
    pub fn probe(spec: &Spec, id: &str, systemd: bool, required: Option<bool>) -> Result<Self, Failure> {
        let caller = Self::probe_caller()?;
        let required = required.unwrap_or(caller.cgroups_required);
        let path = spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref()).filter(|path| !path.is_empty());
        let process = spec.process.as_ref();
        let labels_mounts = spec.linux.as_ref().is_some_and(|linux| linux.mount_label.is_some());
        let wants_resctrl = spec.linux.as_ref().is_some_and(|linux| linux.intel_rdt.is_some());
        let resctrl = if wants_resctrl { resctrl_mount() } else { None };
        let mut cgroups = if systemd { cgroups::probe_systemd(id, required)? } else { cgroups::probe(id, path, required)? };
        let has_user = spec.linux.iter().flat_map(|linux| &linux.namespaces).any(|namespace| namespace.r#type == "user");
        let subordinate = (!has_user && !caller.privileged()).then(|| subordinate::Subordinate::probe(caller.uid));
        // Who may do everything lacks no permission.
        cgroups.delegation = (!required).then(|| delegation::Delegation::probe(&cgroups, caller.uid));
        Ok(Self { cgroups, resctrl, subordinate, cgroups_required: required, ..caller }.with_lsm(process, labels_mounts))
    }

    /// Looks for the security modules that a process asks for.
    #[must_use]
    pub fn with_lsm(self, process: Option<&Process>, labels_mounts: bool) -> Self {
        let wants_apparmor = process.is_some_and(|process| process.apparmor_profile.is_some());
        let wants_selinux = labels_mounts || process.is_some_and(|process| process.selinux_label.is_some());
        Self {
            apparmor: wants_apparmor && apparmor_enabled(),
            selinux: wants_selinux && Path::new("/sys/fs/selinux/enforce").exists(),
            ..self
        }
    }

    /// Looks where resctrl is mounted.
    #[must_use]
    pub fn with_resctrl(self) -> Self {
        Self { resctrl: resctrl_mount(), ..self }
    }

    /// Looks at the caller only: what a process in a running container depends on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn probe_caller() -> Result<Self, Failure> {
        let caps = cred::capget()?;
        let namespace = fs::fstatat(crate::sys::At::Cwd, Path::new("/proc/self/ns/user"), 0);
        let initial_user_namespace = namespace.is_ok_and(|stat| stat.ino == INITIAL_USER_NAMESPACE);
        Ok(Self {
            uid: cred::geteuid(),
            gid: cred::getegid(),
            effective: caps.effective,
            permitted: caps.permitted,
            initial_user_namespace,
            setgroups_denied: !initial_user_namespace && setgroups_denied(),
            cgroups: cgroups::Facts::default(),
            cgroups_required: initial_user_namespace && caps.effective >> crate::process::capabilities::SYS_ADMIN & 1 == 1,
            apparmor: false,
            selinux: false,
            resctrl: None,
            subordinate: None,
        })
    }

    /// True if the caller has this capability (its number) in effect.
    pub fn can(&self, capability: u32) -> bool {
        self.effective & (1 << capability) != 0
    }

    /// True if the caller may mount and make namespaces without a new user namespace (CAP_SYS_ADMIN).
    pub fn privileged(&self) -> bool {
        self.can(crate::process::capabilities::SYS_ADMIN)
    }

    /// A host for tests: root with all capabilities on pure cgroup v2.
    pub fn fixture() -> Self {
        Self {
            uid: 0,
            gid: 0,
            effective: u64::MAX >> 23,
            permitted: u64::MAX >> 23,
            initial_user_namespace: true,
            setgroups_denied: false,
            cgroups: cgroups::Facts::unified_fixture(&["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"]),
            cgroups_required: true,
            apparmor: false,
            selinux: false,
            resctrl: None,
            subordinate: None,
        }
    }

    /// A host for tests: an ordinary user, uid and gid 1000.
    pub fn fixture_rootless() -> Self {
        let mut cgroups = Self::fixture().cgroups;
        if let Some(unified) = &mut cgroups.v2 {
            unified.writable = false;
        }
        Self { uid: 1000, gid: 1000, effective: 0, permitted: 0, cgroups, cgroups_required: false, ..Self::fixture() }
    }
}

/// user_namespaces(7), "The /proc/pid/setgroups file".
fn setgroups_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|content| content.starts_with(b"deny"))
}

/// The kernel's own word (aa_is_enabled(2)).
fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|content| content.starts_with(b"Y"))
}

/// The usual place of resctrl, or wherever else it is mounted (proc_pid_mountinfo(5)).
fn resctrl_mount() -> Option<PathBuf> {
    let usual = Path::new("/sys/fs/resctrl");
    let at_usual = fs::openat(crate::sys::At::Cwd, usual, libc::O_PATH, 0).and_then(|fd| fs::fstatfs(&fd));
    if at_usual.is_ok_and(|stat| stat.magic == libc::RDTGROUP_SUPER_MAGIC) {
        return Some(usual.to_owned());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find(|line| line.contains(" - resctrl ")).and_then(|line| line.split(' ').nth(4)).map(PathBuf::from)
}
