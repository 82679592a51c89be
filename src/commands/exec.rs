//! `rt exec`: another process in a running container, with everything that the container's record says.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::cgroups::{Cgroup, Choice};
use crate::error::{Error, Problem};
use crate::host::Host;
use crate::launch::launcher::{self, Handles, Launch};
use crate::launch::supervise;
use crate::plan::exec as plan_exec;
use crate::plan::request::Request;
use crate::plan::{Findings, StartSignal};
use crate::process::seal;
use crate::seccomp::{Bpf, Filter};
use crate::spec::{self, Capabilities, Process};
use crate::state::store::SECCOMP;
use crate::state::{Container, Status};
use crate::sys::fs;

use super::{Globals, make, parse_id, working_directory};

/// Run another process in a running container
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// A unix socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// The working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Add to the environment: NAME=value
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// The user and group ids: UID or UID:GID
    #[arg(short, long, value_name = "UID[:GID]", allow_hyphen_values = true)]
    user: Option<String>,
    /// Add a supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<i64>,
    /// The process as JSON, in place of a command line
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return as soon as the process runs
    #[arg(short, long)]
    detach: bool,
    /// A file that gets the pid of the process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// A unix socket that gets a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// The SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// The AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability to the bounding, effective and permitted sets
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Pass this many descriptors after stdio to the process
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Run in a control group below the container's: PATH, or CONTROLLERS:PATH on version 1
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Run although the container is paused: the process starts when it is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// The container's id
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command. Returns the process's exit status, or 128 plus the signal that killed it.
///
/// # Errors
/// If the process does not come to run.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("exec {}", args.id));
    seal::seal().map_err(|failure| during(failure.into()))?;
    let container = Container::load(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    match container.status {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            let text = "cannot exec in a paused container (use --ignore-paused to override)";
            return Err(container.wrong_status("exec", text));
        }
        Status::Creating => return Err(container.wrong_status("exec", "cannot exec in a container that is being made")),
        Status::Stopped => return Err(container.wrong_status("exec", "cannot exec in a stopped container")),
    }
    launch(args, container, globals).map_err(during)
}

fn launch(args: &Args, mut container: Container, globals: &Globals) -> Result<i32, Error> {
    let process = args.process(container.record.process.as_ref())?;
    let request = args.request(&container)?;
    let host = Host::probe_caller()?.with_lsm(Some(&process), false);
    let mut findings = Findings::default();
    let filter = args.filter(&container)?;
    let plan = plan_exec::exec(&container.record, &process, filter, &request, &host, &mut findings);
    // They may be about the container's record or about a flag.
    make::judge(&findings, &plan, "", globals)?;
    // What create has said about the container's own process is not said again by every exec.
    let is_new = |warning: &&Problem| !container.record.warnings.contains(&warning.to_string());
    globals.warn(plan.warnings.iter().filter(is_new));
    fs::close_range_cloexec(3)?;
    let pidfd = container.take_init().ok_or_else(|| container.wrong_status("exec", "cannot exec in a stopped container"))?;
    let mut handles = Handles::new(container.take_procfs()?);
    if !container.record.namespaces.iter().any(|namespace| namespace.r#type == "mount") {
        let pid = container.record.init.map_or(0, |init| init.pid);
        handles.container_root = Some(handles.procfs.open_namespace_path(&format!("{pid}/root"))?);
    }
    handles.container = Some(pidfd);
    let cgroup = args.groups(&container)?;
    let mut record = container.record;
    let launch = Launch {
        plan: &plan,
        log: &globals.log,
        strict: globals.strict,
        directory: None,
        record: &mut record,
        handles,
        cgroup: Some(cgroup),
        survey: None,
        findings: None,
    };
    let launched = launcher::run(launch)?;
    if args.detach {
        launched.init.release();
        return Ok(0);
    }
    Ok(supervise::foreground(launched, false)?.status())
}

impl Args {
    fn request(&self, container: &Container) -> Result<Request, Error> {
        Ok(Request {
            preserve_fds: make::preserved(self.preserve_fds)?,
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.as_deref().map(from_here).transpose()?,
            pidfd_socket: self.pidfd_socket.clone(),
            start: StartSignal::Link,
            detached: self.detach,
            ..Request::plain(container.record.id.clone(), container.record.bundle.clone())
        })
    }

