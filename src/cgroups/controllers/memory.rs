//! `linux.resources.memory`. A limit of 0 means that it is not set, as in the other runtimes.

use super::super::plan::{Builder, Site};
use super::super::steps::{Step, Tolerance};
use super::or_max;
use crate::spec::{Field, Memory};

/// The smallest page of any machine.
const PAGE: i64 = 4096;

/// Plans the memory limits.
pub(super) fn plan(out: &mut Builder<'_>, memory: &Memory, at: &Field) {
    check(out, memory, at);
    let limits = [memory.limit, memory.reservation, memory.swap, memory.kernel, memory.kernel_tcp];
    let others = memory.swappiness.is_some() || memory.disable_oom_killer == Some(true);
    if limits.iter().flatten().all(|limit| *limit == 0) && !others && out.find("memory", "memory").is_none() {
        return;
    }
    match out.locate("memory", "memory", at) {
        Some(Site::V1(place)) => v1(out, Site::V1(place), memory, at),
        Some(Site::V2(place)) => v2(out, place, memory, at),
        None => {}
    }
}

fn check(out: &mut Builder<'_>, memory: &Memory, at: &Field) {
    let limits = [
        ("limit", memory.limit),
        ("reservation", memory.reservation),
        ("swap", memory.swap),
        ("kernel", memory.kernel),
        ("kernelTCP", memory.kernel_tcp),
    ];
    for (name, value) in limits {
        if let Some(value) = value.filter(|value| *value < -1) {
            out.findings.problem(at.key(name), format!("expected a number of bytes or -1, found {value}"));
        }
    }
    if let Some(value) = memory.swappiness.filter(|value| *value > 100) {
        out.findings.problem(at.key("swappiness"), format!("expected 0 to 100, found {value}"));
    }
}

fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

fn v1(out: &mut Builder<'_>, site: Site, memory: &Memory, at: &Field) {
    // In pages: that is how the kernel compares them.
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory.limit, memory.swap)
        && swap / PAGE < limit / PAGE
    {
        out.findings.problem(at.key("swap"), format!("expected memory plus swap, at least the limit of {limit}, found {swap}"));
    }
    // The kernel keeps limit <= memory+swap limit at any time, so which comes first depends on the values in force.
    if let Some(limit) = given(memory.limit) {
        out.set(site, "memory", "memory.limit_in_bytes", limit, &at.key("limit")).again = true;
    }
    if let Some(swap) = given(memory.swap) {
        let write = out.set(site, "memory", "memory.memsw.limit_in_bytes", swap, &at.key("swap"));
        (write.again, write.tolerance) = (true, Tolerance::WarnIfUnsupported);
    } else if memory.limit == Some(-1) {
        // Unlimited memory with a limit on memory+swap makes no sense: the other runtimes lift both.
        out.set(site, "memory", "memory.memsw.limit_in_bytes", -1, &at.key("limit")).tolerance = Tolerance::IfPresent;
    }
    if let Some(reservation) = given(memory.reservation) {
        out.set(site, "memory", "memory.soft_limit_in_bytes", reservation, &at.key("reservation"));
    }
    if let Some(kernel) = given(memory.kernel) {
        let field = at.key("kernel");
        if kernel > 0 {
            out.findings.warning(field.clone(), "kernel memory cannot be limited on its own since Linux 5.16");
        }
        out.set(site, "memory", "memory.kmem.limit_in_bytes", kernel, &field).tolerance = Tolerance::Warn;
    }
    if let Some(tcp) = given(memory.kernel_tcp) {
        let write = out.set(site, "memory", "memory.kmem.tcp.limit_in_bytes", tcp, &at.key("kernelTCP"));
        write.tolerance = Tolerance::WarnIfUnsupported;
    }
    if let Some(swappiness) = memory.swappiness {
        out.set(site, "memory", "memory.swappiness", swappiness, &at.key("swappiness"));
    }
    if let Some(disable) = memory.disable_oom_killer {
        let write = out.set(site, "memory", "memory.oom_control", u8::from(disable), &at.key("disableOOMKiller"));
        // A new directory inherits the setting, so the default is written too; without the file it is in force anyway.
        write.tolerance = if disable { write.tolerance } else { Tolerance::IfPresent };
    }
    if let Some(hierarchy) = memory.use_hierarchy {
        // Since Linux 5.11 every memory cgroup is hierarchical, and the kernel refuses a 0.
        let write = out.set(site, "memory", "memory.use_hierarchy", u8::from(hierarchy), &at.key("useHierarchy"));
        write.tolerance = Tolerance::Warn;
    }
}

fn v2(out: &mut Builder<'_>, place: usize, memory: &Memory, at: &Field) {
    let site = Site::V2(place);
    if memory.swappiness.is_some() {
        out.no_counterpart(at.key("swappiness"));
    }
    if memory.disable_oom_killer == Some(true) {
        out.no_counterpart(at.key("disableOOMKiller"));
    }
    for (name, value) in [("kernel", memory.kernel), ("kernelTCP", memory.kernel_tcp)] {
        if value.is_some_and(|value| value > 0) {
            out.findings.warning(at.key(name), "not applied: cgroup v2 counts this memory as part of memory.limit");
        }
    }
    if memory.use_hierarchy == Some(false) {
        out.findings.warning(at.key("useHierarchy"), "not applied: cgroup v2 is always hierarchical");
    }
    match swap(memory.limit.unwrap_or(0), memory.swap.unwrap_or(0)) {
        Ok(Some(swap)) => {
            // Without swap accounting there is no file, and a machine without swap needs no limit on it.
            let write = out.set(site, "memory", "memory.swap.max", or_max(swap), &at.key("swap"));
            write.tolerance = if swap < 0 { Tolerance::IfPresent } else { Tolerance::WarnIfUnsupported };
        }
        Ok(None) => {}
        Err(text) => out.findings.problem(at.key("swap"), text),
    }
    if let Some(limit) = given(memory.limit) {
        if let (Some(true), Ok(limit)) = (memory.check_before_update, u64::try_from(limit)) {
            out.push(Step::CheckMemory { place, limit }, at.key("checkBeforeUpdate"));
        }
        out.set(site, "memory", "memory.max", or_max(limit), &at.key("limit"));
    }
    if let Some(reservation) = given(memory.reservation) {
        out.set(site, "memory", "memory.low", or_max(reservation), &at.key("reservation"));
    }
}

/// The limit on swap alone, from those on memory and on memory plus swap; -1 is unlimited, nothing is unset.
pub(super) fn swap(limit: i64, memory_and_swap: i64) -> Result<Option<i64>, String> {
    match (limit, memory_and_swap) {
        (-1, 0) | (_, -1) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (0, _) => Err("expected a memory limit beside the limit on memory plus swap, found none".to_owned()),
        (-1, both) => Err(format!("expected -1, since memory.limit is unlimited, found {both}")),
        (limit, both) if both < limit => Err(format!("expected memory plus swap, at least the limit of {limit}, found {both}")),
        (limit, both) => Ok(Some(both - limit)),
    }
}
