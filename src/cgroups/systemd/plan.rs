//! From `slice:prefix:name`, limits and annotations to a transient scope. No system call is made here.

use std::fmt;

use serde::Serialize;

use super::super::facts::{Facts, Hierarchy};
use super::super::plan::{CgroupPlan, Input, plan_places};
use super::super::steps::{Place, Step, Version, Write};
use super::{Systemd, UnitRecord, Value, Which, slice_names, text, unit_path};
use crate::plan::{Findings, Origin, Planned, annotations};
use crate::spec::{Field, StringMap};

/// A property of a unit (org.freedesktop.systemd1(5)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Property {
    fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit property {}={}", self.name, self.value)
    }
}

/// The transient scope of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnitPlan {
    /// Which systemd makes it.
    pub which: Which,
    /// Its name.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// What systemd is told about it.
    pub properties: Vec<Planned<Property>>,
    /// The directory below its own that is the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subgroup: Option<String>,
}

impl UnitPlan {
    /// What is to be kept in the container's record.
    pub fn record(&self) -> UnitRecord {
        UnitRecord { which: self.which, name: self.name.clone(), subgroup: self.subgroup.clone() }
    }

    /// The slice and those above it, outermost first, without the root slice.
    pub fn slices(&self) -> Vec<String> {
        slice_names(&self.slice)
    }
}

/// The prefix of annotations that set properties of the unit.
pub const ANNOTATION: &str = "org.systemd.property.";

/// Properties that say which processes are in the scope, where it is, and whose it is: no annotation changes them.
const OURS: [&str; 9] =
    ["PIDs", "PIDFDs", "Slice", "Delegate", "DelegateControllers", "BPFProgram", "Controller", "User", "Group"];

/// What systemd gives to a scope that is delegated, as far as something is counted by it.
const COUNTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// `slice:prefix:name` as a slice and a scope.
fn names(path: Option<&str>, id: &str, which: Which) -> Result<(String, String), String> {
    let default = format!(":rt:{id}");
    let path = path.filter(|path| !path.is_empty()).unwrap_or(&default);
    let expected =
        || format!("expected slice:prefix:name, because systemd manages the cgroups (--systemd-cgroup), found {path:?}");
    let parts: Vec<&str> = path.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else { return Err(expected()) };
    if name.is_empty() {
        return Err(expected());
    }
    let slice = match (*slice, which) {
        ("", Which::System) => "system.slice",
        ("", Which::User) => "user.slice",
        (slice, _) => slice,
    };
    check_slice(slice)?;
    let stem = if prefix.is_empty() { escape(name) } else { escape(&format!("{prefix}-{name}")) };
    let unit = format!("{stem}.scope");
    // UNIT_NAME_MAX of systemd.
    if unit.len() > 255 {
        Err(format!("expected a unit's name of at most 255 bytes, found {unit:?}"))
    } else {
        Ok((slice.to_owned(), unit))
    }
}

/// systemd.slice(5): dashes separate the levels, so that there is none without a name.
fn check_slice(slice: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
    let stem = slice.strip_suffix(".slice").filter(|stem| stem.chars().all(plain) && slice.len() <= 255);
    let good = stem.is_some_and(|stem| stem == "-" || (!stem.is_empty() && stem.split('-').all(|level| !level.is_empty())));
    if good { Ok(()) } else { Err(format!("expected the name of a slice, such as system.slice, found {slice:?}")) }
}

/// What a unit's name must not contain becomes `\xNN` (systemd-escape(1)).
fn escape(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'-' => char::from(byte).to_string(),
        b'.' => ".".to_owned(),
        other => format!("\\x{other:02x}"),
    };
    name.bytes().map(byte).collect()
}

