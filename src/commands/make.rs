//! What create and run share: from a bundle to a container whose init is ready.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cgroups;
use crate::error::{Error, Failure};
use crate::host::Host;
use crate::id::ContainerId;
use crate::launch::launcher::{self, Handles, Launch, Launched};
use crate::plan::automatic;
use crate::plan::build;
use crate::plan::request::{self, Request};
use crate::plan::{Findings, Plan, StartSignal};
use crate::procfs::ProcFs;
use crate::spec::{self, Hooks, Linux, Spec};
use crate::state::record::{LAYOUT, Phase, SeccompRecord};
use crate::state::{Directory, Record, Store, lifecycle, store};
use crate::sys::{fs, signal};

use super::{Globals, Rootless, working_directory};

/// Arguments of create and run.
#[derive(Clone, Debug, ClapArgs)]
pub struct MakeArgs {
    /// The container's id
    pub id: String,
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Another file than config.json; a relative path starts in the bundle
    #[arg(short = 'f', long, value_name = "FILE", default_value = "config.json")]
    pub config: PathBuf,
    /// A unix socket that gets the master of the terminal
    #[arg(short, long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// A file that gets the pid of the container's init
    #[arg(short, long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// A unix socket that gets a pidfd of the container's init
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Pass this many descriptors after stdio to the container
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Move the root instead of pivoting to it (for a root on an initramfs)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A container that has been made, with its lock held.
#[derive(Debug)]
pub struct Made {
    /// The state root.
    pub store: Store,
    /// Its directory.
    pub directory: Directory,
    /// Its record.
    pub record: Record,
    /// Its init and what belongs to it.
    pub launched: Launched,
}

/// What was read and planned, before any effect.
#[derive(Debug)]
pub struct Prepared {
    /// config.json.
    pub spec: Spec,
    /// What will be done.
    pub plan: Plan,
}

impl MakeArgs {
    /// What planning has to know.
    ///
    /// # Errors
    /// If the id is not one, or a descriptor to be preserved is not open.
    pub fn request(&self, start: StartSignal, detached: bool, globals: &Globals) -> Result<Request, Error> {
        let plain = globals.request(&self.id, &self.bundle)?;
        let notify = match crate::notify::wanted() {
            Some(_) => Some(request::absolute(&globals.root, &working_directory()?).join(&self.id).join(store::NOTIFY)),
            None => None,
        };
        Ok(Request {
            config: self.config.clone(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: preserved(self.preserve_fds)?,
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            notify,
            start,
            detached,
            ..plain
        })
    }
}

/// How many sockets systemd hands to the command (sd_listen_fds(3)).
fn listen_fds() -> u32 {
    // A variable that was meant for another process says nothing about our descriptors.
    let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    std::env::var("LISTEN_FDS").ok().filter(|_| ours).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The number of descriptors after stdio that stay open: those asked for and those of socket activation, which are the first.
///
/// # Errors
/// If one of them is not open.
pub fn preserved(asked: u32) -> Result<u32, Error> {
    let count = asked.saturating_add(listen_fds());
    for number in 3..count.saturating_add(3) {
        if !i32::try_from(number).is_ok_and(fs::is_inherited) {
            return Err(Error::new("bad-descriptor", format!("--preserve-fds {asked}: descriptor {number} is not open")));
        }
    }
    Ok(count)
}

/// Reads and plans.
///
/// # Errors
/// Every problem of the configuration at once.
pub fn prepare(request: &Request, globals: &Globals) -> Result<Prepared, Error> {
    let (prepared, _, findings) = interpret(request, globals)?;
    judge(&findings, &prepared.plan, &request.config.to_string_lossy(), globals)?;
    Ok(prepared)
}

/// Reads and plans, and leaves it to the caller what follows from what was found.
///
/// # Errors
/// If config.json cannot be understood, or the machine not be looked at.
pub fn interpret(request: &Request, globals: &Globals) -> Result<(Prepared, Host, Findings), Error> {
    let mut spec = spec::load::load(&request.bundle, &request.config)?;
    pass_listen_fds(&mut spec);
    if let Some(process) = spec.process.as_mut().filter(|_| request.notify.is_some()) {
        process.env.push(crate::notify::variable());
    }
    let cgroups_required = match globals.rootless {
        Rootless::Auto => None,
        Rootless::True => Some(false),
        Rootless::False => Some(true),
    };
    let host = Host::probe(&spec, request.id.as_str(), request.systemd_cgroup, cgroups_required)?;
    let mut findings = Findings::default();
    if let Some(changed) = automatic::user_namespace(&spec, &host, &mut findings) {
        spec = changed;
    }
    let plan = build::create(&spec, request, &host, &mut findings);
    Ok((Prepared { spec, plan }, host, findings))
}

/// [`Globals::judge`] of what planning found; notes go to the log.
///
/// # Errors
/// All problems.
pub fn judge(findings: &Findings, plan: &Plan, file: &str, globals: &Globals) -> Result<(), Error> {
    for note in &findings.notes {
        globals.log.debug(|| note.to_string());
    }
    globals.judge(&findings.problems, &plan.warnings, file)
}

/// Sockets of socket activation are named to the program as systemd would (sd_listen_fds(3)); it is the first process.
fn pass_listen_fds(spec: &mut Spec) {
    let count = listen_fds();
    if let Some(process) = spec.process.as_mut().filter(|_| count > 0) {
        process.env.push(format!("LISTEN_FDS={count}"));
        process.env.push("LISTEN_PID=1".to_owned());
        if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
            process.env.push(format!("LISTEN_FDNAMES={names}"));
        }
    }
}

/// Makes a container. When it fails nothing is left behind.
///
/// # Errors
/// Of the configuration, or of the step that failed.
pub fn make(request: &Request, globals: &Globals) -> Result<Made, Error> {
    let prepared = prepare(request, globals)?;
    if prepared.spec.process.is_none() && request.start == StartSignal::Link {
        return Err(Error::new("no-process", "config.json: process: missing; expected the program to be run"));
    }
    // Nothing that the caller has open may slip into a child; what is preserved is opened up again by init.
    fs::close_range_cloexec(3)?;
    let store = Store::open_or_make(&globals.root)?;
    let taken = || taken(&request.id);
    // From here on there is something to be taken back: a signal is heard by the launcher, and does not end us in between.
    signal::block_all()?;
    let directory = store.make(&request.id)?.ok_or_else(taken)?;
    globals.warn(&prepared.plan.warnings);
    match launch(&prepared, request, &directory, globals) {
        Ok((record, launched)) => {
            // Its memory was left alone before the clone and would not be used again (`sys::heap::leave`): to take thousands of pieces
            // apart would be for nothing.
            std::mem::forget(prepared);
            Ok(Made { store, directory, record, launched })
        }
        Err(failure) => Err(roll_back(failure, &store, &directory, globals)),
    }
}

/// The error for an id that is in use; engines match its words.
pub fn taken(id: &ContainerId) -> Error {
    let hint = format!("`rt state {id}` shows it; `rt delete {id}` removes it when it has stopped, with --force at any time");
    Error::new("exists", format!("container with given ID already exists: {id}")).hint_text(hint)
}

fn launch(
    prepared: &Prepared,
    request: &Request,
    directory: &Directory,
    globals: &Globals,
) -> Result<(Record, Launched), Failure> {
    let plan = &prepared.plan;
    let survey = cgroups::survey(&plan.cgroup)?;
    let handles = Handles::new(ProcFs::open()?);
    let mut record = record(prepared, request, survey.record());
    // For those who wait for it in vain, and to know its control groups by.
    record.maker = Some(lifecycle::own_reference(&handles.procfs)?);
    directory.write_record(&record)?;
    let launch = Launch {
        plan,
        log: &globals.log,
        strict: globals.strict,
        directory: Some(directory),
        record: &mut record,
        handles,
        cgroup: None,
        survey: Some(survey),
        findings: None,
    };
    let launched = launcher::run(launch)?;
    Ok((record, launched))
}

/// What is known of a container before the first effect.
pub fn record(prepared: &Prepared, request: &Request, cgroup: &cgroups::CgroupRecord) -> Record {
    let spec = &prepared.spec;
    let nothing = (Linux::default(), Hooks::default());
    let linux = spec.linux.as_ref().unwrap_or(&nothing.0);
    let hooks = spec.hooks.as_ref().unwrap_or(&nothing.1);
    Record {
        layout: LAYOUT,
        id: request.id.clone(),
        phase: Phase::Creating,
        bundle: request.bundle.clone(),
        rootfs: prepared.plan.rootfs.clone(),
        created: crate::time::now(),
        owner: crate::sys::cred::geteuid(),
        annotations: spec.annotations.clone(),
        cgroup: cgroup.clone(),
        device_rules: linux.resources.as_ref().map(|resources| resources.devices.clone()).unwrap_or_default(),
        devices: linux.devices.clone(),
        maker: None,
        init: None,
        process: spec.process.clone(),
        namespaces: linux.namespaces.clone(),
        uid_mappings: linux.uid_mappings.clone(),
        gid_mappings: linux.gid_mappings.clone(),
        seccomp: prepared
            .plan
            .seccomp
            .as_ref()
            .map(|filter| SeccompRecord { flags: filter.flags, listener: filter.listener.clone() }),
        personality: linux.personality.clone(),
        memory_policy: linux.memory_policy.clone(),
        keyring: (!request.no_new_keyring).then(|| format!("_ses.{}", request.id)),
        net_devices: linux.net_devices.clone(),
        resctrl: prepared.plan.resctrl.as_ref().map(crate::resctrl::group::record),
        poststart: hooks.poststart.clone(),
        poststop: hooks.poststop.clone(),
        remover: None,
        poststop_begun: 0,
        host_mounts: prepared.plan.host_mounts(),
        hooks_begun: false,
        warnings: prepared.plan.warnings.iter().map(ToString::to_string).collect(),
        outside: crate::criu::plan::outside(&prepared.plan),
        mount_label: linux.mount_label.clone().filter(|label| !label.is_empty()),
        added: Vec::new(),
    }
}

/// Takes everything back that the record names. The first error stays the one that is reported.
pub fn roll_back(failure: Failure, store: &Store, directory: &Directory, globals: &Globals) -> Error {
    let error = Error::from(failure);
    match super::delete::destroy(store, directory, &globals.log) {
        Ok(()) => error,
        Err(second) => error.also(second),
    }
}
