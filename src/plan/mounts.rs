//! The plan of mounts for a container that exists: `rt mounts add` and `rt mounts remove`.

use std::fmt;
use std::path::Path;

use crate::host::Host;
use crate::lsm;
use crate::namespaces::plan::{namespaces, root_id};
use crate::namespaces::{Kind, Namespaces};
use crate::rootfs::options::PropagationChange;
use crate::rootfs::plan::{Input, mount_step};
use crate::rootfs::steps::{MountKind, MountStep, OpenedBy};
use crate::rootfs::{InRoot, mounts};
use crate::spec::{Field, Linux, Mount, Spec};
use crate::state::Record;

use super::Findings;

/// Mounts to be added, and what the process needs that attaches them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adding {
    /// In the order in which they are attached. A bind mount is opened by the launcher, or, for a caller who has no rights over the host's
    /// mounts, in a copy of its mount namespace that belongs to the container's user namespace ([`OpenedBy::Init`]).
    pub steps: Vec<MountStep>,
    /// The namespaces of the container that are joined.
    pub joins: Joins,
}

impl fmt::Display for Adding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.joins)?;
        for step in &self.steps {
            let opener = match &step.kind {
                MountKind::Bind { opened_by: OpenedBy::Launcher, .. } => " (opened by the launcher)",
                MountKind::Bind { .. } => " (opened in the container's user namespace)",
                _ => "",
            };
            writeln!(f, "{step}{opener}")?;
        }
        Ok(())
    }
}

/// Which namespaces of the container are joined to work in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// Its user namespace, and the ids to have there.
    pub user: Option<(u32, u32)>,
    /// The others: a sysfs shows the network namespace, an mqueue the ipc namespace, of who makes it.
    pub kinds: Vec<Kind>,
}

impl fmt::Display for Joins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.map(|(uid, gid)| format!("user, as {uid}:{gid}"));
        let others = self.kinds.iter().map(|kind| kind.spec_name().to_owned());
        let all: Vec<String> = user.into_iter().chain(others).collect();
        write!(f, "join the namespaces of the container: {}", all.join(", "))
    }
}

/// Where nothing is mounted: what is there is the kernel's, and much of what protects a container is mounted there.
const KERNEL_S: [&str; 2] = ["/proc", "/sys"];

/// Plans the mounts of a list in the form of `mounts` in config.json. Sources start in the bundle, as they do there.
pub fn add(list: &[Mount], record: &Record, host: &Host, findings: &mut Findings) -> Adding {
    let linux = Linux {
        namespaces: record.namespaces.clone(),
        uid_mappings: record.uid_mappings.clone(),
        gid_mappings: record.gid_mappings.clone(),
        ..Linux::default()
    };
    let namespaces = namespaces(&linux, findings);
    check_namespace(&namespaces, findings);
    let spec = Spec::default();
    let input = Input {
        spec: &spec,
        linux: &linux,
        namespaces: &namespaces,
        host,
        bundle: &record.bundle,
        no_pivot: false,
        cgroup_directories: &[],
        notify: None,
    };
    let label = lsm::plan::mount_label(record.mount_label.as_deref(), host, findings);
    let label = label.map(|label| (super::annotations::mount_context(&record.annotations, findings), label));
    let mut steps = Vec::new();
    for (index, mount) in list.iter().enumerate() {
        let field = Field::new("mounts").index(index);
        let Some(mut step) = mount_step(&input, index, mount, label, &field, findings) else { continue };
        check(&step, mount, &field, findings);
        if host.privileged() {
            open_on_the_host(&mut step);
        }
        steps.push(step);
    }
    let mut joins = joins(&namespaces, record);
    let makes =
        |name: &str| steps.iter().any(|step| matches!(&step.kind, MountKind::Filesystem { fstype, .. } if fstype == name));
    for (fstype, kind) in [("sysfs", Kind::Network), ("mqueue", Kind::Ipc)] {
        joins.kinds.extend((makes(fstype) && namespaces.has(kind)).then_some(kind));
    }
    Adding { steps, joins }
}

/// Plans which destinations of such a list are taken away: the last one first, so that the list that added them can be used again.
pub fn remove(list: &[Mount], record: &Record, findings: &mut Findings) -> (Vec<InRoot>, Joins) {
    let linux = Linux { namespaces: record.namespaces.clone(), ..Linux::default() };
    let namespaces = namespaces(&linux, findings);
    check_namespace(&namespaces, findings);
    let mut found: Vec<InRoot> = Vec::new();
    for (index, mount) in list.iter().enumerate().rev() {
        let destination = InRoot::new(&mount.destination);
        let field = Field::new("mounts").index(index).key("destination");
        if found.contains(&destination) {
            findings.problem(field, format!("{destination} is listed twice; expected each destination once"));
        } else if !record.added.iter().any(|added| added.destination == destination.as_path()) {
            let text = format!("{destination} was not mounted by `rt mounts add`; expected a mount that was");
            findings.problem(field, text);
        } else {
            found.push(destination);
        }
    }
    (found, joins(&namespaces, record))
}

