//! What the document says of itself: its version, its annotations, and the sections that are for other platforms.

use crate::spec::{Field, Process, Spec, VERSION};

use super::Findings;

/// The annotation under which `state` shows the warnings of create, a JSON list of strings.
pub const WARNINGS: &str = "io.github.rt.warnings";

/// Checks the version and the annotations, and warns about what means nothing on Linux.
pub fn check(spec: &Spec, findings: &mut Findings) {
    version(spec.oci_version.as_deref(), findings);
    super::annotations::check(&spec.annotations, findings);
    let foreign =
        [("windows", spec.windows), ("solaris", spec.solaris), ("vm", spec.vm), ("zos", spec.zos), ("freebsd", spec.freebsd)];
    for (name, _) in foreign.iter().filter(|(_, there)| there.is_some()) {
        findings.warning(Field::new(*name), "left out: it is for another platform");
    }
}

/// Warns about the properties of a process that mean nothing on Linux.
pub fn check_process(process: &Process, findings: &mut Findings) {
    let foreign = [("process.commandLine", process.command_line), ("process.user.username", process.user.username)];
    for (name, _) in foreign.iter().filter(|(_, there)| there.is_some()) {
        findings.warning(Field::new(*name), "left out: it is for Windows");
    }
}

/// config.md, "Specification version": SemVer 2.0.0. What a later minor version has added is not known here.
fn version(version: Option<&str>, findings: &mut Findings) {
    let field = Field::new("ociVersion");
    let Some(version) = version else {
        findings.problem(field, "missing; expected a version of the specification, such as 1.3.0");
        return;
    };
    match parse(version) {
        Some((1, minor)) if parse(VERSION).is_none_or(|(_, known)| minor <= known) => {}
        Some((1, _)) => {
            let text = format!("version {version:?} is newer than {VERSION}; what is new in it is passed over");
            findings.warning(field, text);
        }
        Some(_) => findings.problem(field, format!("version {version:?} is not supported; expected 1.x")),
        None => findings.problem(field, format!("version {version:?}: expected one of SemVer 2.0.0, such as 1.3.0")),
    }
}

/// Major and minor number of a version in the format of SemVer 2.0.0: three numbers, `-` and names of a pre-release, `+` and names of a build.
fn parse(version: &str) -> Option<(u32, u32)> {
    let (version, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (numbers, release) = version.split_once('-').map_or((version, None), |(rest, release)| (rest, Some(release)));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_no_zeros_before = |text: &str| text == "0" || !text.starts_with('0');
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let released = |text: &str| is_name(text) && (!is_number(text) || has_no_zeros_before(text));
    let good =
        build.is_none_or(|names| names.split('.').all(is_name)) && release.is_none_or(|names| names.split('.').all(released));
    let number = |text: &str| (is_number(text) && has_no_zeros_before(text)).then(|| text.parse().ok()).flatten();
    match numbers.split('.').map(number).collect::<Option<Vec<u32>>>()?[..] {
        [major, minor, _] if good => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn versions() {
        for (text, numbers) in [
            ("1.3.0", Some((1, 3))),
            ("1.0.0-rc5", Some((1, 0))),
            ("1.2.1+dev", Some((1, 2))),
            ("1.10.0", Some((1, 10))),
            ("1.3", None),
            ("1.x.0", None),
            ("1..0", None),
            ("1.+3.0", None),
            ("", None),
            ("v1.0.0", None),
            ("1.0.0-rc.1+build.007", Some((1, 0))),
            ("1.0.0-0a-b", Some((1, 0))),
            ("01.0.0", None),
            ("1.0.0-01", None),
            ("1.0.0-", None),
            ("1.0.0-a..b", None),
            ("1.0.0+a_b", None),
        ] {
            assert_eq!(parse(text), numbers, "{text}");
        }
    }
}
