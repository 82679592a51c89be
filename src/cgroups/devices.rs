//! Device rules: an ordered list in which the last match decides, for each kind of access on its own.
//!
//! Version 1 keeps such a list in the kernel, written line by line; version 2 runs an eBPF program (`ebpf`).

use std::fmt;

use serde::{Serialize, Serializer};

use super::ebpf;
use super::plan::{Builder, Site};
use super::steps::{CgroupRecord, DeviceLine, Step};
use crate::plan::{Findings, Origin, Planned};
use crate::spec::{Device, DeviceRule, Field};

/// The kinds of access, as a set of bits: `BPF_DEVCG_ACC_*` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u32);

impl Access {
    /// mknod(2).
    pub const MKNOD: Self = Self(1);
    /// Opening for reading.
    pub const READ: Self = Self(2);
    /// Opening for writing.
    pub const WRITE: Self = Self(4);
    /// All of it.
    pub const ALL: Self = Self(7);
}

/// Character or block devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Block devices: `BPF_DEVCG_DEV_BLOCK` is 1.
    Block,
    /// Character devices: `BPF_DEVCG_DEV_CHAR` is 2.
    Char,
}

/// One rule. Without kind, major or minor it is about all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Allowed or denied.
    pub allow: bool,
    /// Which kind of device.
    pub kind: Option<Kind>,
    /// Its major number.
    pub major: Option<u32>,
    /// Its minor number.
    pub minor: Option<u32>,
    /// Which access.
    pub access: Access,
}

impl Rule {
    const fn all(allow: bool) -> Self {
        Self { allow, kind: None, major: None, minor: None, access: Access::ALL }
    }

    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, kind: Some(kind), major, minor, access }
    }

    /// True if it is about every device.
    pub fn is_about_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none()
    }

    /// True if nothing before it matters.
    fn is_total(&self) -> bool {
        self.is_about_all() && self.access == Access::ALL
    }

    fn text(&self, kind: char) -> String {
        let number = |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
        let letters = [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')];
        let access: String = letters.iter().filter(|(bit, _)| self.access.0 & bit.0 != 0).map(|(_, letter)| letter).collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }

    fn letter(&self) -> char {
        match self.kind {
            None => 'a',
            Some(Kind::Block) => 'b',
            Some(Kind::Char) => 'c',
        }
    }

    /// The lines for version 1. The kernel takes `a` for everything whatever numbers and access follow it, so that a rule
    /// for both kinds which is not about everything has to be two lines.
    fn lines(&self) -> Vec<DeviceLine> {
        let letters = if self.kind.is_none() && !self.is_total() { vec!['b', 'c'] } else { vec![self.letter()] };
        letters.into_iter().map(|letter| DeviceLine { allow: self.allow, text: self.text(letter) }).collect()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.allow { "allow" } else { "deny" }, self.text(self.letter()))
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What every container may use: making nodes (opening them is another matter), the devices that the specification demands
/// in /dev (config-linux.md, "Default Devices"), and pseudo terminals. The other runtimes allow the same; runc also /dev/net/tun, which
/// people make in containers of their own (what it can do there is up to CAP_NET_ADMIN), and took it back when it no longer did.
const DEFAULTS: [Rule; 12] = [
    Rule::allow(Kind::Char, None, None, Access::MKNOD),
    Rule::allow(Kind::Block, None, None, Access::MKNOD),
    Rule::allow(Kind::Char, Some(1), Some(3), Access::ALL),    // null
    Rule::allow(Kind::Char, Some(1), Some(5), Access::ALL),    // zero
    Rule::allow(Kind::Char, Some(1), Some(7), Access::ALL),    // full
    Rule::allow(Kind::Char, Some(1), Some(8), Access::ALL),    // random
    Rule::allow(Kind::Char, Some(1), Some(9), Access::ALL),    // urandom
    Rule::allow(Kind::Char, Some(5), Some(0), Access::ALL),    // tty
    Rule::allow(Kind::Char, Some(5), Some(1), Access::ALL),    // console
    Rule::allow(Kind::Char, Some(5), Some(2), Access::ALL),    // ptmx
    Rule::allow(Kind::Char, Some(136), None, Access::ALL),     // pts/N
    Rule::allow(Kind::Char, Some(10), Some(200), Access::ALL), // net/tun
];

/// An ordinary user may not filter devices, and needs no filter that denies everything: nobody can make devices in a user namespace, so
/// the container has those that were bound into it.
pub(super) fn unprivileged(rules: &[DeviceRule], findings: &mut Findings) {
    let field = Field::from("linux.resources.devices");
    let rules = parse(rules, &field, findings);
    if rules.iter().any(|(_, rule)| !rule.allow && !rule.is_total()) {
        findings.warning(field, "not applied: denying single devices needs CAP_SYS_ADMIN, which this caller does not have");
    }
}

/// Plans the device filter: everything is denied but the defaults, `listed`, and what the rules allow.
pub(super) fn plan(out: &mut Builder<'_>, rules: &[DeviceRule], listed: &[Device]) {
    let field = Field::from("linux.resources.devices");
    let configured = parse(rules, &field, out.findings);
    let list = list(&configured, listed);
    let origin = if rules.is_empty() { Origin::Default("device rules") } else { Origin::Config(field.clone()) };
    let site = out.find("devices", "").or_else(|| out.unified().map(Site::V2));
    match site {
        Some(Site::V1(place)) => {
            warn_about_holes(&configured, &list, &field, out.findings);
            let lines = list.iter().flat_map(Rule::lines).collect();
            out.push(Step::DeviceList { place, lines }, origin);
        }
        Some(Site::V2(place)) => {
            let instructions = ebpf::program(&list);
            out.push(Step::DeviceProgram { place, rules: list, instructions }, origin);
        }
        None if rules.is_empty() => {}
        None => out.missing(&field, "the cgroup v1 controller `devices` or cgroup v2", "cgroup"),
    }
}

/// True if these rules deny what a terminal is opened by, the ptmx of a devpts.
pub fn deny_terminals(rules: &[DeviceRule], listed: &[Device]) -> bool {
    let configured = parse(rules, &Field::from("linux.resources.devices"), &mut Findings::default());
    !allowed(&list(&configured, listed), Kind::Char, 5, 2, Access(Access::READ.0 | Access::WRITE.0))
}

/// A change of the device rules of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new list or program.
    pub step: Planned<Step>,
    /// Version 1: the lines of the list from before.
    pub before: Vec<DeviceLine>,
}

