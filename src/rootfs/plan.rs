//! From `root`, `mounts`, `linux.devices`, masked and read-only paths, sysctl and the host name to steps.

use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::lsm;
use crate::namespaces::plan::check_map;
use crate::namespaces::{Kind, Namespaces};
use crate::plan::{Findings, Origin, Planned};
use crate::spec::{Field, Linux, Mount, Spec};
use crate::sys::mount::attr;

use super::cgroup_mount::{CgroupMount, HierarchyMount};
use super::mounts;
use super::options::{self, Parsed, PropagationChange};
use super::root::InRoot;
use super::steps::{MountKind, MountMap, MountStep, OpenedBy, RootfsStep, Switch};

mod contents;

/// What planning the root filesystem looks at.
#[derive(Debug)]
pub struct Input<'a> {
    /// config.json.
    pub spec: &'a Spec,
    /// Its `linux` section.
    pub linux: &'a Linux,
    /// The namespaces of the container.
    pub namespaces: &'a Namespaces,
    /// The machine.
    pub host: &'a Host,
    /// The bundle, absolute.
    pub bundle: &'a Path,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// The container's directory in each hierarchy: mount point of the hierarchy and path on the host.
    pub cgroup_directories: &'a [(PathBuf, PathBuf)],
    /// The folder of the notify socket, if there is one.
    pub notify: Option<&'a Path>,
}

/// The steps of init, in three parts: what lies between them is the business of hooks.
#[derive(Debug, Default)]
pub struct RootfsPlan {
    /// Building the tree.
    pub build: Vec<Planned<RootfsStep>>,
    /// Becoming its inhabitant, and what has to come late.
    pub enter: Vec<Planned<RootfsStep>>,
    /// The rootfs, absolute.
    pub rootfs: PathBuf,
}

/// The folder of the notify socket, which the container gets read-only as its last mount.
fn notify_folder(input: &Input<'_>, folder: &Path) -> Planned<RootfsStep> {
    let opened_by = if launcher_opens(input) { OpenedBy::Launcher } else { OpenedBy::Init };
    let set = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let step = MountStep {
        index: input.spec.mounts.len(),
        destination: InRoot::new(crate::notify::INSIDE),
        kind: MountKind::Bind { source: folder.to_owned(), recursive: false, opened_by },
        own: options::Change { set, clear: 0 },
        all: options::Change::default(),
        propagation: Vec::new(),
        copy_up: false,
        plain_destination: false,
        links: options::Links::default(),
        id_map: None,
        root_label: None,
    };
    Planned::new(RootfsStep::Mount(Box::new(step)), Origin::Default("NOTIFY_SOCKET of the caller"))
}

type Steps = Vec<Planned<RootfsStep>>;

/// Plans the root filesystem.
pub fn plan(input: &Input<'_>, findings: &mut Findings) -> RootfsPlan {
    let mut result = RootfsPlan::default();
    let Some(root) = &input.spec.root else {
        findings.problem(Field::new("root"), "missing; expected an object with the path of the root filesystem");
        return result;
    };
    if root.path.is_empty() {
        findings.problem(Field::new("root.path"), "empty; expected the path of the root filesystem");
    }
    result.rootfs = normal(&input.bundle.join(&root.path));
    let own_mounts = input.namespaces.is_new(Kind::Mount);
    let build = &mut result.build;
    if own_mounts {
        build.push(initial_propagation(input.linux));
    }
    let opened_by = if launcher_opens(input) { OpenedBy::Launcher } else { OpenedBy::Init };
    let attach = RootfsStep::AttachRoot { path: result.rootfs.clone(), opened_by };
    build.push(Planned::new(attach, Field::new("root.path")));
    mounts(input, build, findings);
    let made_read_only = writable_until_filled(input.linux, build);
    build.extend(input.notify.map(|folder| notify_folder(input, folder)));
    if contents::provides_dev(input.spec) {
        contents::devices(input, build, findings);
    } else if !input.linux.devices.is_empty() {
        findings.warning(Field::new("linux.devices"), "left out: a bind mount brings a /dev that is complete");
    }
    // Hooks find the container as it is configured, but for what they may still have to reach.
    contents::names(input, build, findings);
    let enter = &mut result.enter;
    enter.extend(made_read_only);
    if own_mounts {
        contents::paths(input.linux, enter, findings);
        if root.readonly {
            enter.push(Planned::new(RootfsStep::ReadonlyRoot, Field::new("root.readonly")));
        }
    } else {
        without_own_mounts(input, findings);
    }
    // After the hooks: they may bring the network device that a parameter is about.
    contents::sysctls(input, enter, findings);
    enter.push(switch(input, own_mounts));
    if let Some(word) = input.linux.rootfs_propagation.as_deref().filter(|word| !word.is_empty()) {
        root_propagation(word, own_mounts, enter, findings);
    }
    result
}

