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
    let oom_score = take_oom_score(&mut parts);
    // A user namespace is joined for good, and in another one than the first the caller could not come back to its own. The files in procfs of
    // a process that is not dumpable are root's: who has capabilities and another id could not set the score from outside.
    let direct = !namespaces.has(Kind::User) && host.initial_user_namespace && host.privileged() && host.uid == 0;
    check_terminal(process.terminal, request, findings);
    let has = |version| record.cgroup.directories.iter().any(|directory| directory.place.version == version);
    let cgroups = Cgroups { v1: has(cgroups::Version::V1), v2: has(cgroups::Version::V2) };
    let birth = Birth { direct, namespaces: &namespaces, cgroups, oom_score };
    Plan {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        annotations: record.annotations.clone(),
        container: record.init.map(|init| init.pid),
        topology: if direct { Topology::Direct } else { Topology::Bridged },
        launcher: exec_launcher(record, process, request, &birth, seccomp.as_ref(), &parts),
        bridge: if direct { Vec::new() } else { exec_bridge(&birth) },
        init: exec_init(&birth, maps, !input.keep_groups, &parts, request.start),
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

/// How the process comes into being.
struct Birth<'a> {
    /// Without a bridge.
    direct: bool,
    namespaces: &'a Namespaces,
    cgroups: Cgroups,
    oom_score: Option<Planned<i32>>,
}

impl Birth<'_> {
    /// The namespaces of the container in which it is born. Nobody could be born in its groups from within its cgroup namespace.
    fn kinds(&self) -> Vec<Kind> {
        Kind::all().filter(|kind| self.namespaces.has(*kind) && !(self.direct && *kind == Kind::Cgroup)).collect()
    }
}

/// A single group id that was mapped without privilege (see [`crate::namespaces::idmap::Method::Single`]).
fn denies_setgroups(map: &[IdMapping], host: &Host) -> bool {
    matches!(map, [only] if only.size == 1) && !host.can(crate::process::capabilities::SETGID)
}

fn exec_launcher(
    record: &Record,
    process: &Process,
    request: &Request,
    birth: &Birth<'_>,
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
    let direct = birth.direct;
    steps.push(container(LauncherStep::Clone {
        new: Vec::new(),
        inside: if direct { birth.kinds() } else { Vec::new() },
        into_cgroup: birth.cgroups.v2,
        hidden: direct,
        bridge: !direct,
    }));
    if direct {
        steps.extend(birth.oom_score.clone().map(|planned| planned.into_step(LauncherStep::OomScoreAdj)));
    }
    if let Some(resctrl) = &record.resctrl {
        steps.push(container(LauncherStep::JoinResctrl { tasks: resctrl.tasks.clone() }));
    }
    if birth.cgroups.v2 {
        steps.push(container(LauncherStep::JoinCgroup));
        steps.push(container(LauncherStep::Tell(ToInit::CgroupJoined)));
    }
    if !direct {
        steps.push(container(LauncherStep::AwaitBirth));
    }
    if process.terminal {
        steps.push(Planned::new(LauncherStep::Await(FromInit::Terminal), Field::new("process.terminal")));
    }
    let mut end = closing(request, false, pidfd);
    if direct && (birth.cgroups.v1 || birth.cgroups.v2) {
        // Init says that it is ready; it is in its groups by then.
        end.insert(1, container(LauncherStep::CheckPids));
    }
    steps.extend(end);
    steps
}

fn exec_bridge(birth: &Birth<'_>) -> Vec<Planned<BridgeStep>> {
    let container = |step| default(step, "exec joins the container");
    let mut steps: Vec<_> = birth.oom_score.iter().map(|planned| planned.clone().into_step(BridgeStep::OomScoreAdj)).collect();
    if birth.cgroups.v2 {
        steps.push(container(BridgeStep::Await(ToInit::CgroupJoined)));
    }
    if birth.cgroups.v1 {
        steps.push(container(BridgeStep::JoinCgroups));
    }
    steps.push(default(BridgeStep::Hide, "nothing of the runtime is open to a container"));
    let kinds = birth.kinds();
    if !kinds.is_empty() {
        steps.push(container(BridgeStep::Namespace(NamespaceStep::JoinContainer { kinds })));
    }
    steps.push(container(BridgeStep::CloneInit { new: Vec::new() }));
    steps
}

fn exec_init(
    birth: &Birth<'_>,
    maps: (&Vec<IdMapping>, &Vec<IdMapping>),
    drop_groups: bool,
    parts: &process_plan::ProcessPlan,
    start: StartSignal,
) -> Vec<Planned<InitStep>> {
    let container = |step| default(step, "exec joins the container");
    let namespaces = birth.namespaces;
    let mut steps = Vec::new();
    if birth.direct && birth.cgroups.v2 {
        steps.push(container(InitStep::Await(ToInit::CgroupJoined)));
    }
    if birth.direct && birth.cgroups.v1 {
        steps.push(container(InitStep::JoinCgroups));
    }
    if birth.direct && namespaces.has(Kind::Cgroup) {
        steps.push(container(InitStep::Namespace(NamespaceStep::JoinContainer { kinds: vec![Kind::Cgroup] })));
    }
    if namespaces.has(Kind::User) {
        let step = NamespaceStep::BecomeRoot { uid: root_id(maps.0), gid: root_id(maps.1), drop_groups };
        steps.push(container(InitStep::Namespace(step)));
    }
    if !namespaces.has(Kind::Mount) {
        steps.push(container(InitStep::EnterRoot));
    }
    let widen = |planned: &Planned<ProcessStep>| planned.clone().into_step(InitStep::Process);
    steps.extend(parts.first.iter().map(widen));
    steps.extend(parts.terminal.iter().map(widen));
    steps.extend(parts.become_user.iter().map(widen));
    steps.extend(getting_ready(start));
    steps.extend(ending(parts));
    steps
}