/// Plans other rules for a container that exists, in place of those that it was made with or was given last.
///
/// A list that denies everything and allows nothing is what some engines send with every change of limits, by habit: it is not
/// taken for a wish, least of all where the rules in force are wider: a privileged container would lose its devices when it gets memory.
pub fn plan_change(
    rules: &[DeviceRule],
    recorded: &[DeviceRule],
    listed: &[Device],
    cgroup: &CgroupRecord,
    findings: &mut Findings,
) -> Option<Change> {
    if rules.is_empty() || rules == recorded {
        return None;
    }
    let field = Field::from("linux.resources.devices");
    if let [only] = parse(rules, &field, &mut Findings::default()).as_slice()
        && rules.len() == 1
        && only.1 == Rule::all(false)
    {
        let text =
            "not applied: a list that only denies everything; to take all devices but the default ones away, name one of those";
        findings.warning(field, text);
        return None;
    }
    let mut builder = Builder::for_record(cgroup, findings);
    plan(&mut builder, rules, listed);
    let before = list(&parse(recorded, &field, &mut Findings::default()), listed);
    let step = builder.into_steps().pop()?;
    Some(Change { step, before: before.iter().flat_map(Rule::lines).collect() })
}

/// The rules as written, with their place in the config.
fn parse(rules: &[DeviceRule], field: &Field, findings: &mut Findings) -> Vec<(Field, Rule)> {
    let parse = |(index, rule)| {
        let at = field.index(index);
        let rule = parse_one(rule, &at, findings)?;
        Some((at, rule))
    };
    rules.iter().enumerate().filter_map(parse).collect()
}

fn parse_one(rule: &DeviceRule, at: &Field, findings: &mut Findings) -> Option<Rule> {
    let kind = match rule.r#type.as_deref() {
        None | Some("" | "a") => Ok(None),
        Some("b") => Ok(Some(Kind::Block)),
        Some("c" | "u") => Ok(Some(Kind::Char)),
        Some(other) => Err(format!("expected a, b or c, found {other:?}")),
    };
    let access = parse_access(rule.access.as_deref());
    let mut note = |name: &str, text: String| findings.problem(at.key(name), text);
    let (major, minor) = (parse_number(rule.major), parse_number(rule.minor));
    let kind = kind.map_err(|text| note("type", text)).ok();
    let access = access.map_err(|text| note("access", text)).ok();
    let major = major.map_err(|text| note("major", text)).ok();
    let minor = minor.map_err(|text| note("minor", text)).ok();
    Some(Rule { allow: rule.allow, kind: kind?, major: major?, minor: minor?, access: access? })
}

