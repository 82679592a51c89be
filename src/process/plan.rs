//! From `process` to steps: before the root changes nothing, after it in an order that the kernel dictates.
//!
//! Limits before the user changes (raising needs privilege), the bounding set before the user (CAP_SETPCAP), groups before the user,
//! capabilities after it, no_new_privs before a filter unless the filter needs CAP_SYS_ADMIN instead.

use std::path::PathBuf;

use crate::host::Host;
use crate::lsm;
use crate::namespaces::idmap::{Method, host_id};
use crate::namespaces::{Kind, Namespaces};
use crate::plan::{Findings, Origin, Planned};
use crate::spec::{Field, IdMapping, Process};
use crate::sys::tty::Size;

use super::capabilities::{self, ALL, SETGID, Sets};
use super::numa::{self, BitSet};
use super::rlimits;
use super::scheduler;
use super::steps::{ProcessStep, UserStep};

/// What planning the process looks at.
#[derive(Debug)]
pub struct Input<'a> {
    /// The process as configured.
    pub process: &'a Process,
    /// The namespaces of the container.
    pub namespaces: &'a Namespaces,
    /// The id maps, if the container has a user namespace whose maps are known.
    pub uid_mappings: &'a [IdMapping],
    /// See `uid_mappings`.
    pub gid_mappings: &'a [IdMapping],
    /// How the gid map is written; a single one denies setgroups.
    pub gid_method: Option<Method>,
    /// The machine.
    pub host: &'a Host,
    /// There is a seccomp filter.
    pub seccomp: bool,
    /// `linux.personality`.
    pub personality: Option<&'a crate::spec::Personality>,
    /// `linux.memoryPolicy`.
    pub memory_policy: Option<&'a crate::spec::MemoryPolicy>,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
    /// The name of the session keyring, unless `--no-new-keyring`.
    pub keyring: Option<String>,
    /// A container that runs already: nothing is made in it.
    pub exec: bool,
    /// The caller's supplementary groups stay, and the config's are not set.
    pub keep_groups: bool,
}

/// The steps of init.
#[derive(Debug, Default)]
pub struct ProcessPlan {
    /// First of all.
    pub first: Vec<Planned<ProcessStep>>,
    /// When the mounts are there.
    pub terminal: Vec<Planned<ProcessStep>>,
    /// Inside of the root, up to the point where init is ready.
    pub become_user: Vec<Planned<ProcessStep>>,
    /// After start, right before the program.
    pub last: Vec<Planned<ProcessStep>>,
    /// The processors of the launcher of an exec, until the process is in the container's control groups.
    pub initial_affinity: Option<Planned<BitSet>>,
}

/// Plans the process.
pub fn plan(input: &Input<'_>, findings: &mut Findings) -> ProcessPlan {
    let process = input.process;
    check_strings(process, findings);
    crate::plan::document::check_process(process, findings);
    let mut plan = ProcessPlan::default();
    plan.first.push(Planned::new(ProcessStep::NewSession, Origin::Default("a session of its own")));
    let lsm = lsm::plan::plan(process, input.host, findings);
    plan.first.extend(lsm.before_keyring.into_iter().map(|planned| planned.into_step(ProcessStep::Lsm)));
    // Before the number of descriptors is limited: a file is opened for it.
    plan.last.extend(lsm.last.into_iter().map(|planned| planned.into_step(ProcessStep::Lsm)));
    if let Some(name) = &input.keyring {
        plan.first
            .push(Planned::new(ProcessStep::Keyring { name: name.clone() }, Origin::Default("a session keyring of its own")));
    }
    if process.terminal {
        let size = process.console_size.as_ref().map(|size| Size { rows: clamp(size.height), columns: clamp(size.width) });
        let console = !input.exec && input.namespaces.is_new(Kind::Mount);
        plan.terminal.push(Planned::new(ProcessStep::Terminal { size, console }, Field::new("process.terminal")));
    }
    priorities(process, &mut plan, findings);
    numa(input, &mut plan, findings);
    limits(process, &mut plan, findings);
    directory(process, input.exec, &mut plan, findings);
    let user = user(input, findings);
    let uid = user.uid;
    let (sets, origin) = capability_sets(input, findings);
    plan.become_user.push(Planned::new(ProcessStep::LimitBounding(sets.bounding), origin.clone()));
    plan.become_user.push(Planned::new(ProcessStep::User(user), Field::new("process.user")));
    let for_seccomp = input.seccomp && !process.no_new_privileges;
    plan.become_user.push(Planned::new(ProcessStep::Capabilities { sets, for_seccomp }, origin));
    if process.no_new_privileges {
        plan.become_user.push(Planned::new(ProcessStep::NoNewPrivileges, Field::new("process.noNewPrivileges")));
    }
    if super::program::variable(&process.env, "HOME").is_none() {
        plan.become_user.push(Planned::new(ProcessStep::Home { uid }, Origin::Default("HOME of the user")));
    }
    plan.become_user.push(Planned::new(ProcessStep::FindProgram, Field::new("process.args")));
    let preserve = input.preserve_fds;
    let origin = if preserve > 0 { Origin::Flag("--preserve-fds") } else { Origin::Default("no descriptor of the caller's") };
    plan.become_user.push(Planned::new(ProcessStep::CloseDescriptors { preserve }, origin));
    if let Some(domain) = input.personality.and_then(|config| personality(config, findings)) {
        plan.become_user.push(Planned::new(ProcessStep::Personality(domain), Field::new("linux.personality")));
    }
    plan.last.push(Planned::new(ProcessStep::CleanSignals, Origin::Default("no signal is blocked or ignored")));
    if input.seccomp {
        plan.last.push(Planned::new(ProcessStep::Seccomp, Field::new("linux.seccomp")));
    }
    plan
}

