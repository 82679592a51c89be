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
    Some(SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).unwrap_or(0),
        policy: *policy,
        flags,
        nice: config.nice.unwrap_or(0),
        priority,
        runtime: config.runtime.unwrap_or(0),
        deadline: config.deadline.unwrap_or(0),
        period: config.period.unwrap_or(0),
        ..SchedAttr::default()
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
