//! [`Cgroup`]: the directories of one container.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use super::dir::Dir;
use super::steps::{CgroupRecord, Recorded, Version};
use crate::error::{Doing, Failure};
use crate::sys::fs::{openat, read_to_end, write_all};
use crate::sys::{At, CallResult};

/// The control groups of one container, open.
#[derive(Debug)]
pub struct Cgroup {
    pub(super) record: CgroupRecord,
    /// Parallel to the record's directories; nothing where one does not exist.
    pub(super) dirs: Vec<Option<Dir>>,
}

/// A cgroup below the container's own, in the hierarchies with one of these controllers or in every one.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// Nothing for every hierarchy.
    pub controllers: Option<Vec<&'a str>>,
    /// With or without a slash in front, it is relative to the container's own.
    pub path: &'a Path,
}

impl<'a> Choice<'a> {
    /// `PATH` or `CONTROLLERS:PATH`.
    pub fn parse(text: &'a str) -> Self {
        let (controllers, path) = text.split_once(':').map_or((None, text), |(names, path)| (Some(names), path));
        Self { controllers: controllers.map(|names| names.split(',').collect()), path: Path::new(path) }
    }

    fn is_about(&self, recorded: &Recorded) -> bool {
        self.controllers.as_ref().is_none_or(|names| names.iter().any(|name| recorded.place.has(name)))
    }

    fn inside(&self) -> PathBuf {
        self.path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir)).collect()
    }
}

impl Cgroup {
    /// Opens the directories of a record. Those that do not exist (any more) are treated as empty.
    ///
    /// # Errors
    /// If a directory exists and cannot be opened.
    pub fn open(record: &CgroupRecord) -> Result<Self, Failure> {
        let open = |recorded: &Recorded| Dir::open_if_present(recorded.place.directory());
        let dirs: CallResult<_> = record.directories.iter().map(open).collect();
        Ok(Self { record: record.clone(), dirs: dirs.doing(|| "open the container's cgroups")? })
    }

    /// What is to be kept in the container's record.
    pub fn record(&self) -> &CgroupRecord {
        &self.record
    }

    /// True if the container has no cgroup at all: there is nothing to freeze, and its processes are known by pid only.
    pub fn is_none(&self) -> bool {
        self.dirs.iter().all(Option::is_none)
    }

