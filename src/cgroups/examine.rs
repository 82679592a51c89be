//! A look at what making the groups and setting their limits would meet. Nothing is made or changed.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use super::apply::{check_uninhabited, enabling, not_enabled};
use super::cgroup::Cgroup;
use super::create::{Survey, check_fit};
use super::dir::Dir;
use super::lists;
use super::plan::CgroupPlan;
use super::steps::{Recorded, Step, Tolerance, Version, Write};
use crate::error::{Doing, Failure};
use crate::plan::Planned;
use crate::sys::{CallError, CallResult};

/// What other values of the same plan say.
struct Beside<'a> {
    /// There is a limit on memory.
    memory: bool,
    /// The period of quotas.
    period: Option<&'a str>,
    /// The period of realtime processes.
    realtime_period: Option<&'a str>,
}

impl Survey {
    /// What [`Survey::create`] and [`Cgroup::apply`] would fail with, as far as that can be seen without doing it.
    pub fn examine(&self, plan: &CgroupPlan) -> Vec<Failure> {
        if self.record.unit.is_some() {
            return Vec::new();
        }
        if let Err(failure) = self.directories() {
            return vec![failure];
        }
        let writes = || plan.steps.iter().filter_map(|planned| Some((planned, planned.step.as_write()?)));
        let value = |file: &str| writes().find(|(_, write)| write.file == file).map(|(_, write)| write.value.as_str());
        let beside = Beside {
            memory: value("memory.limit_in_bytes").is_some(),
            period: value("cpu.cfs_period_us"),
            realtime_period: value("cpu.rt_period_us"),
        };
        let enabled = plan.steps.iter().map(|planned| self.enable(planned));
        let looked = enabled.chain(writes().map(|(planned, write)| self.write(write, planned, &beside)));
        looked.filter_map(Result::err).collect()
    }

    /// A directory above the container's with processes of its own passes no controllers on.
    fn enable(&self, planned: &Planned<Step>) -> Result<(), Failure> {
        let Step::Enable { place, controllers, required, tolerance: Tolerance::Required } = &planned.step else { return Ok(()) };
        let Some(recorded) = self.record.directories.get(*place) else { return Ok(()) };
        let levels = recorded.place.levels();
        let above = levels.split_last().map_or(&levels[..0], |(_, above)| above);
        for level in above {
            let Some(dir) = Dir::open_if_present(recorded.place.mount.join(level))? else { return Ok(()) };
            let missing = not_enabled(&dir, controllers)?;
            let matters = missing.iter().any(|name| required.contains(name));
            if let Err(refused) = check_uninhabited(&dir, &enabling(&missing))
                && matters
            {
                return Err(Failure::from(refused).doing(&planned.step).origin(&planned.origin));
            }
        }
        Ok(())
    }

    fn directories(&self) -> Result<(), Failure> {
        for recorded in &self.record.directories {
            writable(recorded).doing(|| format!("make {}", recorded.place))?;
        }
        if self.record.directories.iter().any(|recorded| !recorded.ours) {
            check_fit(&Cgroup::open(&self.record)?)?;
        }
        Ok(())
    }

    fn write(&self, write: &Write, planned: &Planned<Step>, beside: &Beside<'_>) -> Result<(), Failure> {
        let Some(recorded) = self.record.directories.get(write.place) else {
            return Ok(());
        };
        let whole = recorded.place.directory().join(&write.file);
        let refused = |call: &str, errno: i32| {
            let call = CallError::new(call, format!("{whole:?}, {:?}", write.value), errno);
            Err(Failure::from(call).doing(&planned.step).origin(&planned.origin))
        };
        let above = nearest(recorded)?;
        let missing = is_missing(&above, recorded, &write.file)?;
        if missing && write.tolerance == Tolerance::Required {
            return refused("openat", libc::ENOENT);
        }
        if missing || !arrives(&above, write, recorded.place.version)? {
            return Ok(());
        }
        match refusal(&above, write, recorded, beside) {
            Some(errno) if matters(write.tolerance, errno) => refused("write", errno),
            _ => Ok(()),
        }
    }
}

