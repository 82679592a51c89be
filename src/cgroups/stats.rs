//! Usage figures, in the shape of runc's `events --stats`: engines read it.

use std::collections::BTreeMap;

use super::cgroup::Cgroup;
use super::dir::Dir;
use super::steps::Version;
use crate::error::{Doing, Failure};
use crate::sys::CallResult;

mod figures;

pub use figures::*;

/// What a start has been seen to need in bytes, with a program that does nothing. Version 2 counts more of what the kernel needs for it.
pub const fn least_memory(version: Version) -> u64 {
    match version {
        Version::V1 => 84 << 10,
        Version::V2 => 256 << 10,
    }
}

impl Cgroup {
    /// Usage figures of the container. What the kernel does not offer is left at zero.
    ///
    /// # Errors
    /// The kernel's, if a file exists and cannot be read.
    pub fn stats(&self) -> Result<Stats, Failure> {
        self.collect_stats().doing(|| "read the container's usage")
    }

    /// How often the kernel has killed a process in the container for lack of memory; nothing without a memory controller.
    ///
    /// # Errors
    /// The kernel's.
    pub fn oom_kills(&self) -> Result<Option<u64>, Failure> {
        let (dir, file) = match (self.v1("memory"), self.v2()) {
            (Some(dir), _) => (dir, "memory.oom_control"),
            (None, Some(dir)) => (dir, "memory.events"),
            (None, None) => return Ok(None),
        };
        let content = dir.read_if_present(file).doing(|| "read the memory events")?;
        Ok(content.map(|content| pairs(&content).get("oom_kill").copied().unwrap_or(0)))
    }

    /// See [`least_memory`].
    pub fn least_memory(&self) -> u64 {
        least_memory(if self.v1("memory").is_some() { Version::V1 } else { Version::V2 })
    }

    fn collect_stats(&self) -> CallResult<Stats> {
        let mut stats = Stats::default();
        let unified = self.v2();
        match self.v1("cpu") {
            Some(dir) => stats.cpu.throttling = throttling(&table(dir, "cpu.stat")?, "throttled_time", 1),
            None => unified.map_or(Ok(()), |dir| cpu_v2(dir, &mut stats.cpu))?,
        }
        if let Some(dir) = self.v1("cpuacct") {
            stats.cpu.usage = cpuacct(dir)?;
        }
        if let Some(dir) = self.v1("cpuset").or(unified) {
            stats.cpuset = cpuset(dir)?;
        }
        match (self.v1("memory"), unified) {
            (Some(dir), _) => stats.memory = memory_v1(dir)?,
            (None, Some(dir)) => stats.memory = memory_v2(dir)?,
            (None, None) => {}
        }
        if let Some(dir) = self.v1("pids").or(unified) {
            stats.pids = Pids { current: number(dir, "pids.current")?, limit: limit(dir, "pids.max", 0)? };
        }
        match (self.v1("blkio"), unified) {
            (Some(dir), _) => stats.blkio = blkio_v1(dir)?,
            (None, Some(dir)) => stats.blkio = io_v2(dir)?,
            (None, None) => {}
        }
        if let Some(dir) = self.v1("hugetlb").or(unified) {
            stats.hugetlb = hugetlb(dir)?;
        }
        Ok(stats)
    }
}

/// A number, 0 if the file does not exist.
fn number(dir: &Dir, file: &str) -> CallResult<u64> {
    limit(dir, file, 0)
}

/// A number with a value for `max`, 0 if the file does not exist.
fn limit(dir: &Dir, file: &str, max: u64) -> CallResult<u64> {
    let content = dir.read_if_present(file)?.unwrap_or_default();
    Ok(if content.trim() == "max" { max } else { content.trim().parse().unwrap_or(0) })
}

/// Lines of a name and a number.
pub(super) fn pairs(content: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    content.lines().filter_map(pair).collect()
}

fn table(dir: &Dir, file: &str) -> CallResult<BTreeMap<String, u64>> {
    // Some files exist without their controller but do not like to be read.
    match dir.read_if_present(file) {
        Err(error) if error.is(libc::EOPNOTSUPP) => Ok(BTreeMap::new()),
        other => Ok(pairs(&other?.unwrap_or_default())),
    }
}

fn get(table: &BTreeMap<String, u64>, name: &str) -> u64 {
    table.get(name).copied().unwrap_or(0)
}

fn throttling(table: &BTreeMap<String, u64>, time: &str, unit: u64) -> Throttling {
    Throttling {
        periods: get(table, "nr_periods"),
        throttled_periods: get(table, "nr_throttled"),
        throttled_time: get(table, time) * unit,
    }
}

