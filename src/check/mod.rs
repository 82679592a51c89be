//! `rt check`: everything that stands in the way of a bundle on this host, found without making a container.
//!
//! There is one interpretation of config.json: the plan that create would carry out is made and its problems are listed; if there are none
//! it is rehearsed ([`crate::plan::rehearsal`]) by the executors that would carry it out. What they meet has the words that create would use.

pub mod codes;
mod host;

use serde::Serialize;

use crate::error::{Error, Failure, Problem, Role};
use crate::host::Host;
use crate::launch::rehearsal::{self, Outcome};
use crate::log::Log;
use crate::plan::rehearsal::{Rehearsal, rehearsal};
use crate::plan::{Findings, Plan};
use crate::spec::Spec;
use crate::state::Record;

use self::codes::Kind;

/// What start says to a container without a program (runtime.md, "Start").
pub const NO_PROCESS: &str = "process is missing in config.json; it is required to start a container";

/// What a finding means for the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be made or started.
    Fatal,
    /// It runs, but not as the config says.
    Warning,
    /// Something that is good to know.
    Note,
}

impl Severity {
    /// Every one, the worst first.
    pub const ALL: [Self; 3] = [Self::Fatal, Self::Warning, Self::Note];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable word for programs: see docs/check.md.
    pub code: String,
    /// What it means.
    pub severity: Severity,
    /// The config path that asked for it; empty if it is about the whole file.
    pub path: String,
    /// What create says.
    pub text: String,
    /// What may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// What is wrong with a config before anything is tried.
    pub fn of_problem(kind: Kind, problem: &Problem) -> Self {
        let path = problem.field.to_string();
        Self { code: codes::code(&path, kind), severity: kind.severity(), path, text: problem.text.clone(), hint: None }
    }

    /// A refusal.
    pub fn of_failure(kind: Kind, failure: Failure) -> Self {
        let path = failure.origin.clone().unwrap_or_default();
        let error = Error::from(failure);
        let code = codes::code(&path, kind);
        Self { code, severity: kind.severity(), path, hint: error.hint(), text: error.message }
    }

    /// A config.json that cannot be understood.
    pub fn of_unreadable(error: &Error) -> Self {
        Self {
            code: codes::UNREADABLE.to_owned(),
            severity: Severity::Fatal,
            path: String::new(),
            text: error.message.clone(),
            hint: error.hint(),
        }
    }
}

/// What the check is about.
#[derive(Debug)]
pub struct Subject<'a> {
    /// config.json.
    pub spec: &'a Spec,
    /// The machine.
    pub host: &'a Host,
    /// What create would do.
    pub plan: &'a Plan,
    /// What planning found.
    pub findings: &'a Findings,
}

/// Looks at everything. `record` is what create would record, for the rehearsal.
///
/// # Errors
/// If the check itself cannot be carried out.
pub fn check(subject: &Subject<'_>, record: &mut Record, log: &Log) -> Result<Vec<Finding>, Failure> {
    let list = |kind: Kind, problems: &[Problem]| problems.iter().map(|p| Finding::of_problem(kind, p)).collect::<Vec<_>>();
    let mut found = list(Kind::Invalid, &subject.findings.problems);
    if found.is_empty() {
        found.extend(rehearse(subject, record, log)?);
    }
    found.extend(list(Kind::Ignored, &subject.plan.warnings));
    found.extend(host::look(subject));
    found.extend(list(Kind::Note, &subject.findings.notes));
    found.sort_by_key(|finding| Severity::ALL.iter().position(|severity| *severity == finding.severity));
    Ok(found)
}

fn rehearse(subject: &Subject<'_>, record: &mut Record, log: &Log) -> Result<Vec<Finding>, Failure> {
    let made = match rehearsal(subject.plan, &subject.host.cgroups) {
        Ok(made) => made,
        Err(why) => return Ok(vec![Finding::of_problem(Kind::Untried, &why)]),
    };
    let survey = match crate::cgroups::survey(&subject.plan.cgroup) {
        Ok(survey) => survey,
        Err(failure) => return Ok(vec![Finding::of_failure(Kind::Refused, failure)]),
    };
    let outcome = rehearsal::rehearse(&made.plan, record, survey, log)?;
    Ok(judge(&made, outcome))
}

fn judge(made: &Rehearsal, outcome: Outcome) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let mut seen: Vec<(Failure, Kind)> = Vec::new();
    for failure in outcome.failures {
        let kind = kind(made, &failure);
        // What was refused or left out at one step is missing, or is refused again, at another one of the same origin.
        let again = |earlier: &Failure| failure.call.is_none() || failure.call == earlier.call;
        let follows =
            |(earlier, of): &(Failure, Kind)| failure.origin == earlier.origin && (*of == Kind::Untried || again(earlier));
        if !seen.iter().any(follows) {
            found.push(Finding::of_failure(kind, failure.clone()));
        }
        seen.push((failure, kind));
    }
    found.extend(made.untried.iter().map(|problem| Finding::of_problem(Kind::Untried, problem)));
    found.extend(outcome.warnings.into_iter().map(|text| Finding {
        code: codes::WARNED.to_owned(),
        severity: Severity::Warning,
        path: String::new(),
        text,
        hint: None,
    }));
    found
}

/// A refusal that the rehearsal may have brought about itself says nothing.
fn kind(made: &Rehearsal, failure: &Failure) -> Kind {
    let place = failure.place.filter(|place| place.role == Role::Init);
    let own_doing = failure.is(libc::EROFS) && place.is_some_and(|place| made.is_altered(place.step));
    let other_formats = failure.reason.as_ref().is_some_and(|text| text.ends_with(&crate::sys::errno::text(libc::ENOEXEC)));
    match () {
        () if own_doing => Kind::Untried,
        () if other_formats && host::knows_other_formats() => Kind::Untried,
        () => Kind::Refused,
    }
}
