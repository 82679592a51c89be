//! Namespaces: which are made, which are joined, in which order; id maps; time offsets.

pub mod idmap;
pub mod join;
pub mod netdev;
pub mod plan;
pub mod steps;

pub use plan::Namespaces;
pub use steps::{Kind, NamespaceStep};
