//! Hooks (config.md, "POSIX-platform Hooks"): programs that are run at six moments, with the state on standard input.
//!
//! The environment is exactly the configured one, the output becomes part of the message if the hook fails, and a hook that exceeds its
//! timeout is killed.

use std::convert::Infallible;
use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::child::Child;
use crate::error::{Doing, Failure};
use crate::plan::{Findings, annotations};
use crate::process::program::c_strings;
use crate::spec::{Field, Hook, Hooks, StringMap};
use crate::sys::process::{self, CloneArgs, Cloned, Exit};
use crate::sys::{At, CallError, CallResult, fs, signal};

/// The six moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Moment {
    /// Deprecated; after the namespaces exist, before the root changes, in the runtime's namespaces.
    Prestart,
    /// The same moment, after prestart.
    CreateRuntime,
    /// The same moment, in the container's namespaces.
    CreateContainer,
    /// Before the program, in the container.
    StartContainer,
    /// After the program was started.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

impl Moment {
    /// Every moment, in the order in which they come.
    pub const ALL: [Self; 6] =
        [Self::Prestart, Self::CreateRuntime, Self::CreateContainer, Self::StartContainer, Self::Poststart, Self::Poststop];

    /// The property in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Its hooks.
    pub fn of(self, hooks: &Hooks) -> &[Hook] {
        match self {
            Self::Prestart => &hooks.prestart,
            Self::CreateRuntime => &hooks.create_runtime,
            Self::CreateContainer => &hooks.create_container,
            Self::StartContainer => &hooks.start_container,
            Self::Poststart => &hooks.poststart,
            Self::Poststop => &hooks.poststop,
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One hook to be run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HookStep {
    /// When.
    pub moment: Moment,
    /// Its number in the list of its moment.
    pub index: usize,
    /// What to run.
    pub hook: Hook,
}

impl fmt::Display for HookStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} hook {}", self.moment, self.hook.path)
    }
}

/// Checks all hooks and lists those of one moment.
pub fn plan(hooks: &Hooks, findings: &mut Findings) {
    for moment in Moment::ALL {
        for (index, hook) in moment.of(hooks).iter().enumerate() {
            let field = field(moment, index);
            if !hook.path.starts_with('/') {
                findings.problem(field.key("path"), format!("relative path {:?}; expected an absolute path", hook.path));
            }
            if let Some(timeout) = hook.timeout.filter(|timeout| *timeout <= 0) {
                findings.problem(field.key("timeout"), format!("{timeout}: expected a number of seconds above 0"));
            }
            if hook.args.iter().chain(&hook.env).chain([&hook.path]).any(|text| text.contains('\0')) {
                findings.problem(field, "a string with a NUL; expected none");
            }
        }
    }
}

/// The config path of a hook.
pub fn field(moment: Moment, index: usize) -> Field {
    Field::new("hooks").key(moment.name()).index(index)
}

/// The hooks of one moment as steps.
pub fn steps(hooks: &[Hook], moment: Moment) -> Vec<HookStep> {
    hooks.iter().enumerate().map(|(index, hook)| HookStep { moment, index, hook: hook.clone() }).collect()
}

/// Files that get what hooks write; what has none is kept for the message of a failure.
#[derive(Debug, Default)]
pub struct Output {
    /// Of standard output and standard error.
    pub streams: [Option<OwnedFd>; 2],
}

impl Output {
    /// Opens the files that annotations name, with the caller's rights: they are made if need be, and appended to.
    ///
    /// # Errors
    /// The kernel's, with the annotation.
    pub fn open(annotations: &StringMap) -> Result<Self, Failure> {
        let mut output = Self::default();
        for (stream, named) in annotations::hook_output(annotations).into_iter().enumerate() {
            if let Some((key, path)) = named {
                output.streams[stream] =
                    Some(Self::file(path).map_err(|error| Failure::from(error).origin(annotations::field(key)))?);
            }
        }
        Ok(output)
    }

    /// Opens one file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn file(path: &Path) -> CallResult<OwnedFd> {
        // A terminal does not become ours.
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY;
        fs::openat(At::Cwd, path, flags, 0o600)
    }
}

/// How much of a hook's output is kept for the message.
const MAX_OUTPUT: usize = 2048;

/// What hooks are run in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// The working directory, if not that of this process.
    pub cwd: Option<&'a OwnedFd>,
    /// A signalfd, where signals are blocked: one that asks to end is heard.
    pub signals: Option<&'a OwnedFd>,
    /// Where they write to.
    pub output: Option<&'a Output>,
}

