//! Carrying out a rehearsal ([`crate::plan::rehearsal`]): in a process of its own, which ends, and everything that was made for it with it.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroups::Survey;
use crate::child::Child;
use crate::error::Failure;
use crate::hooks;
use crate::log::Log;
use crate::namespaces::netdev;
use crate::plan::{InitStep, LauncherStep, Plan};
use crate::process::ProcessStep;
use crate::procfs::ProcFs;
use crate::rootfs::RootfsStep;
use crate::state::Record;
use crate::sys::process::{self, CloneArgs, Cloned};
use crate::sys::{At, CallError, CallResult, fs};

use super::launcher::{self, Handles, Launch};

/// How long a rehearsal may take: it waits for nobody, but a dead network filesystem would.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is collected on the way.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is refused.
    pub failures: RefCell<Vec<Failure>>,
    /// What init wants to be told.
    pub warnings: RefCell<Vec<String>>,
}

/// What a rehearsal found out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What is refused, in order: the first one is what create fails with.
    pub failures: Vec<Failure>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// Carries a rehearsal out.
///
/// # Errors
/// If it cannot be begun, or does not end.
pub fn rehearse(plan: &Plan, record: &mut Record, survey: Survey, log: &Log) -> Result<Outcome, Failure> {
    let report = fs::memfd_create("rehearsal")?;
    let child = match process::clone3(&CloneArgs::default())? {
        Cloned::Child => {
            let outcome = act(plan, record, survey, log);
            // The parent finds nothing to read if this fails.
            let _ = serde_json::to_vec(&outcome).map(|bytes| fs::write_all(&report, &bytes));
            process::exit_now(0)
        }
        Cloned::Parent(pid, pidfd) => Child::new(pid, pidfd),
    };
    child.wait_for(Some(PATIENCE))?;
    fs::rewind(&report)?;
    let bytes = fs::read_to_end(&report, 16 << 20)?;
    serde_json::from_slice(&bytes)
        .map_err(|_| Failure::because(format!("the rehearsal did not come to its end within {} s", PATIENCE.as_secs())))
}

fn act(plan: &Plan, record: &mut Record, survey: Survey, log: &Log) -> Outcome {
    let findings = Findings::default();
    let result = prepare().and_then(|handles| {
        let launch = Launch {
            plan,
            log,
            strict: false,
            directory: None,
            record,
            handles,
            cgroup: None,
            survey: Some(survey),
            findings: Some(&findings),
        };
        launcher::run(launch)
    });
    let mut failures = findings.failures.into_inner();
    failures.extend(result.err());
    Outcome { failures, warnings: findings.warnings.into_inner() }
}

/// Stdio would be given to the container's user.
fn prepare() -> Result<Handles, Failure> {
    process::set_parent_death_signal(true)?;
    let null: OwnedFd = fs::openat(At::Cwd, Path::new("/dev/null"), libc::O_RDWR, 0)?;
    for number in 0..3 {
        fs::dup2(&null, number)?;
    }
    Ok(Handles::new(ProcFs::open()?))
}

/// True for what later steps of the launcher do not build on.
pub fn goes_on_launcher(step: &LauncherStep) -> bool {
    matches!(
        step,
        LauncherStep::OpenSource { .. }
            | LauncherStep::MakeFilesystem { .. }
            | LauncherStep::MapIds { .. }
            | LauncherStep::FindSource { .. }
            | LauncherStep::CpuAffinity(_)
            | LauncherStep::Rehearsed { .. }
    )
}

/// True for what later steps of init do not build on.
pub fn goes_on_init(step: &InitStep) -> bool {
    match step {
        InitStep::Rootfs(step) => !matches!(
            step,
            RootfsStep::AttachRoot { .. }
                | RootfsStep::Propagation(_)
                | RootfsStep::SwitchRoot(_)
                | RootfsStep::RootPropagation(_)
        ),
        InitStep::Rehearsed { planned, .. } => !matches!(**planned, InitStep::Rootfs(RootfsStep::AttachRoot { .. })),
        InitStep::Process(step) => !matches!(
            step,
            ProcessStep::NewSession
                | ProcessStep::Terminal { .. }
                | ProcessStep::User(_)
                | ProcessStep::Capabilities { .. }
                | ProcessStep::CloseDescriptors { .. }
        ),
        _ => false,
    }
}

/// A look at what a step of the launcher would meet.
///
/// # Errors
/// What it would fail with.
pub fn examine(step: &LauncherStep) -> Result<(), Failure> {
    match step {
        LauncherStep::ConnectConsole { path } | LauncherStep::ConnectListener { path } => Ok(socket(path)?),
        LauncherStep::OpenHookOutput { path, .. } => Ok(appendable(path)?),
        LauncherStep::Hooks(steps) => hooks::examine_all(steps),
        LauncherStep::MoveNetDevice(device) => netdev::examine(device),
        _ => Ok(()),
    }
}

/// A file that can be written to, or a folder in which it can be made.
fn appendable(path: &Path) -> CallResult<()> {
    match fs::faccessat(At::Cwd, path, libc::W_OK) {
        Err(error) if error.is(libc::ENOENT) => fs::faccessat(At::Cwd, path.parent().unwrap_or(path), libc::W_OK | libc::X_OK),
        other => other,
    }
}

/// A socket that somebody may connect to. Whether anybody listens is only known to who tries.
fn socket(path: &Path) -> CallResult<()> {
    let refused = |errno: i32| CallError::new("connect", format!("{path:?}"), errno);
    let stat = fs::fstatat(At::Cwd, path, 0).map_err(|error| refused(error.errno))?;
    if !stat.is(libc::S_IFSOCK) {
        return Err(refused(libc::ECONNREFUSED));
    }
    fs::faccessat(At::Cwd, path, libc::W_OK).map_err(|error| refused(error.errno))
}