/// The plan of a container without a process: its init waits until it is killed, and holds nothing that is the launcher's.
pub fn without_process() -> ProcessPlan {
    let close = ProcessStep::CloseDescriptors { preserve: 0 };
    ProcessPlan {
        first: vec![Planned::new(ProcessStep::NewSession, Origin::Default("a session of its own"))],
        become_user: vec![Planned::new(close, Origin::Default("no descriptor of the caller's"))],
        ..ProcessPlan::default()
    }
}

/// PER_LINUX and PER_LINUX32 of linux/personality.h; the specification knows no flags.
fn personality(config: &crate::spec::Personality, findings: &mut Findings) -> Option<u32> {
    let field = Field::new("linux.personality");
    if !config.flags.is_empty() {
        findings.problem(field.key("flags"), "set; the specification defines none");
    }
    match config.domain.as_str() {
        "LINUX" => Some(0),
        "LINUX32" => Some(8),
        other => {
            findings.problem(field.key("domain"), format!("unknown domain {other:?}; expected LINUX or LINUX32"));
            None
        }
    }
}

/// The kernel's NGROUPS_MAX (setgroups(2)).
const MAX_GROUPS: usize = 65_536;

/// Terminals count in 16 bits.
fn clamp(characters: u64) -> u16 {
    u16::try_from(characters).unwrap_or(u16::MAX)
}

fn check_strings(process: &Process, findings: &mut Findings) {
    let field = Field::new("process.args");
    if process.args.first().is_none_or(String::is_empty) {
        findings.problem(field.clone(), "empty; expected the program and its arguments");
    }
    for (index, text) in process.args.iter().enumerate().filter(|(_, text)| text.contains('\0')) {
        findings.problem(field.index(index), format!("{text:?} contains a NUL"));
    }
    for (index, entry) in process.env.iter().enumerate() {
        let field = Field::new("process.env").index(index);
        if entry.contains('\0') {
            findings.problem(field, format!("{entry:?} contains a NUL"));
        } else if !entry.contains('=') || entry.starts_with('=') {
            findings.problem(field, format!("{entry:?}: expected NAME=value"));
        }
    }
}

fn priorities(process: &Process, plan: &mut ProcessPlan, findings: &mut Findings) {
    if let Some(value) = process.oom_score_adj {
        let field = Field::new("process.oomScoreAdj");
        if !(-1000..=1000).contains(&value) {
            findings.problem(field.clone(), format!("{value}: expected -1000 to 1000"));
        }
        plan.become_user.push(Planned::new(ProcessStep::OomScoreAdj(value), field));
    }
    let field = Field::new("process.scheduler");
    if let Some(attributes) = process.scheduler.as_ref().and_then(|config| scheduler::plan(config, &field, findings)) {
        plan.become_user.push(Planned::new(ProcessStep::Scheduler(attributes), field));
    }
    let field = Field::new("process.ioPriority");
    if let Some(value) = process.io_priority.as_ref().and_then(|config| scheduler::io_priority(config, &field, findings)) {
        plan.become_user.push(Planned::new(ProcessStep::IoPriority(value), field));
    }
}