/// Plans the cgroup of a container whose scope systemd makes.
pub fn plan(input: &Input<'_>, properties_by_name: &StringMap, findings: &mut Findings) -> CgroupPlan {
    let field = Field::from("linux.cgroupsPath");
    let flag = Origin::Flag("--systemd-cgroup");
    let (Some(systemd), Some(place)) = (&input.facts.systemd, controllers_place(input.facts, findings)) else {
        return CgroupPlan::default();
    };
    let (slice, name) = match names(input.cgroups_path, input.id, systemd.which) {
        Ok(names) => names,
        Err(text) => {
            findings.problem(field, text);
            return CgroupPlan::default();
        }
    };
    let given = input.cgroups_path.is_some_and(|path| !path.is_empty());
    let origin = if given { Origin::Config(field) } else { Origin::Default("cgroup path") };
    let scope = unit_path(&systemd.control_group, &slice, &name);
    let place = Place { path: input.subgroup.map_or_else(|| scope.clone(), |subgroup| scope.join(subgroup)), ..place };
    let mut plan = plan_places(input, vec![place], false, &origin, findings);
    if input.subgroup.is_some() {
        let controllers = COUNTED.map(str::to_owned).to_vec();
        plan.steps.insert(0, Planned::new(Step::Account { place: 0, controllers }, annotations::field(annotations::SUBGROUP)));
    }
    let mut own = own_properties(input.id, &slice, &flag);
    own.extend(properties(&plan));
    for (key, text) in properties_by_name {
        if let Some(planned) = from_annotation(key, text, findings) {
            own.retain(|other| other.step.name != planned.step.name);
            own.push(planned);
        }
    }
    let subgroup = input.subgroup.map(str::to_owned);
    plan.unit = Some(UnitPlan { which: systemd.which, name, slice, properties: own, subgroup });
    plan
}

/// The unified hierarchy, which has to have the controllers: systemd writes the version 1 lists of devices anew when it reloads.
fn controllers_place(facts: &Facts, findings: &mut Findings) -> Option<Place> {
    let legacy = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|name| !name.starts_with("name="));
    let field = || Field::from("--systemd-cgroup");
    if let Some(hierarchy) = facts.v1.iter().find(legacy) {
        let names = hierarchy.controllers.join(",");
        let text = format!("expected a machine with cgroup v2 only, found {names} in version 1");
        let repair = "use cgroupfs paths, without --systemd-cgroup, or boot with systemd.unified_cgroup_hierarchy=1";
        findings.problem(field(), format!("{text}; {repair}"));
        return None;
    }
    let Some(unified) = &facts.v2 else {
        findings.problem(field(), "expected cgroup v2 to be mounted, found that it is not");
        return None;
    };
    let (controllers, mount) = (unified.controllers.clone(), unified.mount.clone());
    Some(Place { version: Version::V2, controllers, mount, path: std::path::PathBuf::new() })
}

fn own_properties(id: &str, slice: &str, origin: &Origin) -> Vec<Planned<Property>> {
    let yes = || Value::Bool(true);
    let list = [
        ("Description", Value::text(format!("rt container {id}"))),
        ("Slice", Value::text(slice)),
        // The tree below the scope is ours: systemd enables every controller for it and never looks inside.
        ("Delegate", yes()),
        ("CPUAccounting", yes()),
        ("IOAccounting", yes()),
        ("MemoryAccounting", yes()),
        ("TasksAccounting", yes()),
        // Otherwise the container would end when a shutdown has only begun, before its engine can stop it.
        ("DefaultDependencies", Value::Bool(false)),
        // A scope whose processes the OOM killer ended would stay as a failed unit.
        ("CollectMode", Value::text("inactive-or-failed")),
        // Without a limit in the config there is none; a scope would get DefaultTasksMax.
        ("TasksMax", Value::U64(u64::MAX)),
    ];
    list.into_iter().map(|(name, value)| Planned::new(Property::new(name, value), origin.clone())).collect()
}

/// What systemd is told about the limits: what the files will say. The last write of a file counts.
pub fn properties(plan: &CgroupPlan) -> Vec<Planned<Property>> {
    let mut found: Vec<Planned<Property>> = Vec::new();
    for planned in &plan.steps {
        let Step::Write(write) = &planned.step else { continue };
        for property in of_write(write) {
            found.retain(|other| other.step.name != property.name);
            found.push(Planned { step: property, origin: planned.origin.clone() });
        }
    }
    found
}

