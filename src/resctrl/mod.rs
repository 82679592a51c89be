//! Intel RDT: classes of service for caches and memory bandwidth, by the kernel's resctrl filesystem (config-linux.md, "IntelRdt").

pub mod change;
pub mod group;
pub mod plan;

pub use plan::{ResctrlPlan, plan};
