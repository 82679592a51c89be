//! What a rehearsal does not come to: later moments, and limits that are in force only in a real container.

use std::path::Path;

use crate::cgroups::{self, Step, Version};
use crate::error::{Doing, Problem};
use crate::hooks::{self, Moment};
use crate::plan::Planned;
use crate::spec::Field;

use super::codes::Kind;
use super::{Finding, Subject};

/// Looks at what comes after create and start.
pub fn look(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = late_hooks(subject);
    if subject.spec.process.is_none() {
        found.push(Finding::of_problem(Kind::Refused, &Problem::new(Field::new("process"), super::NO_PROCESS)));
    }
    found.extend(low_limits(subject));
    found
}

/// Hooks that run when the container runs or is gone. The first end it (runtime.md, "Lifecycle"), the failure of the last is only told.
fn late_hooks(subject: &Subject<'_>) -> Vec<Finding> {
    let Some(hooks) = &subject.spec.hooks else { return Vec::new() };
    let mut found = Vec::new();
    for (moment, kind) in [(Moment::Poststart, Kind::Refused), (Moment::Poststop, Kind::Doubtful)] {
        for step in hooks::steps(moment.of(hooks), moment) {
            let field = hooks::field(moment, step.index);
            let looked = hooks::examine_all(std::slice::from_ref(&step)).doing(|| step.to_string());
            found.extend(looked.err().map(|failure| Finding::of_failure(kind, failure.origin(field))));
        }
    }
    found
}

/// What init and the program need themselves.
fn low_limits(subject: &Subject<'_>) -> Vec<Finding> {
    let plan = &subject.plan.cgroup;
    let doubtful = |planned: &Planned<Step>, text: String| {
        let failure = crate::error::Failure::because(text).doing(&planned.step).origin(&planned.origin);
        Finding::of_failure(Kind::Doubtful, failure)
    };
    let mut found = Vec::new();
    for planned in &plan.steps {
        let Step::Write(write) = &planned.step else { continue };
        let value = write.value.parse::<u64>().ok();
        let version = plan.places.get(write.place).map(|planned| planned.step.version);
        let least = version.map_or(0, cgroups::least_memory);
        match (write.file.as_str(), value) {
            ("memory.max" | "memory.limit_in_bytes", Some(limit)) if limit < least => {
                found.push(doubtful(planned, format!("a start needs {} KiB or more, and the program its own", least >> 10)));
            }
            ("pids.max", Some(0)) => {
                let what =
                    if version == Some(Version::V2) { "no process can be made in it" } else { "the program can make no other" };
                found.push(doubtful(planned, what.to_owned()));
            }
            _ => {}
        }
    }
    found
}

/// True if the kernel has been told of other formats than its own (binfmt_misc).
pub fn knows_other_formats() -> bool {
    let Ok(entries) = std::fs::read_dir(Path::new("/proc/sys/fs/binfmt_misc")) else { return false };
    entries.flatten().any(|entry| entry.file_name() != "register" && entry.file_name() != "status")
}