fn joins(namespaces: &Namespaces, record: &Record) -> Joins {
    let user = namespaces.has(Kind::User).then(|| (root_id(&record.uid_mappings), root_id(&record.gid_mappings)));
    Joins { user, kinds: vec![Kind::Mount] }
}

/// A mount namespace that others have, too, keeps what is mounted there when the container is gone.
fn check_namespace(namespaces: &Namespaces, findings: &mut Findings) {
    if !namespaces.is_new(Kind::Mount) {
        let text =
            "the container has no mount namespace of its own; expected one, because its mounts would stay when it is deleted";
        findings.problem(Field::new("linux.namespaces"), text);
    }
}

fn check(step: &MountStep, mount: &Mount, field: &Field, findings: &mut Findings) {
    let below = |place: &str| step.destination.as_path().starts_with(place);
    if let Some(place) = KERNEL_S.into_iter().find(|place| below(place)) {
        let text = format!("{} is in {place}; expected another place in a container that exists", step.destination);
        findings.problem(field.key("destination"), text);
    } else if step.destination.as_path() == Path::new("/") {
        findings.problem(field.key("destination"), "/ is the root of the container; expected a place below it");
    }
    let fstype = mount.r#type.as_deref().unwrap_or_default();
    let refused = match &step.kind {
        MountKind::Remount { .. } => {
            Some((field.key("options"), "remount: expected a new mount, because what was there is not known".to_owned()))
        }
        MountKind::Cgroup(_) => Some((field.key("type"), format!("{fstype}: expected it in config.json"))),
        MountKind::Filesystem { fstype, .. } if fstype == "proc" => {
            Some((field.key("type"), "proc: expected it in config.json".to_owned()))
        }
        kind @ MountKind::Filesystem { .. } if mounts::needs_mount_call(kind) => {
            let text = "iversion or an option of more than 255 bytes: expected it in config.json";
            Some((field.key("options"), text.to_owned()))
        }
        MountKind::Filesystem { .. } if step.copy_up => {
            let text = "tmpcopyup: expected it in config.json, because a running container can change what is copied";
            Some((field.key("options"), text.to_owned()))
        }
        MountKind::Bind { .. } if step.links.copy => {
            Some((field.key("options"), "copy-symlink: expected it in config.json, because it mounts nothing".to_owned()))
        }
        MountKind::Filesystem { .. } | MountKind::Bind { .. } => None,
    };
    if let Some((field, text)) = refused {
        findings.problem(field, text);
    }
}

/// With rights over the host's mounts a source is opened there, as the caller sees it.
fn open_on_the_host(step: &mut MountStep) {
    let MountKind::Bind { opened_by, .. } = &mut step.kind else { return };
    *opened_by = OpenedBy::Launcher;
    if step.propagation.is_empty() {
        // The clone is a peer of the host's mount: what is mounted below it in the container must not come up on the host.
        step.propagation.push(PropagationChange { flag: libc::MS_SLAVE, recursive: true });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn record(namespaces: &[&str]) -> Record {
        let list: Vec<_> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        serde_json::from_value(json!({
            "layout": 1, "id": "x", "phase": "made", "bundle": "/b", "rootfs": "/b/rootfs", "created": "", "owner": 0, "annotations": {},
            "cgroup": { "directories": [] }, "namespaces": list, "uidMappings": map, "gidMappings": map,
            "added": [{ "destination": "/old", "mount": 7 }],
        }))
        .unwrap()
    }

    fn list(value: serde_json::Value) -> Vec<Mount> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn who_has_rights_opens_sources() {
        let mounts = list(
            json!([{ "destination": "/a", "source": "here", "options": ["bind"] }, { "destination": "/q", "type": "mqueue" }]),
        );
        for (host, opener) in [(Host::fixture(), OpenedBy::Launcher), (Host::fixture_rootless(), OpenedBy::Init)] {
            let mut findings = Findings::default();
            let adding = add(&mounts, &record(&["mount", "user", "ipc"]), &host, &mut findings);
            assert_eq!(findings, Findings::default());
            let source = "/b/here".into();
            assert_eq!(adding.steps[0].kind, MountKind::Bind { source, recursive: false, opened_by: opener });
            assert_eq!(adding.joins, Joins { user: Some((0, 0)), kinds: vec![Kind::Mount, Kind::Ipc] });
        }
    }

    #[test]
    fn only_what_was_added_is_removed() {
        let mut findings = Findings::default();
        let (found, joins) = remove(&list(json!([{ "destination": "old/" }])), &record(&["mount"]), &mut findings);
        assert_eq!((found, joins.user, findings.problems.len()), (vec![InRoot::new("/old")], None, 0));
        remove(
            &list(json!([{ "destination": "/old" }, { "destination": "/old" }, { "destination": "/" }])),
            &record(&[]),
            &mut findings,
        );
        let said: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
        assert!(
            said.len() == 3 && said[0].contains("no mount namespace of its own") && said[2].contains("listed twice"),
            "{said:?}"
        );
    }
}