    /// The process: from a file, or the container's own with what the flags change.
    fn process(&self, template: Option<&Process>) -> Result<Process, Error> {
        if let Some(path) = &self.process {
            let (bytes, name) = (spec::load::read_given(path)?, path.display().to_string());
            let mut process: Process = spec::load::parse(&bytes, &name)?;
            spec::load::without_nul(&bytes, &process, &name)?;
            // What a file says nothing about is as for the container's own process: so do runc and crun, and scripts count on it.
            process.capabilities = process.capabilities.or_else(|| template.and_then(|own| own.capabilities.clone()));
            return Ok(process);
        }
        let Some(template) = template else {
            return Err(Error::new("no-process", "the container has no process to inherit from; use --process"));
        };
        let mut process = Process { args: self.command.clone(), terminal: self.tty, console_size: None, ..template.clone() };
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        process.env.extend(self.env.iter().cloned());
        if let Some(user) = &self.user {
            (process.user.uid, process.user.gid) = parse_user(user, process.user.gid)?;
        }
        process.user.additional_gids.extend(&self.additional_gids);
        process.no_new_privileges |= self.no_new_privs;
        if set(self.apparmor.as_ref()) {
            process.apparmor_profile.clone_from(&self.apparmor);
        }
        if set(self.process_label.as_ref()) {
            process.selinux_label.clone_from(&self.process_label);
        }
        self.add_capabilities(&mut process);
        Ok(process)
    }

    /// Never into the inheritable and ambient sets (CVE-2022-29162).
    fn add_capabilities(&self, process: &mut Process) {
        if self.cap.is_empty() {
            return;
        }
        let sets = process.capabilities.get_or_insert_with(Capabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(self.cap.iter().cloned());
        }
    }

    fn filter(&self, container: &Container) -> Result<Option<Filter>, Error> {
        let Some(seccomp) = &container.record.seccomp else { return Ok(None) };
        let bytes = container.directory.read_file(SECCOMP)?;
        let damaged = || Error::new("no-record", format!("{SECCOMP} of container {} is damaged", self.id));
        let program = Bpf::from_bytes(bytes).ok_or_else(damaged)?;
        Ok(Some(Filter { program, flags: seccomp.flags, listener: seccomp.listener.clone(), unknown: Vec::new() }))
    }

    /// The container's control groups, or those below that `--cgroup` names.
    fn groups(&self, container: &Container) -> Result<Cgroup, Error> {
        let cgroup = container.cgroup()?;
        if self.cgroup.is_empty() {
            return Ok(cgroup);
        }
        let choices: Vec<Choice> = self.cgroup.iter().map(|text| Choice::parse(text)).collect();
        Ok(cgroup.choose(&choices)?)
    }
}

/// The path from any working directory: this command comes out of the container's mount namespace without its own.
fn from_here(path: &Path) -> Result<PathBuf, Error> {
    if path.is_absolute() || path.as_os_str().is_empty() { Ok(path.to_owned()) } else { Ok(working_directory()?.join(path)) }
}

fn set(value: Option<&String>) -> bool {
    value.is_some_and(|text| !text.is_empty())
}

/// `UID` or `UID:GID`, digits only: nothing is looked up and nothing is guessed (CVE-2026-30892).
fn parse_user(text: &str, default_gid: i64) -> Result<(i64, i64), Error> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()).flatten().filter(|id| *id != u32::MAX).map(i64::from)
    };
    let parsed = match text.split_once(':') {
        None => number(text).map(|uid| (uid, default_gid)),
        Some((uid, gid)) => number(uid).zip(number(gid)),
    };
    parsed.ok_or_else(|| {
        let expected = format!("expected UID or UID:GID, each from 0 to {}", u32::MAX - 1);
        Error::new("invalid-user", format!("--user {text:?}: {expected}"))
    })
}

#[cfg(test)]
mod tests {
    use super::parse_user;

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("1", 7).ok(), Some((1, 7)));
        assert_eq!(parse_user("65534:65534", 0).ok(), Some((65534, 65534)));
        for bad in ["-1", "4294967295", "4294967296", "18446744073709551616", "1:", ":1", "0x1", " 1", "1a", "", "root"] {
            assert!(parse_user(bad, 0).is_err(), "{bad}");
        }
    }
}
