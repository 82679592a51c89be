//! From `linux.cgroupsPath` and `linux.resources` to directories and writes. No system call is made here.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::controllers;
use super::devices;
use super::facts::Facts;
use super::steps::{CgroupRecord, Place, Recorded, Step, Tolerance, Version, Write};
use super::systemd::UnitPlan;
use crate::host::delegation::Delegation;
use crate::plan::{Findings, Origin, Planned, annotations};
use crate::spec::{Device, Field, Resources};

/// What planning starts from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The container's id, already validated: it is used as a directory name.
    pub id: &'a str,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a str>,
    /// `linux.resources`.
    pub resources: Option<&'a Resources>,
    /// `linux.devices`: they are allowed unless a rule says otherwise.
    pub devices: &'a [Device],
    /// The machine.
    pub facts: &'a Facts,
    /// True for root of the initial user namespace. Anybody else has the limits that were delegated to them, and no device
    /// filter: the kernel lets only root load one, and in a user namespace no usable device node can be made anyway.
    pub privileged: bool,
    /// The host's uid that shall own the version 2 directory (runtime-spec, "Cgroup ownership"), if it shall be given away.
    pub owner: Option<u32>,
    /// With systemd, a directory below its scope that is the container's in place of the scope (`run.oci.systemd.subgroup`).
    pub subgroup: Option<&'a str>,
    /// A directory below the container's for the program, which manages it (`run.oci.delegate-cgroup`).
    pub delegated: Option<&'a str>,
}

/// Everything that will be done about control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CgroupPlan {
    /// The container's directory in each hierarchy.
    pub places: Vec<Planned<Place>>,
    /// What is done to them, in this order.
    pub steps: Vec<Planned<Step>>,
    /// The systemd unit that makes the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitPlan>,
    /// A directory below that of version 2, into which init is moved once it has its cgroup namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegated: Option<String>,
}

impl CgroupPlan {
    /// One line for each directory and step, with its origin.
    pub fn lines(&self) -> Vec<String> {
        let places = self.places.iter().map(|planned| format!("make {} ({})", planned.step, planned.origin));
        let properties = self.unit.iter().flat_map(|unit| &unit.properties);
        let properties = properties.map(|planned| format!("{} ({})", planned.step, planned.origin));
        let steps = self.steps.iter().map(|planned| format!("{} ({})", planned.step, planned.origin));
        places.chain(properties).chain(steps).collect()
    }

    /// The directory in the unified hierarchy.
    pub fn v2(&self) -> Option<&Place> {
        self.places.iter().map(|planned| &planned.step).find(|place| place.version == Version::V2)
    }
}

/// Where the config wants the container's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Below the mount point of each hierarchy.
    FromRoot(PathBuf),
    /// Below the caller's own directory.
    BelowOwn(PathBuf),
}

impl Want {
    /// Interprets `linux.cgroupsPath`; an empty one counts as absent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(id: &str, path: Option<&str>, privileged: bool) -> Result<Self, String> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            // Not in a directory that all containers share: to make and to remove one in each hierarchy costs what the container's own does.
            let path = PathBuf::from(format!("rt-{id}"));
            return Ok(if privileged { Self::FromRoot(path) } else { Self::BelowOwn(path) });
        };
        // Cleaning `..` as if the mount point were a root would silently give a place that nobody asked for.
        if path.split('/').any(|part| part == "..") || path.contains('\0') {
            return Err(format!("expected a path without `..`, found {path:?}"));
        }
        let clean: PathBuf = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        match (clean.as_os_str().is_empty(), path.starts_with('/')) {
            (true, _) => Err(format!("expected a path below the root cgroup, found {path:?}")),
            (false, true) => Ok(Self::FromRoot(clean)),
            (false, false) => Ok(Self::BelowOwn(clean)),
        }
    }

    /// The directory relative to the mount point of a hierarchy in which the caller is in `own`.
    pub fn below(&self, own: &Path) -> PathBuf {
        match self {
            Self::FromRoot(path) => path.clone(),
            Self::BelowOwn(path) => own.strip_prefix("/").unwrap_or(own).join(path),
        }
    }
}

