//! `rt checkpoint`: a container's processes become files, by way of CRIU.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::cgroups::Version;
use crate::criu::client::{Criu, Setting};
use crate::criu::facts;
use crate::criu::flags::{self, Needed};
use crate::criu::images::{self, Folder};
use crate::criu::message::{CgroupMode, Kind, NetworkLock, Options, Switch};
use crate::criu::plan::{self, DumpFlags, DumpRecord};
use crate::error::{Error, Failure};
use crate::host::Host;
use crate::plan::Findings;
use crate::process::capabilities::CHECKPOINT_RESTORE;
use crate::rootfs::hot;
use crate::state::{Container, Record, Status};
use crate::sys::{At, fs, signal};

use super::{Globals, delete, parse_id};

/// Save a running container's processes to files, and delete it
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The container's id
    id: String,
    /// Where the images are written
    #[arg(long, value_name = "DIR", default_value = images::DEFAULT)]
    image_path: PathBuf,
    /// Where CRIU writes its log [default: the image path]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// The images of an earlier --pre-dump, relative to the image path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    leave_running: bool,
    /// Save established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Leave out TCP connections that are not accepted yet
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give open files without a name one for the time being
    #[arg(long)]
    link_remap: bool,
    /// Allow unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow a session and terminal that are the caller's
    #[arg(long)]
    shell_job: bool,
    /// Leave the memory here until the restored processes use it
    #[arg(long)]
    lazy_pages: bool,
    /// A descriptor that gets a zero byte as soon as lazy pages can be asked for
    #[arg(long, value_name = "FD")]
    status_fd: Option<i32>,
    /// Send the memory to a page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Save file locks
    #[arg(long)]
    file_locks: bool,
    /// Save the memory only, and let the container run on
    #[arg(long)]
    pre_dump: bool,
    /// How control groups are saved [default: soft]
    #[arg(long, value_enum, value_name = "MODE")]
    manage_cgroups_mode: Option<CgroupMode>,
    /// Do not save what is in this namespace: network
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Take out of the parent images what these hold
    #[arg(long)]
    auto_dedup: bool,
    /// How the network is locked meanwhile
    #[arg(long, value_enum, value_name = "METHOD")]
    network_lock: Option<NetworkLock>,
}

/// Runs the command.
///
/// # Errors
/// If the container does not run, or CRIU cannot save it; then it runs on.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("checkpoint {}", args.id));
    let store = globals.store()?;
    let container = Container::load_locked(&store, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    if !matches!(container.status, Status::Running | Status::Paused) {
        return Err(container.wrong_status("checkpoint", "cannot checkpoint a container that does not run"));
    }
    dump(args, &container, globals).map_err(during)?;
    if !args.leave_running && !args.pre_dump {
        // CRIU has ended its processes: what is left of it is of use to nobody, and restore may want its name.
        delete::destroy(&store, &container.directory, &globals.log).map_err(|failure| during(failure.into()))?;
    }
    Ok(0)
}

fn dump(args: &Args, container: &Container, globals: &Globals) -> Result<(), Error> {
    let status = args.status_fd.map(open_status).transpose()?;
    let host = may_use_criu()?;
    if let Some(text) = flags::warning_of_lazy_pages(&host).filter(|_| args.lazy_pages) {
        globals.log.warning(&text);
    }
    let record = &container.record;
    let (init, _pidfd) = container.init().ok_or_else(|| container.wrong_status("checkpoint", "container not running"))?;
    no_added_mounts(container, init.pid)?;
    let criu = Criu::find(globals.criu.as_deref())?;
    let facts = facts::of_container(init.pid, &record.outside, &record.cgroup, &record.annotations)?;
    let mut findings = Findings::default();
    let has_listener = record.seccomp.as_ref().is_some_and(|seccomp| seccomp.listener.is_some());
    let seen = DumpRecord { namespaces: &record.namespaces, has_listener };
    let (options, saved) = plan::dump(&args.flags(), seen, &facts, &mut findings);
    judge(&findings)?;
    let images = Folder::make(&args.image_path, "image directory (--image-path)")?;
    images.let_root_of_through(&record.uid_mappings, &record.gid_mappings)?;
    if let Some(parent) = &args.parent_path {
        Folder::open(&args.image_path.join(parent), "directory of the parent images (--parent-path)")?;
    }
    let work = work_folder(args.work_path.as_deref(), &images)?;
    work.clear([plan::DUMP_LOG, plan::DUMP_STATS])?;
    if let Some(text) = criu.check(args.needed(record), &work)? {
        globals.log.warning(&text);
    }
    for pid in facts::not_descendants(init.pid, &container.cgroup()?.processes()?)? {
        let text = "was started by exec and is not saved: CRIU saves the first process and its descendants";
        globals.log.warning(&format!("checkpoint {}: process {pid} {text}", args.id));
    }
    if !args.pre_dump {
        let links = facts.stdio.iter().map(|stdio| stdio.as_ref().map(|stdio| stdio.link.clone()).unwrap_or_default());
        images.save(&saved, &links.collect::<Vec<_>>())?;
    }
    let kind = if args.pre_dump { Kind::PreDump } else { Kind::Dump };
    let setting = Setting { waits: args.lazy_pages, ..Setting::new(&images, &work) };
    talk(&criu, kind, &options, &setting, status.as_ref())
}

