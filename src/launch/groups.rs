//! The control groups of a container that is being made, and what becomes of its record if they turn out to be somebody else's.

use crate::cgroups::systemd::{Manager, Started, UnitPlan};
use crate::cgroups::{Cgroup, CgroupRecord, Survey};
use crate::error::Failure;
use crate::state::{Directory, Record};

/// Starts the container's systemd unit with a process in it.
///
/// # Errors
/// Of the manager, or if there is such a unit already: then the record does not name it any more.
pub fn start_unit(unit: &UnitPlan, pid: i32, record: &mut Record, directory: Option<&Directory>) -> Result<(), Failure> {
    let Started::InUse(processes) = Manager::connect(unit.which)?.start_scope(unit, pid)? else { return Ok(()) };
    // It is somebody else's: what takes this container back must not touch it.
    record.cgroup = CgroupRecord::default();
    directory.map_or(Ok(()), |directory| directory.write_record(record))?;
    let text = format!("expected a unit that does not exist, found {} with {processes} processes in it", unit.name);
    Err(Failure::because(text).origin("linux.cgroupsPath"))
}

/// Makes the control groups. What turns out to be somebody else's leaves the record: what takes this container back must not touch it.
///
/// # Errors
/// See [`Survey::create`].
pub fn make(mut survey: Survey, record: &mut Record, directory: Option<&Directory>) -> Result<Cgroup, Failure> {
    let made = survey.create(record.mark().as_deref());
    if made.is_err() && record.cgroup != *survey.record() {
        record.cgroup = survey.record().clone();
        directory.map_or(Ok(()), |directory| directory.write_record(record))?;
    }
    made
}
