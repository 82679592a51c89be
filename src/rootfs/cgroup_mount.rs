//! A mount of type `cgroup`: the hierarchies as the container shall see them.
//!
//! The container's own group is its root: it never sees the groups of others. In a cgroup namespace that is what a new mount shows (and on
//! version 1, cheaper, a bind of the group made just before); without one, the group is bound.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Doing, Failure};
use crate::sys::mount::{self as call, SetAttr, attr};
use crate::sys::{At, fs};

use super::options::Change;

/// What is mounted for one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HierarchyMount {
    /// The directory below the destination; empty for the destination itself (version 2 alone).
    pub name: String,
    /// The controllers of a version 1 hierarchy; empty for version 2.
    pub controllers: Vec<String>,
    /// The directory of the host to bind; nothing for a new mount.
    pub bind_from: Option<PathBuf>,
}

/// A mount of type `cgroup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupMount {
    /// The hierarchies. On version 2 one with an empty name; else a tmpfs holds a directory for each.
    pub hierarchies: Vec<HierarchyMount>,
    /// Links in that tmpfs from single controllers to the hierarchy that has several: name and target.
    pub links: Vec<(String, String)>,
}

impl HierarchyMount {
    fn detached(&self) -> Result<OwnedFd, Failure> {
        if let Some(source) = &self.bind_from {
            return Ok(call::open_tree_clone(At::Cwd, source, true, true)?);
        }
        if self.controllers.is_empty() {
            let context = call::fsopen("cgroup2")?;
            call::fsconfig_create(&context)?;
            return Ok(call::fsmount(&context, 0)?);
        }
        let context = call::fsopen("cgroup")?;
        for controller in &self.controllers {
            match controller.strip_prefix("name=") {
                Some(name) => {
                    call::fsconfig_flag(&context, "none")?;
                    call::fsconfig_string(&context, "name", name)?;
                }
                None => call::fsconfig_flag(&context, controller)?,
            }
        }
        call::fsconfig_create(&context)?;
        Ok(call::fsmount(&context, 0)?)
    }
}

/// Attaches the hierarchies at a mount point. Returns the mount that is there then.
///
/// # Errors
/// The kernel's.
pub fn attach(mount: &CgroupMount, target: &OwnedFd, own: Change) -> Result<OwnedFd, Failure> {
    let set = SetAttr { set: own.set, clear: own.clear, ..SetAttr::default() };
    if let [only] = mount.hierarchies.as_slice()
        && only.name.is_empty()
    {
        let detached = only.detached()?;
        call::mount_setattr(&detached, &set, only.bind_from.is_some())?;
        call::move_mount(&detached, target)?;
        return Ok(detached);
    }
    let context = call::fsopen("tmpfs")?;
    call::fsconfig_string(&context, "mode", "755")?;
    call::fsconfig_create(&context)?;
    let tmpfs = call::fsmount(&context, attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    call::move_mount(&tmpfs, target)?;
    for hierarchy in &mount.hierarchies {
        let name = Path::new(&hierarchy.name);
        fs::mkdirat(At::from(&tmpfs), name, 0o755)?;
        let detached = hierarchy.detached().doing(|| format!("mount control group hierarchy {}", hierarchy.name))?;
        call::mount_setattr(&detached, &set, hierarchy.bind_from.is_some())?;
        // The tmpfs is empty but for what was made here.
        call::move_mount_to(&detached, At::from(&tmpfs), name)?;
    }
    for (name, link) in &mount.links {
        fs::symlinkat(Path::new(link), At::from(&tmpfs), Path::new(name))?;
    }
    call::mount_setattr(&tmpfs, &set, false)?;
    Ok(tmpfs)
}
