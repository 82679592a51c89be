//! The annotations that change what a container is: one table, from which `features`, the warnings and docs/annotations.md follow.
//!
//! Those of crun are honoured where they mean something here. An annotation of that family that is not is a visible warning, so that nobody
//! believes in a setting that is not there.

use std::path::Path;

use crate::seccomp::{self, Bpf, Filter};
use crate::spec::{Field, Seccomp, StringMap};

use super::Findings;
use super::document::WARNINGS;

/// What happens to an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It takes effect.
    Honoured,
    /// It is shown by `state`, and means nothing to anybody who reads the config.
    Written,
    /// It is left out with a warning that says why; an empty value asks for what is done anyway.
    LeftOut(&'static str),
}

/// The path of a socket that gets init's pidfd.
pub const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
/// The caller's supplementary groups stay.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// A file that gets what hooks write to standard output.
pub const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
/// A file that gets what hooks write to standard error.
pub const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
/// The agent of a seccomp listener, where `linux.seccomp.listenerPath` does not name one.
pub const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";
/// System calls that are not known are refused.
pub const SECCOMP_FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";
/// A filter as the kernel takes it, in base64, in place of `linux.seccomp`.
pub const SECCOMP_BPF: &str = "run.oci.seccomp_bpf_data";
/// The mount option that carries `linux.mountLabel`.
pub const MOUNT_CONTEXT: &str = "run.oci.mount_context_type";

/// A directory below the scope of systemd's, which is the container's control group.
pub const SUBGROUP: &str = "run.oci.systemd.subgroup";
/// A directory below the container's control group, which the program manages.
pub const DELEGATED: &str = "run.oci.delegate-cgroup";

/// The family whose unknown members are worth a warning.
const FAMILY: &str = "run.oci.";

const NO_HANDLER: &str = "programs are executed by the kernel, there is no other handler";

/// Every annotation that is known. A name that ends in a dot stands for all that begin with it.
pub const TABLE: &[(&str, Effect)] = &[
    (WARNINGS, Effect::Written),
    (crate::cgroups::systemd::plan::ANNOTATION, Effect::Honoured),
    (crate::criu::plan::ANNOTATION, Effect::Honoured),
    (PIDFD_RECEIVER, Effect::Honoured),
    (KEEP_GROUPS, Effect::Honoured),
    (HOOKS_STDOUT, Effect::Honoured),
    (HOOKS_STDERR, Effect::Honoured),
    (SECCOMP_RECEIVER, Effect::Honoured),
    (SECCOMP_FAIL_UNKNOWN, Effect::Honoured),
    (SECCOMP_BPF, Effect::Honoured),
    (MOUNT_CONTEXT, Effect::Honoured),
    (SUBGROUP, Effect::Honoured),
    (DELEGATED, Effect::Honoured),
    (
        "run.oci.seccomp.plugins",
        Effect::LeftOut("nothing is loaded into a static program; run.oci.seccomp.receiver names an agent"),
    ),
    ("run.oci.systemd.force_cgroup_v1", Effect::LeftOut("a container sees the versions of control groups that the host has")),
    ("run.oci.handler", Effect::LeftOut(NO_HANDLER)),
    ("module.wasm.image", Effect::LeftOut(NO_HANDLER)),
    ("krun.", Effect::LeftOut(NO_HANDLER)),
];

/// What is known of an annotation.
fn known(key: &str) -> Option<Effect> {
    let is = |name: &str| name == key || (name.ends_with('.') && key.starts_with(name));
    TABLE.iter().find(|(name, _)| is(name)).map(|(_, effect)| *effect)
}

/// The annotations through which a config, or whoever may add annotations to one, reaches beyond what it otherwise says.
pub fn honoured() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|(_, effect)| *effect == Effect::Honoured).map(|(name, _)| *name)
}

/// The config path of an annotation.
pub fn field(key: &str) -> Field {
    Field::new("annotations").entry(key)
}

