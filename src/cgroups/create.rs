//! Making the directories.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cgroup::{Cgroup, members};
use super::dir::{self, Dir, is_gone};
use super::mark;
use super::plan::CgroupPlan;
use super::steps::{CgroupRecord, Place, Recorded, Version};
use super::systemd::UnitPlan;
use crate::error::{Doing, Failure};
use crate::plan::Planned;
use crate::sys::fs::{faccessat, openat, read_record};
use crate::sys::{At, CallResult};

/// What of a plan's directories exists already: the last step before something is made.
#[derive(Debug)]
pub struct Survey {
    pub(super) record: CgroupRecord,
}

/// Looks which directories have to be made. Nothing is changed.
///
/// # Errors
/// The kernel's.
pub fn survey(plan: &CgroupPlan) -> Result<Survey, Failure> {
    let look = |planned: &Planned<Place>| -> CallResult<Recorded> {
        let place = planned.step.clone();
        if plan.unit.is_some() {
            // systemd makes it, and everything above, and takes it away.
            return Ok(Recorded { place, ours: true, parents: Vec::new() });
        }
        let mut missing = missing(&place)?;
        let ours = missing.pop().is_some();
        Ok(Recorded { place, ours, parents: missing })
    };
    let found: CallResult<Vec<_>> = plan.places.iter().map(look).collect();
    let directories = found.doing(|| "look at the cgroup hierarchies")?;
    let (unit, delegated) = (plan.unit.as_ref().map(UnitPlan::record), plan.delegated.clone());
    Ok(Survey { record: CgroupRecord { directories, unit, delegated } })
}

/// The levels of a place that do not exist, outermost first.
fn missing(place: &Place) -> CallResult<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for level in place.levels().into_iter().rev() {
        match faccessat(At::Cwd, &place.mount.join(&level), libc::F_OK) {
            Err(error) if is_gone(&error) => missing.insert(0, level),
            other => {
                other?;
                break;
            }
        }
    }
    Ok(missing)
}

impl Survey {
    /// What will be made: to be written into the container's record now.
    pub fn record(&self) -> &CgroupRecord {
        &self.record
    }

    /// A directory that was there before.
    pub fn existing(&self) -> Option<&Place> {
        self.record.directories.iter().find(|recorded| !recorded.ours).map(|recorded| &recorded.place)
    }

    /// Makes the directories, and marks them as made by the create that this text names ([`super::owned`]). A directory that was
    /// there before must be empty and not frozen: what is in it is not ours.
    ///
    /// # Errors
    /// The kernel's, or if somebody else has made one since the survey: two containers in one cgroup would end with the first of
    /// them. Whatever was made up to then is in the record, and nothing of others any more.
    pub fn create(&mut self, mark: Option<&str>) -> Result<Cgroup, Failure> {
        if let Some(unit) = &self.record.unit {
            // The unit is there by now.
            for recorded in self.record.directories.iter().filter(|_| unit.subgroup.is_some()) {
                dir::make(&recorded.place.directory()).doing(|| format!("make {}", recorded.place))?;
            }
            let cgroup = Cgroup::open(&self.record)?;
            self.record.directories.iter().enumerate().for_each(|(index, recorded)| label(index, recorded, mark));
            return Ok(cgroup);
        }
        let mut dirs = Vec::new();
        for (index, recorded) in self.record.directories.iter().enumerate() {
            let (dir, is_new) = make(&recorded.place).doing(|| format!("make {}", recorded.place))?;
            if recorded.ours && !is_new {
                let place = recorded.place.to_string();
                self.record.directories.truncate(index);
                return Err(Failure::because("another container is being made in it")
                    .doing(format!("make {place}"))
                    .origin("linux.cgroupsPath"));
            }
            if is_new {
                label(index, recorded, mark);
            }
            dirs.push(Some(dir));
        }
        let cgroup = Cgroup { record: self.record.clone(), dirs };
        if cgroup.record.directories.iter().any(|recorded| !recorded.ours) {
            check_fit(&cgroup)?;
        }
        Ok(cgroup)
    }
}

