//! From flags, the record, and what is seen of the container's processes to CRIU's options.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::flags;
use super::message::{CgroupMode, NetworkLock, Options, Switch};
use crate::namespaces::Kind;
use crate::plan::{Findings, InitStep, LauncherStep, Plan};
use crate::rootfs::steps::{MountKind, MountStep};
use crate::rootfs::{InRoot, RootfsStep};
use crate::spec::{Field, Namespace, StringMap};

/// The annotation with a configuration file of CRIU's, whose options win.
pub const ANNOTATION: &str = "org.criu.config";
/// Where configuration files of CRIU's for containers are looked for; the first one that exists is taken.
pub const CONFIG_FILES: [&str; 2] = ["/etc/criu/rt.conf", "/etc/criu/runc.conf"];

/// What the command line of checkpoint says.
#[derive(Clone, Debug, Default)]
pub struct DumpFlags {
    /// The switches that are asked for by flags of their own.
    pub switches: Vec<Switch>,
    /// `--pre-dump`.
    pub pre_dump: bool,
    /// `--parent-path`.
    pub parent: Option<PathBuf>,
    /// `--page-server`.
    pub page_server: Option<String>,
    /// `--manage-cgroups-mode`.
    pub cgroup_mode: Option<CgroupMode>,
    /// `--empty-ns`.
    pub empty_namespaces: Vec<String>,
    /// `--network-lock`.
    pub network_lock: Option<NetworkLock>,
}

/// What the command line of restore says about CRIU.
#[derive(Clone, Debug, Default)]
pub struct RestoreFlags {
    /// The switches that are asked for by flags of their own.
    pub switches: Vec<Switch>,
    /// `--manage-cgroups-mode`.
    pub cgroup_mode: Option<CgroupMode>,
    /// `--empty-ns`.
    pub empty_namespaces: Vec<String>,
    /// `--network-lock`.
    pub network_lock: Option<NetworkLock>,
    /// `--lsm-profile`.
    pub lsm_profile: Option<String>,
    /// `--lsm-mount-context`.
    pub lsm_mount_context: Option<String>,
}

/// A mount of the config whose content is outside of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// Where the config wants it.
    pub destination: String,
    /// What is there. Not for the record: the config at restore says it anew.
    #[serde(skip)]
    pub source: PathBuf,
    /// Its ids are mapped, which CRIU cannot do again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mapped: bool,
    /// The mount is read-only.
    #[serde(skip)]
    pub readonly: bool,
}

/// The mounts of a container whose content is outside: bind mounts, device nodes of the host, masks of files, and control groups without
/// a namespace.
pub fn outside(plan: &Plan) -> Vec<Outside> {
    let one = |destination: &InRoot, source: PathBuf| Outside {
        destination: destination.to_string(),
        source,
        mapped: false,
        readonly: false,
    };
    let mut found = Vec::new();
    for planned in &plan.init {
        match &planned.step {
            InitStep::Rootfs(RootfsStep::Mount(mount)) => found.extend(outside_of(mount)),
            InitStep::Rootfs(RootfsStep::Device(device)) if device.bind => {
                found.push(one(&device.path, device_source(&device.path)))
            }
            InitStep::Rootfs(RootfsStep::MaskedPath(path)) => found.push(one(path, PathBuf::from("/dev/null"))),
            _ => {}
        }
    }
    found
}

fn device_source(path: &InRoot) -> PathBuf {
    path.as_path().to_owned()
}

fn outside_of(mount: &MountStep) -> Vec<Outside> {
    use crate::sys::mount::attr;
    let readonly = (mount.own.set | mount.all.set) & attr::RDONLY != 0;
    let one = |destination: String, source: &Path| Outside {
        destination,
        source: source.to_owned(),
        mapped: mount.id_map.is_some(),
        readonly,
    };
    match &mount.kind {
        MountKind::Bind { source, .. } => vec![one(mount.destination.to_string(), source)],
        MountKind::Cgroup(cgroup) => {
            let bound = |hierarchy: &crate::rootfs::cgroup_mount::HierarchyMount| {
                let source = hierarchy.bind_from.as_ref()?;
                let destination = mount.destination.as_path().join(&hierarchy.name);
                Some(one(InRoot::new(destination).to_string(), source))
            };
            cgroup.hierarchies.iter().filter_map(bound).collect()
        }
        MountKind::Filesystem { .. } | MountKind::Remount { .. } => Vec::new(),
    }
}

