//! What a user needs to have limits: a control group of their own, with its controllers (cgroups(7), "Cgroup delegation"; the kernel's
//! Documentation/admin-guide/cgroup-v2.rst, "Delegation"). All facts about it are here, with the step that is missing and the
//! command that repairs it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroups::Facts;

/// A directory above the caller's processes, and what it hands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// The directory.
    pub path: PathBuf,
    /// The controllers that it makes available below (`cgroup.subtree_control`).
    pub hands_on: Vec<String>,
}

/// How far control groups were delegated to the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The caller.
    pub uid: u32,
    /// The process that has called: a shell, most likely.
    pub parent: u32,
    /// systemd is pid 1.
    pub systemd: bool,
    /// The caller's own systemd can be reached.
    pub user_manager: bool,
    /// The controllers of version 1 hierarchies.
    pub version_1: Vec<String>,
    /// The controllers that version 2 has on this machine.
    pub version_2: Vec<String>,
    /// The caller's own directory in version 2.
    pub own: Option<PathBuf>,
    /// The caller may make directories there.
    pub writable: bool,
    /// From the mount point down to the own directory.
    pub levels: Vec<Level>,
}

/// What is missing for a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The step that was not taken.
    pub step: String,
    /// The command that takes it, and who has to give it; empty if nothing helps.
    pub repair: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.repair.is_empty() { f.write_str(&self.step) } else { write!(f, "{}; {}", self.step, self.repair) }
    }
}

fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

impl Delegation {
    /// Looks at the machine.
    pub fn probe(facts: &Facts, uid: u32) -> Self {
        let version_1 = facts.v1.iter().flat_map(|hierarchy| hierarchy.controllers.iter().cloned());
        let mut found = Self {
            uid,
            parent: std::os::unix::process::parent_id(),
            systemd: Path::new("/run/systemd/system").exists(),
            user_manager: runtime_directory(uid).join("systemd/private").exists(),
            version_1: version_1.filter(|name| !name.starts_with("name=")).collect(),
            ..Self::default()
        };
        if let Some(unified) = &facts.v2 {
            let own = unified.mount.join(unified.own.strip_prefix("/").unwrap_or(&unified.own));
            found.version_2 = words(&unified.mount.join("cgroup.controllers"));
            found.writable = unified.writable;
            let mut levels: Vec<&Path> = own.ancestors().take_while(|path| path.starts_with(&unified.mount)).collect();
            levels.reverse();
            let level = |path: &Path| Level { path: path.to_path_buf(), hands_on: words(&path.join("cgroup.subtree_control")) };
            found.levels = levels.into_iter().map(level).collect();
            found.own = Some(own);
        }
        found
    }

    /// What is missing for limits by this controller of version 2 (`cgroup`: a directory, without any).
    pub fn missing(&self, controller: &str) -> Missing {
        let missing = |step: String, repair: String| Missing { step, repair };
        if self.own.is_none() || self.is_on_version_1(controller) {
            if self.version_1.is_empty() {
                return missing("cgroup2 is not mounted".into(), "as root: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`".into());
            }
            return missing(
                "the controller is in cgroup version 1, which is never given to a user".into(),
                "boot with the kernel parameter `systemd.unified_cgroup_hierarchy=1`".into(),
            );
        }
        if controller != "cgroup" && !self.version_2.iter().any(|name| name == controller) {
            return missing("this kernel has no such controller, or has it disabled (cgroup_disable=)".into(), String::new());
        }
        if !self.writable {
            return self.without_directory();
        }
        self.without_controller(controller)
    }

    fn is_on_version_1(&self, controller: &str) -> bool {
        let other = if controller == "io" { "blkio" } else { controller };
        self.version_1.iter().any(|name| name == other)
    }

