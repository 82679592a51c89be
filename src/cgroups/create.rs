//! Making the directories.

use std::path::Path;

use super::cgroup::Cgroup;
use super::dir::{Dir, is_gone};
use super::plan::CgroupPlan;
use super::steps::{CgroupRecord, Place, Recorded, Version};
use super::systemd::UnitPlan;
use crate::error::{Doing, Failure};
use crate::plan::{Origin, Planned};
use crate::sys::CallResult;

/// What of a plan's directories exists already: the last step before something is made.
#[derive(Debug)]
pub struct Survey {
    pub(super) record: CgroupRecord,
    pub(super) mounts: Vec<Dir>,
}

/// Looks which directories have to be made. Nothing is changed.
///
/// # Errors
/// The kernel's.
pub fn survey(plan: &CgroupPlan) -> Result<Survey, Failure> {
    let look = |planned: &Planned<Place>| -> CallResult<(Recorded, Dir)> {
        let place = &planned.step;
        let mount = Dir::mount(&place.mount)?;
        let mut missing = Vec::new();
        for level in place.levels().into_iter().rev() {
            if mount.find(&level)?.is_some() {
                break;
            }
            missing.insert(0, level);
        }
        if plan.unit.is_some() {
            // systemd makes it, and everything above, and takes it away.
            return Ok((Recorded { place: place.clone(), ours: true, parents: Vec::new() }, mount));
        }
        let ours = missing.pop().is_some();
        // The directory `rt` of the default path belongs to all of our containers: whoever is the last removes it.
        let common = place.path.parent().filter(|_| missing.is_empty() && matches!(planned.origin, Origin::Default(_)));
        missing.extend(common.map(Path::to_path_buf));
        Ok((Recorded { place: place.clone(), ours, parents: missing }, mount))
    };
    let found: CallResult<Vec<_>> = plan.places.iter().map(look).collect();
    let (directories, mounts) = found.doing(|| "look at the cgroup hierarchies")?.into_iter().unzip();
    Ok(Survey { record: CgroupRecord { directories, unit: plan.unit.as_ref().map(UnitPlan::record) }, mounts })
}

impl Survey {
    /// What will be made: to be written into the container's record now.
    pub fn record(&self) -> &CgroupRecord {
        &self.record
    }

    /// Makes the directories. A directory that was there before must be empty and not frozen: what is in it is not ours.
    ///
    /// # Errors
    /// The kernel's. Whatever was made up to then is in the record.
    pub fn create(self) -> Result<Cgroup, Failure> {
        let mut dirs = Vec::with_capacity(self.mounts.len());
        if self.record.unit.is_some() {
            // The unit is there by now.
            return Cgroup::open(&self.record);
        }
        for (recorded, mount) in self.record.directories.iter().zip(&self.mounts) {
            let dir = make(mount, recorded).doing(|| format!("make {}", recorded.place))?;
            dirs.push(Some(dir));
        }
        let cgroup = Cgroup { record: self.record, dirs };
        if cgroup.record.directories.iter().any(|recorded| !recorded.ours) {
            check_fit(&cgroup)?;
        }
        Ok(cgroup)
    }
}

/// Makes the levels of a directory that are missing.
fn make(mount: &Dir, recorded: &Recorded) -> CallResult<Dir> {
    // Another container's removal may take a common parent away between two of our calls.
    let mut tries = 0;
    loop {
        match make_once(mount, recorded) {
            Err(error) if is_gone(&error) && tries < 100 => tries += 1,
            other => return other,
        }
    }
}

fn make_once(mount: &Dir, recorded: &Recorded) -> CallResult<Dir> {
    let is_cpuset = recorded.place.version == Version::V1 && recorded.place.has("cpuset");
    let mut above = mount.below(Path::new(""))?;
    for name in &recorded.place.path {
        let name = Path::new(name);
        above.make(name)?;
        let dir = above.below(name)?;
        if is_cpuset {
            inherit_cpuset(&above, &dir)?;
        }
        above = dir;
    }
    Ok(above)
}

/// A new cpuset of version 1 is empty and refuses processes: it gets what the one above has.
fn inherit_cpuset(above: &Dir, dir: &Dir) -> CallResult<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if dir.read(file)?.trim().is_empty() {
            dir.write(file, above.read(file)?.trim())?;
        }
    }
    Ok(())
}

/// The specification lets us refuse a cgroup that is not fit for purpose (config-linux.md, "Control groups").
pub(super) fn check_fit(cgroup: &Cgroup) -> Result<(), Failure> {
    if cgroup.is_frozen()? {
        return Err(Failure::because("the cgroup exists and is frozen")
            .doing("use an existing cgroup")
            .origin("linux.cgroupsPath"));
    }
    let count = cgroup.processes()?.len();
    if count > 0 {
        let text = format!("expected an empty cgroup, found one with {count} processes in it");
        return Err(Failure::because(text).doing("use an existing cgroup").origin("linux.cgroupsPath"));
    }
    Ok(())
}
