//! Masked and read-only paths, each by descriptor: resolved once, covered with a detached mount.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::sys::mount::{self as call, SetAttr, attr};
use crate::sys::{At, CallResult, fs};

use super::root::{InRoot, Root};

/// What covers masked paths: each made once.
#[derive(Debug, Default)]
pub struct Masks {
    null: Option<Cover>,
    empty: Option<Cover>,
}

/// A mount that covers many paths.
#[derive(Debug)]
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn new(mount: OwnedFd) -> Self {
        Self { mount, attached: false }
    }

    /// The first place gets the mount itself, every other one a clone of it: before Linux 6.15 a mount can be cloned only where
    /// it is attached (open_tree(2) gives `EINVAL`).
    fn attach(&mut self, target: &OwnedFd) -> CallResult<()> {
        if self.attached {
            let clone = call::open_tree_clone(At::from(&self.mount), Path::new(""), false, false)?;
            return call::move_mount(&clone, target);
        }
        call::move_mount(&self.mount, target)?;
        self.attached = true;
        Ok(())
    }
}

impl Masks {
    /// Opens /dev/null while the host's tree is still in reach.
    ///
    /// # Errors
    /// See [`super::devices::null`].
    pub fn prepare(&mut self) -> Result<(), Failure> {
        if self.null.is_none() {
            self.null = Some(Cover::new(call::open_tree_clone(At::from(&super::devices::null()?), Path::new(""), false, false)?));
        }
        Ok(())
    }

    /// Covers a path: a directory with an empty read-only one, anything else with /dev/null. A missing path is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mask(&mut self, path: &InRoot, root: &Root) -> Result<(), Failure> {
        let Some(target) = existing(root.resolve(path))? else { return Ok(()) };
        let cover = if fs::fstat(&target)?.is_dir() { self.empty_directory()? } else { self.null_device()? };
        Ok(cover.attach(&target)?)
    }

    fn null_device(&mut self) -> Result<&mut Cover, Failure> {
        self.null.as_mut().ok_or_else(|| Failure::because("/dev/null was not opened"))
    }

    /// One superblock with one inode serves every masked directory.
    fn empty_directory(&mut self) -> Result<&mut Cover, Failure> {
        if self.empty.is_none() {
            let make = || -> CallResult<OwnedFd> {
                let context = call::fsopen("tmpfs")?;
                for (key, value) in [("nr_inodes", "1"), ("size", "4k"), ("mode", "755")] {
                    call::fsconfig_string(&context, key, value)?;
                }
                call::fsconfig_create(&context)?;
                call::fsmount(&context, attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
            };
            self.empty = Some(Cover::new(make().doing(|| "make an empty read-only directory")?));
        }
        self.empty.as_mut().ok_or_else(|| Failure::because("no empty directory"))
    }
}

/// Makes a path read-only, with all mounts below it. A missing path is fine.
///
/// # Errors
/// The kernel's.
pub fn make_readonly(path: &InRoot, root: &Root) -> Result<(), Failure> {
    let Some(target) = existing(root.resolve(path))? else { return Ok(()) };
    let detached = call::open_tree_clone(At::from(&target), Path::new(""), true, false)?;
    call::mount_setattr(&detached, &SetAttr { set: attr::RDONLY, ..SetAttr::default() }, true)?;
    Ok(call::move_mount(&detached, &target)?)
}

/// Nested entries, such as a child of a path that is masked already, are no error: there is nothing left to hide.
fn existing(resolved: CallResult<OwnedFd>) -> CallResult<Option<OwnedFd>> {
    match resolved {
        Err(error) if error.is(libc::ENOENT) || error.is(libc::ENOTDIR) => Ok(None),
        other => other.map(Some),
    }
}