/// Plans the control groups of a new container.
pub fn plan(input: &Input<'_>, findings: &mut Findings) -> CgroupPlan {
    let field = Field::from("linux.cgroupsPath");
    let want = match Want::new(input.id, input.cgroups_path, input.privileged) {
        Ok(want) => want,
        Err(text) => {
            findings.problem(field, text);
            return CgroupPlan::default();
        }
    };
    let origin = match input.cgroups_path.filter(|path| !path.is_empty()) {
        Some(_) => Origin::Config(field),
        None => Origin::Default("cgroup path"),
    };
    if input.subgroup.is_some() {
        findings
            .warning(annotations::field(annotations::SUBGROUP), "left out: systemd does not make the cgroup (--systemd-cgroup)");
    }
    let places = places(input.facts, &want);
    if let (Origin::Config(field), true, false) = (&origin, places.is_empty(), input.privileged) {
        findings.warning(
            field.clone(),
            "not applied: this user may make no control groups there; the container stays in the caller's",
        );
    }
    plan_places(input, places, true, &origin, findings)
}

/// Plans what is done to these directories. `accounting`: every controller is enabled, also those that nobody needs.
pub(super) fn plan_places(
    input: &Input<'_>,
    places: Vec<Place>,
    accounting: bool,
    origin: &Origin,
    findings: &mut Findings,
) -> CgroupPlan {
    let delegation = input.facts.delegation.as_ref();
    let mut builder = Builder { accounting, delegation, ..Builder::new(places, input.privileged, findings) };
    if let Some(resources) = input.resources {
        controllers::plan(&mut builder, resources);
    }
    if input.privileged {
        devices::plan(&mut builder, input.resources.map_or(&[], |resources| &resources.devices), input.devices);
    } else if let Some(resources) = input.resources {
        devices::unprivileged(&resources.devices, builder.findings);
    }
    builder.delegate(input.owner);
    let delegated = input.delegated.filter(|name| builder.make_child(name, input.owner)).map(str::to_owned);
    CgroupPlan { delegated, ..builder.finish(origin) }
}

/// Plans a change of the limits of an existing container; that of its devices is [`devices::plan_change`].
pub fn plan_update(resources: &Resources, record: &CgroupRecord, privileged: bool, findings: &mut Findings) -> CgroupPlan {
    let mut builder = Builder { privileged, ..Builder::for_record(record, findings) };
    controllers::plan(&mut builder, resources);
    builder.finish(&Origin::Default("the container's cgroup"))
}

/// The directories that the caller can make.
fn places(facts: &Facts, want: &Want) -> Vec<Place> {
    let v1 = facts.v1.iter().filter(|hierarchy| hierarchy.writable).map(|hierarchy| Place {
        version: Version::V1,
        controllers: hierarchy.controllers.clone(),
        mount: hierarchy.mount.clone(),
        path: want.below(&hierarchy.own),
    });
    let v2 = facts.v2.iter().filter(|unified| unified.writable).map(|unified| Place {
        version: Version::V2,
        controllers: unified.controllers.clone(),
        mount: unified.mount.clone(),
        path: want.below(&unified.own),
    });
    v1.chain(v2).collect()
}

/// Where a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// In the version 1 hierarchy of this index.
    V1(usize),
    /// In the unified hierarchy, which has this index.
    V2(usize),
}

/// Collects the steps; the controllers' planners write into it.
pub(super) struct Builder<'a> {
    places: Vec<Place>,
    privileged: bool,
    accounting: bool,
    delegation: Option<&'a Delegation>,
    steps: Vec<Planned<Step>>,
    needed: Vec<String>,
    /// For problems and warnings.
    pub findings: &'a mut Findings,
}

impl<'a> Builder<'a> {
    fn new(places: Vec<Place>, privileged: bool, findings: &'a mut Findings) -> Self {
        Self { places, privileged, accounting: true, delegation: None, steps: Vec::new(), needed: Vec::new(), findings }
    }

