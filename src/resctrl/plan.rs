//! From `linux.intelRdt` to a group of resctrl.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::host::Host;
use crate::id::ContainerId;
use crate::plan::Findings;
use crate::spec::{Field, IntelRdt};

/// Whether the directory of a class has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Make {
    /// It belongs to somebody else, or is the root.
    Never,
    /// It stays when the container goes: others may use it.
    IfMissing,
    /// It is the container's own, and goes with it.
    Own,
}

/// The group of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResctrlPlan {
    /// Its directory.
    pub directory: PathBuf,
    /// Whether that is made.
    pub make: Make,
    /// Lines that a directory which is there already must have.
    pub expected: Vec<String>,
    /// The lines to be written, in order.
    pub schemata: Vec<String>,
    /// The monitoring group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

impl ResctrlPlan {
    /// The directory whose `tasks` the processes are written to.
    pub fn tasks(&self) -> &PathBuf {
        self.monitor.as_ref().unwrap_or(&self.directory)
    }
}

impl fmt::Display for ResctrlPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.make == Make::Never { "use" } else { "make" };
        write!(f, "{verb} resctrl group {}", self.directory.display())?;
        if !self.schemata.is_empty() {
            write!(f, ": {}", self.schemata.join(", "))?;
        }
        if self.monitor.is_some() { write!(f, "; monitored") } else { Ok(()) }
    }
}

/// Directories of resctrl that are no classes.
const RESERVED: [&str; 5] = ["info", "mon_data", "mon_groups", ".", ".."];

/// Reads `linux.intelRdt`. `None` if there is nothing that could be done.
pub fn plan(config: &IntelRdt, id: &ContainerId, host: &Host, findings: &mut Findings) -> Option<ResctrlPlan> {
    let field = Field::new("linux.intelRdt");
    let schemata = schemata(config, &field, findings);
    let class = config.clos_id.as_deref().filter(|class| !class.is_empty());
    if let Some(class) = class.filter(|class| *class != "/" && (class.contains(['/', '\0', '\n']) || RESERVED.contains(class))) {
        findings.problem(field.key("closID"), format!("{class:?}: expected the name of a directory, or /"));
    }
    let Some(root) = &host.resctrl else {
        findings.problem(field, "set, but no resctrl filesystem is mounted; expected one, usually on /sys/fs/resctrl");
        return None;
    };
    let (directory, make) = match class {
        None => (root.join(id.as_str()), Make::Own),
        Some("/") => (root.clone(), Make::Never),
        Some(class) if schemata.is_empty() => (root.join(class), Make::Never),
        Some(class) => (root.join(class), Make::IfMissing),
    };
    let expected = [&config.l3_cache_schema, &config.mem_bw_schema].into_iter().flatten().cloned().collect();
    let monitor = config.enable_monitoring.then(|| directory.join("mon_groups").join(id.as_str()));
    Some(ResctrlPlan { directory, make, expected, schemata, monitor })
}

fn schemata(config: &IntelRdt, field: &Field, findings: &mut Findings) -> Vec<String> {
    let (cache, bandwidth) = (&config.l3_cache_schema, &config.mem_bw_schema);
    if bandwidth.as_ref().is_some_and(|line| !line.starts_with("MB:")) {
        findings.problem(field.key("memBwSchema"), "expected a line that starts with MB:");
    }
    if cache.as_ref().is_some_and(|line| !line.starts_with("L3")) {
        findings.warning(field.key("l3CacheSchema"), "does not start with L3:, as it should");
    }
    let named = [(field.key("l3CacheSchema"), cache), (field.key("memBwSchema"), bandwidth)];
    let single = named.into_iter().filter_map(|(field, line)| Some((field, line.as_ref()?)));
    let listed = config.schemata.iter().enumerate().map(|(index, line)| (field.key("schemata").index(index), line));
    let mut lines = Vec::new();
    for (field, line) in single.chain(listed) {
        if line.contains(['\n', '\0']) {
            findings.problem(field, format!("{line:?}: expected one line"));
        }
        lines.push(line.clone());
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn planned(config: Value, root: Option<&str>) -> (Option<ResctrlPlan>, Vec<String>) {
        let host = Host { resctrl: root.map(PathBuf::from), ..Host::fixture() };
        let config: IntelRdt = serde_json::from_value(config).unwrap();
        let mut findings = Findings::default();
        let result = plan(&config, &"web".parse().unwrap(), &host, &mut findings);
        (result, findings.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_class_is_named_or_the_container_s_own() {
        let root = Some("/r");
        let make = |config| planned(config, root).0.map(|plan| (plan.directory, plan.make)).unwrap();
        assert_eq!(make(json!({})), ("/r/web".into(), Make::Own));
        assert_eq!(make(json!({ "closID": "/" })), ("/r".into(), Make::Never));
        assert_eq!(make(json!({ "closID": "gold" })), ("/r/gold".into(), Make::Never));
        assert_eq!(make(json!({ "closID": "gold", "schemata": ["L3:0=f"] })), ("/r/gold".into(), Make::IfMissing));
    }

    #[test]
    fn schemata_have_an_order() {
        let config =
            json!({ "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f", "schemata": ["L2:0=1"], "enableMonitoring": true });
        let plan = planned(config, Some("/r")).0.unwrap();
        assert_eq!(plan.schemata, ["L3:0=f", "MB:0=20", "L2:0=1"]);
        assert_eq!(plan.tasks(), &PathBuf::from("/r/web/mon_groups/web"));
    }

    #[test]
    fn problems_are_found() {
        assert!(planned(json!({}), None).1[0].contains("no resctrl filesystem is mounted"));
        for class in ["a/b", "..", "mon_groups", "../up"] {
            assert_eq!(planned(json!({ "closID": class }), Some("/r")).1.len(), 1, "{class}");
        }
        assert_eq!(planned(json!({ "memBwSchema": "0=20" }), Some("/r")).1.len(), 1);
        assert_eq!(planned(json!({ "schemata": ["L3:0=f\nMB:0=1"] }), Some("/r")).1.len(), 1);
    }
}
