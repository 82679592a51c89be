//! A user namespace for an ordinary user whose config has none, as crun makes one: nobody else may make the other namespaces and mounts.

use crate::host::Host;
use crate::rootfs::options::parse;
use crate::spec::{Field, IdMapping, Linux, Mount, Namespace, Spec};

use super::Findings;

/// What the config becomes, where it has to: a new user namespace in which root is the caller and the other ids are the caller's subordinate
/// ones; or, without such, one in which the id of the process is the caller. It is a warning: the ids are not those of the config.
pub fn user_namespace(spec: &Spec, host: &Host, findings: &mut Findings) -> Option<Spec> {
    let nothing = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&nothing);
    let has_maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if host.uid == 0 || host.privileged() || has_maps || linux.namespaces.iter().any(|namespace| namespace.r#type == "user") {
        return None;
    }
    let user = spec.process.as_ref().map(|process| (process.user.uid, process.user.gid)).unwrap_or_default();
    let ranges = host.subordinate.as_ref().filter(|ranges| !ranges.uids.is_empty() && !ranges.gids.is_empty());
    let (uids, gids) = match ranges {
        Some(ranges) => (from_zero(host.uid, &ranges.uids), from_zero(host.gid, &ranges.gids)),
        None => (single(user.0, host.uid), single(user.1, host.gid)),
    };
    let text = format!(
        "no user namespace; one is made because this caller does not have CAP_SYS_ADMIN: uids {}; gids {}",
        list(&uids),
        list(&gids)
    );
    findings.warning(Field::new("linux.namespaces"), text);
    let mut spec = spec.clone();
    for (index, mount) in spec.mounts.iter_mut().enumerate() {
        leave_unmapped_owners_out(mount, &uids, &gids, &Field::new("mounts").index(index), findings);
    }
    let linux = spec.linux.get_or_insert_with(Linux::default);
    linux.namespaces.push(Namespace { r#type: "user".to_owned(), ..Namespace::default() });
    (linux.uid_mappings, linux.gid_mappings) = (uids, gids);
    Some(spec)
}

/// Root is the own id, the rest follows from 1 on.
fn from_zero(own: u32, ranges: &[(u32, u32)]) -> Vec<IdMapping> {
    let mut map = vec![IdMapping { container_id: 0, host_id: own, size: 1 }];
    let mut next = 1u32;
    for (first, size) in ranges {
        let Some(end) = next.checked_add(*size) else { break };
        map.push(IdMapping { container_id: next, host_id: *first, size: *size });
        next = end;
    }
    map
}

/// The one id that everybody may map. A number that is no id is found and named where the process is planned.
fn single(inside: i64, own: u32) -> Vec<IdMapping> {
    vec![IdMapping { container_id: u32::try_from(inside).unwrap_or(0), host_id: own, size: 1 }]
}

fn list(map: &[IdMapping]) -> String {
    let entry = |map: &IdMapping| format!("{}+{} to {}", map.container_id, map.size, map.host_id);
    map.iter().map(entry).collect::<Vec<_>>().join(", ")
}

/// Filesystems refuse an owner that means nothing in the namespace in which they are made.
fn leave_unmapped_owners_out(mount: &mut Mount, uids: &[IdMapping], gids: &[IdMapping], field: &Field, findings: &mut Findings) {
    if parse(&mount.options).bind.is_some() {
        return;
    }
    let is_mapped = |map: &[IdMapping], id: &str| {
        id.parse::<u32>()
            .map_or(true, |id| map.iter().any(|entry| id >= entry.container_id && id - entry.container_id < entry.size))
    };
    let mut dropped = Vec::new();
    mount.options.retain(|option| {
        let keep = match option.split_once('=') {
            Some(("uid", id)) => is_mapped(uids, id),
            Some(("gid", id)) => is_mapped(gids, id),
            _ => true,
        };
        dropped.extend((!keep).then(|| option.clone()));
        keep
    });
    if !dropped.is_empty() {
        findings
            .warning(field.key("options"), format!("{} is left out: it is not mapped in the user namespace", dropped.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::host::subordinate::Subordinate;

    fn spec() -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.3.0",
            "process": { "user": { "uid": 7, "gid": 8 }, "cwd": "/", "args": ["sh"] },
            "mounts": [{ "destination": "/dev/pts", "type": "devpts", "options": ["gid=5", "mode=0620"] }],
            "linux": { "namespaces": [{ "type": "mount" }] },
        }))
        .unwrap()
    }

    fn entries(map: &[IdMapping]) -> Vec<(u32, u32, u32)> {
        map.iter().map(|map| (map.container_id, map.host_id, map.size)).collect()
    }

    #[test]
    fn with_subordinate_ids() {
        let subordinate = Some(Subordinate { uids: vec![(100, 10), (500, 5)], gids: vec![(200, 10)] });
        let mut findings = Findings::default();
        let host = Host { subordinate, ..Host::fixture_rootless() };
        let linux = user_namespace(&spec(), &host, &mut findings).unwrap().linux.unwrap();
        assert_eq!(entries(&linux.uid_mappings), [(0, 1000, 1), (1, 100, 10), (11, 500, 5)]);
        assert_eq!(entries(&linux.gid_mappings), [(0, 1000, 1), (1, 200, 10)]);
        assert_eq!((linux.namespaces.len(), findings.warnings.len()), (2, 1), "{findings:?}");
    }

    #[test]
    fn with_the_own_id_alone() {
        let mut findings = Findings::default();
        let changed = user_namespace(&spec(), &Host::fixture_rootless(), &mut findings).unwrap();
        assert_eq!(changed.mounts[0].options, ["mode=0620"]);
        let linux = changed.linux.as_ref().unwrap();
        assert_eq!((entries(&linux.uid_mappings), entries(&linux.gid_mappings)), (vec![(7, 1000, 1)], vec![(8, 1000, 1)]));
        let said: Vec<String> = findings.warnings.iter().map(ToString::to_string).collect();
        let text =
            "no user namespace; one is made because this caller does not have CAP_SYS_ADMIN: uids 7+1 to 1000; gids 8+1 to 1000";
        assert_eq!(said[0], format!("linux.namespaces: {text}"));
        assert_eq!(said[1], "mounts[0].options: gid=5 is left out: it is not mapped in the user namespace");
        assert!(user_namespace(&changed, &Host::fixture_rootless(), &mut findings).is_none(), "it has one now");
        assert!(user_namespace(&spec(), &Host::fixture(), &mut findings).is_none(), "root needs none");
    }
}