/// What would have to change mounts that others see, too.
fn without_own_mounts(input: &Input<'_>, findings: &mut Findings) {
    if input.spec.root.as_ref().is_some_and(|root| root.readonly) {
        findings.problem(Field::new("root.readonly"), "true without a mount namespace; expected one in linux.namespaces");
    }
    let linux = input.linux;
    let lists = [("linux.maskedPaths", &linux.masked_paths), ("linux.readonlyPaths", &linux.readonly_paths)];
    let given = lists.iter().filter(|(_, list)| !list.is_empty()).map(|(name, _)| *name);
    let propagation = linux.rootfs_propagation.as_ref().map(|_| "linux.rootfsPropagation");
    for name in given.chain(propagation) {
        findings.warning(Field::new(name), "not applied: the container has no new mount namespace");
    }
}

/// Removes `.` and doubled slashes; links are left to the kernel.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}

/// A caller with privileges loses them with the user namespace, and with them the way to its own files.
fn launcher_opens(input: &Input<'_>) -> bool {
    let changes_user = input.namespaces.has(Kind::User) || input.namespaces.is_joined(Kind::Mount);
    changes_user && input.host.privileged()
}

fn initial_propagation(linux: &Linux) -> Planned<RootfsStep> {
    // Only a private tree is more than what a slave one gives; sharing is for the mounts that ask for it, which are opened
    // outside of this namespace (see `source_opener`).
    let private = linux.rootfs_propagation.as_deref().is_some_and(|word| matches!(word, "private" | "rprivate"));
    let flag = if private { libc::MS_PRIVATE } else { libc::MS_SLAVE };
    let change = PropagationChange { flag, recursive: true };
    Planned::new(RootfsStep::Propagation(change), Origin::Default("mounts of the container stay in the container"))
}

fn root_propagation(word: &str, own_mounts: bool, steps: &mut Steps, findings: &mut Findings) {
    let field = Field::new("linux.rootfsPropagation");
    let Some(change) = options::propagation(word) else {
        let expected = "shared, slave, private, unbindable, or one of these with an r in front";
        findings.problem(field, format!("unknown propagation {word:?}; expected {expected}"));
        return;
    };
    if own_mounts {
        steps.push(Planned::new(RootfsStep::RootPropagation(change), field));
    }
}

fn switch(input: &Input<'_>, own_mounts: bool) -> Planned<RootfsStep> {
    let (how, origin) = match (own_mounts, input.no_pivot) {
        (false, _) => (Switch::Chroot, Origin::Default("no mount namespace of its own")),
        (true, true) => (Switch::Move, Origin::Flag("--no-pivot")),
        (true, false) => (Switch::Pivot, Origin::Config(Field::new("root.path"))),
    };
    Planned::new(RootfsStep::SwitchRoot(how), origin)
}

fn mounts(input: &Input<'_>, steps: &mut Steps, findings: &mut Findings) {
    let label = lsm::plan::mount_label(input.linux.mount_label.as_deref(), input.host, findings);
    let label = label.map(|label| (crate::plan::annotations::mount_context(&input.spec.annotations, findings), label));
    for (index, mount) in input.spec.mounts.iter().enumerate() {
        let field = Field::new("mounts").index(index);
        if let Some(step) = mount_step(input, index, mount, label, &field, findings) {
            steps.push(Planned::new(RootfsStep::Mount(Box::new(step)), field));
        }
    }
}