    /// The version 2 directory, for `CLONE_INTO_CGROUP`.
    pub fn v2_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2().map(AsFd::as_fd)
    }

    /// True if a limit of 0 processes keeps any from being born in it. One may be moved into it all the same ("organisational operations
    /// are not blocked by cgroup policies": the kernel's cgroup-v2.rst, "PID").
    pub fn refuses_births(&self) -> bool {
        let dir = self.v1("pids").or_else(|| self.v2());
        dir.is_some_and(|dir| dir.read_if_present("pids.max").is_ok_and(|limit| limit.is_some_and(|limit| limit.trim() == "0")))
    }

    /// The limit on processes, if more are in it than that. With `only_v1` version 2 is not looked at, where the kernel did.
    ///
    /// # Errors
    /// The kernel's.
    pub fn passed_pids_limit(&self, only_v1: bool) -> Result<Option<u64>, Failure> {
        let Some(dir) = self.v1("pids").or_else(|| self.v2().filter(|_| !only_v1)) else { return Ok(None) };
        let number = |file: &str| -> Result<Option<u64>, Failure> {
            let text = dir.read_if_present(file).doing(|| "compare the processes with their limit")?;
            Ok(text.and_then(|text| text.trim().parse().ok()))
        };
        let Some(limit) = number("pids.max")? else { return Ok(None) };
        Ok(number("pids.current")?.filter(|current| *current > limit).map(|_| limit))
    }

    /// Moves a process into the version 2 directory, if there is one.
    ///
    /// # Errors
    /// The kernel's; `ESRCH` if the process is gone.
    pub fn join_v2(&self, pid: i32) -> Result<(), Failure> {
        let Some(dir) = self.v2() else { return Ok(()) };
        let path = dir.path().display();
        dir.write("cgroup.procs", &pid.to_string()).doing(|| format!("move process {pid} into cgroup {path}"))
    }

    /// Moves a process into the directory that the container's program manages, if there is one.
    ///
    /// # Errors
    /// The kernel's; `ESRCH` if the process is gone.
    pub fn join_delegated(&self, pid: i32) -> Result<(), Failure> {
        let (Some(dir), Some(name)) = (self.v2(), &self.record.delegated) else { return Ok(()) };
        let moved = dir.below(Path::new(name)).and_then(|child| child.write("cgroup.procs", &pid.to_string()));
        moved.doing(|| format!("move process {pid} into cgroup {}/{name}", dir.path().display()))
    }

    /// Moves a process, with its threads, into every directory.
    ///
    /// # Errors
    /// The kernel's; `ESRCH` if the process is gone.
    pub fn join(&self, pid: i32) -> Result<(), Failure> {
        self.existing().try_for_each(|(_, dir)| {
            let path = dir.path().display();
            dir.write("cgroup.procs", &pid.to_string()).doing(|| format!("move process {pid} into cgroup {path}"))
        })
    }

    /// The version 1 directories, opened for a process that will move itself into them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn doors(&self) -> Result<Doors, Failure> {
        let open = |(_, dir): (Version, &Dir)| Ok((dir.open_for_writing("tasks")?, dir.path().to_path_buf()));
        let doors: CallResult<_> = self.existing().filter(|(version, _)| *version == Version::V1).map(open).collect();
        Ok(Doors(doors.doing(|| "open the container's cgroups")?))
    }

    /// The processes in the container's cgroup and below, in ascending order. Those of foreign pid namespaces are left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn processes(&self) -> Result<Vec<i32>, Failure> {
        let mut pids = BTreeSet::new();
        if let Some(dir) = self.census() {
            collect(dir, &mut pids).doing(|| "list the container's processes")?;
        }
        Ok(pids.into_iter().collect())
    }

    /// The processes in the version 2 directory itself.
    ///
    /// # Errors
    /// The kernel's.
    pub fn own_processes(&self) -> Result<Vec<i32>, Failure> {
        let mut pids = BTreeSet::new();
        if let Some(dir) = self.v2() {
            members(dir, &mut pids).doing(|| "list the container's processes")?;
        }
        Ok(pids.into_iter().collect())
    }

    /// The version 2 directory in which a process of the container is, at or below the container's own: where to start
    /// another one if the own directory refuses processes (`EBUSY`) because controllers were enabled below it.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn v2_of(&self, pid: i32) -> Result<Option<OwnedFd>, Failure> {
        self.v2_where(pid, |_| true)
    }

    /// As [`Cgroup::v2_of`], if the process has gone where systemd goes when it is a container's first process. It keeps the container's
    /// own directory empty for the controllers that it is about to enable; who is born there is in their way, and may be so again each
    /// time that it tries, as a health check is that asks it something. Not where `exec --cgroup` has named the directory.
    ///
    /// # Errors
    /// As there.
    pub fn v2_of_systemd(&self, pid: i32) -> Result<Option<OwnedFd>, Failure> {
        let mut own = self.record.directories.iter().filter(|recorded| recorded.place.version == Version::V2);
        if self.record.unit.is_none() && !own.any(|recorded| recorded.ours) {
            return Ok(None);
        }
        self.v2_where(pid, |below| below == Path::new("init.scope"))
    }

    /// The directory of a process if its path below the container's own is the right one.
    fn v2_where(&self, pid: i32, is_right: impl Fn(&Path) -> bool) -> Result<Option<OwnedFd>, Failure> {
        let doing = || format!("find the cgroup of process {pid}");
        let Some(recorded) = self.record.directories.iter().find(|recorded| recorded.place.version == Version::V2) else {
            return Ok(None);
        };
        let file = openat(At::Cwd, Path::new(&format!("/proc/{pid}/cgroup")), libc::O_RDONLY, 0).doing(doing)?;
        let content = read_to_end(file, 1 << 20).doing(doing)?;
        let content = String::from_utf8_lossy(&content);
        let path = content.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new);
        let below = path.and_then(|path| path.strip_prefix(&recorded.place.path).ok());
        let Some(path) = path.filter(|_| below.is_some_and(is_right)) else { return Ok(None) };
        let found = Dir::mount(&recorded.place.mount).and_then(|mount| mount.find(path)).doing(doing)?;
        Ok(found.map(Dir::into_fd))
    }

    /// The container's cgroups, with others below in place of its own where a choice says so (`exec --cgroup`); the last one counts.
    ///
    /// # Errors
    /// If a path leads out of the container's cgroup, or does not exist.
    pub fn choose(&self, choices: &[Choice<'_>]) -> Result<Self, Failure> {
        for choice in choices {
            self.check(choice)
                .map_err(|failure| failure.doing(format!("use the cgroup {} of the container", choice.path.display())))?;
        }
        let mixed = self.record.directories.iter().any(|recorded| recorded.place.version == Version::V1);
        let choose = |recorded: &Recorded| -> Result<Recorded, Failure> {
            let Some(choice) = choices.iter().rev().find(|choice| choice.is_about(recorded)) else { return Ok(recorded.clone()) };
            let doing = || format!("use the cgroup {} of the container", choice.path.display());
            let place = super::steps::Place { path: recorded.place.path.join(choice.inside()), ..recorded.place.clone() };
            if Dir::mount(&place.mount).and_then(|mount| mount.find(&place.path)).doing(doing)?.is_some() {
                return Ok(Recorded { place, ours: false, parents: Vec::new() });
            }
            // The unified tree of a machine that has its controllers in version 1 takes part if the path is there, too.
            if mixed && choice.controllers.is_none() && place.version == Version::V2 {
                return Ok(recorded.clone());
            }
            Err(Failure::because(format!("{place} does not exist")).doing(doing()))
        };
        let directories = self.record.directories.iter().map(choose).collect::<Result<Vec<Recorded>, Failure>>()?;
        Self::open(&CgroupRecord { directories, unit: None, delegated: None })
    }

    fn check(&self, choice: &Choice<'_>) -> Result<(), Failure> {
        if choice.inside().components().any(|part| part == Component::ParentDir) {
            return Err(Failure::because("expected a path below the container's cgroup, without `..`"));
        }
        let has = |name: &&&str| self.record.directories.iter().any(|recorded| recorded.place.has(name));
        match choice.controllers.iter().flatten().find(|name| !has(name)) {
            Some(name) => Err(Failure::because(format!("expected controllers of the container's cgroups, found {name:?}"))),
            None => Ok(()),
        }
    }

    /// The directory that knows the processes: all of them are in each, but nothing can hide from the kernel's own kill in
    /// the unified tree.
    pub(super) fn census(&self) -> Option<&Dir> {
        self.v2().or_else(|| self.v1("freezer")).or_else(|| self.existing().next().map(|(_, dir)| dir))
    }

    /// The directories that were there before the container.
    pub(super) fn existing_foreign(&self) -> impl Iterator<Item = &Dir> {
        let found = self.record.directories.iter().zip(&self.dirs);
        found.filter(|(recorded, _)| !recorded.ours).filter_map(|(_, dir)| dir.as_ref())
    }

    /// The version 2 directory.
    pub(super) fn v2(&self) -> Option<&Dir> {
        self.existing().find(|(version, _)| *version == Version::V2).map(|(_, dir)| dir)
    }

    /// The version 1 directory of a controller.
    pub(super) fn v1(&self, controller: &str) -> Option<&Dir> {
        let index = self.record.directories.iter().position(|d| d.place.version == Version::V1 && d.place.has(controller))?;
        self.dirs.get(index)?.as_ref()
    }

    pub(super) fn existing(&self) -> impl Iterator<Item = (Version, &Dir)> {
        self.record.directories.iter().zip(&self.dirs).filter_map(|(recorded, dir)| Some((recorded.place.version, dir.as_ref()?)))
    }
}

