//! The plan of a new container.
//!
//! Here the areas' steps are put into the order that the kernel and the specification dictate; what each step says is the business of
//! the areas' own `plan.rs`.

mod init;

use std::path::PathBuf;

use crate::cgroups;
use crate::hooks::{self, Moment};
use crate::host::Host;
use crate::launch::protocol::{FromInit, ToInit};
use crate::namespaces::idmap::{self, IdMap, Which};
use crate::namespaces::plan::{expected_maps, id_maps, namespaces, root_id, time_offsets};
use crate::namespaces::{Kind, NamespaceStep, Namespaces, netdev};
use crate::process::capabilities;
use crate::process::plan::{self as process_plan, ProcessPlan};
use crate::resctrl;
use crate::rootfs::plan as rootfs_plan;
use crate::rootfs::steps::{MountStep, OpenedBy, Preparation};
use crate::rootfs::{RootfsStep, plan::RootfsPlan};
use crate::seccomp::Filter;
use crate::spec::{Field, Hooks, Linux, Spec, StringMap};

use super::annotations;
use super::common::{check_terminal, closing, connect_listener, connect_pidfd_socket, default, flag, take_oom_score};
use super::document;
use super::request::Request;
use super::{BridgeStep, Findings, LauncherStep, Origin, Plan, Planned, StartSignal, Topology};

/// The plan of a new container. The findings of all areas are collected; if there are problems, the plan must not be carried out.
pub fn create(spec: &Spec, request: &Request, host: &Host, findings: &mut Findings) -> Plan {
    document::check(spec, findings);
    let nothing = (Linux::default(), Hooks::default());
    let linux = spec.linux.as_ref().unwrap_or(&nothing.0);
    let hooks = spec.hooks.as_ref().unwrap_or(&nothing.1);
    hooks::plan(hooks, findings);
    let namespaces = namespaces(linux, findings);
    check_rights(&namespaces, host, findings);
    let maps = id_maps(linux, &namespaces, host, findings);
    let offsets = time_offsets(linux, &namespaces, findings);
    let resctrl = linux.intel_rdt.as_ref().and_then(|config| resctrl::plan(config, &request.id, host, findings));
    let net_devices = netdev::plan(linux, &namespaces, host, findings);
    let cgroup = cgroup(spec, linux, request, host, &namespaces, findings);
    let rootfs = rootfs(spec, linux, request, host, (&namespaces, &cgroup), findings);
    let seccomp = annotations::filter(&spec.annotations, linux.seccomp.as_ref(), findings);
    let mut process = process(spec, linux, request, host, (&namespaces, &maps, seccomp.is_some()), findings);
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    check_terminal(terminal, request, findings);
    let topology = topology(&namespaces, host);
    let in_user_namespace = topology == Topology::Bridged || !maps.is_empty();
    let oom_score = if in_user_namespace { take_oom_score(&mut process) } else { None };
    let parts = Parts {
        request,
        host,
        topology,
        namespaces: &namespaces,
        maps,
        expected_maps: expected_maps(linux, &namespaces),
        offsets,
        net_devices,
        root_ids: (root_id(&linux.uid_mappings), root_id(&linux.gid_mappings)),
        has_cgroup_v1: cgroup.places.iter().any(|planned| planned.step.version == cgroups::Version::V1),
        has_cgroup_v2: cgroup.v2().is_some(),
        cgroup_origin: cgroup_origin(&cgroup),
        born_in_cgroup: cgroup.v2().is_some() && cgroup.unit.is_none(),
        unit: cgroup.unit.as_ref().map(|unit| unit.name.clone()),
        delegates: cgroup.delegated.is_some(),
        rootfs: &rootfs,
        process,
        oom_score,
        hooks,
        terminal,
        seccomp: seccomp.as_ref(),
        resctrl: resctrl.as_ref(),
        annotations: &spec.annotations,
        pidfd_socket: connect_pidfd_socket(request, Some(&spec.annotations)),
    };
    Plan {
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        annotations: spec.annotations.clone(),
        container: None,
        topology,
        launcher: parts.launcher(),
        bridge: parts.bridge(),
        init: parts.init(),
        rootfs: rootfs.rootfs.clone(),
        process: spec.process.clone(),
        cgroup,
        resctrl,
        seccomp,
        warnings: std::mem::take(&mut findings.warnings),
        rehearsal: false,
    }
}

