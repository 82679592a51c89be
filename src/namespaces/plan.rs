//! Which namespaces are made and which are joined, from `linux.namespaces`.

use std::path::PathBuf;

use crate::host::Host;
use crate::plan::Findings;
use crate::process::capabilities::{SETGID, SETUID};
use crate::spec::{Field, IdMapping, Linux};

use super::idmap::{IdMap, Method, Which};
use super::steps::{ClockOffset, Kind};

/// The namespaces of a container: each kind at most once, made or joined; the others are the caller's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Those to be made, in the order of [`Kind::all`].
    pub new: Vec<Kind>,
    /// Those to be joined, in that order.
    pub joined: Vec<(Kind, PathBuf)>,
    fields: Vec<(Kind, Field)>,
}

impl Namespaces {
    /// True if this kind is made anew.
    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// True if this kind is joined.
    pub fn is_joined(&self, kind: Kind) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// True if the container has a namespace of this kind other than the caller's.
    pub fn has(&self, kind: Kind) -> bool {
        self.is_new(kind) || self.is_joined(kind)
    }

    /// The config path that asked for it.
    pub fn field(&self, kind: Kind) -> Field {
        let found = self.fields.iter().find(|(other, _)| *other == kind);
        found.map_or_else(|| Field::new("linux.namespaces"), |(_, field)| field.clone())
    }
}

/// Reads `linux.namespaces`.
pub fn namespaces(linux: &Linux, findings: &mut Findings) -> Namespaces {
    let list = Field::new("linux.namespaces");
    let mut result = Namespaces::default();
    for (index, entry) in linux.namespaces.iter().enumerate() {
        let field = list.index(index);
        let Some(kind) = Kind::from_spec(&entry.r#type) else {
            let known: Vec<&str> = Kind::all().map(Kind::spec_name).collect();
            findings
                .problem(field.key("type"), format!("unknown namespace type {:?}; expected {}", entry.r#type, known.join(", ")));
            continue;
        };
        if result.has(kind) {
            findings.problem(field.key("type"), format!("duplicate {kind} namespace; expected each type once"));
            continue;
        }
        match entry.path.as_deref().filter(|path| !path.is_empty()) {
            None => result.new.push(kind),
            Some(path) if !path.starts_with('/') => {
                findings.problem(field.key("path"), format!("relative path {path:?}; expected an absolute path"));
            }
            Some(path) => result.joined.push((kind, PathBuf::from(path))),
        }
        result.fields.push((kind, field));
    }
    result.new.sort();
    result.joined.sort();
    result
}

/// The id maps that the launcher writes, in order: group ids need setgroups settled first, the order does not matter otherwise.
pub fn id_maps(linux: &Linux, namespaces: &Namespaces, host: &Host, findings: &mut Findings) -> Vec<IdMap> {
    let maps = [
        (Which::Gid, &linux.gid_mappings, Field::new("linux.gidMappings")),
        (Which::Uid, &linux.uid_mappings, Field::new("linux.uidMappings")),
    ];
    if !namespaces.has(Kind::User) {
        for (which, entries, field) in &maps {
            if !entries.is_empty() {
                findings.problem(
                    field.clone(),
                    format!("{which} mappings without a user namespace; expected one in linux.namespaces"),
                );
            }
        }
        return Vec::new();
    }
    if namespaces.is_joined(Kind::User) {
        return Vec::new();
    }
    let mut result = Vec::new();
    for (which, entries, field) in maps {
        if entries.is_empty() {
            findings.problem(field, format!("no {which} mappings; a new user namespace needs at least one"));
            continue;
        }
        check_map(entries, &field, findings);
        result.push(IdMap { which, entries: entries.clone(), method: method(which, entries, host) });
    }
    // Both go the same way: a single gid cannot deny setgroups behind the back of newuidmap, and needs no helper either.
    result
}

/// The maps that a user namespace that is joined should have.
pub fn expected_maps(linux: &Linux, namespaces: &Namespaces) -> Vec<IdMap> {
    let maps = [(Which::Gid, &linux.gid_mappings), (Which::Uid, &linux.uid_mappings)];
    let given = maps.into_iter().filter(|(_, entries)| namespaces.is_joined(Kind::User) && !entries.is_empty());
    given.map(|(which, entries)| IdMap { which, entries: entries.clone(), method: Method::Direct }).collect()
}

/// `UID_GID_MAP_MAX_EXTENTS` of linux/user_namespace.h.
const MOST_ENTRIES: usize = 340;

/// Every entry of a map has to be a range of ids, and none may be mapped twice (user_namespaces(7)).
pub fn check_map(entries: &[IdMapping], field: &Field, findings: &mut Findings) {
    if entries.len() > MOST_ENTRIES {
        findings.problem(field.clone(), format!("{} entries: expected at most {MOST_ENTRIES}", entries.len()));
        return;
    }
    for (index, map) in entries.iter().enumerate() {
        let end = |start: u32| start.checked_add(map.size);
        if map.size == 0 || end(map.container_id).is_none() || end(map.host_id).is_none() {
            findings.problem(
                field.index(index),
                format!("size {} from {} to {}: expected a range of 32-bit ids", map.size, map.container_id, map.host_id),
            );
        } else if let Some(earlier) = entries[..index].iter().position(|other| overlap(other, map)) {
            let earlier = field.index(earlier);
            findings.problem(field.index(index), format!("maps ids that {earlier} maps, too; expected each once on either side"));
        }
    }
}

fn overlap(a: &IdMapping, b: &IdMapping) -> bool {
    let meet = |one: u32, other: u32| one < other.saturating_add(b.size) && other < one.saturating_add(a.size);
    meet(a.container_id, b.container_id) || meet(a.host_id, b.host_id)
}

fn method(which: Which, entries: &[IdMapping], host: &Host) -> Method {
    let (capability, own) = match which {
        Which::Uid => (SETUID, host.uid),
        Which::Gid => (SETGID, host.gid),
    };
    if host.can(capability) {
        return Method::Direct;
    }
    match entries {
        [map] if map.size == 1 && map.host_id == own => Method::Single,
        _ => Method::Helper,
    }
}

/// The id to be inside: 0 where that is mapped, else the first id that is.
pub fn root_id(entries: &[IdMapping]) -> u32 {
    if super::idmap::host_id(entries, 0).is_some() { 0 } else { entries.first().map_or(0, |map| map.container_id) }
}

/// The offsets of `linux.timeOffsets`.
pub fn time_offsets(linux: &Linux, namespaces: &Namespaces, findings: &mut Findings) -> Vec<ClockOffset> {
    let field = Field::new("linux.timeOffsets");
    if !linux.time_offsets.is_empty() && !namespaces.is_new(Kind::Time) {
        findings.problem(field.clone(), "clock offsets without a new time namespace; expected one in linux.namespaces");
    }
    let mut offsets = Vec::new();
    for (clock, offset) in &linux.time_offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            findings.problem(field.entry(clock), "unknown clock; expected monotonic or boottime");
        }
        if offset.nanosecs >= 1_000_000_000 {
            findings.problem(field.entry(clock).key("nanosecs"), format!("{}: expected less than one second", offset.nanosecs));
        }
        offsets.push(ClockOffset { clock: clock.clone(), seconds: offset.secs, nanoseconds: offset.nanosecs });
    }
    offsets
}