/// Unset means all, as for the other properties of a rule.
fn parse_access(text: Option<&str>) -> Result<Access, String> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("rwm");
    let bit = |letter| match letter {
        'r' => Some(Access::READ.0),
        'w' => Some(Access::WRITE.0),
        'm' => Some(Access::MKNOD.0),
        _ => None,
    };
    let bits = text.chars().try_fold(0, |bits, letter| bit(letter).map(|bit| bits | bit));
    bits.map(Access).ok_or_else(|| format!("expected letters of rwm, found {text:?}"))
}

/// Unset and -1 mean all.
fn parse_number(value: Option<i64>) -> Result<Option<u32>, String> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| format!("expected a device number or -1, found {value}")),
    }
}

/// The whole list, which begins with a rule about everything.
///
/// The defaults stand behind the last rule that denies everything: engines begin their lists with one, and a container
/// without /dev/null is not what they mean. Rules behind it can take the defaults away.
///
/// Among permissions the order means nothing, so those that the config begins with stand before the defaults: devices.list of
/// version 1, which is read to check the config, then begins as the config does.
pub(super) fn list(configured: &[(Field, Rule)], listed: &[Device]) -> Vec<Rule> {
    let total = configured.iter().rposition(|(_, rule)| rule.is_total());
    let rest: Vec<Rule> = configured.iter().skip(total.map_or(0, |at| at + 1)).map(|(_, rule)| *rule).collect();
    if total.is_some_and(|at| configured[at].1.allow) {
        return [Rule::all(true)].into_iter().chain(rest).collect();
    }
    let (permitted, rest) = rest.split_at(rest.iter().take_while(|rule| rule.allow).count());
    let defaults = DEFAULTS.into_iter().chain(listed.iter().filter_map(listed_rule));
    [Rule::all(false)].into_iter().chain(permitted.iter().copied()).chain(defaults).chain(rest.iter().copied()).collect()
}

/// A device of `linux.devices` may be used; FIFOs are no devices.
fn listed_rule(device: &Device) -> Option<Rule> {
    let kind = match device.r#type.as_str() {
        "c" | "u" => Kind::Char,
        "b" => Kind::Block,
        _ => return None,
    };
    let (major, minor) = (u32::try_from(device.major?).ok()?, u32::try_from(device.minor?).ok()?);
    Some(Rule::allow(kind, Some(major), Some(minor), Access::ALL))
}

/// Version 1 denies by removing an exception, so a denial inside of a wider permission has no effect. Making nodes is left
/// out: the defaults permit it for all.
fn warn_about_holes(configured: &[(Field, Rule)], list: &[Rule], field: &Field, findings: &mut Findings) {
    if list.first().is_some_and(|rule| rule.allow) {
        return;
    }
    let offset = list.len() - configured.len().min(list.len());
    for (position, rule) in list.iter().enumerate().filter(|(_, rule)| !rule.allow).skip(1) {
        let wider = |before: &Rule| {
            let same = before.kind == rule.kind && before.major == rule.major && before.minor == rule.minor;
            let bits = before.access.0 & rule.access.0 & (Access::READ.0 | Access::WRITE.0);
            before.allow && !same && bits != 0 && overlap(before, rule)
        };
        if list[..position].iter().any(wider) {
            let at = position.checked_sub(offset).and_then(|at| configured.get(at)).map_or(field, |(at, _)| at);
            findings
                .warning(at.clone(), format!("cgroup v1 cannot take {:?} out of a wider permission", rule.text(rule.letter())));
        }
    }
}

fn overlap(a: &Rule, b: &Rule) -> bool {
    fn meets<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
        a.is_none() || b.is_none() || a == b
    }
    meets(a.kind, b.kind) && meets(a.major, b.major) && meets(a.minor, b.minor)
}

