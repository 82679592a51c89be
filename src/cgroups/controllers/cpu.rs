//! `linux.resources.cpu`: the controllers cpu and cpuset.

use super::super::plan::{Builder, Site};
use super::super::steps::Tolerance;
use crate::spec::{Cpu, Field};

/// Plans CPU time, CPUs and memory nodes.
pub(super) fn plan(out: &mut Builder<'_>, cpu: &Cpu, at: &Field) {
    check(out, cpu, at);
    time(out, cpu, at);
    set(out, cpu, at);
}

/// The shortest and the longest period, and the shortest quota, in microseconds (`tg_set_cfs_bandwidth()` of kernel/sched).
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// The longest quota, alone and with what it may burst by, in microseconds.
const MOST_TIME: u64 = (1 << 44) - 1;

/// What is left of 64 bits of nanoseconds, in microseconds.
const MOST_BURST: u64 = u64::MAX / 1000;

/// What every kernel refuses.
fn check(out: &mut Builder<'_>, cpu: &Cpu, at: &Field) {
    let quota = cpu.quota.and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0);
    let mut expected = |name: &str, what: String, found: &dyn std::fmt::Display| {
        out.findings.problem(at.key(name), format!("expected {what}, found {found}"));
    };
    if let Some(period) = cpu.period.filter(|period| *period != 0 && !PERIODS.contains(period)) {
        expected("period", format!("{} to {} microseconds", PERIODS.start(), PERIODS.end()), &period);
    }
    if let Some(quota) = quota.filter(|quota| !(*PERIODS.start()..=MOST_TIME).contains(quota)) {
        expected("quota", format!("{} to {MOST_TIME} microseconds, or -1", PERIODS.start()), &quota);
    }
    match (cpu.burst, quota) {
        (Some(burst), Some(quota)) if burst > quota => expected("burst", format!("at most the quota of {quota}"), &burst),
        (Some(burst), Some(quota)) if burst > MOST_TIME - quota.min(MOST_TIME) => {
            expected("burst", format!("at most {MOST_TIME} microseconds with the quota"), &burst);
        }
        (Some(burst), None) if burst > MOST_BURST => expected("burst", format!("at most {MOST_BURST} microseconds"), &burst),
        _ => {}
    }
    if let (Some(period), Some(runtime)) = (cpu.realtime_period.filter(|period| *period != 0), cpu.realtime_runtime)
        && u64::try_from(runtime).is_ok_and(|runtime| runtime > period)
    {
        expected("realtimeRuntime", format!("at most the realtimePeriod of {period}"), &runtime);
    }
    if let Some(idle) = cpu.idle.filter(|idle| !matches!(idle, 0 | 1)) {
        expected("idle", "0 or 1".to_owned(), &idle);
    }
}

fn time(out: &mut Builder<'_>, cpu: &Cpu, at: &Field) {
    let wide = [cpu.shares, cpu.period, cpu.burst, cpu.realtime_period];
    let signed = [cpu.quota, cpu.realtime_runtime, cpu.idle];
    let unset = wide.iter().flatten().all(|value| *value == 0) && signed.iter().flatten().all(|value| *value == 0);
    if unset && (out.find("cpu", "cpu").is_none() || (cpu.burst.is_none() && cpu.idle.is_none())) {
        return;
    }
    match out.locate("cpu", "cpu", at) {
        Some(site @ Site::V1(_)) => v1(out, site, cpu, at),
        Some(site @ Site::V2(_)) => v2(out, site, cpu, at),
        None => {}
    }
}

/// What is left of the shares: an idle cgroup has the kernel's least weight, and setting another one is refused.
fn shares(out: &mut Builder<'_>, cpu: &Cpu, at: &Field) -> Option<u64> {
    let shares = cpu.shares.filter(|shares| *shares != 0)?;
    if cpu.idle == Some(1) {
        out.findings.warning(at.key("shares"), "not applied: an idle cgroup (cpu.idle) has the least weight");
        return None;
    }
    Some(shares)
}

fn idle(out: &mut Builder<'_>, site: Site, cpu: &Cpu, at: &Field) {
    if let Some(idle) = cpu.idle {
        let write = out.set(site, "cpu", "cpu.idle", idle, &at.key("idle"));
        // Linux 5.15; before, nothing is idle.
        write.tolerance = if idle == 0 { Tolerance::IfPresent } else { write.tolerance };
    }
}

