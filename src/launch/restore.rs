//! Carrying out a restore: what the launcher and init do for a new container, CRIU does; what is on the host's side stays to be done, at
//! the moments that CRIU notifies of.
//!
//! ```text
//! start criu swrk, in a mount namespace in which the rootfs is a mount point
//! make control groups, with CRIU's process in them           CRIU restores below where it is itself
//! setup-namespaces     network devices, prestart and createRuntime hooks
//! orphan-pts-master    the master of the terminal goes to the console socket, or stays for the proxy
//! post-restore         the processes are complete and stand still: they are looked at, and recorded
//! done                 the first process is a child of ours; CRIU ends
//! ```

use std::os::fd::{AsRawFd, OwnedFd};

use crate::cgroups::{self, Cgroup};
use crate::child::Child;
use crate::criu::client::{Conversation, Criu, Notice, Setting};
use crate::criu::facts;
use crate::criu::images::Folder;
use crate::criu::message::{Kind as RequestKind, Options};
use crate::criu::plan;
use crate::error::{Doing, Failure};
use crate::hooks;
use crate::log::Log;
use crate::namespaces::{Kind, join, netdev};
use crate::plan::{InitStep, LauncherStep, Plan};
use crate::procfs::ProcFs;
use crate::resctrl;
use crate::rootfs::root::MountPoint;
use crate::rootfs::steps::MountKind;
use crate::rootfs::{InRoot, Root, RootfsStep};
use crate::state::{Directory, Record, lifecycle};
use crate::sys::{At, fs, process, signal, socket};

use super::launcher::Launched;
use super::uts::Names;
use super::{groups, pid_file, terminal};

/// What CRIU's process is to have open.
#[derive(Debug)]
pub struct Opened {
    stdio: [OwnedFd; 3],
    namespaces: Vec<(Kind, OwnedFd)>,
}

impl Opened {
    /// Opens the namespaces that CRIU takes by descriptor, and copies the caller's first three descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(plan: &Plan) -> Result<Self, Failure> {
        let open = |(kind, path): &(Kind, std::path::PathBuf)| Ok((*kind, join::open(*kind, path)?));
        let namespaces: Result<_, Failure> = plan::by_descriptor(plan).iter().map(open).collect();
        Ok(Self { stdio: fs::duplicate_stdio()?, namespaces: namespaces? })
    }

    /// The numbers of the copies of the first three descriptors.
    pub fn stdio_numbers(&self) -> [i32; 3] {
        [0, 1, 2].map(|index: usize| self.stdio[index].as_raw_fd())
    }

    /// The numbers of the network and pid namespace.
    pub fn namespace_numbers(&self) -> (Option<i32>, Option<i32>) {
        let number = |kind| self.namespaces.iter().find(|(found, _)| *found == kind).map(|(_, fd)| fd.as_raw_fd());
        (number(Kind::Network), number(Kind::Pid))
    }

    fn all(&self) -> Vec<&OwnedFd> {
        self.stdio.iter().chain(self.namespaces.iter().map(|(_, fd)| fd)).collect()
    }
}

/// What a restore is carried out on.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The plan of a new container of the same config.
    pub plan: &'a Plan,
    /// Where warnings go.
    pub log: &'a Log,
    /// The container's directory.
    pub directory: &'a Directory,
    /// The container's record.
    pub record: &'a mut Record,
    /// The surveyed groups.
    pub survey: cgroups::Survey,
    /// CRIU.
    pub criu: &'a Criu,
    /// Its images.
    pub images: &'a Folder,
    /// Where its log goes.
    pub work: &'a Folder,
    /// What it is asked for.
    pub options: Options,
    /// What its process has open.
    pub opened: Opened,
}