/// A new tmpfs is empty: what is mounted below one that is to be read-only needs a place, and a /dev its devices, links and console. So it
/// becomes read-only when all of that is there, in a step of its own, which is returned.
fn writable_until_filled(linux: &Linux, steps: &mut Steps) -> Steps {
    let mut late = Steps::new();
    for at in 0..steps.len() {
        let (before, after) = steps.split_at_mut(at + 1);
        let Some(Planned { step: RootfsStep::Mount(mount), origin }) = before.last_mut() else { continue };
        let is_tmpfs = matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs");
        if !is_tmpfs || mount.own.set & attr::RDONLY == 0 {
            continue;
        }
        let place = mount.destination.as_path();
        let later = || after.iter().filter_map(|planned| as_mount(&planned.step)).map(|mount| mount.destination.as_path());
        let devices = linux.devices.iter().map(|device| Path::new(&device.path)).chain([Path::new("/dev/null")]);
        let filled = later().chain(devices).any(|path| path.starts_with(place));
        // What is covered by another mount cannot be reached any more.
        if !filled || later().any(|path| place.starts_with(path)) {
            continue;
        }
        mount.own.set &= !attr::RDONLY;
        let own = options::Change { set: attr::RDONLY, clear: 0 };
        let kind = MountKind::Remount { superblock: Vec::new(), data: Vec::new() };
        let empty = MountStep { copy_up: false, plain_destination: false, id_map: None, root_label: None, ..(**mount).clone() };
        let remount = MountStep { kind, own, all: options::Change::default(), propagation: Vec::new(), ..empty };
        late.push(Planned::new(RootfsStep::Mount(Box::new(remount)), origin.clone()));
    }
    late
}

fn as_mount(step: &RootfsStep) -> Option<&MountStep> {
    match step {
        RootfsStep::Mount(mount) => Some(mount),
        _ => None,
    }
}

/// The step of one entry of `mounts`.
pub fn mount_step(
    input: &Input<'_>,
    index: usize,
    mount: &Mount,
    label: Option<(&str, &str)>,
    field: &Field,
    findings: &mut Findings,
) -> Option<MountStep> {
    if mount.destination.is_empty() {
        findings.problem(field.key("destination"), "empty; expected an absolute path");
        return None;
    }
    if !mount.destination.starts_with('/') {
        findings
            .warning(field.key("destination"), format!("relative path {:?} is deprecated; taken as below /", mount.destination));
    }
    let parsed = options::parse(&mount.options);
    let fstype = mount.r#type.as_deref().unwrap_or_default();
    let is_bind = parsed.bind.is_some() || fstype == "bind";
    if parsed.superblock.contains(&"mand") {
        findings.warning(field.key("options"), "mand has no effect: Linux has no mandatory locks since 5.15");
    }
    let mut propagation = parsed.propagation.clone();
    let id_map = id_map(input, mount, &parsed, field, findings);
    let kind = if parsed.remount {
        remount(&parsed, is_bind, field, findings)
    } else if is_bind {
        bind(input, mount, &parsed, &mut propagation, field, findings)?
    } else if matches!(fstype, "cgroup" | "cgroup2") {
        parsed.leave_out("a cgroup mount", field, findings);
        MountKind::Cgroup(cgroup(input, fstype == "cgroup2", field, findings)?)
    } else {
        filesystem(mount, &parsed, label, field, findings)?
    };
    if id_map.is_some() {
        check_mappable(&kind, field, findings);
    }
    Some(MountStep {
        index,
        destination: InRoot::new(&mount.destination),
        kind,
        own: parsed.own,
        all: parsed.all,
        propagation,
        copy_up: parsed.copy_up,
        links: links(&parsed, is_bind && !parsed.remount, field, findings),
        plain_destination: !is_bind && matches!(fstype, "proc" | "sysfs"),
        id_map,
        root_label: label.filter(|_| !is_bind && lsm::plan::has_its_root_labelled(fstype)).map(|(_, label)| label.to_owned()),
    })
}

/// Only a bind mount has a source that can be a link.
fn links(parsed: &Parsed, is_bind: bool, field: &Field, findings: &mut Findings) -> options::Links {
    if is_bind || parsed.links.followed() {
        return parsed.links;
    }
    let words: Vec<&str> = parsed.links.words().collect();
    findings.warning(field.key("options"), format!("{} means nothing but on a bind mount and is left out", words.join(", ")));
    options::Links::default()
}

