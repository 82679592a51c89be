//! Scheduling and I/O priority (sched(7), ioprio_set(2)).

use crate::plan::Findings;
use crate::spec::{Field, IoPriority, Scheduler};
use crate::sys::process::SchedAttr;

/// Policies by number (linux/sched.h).
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// Flags by bit (linux/sched.h).
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// Reads `process.scheduler`.
pub fn plan(config: &Scheduler, field: &Field, findings: &mut Findings) -> Option<SchedAttr> {
    let Some((_, policy)) = POLICIES.iter().find(|(name, _)| *name == config.policy) else {
        let known: Vec<&str> = POLICIES.iter().map(|(name, _)| *name).collect();
        findings.problem(field.key("policy"), format!("unknown policy {:?}; expected {}", config.policy, known.join(", ")));
        return None;
    };
    let mut flags = 0;
    for (index, flag) in config.flags.iter().enumerate() {
        match FLAGS.iter().find(|(name, _)| name == flag) {
            Some((_, bit)) => flags |= bit,
            None => {
                let known: Vec<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
                findings
                    .problem(field.key("flags").index(index), format!("unknown flag {flag:?}; expected {}", known.join(", ")));
            }
        }
    }
    let priority = config.priority.unwrap_or(0);
    let Ok(priority) = u32::try_from(priority) else {
        findings.problem(field.key("priority"), format!("{priority}: expected a number from 0 on"));
        return None;
    };
    // The kernel would take the nearest one (sched_setattr(2)).
    if let Some(nice) = config.nice.filter(|nice| !(-20..=19).contains(nice)) {
        findings.problem(field.key("nice"), format!("{nice}: expected -20 to 19"));
    }
    let budget = budget(config, *policy, field, findings);
    Some(SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).unwrap_or(0),
        policy: *policy,
        flags,
        nice: config.nice.unwrap_or(0),
        priority,
        runtime: budget[0],
        deadline: budget[1],
        period: budget[2],
        ..SchedAttr::default()
    })
}

/// SCHED_DEADLINE of [`POLICIES`].
const DEADLINE: u32 = 6;

/// Runtime, deadline and period, which only SCHED_DEADLINE has: other policies pass them over, or take the first for something else
/// (a slice, since Linux 6.12). Nice values are those of the policies that share the processor (sched(7)).
fn budget(config: &Scheduler, policy: u32, field: &Field, findings: &mut Findings) -> [u64; 3] {
    let fair = matches!(policy, 0 | 3 | 5);
    if !fair && config.nice.is_some_and(|nice| nice != 0) {
        findings.warning(field.key("nice"), format!("has no effect with {}", config.policy));
    }
    let values = [("runtime", config.runtime), ("deadline", config.deadline), ("period", config.period)];
    values.map(|(name, value)| {
        if policy != DEADLINE && value.is_some_and(|value| value != 0) {
            findings.warning(field.key(name), format!("left out: {} has none, only SCHED_DEADLINE does", config.policy));
            return 0;
        }
        value.unwrap_or(0)
    })
}

/// Reads `process.ioPriority`: the value of ioprio_set(2), class in the bits from 13 on.
pub fn io_priority(config: &IoPriority, field: &Field, findings: &mut Findings) -> Option<i32> {
    let class = match config.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => {
            let known = "IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE";
            findings.problem(field.key("class"), format!("unknown class {other:?}; expected {known}"));
            return None;
        }
    };
    let level = config.priority.unwrap_or(0);
    if !(0..8).contains(&level) {
        findings.problem(field.key("priority"), format!("{level}: expected 0 to 7"));
        return None;
    }
    Some(class << 13 | level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(config: &Scheduler) -> (Option<SchedAttr>, Findings) {
        let mut findings = Findings::default();
        let attributes = plan(config, &Field::new("process.scheduler"), &mut findings);
        (attributes, findings)
    }

    #[test]
    fn flags_are_those_of_the_kernel() {
        for (bit, (name, _)) in FLAGS.iter().enumerate() {
            let config = Scheduler { policy: "SCHED_OTHER".into(), flags: vec![(*name).to_owned()], ..Scheduler::default() };
            let (attributes, findings) = planned(&config);
            assert_eq!(
                (attributes.map(|attributes| attributes.flags), findings),
                (Some(1 << bit), Findings::default()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_budget_is_for_deadlines_alone() {
        let config =
            |policy: &str| Scheduler { policy: policy.to_owned(), runtime: Some(5), period: Some(9), ..Scheduler::default() };
        let (attributes, findings) = planned(&config("SCHED_DEADLINE"));
        assert_eq!(attributes.map(|found| (found.runtime, found.period)), Some((5, 9)));
        assert_eq!(findings, Findings::default());
        let (attributes, findings) = planned(&config("SCHED_OTHER"));
        assert_eq!(attributes.map(|found| (found.runtime, found.period)), Some((0, 0)));
        assert_eq!(findings.warnings.len(), 2);
    }
}
