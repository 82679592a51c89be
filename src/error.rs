//! Errors: [`Failure`] inside and across processes, [`Problem`] in a config, [`Error`] at the edge.
//!
//! A failed system call is a [`CallError`]; the executor that made the call wraps it into a [`Failure`], which says what was
//! being done, where that was asked for, and in which process; a command turns it into an [`Error`], which decides about
//! text and exit code. One line: doing, field, call, errno. Lower case, no "failed to".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::Field;
use crate::sys::{CallError, errno};

/// Which of the three processes something happened in (docs/design.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The command-line process, on the host side.
    Launcher,
    /// The short-lived process of a bridged topology.
    Bridge,
    /// The process that becomes the payload.
    Init,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launcher => "launcher",
            Self::Bridge => "bridge",
            Self::Init => "init",
        })
    }
}

/// The step of a plan that failed, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The process that walked the list.
    pub role: Role,
    /// The number of the step.
    pub step: usize,
    /// The length of the list.
    pub of: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, step {} of {} (see `rt plan`)", self.role, self.step, self.of)
    }
}

/// Why something did not work: it crosses from init to the launcher whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done, such as `mount tmpfs on /mnt`; empty if the cause says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doing: String,
    /// Where that was asked for: a config path, a flag, a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The failed system call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallError>,
    /// The cause where it is not a system call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The process and step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure whose cause is a sentence.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }

    /// Says what was being done, unless that is known more precisely already.
    #[must_use]
    pub fn doing(mut self, doing: impl fmt::Display) -> Self {
        if self.doing.is_empty() {
            self.doing = doing.to_string();
        }
        self
    }

    /// Says where it was asked for, unless that is known more precisely already.
    #[must_use]
    pub fn origin(mut self, origin: impl fmt::Display) -> Self {
        self.origin.get_or_insert_with(|| origin.to_string());
        self
    }

    /// Adds a hint, unless there is one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Says in which step it happened.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    /// The same with texts of bounded length: a program's name may be as long as the kernel allows, a message may not.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        const LONGEST: usize = 4096;
        let cut = |text: &mut String| {
            if text.len() > LONGEST {
                let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                text.truncate(end);
                text.push_str("...");
            }
        };
        cut(&mut self.doing);
        self.origin.iter_mut().chain(&mut self.reason).chain(&mut self.hint).for_each(cut);
        self.call.iter_mut().for_each(|call| cut(&mut call.args));
        self
    }

    /// True if the cause is this error number.
    pub fn is(&self, errno: i32) -> bool {
        self.call.as_ref().is_some_and(|call| call.is(errno))
    }
}

impl From<CallError> for Failure {
    fn from(call: CallError) -> Self {
        Self { call: Some(call), ..Self::default() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match &self.origin {
            Some(origin) if !self.doing.is_empty() => parts.push(format!("{} ({origin})", self.doing)),
            Some(origin) => parts.push(origin.clone()),
            None if !self.doing.is_empty() => parts.push(self.doing.clone()),
            None => {}
        }
        parts.extend(self.reason.clone());
        parts.extend(self.call.as_ref().map(ToString::to_string));
        f.write_str(&parts.join(": "))
    }
}

/// Adds what was being done to a failed call or failure.
pub trait Doing<T> {
    /// Wraps the error into a [`Failure`] that says what was being done.
    ///
    /// # Errors
    /// The same error, with more said about it.
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Doing<T> for Result<T, E> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|error| error.into().doing(doing()))
    }
}

/// A problem of a config, found before anything was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where it is.
    pub field: Field,
    /// What is wrong: what was expected and what is there.
    pub text: String,
}

impl Problem {
    /// A problem at a field.
    pub fn new(field: Field, text: impl Into<String>) -> Self {
        Self { field, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.text)
    }
}

/// A text without its middle if it is very long: a value of the config may be as long as it likes.
fn readable(text: String) -> String {
    const LONGEST: usize = 2000;
    let Some(cut) = text.len().checked_sub(LONGEST).filter(|cut| *cut > 0) else { return text };
    let (from, to) = (text.ceil_char_boundary(LONGEST / 2), text.floor_char_boundary(LONGEST / 2 + cut));
    format!("{} ({} bytes more) {}", &text[..from], to - from, &text[to..])
}

/// The error of a command, as it is printed and logged. Its kind is a stable code for programs.
#[derive(Clone, Debug)]
pub struct Error {
    /// A stable word for programs, the `code` of the JSON log.
    pub code: &'static str,
    /// The exit status of the command.
    pub status: i32,
    /// The line that is printed.
    pub message: String,
    /// Facts for programs.
    pub failure: Option<Box<Failure>>,
    /// Errors of a cleanup that followed.
    pub also: Vec<String>,
    /// What may help, where the failure does not know.
    pub hint_text: Option<String>,
}

impl Error {
    /// An error with a code and a message; the exit status is 1.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, status: 1, message: message.into(), failure: None, also: Vec::new(), hint_text: None }
    }

    /// The problems of a configuration, each with the name of the file that it is in; without one if the name is empty.
    pub fn config(file: &str, problems: &[Problem]) -> Self {
        let prefix = if file.is_empty() { String::new() } else { format!("{file}: ") };
        let lines: Vec<String> = problems.iter().map(|problem| format!("{prefix}{}", readable(problem.to_string()))).collect();
        Self::new("invalid-config", lines.join("; "))
    }

    /// Puts what the command was doing in front: `create web: ...`.
    #[must_use]
    pub fn during(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Sets the exit status.
    #[must_use]
    pub fn status(mut self, status: i32) -> Self {
        self.status = status;
        self
    }

    /// Adds an error of the cleanup that followed.
    #[must_use]
    pub fn also(mut self, also: impl fmt::Display) -> Self {
        self.also.push(also.to_string());
        self
    }

    /// Says what may help.
    #[must_use]
    pub fn hint_text(mut self, hint: impl Into<String>) -> Self {
        self.hint_text = Some(hint.into());
        self
    }

    /// What may help.
    pub fn hint(&self) -> Option<String> {
        let of_failure = |failure: &Failure| failure.hint.clone().or_else(|| crate::hints::find(failure).map(str::to_owned));
        self.hint_text.clone().or_else(|| self.failure.as_deref().and_then(of_failure))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let code = failure.call.as_ref().map_or("failed", |call| errno::name(call.errno));
        Self { failure: Some(Box::new(failure.clone())), ..Self::new(code, failure.to_string()) }
    }
}

impl From<CallError> for Error {
    fn from(call: CallError) -> Self {
        Failure::from(call).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_an_end() {
        let problem = |text: &str| Problem::new(Field::new("a"), text);
        assert_eq!(Error::config("", &[problem("short")]).message, "a: short");
        let long = Error::config("", &[problem(&format!("{} is too long", "ä".repeat(50_000)))]).message;
        assert!(long.starts_with("a: ää") && long.contains(" bytes more) ä") && long.ends_with(" is too long"), "{long}");
        assert!(long.len() < 2100, "{}", long.len());
    }
}