impl<'a> Around<'a> {
    fn stream(&self, index: usize, kept: &'a OwnedFd) -> &'a OwnedFd {
        self.output.and_then(|output| output.streams[index].as_ref()).unwrap_or(kept)
    }
}

/// Runs a hook to its end, or until a signal asks to end.
///
/// # Errors
/// If it cannot be run, exits with another status than 0, is killed, or takes too long.
pub fn run(step: &HookStep, state: &str, around: &Around<'_>) -> Result<(), Failure> {
    let argv = if step.hook.args.is_empty() { vec![step.hook.path.clone()] } else { step.hook.args.clone() };
    let (argv, envp) = (c_strings(&argv)?, c_strings(&step.hook.env)?);
    let input = in_memory(state)?;
    let output = fs::memfd_create("hook-output")?;
    let path = Path::new(&step.hook.path);
    let child = match process::clone3(&CloneArgs::default())? {
        Cloned::Child => match become_hook(path, &argv, &envp, &input, &output, around) {
            Ok(never) => match never {},
            Err(error) => {
                // The launcher reads the reason from where it reads the output.
                let _ = serde_json::to_vec(&error).map(|bytes| fs::write_all(&output, &bytes));
                process::exit_now(NOT_EXECUTED)
            }
        },
        Cloned::Parent(pid, pidfd) => Child::new(pid, pidfd),
    };
    let limit = step.hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let started = Instant::now();
    if let Some(number) = interrupted(&child, limit, around.signals)? {
        return Err(Failure::because(format!("killed because signal {number} came{}", said(&output))));
    }
    let Some(exit) = child.wait_for(limit.map(|limit| limit.saturating_sub(started.elapsed())))? else {
        return Err(Failure::because(format!(
            "killed after its timeout of {} s{}",
            limit.unwrap_or_default().as_secs(),
            said(&output)
        )));
    };
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(match not_executed(code, &output) {
            Some(error) => error.into(),
            None => Failure::because(format!("exit status {code}{}", said(&output))),
        }),
        Exit::Signal(signal) => Err(Failure::because(format!("killed by signal {signal}{}", said(&output)))),
    }
}

/// Waits until the hook has ended or its time is over, or until a signal asks this command to end: its number. They are blocked where
/// there are `signals`; elsewhere they end the command, and the kernel the hook with it.
fn interrupted(child: &Child, limit: Option<Duration>, signals: Option<&OwnedFd>) -> Result<Option<i32>, Failure> {
    let (Some(signals), Some(pidfd)) = (signals, child.pidfd()) else { return Ok(None) };
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let ready = process::poll(&[(pidfd.as_fd(), false), (signals.as_fd(), false)], left)?;
        if ready[0].readable || left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        while let Some(number) = signal::next_signal(signals) {
            if signal::asks_to_end(number) {
                return Ok(Some(number));
            }
        }
    }
}

/// The exit status of a process that could not become the hook, as in a shell.
const NOT_EXECUTED: i32 = 127;

/// Why the hook was not executed, if it was not.
fn not_executed(code: i32, output: &OwnedFd) -> Option<CallError> {
    (code == NOT_EXECUTED).then_some(())?;
    let read = fs::rewind(output).and_then(|()| fs::read_to_end(output, 1 << 20)).ok()?;
    serde_json::from_slice(&read).ok()
}

/// A file in memory rather than a pipe: a hook that does not read its input cannot block or kill anybody.
fn in_memory(text: &str) -> CallResult<OwnedFd> {
    let file = fs::memfd_create("hook-state")?;
    fs::write_all(&file, text.as_bytes())?;
    fs::rewind(&file)?;
    Ok(file)
}

fn become_hook(
    path: &Path,
    argv: &[CString],
    envp: &[CString],
    input: &OwnedFd,
    output: &OwnedFd,
    around: &Around<'_>,
) -> CallResult<Infallible> {
    process::set_parent_death_signal(true)?;
    fs::dup2(input, 0)?;
    fs::dup2(around.stream(0, output), 1)?;
    fs::dup2(around.stream(1, output), 2)?;
    fs::close_range_cloexec(3)?;
    signal::reset_dispositions()?;
    signal::unblock_all()?;
    if let Some(cwd) = around.cwd {
        fs::fchdir(cwd)?;
    }
    process::Image::new(path, argv.to_vec(), envp.to_vec())?.execute()
}

/// The end of what a hook has said, for a message.
fn said(output: &OwnedFd) -> String {
    let read = fs::rewind(output).and_then(|()| fs::read_to_end(output, 1 << 20)).unwrap_or_default();
    let tail = &read[read.len().saturating_sub(MAX_OUTPUT)..];
    let text = String::from_utf8_lossy(tail).trim().replace('\n', "; ");
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Runs the hooks of a moment in order, the first failure ends it.
///
/// # Errors
/// Of the first hook that fails, with its config path.
pub fn run_all(steps: &[HookStep], state: &str, around: &Around<'_>) -> Result<(), Failure> {
    steps.iter().try_for_each(|step| {
        run(step, state, around).doing(|| step.to_string()).map_err(|failure| failure.origin(field(step.moment, step.index)))
    })
}

/// Looks at the hooks of a moment without running them.
///
/// # Errors
/// What [`run_all`] fails with if one of them cannot be executed.
pub fn examine_all(steps: &[HookStep]) -> Result<(), Failure> {
    steps.iter().try_for_each(|step| {
        let looked = crate::process::examine::executable(Path::new(&step.hook.path));
        looked.doing(|| step.to_string()).map_err(|failure| failure.origin(field(step.moment, step.index)))
    })
}