fn process(
    spec: &Spec,
    linux: &Linux,
    request: &Request,
    host: &Host,
    (namespaces, maps, has_seccomp): (&Namespaces, &[IdMap], bool),
    findings: &mut Findings,
) -> ProcessPlan {
    let Some(process) = &spec.process else { return process_plan::without_process() };
    let input = process_plan::Input {
        process,
        namespaces,
        uid_mappings: &linux.uid_mappings,
        gid_mappings: &linux.gid_mappings,
        gid_method: maps.iter().find(|map| map.which == Which::Gid).map(|map| map.method),
        host,
        seccomp: has_seccomp,
        personality: linux.personality.as_ref(),
        memory_policy: linux.memory_policy.as_ref(),
        preserve_fds: request.preserve_fds,
        keyring: request.keyring(),
        exec: false,
        keep_groups: annotations::keeps_groups(&spec.annotations),
    };
    process_plan::plan(&input, findings)
}

fn rootfs(
    spec: &Spec,
    linux: &Linux,
    request: &Request,
    host: &Host,
    (namespaces, cgroup): (&Namespaces, &cgroups::CgroupPlan),
    findings: &mut Findings,
) -> RootfsPlan {
    let directories: Vec<(PathBuf, PathBuf)> =
        cgroup.places.iter().map(|planned| (planned.step.mount.clone(), planned.step.directory())).collect();
    let input = rootfs_plan::Input {
        spec,
        linux,
        namespaces,
        host,
        bundle: &request.bundle,
        no_pivot: request.no_pivot,
        cgroup_directories: &directories,
        notify: request.notify.as_deref(),
    };
    rootfs_plan::plan(&input, findings)
}

/// A bridge joins what one cannot leave again: a user namespace; and in a user namespace (rootless Podman's pods) whatever is to be joined,
/// because the launcher has no rights over the namespaces that it would have to come back to.
fn topology(namespaces: &Namespaces, host: &Host) -> Topology {
    let entered = namespaces.joined.iter().any(|(kind, _)| is_entered_before_birth(*kind));
    let bridged = namespaces.is_joined(Kind::User) || (entered && !host.initial_user_namespace);
    if bridged { Topology::Bridged } else { Topology::Direct }
}

/// Init joins a mount and a cgroup namespace itself.
fn is_entered_before_birth(kind: Kind) -> bool {
    !matches!(kind, Kind::Mount | Kind::Cgroup | Kind::User)
}

/// Mounts, roots and namespaces are for those who have rights over them, which an ordinary user has in a user namespace only.
fn check_rights(namespaces: &Namespaces, host: &Host, findings: &mut Findings) {
    if !host.privileged() && !namespaces.has(Kind::User) {
        let text =
            "no user namespace; expected one with uidMappings and gidMappings, because this caller does not have CAP_SYS_ADMIN";
        findings.problem(Field::new("linux.namespaces"), text);
    }
    if namespaces.is_new(Kind::User) && !namespaces.has(Kind::Mount) {
        let text =
            "a new user namespace without a mount namespace; expected both, because it has no rights over the caller's mounts";
        findings.problem(namespaces.field(Kind::User), text);
    }
}

fn cgroup(
    spec: &Spec,
    linux: &Linux,
    request: &Request,
    host: &Host,
    namespaces: &Namespaces,
    findings: &mut Findings,
) -> cgroups::CgroupPlan {
    if request.no_cgroup {
        if linux.resources.is_some() {
            findings.warning(Field::new("linux.resources"), "not set: control groups are disabled (--cgroup-manager)");
        }
        if annotations::cgroups(&spec.annotations)[1].is_some() {
            findings
                .warning(annotations::field(annotations::DELEGATED), "left out: control groups are disabled (--cgroup-manager)");
        }
        return cgroups::CgroupPlan::default();
    }
    // "Cgroup ownership": given away if the container has a cgroup namespace and a user namespace of its own.
    let owned = namespaces.is_new(Kind::Cgroup) && namespaces.is_new(Kind::User);
    let owner = owned.then(|| idmap::host_id(&linux.uid_mappings, 0)).flatten();
    let [subgroup, delegated] = annotations::cgroups(&spec.annotations);
    let input = cgroups::Input {
        id: request.id.as_str(),
        cgroups_path: linux.cgroups_path.as_deref().filter(|path| !path.is_empty()),
        resources: linux.resources.as_ref(),
        devices: &linux.devices,
        facts: &host.cgroups,
        privileged: host.cgroups_required,
        owner,
        subgroup,
        delegated,
    };
    let rules = linux.resources.as_ref().map_or(&[][..], |resources| &resources.devices);
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    if terminal && input.privileged && cgroups::devices::deny_terminals(rules, &linux.devices) {
        let text = "they deny the device c 5:2, by which the terminal of process.terminal is opened; expected it to be allowed";
        findings.problem(Field::new("linux.resources.devices"), text);
    }
    if request.systemd_cgroup {
        return cgroups::systemd::plan(&input, &spec.annotations, findings);
    }
    cgroups::plan(&input, findings)
}