    fn without_directory(&self) -> Missing {
        let uid = self.uid;
        let (step, repair) = match (self.user_manager, self.systemd) {
            (true, _) => (
                "the cgroup of this process was not delegated".to_owned(),
                "have the user's systemd make one for the container: `rt --systemd-cgroup ...`".to_owned(),
            ),
            (false, true) => (
                "this user has no systemd of their own".to_owned(),
                format!("as root: `loginctl enable-linger {uid}`; then log in anew (not by su or sudo)"),
            ),
            (false, false) => {
                let mount = self.levels.first().map_or(Path::new("/sys/fs/cgroup"), |level| &level.path).display();
                let parent = self.parent;
                (
                    "no cgroup was given to this user".to_owned(),
                    format!(
                        "as root: `d={mount}/rt-{uid}; mkdir -p $d/rest; for c in cpu cpuset io memory pids; \
                         do echo +$c > {mount}/cgroup.subtree_control; done; \
                         chown {uid} $d $d/cgroup.procs $d/cgroup.subtree_control $d/cgroup.threads; echo {parent} > $d/rest/cgroup.procs`"
                    ),
                )
            }
        };
        Missing { step, repair }
    }

    fn without_controller(&self, controller: &str) -> Missing {
        let keeps = self.levels.iter().find(|level| !level.hands_on.iter().any(|name| name == controller));
        let keeper = keeps.map_or_else(|| Path::new("/sys/fs/cgroup").to_path_buf(), |level| level.path.clone());
        let step = format!("{} does not hand the controller on", keeper.display());
        if !self.systemd {
            return Missing {
                step,
                repair: format!("as root: `echo +{controller} > {}`", keeper.join("cgroup.subtree_control").display()),
            };
        }
        let file = "/etc/systemd/system/user@.service.d/delegate.conf";
        let repair = format!(
            "as root: `mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' > \
             {file} && systemctl daemon-reload`; then log in anew"
        );
        Missing { step, repair }
    }
}

/// `$XDG_RUNTIME_DIR`, or where systemd has it.
fn runtime_directory(uid: u32) -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn session() -> Delegation {
        let level = |path: &str, hands_on: &[&str]| Level { path: path.into(), hands_on: names(hands_on) };
        Delegation {
            uid: 1000,
            parent: 77,
            systemd: true,
            user_manager: true,
            version_1: Vec::new(),
            version_2: names(&["cpu", "io", "memory", "pids"]),
            own: Some("/c/user.slice/own".into()),
            writable: true,
            levels: vec![
                level("/c", &["cpu", "memory", "pids"]),
                level("/c/user.slice", &["memory", "pids"]),
                level("/c/user.slice/own", &[]),
            ],
        }
    }

    #[test]
    fn each_step_has_its_repair() {
        let without_systemd = Delegation { systemd: false, user_manager: false, ..session() };
        let hybrid = Delegation { version_1: names(&["memory", "blkio"]), ..session() };
        let table = [
            (session(), "cpu", "/c/user.slice does not hand the controller on", "delegate.conf"),
            (without_systemd.clone(), "cpu", "/c/user.slice does not", "`echo +cpu > /c/user.slice/cgroup.subtree_control`"),
            (without_systemd.clone(), "io", "/c does not", "`echo +io > /c/cgroup.subtree_control`"),
            (session(), "rdma", "this kernel has no such controller", ""),
            (hybrid.clone(), "memory", "version 1", "systemd.unified_cgroup_hierarchy=1"),
            (hybrid, "io", "version 1", "systemd.unified_cgroup_hierarchy=1"),
            (Delegation { writable: false, ..session() }, "memory", "was not delegated", "`rt --systemd-cgroup ...`"),
            (
                Delegation { writable: false, user_manager: false, ..session() },
                "memory",
                "no systemd of their own",
                "loginctl enable-linger 1000",
            ),
            (
                Delegation { writable: false, ..without_systemd },
                "cgroup",
                "no cgroup was given",
                "`d=/c/rt-1000; mkdir -p $d/rest;",
            ),
            (Delegation { own: None, ..session() }, "memory", "cgroup2 is not mounted", "mount -t cgroup2"),
        ];
        for (delegation, controller, step, repair) in table {
            let missing = delegation.missing(controller);
            assert!(missing.step.contains(step) && missing.repair.contains(repair), "{controller}: {missing}");
        }
    }
}