/// The id map of a mount: its own, or the container's (config.md, `idmap`, `uidMappings`).
fn id_map(input: &Input<'_>, mount: &Mount, parsed: &Parsed, field: &Field, findings: &mut Findings) -> Option<MountMap> {
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    if parsed.id_map.is_none() && uids.is_empty() && gids.is_empty() {
        return None;
    }
    for (here, other, name, missing) in [(uids, gids, "uidMappings", "gidMappings"), (gids, uids, "gidMappings", "uidMappings")] {
        if !here.is_empty() && other.is_empty() {
            findings.problem(field.key(name), format!("set without {missing}; expected both or none"));
        }
        check_map(here, &field.key(name), findings);
    }
    if !input.host.privileged() {
        findings.problem(field.clone(), "mapped ids need CAP_SYS_ADMIN over the filesystem, which this caller does not have");
    }
    // Options may be given without the word that old runtimes need to see: then it is the mount alone.
    let recursive = parsed.id_map.unwrap_or(false);
    if !uids.is_empty() || !gids.is_empty() {
        return Some(MountMap { uids: uids.clone(), gids: gids.clone(), recursive });
    }
    if !input.namespaces.has(Kind::User) {
        findings.problem(
            field.key("options"),
            "idmap without uidMappings and gidMappings; expected both, or a user namespace in linux.namespaces whose maps are taken",
        );
    }
    if input.namespaces.is_joined(Kind::User) {
        return Some(MountMap { uids: Vec::new(), gids: Vec::new(), recursive });
    }
    Some(MountMap { uids: input.linux.uid_mappings.clone(), gids: input.linux.gid_mappings.clone(), recursive })
}

fn check_mappable(kind: &MountKind, field: &Field, findings: &mut Findings) {
    match kind {
        MountKind::Remount { .. } => {
            findings.problem(field.key("options"), "mapped ids on a remount; the map of a mount cannot be changed");
        }
        MountKind::Cgroup(_) => findings.problem(field.key("options"), "mapped ids on cgroup, which does not support them"),
        MountKind::Filesystem { .. } if mounts::needs_mount_call(kind) => {
            let text = "mapped ids with iversion or an option of more than 255 bytes; expected one or the other";
            findings.problem(field.key("options"), text);
        }
        MountKind::Filesystem { .. } | MountKind::Bind { .. } => {}
    }
}

fn filesystem(
    mount: &Mount,
    parsed: &Parsed,
    label: Option<(&str, &str)>,
    field: &Field,
    findings: &mut Findings,
) -> Option<MountKind> {
    let Some(fstype) = mount.r#type.as_deref().filter(|kind| !kind.is_empty() && *kind != "none") else {
        findings.problem(field.key("type"), "missing; expected a filesystem type, or bind or rbind among the options");
        return None;
    };
    if parsed.copy_up && fstype != "tmpfs" {
        findings.problem(field.key("options"), format!("tmpcopyup on {fstype}; expected it on a tmpfs only"));
    }
    let source = mount.source.clone().filter(|source| !source.is_empty());
    let mut data = parsed.data.clone();
    let labelled = data.iter().any(|(key, _)| key.ends_with("context"));
    if let Some((option, label)) = label.filter(|_| !labelled && lsm::plan::takes_label(fstype)) {
        data.push((option.to_owned(), Some(label.to_owned())));
    }
    Some(MountKind::Filesystem { fstype: fstype.to_owned(), source, superblock: parsed.superblock.clone(), data })
}

fn bind(
    input: &Input<'_>,
    mount: &Mount,
    parsed: &Parsed,
    propagation: &mut Vec<PropagationChange>,
    field: &Field,
    findings: &mut Findings,
) -> Option<MountKind> {
    let Some(source) = mount.source.as_deref().filter(|source| !source.is_empty()) else {
        findings.problem(field.key("source"), "missing; a bind mount needs the path of what to bind");
        return None;
    };
    parsed.leave_out("a bind mount", field, findings);
    if parsed.links.copy && parsed.links.destination {
        let text = "copy-symlink and dest-nofollow; expected one of them, because a copied link is not mounted on anything";
        findings.problem(field.key("options"), text);
    }
    let mapped = parsed.id_map.is_some() || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let opened_by = if mapped { OpenedBy::Launcher } else { source_opener(input, propagation) };
    if opened_by == OpenedBy::Launcher && propagation.is_empty() {
        // Opened outside of the namespace, the clone is still a peer of the host's mount.
        propagation.push(PropagationChange { flag: libc::MS_SLAVE, recursive: true });
    }
    let source = normal(&input.bundle.join(source));
    Some(MountKind::Bind { source, recursive: parsed.bind.unwrap_or(true), opened_by })
}

