//! From `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel` to steps.

use crate::host::Host;
use crate::plan::{Findings, Planned};
use crate::spec::{Field, Process};

use super::LsmStep;

/// The attributes of a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LsmPlan {
    /// Before the session keyring is made.
    pub before_keyring: Vec<Planned<LsmStep>>,
    /// Right before the program, and before a seccomp filter that may forbid it.
    pub last: Vec<Planned<LsmStep>>,
}

/// Plans the attributes of a process.
pub fn plan(process: &Process, host: &Host, findings: &mut Findings) -> LsmPlan {
    let mut plan = LsmPlan::default();
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(profile) = set(&process.apparmor_profile) {
        let field = Field::new("process.apparmorProfile");
        check(&profile, host.apparmor, "AppArmor", &field, findings);
        plan.last.push(Planned::new(LsmStep::AppArmorProfile(profile), field));
    }
    if let Some(label) = set(&process.selinux_label) {
        let field = Field::new("process.selinuxLabel");
        check(&label, host.selinux, "SELinux", &field, findings);
        plan.before_keyring.push(Planned::new(LsmStep::KeyLabel(label.clone()), field.clone()));
        plan.last.push(Planned::new(LsmStep::ExecLabel(label), field));
    }
    plan
}

fn check(text: &str, active: bool, module: &str, field: &Field, findings: &mut Findings) {
    if !active {
        findings.problem(field.clone(), format!("{text:?}, but {module} is not active on this host"));
    }
    if text.contains(['\0', '\n']) {
        findings.problem(field.clone(), format!("{text:?}: expected one line"));
    }
}

/// The label of the files of a container, if there can be labels here: elsewhere it means nothing, and filesystems do not know the
/// option.
pub fn mount_label<'a>(label: Option<&'a str>, host: &Host, findings: &mut Findings) -> Option<&'a str> {
    let label = label.filter(|label| !label.is_empty())?;
    if !host.selinux {
        findings.warning(Field::new("linux.mountLabel"), "left out: SELinux is not active on this host");
        return None;
    }
    Some(label)
}

/// True for filesystems whose files get the label of the mount: those of the kernel's own state have labels of their own.
pub fn takes_label(fstype: &str) -> bool {
    let own =
        matches!(fstype, "proc" | "sysfs" | "cgroup" | "cgroup2" | "securityfs" | "debugfs" | "tracefs" | "bpf" | "selinuxfs");
    !own && !has_its_root_labelled(fstype)
}

/// True for the message queues: the filesystem of an ipc namespace is made with the namespace, and mounting it with a label, which it
/// has not got, is refused (`EINVAL`). Its root can be labelled afterwards, and queues get a label from that.
pub fn has_its_root_labelled(fstype: &str) -> bool {
    fstype == "mqueue"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(apparmor: Option<&str>, selinux: Option<&str>) -> Process {
        Process { apparmor_profile: apparmor.map(str::to_owned), selinux_label: selinux.map(str::to_owned), ..Process::default() }
    }

    #[test]
    fn without_the_module_it_is_a_problem() {
        let mut findings = Findings::default();
        let _ = plan(&process(Some("strict"), Some("u:r:t:s0")), &Host::fixture(), &mut findings);
        let texts: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "process.apparmorProfile: \"strict\", but AppArmor is not active on this host",
                "process.selinuxLabel: \"u:r:t:s0\", but SELinux is not active on this host"
            ]
        );
    }

    #[test]
    fn with_the_module_it_comes_last_and_keys_come_first() {
        let host = Host { apparmor: true, selinux: true, ..Host::fixture() };
        let mut findings = Findings::default();
        let plan = plan(&process(Some("strict"), Some("u:r:t:s0")), &host, &mut findings);
        assert_eq!(findings, Findings::default());
        assert_eq!(plan.before_keyring[0].step, LsmStep::KeyLabel("u:r:t:s0".to_owned()));
        let last: Vec<&LsmStep> = plan.last.iter().map(|planned| &planned.step).collect();
        assert_eq!(last, [&LsmStep::AppArmorProfile("strict".to_owned()), &LsmStep::ExecLabel("u:r:t:s0".to_owned())]);
    }

    #[test]
    fn empty_words_ask_for_nothing() {
        let mut findings = Findings::default();
        assert_eq!(plan(&process(Some(""), Some("")), &Host::fixture(), &mut findings), LsmPlan::default());
        assert_eq!(mount_label(Some(""), &Host::fixture(), &mut findings), None);
        assert_eq!(findings, Findings::default());
    }

    #[test]
    fn a_mount_label_means_something_with_selinux_only() {
        let mut findings = Findings::default();
        assert_eq!(mount_label(Some("u:o:t:s0"), &Host::fixture(), &mut findings), None);
        assert_eq!(findings.warnings.len(), 1);
        let host = Host { selinux: true, ..Host::fixture() };
        assert_eq!(mount_label(Some("u:o:t:s0"), &host, &mut findings), Some("u:o:t:s0"));
    }
}
