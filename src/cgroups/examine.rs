//! A look at what making the groups and setting their limits would meet. Nothing is made or changed.

use std::os::fd::AsFd;
use std::path::Path;

use super::cgroup::Cgroup;
use super::create::{Survey, check_fit};
use super::dir::Dir;
use super::plan::CgroupPlan;
use super::steps::{Recorded, Step, Tolerance, Version, Write};
use crate::error::{Doing, Failure};
use crate::plan::Planned;
use crate::sys::{CallError, CallResult};

impl Survey {
    /// Fails as [`Survey::create`] and [`Cgroup::apply`] would, as far as that can be seen without doing it.
    ///
    /// # Errors
    /// Theirs.
    pub fn examine(&self, plan: &CgroupPlan) -> Result<(), Failure> {
        if self.record.unit.is_some() {
            return Ok(());
        }
        for recorded in &self.record.directories {
            writable(recorded).doing(|| format!("make {}", recorded.place))?;
        }
        if self.record.directories.iter().any(|recorded| !recorded.ours) {
            check_fit(&Cgroup::open(&self.record)?)?;
        }
        for planned in &plan.steps {
            if let Step::Write(write) = &planned.step {
                self.write(write, planned)?;
            }
        }
        Ok(())
    }

    fn write(&self, write: &Write, planned: &Planned<Step>) -> Result<(), Failure> {
        let Some(recorded) = self.record.directories.get(write.place) else {
            return Ok(());
        };
        if write.tolerance != Tolerance::Required {
            return Ok(());
        }
        let whole = recorded.place.directory().join(&write.file);
        let refused = |call: &str, errno: i32| {
            let call = CallError::new(call, format!("{whole:?}, {:?}", write.value), errno);
            Err(Failure::from(call).doing(&planned.step).origin(&planned.origin))
        };
        let above = nearest(recorded)?;
        match (write.file.as_str(), recorded.place.version) {
            ("cpuset.cpus" | "cpuset.mems", version) => match set_refusal(&above, write, version) {
                Some(errno) => refused("write", errno),
                None => Ok(()),
            },
            (file, _) if is_missing(&above, recorded, file)? => refused("openat", libc::ENOENT),
            _ => Ok(()),
        }
    }
}

/// The deepest directory that exists, the container's own or one above it.
fn nearest(recorded: &Recorded) -> CallResult<Dir> {
    let mut found = Dir::mount(&recorded.place.mount)?;
    for level in recorded.place.levels() {
        match Dir::open_if_present(recorded.place.mount.join(&level))? {
            Some(dir) => found = dir,
            None => break,
        }
    }
    Ok(found)
}

/// A hierarchy that is mounted read-only, as in a container.
fn writable(recorded: &Recorded) -> CallResult<()> {
    if !recorded.ours {
        return Ok(());
    }
    let dir = nearest(recorded)?;
    let read_only = crate::sys::fs::fstatfs(&dir)?.flags & libc::ST_RDONLY != 0;
    let missing = recorded.place.directory();
    let name = missing.strip_prefix(dir.path()).ok().and_then(|rest| rest.iter().next());
    match name.filter(|_| read_only) {
        Some(name) => Err(CallError::new("mkdirat", format!("{:?}, 0o755", dir.path().join(name)), libc::EROFS)),
        None => Ok(()),
    }
}

/// True if the kernel has no such file: known from a group that has others of the same controller, and for hugetlb from the page sizes.
fn is_missing(above: &Dir, recorded: &Recorded, file: &str) -> CallResult<bool> {
    if let Some(size) = file.strip_prefix("hugetlb.").and_then(|rest| rest.split('.').next()) {
        return Ok(page_sizes().is_some_and(|sizes| !sizes.iter().any(|known| known == size)));
    }
    // The root has fewer files than the groups below it.
    if above.path() == recorded.place.mount {
        return Ok(false);
    }
    let family = |name: &str| name.split('.').next().map(str::to_owned);
    let names = crate::sys::fs::list_dir(
        crate::sys::fs::openat(crate::sys::At::from(above), Path::new("."), libc::O_RDONLY, 0)?.as_fd(),
    )?;
    let names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
    let has_family = names.iter().any(|name| family(name) == family(file));
    Ok(has_family && !names.iter().any(|name| name == file))
}

/// The sizes of huge pages as they are written in the names of files, such as 2MB.
fn page_sizes() -> Option<Vec<String>> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").ok()?;
    let size = |name: &str| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(match kib {
            kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
            kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
            kib => format!("{kib}KB"),
        })
    };
    Some(entries.flatten().filter_map(|entry| size(&entry.file_name().to_string_lossy())).collect())
}

/// What the kernel says about a list of processors or memory nodes that the group above does not have (cpuset(7)): a number beyond all
/// that there can be is out of range, and in version 1 a set must be a part of the one above.
fn set_refusal(above: &Dir, write: &Write, version: Version) -> Option<i32> {
    let numbers = numbers(&write.value)?;
    let possible =
        if write.file == "cpuset.cpus" { "/sys/devices/system/cpu/possible" } else { "/sys/devices/system/node/possible" };
    let limit = std::fs::read_to_string(possible).ok().and_then(|text| numbers_of(text.trim()).into_iter().max())?;
    if numbers.iter().any(|number| *number > limit) {
        return Some(libc::ERANGE);
    }
    if version == Version::V2 {
        return None;
    }
    let has = numbers_of(above.read(&write.file).ok()?.trim());
    // A new group of version 1 gets what is above; an empty one above was filled before.
    (!has.is_empty() && numbers.iter().any(|number| !has.contains(number))).then_some(libc::EACCES)
}

fn numbers(list: &str) -> Option<Vec<u32>> {
    let numbers = numbers_of(list);
    (!numbers.is_empty()).then_some(numbers)
}

/// `0-3,7` as numbers; what is no list is left to the kernel.
fn numbers_of(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        Some(if last < 1 << 16 { first..=last } else { last..=last })
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::numbers_of;

    #[test]
    fn lists() {
        assert_eq!(numbers_of("0-2,7"), [0, 1, 2, 7]);
        assert_eq!(numbers_of(""), [0; 0]);
        assert_eq!(numbers_of("0-4294967295"), [u32::MAX]);
    }
}
