//! `rt delete`, and taking back whatever a record names.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::cgroups::systemd::Manager;
use crate::cgroups::{self, Cgroup, CgroupRecord};
use crate::error::{Error, Failure};
use crate::hooks::{self, Moment};
use crate::id::ContainerId;
use crate::log::Log;
use crate::plan::Findings;
use crate::procfs::ProcFs;
use crate::resctrl;
use crate::rootfs::{InRoot, Root};
use crate::state::record::{Phase, ProcessRef};
use crate::state::{Container, Directory, Record, Status, Store, lifecycle};
use crate::sys::{At, CallResult, cred, fs, mount, process, signal};

use super::{Globals, matching};

/// Delete a container whose program has ended, or was never started
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The container's id, or with --regex a regular expression
    id: String,
    /// Delete every container whose id matches
    #[arg(short, long)]
    regex: bool,
    /// Kill it first, whatever its state, and accept that it does not exist
    #[arg(short, long)]
    force: bool,
}

/// How long an interrupted create may take to remove what it has made.
const ROLL_BACK: Duration = Duration::from_secs(4);

/// Runs the command.
///
/// # Errors
/// If the container still runs (without `--force`), or something of it cannot be removed.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("delete {}", args.id));
    let store = globals.store().map_err(during)?;
    let one = |id: &ContainerId| match args.force {
        true => force(&store, id, &globals.log),
        false => polite(&store, id, &globals.log),
    };
    matching::one_or_each(&store, &args.id, args.regex, args.force, one).map_err(during)?;
    Ok(0)
}

fn polite(store: &Store, id: &ContainerId, log: &Log) -> Result<(), Error> {
    let container = Container::load_locked(store, id)?;
    if !matches!(container.status, Status::Stopped | Status::Created) {
        let text = format!("container still running (status {})", container.status);
        return Err(Error::new("still-running", text).hint_text("stop it first, or use --force"));
    }
    Ok(take_back(store, &container.directory, Some(&container.record), container.init(), log)?)
}

fn force(store: &Store, id: &ContainerId, log: &Log) -> Result<(), Error> {
    if let Some(directory) = store.find(id)?
        && directory.is_locked()?
    {
        end_making(&directory)?;
    }
    let Some(directory) = store.lock(id)? else { return Ok(()) };
    Ok(destroy(store, &directory, log)?)
}

/// A create that does not come to its end (a hook that hangs) is asked to take everything back, and killed if it does not. A start that
/// does not (a startContainer hook) ends with init. A delete that does not (a poststop hook) is asked to leave the hook and go on.
fn end_making(directory: &Directory) -> Result<(), Failure> {
    let Some(record) = directory.read_record() else { return Ok(()) };
    if let Some((_, pidfd)) = lifecycle::live_process(record.remover)? {
        return end(&pidfd);
    }
    if record.phase == Phase::Made {
        if let Some((_, pidfd)) = lifecycle::live_init(&record)? {
            // It may end by itself at this moment.
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
            process::poll(&[(pidfd.as_fd(), false)], Some(ROLL_BACK))?;
        }
        return Ok(());
    }
    lifecycle::live_process(record.maker)?.map_or(Ok(()), |(_, pidfd)| end(&pidfd))
}

/// Asks a command to come to its end, and kills it if it does not.
fn end(pidfd: &OwnedFd) -> Result<(), Failure> {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        match process::pidfd_send_signal(pidfd, signal) {
            Err(error) if error.is(libc::ESRCH) => return Ok(()),
            other => other?,
        }
        if process::poll(&[(pidfd.as_fd(), false)], Some(ROLL_BACK))?[0].readable {
            return Ok(());
        }
    }
    Ok(())
}

/// Deletes the container of a run that has failed, unless somebody else has done so: then there may be another one of the same id.
///
/// # Errors
/// If something of it cannot be removed.
pub fn after_run(store: &Store, directory: &Directory, globals: &Globals) -> Result<(), Error> {
    if is_still_ours(directory)? { Ok(destroy(store, directory, &globals.log)?) } else { Ok(()) }
}