/// config.md, "Annotations": keys are not empty. What is not honoured is said.
pub fn check(annotations: &StringMap, findings: &mut Findings) {
    for (key, value) in annotations {
        let field = field(key);
        if key.is_empty() {
            findings.problem(field, "expected a key that is not empty");
            continue;
        }
        match known(key) {
            Some(Effect::Written) => findings.warning(field, "replaced: this runtime keeps its warnings there"),
            Some(Effect::LeftOut(why)) if !value.is_empty() => findings.warning(field, format!("left out: {why}")),
            Some(Effect::LeftOut(_) | Effect::Honoured) => {}
            None if key.starts_with(FAMILY) => findings.warning(field, "left out: not known to this runtime"),
            None => {}
        }
    }
    for key in [HOOKS_STDOUT, HOOKS_STDERR, SECCOMP_RECEIVER] {
        if let Some(path) = set(annotations, key).filter(|path| !path.starts_with('/') || path.contains('\0')) {
            findings.problem(field(key), format!("{path:?}: expected an absolute path"));
        }
    }
    for key in [SUBGROUP, DELEGATED] {
        if let Some(name) = set(annotations, key).filter(|name| !is_directory_name(name)) {
            findings.problem(field(key), format!("{name:?}: expected the name of a directory"));
        }
    }
    mount_context(annotations, findings);
}

/// One component of a path. The kernel refuses names with a line feed (`cgroup_mkdir` in kernel/cgroup/cgroup.c).
fn is_directory_name(name: &str) -> bool {
    !matches!(name, "." | "..") && name.len() <= 255 && !name.contains(['/', '\0', '\n'])
}

/// The directories below those that the config names or the driver makes: of the scope, of the container.
pub fn cgroups(annotations: &StringMap) -> [Option<&str>; 2] {
    [SUBGROUP, DELEGATED].map(|key| set(annotations, key).filter(|name| is_directory_name(name)))
}

/// The value of an annotation, unless it is empty.
fn set<'a>(annotations: &'a StringMap, key: &str) -> Option<&'a str> {
    annotations.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// True if the supplementary groups of the caller stay, whatever the config lists: the annotation is there, its value says nothing.
pub fn keeps_groups(annotations: &StringMap) -> bool {
    annotations.contains_key(KEEP_GROUPS)
}

/// Where the output of hooks goes: standard output, standard error.
pub fn hook_output(annotations: &StringMap) -> [Option<(&'static str, &Path)>; 2] {
    [HOOKS_STDOUT, HOOKS_STDERR].map(|key| set(annotations, key).map(|path| (key, Path::new(path))))
}

/// The mount options that carry a label (mount(8)).
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// The mount option for `linux.mountLabel`.
pub fn mount_context(annotations: &StringMap, findings: &mut Findings) -> &'static str {
    let Some(word) = set(annotations, MOUNT_CONTEXT) else { return CONTEXTS[0] };
    CONTEXTS.into_iter().find(|known| *known == word).unwrap_or_else(|| {
        let text = format!("{word:?}: expected context, fscontext, defcontext or rootcontext");
        let field = field(MOUNT_CONTEXT);
        if findings.problems.iter().all(|problem| problem.field != field) {
            findings.problem(field, text);
        }
        CONTEXTS[0]
    })
}

/// Who says where the agent of a seccomp listener is.
pub fn receiver_field(annotations: &StringMap, path: &str) -> Field {
    match set(annotations, SECCOMP_RECEIVER) {
        Some(receiver) if receiver == path => field(SECCOMP_RECEIVER),
        _ => Field::new("linux.seccomp.listenerPath"),
    }
}

/// The filter: that of `linux.seccomp` with what annotations add to it, or that of the annotation.
pub fn filter(annotations: &StringMap, config: Option<&Seccomp>, findings: &mut Findings) -> Option<Filter> {
    let seccomp = Field::new("linux.seccomp");
    if let Some(text) = set(annotations, SECCOMP_BPF) {
        if config.is_some() {
            findings.warning(seccomp, format!("left out: annotations[{SECCOMP_BPF:?}] has the filter"));
        }
        return ready_made(text, findings);
    }
    for key in [SECCOMP_RECEIVER, SECCOMP_FAIL_UNKNOWN].iter().filter(|key| config.is_none() && annotations.contains_key(**key)) {
        findings.warning(field(key), "left out: there is no linux.seccomp");
    }
    let config = config?;
    let with_receiver = with_receiver(annotations, config, findings);
    let filter = seccomp::plan(with_receiver.as_ref().unwrap_or(config), &seccomp, findings)?;
    if annotations.contains_key(SECCOMP_FAIL_UNKNOWN) && !filter.unknown.is_empty() {
        let text =
            format!("unknown system calls: {}; expected none (annotations[{SECCOMP_FAIL_UNKNOWN:?}])", filter.unknown.join(", "));
        findings.problem(seccomp.key("syscalls"), text);
    }
    Some(filter)
}

