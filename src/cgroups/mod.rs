//! Control groups: version 1, version 2 and hosts that mix them, by writing to the cgroup filesystems.
//!
//! [`facts`] looks at the machine, [`mod@plan`] turns `linux.resources` and `linux.cgroupsPath` into a [`CgroupPlan`] without a
//! system call, [`survey`] finds out what of it exists already (so that the container's record can name what is about to be
//! made), [`Survey::create`] makes the directories, and a [`Cgroup`] does everything else:
//!
//! ```text
//! probe -> plan -> survey -> (record is written) -> create -> apply -> clone3 into v2_fd() -> the child: doors().enter()
//!                                  |
//!                                  +-> Cgroup::open(record): freeze, thaw, kill, stats, apply(update), remove
//! ```
//!
//! On a hybrid host a controller is used where it is: in its version 1 hierarchy if there is one, else in the unified tree.
//! The container has a directory in the unified tree in any case: it can be born there (`CLONE_INTO_CGROUP`), frozen and
//! killed there even where version 1 does the accounting.

mod apply;
mod base;
mod cgroup;
mod change;
mod controllers;
mod create;
pub mod devices;
mod dir;
mod ebpf;
mod examine;
mod exceptions;
pub mod facts;
mod freeze;
mod kill;
mod lists;
mod mark;
pub mod plan;
mod remove;
pub mod stats;
pub mod steps;
pub mod systemd;
pub mod watch;

pub use cgroup::{Cgroup, Choice, Doors};
pub use create::{Survey, survey};
pub use devices::plan_change;
pub use facts::{Facts, probe, probe_systemd};
pub use freeze::is_frozen;
pub use mark::owned;
pub use plan::{CgroupPlan, Input, plan, plan_update};
pub use remove::remove_if_empty;
pub use stats::{Stats, least_memory};
pub use steps::{CgroupRecord, Place, Recorded, Step, Tolerance, Version, Write};