/// False if the limits of an ordinary user may not come to pass, so that a warning is all that there will be.
fn arrives(above: &Dir, write: &Write, version: Version) -> CallResult<bool> {
    if write.tolerance == Tolerance::Required || version == Version::V1 || write.controller == "cgroup" {
        return Ok(true);
    }
    let offered = above.read_if_present("cgroup.controllers")?.unwrap_or_default();
    let enabled = above.read_if_present("cgroup.subtree_control")?.unwrap_or_default();
    let has = |list: &str| list.split_whitespace().any(|name| name == write.controller);
    Ok(has(&enabled) || (has(&offered) && above.read("cgroup.procs")?.is_empty()))
}

/// True if a refusal of this value is more than a warning.
fn matters(tolerance: Tolerance, errno: i32) -> bool {
    match tolerance {
        Tolerance::Required | Tolerance::IfPresent => true,
        Tolerance::WarnIfUnsupported => !super::apply::UNSUPPORTED.contains(&errno),
        Tolerance::Warn => false,
    }
}

/// What the kernel says about a value that does not suit this machine. What is wrong everywhere has been found by the plan.
fn refusal(above: &Dir, write: &Write, recorded: &Recorded, beside: &Beside<'_>) -> Option<i32> {
    match write.file.as_str() {
        "cpuset.cpus" | "cpuset.mems" => set_refusal(above, write, recorded.place.version),
        // It can only be set below one on memory alone.
        "memory.memsw.limit_in_bytes" if !beside.memory && !write.value.starts_with('-') => Some(libc::EINVAL),
        // Where a device that is missing is a warning only, it may be there by then: to look for it loads modules (loop).
        "io.max" => {
            let refusals = [device_refusal(&write.value), rate_refusal(&write.value)];
            refusals.into_iter().flatten().find(|errno| matters(write.tolerance, *errno))
        }
        file if file.starts_with("blkio.throttle.") => device_refusal(&write.value),
        "cpu.cfs_quota_us" => quota_refusal(above, &write.value, recorded, beside),
        "cpu.rt_runtime_us" => realtime_refusal(above, &write.value, recorded, beside),
        "net_prio.ifpriomap" => {
            let name = write.value.split(' ').next()?;
            std::fs::symlink_metadata(Path::new("/sys/class/net").join(name)).is_err().then_some(libc::ENODEV)
        }
        _ => None,
    }
}

/// `MAJOR:MINOR ...` of a disk: the kernel takes rates for whole ones only (`blkg_conf_open_bdev()` of block/blk-cgroup.c).
fn device_refusal(value: &str) -> Option<i32> {
    let disk = Path::new("/sys/dev/block").join(value.split(' ').next()?);
    (std::fs::metadata(&disk).is_err() || disk.join("partition").exists()).then_some(libc::ENODEV)
}

/// `MAJOR:MINOR KEY=RATE ...`: no rate is 1 (`tg_set_limit()` of block/blk-throttle.c).
fn rate_refusal(value: &str) -> Option<i32> {
    value.split(' ').any(|word| word.ends_with("=1")).then_some(libc::EINVAL)
}

/// A part of each period, as the kernel counts it; without end if negative (`to_ratio()` of kernel/sched/core.c).
fn share(time: i64, period: i64) -> i128 {
    if time < 0 { i128::MAX } else { (i128::from(time) << 20) / i128::from(period.max(1)) }
}

