//! `rt restore`: a container whose processes come out of the files of a checkpoint.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cgroups;
use crate::criu::client::Criu;
use crate::criu::facts;
use crate::criu::flags::{self, Needed};
use crate::criu::images::{self, Folder};
use crate::criu::message::{CgroupMode, NetworkLock, Options, Switch};
use crate::criu::plan::{self, RestoreFacts, RestoreFlags};
use crate::error::{Error, Failure};
use crate::launch::launcher::Launched;
use crate::launch::restore::{self, Opened, Restore};
use crate::plan::request::Request;
use crate::plan::{Findings, StartSignal};
use crate::procfs::ProcFs;
use crate::state::store::SECCOMP;
use crate::state::{Directory, Record, Store, lifecycle};
use crate::sys::{fs, process, signal};

use super::make::{self, Made, Prepared};
use super::run::Stay;
use super::{Globals, checkpoint};

/// Make a container with the processes of a checkpoint, and delete it when its program has ended
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The container's id
    id: String,
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// A unix socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// A file that gets the pid of the container's first process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Return as soon as the processes run
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container when its program has ended
    #[arg(long)]
    keep: bool,
    /// Do not become the parent of the container's orphans
    #[arg(long)]
    no_subreaper: bool,
    /// Accepted for compatibility: CRIU has ways of its own to change the root
    #[arg(long)]
    no_pivot: bool,
    /// Where the images are
    #[arg(long, value_name = "DIR", default_value = images::DEFAULT)]
    image_path: PathBuf,
    /// Where CRIU writes its log [default: the image path]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Restore established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Close TCP connections that were established
    #[arg(long)]
    tcp_close: bool,
    /// Allow unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Take the caller's session and terminal
    #[arg(long)]
    shell_job: bool,
    /// Restore file locks
    #[arg(long)]
    file_locks: bool,
    /// How control groups are restored [default: soft]
    #[arg(long, value_enum, value_name = "MODE")]
    manage_cgroups_mode: Option<CgroupMode>,
    /// Do not restore what was in this namespace: network
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Take out of the images what has been restored
    #[arg(long)]
    auto_dedup: bool,
    /// Load the memory when it is used, from `criu lazy-pages`
    #[arg(long)]
    lazy_pages: bool,
    /// How the network was locked
    #[arg(long, value_enum, value_name = "METHOD")]
    network_lock: Option<NetworkLock>,
    /// Another profile of the security module: apparmor:NAME or selinux:LABEL
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// Another SELinux context of the mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
}

/// Runs the command. Returns the program's exit status, or 128 plus the signal that killed it.
///
/// # Errors
/// If the container cannot be restored; nothing is left then.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("restore {}", args.id));
    let subreaper = !args.detach && !args.no_subreaper;
    let made = make(args, subreaper, globals).map_err(during)?;
    let stay = Stay { detach: args.detach, keep: args.keep, subreaper };
    stay.with(made, globals).map_err(during)
}

/// What was read and planned, before any effect.
struct Planned {
    request: Request,
    prepared: Prepared,
    options: Options,
    opened: Opened,
    criu: Criu,
    images: Folder,
    work: Folder,
    /// No control group may be there before (`--manage-cgroups-mode strict`).
    new_groups: bool,
}

fn make(args: &Args, subreaper: bool, globals: &Globals) -> Result<Made, Error> {
    if args.no_pivot {
        globals.log.warning("--no-pivot has no effect on restore: CRIU has ways of its own to change the root");
    }
    if let Some(text) = flags::warning_of_mount_context().filter(|_| args.lsm_mount_context.is_some()) {
        globals.log.warning(text);
    }
    let planned = plan(args, globals)?;
    if subreaper {
        process::set_child_subreaper()?;
    }
    fs::close_range_cloexec(3)?;
    let store = Store::open_or_make(&globals.root)?;
    let id = &planned.request.id;
    let taken = || make::taken(id);
    signal::block_all()?;
    let directory = store.make(id)?.ok_or_else(taken)?;
    globals.warn(&planned.prepared.plan.warnings);
    match restore(planned, &directory, globals) {
        Ok((record, launched)) => Ok(Made { store, directory, record, launched }),
        Err(failure) => Err(make::roll_back(failure, &store, &directory, globals)),
    }
}