/// Restores the container. On failure CRIU has ended what it has made; groups and directories are the caller's to clean up.
///
/// # Errors
/// Of the first thing that fails.
pub fn run(restore: Restore<'_>) -> Result<Launched, Failure> {
    signal::block_all()?;
    let signals = signal::signalfd_all()?;
    let Restore { plan, log, directory, record, survey, criu, images, work, mut options, opened } = restore;
    make_mount_points(plan)?;
    images.let_root_of_through(&record.uid_mappings, &record.gid_mappings)?;
    let console = connect_console(plan)?;
    let conversation =
        criu.start(&Setting { descriptors: opened.all(), root: Some(&plan.rootfs), ..Setting::new(images, work) })?;
    let procfs = ProcFs::open()?;
    let names = Names::of_joined(plan, &procfs)?;
    let mut side = HostSide { plan, log, directory, record, procfs, console, terminal: None, names };
    side.make_groups(survey, &conversation)?;
    options.cgroup_roots = cgroup_roots(&side.procfs, conversation.pid())?;
    let criu = conversation.pid();
    let response =
        conversation.carry_out(RequestKind::Restore, &options, work, Some(&signals), |notice| side.on_notice(notice, criu));
    if response.is_err() {
        // The failure is what is told.
        let _ = side.give_names_back();
    }
    let response = response?;
    let pid = response.pid.ok_or_else(|| Failure::because("CRIU does not say which process it has restored"))?;
    let init = Child::new(pid, process::pidfd_open(pid)?);
    side.record(pid)?;
    for planned in &plan.launcher {
        if let LauncherStep::WritePidFile { path } = &planned.step {
            pid_file::write(path, pid).map_err(|failure| failure.doing(&planned.step).origin(&planned.origin))?;
        }
    }
    Ok(Launched { init, terminal: side.terminal, signals, notify: None })
}

/// What the launcher has to do with a container whose processes somebody else makes.
struct HostSide<'a> {
    plan: &'a Plan,
    log: &'a Log,
    directory: &'a Directory,
    record: &'a mut Record,
    procfs: ProcFs,
    console: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// Those of a uts namespace that is not the container's own.
    names: Option<Names>,
}

impl HostSide<'_> {
    /// Makes the control groups and moves CRIU's process into them: its children are born there.
    fn make_groups(&mut self, survey: cgroups::Survey, conversation: &Conversation) -> Result<(), Failure> {
        let pid = conversation.pid();
        let unit = self.plan.cgroup.unit.as_ref();
        if let Some(unit) = unit {
            groups::start_unit(unit, pid, self.record, Some(self.directory))?;
        }
        let cgroup = groups::make(survey, self.record, Some(self.directory))?;
        if self.record.cgroup.is_below_unit() {
            cgroup.join_v2(pid)?;
        }
        for warning in cgroup.apply(&self.plan.cgroup)? {
            self.log.warning(&warning.to_string());
        }
        if unit.is_none() {
            cgroup.join(pid)?;
        }
        if let Some(plan) = &self.plan.resctrl {
            resctrl::group::make(plan)?;
            resctrl::group::join(plan.tasks(), pid)?;
        }
        Ok(())
    }

    fn on_notice(&mut self, notice: Notice, criu: i32) -> Result<(), Failure> {
        match notice.moment.as_str() {
            "setup-namespaces" => self.set_namespaces_up(notice.pid),
            "orphan-pts-master" => self.take_terminal(notice.fd),
            "post-restore" => {
                self.give_names_back()?;
                self.check_readonly(notice.pid)?;
                self.settle(criu)?;
                // From here on the processes would outlive us.
                self.record(notice.pid)
            }
            _ => Ok(()),
        }
    }

    /// Whoever was in the directory that the container's program manages is there again: to CRIU it was the root of all groups in the images.
    fn settle(&self, criu: i32) -> Result<(), Failure> {
        if self.record.cgroup.delegated.is_none() {
            return Ok(());
        }
        let cgroup = Cgroup::open(&self.record.cgroup)?;
        let pids = cgroup.own_processes()?;
        pids.into_iter().filter(|pid| *pid != criu).try_for_each(|pid| cgroup.join_delegated(pid))
    }

    fn give_names_back(&self) -> Result<(), Failure> {
        self.names.as_ref().map_or(Ok(()), |names| names.give_back(&self.procfs))
    }

    /// The namespaces exist, and nothing in them runs.
    fn set_namespaces_up(&self, pid: i32) -> Result<(), Failure> {
        let state = self.plan.hook_state("created", pid);
        for planned in &self.plan.launcher {
            let done = match &planned.step {
                LauncherStep::MoveNetDevice(device) => {
                    netdev::move_into(device, pid, &self.procfs).map(|lost| lost.iter().for_each(|text| self.log.warning(text)))
                }
                LauncherStep::Hooks(steps) => {
                    let flags = libc::O_PATH | libc::O_DIRECTORY;
                    let bundle = fs::openat(At::Cwd, &self.plan.bundle, flags, 0)?;
                    let output = hooks::Output::open(&self.plan.annotations)?;
                    hooks::run_all(steps, &state, &hooks::Around { cwd: Some(&bundle), signals: None, output: Some(&output) })
                }
                _ => Ok(()),
            };
            done.map_err(|failure| failure.doing(&planned.step).origin(&planned.origin))?;
        }
        Ok(())
    }

    fn take_terminal(&mut self, master: Option<OwnedFd>) -> Result<(), Failure> {
        self.terminal = terminal::hand_out(master, self.console.take())?;
        Ok(())
    }

    /// The images say with which options a mount is made again. What the config wants read-only must be so before anything runs.
    fn check_readonly(&self, pid: i32) -> Result<(), Failure> {
        let wanted: Vec<plan::Outside> = plan::outside(self.plan).into_iter().filter(|outside| outside.readonly).collect();
        let mounts = facts::mounted(&self.procfs.read(&format!("{pid}/mountinfo"))?);
        for (outside, point) in facts::mount_points(pid, &wanted, &self.procfs)? {
            let mounted = mounts.iter().rev().find(|mounted| mounted.point == point);
            if mounted.is_some_and(|mounted| !mounted.options.split(',').any(|option| option == "ro")) {
                let text = format!("{} was restored writable; config.json says read-only", outside.destination);
                return Err(Failure::because(text).origin("mounts"));
            }
        }
        Ok(())
    }

    fn record(&mut self, pid: i32) -> Result<(), Failure> {
        self.record.made(lifecycle::reference(pid, &self.procfs)?);
        self.directory.write_record(self.record)
    }
}

