//! rt
pub mod cgroups;
pub mod error;
pub mod hints;
pub mod plan;
pub mod seccomp;
pub mod spec;
pub mod sys;
