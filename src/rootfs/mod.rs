//! The root filesystem: mounts, devices, masked and read-only paths, and becoming the root.
//!
//! Everything is resolved below one descriptor of the rootfs ([`root::Root`]), every mount is built detached and attached to an
//! `O_PATH` target. No container path is ever joined to a host path.

pub mod cgroup_mount;
pub mod copy_up;
pub mod cover;
pub mod devices;
pub mod hot;
pub mod mounts;
pub mod options;
pub mod paths;
pub mod plan;
pub mod root;
pub mod steps;
pub mod switch;
pub mod sysctl;

pub use root::{InRoot, Root};
pub use steps::RootfsStep;