/// Who asked for the control groups: the config, or nobody.
fn cgroup_origin(cgroup: &cgroups::CgroupPlan) -> Origin {
    cgroup.places.first().map_or(Origin::Default("cgroup path"), |planned| planned.origin.clone())
}

/// What the lists of the processes are made from.
struct Parts<'a> {
    request: &'a Request,
    host: &'a Host,
    topology: Topology,
    namespaces: &'a Namespaces,
    maps: Vec<IdMap>,
    expected_maps: Vec<IdMap>,
    offsets: Vec<crate::namespaces::steps::ClockOffset>,
    net_devices: Vec<netdev::NetDevice>,
    root_ids: (u32, u32),
    has_cgroup_v1: bool,
    has_cgroup_v2: bool,
    cgroup_origin: Origin,
    born_in_cgroup: bool,
    /// A systemd unit is made once there is a process for it.
    unit: Option<String>,
    /// Init is moved below its control group once it has its cgroup namespace.
    delegates: bool,
    rootfs: &'a RootfsPlan,
    process: ProcessPlan,
    oom_score: Option<Planned<i32>>,
    hooks: &'a crate::spec::Hooks,
    terminal: bool,
    seccomp: Option<&'a Filter>,
    resctrl: Option<&'a resctrl::ResctrlPlan>,
    annotations: &'a StringMap,
    pidfd_socket: Option<Planned<LauncherStep>>,
}

fn prepare(mount: &MountStep) -> Option<LauncherStep> {
    let (index, follow) = (mount.index, mount.links.of_source_followed());
    Some(match mount.preparation()? {
        Preparation::Clone { source, recursive } => {
            LauncherStep::OpenSource { index, path: source.to_owned(), recursive, follow }
        }
        Preparation::Find { source } => LauncherStep::FindSource { index, path: source.to_owned(), follow },
        Preparation::Make(kind) => LauncherStep::MakeFilesystem { index, kind: kind.clone() },
    })
}

fn notify_folder() -> Planned<LauncherStep> {
    default(LauncherStep::MakeNotifyFolder, "NOTIFY_SOCKET of the caller")
}