/// A mount that CRIU is told to be outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedMount {
    /// The name by which CRIU's images know it.
    pub key: String,
    /// The destination in the config that it belongs to.
    pub destination: String,
    /// Where it is below that: a mount that came along with a recursive bind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub below: String,
}

/// What lies beside CRIU's images, in `rt.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Mounts from outside.
    pub mounts: Vec<SavedMount>,
    /// For each of the first three descriptors the name under which CRIU knows what is outside; nothing for what is inside.
    pub stdio: Vec<Option<String>>,
    /// The namespaces that were joined by path.
    pub joined: Vec<String>,
}

/// A mount of the container as the kernel lists it (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Its number.
    pub id: u32,
    /// The filesystem's device, `MAJOR:MINOR`.
    pub device: String,
    /// Where it is, seen from the container's root.
    pub point: String,
    /// The options of the mount.
    pub options: String,
}

/// What one of the first three descriptors leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stdio {
    /// What /proc/PID/fd says.
    pub link: String,
    /// The mount that it is on.
    pub mount: u32,
    /// Its inode number.
    pub inode: u64,
    /// Its device number and that of its filesystem, if it is a character device.
    pub device: Option<(u64, u64)>,
}

/// What is seen of a container that is to be dumped.
#[derive(Clone, Debug, Default)]
pub struct DumpFacts {
    /// The first process.
    pub pid: i32,
    /// The container's mounts in their order.
    pub mounts: Vec<Mounted>,
    /// The devices of the filesystems that are mounted on the host.
    pub host_devices: Vec<String>,
    /// The record's mounts from outside with the mount points that their destinations lead to.
    pub outside: Vec<(Outside, String)>,
    /// The first three descriptors.
    pub stdio: Vec<Option<Stdio>>,
    /// The namespaces of the first process: kind and inode number.
    pub namespaces: Vec<(Kind, u64)>,
    /// The directory of the control group that can be frozen.
    pub freezer: Option<PathBuf>,
    /// CRIU's configuration file, if there is one.
    pub config_file: Option<PathBuf>,
}

/// What the record says about a container that is to be dumped.
#[derive(Clone, Copy, Debug)]
pub struct DumpRecord<'a> {
    /// Its namespaces.
    pub namespaces: &'a [Namespace],
    /// It has a seccomp agent, whose descriptor nobody could give back.
    pub has_listener: bool,
}