fn cpu_v2(dir: &Dir, cpu: &mut Cpu) -> CallResult<()> {
    let stat = table(dir, "cpu.stat")?;
    let micros = |name| get(&stat, name) * 1000;
    cpu.usage =
        CpuUsage { total: micros("usage_usec"), kernel: micros("system_usec"), user: micros("user_usec"), ..CpuUsage::default() };
    cpu.throttling = throttling(&stat, "throttled_usec", 1000);
    cpu.psi = psi(dir, "cpu.pressure")?;
    Ok(())
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn cpuacct(dir: &Dir) -> CallResult<CpuUsage> {
    let list = |file| dir.read_if_present(file).map(|content| numbers(&content.unwrap_or_default()));
    let mut usage = CpuUsage {
        total: number(dir, "cpuacct.usage")?,
        percpu: list("cpuacct.usage_percpu")?,
        percpu_kernel: list("cpuacct.usage_percpu_sys")?,
        percpu_user: list("cpuacct.usage_percpu_user")?,
        kernel: number(dir, "cpuacct.usage_sys")?,
        user: number(dir, "cpuacct.usage_user")?,
    };
    // usage_sys and usage_user count ticks on some configurations and are then zero beside cpuacct.stat.
    if usage.kernel == 0 && usage.user == 0 {
        let stat = table(dir, "cpuacct.stat")?;
        // USER_HZ is 100 on every architecture that we know: 10 ms.
        (usage.user, usage.kernel) = (get(&stat, "user") * 10_000_000, get(&stat, "system") * 10_000_000);
    }
    Ok(usage)
}

/// A list such as `0-2,7`.
fn range_list(text: &str) -> Vec<u16> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    };
    text.split(',').filter_map(part).flatten().collect()
}

fn cpuset(dir: &Dir) -> CallResult<Cpuset> {
    let list = |file| dir.read_if_present(file).map(|content| range_list(&content.unwrap_or_default()));
    let flag = |name: &str| number(dir, &format!("cpuset.{name}"));
    let level = dir.read_if_present("cpuset.sched_relax_domain_level")?.unwrap_or_default();
    Ok(Cpuset {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("mem_hardwall")?,
        mem_exclusive: flag("mem_exclusive")?,
        memory_migrate: flag("memory_migrate")?,
        memory_spread_page: flag("memory_spread_page")?,
        memory_spread_slab: flag("memory_spread_slab")?,
        memory_pressure: flag("memory_pressure")?,
        sched_load_balance: flag("sched_load_balance")?,
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    })
}