fn label(index: usize, recorded: &Recorded, text: Option<&str>) {
    if let Some(text) = text.filter(|_| mark::is_marked(index, recorded)) {
        mark::set(&recorded.place.directory(), text);
    }
}

/// Makes a directory and whatever is missing above it. False if it was there.
fn make(place: &Place) -> CallResult<(Dir, bool)> {
    // Another container's removal may take a common parent away between two of our calls.
    let mut tries = 0;
    loop {
        match make_once(place) {
            Err(error) if is_gone(&error) && tries < 100 => tries += 1,
            other => return other,
        }
    }
}

fn make_once(place: &Place) -> CallResult<(Dir, bool)> {
    let whole = place.directory();
    let is_cpuset = place.version == Version::V1 && place.has("cpuset");
    let (is_new, is_alone) = match dir::make(&whole) {
        Err(error) if is_gone(&error) => {
            // The last one is the directory itself.
            let levels = place.levels();
            let is_new = levels.iter().try_fold(false, |_, level| dir::make(&place.mount.join(level)))?;
            (is_new, false)
        }
        other => other.map(|is_new| (is_new, is_new))?,
    };
    let dir = Dir::open(whole)?;
    if is_cpuset {
        inherit_cpuset(place, &dir, is_alone)?;
    }
    Ok((dir, is_new))
}

const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// A new cpuset of version 1 is empty and refuses processes: it gets what the one above has.
fn inherit_cpuset(place: &Place, dir: &Dir, is_alone: bool) -> CallResult<()> {
    // Nearly always everything above was there before, and has something to give.
    if is_alone && fill(&place.mount.join(place.path.parent().unwrap_or(Path::new(""))), dir)? {
        return Ok(());
    }
    let mut above = place.mount.clone();
    for level in place.levels() {
        let dir = Dir::open(place.mount.join(level))?;
        if CPUSET.iter().try_fold(false, |empty, file| Ok(empty || dir.read(file)?.trim().is_empty()))? {
            fill(&above, &dir)?;
        }
        above = dir.path().to_path_buf();
    }
    Ok(())
}

/// False if there is nothing above that could be given on.
fn fill(above: &Path, dir: &Dir) -> CallResult<bool> {
    for file in CPUSET {
        let value = read_record(openat(At::Cwd, &above.join(file), libc::O_RDONLY, 0)?)?;
        let value = String::from_utf8_lossy(&value);
        if value.trim().is_empty() {
            return Ok(false);
        }
        dir.write(file, value.trim())?;
    }
    Ok(true)
}

/// The specification lets us refuse a cgroup that is not fit for purpose (config-linux.md, "Control groups").
pub(super) fn check_fit(cgroup: &Cgroup) -> Result<(), Failure> {
    if cgroup.is_frozen()? {
        return Err(Failure::because("the cgroup exists and is frozen")
            .doing("use an existing cgroup")
            .origin("linux.cgroupsPath"));
    }
    match occupied(cgroup)? {
        Some((dir, count)) => {
            let text = format!("expected an empty cgroup, found one with {count} processes in it");
            let failure = Failure::because(text).doing("use an existing cgroup").origin("linux.cgroupsPath");
            Err(failure.hint(format!("who they are is in cgroup.procs of the cgroup: {}/cgroup.procs", dir.path().display())))
        }
        None => Ok(()),
    }
}

/// A directory with processes, and how many. The one that knows the container's processes must have none below it either, because they would be taken
/// for the container's. In another hierarchy it is enough that nobody is in the directory itself, whose limits would be theirs, too: engines have
/// been seen to put their monitors into groups below, in some hierarchies only.
fn occupied(cgroup: &Cgroup) -> Result<Option<(&Dir, usize)>, Failure> {
    let census = cgroup.census().map(|dir| Ok((dir, cgroup.processes()?.len())));
    let foreign = cgroup.existing_foreign().map(|dir| {
        let mut pids = BTreeSet::new();
        members(dir, &mut pids).doing(|| "list the processes of an existing cgroup")?;
        Ok((dir, pids.len()))
    });
    let counts: Result<Vec<_>, Failure> = census.into_iter().chain(foreign).collect();
    Ok(counts?.into_iter().find(|(_, count)| *count > 0))
}