/// The files of systemd.resource-control(5) whose content is a number or `max`.
const NUMBERS: [(&str, &str); 8] = [
    ("cpu.weight", "CPUWeight"),
    ("io.weight", "IOWeight"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max", "TasksMax"),
];

fn of_write(write: &Write) -> Vec<Property> {
    let number = |text: &str| if text == "max" { Some(u64::MAX) } else { text.trim_start_matches("default ").parse().ok() };
    match write.file.as_str() {
        "cpu.max" => cpu_quota(&write.value),
        "cpuset.cpus" => mask("AllowedCPUs", &write.value).into_iter().collect(),
        "cpuset.mems" => mask("AllowedMemoryNodes", &write.value).into_iter().collect(),
        file => {
            let name = NUMBERS.iter().find(|(known, _)| *known == file).map(|(_, name)| *name);
            let value = number(&write.value).map(Value::U64);
            name.zip(value).map(|(name, value)| Property::new(name, value)).into_iter().collect()
        }
    }
}

/// `quota period` in microseconds. systemd thinks in whole percents of a CPU: a quota is rounded up to one, so that what the file
/// says is never more than what systemd grants.
fn cpu_quota(value: &str) -> Vec<Property> {
    let mut words = value.split(' ');
    let quota = words.next().unwrap_or_default();
    let period = words.next().and_then(|word| word.parse::<u64>().ok());
    let per_second = match quota.parse::<u64>() {
        Ok(quota) => quota.saturating_mul(1_000_000).div_ceil(period.unwrap_or(100_000).max(1)).next_multiple_of(10_000),
        Err(_) => u64::MAX,
    };
    let mut list = vec![Property::new("CPUQuotaPerSecUSec", Value::U64(per_second))];
    list.extend(period.map(|period| Property::new("CPUQuotaPeriodUSec", Value::U64(period))));
    list
}

/// A list such as `0-2,7` as a bit mask, the least byte first. A list that is none is left to the kernel to refuse.
fn mask(name: &str, list: &str) -> Option<Property> {
    let mut bytes = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        for number in first..=last.min(8191) {
            bytes.resize(bytes.len().max(number / 8 + 1), 0u8);
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    if bytes.is_empty() {
        return None;
    }
    Some(Property::new(name, Value::Array("y".to_owned(), bytes.into_iter().map(Value::Byte).collect())))
}

/// A property that an annotation asks for. The name is letters only and none of those that are ours (what an engine lets
/// through from its users ends here: CVE-2024-3154 of CRI-O). A time in seconds becomes one in microseconds, as in unit files.
fn from_annotation(key: &str, text: &str, findings: &mut Findings) -> Option<Planned<Property>> {
    let name = key.strip_prefix(ANNOTATION)?;
    let field = Field::from("annotations").entry(key);
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        findings.problem(field, format!("expected the name of a unit property, of letters only, found {name:?}"));
        return None;
    }
    if OURS.contains(&name) {
        findings.problem(field, format!("expected a property that is not the runtime's own, found {name}"));
        return None;
    }
    let value = match text::parse(text) {
        Ok(value) => value,
        Err(problem) => {
            findings.problem(field, format!("{problem}; a value looks like true, 'text', uint64 5 or ['a', 'b']"));
            return None;
        }
    };
    let property = match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
        None => Property::new(name, value),
        Some(stem) => match seconds(&value) {
            Some(micros) => Property::new(&format!("{stem}USec"), Value::U64(micros)),
            None => {
                findings.problem(field, format!("expected a number of seconds, found {text}"));
                return None;
            }
        },
    };
    Some(Planned::new(property, field))
}

fn seconds(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Byte(value) => u64::from(*value),
        Value::U16(value) => u64::from(*value),
        Value::U32(value) => u64::from(*value),
        Value::U64(value) => *value,
        Value::I16(value) => u64::try_from(*value).ok()?,
        Value::I32(value) => u64::try_from(*value).ok()?,
        Value::I64(value) => u64::try_from(*value).ok()?,
        _ => return None,
    };
    seconds.checked_mul(1_000_000)
}

