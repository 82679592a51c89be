//! The stable codes of findings: an area, which follows from the config path, and what was found out about it.

use super::Severity;

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The config contradicts the specification, itself, or this caller's rights.
    Invalid,
    /// The kernel or a helper refuses it on this host.
    Refused,
    /// It has no effect here, or another one.
    Ignored,
    /// It may fail, or fail later.
    Doubtful,
    /// It was not tried.
    Untried,
    /// It is passed over without a word otherwise.
    Note,
}

/// Each kind, the word for it, its severity, and what it means.
pub const KINDS: [(Kind, &str, Severity, &str); 6] = [
    (
        Kind::Invalid,
        "invalid",
        Severity::Fatal,
        "contradicts the specification, itself, or the rights of this caller; nothing is tried then",
    ),
    (Kind::Refused, "refused", Severity::Fatal, "this host refuses it: create or start fail with the same text"),
    (Kind::Ignored, "ignored", Severity::Warning, "has no effect on this host, or another one; an error with `--strict`"),
    (Kind::Doubtful, "doubtful", Severity::Warning, "may fail, or will at a later moment than create and start"),
    (Kind::Untried, "untried", Severity::Note, "could not be tried without an effect, so that nothing is known about it"),
    (Kind::Note, "note", Severity::Note, "is passed over as the specification wants it"),
];

/// config.json cannot be read or parsed.
pub const UNREADABLE: &str = "config-unreadable";
/// What init has to say on its way.
pub const WARNED: &str = "host-warning";

/// The codes that are not made of an area and a kind.
pub const SINGLE: [(&str, Severity, &str); 2] = [
    (UNREADABLE, Severity::Fatal, "config.json is missing, is no regular file, is no JSON, or has a value of a wrong type"),
    (WARNED, Severity::Warning, "something will not be on this host as it is asked for; the text says what"),
];

/// The area of a config path: the first beginning that fits.
pub const AREAS: [(&str, &str); 38] = [
    ("ociVersion", "version"),
    ("root", "root"),
    ("linux.rootfsPropagation", "root"),
    ("process.args", "program"),
    ("process.env", "environment"),
    ("process.cwd", "cwd"),
    ("process.user", "user"),
    ("process.capabilities", "capabilities"),
    ("process.rlimits", "rlimits"),
    ("process.terminal", "terminal"),
    ("process.consoleSize", "terminal"),
    ("process.scheduler", "scheduling"),
    ("process.ioPriority", "scheduling"),
    ("process.oomScoreAdj", "scheduling"),
    ("process.execCPUAffinity", "scheduling"),
    ("process.apparmorProfile", "security-module"),
    ("process.selinuxLabel", "security-module"),
    ("linux.mountLabel", "security-module"),
    ("process", "process"),
    ("hostname", "names"),
    ("domainname", "names"),
    ("mounts", "mounts"),
    ("hooks", "hooks"),
    ("linux.namespaces", "namespaces"),
    ("linux.uidMappings", "id-maps"),
    ("linux.gidMappings", "id-maps"),
    ("linux.timeOffsets", "time"),
    ("linux.devices", "devices"),
    ("linux.netDevices", "net-devices"),
    ("linux.cgroupsPath", "cgroups"),
    ("linux.resources", "cgroups"),
    ("cgroup path", "cgroups"),
    ("linux.sysctl", "sysctl"),
    ("linux.seccomp", "seccomp"),
    ("linux.maskedPaths", "paths"),
    ("linux.readonlyPaths", "paths"),
    ("linux.memoryPolicy", "memory-policy"),
    ("linux.intelRdt", "resctrl"),
];

/// The area of what the table does not know.
pub const OTHER: &str = "other";

/// The code of a finding.
pub fn code(path: &str, kind: Kind) -> String {
    let fits = |start: &str| path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let area = AREAS.iter().find(|(start, _)| fits(start)).map_or(OTHER, |(_, area)| area);
    format!("{area}-{}", kind.word())
}

impl Kind {
    fn row(self) -> (&'static str, Severity) {
        let row = KINDS.iter().find(|(kind, ..)| *kind == self);
        row.map_or(("note", Severity::Note), |(_, word, severity, _)| (word, *severity))
    }

    /// The word at the end of a code.
    pub fn word(self) -> &'static str {
        self.row().0
    }

    /// What it means.
    pub fn severity(self) -> Severity {
        self.row().1
    }
}

/// The tables of docs/check.md.
pub fn document() -> String {
    let mut text = String::from("| code ends in | severity | what it says |\n|---|---|---|\n");
    for (_, word, severity, meaning) in KINDS {
        text.push_str(&format!("| `-{word}` | {} | {meaning} |\n", severity.name()));
    }
    text.push_str("\n| code begins with | config paths |\n|---|---|\n");
    let mut areas: Vec<&str> = AREAS.iter().map(|(_, area)| *area).collect();
    areas.dedup();
    let mut seen: Vec<&str> = Vec::new();
    for area in areas {
        if !seen.contains(&area) {
            seen.push(area);
            let paths = AREAS.iter().filter(|(_, of)| *of == area).map(|(path, _)| format!("`{path}`"));
            text.push_str(&format!("| `{area}` | {} |\n", paths.collect::<Vec<_>>().join(", ")));
        }
    }
    text.push_str(&format!("| `{OTHER}` | everything else |\n\n| code | severity | what it says |\n|---|---|---|\n"));
    for (code, severity, meaning) in SINGLE {
        text.push_str(&format!("| `{code}` | {} | {meaning} |\n", severity.name()));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn areas_are_those_of_the_path() {
        assert_eq!(code("mounts[3].options", Kind::Invalid), "mounts-invalid");
        assert_eq!(code("process.userx", Kind::Refused), "process-refused");
        assert_eq!(code("process.user.uid", Kind::Refused), "user-refused");
        assert_eq!(code("rootless", Kind::Note), "other-note");
    }

    /// `UPDATE_GOLDEN=1 cargo test --lib codes` writes the tables anew.
    #[test]
    fn the_document_has_these_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/check.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once("<!-- codes -->\n").unwrap();
        let (old, after) = rest.split_once("<!-- /codes -->").unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, format!("{before}<!-- codes -->\n{}<!-- /codes -->{after}", document())).unwrap();
            return;
        }
        assert_eq!(old, document());
    }
}
