//! A daemonless, rootless-first OCI runtime: a bundle becomes a running container, and then nothing of the runtime is left.
//!
//! ```text
//! config.json --load--> Spec --+
//! flags ------------> Request --+--> plan::build --> Plan --+--> print          (rt plan, --dry-run, golden tests)
//! machine --probe--> Host ------+     (pure)                +--> launch
//!                                                                 |
//!              launcher steps  --clone-->  bridge steps  --clone-->  init steps --> execve of the payload
//!                                                                 |
//!                                                               State (creating -> created -> running -> stopped)
//! ```
//!
//! Three words for three processes, everywhere: the **launcher** is the command-line process on the host side, **init** becomes the payload,
//! and a **bridge** stands between them for the milliseconds in which one clone cannot do it.
//!
//! Where to look:
//! - [`spec`]: config.json as written; [`host`]: the facts about the machine; [`plan`]: what follows from both, without a system call.
//! - The areas, each with a pure `plan.rs`, its `steps.rs`, and the files that do it: [`namespaces`], [`rootfs`], [`cgroups`], [`process`],
//!   [`seccomp`], [`lsm`], [`resctrl`], [`criu`], [`hooks`], and [`notify`].
//! - [`launch`]: the executors and their conversation; [`state`]: what outlives a command; [`commands`]: the verbs.
//! - [`sys`]: system calls, the only unsafe code; [`error`], [`hints`], [`log`]: what is said when something fails.

pub mod cgroups;
pub mod check;
pub mod child;
pub mod commands;
pub mod criu;
pub mod error;
pub mod hints;
pub mod hooks;
pub mod host;
pub mod id;
pub mod launch;
pub mod log;
pub mod lsm;
pub mod namespaces;
pub mod notify;
pub mod passwd;
pub mod plan;
pub mod process;
pub mod procfs;
pub mod resctrl;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod sys;
pub mod time;