/// The config with the agent that the annotation names, if it has none of its own.
fn with_receiver(annotations: &StringMap, config: &Seccomp, findings: &mut Findings) -> Option<Seccomp> {
    let path = set(annotations, SECCOMP_RECEIVER)?;
    if !config.syscalls.iter().any(|rule| rule.action == seccomp::plan::NOTIFY) {
        findings.warning(field(SECCOMP_RECEIVER), "left out: no rule has the action SCMP_ACT_NOTIFY");
        return None;
    }
    match config.listener_path.as_deref() {
        None | Some("") => Some(Seccomp { listener_path: Some(path.to_owned()), ..config.clone() }),
        Some(own) if own == path => None,
        Some(_) => {
            findings.warning(field(SECCOMP_RECEIVER), "left out: linux.seccomp.listenerPath names an agent");
            None
        }
    }
}

/// The kernel's BPF_MAXINSNS (bpf_common.h).
const MAX_INSTRUCTIONS: usize = 4096;

fn ready_made(text: &str, findings: &mut Findings) -> Option<Filter> {
    let program = base64(text).and_then(Bpf::from_bytes).filter(|program| (1..=MAX_INSTRUCTIONS).contains(&program.len()));
    if program.is_none() {
        let text = format!("expected base64 of 1 to {MAX_INSTRUCTIONS} instructions of 8 bytes (struct sock_filter)");
        findings.problem(field(SECCOMP_BPF), text);
    }
    Some(Filter { program: program?, flags: libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, listener: None, unknown: Vec::new() })
}

/// RFC 4648, section 4. Line ends between the characters and missing padding are taken.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .trim_end()
        .trim_end_matches('=')
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(digit)
        .collect::<Option<_>>()?;
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        let whole = [0, 0, 1, 2, 3][group.len()];
        if whole == 0 {
            return None;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> StringMap {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn checked(entries: &[(&str, &str)]) -> Findings {
        let mut findings = Findings::default();
        check(&map(entries), &mut findings);
        findings
    }

    #[test]
    fn base64_of_the_standard() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==\n", "foob"), ("Zm9\nvYmE", "fooba")]
        {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes(), "{text:?}");
        }
        assert_eq!(base64("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        for text in ["Z", "Zm9vY", "Zm9-", "=Zm9v", "ä"] {
            assert_eq!(base64(text), None, "{text:?}");
        }
    }

    #[test]
    fn whatever_is_not_honoured_is_said() {
        for (name, effect) in TABLE {
            let name = if name.ends_with('.') { format!("{name}Any") } else { (*name).to_owned() };
            let warned = checked(&[(&name, "/x")]).warnings.len();
            assert_eq!(warned, usize::from(*effect != Effect::Honoured), "{name}");
        }
        for name in ["run.oci.newer", "run.oci.", "run.oci.Pidfd_receiver"] {
            let findings = checked(&[(name, "")]);
            assert!(findings.warnings[0].to_string().contains("not known"), "{findings:?}");
        }
        assert_eq!(checked(&[("run.oci.systemd.subgroup", ""), ("org.example", "x"), ("run.ocix", "x")]), Findings::default());
    }

    #[test]
    fn values_are_checked() {
        for (name, value) in [(HOOKS_STDOUT, "relative"), (SECCOMP_RECEIVER, "a\0b"), (MOUNT_CONTEXT, "seclabel")] {
            let findings = checked(&[(name, value)]);
            assert_eq!(findings.problems.len(), 1, "{name}: {findings:?}");
            assert!(findings.problems[0].to_string().contains(name), "{findings:?}");
        }
        for text in ["AAAA", "not base64", "Zm9vYmFyMQ"] {
            let mut findings = Findings::default();
            assert_eq!(filter(&map(&[(SECCOMP_BPF, text)]), None, &mut findings), None, "{text}");
            assert_eq!(findings.problems.len(), 1, "{text}");
        }
    }

    #[test]
    fn a_filter_that_is_ready_replaces_the_profile() {
        let mut findings = Findings::default();
        let profile: Seccomp = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#).unwrap();
        let filter = filter(&map(&[(SECCOMP_BPF, "BgAAAAAA/38=")]), Some(&profile), &mut findings).unwrap();
        assert_eq!(filter.program.as_bytes(), [6, 0, 0, 0, 0, 0, 0xff, 0x7f]);
        assert!(findings.warnings[0].to_string().starts_with("linux.seccomp: left out"), "{findings:?}");
    }
}
