//! Resource limits (getrlimit(2)): names and applying them.

use serde::Serialize;

use crate::error::Failure;
use crate::plan::Findings;
use crate::spec::{Field, Rlimit};
use crate::sys::process::{Limit, prlimit};

/// Every limit and its number on the generic architectures (asm-generic/resource.h).
pub const TABLE: [(&str, u32); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
];

/// One limit to be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RlimitStep {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub resource: u32,
    /// Its values.
    pub limit: Limit,
}

/// Reads `process.rlimits`; a limit that is given twice is an error (config.md, "POSIX process").
pub fn plan(list: &[Rlimit], field: &Field, findings: &mut Findings) -> Vec<(RlimitStep, Field)> {
    let mut result: Vec<(RlimitStep, Field)> = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        let field = field.index(index);
        let Some((name, resource)) = TABLE.iter().find(|(name, _)| *name == entry.r#type) else {
            let known: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
            findings.problem(field.key("type"), format!("unknown limit {:?}; expected {}", entry.r#type, known.join(", ")));
            continue;
        };
        if result.iter().any(|(step, _)| step.name == *name) {
            findings.problem(field.key("type"), format!("duplicate {name}; expected each limit once"));
            continue;
        }
        if entry.soft > entry.hard {
            findings.problem(field.key("soft"), format!("{} is above the hard limit {}", entry.soft, entry.hard));
        }
        let limit = Limit { soft: entry.soft, hard: entry.hard };
        result.push((RlimitStep { name, resource: *resource, limit }, field));
    }
    result
}

/// Sets a limit of the calling process for good.
///
/// # Errors
/// The kernel's.
pub fn apply(step: &RlimitStep) -> Result<(), Failure> {
    prlimit(0, step.resource, Some(step.limit)).map(drop).map_err(|error| {
        let denied = error.is(libc::EPERM);
        let failure = Failure::from(error);
        if denied { failure.hint("raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace") } else { failure }
    })
}

/// Raises a limit to what it will be, but takes nothing away yet: so that what cannot be granted fails while somebody listens,
/// and init keeps room for its own descriptors.
///
/// # Errors
/// The kernel's.
pub fn raise(step: &RlimitStep) -> Result<(), Failure> {
    let now = prlimit(0, step.resource, None)?;
    let limit = Limit { soft: now.soft.max(step.limit.soft), hard: now.hard.max(step.limit.hard) };
    if limit == now { Ok(()) } else { apply(&RlimitStep { limit, ..step.clone() }) }
}