impl Systemd {
    /// A system manager, for tests.
    pub fn fixture() -> Self {
        Self { which: Which::System, control_group: "/".into() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scopes() {
        let of = |path: &str, which| names(Some(path), "web", which);
        let pair = |slice: &str, unit: &str| Ok((slice.to_owned(), unit.to_owned()));
        assert_eq!(of("machine.slice:libpod:abc", Which::System), pair("machine.slice", "libpod-abc.scope"));
        assert_eq!(of(":rt:abc", Which::System), pair("system.slice", "rt-abc.scope"));
        assert_eq!(of("::abc", Which::User), pair("user.slice", "abc.scope"));
        assert_eq!(of("", Which::User), pair("user.slice", "rt-web.scope"));
        assert_eq!(of("-.slice:a:b+c", Which::System), pair("-.slice", "a-b\\x2bc.scope"));
        for bad in [
            "/rt/web",
            "a:b",
            "a:b:c:d",
            "x:rt:web",
            "a--b.slice:r:w",
            "-a.slice:r:w",
            ".slice:r:w",
            "a/b.slice:r:w",
            "a.slice:r:",
        ] {
            assert!(of(bad, Which::System).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths() {
        let path = |slice| unit_path(std::path::Path::new("/user.slice/m"), slice, "u.scope").display().to_string();
        assert_eq!(path("a-b-c.slice"), "user.slice/m/a.slice/a-b.slice/a-b-c.slice/u.scope");
        assert_eq!(path("-.slice"), "user.slice/m/u.scope");
    }

    fn told(json: &str) -> Vec<String> {
        let resources = serde_json::from_str(json).unwrap();
        let mut facts = Facts::unified_fixture(&["cpu", "cpuset", "io", "memory", "pids"]);
        facts.systemd = Some(Systemd::fixture());
        let input = Input {
            id: "web",
            cgroups_path: None,
            resources: Some(&resources),
            devices: &[],
            facts: &facts,
            privileged: true,
            owner: None,
            subgroup: None,
            delegated: None,
        };
        let mut findings = Findings::default();
        let plan = plan(&input, &StringMap::new(), &mut findings);
        assert_eq!(findings.problems, []);
        plan.unit.unwrap().properties.iter().skip(9).map(|planned| planned.step.to_string()).collect()
    }

    #[test]
    fn limits_are_what_the_files_say() {
        let list = told(
            r#"{"memory": {"limit": 67108864, "swap": 67108864, "reservation": 33554432}, "pids": {"limit": 50},
                "cpu": {"shares": 1024, "quota": 20500, "period": 100000, "cpus": "0,9"}, "unified": {"memory.high": "max"}}"#,
        );
        let expected = [
            "TasksMax=infinity",
            "MemorySwapMax=0",
            "MemoryMax=67108864",
            "MemoryLow=33554432",
            "CPUWeight=100",
            "CPUQuotaPerSecUSec=210000",
            "CPUQuotaPeriodUSec=100000",
            "AllowedCPUs=[0x01, 0x02]",
            "TasksMax=50",
            "MemoryHigh=infinity",
        ];
        assert_eq!(list, expected.map(|text| format!("unit property {text}")));
    }

    #[test]
    fn annotations() {
        let of = |name: &str, text: &str| {
            let mut findings = Findings::default();
            let planned = from_annotation(&format!("{ANNOTATION}{name}"), text, &mut findings);
            planned.map(|planned| planned.step.to_string()).ok_or_else(|| findings.problems[0].to_string())
        };
        assert_eq!(of("TimeoutStopSec", "5").unwrap(), "unit property TimeoutStopUSec=5000000");
        assert_eq!(of("TimeoutStopUSec", "uint64 5").unwrap(), "unit property TimeoutStopUSec=5");
        assert_eq!(of("After", "['a.service']").unwrap(), "unit property After=[\"a.service\"]");
        for (name, text) in
            [("Slice", "'a.slice'"), ("PIDs", "[uint32 1]"), ("a_b", "true"), ("ab", "true"), ("XSec", "'a'"), ("Foo", "bar")]
        {
            assert!(of(name, text).is_err(), "{name}");
        }
        assert!(from_annotation("org.other", "x", &mut Findings::default()).is_none());
    }
}
