//! Security modules: the AppArmor profile and the SELinux label that the program gets.
//!
//! Both take effect at execve(2): init itself stays as it is, and hooks are not confined by them. What is asked for on a host where
//! the module is not active is an error: a program must not run without the confinement that its config promises.

pub mod attr;
pub mod plan;
pub mod steps;

pub use steps::LsmStep;