/// The `tasks` files of version 1 directories, which a single-threaded process writes itself into. They were opened by the launcher, with
/// its rights, and are no directories from which something else could be reached.
#[derive(Debug, Default)]
pub struct Doors(Vec<(OwnedFd, PathBuf)>);

impl Doors {
    /// Moves the calling process, which has one thread, and closes the files.
    ///
    /// A thread that moves itself needs no lock of the kernel but the one of all cgroups. Moving another process, or a whole one
    /// through `cgroup.procs`, takes the lock of thread groups, and that may wait for an RCU grace period: milliseconds
    /// (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c).
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&mut self) -> Result<(), Failure> {
        for (tasks, path) in self.0.drain(..) {
            write_all(&tasks, b"0").doing(|| format!("join cgroup {}", path.display()))?;
        }
        Ok(())
    }
}

/// The processes of a directory and of those below.
pub(super) fn collect(dir: &Dir, pids: &mut BTreeSet<i32>) -> CallResult<()> {
    members(dir, pids)?;
    if has_children(dir)? {
        dir.children()?.iter().try_for_each(|child| collect(child, pids))?;
    }
    Ok(())
}

/// The processes of a directory itself.
pub(super) fn members(dir: &Dir, pids: &mut BTreeSet<i32>) -> CallResult<()> {
    match dir.read_if_present("cgroup.procs") {
        // A threaded cgroup: its processes are listed in the nearest one above that is not.
        Err(error) if error.is(libc::EOPNOTSUPP) => {}
        other => {
            pids.extend(other?.unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0))
        }
    }
    Ok(())
}

/// Version 2 counts them, which saves looking at every file.
fn has_children(dir: &Dir) -> CallResult<bool> {
    let stat = dir.read_if_present("cgroup.stat")?.unwrap_or_default();
    Ok(!stat.lines().any(|line| line == "nr_descendants 0"))
}
