//! Who has made a directory: an extended attribute of it.
//!
//! The record says what a create is *about to* make, because it has to be written before. If somebody else makes the same directory in
//! between, the create gives way and says so in its record; if it is killed before it can, the record claims what it does not own. So every
//! directory by which processes are killed is marked as soon as it is made, before anybody can be in it, and what has another mark, or none,
//! is nobody's to be killed.

use std::path::Path;
use std::time::{Duration, Instant};

use super::dir::{self, is_gone};
use super::remove::remove_parents;
use super::steps::{CgroupRecord, Recorded, Version};
use crate::error::{Doing, Failure};
use crate::sys::fs::{getxattr, setxattr};
use crate::sys::{CallError, CallResult};

/// `trusted` is for root of the host alone and for every hierarchy; `user` is for everybody and for version 2 (Linux 5.7).
const NAMES: [&std::ffi::CStr; 2] = [c"trusted.rt.maker", c"user.rt.maker"];
/// More than a mark has.
const LONGEST: usize = 4096;
/// How long a process that dies with its launcher may take to leave.
const PATIENCE: Duration = Duration::from_millis(500);

/// True for the first directory, at which two creates meet, and for those that know the processes.
pub(super) fn is_marked(index: usize, recorded: &Recorded) -> bool {
    index == 0 || recorded.place.version == Version::V2 || recorded.place.has("freezer")
}

/// Marks a directory. Where neither kind of attribute may be set there is no mark, and [`owned`] is the more careful.
pub(super) fn set(directory: &Path, mark: &str) {
    let _ = NAMES.iter().any(|name| setxattr(directory, name, mark.as_bytes()).is_ok());
}

fn get(directory: &Path) -> CallResult<Option<Vec<u8>>> {
    for name in NAMES {
        match getxattr(directory, name, LONGEST) {
            Err(error) if has_none(&error) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

fn has_none(error: &CallError) -> bool {
    [libc::ENODATA, libc::EOPNOTSUPP, libc::EPERM, libc::EACCES].iter().any(|number| error.is(*number))
}

/// What of a record's directories a create that has not come to its end has really made, by its mark; the unit goes with them. Directories
/// without a mark are removed here if nobody is in them: their maker has died between two system calls.
///
/// # Errors
/// The kernel's.
pub fn owned(record: &CgroupRecord, mark: &str) -> Result<CgroupRecord, Failure> {
    let mut owned = record.clone();
    // What was there before is nobody's to be killed or removed anyway.
    let claimed = record.directories.iter().enumerate().filter(|(_, recorded)| recorded.ours);
    for (index, recorded) in claimed.filter(|(index, recorded)| is_marked(*index, recorded)) {
        let directory = recorded.place.directory();
        match get(&directory) {
            // Not made, or gone already.
            Err(error) if is_gone(&error) => continue,
            Ok(Some(found)) if found == mark.as_bytes() => continue,
            Ok(Some(_)) => {}
            Ok(None) => remove_abandoned(&record.directories[index..])?,
            Err(error) => return Err(Failure::from(error).doing(format!("look whose {} is", recorded.place))),
        }
        // Whoever finds one taken makes no more.
        owned.directories.truncate(index);
        if index == 0 {
            owned.unit = None;
        }
        break;
    }
    Ok(owned)
}

fn remove_abandoned(directories: &[Recorded]) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    for recorded in directories.iter().filter(|recorded| recorded.ours) {
        loop {
            match dir::remove(&recorded.place.directory()) {
                Err(error) if error.is(libc::EBUSY) && Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                // Somebody is in it, or has cgroups below it: then it is theirs.
                Err(error) if error.is(libc::EBUSY) || error.is(libc::ENOTEMPTY) => break,
                other => {
                    other.doing(|| format!("remove {}", recorded.place))?;
                    break remove_parents(recorded);
                }
            }
        }
    }
    Ok(())
}
