//! Carrying out a plan: three executors, one file per process, that walk their lists.
//!
//! ```text
//! launcher --clone3--> init                      (Topology::Direct)
//! launcher --clone3--> bridge --clone3--> init   (Topology::Bridged: a user namespace is joined, or others from within one,
//!                                                 or a running container)
//! ```
//!
//! In both cases init is a child of the launcher, and the two talk over one socket pair: see [`protocol`].

pub mod beginning;
pub mod bridge;
pub mod groups;
pub mod hot;
pub mod init;
pub mod launcher;
pub mod link;
pub mod pid_file;
pub mod protocol;
pub mod rehearsal;
pub mod restore;
pub mod script;
pub mod supervise;
pub mod terminal;
pub mod uts;
pub mod wait;
