//! The plan of another process in a running container.

use crate::cgroups;
use crate::host::Host;
use crate::launch::protocol::{FromInit, ToInit};
use crate::namespaces::plan::{namespaces, root_id};
use crate::namespaces::{Kind, NamespaceStep, Namespaces};
use crate::process::{ProcessStep, plan as process_plan};
use crate::seccomp::Filter;
use crate::spec::{Field, IdMapping, Linux, Process};
use crate::state::Record;

use super::annotations;
use super::common::{
    check_terminal, closing, connect_listener, connect_pidfd_socket, default, ending, flag, getting_ready, take_oom_score,
};
use super::request::Request;
use super::{BridgeStep, Findings, InitStep, LauncherStep, Plan, Planned, StartSignal, Topology};

/// The plan of another process in a running container: everything it has to know is in the record.
pub fn exec(
    record: &Record,
    process: &Process,
    seccomp: Option<Filter>,
    request: &Request,
    host: &Host,
    findings: &mut Findings,
) -> Plan {
    let linux = Linux { namespaces: record.namespaces.clone(), ..Linux::default() };
    let namespaces = namespaces(&linux, findings);
    let maps = (&record.uid_mappings, &record.gid_mappings);
    let input = process_plan::Input {
        process,
        namespaces: &namespaces,
        uid_mappings: maps.0,
        gid_mappings: maps.1,
        gid_method: denies_setgroups(maps.1, host).then_some(crate::namespaces::idmap::Method::Single),
        host,
        seccomp: seccomp.is_some(),
        personality: record.personality.as_ref(),
        memory_policy: record.memory_policy.as_ref(),
        preserve_fds: request.preserve_fds,
        keyring: record.keyring.clone(),
        exec: true,
        keep_groups: annotations::keeps_groups(&record.annotations),
    };
    let mut parts = process_plan::plan(&input, findings);
    let oom_score = take_oom_score(&mut parts).map(|planned| planned.into_step(BridgeStep::OomScoreAdj));
    check_terminal(process.terminal, request, findings);
    let has = |version| record.cgroup.directories.iter().any(|directory| directory.place.version == version);
    let cgroups = Cgroups { v1: has(cgroups::Version::V1), v2: has(cgroups::Version::V2) };
    Plan {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        annotations: record.annotations.clone(),
        container: record.init.map(|init| init.pid),
        topology: Topology::Bridged,
        launcher: exec_launcher(record, process, request, cgroups, seccomp.as_ref(), &parts),
        bridge: exec_bridge(&namespaces, cgroups, oom_score),
        init: exec_init(&namespaces, maps, !input.keep_groups, &parts, request.start),
        process: Some(process.clone()),
        cgroup: cgroups::CgroupPlan::default(),
        resctrl: None,
        seccomp,
        warnings: std::mem::take(&mut findings.warnings),
        rehearsal: false,
    }
}

/// Of which versions the container has control groups.
#[derive(Clone, Copy)]
struct Cgroups {
    v1: bool,
    v2: bool,
}

/// A single group id that was mapped without privilege (see [`crate::namespaces::idmap::Method::Single`]).
fn denies_setgroups(map: &[IdMapping], host: &Host) -> bool {
    matches!(map, [only] if only.size == 1) && !host.can(crate::process::capabilities::SETGID)
}

fn exec_launcher(
    record: &Record,
    process: &Process,
    request: &Request,
    cgroups: Cgroups,
    seccomp: Option<&Filter>,
    parts: &process_plan::ProcessPlan,
) -> Vec<Planned<LauncherStep>> {
    let container = |step| default(step, "exec joins the container");
    let mut steps = Vec::new();
    if let Some(path) = &request.console_socket {
        steps.push(flag(LauncherStep::ConnectConsole { path: path.clone() }, "--console-socket"));
    }
    let pidfd_socket = connect_pidfd_socket(request, None);
    let pidfd = pidfd_socket.as_ref().map(|planned| planned.origin.clone());
    steps.extend(pidfd_socket);
    steps.extend(connect_listener(seccomp, &record.annotations));
    steps.extend(parts.initial_affinity.clone().map(|planned| planned.into_step(LauncherStep::CpuAffinity)));
    let step = LauncherStep::Clone { new: Vec::new(), inside: Vec::new(), into_cgroup: cgroups.v2, hidden: false, bridge: true };
    steps.push(container(step));
    if let Some(resctrl) = &record.resctrl {
        steps.push(container(LauncherStep::JoinResctrl { tasks: resctrl.tasks.clone() }));
    }
    if cgroups.v2 {
        steps.push(container(LauncherStep::JoinCgroup));
        steps.push(container(LauncherStep::Tell(ToInit::CgroupJoined)));
    }
    steps.push(container(LauncherStep::AwaitBirth));
    if process.terminal {
        steps.push(Planned::new(LauncherStep::Await(FromInit::Terminal), Field::new("process.terminal")));
    }
    steps.extend(closing(request, false, pidfd));
    steps
}

fn exec_bridge(namespaces: &Namespaces, cgroups: Cgroups, oom_score: Option<Planned<BridgeStep>>) -> Vec<Planned<BridgeStep>> {
    let container = |step| default(step, "exec joins the container");
    let mut steps: Vec<_> = oom_score.into_iter().collect();
    if cgroups.v2 {
        steps.push(container(BridgeStep::Await(ToInit::CgroupJoined)));
    }
    if cgroups.v1 {
        steps.push(container(BridgeStep::JoinCgroups));
    }
    steps.push(default(BridgeStep::Hide, "nothing of the runtime is open to a container"));
    let kinds: Vec<Kind> = Kind::all().filter(|kind| namespaces.has(*kind)).collect();
    if !kinds.is_empty() {
        steps.push(container(BridgeStep::Namespace(NamespaceStep::JoinContainer { kinds })));
    }
    steps.push(container(BridgeStep::CloneInit { new: Vec::new() }));
    steps
}

fn exec_init(
    namespaces: &Namespaces,
    maps: (&Vec<IdMapping>, &Vec<IdMapping>),
    drop_groups: bool,
    parts: &process_plan::ProcessPlan,
    start: StartSignal,
) -> Vec<Planned<InitStep>> {
    let mut steps = Vec::new();
    if namespaces.has(Kind::User) {
        let step = NamespaceStep::BecomeRoot { uid: root_id(maps.0), gid: root_id(maps.1), drop_groups };
        steps.push(default(InitStep::Namespace(step), "exec joins the container"));
    }
    if !namespaces.has(Kind::Mount) {
        steps.push(default(InitStep::EnterRoot, "exec joins the container"));
    }
    let widen = |planned: &Planned<ProcessStep>| planned.clone().into_step(InitStep::Process);
    steps.extend(parts.first.iter().map(widen));
    steps.extend(parts.terminal.iter().map(widen));
    steps.extend(parts.become_user.iter().map(widen));
    steps.extend(getting_ready(start));
    steps.extend(ending(parts));
    steps
}