/// A change of the mount that is there; with `bind`, of the mount alone and not of its filesystem (mount(2), `MS_REMOUNT`).
fn remount(parsed: &Parsed, is_bind: bool, field: &Field, findings: &mut Findings) -> MountKind {
    if is_bind {
        parsed.leave_out("a remount of a bind mount", field, findings);
        return MountKind::Remount { superblock: Vec::new(), data: Vec::new() };
    }
    if parsed.superblock.contains(&"iversion") {
        findings.problem(field.key("options"), "iversion on a remount; expected it where the filesystem is mounted");
    }
    if parsed.copy_up {
        findings.problem(field.key("options"), "tmpcopyup on a remount; expected it where a tmpfs is mounted");
    }
    MountKind::Remount { superblock: parsed.superblock.clone(), data: parsed.data.clone() }
}

/// A mount that shall be shared with the host has to be cloned in the host's mount namespace: in the container's every mount is a
/// slave already. Init does it when its turn comes, because mountinfo lists mounts by age since Linux 6.8: cloned by the launcher it
/// would stand before mounts that are listed before it.
fn source_opener(input: &Input<'_>, propagation: &[PropagationChange]) -> OpenedBy {
    let shared = propagation.iter().any(|change| change.flag == libc::MS_SHARED);
    match shared && input.host.privileged() {
        _ if launcher_opens(input) => OpenedBy::Launcher,
        true if input.namespaces.is_new(Kind::Mount) => OpenedBy::InitOutside,
        _ => OpenedBy::Init,
    }
}

/// `cgroup` is what the host has, `cgroup2` the unified hierarchy alone, also where others are beside it.
fn cgroup(input: &Input<'_>, unified_alone: bool, field: &Field, findings: &mut Findings) -> Option<CgroupMount> {
    let facts = &input.host.cgroups;
    let own = |mount: &Path| {
        let found = input.cgroup_directories.iter().find(|(hierarchy, _)| hierarchy == mount);
        found.map(|(_, directory)| directory.clone())
    };
    let bind_from = |mount: &Path| {
        // Without a group of its own the caller's is what there is to show.
        (!input.namespaces.has(Kind::Cgroup)).then(|| own(mount).unwrap_or_else(|| mount.to_owned()))
    };
    // In a new cgroup namespace, too, a bind of the own group is what a mount of the hierarchy shows: its root. Version 1 would make a
    // superblock for each hierarchy and namespace.
    let plain = input.namespaces.is_new(Kind::Cgroup) && !input.namespaces.has(Kind::User);
    let bind_v1 = |mount: &Path| bind_from(mount).or_else(|| own(mount).filter(|_| plain));
    let mut mount = CgroupMount { hierarchies: Vec::new(), links: Vec::new() };
    let v1 = if unified_alone { &[][..] } else { &facts.v1[..] };
    for hierarchy in v1 {
        let names: Vec<&str> = hierarchy.controllers.iter().map(|name| name.strip_prefix("name=").unwrap_or(name)).collect();
        let name = names.join(",");
        if names.len() > 1 {
            mount.links.extend(names.iter().map(|single| ((*single).to_owned(), name.clone())));
        }
        mount.hierarchies.push(HierarchyMount {
            name,
            controllers: hierarchy.controllers.clone(),
            bind_from: bind_v1(&hierarchy.mount),
        });
    }
    if let Some(unified) = &facts.v2 {
        let name = if v1.is_empty() { "" } else { "unified" };
        mount.hierarchies.push(HierarchyMount {
            name: name.to_owned(),
            controllers: Vec::new(),
            bind_from: bind_from(&unified.mount),
        });
    }
    if mount.hierarchies.is_empty() {
        let text =
            format!("cgroup: no {}control group hierarchy is mounted on this host", if unified_alone { "unified " } else { "" });
        findings.problem(field.key("type"), text);
        return None;
    }
    Some(mount)
}