/// As [`after_run`], when its first process was seen to end.
///
/// # Errors
/// If something of it cannot be removed.
pub fn after_end(store: &Store, directory: &Directory, globals: &Globals) -> Result<(), Error> {
    if !is_still_ours(directory)? {
        return Ok(());
    }
    Ok(take_back(store, directory, directory.read_record().as_ref(), None, &globals.log)?)
}

fn is_still_ours(directory: &Directory) -> Result<bool, Error> {
    directory.lock()?;
    Ok(directory.is_linked()?)
}

/// Kills and removes everything that belongs to a container, its directory last. The directory is locked.
///
/// # Errors
/// Of the first thing that stays; the directory stays, too, so that it can be tried again.
pub fn destroy(store: &Store, directory: &Directory, log: &Log) -> Result<(), Failure> {
    let record = directory.read_record();
    let init = record.as_ref().map_or(Ok(None), lifecycle::live_init)?;
    take_back(store, directory, record.as_ref(), init.as_ref().map(|(init, pidfd)| (*init, pidfd)), log)
}

fn take_back(
    store: &Store,
    directory: &Directory,
    record: Option<&Record>,
    init: Option<(ProcessRef, &OwnedFd)>,
    log: &Log,
) -> Result<(), Failure> {
    let groups = match record {
        Some(record) => really_made(record, log)?,
        None => groups_by_id(directory.id())?,
    };
    // Most often nobody is left, and the kernel says so by letting the directories go.
    if init.is_some() || !cgroups::remove_if_empty(&groups)? {
        let cgroup = Cgroup::open(&groups)?;
        let alone = init.is_some() || !record.is_some_and(has_ended_whole) || is_emptied(&cgroup)?;
        if alone {
            let haste = Haste::new();
            let first = init.map(|(init, pidfd)| (init.pid, pidfd.as_fd()));
            Cgroup::open(&entered(&groups, record))?.kill_for_good(first, record.is_some_and(Record::has_own_pid_namespace))?;
            cgroup.remove()?;
            drop(haste);
        } else {
            log.warning(&format!("the cgroup of {} is left: processes of others are in it", directory.id()));
        }
    }
    if let Some(unit) = &groups.unit {
        Manager::connect(unit.which)?.stop(&unit.name)?;
    }
    if let Some(record) = record {
        record.resctrl.as_ref().map_or(Ok(()), resctrl::group::remove)?;
        unmount(record, log);
        if record.phase != Phase::Creating || record.hooks_begun {
            poststop(record, directory, log);
        }
    }
    store.remove(directory)
}

/// The groups of the record, and of a create that has not come to its end those that it has made.
fn really_made(record: &Record, log: &Log) -> Result<CgroupRecord, Failure> {
    let Some(mark) = record.mark().filter(|_| record.phase == Phase::Creating && record.init.is_none()) else {
        return Ok(record.cgroup.clone());
    };
    let owned = cgroups::owned(&record.cgroup, &mark)?;
    if let Some(foreign) =
        record.cgroup.directories.get(owned.directories.len()).filter(|recorded| recorded.place.directory().exists())
    {
        log.warning(&format!("{} is left: it is not of this container's making", foreign.place));
    }
    Ok(owned)
}

/// True if the kernel has ended every process of the container with its first one: who is in its cgroup now is somebody else, such as a
/// later container with the same `linux.cgroupsPath`.
fn has_ended_whole(record: &Record) -> bool {
    record.init.is_some() && record.has_own_pid_namespace()
}