fn plan(args: &Args, globals: &Globals) -> Result<Planned, Error> {
    let request = args.request(globals)?;
    let prepared = make::prepare(&request, globals)?;
    let images = Folder::open(&args.image_path, "image directory (--image-path)")?;
    let work = checkpoint::work_folder(args.work_path.as_deref(), &images)?;
    let saved = images.saved()?;
    checkpoint::may_use_criu()?;
    work.clear([plan::RESTORE_LOG, plan::RESTORE_STATS])?;
    let criu = Criu::find(globals.criu.as_deref())?;
    let needed = Needed {
        memory_changes: false,
        lazy_pages: args.lazy_pages,
        network_lock: args.network_lock,
        cgroup_mode: args.manage_cgroups_mode,
        cgroup_v2: prepared.plan.cgroup.v2().is_some(),
    };
    if let Some(text) = criu.check(needed, &work)? {
        globals.log.warning(&text);
    }
    let opened = Opened::new(&prepared.plan)?;
    let (network, pid) = opened.namespace_numbers();
    let config_file = facts::existing_config_file(&prepared.spec.annotations);
    let namespaces = prepared.spec.linux.as_ref().map(|linux| linux.namespaces.clone()).unwrap_or_default();
    let facts = RestoreFacts {
        saved: &saved,
        plan: &prepared.plan,
        namespaces: &namespaces,
        stdio: opened.stdio_numbers(),
        network,
        pid,
        config_file: config_file.as_deref(),
    };
    let mut findings = Findings::default();
    let options = plan::restore(&args.flags(), &facts, &mut findings);
    checkpoint::judge(&findings)?;
    let new_groups = args.manage_cgroups_mode == Some(CgroupMode::Strict);
    Ok(Planned { request, prepared, options, opened, criu, images, work, new_groups })
}

fn restore(planned: Planned, directory: &Directory, globals: &Globals) -> Result<(Record, Launched), Failure> {
    let Planned { request, prepared, options, opened, criu, images, work, new_groups } = planned;
    let plan = &prepared.plan;
    let survey = cgroups::survey(&plan.cgroup)?;
    if let Some(place) = survey.existing().filter(|_| new_groups) {
        return Err(Failure::because(format!("{place} exists")).origin("--manage-cgroups-mode strict"));
    }
    let mut record = make::record(&prepared, &request, survey.record());
    record.maker = Some(lifecycle::own_reference(&ProcFs::open()?)?);
    directory.write_record(&record)?;
    if let Some(filter) = &plan.seccomp {
        directory.write_file(SECCOMP, filter.program.as_bytes())?;
    }
    let launched = restore::run(Restore {
        plan,
        log: &globals.log,
        directory,
        record: &mut record,
        survey,
        criu: &criu,
        images: &images,
        work: &work,
        options,
        opened,
    })?;
    Ok((record, launched))
}

impl Args {
    fn request(&self, globals: &Globals) -> Result<Request, Error> {
        Ok(Request {
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            start: StartSignal::Link,
            detached: self.detach,
            ..globals.request(&self.id, &self.bundle)?
        })
    }

    fn flags(&self) -> RestoreFlags {
        let switches = [
            (self.tcp_established, Switch::TcpEstablished),
            (self.tcp_close, Switch::TcpClose),
            (self.ext_unix_sk, Switch::ExtUnixSk),
            (self.shell_job, Switch::ShellJob),
            (self.file_locks, Switch::FileLocks),
            (self.auto_dedup, Switch::AutoDedup),
            (self.lazy_pages, Switch::LazyPages),
        ];
        RestoreFlags {
            switches: checkpoint::on(&switches),
            cgroup_mode: self.manage_cgroups_mode,
            empty_namespaces: self.empty_ns.clone(),
            network_lock: self.network_lock,
            lsm_profile: self.lsm_profile.clone(),
            lsm_mount_context: self.lsm_mount_context.clone(),
        }
    }
}