    /// For a change of a container that exists, which a privileged caller asks for.
    pub fn for_record(record: &CgroupRecord, findings: &'a mut Findings) -> Self {
        Self::new(record.directories.iter().map(|recorded: &Recorded| recorded.place.clone()).collect(), true, findings)
    }

    /// The steps alone.
    pub fn into_steps(self) -> Vec<Planned<Step>> {
        self.steps
    }

    /// The unified hierarchy's index.
    pub fn unified(&self) -> Option<usize> {
        self.places.iter().position(|place| place.version == Version::V2)
    }

    /// True if version 1 has no controller (a named hierarchy has none).
    fn is_pure(&self) -> bool {
        let has_none = |place: &Place| place.controllers.iter().all(|name| name.starts_with("name="));
        self.places.iter().all(|place| place.version == Version::V2 || has_none(place))
    }

    /// Where a controller is, by its names in both versions; nothing is said if it is nowhere.
    pub fn find(&self, v1: &str, v2: &str) -> Option<Site> {
        let at = |version, name: &str| self.places.iter().position(|place| place.version == version && place.has(name));
        at(Version::V1, v1).map(Site::V1).or_else(|| at(Version::V2, v2).map(Site::V2))
    }

    /// Where a controller is that a field asks for. A privileged caller must get it, others may lack the delegation.
    pub fn locate(&mut self, v1: &str, v2: &str, field: &Field) -> Option<Site> {
        let site = self.find(v1, v2);
        if site.is_none() {
            let names = if v1 == v2 { format!("`{v1}`") } else { format!("`{v1}` (version 1) or `{v2}` (version 2)") };
            self.missing(field, &format!("the cgroup controller {names}"), v2);
        }
        site
    }

    /// Says that something is not there; `controller` is its name in version 2, if it has one.
    pub fn missing(&mut self, field: &Field, what: &str, controller: &str) {
        if self.privileged {
            self.findings
                .problem(field.clone(), format!("expected {what} to be available, found that it is not mounted or not enabled"));
            return;
        }
        let why = match self.delegation {
            Some(delegation) if !controller.is_empty() => format!(": {}", delegation.missing(controller)),
            _ => String::new(),
        };
        self.findings.warning(field.clone(), format!("not applied: {what} is not available to this user{why}"));
    }

    /// A setting of version 1 that has no counterpart: the specification demands an error.
    pub fn no_counterpart(&mut self, field: Field) {
        self.findings.problem(field, "expected a setting that cgroup v2 has, found one of cgroup v1 without a counterpart");
    }

    /// Adds a write; the tolerance is that for a limit which the caller may or may not be allowed to set.
    pub fn set(&mut self, site: Site, controller: &str, file: &str, value: impl ToString, field: &Field) -> &mut Write {
        let place = match site {
            Site::V1(place) => place,
            Site::V2(place) => {
                self.need(controller);
                place
            }
        };
        let tolerance = if self.privileged { Tolerance::Required } else { Tolerance::WarnIfUnsupported };
        let (controller, file) = (controller.to_owned(), file.to_owned());
        let write = Write { place, controller, file, value: value.to_string(), tolerance, again: false, instead: None };
        self.push(Step::Write(write), field.clone());
        match self.steps.last_mut().map(|planned| &mut planned.step) {
            Some(Step::Write(write)) => write,
            _ => unreachable!("a write has just been pushed"),
        }
    }

    /// Notes that a controller of version 2 has to be enabled.
    fn need(&mut self, controller: &str) {
        if controller != "cgroup" && !self.needed.iter().any(|name| name == controller) {
            self.needed.push(controller.to_owned());
        }
    }

    /// Adds a step.
    pub fn push(&mut self, step: Step, origin: impl Into<Origin>) {
        self.steps.push(Planned::new(step, origin));
    }

    fn delegate(&mut self, owner: Option<u32>) {
        // Version 1 is never given away: its delegation is not secure (runtime-spec, "Cgroup ownership").
        if let (Some(uid), Some(place)) = (owner, self.unified()) {
            self.push(Step::Delegate { place, uid }, Origin::Default("cgroup ownership"));
        }
    }