/// Plans a dump.
pub fn dump(flags: &DumpFlags, record: DumpRecord<'_>, facts: &DumpFacts, findings: &mut Findings) -> (Options, Saved) {
    check_container(record, facts, findings);
    let mut switches = vec![Switch::NotifyScripts, Switch::EvasiveDevices, Switch::OrphanPtsMaster];
    switches.extend(&flags.switches);
    if flags.pre_dump || flags.parent.is_some() {
        switches.push(Switch::TrackMem);
    }
    let mut saved = Saved { mounts: mounts(facts), ..Saved::default() };
    let mut external = mount_names(facts, &saved.mounts, findings);
    for (kind, name) in [(Kind::Network, NETWORK), (Kind::Pid, PID)] {
        let inode = facts.namespaces.iter().find(|(found, _)| *found == kind).map(|(_, inode)| *inode);
        if let (true, Some(inode)) = (is_joined(record.namespaces, kind), inode) {
            external.push(format!("{}[{inode}]:{name}", kind.proc_name()));
        }
    }
    saved.joined = record.namespaces.iter().filter(|namespace| path(namespace).is_some()).map(|n| n.r#type.clone()).collect();
    saved.stdio = facts.stdio.iter().map(|stdio| stdio.as_ref().and_then(|stdio| name_of(stdio, &facts.mounts))).collect();
    external.extend(saved.stdio.iter().flatten().filter(|name| !is_pipe(name)).cloned());
    external.dedup();
    let page_server = flags.page_server.as_deref().and_then(|text| page_server(text, findings));
    if flags.parent.as_ref().is_some_and(|parent| parent.is_absolute()) {
        findings.problem(Field::new("--parent-path"), "absolute path; expected one relative to --image-path");
    }
    let options = Options {
        switches,
        pid: Some(facts.pid),
        log_file: DUMP_LOG,
        page_server,
        parent_image: flags.parent.clone(),
        cgroup_mode: Some(flags.cgroup_mode.unwrap_or(CgroupMode::Soft)),
        external,
        empty_namespaces: empty_namespaces(&flags.empty_namespaces, findings),
        freeze_cgroup: facts.freezer.clone(),
        config_file: facts.config_file.clone(),
        network_lock: flags.network_lock,
        ..Options::default()
    };
    (options, saved)
}

/// The logs, in the work directory.
pub const DUMP_LOG: &str = "dump.log";
/// See [`DUMP_LOG`].
pub const RESTORE_LOG: &str = "restore.log";
/// The figures that CRIU writes, in the work directory.
pub const DUMP_STATS: &str = "stats-dump";
/// See [`DUMP_STATS`].
pub const RESTORE_STATS: &str = "stats-restore";
/// The names of namespaces that are outside, as runc has them: images are exchanged.
const NETWORK: &str = "extRootNetNS";
const PID: &str = "extRootPidNS";

fn path(namespace: &Namespace) -> Option<&str> {
    namespace.path.as_deref().filter(|path| !path.is_empty())
}

fn is_joined(namespaces: &[Namespace], kind: Kind) -> bool {
    namespaces.iter().any(|namespace| namespace.r#type == kind.spec_name() && path(namespace).is_some())
}

fn check_container(record: DumpRecord<'_>, facts: &DumpFacts, findings: &mut Findings) {
    for kind in [Kind::Mount, Kind::Pid] {
        if !record.namespaces.iter().any(|namespace| namespace.r#type == kind.spec_name()) {
            let text = format!("no {kind} namespace: what is the container's cannot be told from what is the host's");
            findings.problem(Field::new("linux.namespaces"), text);
        }
    }
    if is_joined(record.namespaces, Kind::Mount) {
        let text = "a mount namespace that was joined belongs to others, too, and cannot be restored";
        findings.problem(Field::new("linux.namespaces"), text);
    }
    if record.has_listener {
        findings
            .problem(Field::new("linux.seccomp.listenerPath"), "an agent answers for the container, which cannot be restored");
    }
    for (outside, _) in facts.outside.iter().filter(|(outside, _)| outside.mapped) {
        findings.problem(Field::new("mounts"), format!("the mapped ids of {} cannot be restored", outside.destination));
    }
}

/// Every mount from outside: those of the config, and what came along below them. Later mounts hide earlier ones on the same point, and the
/// nearest mount of the config is the one that a mount belongs to.
fn mounts(facts: &DumpFacts) -> Vec<SavedMount> {
    let mut found: Vec<SavedMount> = Vec::new();
    for mounted in &facts.mounts {
        let distance = |point: &String| {
            let rest = mounted.point.strip_prefix(point.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let near = facts.outside.iter().filter_map(|(outside, point)| Some((distance(point)?, outside)));
        let Some((below, outside)) = near.min_by_key(|(below, _)| below.len()) else { continue };
        // A masked directory is covered by a filesystem of the container's own, and so is what the container itself has mounted.
        if !facts.host_devices.contains(&mounted.device) {
            continue;
        }
        found.push(SavedMount { key: format!("m{}", found.len()), destination: outside.destination.clone(), below });
    }
    found
}

/// `mnt[POINT]:KEY` for each. CRIU takes the first `]:` for the end of the point.
fn mount_names(facts: &DumpFacts, saved: &[SavedMount], findings: &mut Findings) -> Vec<String> {
    let point = |mount: &SavedMount| {
        let outside = facts.outside.iter().find(|(outside, _)| outside.destination == mount.destination);
        outside.map(|(_, point)| format!("{point}{}", mount.below)).unwrap_or_default()
    };
    let mut names: Vec<String> = Vec::new();
    for mount in saved {
        let point = point(mount);
        match mount_name(&point, &mount.key) {
            Some(name) => names.push(name),
            None => findings.problem(
                Field::new("mounts"),
                format!(
                    "mount point {point:?} has `]:`, a backslash or a control character in it, which CRIU's option cannot say"
                ),
            ),
        }
    }
    names
}

/// The name of a mount from outside, or nothing if CRIU would read it as another one's.
pub fn mount_name(point: &str, key: &str) -> Option<String> {
    let unclear = point.contains("]:") || point.contains('\\') || point.chars().any(char::is_control);
    (!unclear).then(|| format!("mnt[{point}]:{key}"))
}

fn is_pipe(name: &str) -> bool {
    name.starts_with("pipe:") || name.starts_with("socket:")
}

/// The name under which CRIU looks for what a descriptor leads to; nothing for what is in the container.
fn name_of(stdio: &Stdio, mounts: &[Mounted]) -> Option<String> {
    if is_pipe(&stdio.link) {
        return Some(stdio.link.clone());
    }
    if mounts.iter().any(|mounted| mounted.id == stdio.mount) {
        return None;
    }
    match stdio.device {
        // The majors of terminals: TTY, TTYAUX, and the pseudo-terminals' slaves.
        Some((device, filesystem)) if matches!(device >> 8 & 0xfff, 4 | 5 | 136..=143) => {
            Some(format!("tty[{device:x}:{filesystem:x}]"))
        }
        _ => Some(format!("file[{:x}:{:x}]", stdio.mount, stdio.inode)),
    }
}

fn page_server(text: &str, findings: &mut Findings) -> Option<(String, u16)> {
    let parsed = text.rsplit_once(':').and_then(|(address, port)| Some((address.to_owned(), port.parse().ok()?)));
    if parsed.as_ref().is_none_or(|(address, _)| address.is_empty()) {
        findings.problem(Field::new("--page-server"), format!("{text:?}; expected ADDRESS:PORT"));
        return None;
    }
    parsed
}

fn empty_namespaces(names: &[String], findings: &mut Findings) -> Option<i32> {
    let mut flags = None;
    for name in names {
        match name.as_str() {
            "network" => flags = Some(Kind::Network.flag()),
            other => findings.problem(Field::new("--empty-ns"), format!("{other:?}; CRIU can do this for network only")),
        }
    }
    flags
}

/// What a restore stands on besides its flags.
#[derive(Clone, Copy, Debug)]
pub struct RestoreFacts<'a> {
    /// What the dump has left beside the images.
    pub saved: &'a Saved,
    /// The plan of a new container of the same config.
    pub plan: &'a Plan,
    /// `linux.namespaces`.
    pub namespaces: &'a [Namespace],
    /// The descriptors of CRIU's process that are copies of the caller's first three.
    pub stdio: [i32; 3],
    /// The descriptor of CRIU's process for each namespace that it takes by descriptor.
    pub network: Option<i32>,
    /// See [`RestoreFacts::network`].
    pub pid: Option<i32>,
    /// CRIU's configuration file, if there is one.
    pub config_file: Option<&'a Path>,
}

/// Plans a restore.
pub fn restore(flags: &RestoreFlags, facts: &RestoreFacts<'_>, findings: &mut Findings) -> Options {
    flags::check_restore(flags, findings);
    check_namespaces(facts, findings);
    let mut switches = vec![Switch::NotifyScripts, Switch::EvasiveDevices, Switch::OrphanPtsMaster, Switch::RstSibling];
    switches.extend(&flags.switches);
    let mut inherit: Vec<(String, i32)> = Vec::new();
    for (name, fd) in facts.saved.stdio.iter().zip(facts.stdio) {
        // Several descriptors of one pipe are one file.
        if let Some(name) = name.as_ref().filter(|name| !inherit.iter().any(|(known, _)| known == *name)) {
            inherit.push((name.clone(), fd));
        }
    }
    inherit.iter_mut().for_each(|(name, _)| *name = inherited(name));
    inherit.extend(facts.network.map(|fd| (NETWORK.to_owned(), fd)));
    inherit.extend(facts.pid.map(|fd| (PID.to_owned(), fd)));
    let by_path = |namespace: &&Namespace| !matches!(namespace.r#type.as_str(), "network" | "pid" | "mount" | "cgroup");
    let join = facts.namespaces.iter().filter(by_path);
    let join = join.filter_map(|n| Some((Kind::from_spec(&n.r#type)?.proc_name(), PathBuf::from(path(n)?)))).collect();
    Options {
        switches,
        log_file: RESTORE_LOG,
        root: Some(facts.plan.rootfs.clone()),
        cgroup_mode: Some(flags::cgroup_mode_of_restore(flags.cgroup_mode)),
        inherit,
        external: sources(facts, findings),
        empty_namespaces: empty_namespaces(&flags.empty_namespaces, findings),
        join,
        config_file: facts.config_file.map(Path::to_path_buf),
        lsm_profile: flags.lsm_profile.clone(),
        lsm_mount_context: flags.lsm_mount_context.clone(),
        network_lock: flags.network_lock,
        ..Options::default()
    }
}

/// The name by which CRIU finds a descriptor that stands for a file. Under a file's whole name CRIU opens what it finds anew, with the old
/// position, and insists on the old size; what it looks for first is the name as a relative path, without the first letter, and there it
/// takes the descriptor as it is. It does so in all versions, 3.15 to 4.2.
fn inherited(name: &str) -> String {
    if name.starts_with("file[") { name[1..].to_owned() } else { name.to_owned() }
}

/// What was joined has to be joined again, and nothing else: CRIU's images have no content for it.
fn check_namespaces(facts: &RestoreFacts<'_>, findings: &mut Findings) {
    for kind in Kind::all() {
        let (was, is) = (facts.saved.joined.iter().any(|name| name == kind.spec_name()), is_joined(facts.namespaces, kind));
        let text = match (was, is) {
            (true, false) => "was joined by path when the checkpoint was made; expected a path",
            (false, true) if matches!(kind, Kind::Network | Kind::Pid) => {
                "was the container's own when the checkpoint was made; expected no path"
            }
            _ => continue,
        };
        findings.problem(Field::new("linux.namespaces"), format!("the {kind} namespace {text}"));
    }
}

/// `mnt[KEY]:SOURCE` for each mount from outside. The source is the config's: a file beside the images does not choose what is shown of the
/// host.
fn sources(facts: &RestoreFacts<'_>, findings: &mut Findings) -> Vec<String> {
    let known = outside(facts.plan);
    let mut names = Vec::new();
    for mount in &facts.saved.mounts {
        let is_key = mount.key.strip_prefix('m').is_some_and(|number| number.parse::<u32>().is_ok());
        let inside = !Path::new(&mount.below).components().any(|part| part == std::path::Component::ParentDir);
        // The last one hides the others.
        match known.iter().rev().find(|outside| outside.destination == mount.destination) {
            Some(outside) if is_key && inside && !outside.mapped => {
                let below = mount.below.trim_start_matches('/');
                let source = if below.is_empty() { outside.source.clone() } else { outside.source.join(below) };
                names.push(format!("mnt[{}]:{}", mount.key, source.display()));
            }
            Some(_) => findings.problem(Field::new("rt.json"), format!("the mount on {} cannot be restored", mount.destination)),
            None => findings.problem(
                Field::new("mounts"),
                format!("nothing on {}; expected the bind mount that was there when the checkpoint was made", mount.destination),
            ),
        }
    }
    names
}

/// The configuration file that the annotation names: an empty one is none, and no annotation means the usual places.
pub fn config_file(annotations: &StringMap) -> Option<Option<PathBuf>> {
    let value = annotations.get(ANNOTATION)?;
    Some((!value.is_empty()).then(|| PathBuf::from(value)))
}

/// The namespaces that CRIU takes by descriptor, with their paths.
pub fn by_descriptor(plan: &Plan) -> Vec<(Kind, PathBuf)> {
    let opened = plan.launcher.iter().filter_map(|planned| match &planned.step {
        LauncherStep::OpenNamespace { kind: kind @ (Kind::Network | Kind::Pid), path } => Some((*kind, path.clone())),
        _ => None,
    });
    opened.collect()
}

#[cfg(test)]
mod tests;