fn connect_console(plan: &Plan) -> Result<Option<OwnedFd>, Failure> {
    let path = plan.launcher.iter().find_map(|planned| match &planned.step {
        LauncherStep::ConnectConsole { path } => Some(path),
        _ => None,
    });
    path.map(|path| socket::connect(path, libc::SOCK_STREAM))
        .transpose()
        .doing(|| "connect to the console socket (--console-socket)")
}

/// Where the control groups of a process are, for each controller: CRIU's `cg_root`.
fn cgroup_roots(procfs: &ProcFs, pid: i32) -> Result<Vec<(String, String)>, Failure> {
    let memberships = procfs.read(&format!("{pid}/cgroup")).doing(|| "find CRIU's control groups")?;
    let mut roots = Vec::new();
    for line in memberships.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (parts.next(), parts.next()) {
            roots.extend(controllers.split(',').map(|controller| (controller.to_owned(), path.to_owned())));
        }
    }
    Ok(roots)
}

/// CRIU wants the mount points to be there; in a new rootfs they may be missing. What lies below another mount came with that one's content.
fn make_mount_points(plan: &Plan) -> Result<(), Failure> {
    let root = Root::new(fs::openat(At::Cwd, &plan.rootfs, libc::O_PATH | libc::O_DIRECTORY, 0).doing(|| "open the rootfs")?);
    let mut done: Vec<&InRoot> = Vec::new();
    for planned in &plan.init {
        let InitStep::Rootfs(RootfsStep::Mount(mount)) = &planned.step else { continue };
        let destination = &mount.destination;
        let covered = done.iter().any(|above| destination.as_path().starts_with(above.as_path()));
        done.push(destination);
        if covered {
            continue;
        }
        let kind = match &mount.kind {
            MountKind::Bind { source, .. } if !fs::fstatat(At::Cwd, source, 0)?.is_dir() => MountPoint::File,
            _ => MountPoint::Directory,
        };
        root.mount_point(destination, kind).map_err(|failure| failure.doing(&planned.step).origin(&planned.origin))?;
    }
    Ok(())
}