impl Parts<'_> {
    fn direct(&self) -> bool {
        self.topology == Topology::Direct
    }

    fn field(&self, kind: Kind) -> Origin {
        Origin::Config(self.namespaces.field(kind))
    }

    fn has_runtime_hooks(&self) -> bool {
        !self.hooks.prestart.is_empty() || !self.hooks.create_runtime.is_empty()
    }

    /// A launcher that dies while init runs hooks has to have written down that they had begun, if poststop hooks are to follow them.
    fn waits_for_hooks(&self) -> bool {
        self.has_runtime_hooks() || (!self.hooks.create_container.is_empty() && !self.hooks.poststop.is_empty())
    }

    fn launcher(&self) -> Vec<Planned<LauncherStep>> {
        let mut steps: Vec<_> = self.request.notify.iter().map(|_| notify_folder()).collect();
        steps.extend(self.open());
        if self.request.start == StartSignal::Fifo {
            steps.push(default(LauncherStep::MakeFifo, "start is a command of its own"));
        }
        let cgroup = || self.cgroup_origin.clone();
        if (self.has_cgroup_v1 || self.has_cgroup_v2) && self.unit.is_none() {
            steps.push(Planned::new(LauncherStep::MakeCgroups, cgroup()));
        }
        let intel_rdt = || Origin::Config(Field::new("linux.intelRdt"));
        if let Some(plan) = self.resctrl {
            steps.push(Planned::new(LauncherStep::MakeResctrl(plan.clone()), intel_rdt()));
        }
        steps.push(self.clone_step());
        if let Some(plan) = self.resctrl {
            // The bridge takes init along: what it makes is born there.
            steps.push(Planned::new(LauncherStep::JoinResctrl { tasks: plan.tasks().clone() }, intel_rdt()));
        }
        let join_cgroups = |steps: &mut Vec<_>| {
            if let Some(name) = &self.unit {
                steps.push(flag(LauncherStep::StartUnit { name: name.clone() }, "--systemd-cgroup"));
                steps.push(Planned::new(LauncherStep::MakeCgroups, cgroup()));
            }
            if self.has_cgroup_v2 {
                steps.push(Planned::new(LauncherStep::JoinCgroup, cgroup()));
                steps.push(Planned::new(LauncherStep::Tell(ToInit::CgroupJoined), cgroup()));
            }
        };
        if self.direct() {
            // Before init has other ids (see `take_oom_score`), which it waits for.
            steps.extend(self.oom_score.clone().map(|planned| planned.into_step(LauncherStep::OomScoreAdj)));
            steps.extend(self.map_ids());
            steps.extend(self.move_net_devices());
            join_cgroups(&mut steps);
        } else {
            join_cgroups(&mut steps);
            steps.push(Planned::new(LauncherStep::AwaitBirth, Field::new("linux.namespaces")));
            steps.extend(self.map_ids());
            let compare = |map: &IdMap| {
                Planned::new(LauncherStep::CompareIdMap(map.clone()), Field::new(format!("linux.{}Mappings", map.which)))
            };
            steps.extend(self.expected_maps.iter().map(compare));
            steps.extend(self.move_net_devices());
        }
        if self.terminal {
            steps.push(Planned::new(LauncherStep::Await(FromInit::Terminal), Field::new("process.terminal")));
        }
        if self.delegates {
            let field = || annotations::field(annotations::DELEGATED);
            steps.push(Planned::new(LauncherStep::Await(FromInit::Rooted), field()));
            steps.push(Planned::new(LauncherStep::JoinDelegated, field()));
        }
        steps.extend(self.runtime_hooks());
        steps.extend(closing(self.request, true, self.pidfd_socket.as_ref().map(|planned| planned.origin.clone())));
        steps
    }

    /// Init stands still meanwhile, with its rootfs built and not yet entered.
    fn runtime_hooks(&self) -> Vec<Planned<LauncherStep>> {
        let mut steps = Vec::new();
        if !self.waits_for_hooks() {
            return steps;
        }
        let hooks = || Origin::Config(Field::new("hooks"));
        steps.push(Planned::new(LauncherStep::Await(FromInit::RootfsBuilt), hooks()));
        for (moment, list) in [(Moment::Prestart, &self.hooks.prestart), (Moment::CreateRuntime, &self.hooks.create_runtime)] {
            if !list.is_empty() {
                let field = Field::new("hooks").key(moment.name());
                steps.push(Planned::new(LauncherStep::Hooks(hooks::steps(list, moment)), field));
            }
        }
        if !self.has_runtime_hooks() {
            steps.push(Planned::new(LauncherStep::RecordHooks, Field::new("hooks.createContainer")));
        }
        steps.push(Planned::new(LauncherStep::Tell(ToInit::HooksDone), hooks()));
        steps
    }

    fn map_ids(&self) -> Vec<Planned<LauncherStep>> {
        let write =
            |map: &IdMap| Planned::new(LauncherStep::WriteIdMap(map.clone()), Field::new(format!("linux.{}Mappings", map.which)));
        let mut steps: Vec<_> = self.maps.iter().map(write).collect();
        if !self.maps.is_empty() {
            steps.push(Planned::new(LauncherStep::Tell(ToInit::IdsMapped), self.field(Kind::User)));
        }
        steps
    }

    fn move_net_devices(&self) -> Vec<Planned<LauncherStep>> {
        let field = |device: &netdev::NetDevice| Field::new("linux.netDevices").entry(&device.name);
        let step = |device: &netdev::NetDevice| Planned::new(LauncherStep::MoveNetDevice(device.clone()), field(device));
        let mut steps: Vec<_> = self.net_devices.iter().map(step).collect();
        if !steps.is_empty() {
            steps.push(Planned::new(LauncherStep::Tell(ToInit::DevicesMoved), Field::new("linux.netDevices")));
        }
        steps
    }

    /// Everything that is opened with the caller's rights and in the caller's namespaces.
    fn open(&self) -> Vec<Planned<LauncherStep>> {
        let mut steps = Vec::new();
        for (kind, path) in &self.namespaces.joined {
            steps.push(Planned::new(LauncherStep::OpenNamespace { kind: *kind, path: path.clone() }, self.field(*kind)));
        }
        for planned in &self.rootfs.build {
            let step = match &planned.step {
                RootfsStep::AttachRoot { path, opened_by: OpenedBy::Launcher } => LauncherStep::OpenRootfs { path: path.clone() },
                RootfsStep::Mount(mount) => match prepare(mount) {
                    Some(step) => step,
                    None => continue,
                },
                _ => continue,
            };
            steps.push(Planned { step, origin: planned.origin.clone() });
            if let RootfsStep::Mount(mount) = &planned.step
                && let Some(map) = &mount.id_map
            {
                let step = LauncherStep::MapIds { index: mount.index, map: map.clone() };
                steps.push(Planned { step, origin: planned.origin.clone() });
            }
        }
        if let Some(found) = steps.iter().find(|planned| matches!(planned.step, LauncherStep::FindSource { .. })) {
            let step = LauncherStep::OpenNamespace { kind: Kind::Mount, path: PathBuf::from("/proc/self/ns/mnt") };
            steps.push(Planned { step, origin: found.origin.clone() });
        }
        if let Some(path) = &self.request.console_socket {
            steps.push(flag(LauncherStep::ConnectConsole { path: path.clone() }, "--console-socket"));
        }
        steps.extend(self.pidfd_socket.clone());
        steps.extend(self.hook_output());
        steps.extend(connect_listener(self.seccomp, self.annotations));
        steps
    }

    /// Where hooks write to: opened once, because those of the container cannot reach it any more.
    fn hook_output(&self) -> Vec<Planned<LauncherStep>> {
        let before_start = Moment::ALL.iter().filter(|moment| !matches!(moment, Moment::Poststart | Moment::Poststop));
        if before_start.into_iter().all(|moment| moment.of(self.hooks).is_empty()) {
            return Vec::new();
        }
        let named = annotations::hook_output(self.annotations).into_iter().enumerate();
        let step = |(stream, named): (usize, Option<(&'static str, &std::path::Path)>)| {
            let (key, path) = named?;
            Some(Planned::new(LauncherStep::OpenHookOutput { stream, path: path.to_owned() }, annotations::field(key)))
        };
        named.filter_map(step).collect()
    }

    fn clone_step(&self) -> Planned<LauncherStep> {
        let bridge = !self.direct();
        let made_at_birth = |kind: &&Kind| !matches!(kind, Kind::Cgroup | Kind::Time);
        let step = LauncherStep::Clone {
            new: if bridge { Vec::new() } else { self.namespaces.new.iter().filter(made_at_birth).copied().collect() },
            inside: if bridge {
                Vec::new()
            } else {
                self.namespaces.joined.iter().map(|(kind, _)| *kind).filter(|kind| is_entered_before_birth(*kind)).collect()
            },
            into_cgroup: self.born_in_cgroup,
            // A caller without privilege must stay dumpable until its maps are written; the bridge then hides itself.
            hidden: self.hidden(),
            bridge,
        };
        Planned::new(step, Field::new("linux.namespaces"))
    }

    /// Init is hidden from those who look from where all processes are to be seen, as from a pid namespace that it joins: the capabilities of a
    /// root outside are enough for what it shows from a user namespace of root's, otherwise. Hooks look at it too (`/proc/PID/ns/net`), which
    /// takes CAP_SYS_PTRACE then: without that, root's init hides itself when the hooks are through.
    fn hidden(&self) -> bool {
        let root = self.direct() && self.host.uid == 0 && self.host.can(capabilities::SYS_PTRACE);
        self.host.privileged() && (root || self.namespaces.is_joined(Kind::Pid))
    }

    /// The bridge joins what only a process that does not come back can join (see [`topology`]). A privileged caller joins the
    /// others before, with its own rights; another one gets the right to join them only in the user namespace.
    fn bridge(&self) -> Vec<Planned<BridgeStep>> {
        if self.direct() {
            return Vec::new();
        }
        let oom_score = self.oom_score.clone().map(|planned| planned.into_step(BridgeStep::OomScoreAdj));
        let mut steps: Vec<_> = oom_score.into_iter().collect();
        if self.has_cgroup_v2 {
            steps.push(Planned::new(BridgeStep::Await(ToInit::CgroupJoined), self.cgroup_origin.clone()));
        }
        if self.has_cgroup_v1 {
            steps.push(Planned::new(BridgeStep::JoinCgroups, self.cgroup_origin.clone()));
        }
        steps.push(default(BridgeStep::Hide, "nothing of the runtime is open to a container"));
        let mut joins: Vec<&(Kind, PathBuf)> =
            self.namespaces.joined.iter().filter(|(kind, _)| !matches!(kind, Kind::Mount | Kind::Cgroup)).collect();
        let user_last = self.host.privileged();
        joins.sort_by_key(|(kind, _)| (*kind == Kind::User) == user_last);
        for (kind, path) in joins {
            let join = NamespaceStep::Join { kind: *kind, path: path.clone() };
            steps.push(Planned::new(BridgeStep::Namespace(join), self.field(*kind)));
        }
        let new = self.namespaces.new.iter().filter(|kind| !matches!(kind, Kind::Cgroup | Kind::Time)).copied().collect();
        steps.push(Planned::new(BridgeStep::CloneInit { new }, Field::new("linux.namespaces")));
        steps
    }
}
