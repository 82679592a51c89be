//! [`Planned`] steps and their [`Origin`].

use std::fmt;

use serde::Serialize;

use crate::spec::Field;

/// Where a step comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A path in config.json.
    Config(Field),
    /// A flag of the command line.
    Flag(&'static str),
    /// A default of the specification or of this runtime, with its name.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(field) => write!(f, "{field}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Default(name) => write!(f, "default: {name}"),
        }
    }
}

impl From<Field> for Origin {
    fn from(field: Field) -> Self {
        Self::Config(field)
    }
}

/// A step and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned<S> {
    /// What to do.
    pub step: S,
    /// Who asked for it.
    pub origin: Origin,
}

impl<S> Planned<S> {
    /// A step with its origin.
    pub fn new(step: S, origin: impl Into<Origin>) -> Self {
        Self { step, origin: origin.into() }
    }
}

/// What planning an area found: problems are errors, warnings are shown and the container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the config cannot be carried out.
    pub problems: Vec<crate::error::Problem>,
    /// What will not be as the config says, though the container runs.
    pub warnings: Vec<crate::error::Problem>,
}

impl Findings {
    /// Notes a problem.
    pub fn problem(&mut self, field: Field, text: impl Into<String>) {
        self.problems.push(crate::error::Problem::new(field, text));
    }

    /// Notes a warning.
    pub fn warning(&mut self, field: Field, text: impl Into<String>) {
        self.warnings.push(crate::error::Problem::new(field, text));
    }
}
