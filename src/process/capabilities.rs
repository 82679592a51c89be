//! Capabilities (capabilities(7)): names, the five sets of the config, and applying them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure};
use crate::plan::Findings;
use crate::spec::{self, Field};
use crate::sys::cred::{self, CapSets};

/// CAP_SETGID.
pub const SETGID: u32 = 6;
/// CAP_SETUID.
pub const SETUID: u32 = 7;
/// CAP_SYS_PTRACE.
pub const SYS_PTRACE: u32 = 19;
/// CAP_SYS_ADMIN.
pub const SYS_ADMIN: u32 = 21;
/// CAP_SYS_RESOURCE.
pub const SYS_RESOURCE: u32 = 24;
/// CAP_CHECKPOINT_RESTORE.
pub const CHECKPOINT_RESTORE: u32 = 40;
/// CAP_MKNOD.
pub const MKNOD: u32 = 27;

/// Every capability, at the index of its number (linux/capability.h).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The number of a capability.
pub fn number(name: &str) -> Option<u32> {
    NAMES.iter().position(|known| *known == name).and_then(|index| u32::try_from(index).ok())
}

/// All capabilities that this table knows.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The five sets, as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// What no program in the container can exceed.
    pub bounding: u64,
    /// In effect.
    pub effective: u64,
    /// What the process may take into effect.
    pub permitted: u64,
    /// Kept across execve(2) together with the file's sets.
    pub inheritable: u64,
    /// Kept across execve(2) of ordinary files.
    pub ambient: u64,
}

/// A mask as names.
struct List(u64);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

impl fmt::Display for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bounding {}", List(self.bounding))?;
        let same = |set: u64| set == self.bounding;
        for (name, set) in [("effective", self.effective), ("permitted", self.permitted)] {
            if same(set) { write!(f, "; {name} the same")? } else { write!(f, "; {name} {}", List(set))? }
        }
        for (name, set) in [("inheritable", self.inheritable), ("ambient", self.ambient)] {
            if set != 0 {
                write!(f, "; {name} {}", List(set))?;
            }
        }
        Ok(())
    }
}

/// Reads the five sets. What is unknown or cannot be granted is a warning and left out (config.md, "Linux Process").
pub fn plan(config: &spec::Capabilities, grantable: u64, field: &Field, findings: &mut Findings) -> Sets {
    let mut missing = 0;
    let mut mask = |name: &str, list: &[String]| {
        let mut mask = 0;
        for (index, entry) in list.iter().enumerate() {
            match number(entry) {
                Some(number) => mask |= 1 << number,
                None => findings.warning(field.key(name).index(index), format!("unknown capability {entry:?} is left out")),
            }
        }
        missing |= mask & !grantable;
        mask & grantable
    };
    let sets = Sets {
        bounding: mask("bounding", &config.bounding),
        effective: mask("effective", &config.effective),
        permitted: mask("permitted", &config.permitted),
        inheritable: mask("inheritable", &config.inheritable),
        ambient: mask("ambient", &config.ambient),
    };
    if missing != 0 {
        findings.warning(field.clone(), format!("{} cannot be granted by this caller and is left out", List(missing)));
    }
    let raisable = sets.permitted & sets.inheritable;
    if sets.ambient & !raisable != 0 {
        let lost = List(sets.ambient & !raisable);
        findings.warning(field.key("ambient"), format!("{lost} is neither permitted nor inheritable and cannot be ambient"));
    }
    let effective = sets.effective & sets.permitted;
    if sets.effective != effective {
        findings.warning(
            field.key("effective"),
            format!("{} is not permitted and cannot be in effect", List(sets.effective & !effective)),
        );
    }
    Sets { ambient: sets.ambient & raisable, effective, ..sets }
}

/// Drops everything from the bounding set that is not in the mask; needs CAP_SETPCAP.
///
/// # Errors
/// The kernel's.
pub fn limit_bounding(keep: u64) -> Result<(), Failure> {
    // Up to the last capability of the running kernel, which may know more than our table.
    for capability in (0..64).filter(|capability| keep >> capability & 1 == 0) {
        match cred::drop_from_bounding_set(capability) {
            Err(error) if error.is(libc::EINVAL) => break,
            other => other.doing(|| "limit the bounding set")?,
        }
    }
    Ok(())
}

/// Sets permitted, effective, inheritable and ambient. `extra` stays permitted and in effect until execve(2), which computes these
/// sets anew from bounding, inheritable and ambient alone: what seccomp(2) needs without no_new_privs.
///
/// # Errors
/// The kernel's.
pub fn apply(sets: Sets, extra: u64) -> Result<(), Failure> {
    // A caller that lacks the extra one gets on without it: the filter then decides.
    let extra = extra & cred::capget()?.permitted;
    cred::capset(CapSets {
        effective: sets.effective | extra,
        permitted: sets.permitted | extra,
        inheritable: sets.inheritable,
    })?;
    cred::clear_ambient()?;
    for capability in (0..64).filter(|capability| sets.ambient >> capability & 1 == 1) {
        cred::raise_ambient(capability)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernel_s() {
        assert_eq!(number("CAP_CHOWN"), Some(0));
        assert_eq!(number("CAP_SYS_ADMIN"), Some(SYS_ADMIN));
        assert_eq!(number("CAP_MKNOD"), Some(MKNOD));
        assert_eq!(number("CAP_SYS_RESOURCE"), Some(SYS_RESOURCE));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(CHECKPOINT_RESTORE));
        assert_eq!(number("CHOWN"), None);
    }

    #[test]
    fn unknown_and_ungrantable_are_warnings() {
        let config =
            spec::Capabilities { bounding: vec!["CAP_CHOWN".into(), "CAP_X".into(), "CAP_KILL".into()], ..Default::default() };
        let mut findings = Findings::default();
        let sets = plan(&config, 1, &Field::new("process.capabilities"), &mut findings);
        assert_eq!(sets.bounding, 1);
        assert!(findings.problems.is_empty());
        assert_eq!(findings.warnings.len(), 2);
    }
}