/// True if nobody is in the cgroup, or will be in a moment: exec may be on its way into a container that has ended.
fn is_emptied(cgroup: &Cgroup) -> Result<bool, Failure> {
    for _ in 0..50 {
        if cgroup.processes()?.is_empty() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(false)
}

/// The groups in which every process is the container's. One that was there before may have been refused because others are in it, as long as
/// there is no first process: that of a create which failed or died goes with its launcher.
fn entered(groups: &CgroupRecord, record: Option<&Record>) -> CgroupRecord {
    let is_in = record.is_some_and(|record| record.init.is_some());
    let mut entered = groups.clone();
    entered.directories.retain(|recorded| is_in || recorded.ours);
    entered
}

/// Without a record the groups are where they would be by default: what is not there is not ours.
fn groups_by_id(id: &ContainerId) -> Result<CgroupRecord, Failure> {
    let privileged = cred::geteuid() == 0;
    let facts = cgroups::probe(id.as_str(), None, privileged)?;
    let input = cgroups::Input {
        id: id.as_str(),
        cgroups_path: None,
        resources: None,
        devices: &[],
        facts: &facts,
        privileged,
        owner: None,
        subgroup: None,
        delegated: None,
    };
    let plan = cgroups::plan(&input, &mut Findings::default());
    let ours = |place: cgroups::Place| cgroups::Recorded { place, ours: true, parents: Vec::new() };
    let directories = plan.places.into_iter().map(|planned| ours(planned.step)).collect();
    Ok(CgroupRecord { directories, ..CgroupRecord::default() })
}

/// Who kills hundreds of busy processes has to get a CPU among them. Hooks are run as before.
struct Haste(Option<i32>);

impl Haste {
    fn new() -> Self {
        // Not for an ordinary user.
        Self(process::nice().ok().filter(|_| process::set_nice(-20).is_ok()))
    }
}

impl Drop for Haste {
    fn drop(&mut self) {
        let _ = self.0.map(process::set_nice);
    }
}

/// Mounts that a container without a mount namespace made in the caller's. Its programs can write to the tree below its root, so
/// what lies there is found as its mount point was: links do not lead out of it, and what is found is what is unmounted.
fn unmount(record: &Record, log: &Log) {
    for path in &record.host_mounts {
        let unmounted = match path.strip_prefix(&record.rootfs) {
            Ok(inside) if !inside.as_os_str().is_empty() => unmount_below(&record.rootfs, &InRoot::new(inside)),
            _ => mount::umount2(path, libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW),
        };
        match unmounted {
            Err(error) if !error.is(libc::EINVAL) && !error.is(libc::ENOENT) => log.warning(&error.to_string()),
            _ => {}
        }
    }
}

fn unmount_below(rootfs: &Path, place: &InRoot) -> CallResult<()> {
    let root = Root::new(fs::openat(At::Cwd, rootfs, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?);
    mount::unmount_descriptor(&root.resolve(place)?)
}

/// "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue" (runtime.md).
///
/// A hook may hang: a signal that asks to end ends the hook, and the rest goes on. The record says who runs them, for `delete --force`, and
/// which have begun: whoever comes after a command that was killed here does not run them again.
fn poststop(record: &Record, directory: &Directory, log: &Log) {
    if record.poststop.is_empty() {
        return;
    }
    let steps = hooks::steps(&record.poststop, Moment::Poststop);
    let (begun, left) = steps.split_at(record.poststop_begun.min(steps.len()));
    if let Some(last) = begun.last() {
        log.warning(&format!("{last}: it was begun by a command that did not come to its end, and is not run again"));
    }
    let state = lifecycle::state_document(record, Status::Stopped).to_string();
    let bundle = fs::openat(At::Cwd, &record.bundle, libc::O_PATH | libc::O_DIRECTORY, 0).ok();
    let output = hooks::Output::open(&record.annotations);
    let output = output.inspect_err(|failure| log.warning(&failure.to_string())).ok();
    let signals = signal::Held::new().inspect_err(|error| log.warning(&error.to_string())).ok();
    let signals = signals.as_ref().map(signal::Held::fd);
    let around = hooks::Around { cwd: bundle.as_ref(), signals, output: output.as_ref() };
    let mut record = record.clone();
    record.remover = ProcFs::open().and_then(|procfs| lifecycle::own_reference(&procfs)).ok();
    for step in left {
        record.poststop_begun = step.index + 1;
        // Where nothing can be written (a full disk) the hook is run all the same.
        let outcomes = [directory.write_record(&record), hooks::run_all(std::slice::from_ref(step), &state, &around)];
        outcomes.into_iter().filter_map(Result::err).for_each(|failure| log.warning(&failure.to_string()));
    }
}