fn burst(out: &mut Builder<'_>, site: Site, file: &str, cpu: &Cpu, at: &Field) {
    if let Some(burst) = cpu.burst {
        let write = out.set(site, "cpu", file, burst, &at.key("burst"));
        // Linux 5.14; before, nothing bursts.
        write.tolerance = if burst == 0 { Tolerance::IfPresent } else { write.tolerance };
    }
}

fn v1(out: &mut Builder<'_>, site: Site, cpu: &Cpu, at: &Field) {
    // Realtime first: a realtime process cannot join a cgroup without a budget. The period may have to follow the runtime.
    if let Some(period) = cpu.realtime_period.filter(|value| *value != 0) {
        out.set(site, "cpu", "cpu.rt_period_us", period, &at.key("realtimePeriod")).again = true;
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|value| *value != 0) {
        out.set(site, "cpu", "cpu.rt_runtime_us", runtime, &at.key("realtimeRuntime")).again = true;
    }
    idle(out, site, cpu, at);
    if let Some(shares) = shares(out, cpu, at) {
        out.set(site, "cpu", "cpu.shares", shares, &at.key("shares"));
    }
    // The kernel bounds quota/period by the parent's and burst by the quota at any time.
    if let Some(period) = cpu.period.filter(|value| *value != 0) {
        out.set(site, "cpu", "cpu.cfs_period_us", period, &at.key("period")).again = true;
    }
    if let Some(quota) = cpu.quota.filter(|value| *value != 0) {
        out.set(site, "cpu", "cpu.cfs_quota_us", quota, &at.key("quota")).again = true;
    }
    burst(out, site, "cpu.cfs_burst_us", cpu, at);
}

fn v2(out: &mut Builder<'_>, site: Site, cpu: &Cpu, at: &Field) {
    if cpu.realtime_period.is_some_and(|value| value != 0) {
        out.no_counterpart(at.key("realtimePeriod"));
    }
    if cpu.realtime_runtime.is_some_and(|value| value != 0) {
        out.no_counterpart(at.key("realtimeRuntime"));
    }
    idle(out, site, cpu, at);
    if let Some(shares) = shares(out, cpu, at) {
        out.set(site, "cpu", "cpu.weight", weight(shares), &at.key("shares"));
    }
    if let Some(max) = max(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0)) {
        let field = if cpu.quota.is_some_and(|quota| quota != 0) { "quota" } else { "period" };
        out.set(site, "cpu", "cpu.max", max, &at.key(field)).again = true;
    }
    burst(out, site, "cpu.max.burst", cpu, at);
}

fn set(out: &mut Builder<'_>, cpu: &Cpu, at: &Field) {
    for (name, value) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
        let field = at.key(name);
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
        if let Some(site) = out.locate("cpuset", "cpuset", &field) {
            out.set(site, "cpuset", &format!("cpuset.{name}"), value, &field);
        }
    }
}

/// The content of `cpu.max`: quota and period in microseconds, 0 for unset.
///
/// A quota alone leaves the period as it is; the kernel has no way to set the period alone.
pub(super) fn max(quota: i64, period: u64) -> Option<String> {
    let quota_text = if quota > 0 { quota.to_string() } else { "max".to_owned() };
    match (quota, period) {
        (0, 0) => None,
        (_, 0) => Some(quota_text),
        _ => Some(format!("{quota_text} {period}")),
    }
}

/// `cpu.weight` (1 to 10000) for CPU shares (2 to 262144).
///
/// The curve goes through the least, the default and the greatest value of both: 2 -> 1, 1024 -> 100, 262144 -> 10000. It is
/// the one that runc and crun have used since 2025 in place of a straight line, which made the default of 1024 a weight of 39.
pub(super) fn weight(shares: u64) -> u64 {
    let bits = f64::from(u32::try_from(shares.clamp(2, 262_144)).unwrap_or(2)).log2();
    let exact = 10f64.powf((bits * bits + 125.0 * bits) / 612.0 - 7.0 / 34.0);
    // The exact whole numbers of the three fixed points must not be rounded up for an error in the last bit.
    let near = exact.round();
    let rounded = if (exact - near).abs() < 1e-6 { near } else { exact.ceil() };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000 by construction")]
    let weight = rounded as u64;
    weight.clamp(1, 10_000)
}