fn talk(criu: &Criu, kind: Kind, options: &Options, setting: &Setting<'_>, status: Option<&OwnedFd>) -> Result<(), Error> {
    // From before the clone on: whoever ends this command ends it in order, with the processes let go.
    let signals = signal::Held::new()?;
    let conversation = criu.start(setting)?;
    conversation.carry_out(kind, options, setting.work, Some(signals.fd()), |notice| match (notice.moment.as_str(), status) {
        ("status-ready", Some(status)) => Ok(fs::write_all(status, &[0])?),
        _ => Ok(()),
    })?;
    Ok(())
}

impl Args {
    fn needed(&self, record: &Record) -> Needed {
        let directories = &record.cgroup.directories;
        Needed {
            memory_changes: self.pre_dump || self.parent_path.is_some(),
            lazy_pages: self.lazy_pages,
            network_lock: self.network_lock,
            cgroup_mode: self.manage_cgroups_mode,
            cgroup_v2: directories.iter().any(|recorded| recorded.place.version == Version::V2),
        }
    }

    fn flags(&self) -> DumpFlags {
        let switches = [
            (self.leave_running, Switch::LeaveRunning),
            (self.tcp_established, Switch::TcpEstablished),
            (self.tcp_skip_in_flight, Switch::TcpSkipInFlight),
            (self.link_remap, Switch::LinkRemap),
            (self.ext_unix_sk, Switch::ExtUnixSk),
            (self.shell_job, Switch::ShellJob),
            (self.lazy_pages, Switch::LazyPages),
            (self.file_locks, Switch::FileLocks),
            (self.auto_dedup, Switch::AutoDedup),
        ];
        DumpFlags {
            switches: on(&switches),
            pre_dump: self.pre_dump,
            parent: self.parent_path.clone(),
            page_server: self.page_server.clone(),
            cgroup_mode: self.manage_cgroups_mode,
            empty_namespaces: self.empty_ns.clone(),
            network_lock: self.network_lock,
        }
    }
}

/// Restore makes the mounts of config.json.
fn no_added_mounts(container: &Container, pid: i32) -> Result<(), Error> {
    if container.record.added.is_empty() {
        return Ok(());
    }
    let there = hot::numbers(&container.procfs()?.read(&format!("{pid}/mountinfo"))?);
    let added = container.record.added.iter().filter(|added| there.contains(&added.mount));
    let places: Vec<String> = added.map(|added| added.destination.display().to_string()).collect();
    if places.is_empty() {
        return Ok(());
    }
    let text = format!("{} was added by `rt mounts add`, which restore would not know of", places.join(", "));
    Err(Error::new("cannot-checkpoint", text).hint_text("`rt mounts remove` takes it away before"))
}

/// The switches that are on.
pub fn on(switches: &[(bool, Switch)]) -> Vec<Switch> {
    switches.iter().filter(|(on, _)| *on).map(|(_, switch)| *switch).collect()
}

/// Whether the caller's rights are enough for CRIU. Returns what is known about the caller.
///
/// # Errors
/// If they are not.
pub fn may_use_criu() -> Result<Host, Error> {
    let host = Host::probe_caller()?;
    if host.initial_user_namespace && host.privileged() && host.can(CHECKPOINT_RESTORE) {
        return Ok(host);
    }
    let text = "CRIU needs CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE on the host, which this caller does not have";
    Err(Error::new("no-privilege", format!("{text}: operation not permitted")))
}

/// The work directory: the image directory, unless there is another.
///
/// # Errors
/// The kernel's.
pub fn work_folder(path: Option<&Path>, images: &Folder) -> Result<Folder, Failure> {
    Folder::make(path.unwrap_or(&images.path), "work directory (--work-path)")
}

/// Problems are errors, all at once.
///
/// # Errors
/// All of them.
pub fn judge(findings: &Findings) -> Result<(), Error> {
    if findings.problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
    Err(Error::new("cannot-checkpoint", lines.join("; ")))
}

/// Opens the caller's descriptor anew: we do not own the number.
fn open_status(number: i32) -> Result<OwnedFd, Failure> {
    let opened = fs::openat(At::Cwd, Path::new(&format!("/proc/self/fd/{number}")), libc::O_WRONLY, 0);
    opened.map_err(|error| Failure::from(error).doing("open the descriptor of --status-fd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_together() {
        assert!(judge(&Findings::default()).is_ok());
        let mut findings = Findings::default();
        plan::dump(
            &DumpFlags { page_server: Some("x".into()), empty_namespaces: vec!["pid".into()], ..DumpFlags::default() },
            DumpRecord { namespaces: &[], has_listener: true },
            &plan::DumpFacts::default(),
            &mut findings,
        );
        let message = judge(&findings).map_err(|error| error.message).err().unwrap_or_default();
        for part in ["--page-server: ", "--empty-ns: ", "no mount namespace", "no pid namespace", "linux.seccomp.listenerPath: "]
        {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}