fn memory_v1(dir: &Dir) -> CallResult<Memory> {
    let entry = |name: &str| -> CallResult<MemoryEntry> {
        Ok(MemoryEntry {
            limit: number(dir, &format!("{name}.limit_in_bytes"))?,
            usage: number(dir, &format!("{name}.usage_in_bytes"))?,
            max: number(dir, &format!("{name}.max_usage_in_bytes"))?,
            failcnt: number(dir, &format!("{name}.failcnt"))?,
        })
    };
    let raw = table(dir, "memory.stat")?;
    Ok(Memory {
        cache: get(&raw, "cache"),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

/// `swap` is memory plus swap, as on version 1.
fn memory_v2(dir: &Dir) -> CallResult<Memory> {
    let entry = |name: &str| -> CallResult<MemoryEntry> {
        let events = table(dir, &format!("{name}.events"))?;
        Ok(MemoryEntry {
            limit: limit(dir, &format!("{name}.max"), u64::MAX)?,
            usage: number(dir, &format!("{name}.current"))?,
            max: number(dir, &format!("{name}.peak"))?,
            failcnt: get(&events, "max"),
        })
    };
    let raw = table(dir, "memory.stat")?;
    let (usage, swap) = (entry("memory")?, entry("memory.swap")?);
    let swap = MemoryEntry {
        limit: swap.limit.saturating_add(usage.limit),
        usage: swap.usage.saturating_add(usage.usage),
        max: swap.max.saturating_add(usage.max),
        ..swap
    };
    Ok(Memory { cache: get(&raw, "file"), usage, swap, raw, psi: psi(dir, "memory.pressure")?, ..Memory::default() })
}

/// Lines such as `8:0 Read 4096`; the `Total` line without a device is left out.
fn blkio_table(dir: &Dir, files: [&str; 2]) -> CallResult<Vec<BlkioEntry>> {
    for file in files {
        let content = dir.read_if_present(file)?.unwrap_or_default();
        let entries: Vec<BlkioEntry> = content.lines().filter_map(blkio_line).collect();
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn blkio_line(line: &str) -> Option<BlkioEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = device(words.next()?)?;
    let (op, value) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    Some(BlkioEntry { major, minor, op, value })
}

fn blkio_v1(dir: &Dir) -> CallResult<Blkio> {
    let both = |name: &str| (format!("blkio.bfq.{name}_recursive"), format!("blkio.throttle.{name}_recursive"));
    let (bytes, bytes_throttle) = both("io_service_bytes");
    let (count, count_throttle) = both("io_serviced");
    Ok(Blkio {
        io_service_bytes_recursive: blkio_table(dir, [&bytes, &bytes_throttle])?,
        io_serviced_recursive: blkio_table(dir, [&count, &count_throttle])?,
        psi: None,
    })
}

/// Lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn io_v2(dir: &Dir) -> CallResult<Blkio> {
    let mut blkio = Blkio { psi: psi(dir, "io.pressure")?, ..Blkio::default() };
    for line in dir.read_if_present("io.stat")?.unwrap_or_default().lines() {
        io_line(line, &mut blkio);
    }
    Ok(blkio)
}

fn io_line(line: &str, blkio: &mut Blkio) {
    let mut words = line.split_whitespace();
    let Some((major, minor)) = words.next().and_then(device) else { return };
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let (list, op) = match name {
            "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
            "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
            "rios" => (&mut blkio.io_serviced_recursive, "Read"),
            "wios" => (&mut blkio.io_serviced_recursive, "Write"),
            _ => continue,
        };
        list.push(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().unwrap_or(0) });
    }
}

/// The pages sizes that the machine has are those of the files.
fn hugetlb(dir: &Dir) -> CallResult<BTreeMap<String, Hugetlb>> {
    let mut sizes = BTreeMap::new();
    for name in crate::sys::fs::list_dir(std::os::fd::AsFd::as_fd(dir))? {
        let name = name.to_string_lossy();
        let Some(size) = name.strip_prefix("hugetlb.") else { continue };
        if let Some(size) = size.strip_suffix(".usage_in_bytes").filter(|size| !size.contains('.')) {
            let file = |what: &str| format!("hugetlb.{size}.{what}");
            let max = number(dir, &file("max_usage_in_bytes"))?;
            let usage = Hugetlb { usage: number(dir, &name)?, max, failcnt: number(dir, &file("failcnt"))? };
            sizes.insert(size.to_owned(), usage);
        } else if let Some(size) = size.strip_suffix(".current").filter(|size| !size.contains('.')) {
            let events = table(dir, &format!("hugetlb.{size}.events"))?;
            sizes.insert(size.to_owned(), Hugetlb { usage: number(dir, &name)?, max: 0, failcnt: get(&events, "max") });
        }
    }
    Ok(sizes)
}

/// Nothing where the kernel has no pressure information or it is switched off.
fn psi(dir: &Dir, file: &str) -> CallResult<Option<Psi>> {
    match dir.read_if_present(file) {
        Err(error) if error.is(libc::EOPNOTSUPP) => Ok(None),
        other => Ok(other?.map(|content| parse_psi(&content))),
    }
}

fn parse_psi(content: &str) -> Psi {
    let mut psi = Psi::default();
    for line in content.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let values: BTreeMap<&str, &str> = rest.split(' ').filter_map(|word| word.split_once('=')).collect();
        let float = |name| values.get(name).and_then(|value| value.parse().ok()).unwrap_or(0.0);
        let total = values.get("total").and_then(|value| value.parse().ok()).unwrap_or(0);
        let parsed = PsiLine { avg10: float("avg10"), avg60: float("avg60"), avg300: float("avg300"), total };
        match kind {
            "some" => psi.some = parsed,
            "full" => psi.full = parsed,
            _ => {}
        }
    }
    psi
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(range_list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(range_list("\n"), [0u16; 0]);
    }

    #[test]
    fn pressure() {
        let psi = parse_psi("some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
        assert_eq!(psi.some, PsiLine { avg10: 1.5, avg60: 0.0, avg300: 0.25, total: 77 });
        assert_eq!(psi.full.total, 5);
    }

    #[test]
    fn block_devices() {
        let mut blkio = Blkio::default();
        io_line("8:16 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0", &mut blkio);
        let json = serde_json::to_string(&blkio).unwrap();
        let expected = r#"{"ioServiceBytesRecursive":[{"major":8,"minor":16,"op":"Read","value":4096},{"major":8,"minor":16,"op":"Write","value":1}],"ioServicedRecursive":[{"major":8,"minor":16,"op":"Read","value":2},{"major":8,"minor":16,"op":"Write","value":3}]}"#;
        assert_eq!(json, expected);
        assert_eq!(blkio_line("Total 4096"), None);
    }

    #[test]
    fn the_empty_shape() {
        let json = serde_json::to_string(&Stats::default()).unwrap();
        assert!(
            json.starts_with(r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"cpuset":{"cpu_exclusive":0,"#),
            "{json}"
        );
        assert!(json.ends_with(r#""pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#), "{json}");
    }
}