/// The meaning of a list: each kind of access is decided by the last rule that is about it. The eBPF program is proven
/// against this.
pub(super) fn allowed(list: &[Rule], kind: Kind, major: u32, minor: u32, access: Access) -> bool {
    let matches = |rule: &&Rule| {
        rule.kind.is_none_or(|want| want == kind)
            && rule.major.is_none_or(|want| want == major)
            && rule.minor.is_none_or(|want| want == minor)
    };
    let decided =
        |bit: u32| list.iter().rev().filter(matches).find(|rule| rule.access.0 & bit != 0).is_some_and(|rule| rule.allow);
    [1, 2, 4].into_iter().filter(|bit| access.0 & bit != 0).all(decided)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules(json: &str) -> Vec<(Field, Rule)> {
        let rules: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
        let mut findings = Findings::default();
        let parsed = parse(&rules, &Field::from("d"), &mut findings);
        assert_eq!(findings.problems, []);
        parsed
    }

    fn texts(list: &[Rule]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_usual_list_keeps_the_defaults() {
        let configured =
            rules(r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#);
        let texts = texts(&list(&configured, &[]));
        assert_eq!(texts[..3], ["deny a *:* rwm", "allow c 10:229 rw", "allow c *:* m"]);
        assert_eq!(texts.len(), 14);
    }

    #[test]
    fn defaults_can_be_taken_away() {
        let configured = rules(
            r#"[{"allow":false},{"allow":true,"type":"b","major":8},{"allow":false,"type":"c","major":1},{"allow":true,"type":"b","major":9}]"#,
        );
        let texts = texts(&list(&configured, &[]));
        assert_eq!(texts[..3], ["deny a *:* rwm", "allow b 8:* rwm", "allow c *:* m"]);
        assert_eq!(texts[14..], ["deny c 1:* rwm", "allow b 9:* rwm"]);
    }

    #[test]
    fn all_allowed() {
        let configured = rules(r#"[{"allow":false},{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"m"}]"#);
        assert_eq!(texts(&list(&configured, &[])), ["allow a *:* rwm", "deny b *:* m"]);
    }

    #[test]
    fn devices_of_the_config_are_allowed() {
        let device = |kind: &str| Device {
            r#type: kind.into(),
            path: "/dev/x".into(),
            major: Some(7),
            minor: Some(1),
            ..Device::default()
        };
        let texts = texts(&list(&[], &[device("b"), device("p")]));
        assert_eq!(texts.last().unwrap(), "allow b 7:1 rwm");
        assert_eq!(texts.len(), 14);
    }

    #[test]
    fn a_rule_for_both_kinds_is_two_lines() {
        let configured = rules(r#"[{"allow":true,"major":10,"access":"r"},{"allow":false,"access":"w"}]"#);
        let lines: Vec<String> = configured.iter().flat_map(|(_, rule)| rule.lines()).map(|line| line.text).collect();
        assert_eq!(lines, ["b 10:* r", "c 10:* r", "b *:* w", "c *:* w"]);
    }

    #[test]
    fn problems() {
        let rules: Vec<DeviceRule> = serde_json::from_str(r#"[{"allow":true,"type":"x","major":-2,"access":"rx"}]"#).unwrap();
        let mut findings = Findings::default();
        parse(&rules, &Field::from("d"), &mut findings);
        let problems: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
        let expected = [
            "d[0].type: expected a, b or c, found \"x\"",
            "d[0].access: expected letters of rwm, found \"rx\"",
            "d[0].major: expected a device number or -1, found -2",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn holes_are_warned_about() {
        let configured =
            rules(r#"[{"allow":false},{"allow":true,"type":"c","major":10},{"allow":false,"type":"c","major":10,"minor":5}]"#);
        let mut findings = Findings::default();
        warn_about_holes(&configured, &list(&configured, &[]), &Field::from("d"), &mut findings);
        let warnings: Vec<String> = findings.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, ["d[2]: cgroup v1 cannot take \"c 10:5 rwm\" out of a wider permission"]);
    }

    #[test]
    fn the_last_match_decides_bit_by_bit() {
        let configured = rules(r#"[{"allow":true,"type":"c","access":"rw"},{"allow":false,"type":"c","major":1,"access":"w"}]"#);
        let list: Vec<Rule> = configured.into_iter().map(|(_, rule)| rule).collect();
        assert!(allowed(&list, Kind::Char, 1, 3, Access::READ));
        assert!(!allowed(&list, Kind::Char, 1, 3, Access(6)));
        assert!(allowed(&list, Kind::Char, 2, 3, Access(6)));
        assert!(!allowed(&list, Kind::Block, 2, 3, Access::READ));
    }
}