    /// A directory for the program. False where nothing is given away: the delegation of version 1 is not secure.
    fn make_child(&mut self, name: &str, owner: Option<u32>) -> bool {
        let field = annotations::field(annotations::DELEGATED);
        let Some(place) = self.unified().filter(|_| self.is_pure()) else {
            self.findings.warning(field, "left out: expected cgroup version 2 alone, with a directory that the caller can make");
            return false;
        };
        self.push(Step::MakeChild { place, name: name.to_owned(), owner }, field);
        true
    }

    /// What to enable in the unified hierarchy: everything on a pure host, for the sake of accounting; on a hybrid one only
    /// what is needed, since enabling a controller there takes it away from version 1.
    fn enable(&self) -> Option<Planned<Step>> {
        let place = self.unified()?;
        let mut controllers = if self.is_pure() && self.accounting { self.places[place].controllers.clone() } else { Vec::new() };
        controllers.extend(
            self.needed.iter().filter(|name| !self.places[place].has(name) || !self.is_pure() || !self.accounting).cloned(),
        );
        let tolerance = if self.privileged { Tolerance::Required } else { Tolerance::WarnIfUnsupported };
        let step = Step::Enable { place, controllers, required: self.needed.clone(), tolerance };
        let enables = matches!(&step, Step::Enable { controllers, .. } if !controllers.is_empty());
        enables.then(|| Planned::new(step, Origin::Default("cgroup controllers")))
    }

    fn finish(self, origin: &Origin) -> CgroupPlan {
        let steps = self.enable().into_iter().chain(self.steps).collect();
        let places = self.places.into_iter().map(|place| Planned::new(place, origin.clone())).collect();
        CgroupPlan { places, steps, unit: None, delegated: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn want(path: &str) -> Result<Want, String> {
        Want::new("web", Some(path), true)
    }

    #[test]
    fn paths() {
        assert_eq!(want("/a//b/./c/"), Ok(Want::FromRoot("a/b/c".into())));
        assert_eq!(want("a/b"), Ok(Want::BelowOwn("a/b".into())));
        assert_eq!(want(""), Ok(Want::FromRoot("rt-web".into())));
        assert_eq!(Want::new("web", None, false), Ok(Want::BelowOwn("rt-web".into())));
        assert_eq!(want("a:b:c"), Ok(Want::BelowOwn("a:b:c".into())));
        assert_eq!(want("a..b"), Ok(Want::BelowOwn("a..b".into())));
    }

    #[test]
    fn paths_that_climb_or_name_the_root_are_refused() {
        for path in ["..", "../x", "/../..", "a/../../x", "/a/..", "a\0b"] {
            assert!(want(path).unwrap_err().starts_with("expected a path without `..`"), "{path:?}");
        }
        for path in ["/", ".", "/./", "//"] {
            assert!(want(path).unwrap_err().starts_with("expected a path below the root"), "{path:?}");
        }
    }

    #[test]
    fn places_on_a_hybrid_host() {
        let facts = Facts::hybrid_fixture();
        let input = Input {
            id: "web",
            cgroups_path: Some("x"),
            resources: None,
            devices: &[],
            facts: &facts,
            privileged: true,
            owner: None,
            subgroup: None,
            delegated: None,
        };
        let plan = plan(&input, &mut Findings::default());
        let paths: Vec<String> = plan.places.iter().map(|place| place.step.directory().display().to_string()).collect();
        assert_eq!(paths.len(), 10);
        assert_eq!(paths[0], "/sys/fs/cgroup/cpu/own/x");
        assert_eq!(paths[9], "/sys/fs/cgroup/unified/own/x");
        assert!(matches!(plan.steps[0].step, Step::DeviceList { .. }), "no controller is enabled that nobody needs");
        assert_eq!(plan.places[0].step.levels(), [PathBuf::from("own"), "own/x".into()]);
    }
}