fn number(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// What two files of a group say.
fn share_of(dir: &Dir, time: &str, period: &str) -> Option<i128> {
    Some(share(number(&dir.read(time).ok()?)?, number(&dir.read(period).ok()?)?))
}

/// In version 1 no group has a larger part of the processors' time than one above it (`tg_cfs_schedulable_down()` of kernel/sched).
fn quota_refusal(above: &Dir, quota: &str, recorded: &Recorded, beside: &Beside<'_>) -> Option<i32> {
    let (time, period) = ("cpu.cfs_quota_us", "cpu.cfs_period_us");
    let own = if recorded.ours { None } else { above.read(period).ok() };
    let own = own.as_deref().and_then(number).unwrap_or(100_000);
    let wanted = number(quota).filter(|quota| *quota >= 0)?;
    let wanted = share(wanted, beside.period.map_or(Some(own), number)?);
    let container = recorded.place.directory();
    let groups = above.path().ancestors().take_while(|path| path.starts_with(&recorded.place.mount));
    let groups = groups.filter(|path| **path != container).filter_map(|path| Dir::open(path.to_path_buf()).ok());
    let least = groups.filter_map(|dir| share_of(&dir, time, period)).min()?;
    (wanted > least).then_some(libc::EINVAL)
}

/// The groups of a directory together have no larger share of the time for realtime processes than it has itself, which is none in a new
/// one, nor one of them than all processes of the machine (sched(7); `tg_rt_schedulable()` of kernel/sched/rt.c).
fn realtime_refusal(above: &Dir, runtime: &str, recorded: &Recorded, beside: &Beside<'_>) -> Option<i32> {
    let of = |dir: &Dir| share_of(dir, "cpu.rt_runtime_us", "cpu.rt_period_us");
    let global = |name: &str| number(&std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?);
    let (most, period) = (global("sched_rt_runtime_us")?, global("sched_rt_period_us")?);
    let wanted = share(number(runtime)?, beside.realtime_period.map_or(Some(period), number)?);
    if wanted == 0 {
        return None;
    }
    // Of a group that is there already, only the share above it is looked at, not those of the groups beside it.
    let (parent, others) =
        if recorded.ours { (None, above.children().ok()?) } else { (Dir::open(above.path().parent()?.into()).ok(), Vec::new()) };
    let taken = others.iter().filter_map(of).fold(wanted, i128::saturating_add);
    let offered = if recorded.parents.is_empty() { of(parent.as_ref().unwrap_or(above))? } else { 0 };
    (wanted > share(most, period) || taken > offered).then_some(libc::EINVAL)
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
    let family = |name: &str| name.split('.').next().map(str::to_owned);
    let has_family = |names: &[String]| names.iter().any(|name| family(name) == family(file));
    // The root has fewer files than the groups below it.
    let names = if above.path() == recorded.place.mount {
        let below = above.children()?.iter().filter_map(|dir| files(dir).ok()).find(|names| has_family(names));
        below.unwrap_or_default()
    } else {
        files(above)?
    };
    Ok(has_family(&names) && !names.iter().any(|name| name == file))
}

fn files(dir: &Dir) -> CallResult<Vec<String>> {
    let names =
        crate::sys::fs::list_dir(crate::sys::fs::openat(crate::sys::At::from(dir), Path::new("."), libc::O_RDONLY, 0)?.as_fd())?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
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

/// What the kernel says about a list of processors or memory nodes (cpuset(7)): a number beyond all that there can be is out of range, one
/// that the machine does not have is invalid, and in version 1 a set must be a part of the one above.
fn set_refusal(above: &Dir, write: &Write, version: Version) -> Option<i32> {
    let (root, width) = match write.file.as_str() {
        "cpuset.cpus" => {
            let possible = possible("/sys/devices/system/cpu/possible")?;
            let width = possible.last()? + 1;
            (possible, width)
        }
        _ => (possible("/sys/devices/system/node/possible")?, most_nodes()?),
    };
    let numbers: BTreeSet<u32> = match lists::parse(&write.value, width) {
        Ok(numbers) => numbers.into_iter().collect(),
        Err(errno) => return Some(errno),
    };
    if !numbers.is_subset(&root) {
        return Some(libc::EINVAL);
    }
    if version == Version::V2 {
        return None;
    }
    let has: BTreeSet<u32> = lists::parse(&above.read(&write.file).ok()?, width).ok()?.into_iter().collect();
    // A new group of version 1 gets what is above; an empty one above was filled before.
    (!has.is_empty() && !numbers.is_subset(&has)).then_some(libc::EACCES)
}

fn possible(file: &str) -> Option<BTreeSet<u32>> {
    lists::parse(&std::fs::read_to_string(file).ok()?, 1 << 16).ok().map(BTreeSet::from_iter)
}

/// The number of memory nodes that the kernel is built for: the width of a mask in proc_pid_status(5).
fn most_nodes() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Mems_allowed:"))?;
    u32::try_from(mask.bytes().filter(u8::is_ascii_hexdigit).count() * 4).ok()
}
