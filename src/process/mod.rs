//! The process of the container: ids, capabilities, limits, environment, terminal, program.

pub mod capabilities;
pub mod examine;
pub mod numa;
pub mod plan;
pub mod program;
pub mod rlimits;
pub mod scheduler;
pub mod seal;
pub mod steps;
pub mod terminal;
pub mod user;

pub use steps::ProcessStep;
