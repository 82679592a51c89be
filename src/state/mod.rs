//! What outlives a command: the record of a container in its directory, and the statuses derived from it.

pub mod glance;
pub mod lifecycle;
pub mod record;
pub mod status;
pub mod store;

pub use glance::Glance;
pub use lifecycle::Container;
pub use record::{Phase, ProcessRef, Record};
pub use status::Status;
pub use store::{Directory, Store};