fn numa(input: &Input<'_>, plan: &mut ProcessPlan, findings: &mut Findings) {
    let field = Field::new("linux.memoryPolicy");
    if let Some(step) = input.memory_policy.and_then(|config| numa::policy(config, &field, findings)) {
        plan.become_user.push(Planned::new(ProcessStep::MemoryPolicy(step), field));
    }
    let Some(affinity) = &input.process.exec_cpu_affinity else { return };
    let field = Field::new("process.execCPUAffinity");
    let initial = numa::affinity(affinity.initial.as_ref(), &field.key("initial"), findings);
    let last = numa::affinity(affinity.r#final.as_ref(), &field.key("final"), findings);
    // "This setting is not applicable to the container's init process" (config.md).
    if input.exec {
        plan.initial_affinity = initial.map(|set| Planned::new(set, field.key("initial")));
        plan.first.extend(last.map(|set| Planned::new(ProcessStep::CpuAffinity(set), field.key("final"))));
    }
}

fn limits(process: &Process, plan: &mut ProcessPlan, findings: &mut Findings) {
    for (step, field) in rlimits::plan(&process.rlimits, &Field::new("process.rlimits"), findings) {
        if step.resource == libc::RLIMIT_NOFILE {
            // Init itself opens one more descriptor when it is started.
            plan.become_user.push(Planned::new(ProcessStep::RaiseLimit(step.clone()), field.clone()));
            plan.last.push(Planned::new(ProcessStep::SetLimit(step), field));
        } else {
            plan.become_user.push(Planned::new(ProcessStep::SetLimit(step), field));
        }
    }
}

fn directory(process: &Process, exec: bool, plan: &mut ProcessPlan, findings: &mut Findings) {
    let field = Field::new("process.cwd");
    if !process.cwd.starts_with('/') {
        findings.problem(field.clone(), format!("{:?}: expected an absolute path", process.cwd));
    }
    if process.cwd.contains('\0') {
        findings.problem(field.clone(), format!("{:?} contains a NUL", process.cwd));
    }
    let cwd = ProcessStep::Cwd { path: PathBuf::from(&process.cwd), make: !exec };
    plan.become_user.push(Planned::new(cwd, field));
    let field = Field::new("process.user.umask");
    let (umask, origin) = match process.user.umask {
        None => (0o022, Origin::Default("umask 0022")),
        Some(value) => match u32::try_from(value).ok().filter(|mask| *mask <= 0o777) {
            Some(mask) => (mask, Origin::Config(field)),
            None => {
                findings.problem(field.clone(), format!("{value}: expected 0 to {} (octal 0777)", 0o777));
                (0, Origin::Config(field))
            }
        },
    };
    plan.become_user.push(Planned::new(ProcessStep::Umask(umask), origin));
}

fn user(input: &Input<'_>, findings: &mut Findings) -> UserStep {
    let field = Field::new("process.user");
    let user = &input.process.user;
    let mut id = |field: Field, value: i64, map: &[IdMapping]| {
        // (uid_t)-1 means "leave unchanged" to the kernel: a container that asked for it would stay root.
        let Some(id) = u32::try_from(value).ok().filter(|id| *id != u32::MAX) else {
            findings.problem(field, format!("{value}: expected 0 to {}", u32::MAX - 1));
            return 0;
        };
        if !map.is_empty() && host_id(map, id).is_none() {
            findings.problem(field, format!("{id} is not mapped in the user namespace"));
        }
        id
    };
    let uid = id(field.key("uid"), user.uid, input.uid_mappings);
    let gid = id(field.key("gid"), user.gid, input.gid_mappings);
    let list = field.key("additionalGids");
    let groups: Vec<u32> =
        user.additional_gids.iter().enumerate().map(|(index, gid)| id(list.index(index), *gid, input.gid_mappings)).collect();
    if input.keep_groups {
        if !groups.is_empty() {
            findings.note(list, "not set: the caller's groups stay (annotations)");
        }
        return UserStep { uid, gid, groups: None };
    }
    let allowed = match input.gid_method {
        // What is denied in the caller's user namespace is denied in those below, too (user_namespaces(7)).
        _ if input.host.setgroups_denied => false,
        Some(method) => method != Method::Single,
        None => input.namespaces.has(Kind::User) || input.host.can(SETGID),
    };
    if groups.len() > MAX_GROUPS {
        findings.problem(
            list.clone(),
            format!("{} entries: expected at most {MAX_GROUPS}, as many as the kernel takes", groups.len()),
        );
    }
    if !allowed && !groups.is_empty() {
        let why = match input.host.setgroups_denied {
            true => "setgroups is denied in the user namespace of the caller (it was made without privilege)",
            false => "this caller may map one group id only, and then setgroups is denied",
        };
        findings.problem(list, format!("cannot be set: {why}"));
    } else if !allowed && input.host.setgroups_denied {
        findings.warning(
            list,
            "the caller's supplementary groups stay: setgroups is denied in its user namespace, which was made without privilege",
        );
    }
    // In a joined user namespace setgroups may be denied; there an empty list is not insisted on.
    let insist = allowed && (!groups.is_empty() || !input.namespaces.is_joined(Kind::User));
    UserStep { uid, gid, groups: insist.then_some(groups) }
}

fn capability_sets(input: &Input<'_>, findings: &mut Findings) -> (Sets, Origin) {
    let field = Field::new("process.capabilities");
    let grantable = if input.namespaces.has(Kind::User) { ALL } else { input.host.permitted };
    match &input.process.capabilities {
        Some(config) => (capabilities::plan(config, grantable, &field, findings), Origin::Config(field)),
        // What the config does not list is not given.
        None => (Sets::default(), Origin::Default("no capabilities")),
    }
}
