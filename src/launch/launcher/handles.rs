//! [`Handles`]: what the launcher opens with its rights and in its namespaces.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::cgroups::Doors;
use crate::error::Failure;
use crate::hooks;
use crate::namespaces::{Kind, idmap, join};
use crate::plan::Origin;
use crate::procfs::ProcFs;
use crate::rootfs::mounts::{self, Sources};
use crate::rootfs::steps::{MountKind, MountMap};
use crate::sys::{At, cred, fs};

/// What the launcher opens before it makes a child, which inherits it.
#[derive(Debug)]
pub struct Handles {
    /// The caller's effective user id is 0: asked before a user namespace gives the question another meaning.
    pub caller_is_root: bool,
    /// The host's procfs.
    pub procfs: ProcFs,
    /// A clone of the rootfs.
    pub rootfs: Option<OwnedFd>,
    /// Clones of the sources of bind mounts.
    pub sources: Sources,
    /// Namespaces to be joined.
    pub namespaces: join::Opened,
    /// The start fifo, `O_PATH`.
    pub fifo: Option<OwnedFd>,
    /// A connection to the agent that gets the seccomp listener.
    pub listener: Option<OwnedFd>,
    /// Files that get what hooks write.
    pub hook_output: hooks::Output,
    /// The first process of the container that exec joins.
    pub container: Option<OwnedFd>,
    /// Its root directory.
    pub container_root: Option<OwnedFd>,
    /// The control groups of version 1 into which the child moves itself.
    pub doors: Doors,
}

impl Handles {
    /// Nothing but procfs.
    pub fn new(procfs: ProcFs) -> Self {
        Self {
            caller_is_root: cred::geteuid() == 0,
            procfs,
            rootfs: None,
            sources: Sources::new(),
            namespaces: join::Opened::new(),
            fifo: None,
            listener: None,
            hook_output: hooks::Output::default(),
            container: None,
            container_root: None,
            doors: Doors::default(),
        }
    }

    /// What namespace steps work on.
    pub fn namespace_context(&self) -> join::Context<'_> {
        join::Context { procfs: &self.procfs, opened: &self.namespaces, container: self.container.as_ref() }
    }

    /// Closes what a payload must not have.
    pub fn forget_all_but_fifo(&mut self) {
        self.rootfs = None;
        self.sources.clear();
        self.namespaces.clear();
        self.container = None;
        self.container_root = None;
    }

    pub(super) fn open_rootfs(&mut self, path: &Path) -> Result<(), Failure> {
        self.rootfs = Some(mounts::open_source(path, true, true)?);
        Ok(())
    }

    pub(super) fn open_source(&mut self, index: usize, path: &Path, recursive: bool, follow: bool) -> Result<(), Failure> {
        self.sources.insert(index, mounts::open_source(path, recursive, follow)?);
        Ok(())
    }

    pub(super) fn make_filesystem(&mut self, index: usize, kind: &MountKind) -> Result<(), Failure> {
        self.sources.insert(index, mounts::detached(kind, 0)?);
        Ok(())
    }

    pub(super) fn find_source(&mut self, index: usize, path: &Path, follow: bool) -> Result<(), Failure> {
        let flags = libc::O_PATH | if follow { 0 } else { libc::O_NOFOLLOW };
        self.sources.insert(index, fs::openat(At::Cwd, path, flags, 0)?);
        Ok(())
    }

    pub(super) fn map_ids(&self, index: usize, map: &MountMap) -> Result<(), Failure> {
        let mount = self.sources.get(&index).ok_or_else(|| Failure::because("the mount was not opened"))?;
        let made;
        let namespace = match self.namespaces.get(&Kind::User).filter(|_| map.uids.is_empty()) {
            Some(joined) => joined,
            None => {
                made = idmap::namespace_for(&map.uids, &map.gids, &self.procfs)?;
                &made
            }
        };
        mounts::map_ids(mount, namespace, map.recursive)
    }

    /// `sets`: who asks for a change in it, which must not be one of the caller's own namespace.
    pub(super) fn open_namespace(&mut self, kind: Kind, path: &Path, sets: Option<&Origin>) -> Result<(), Failure> {
        let namespace = join::open(kind, path)?;
        if let Some(origin) = sets {
            join::check_foreign(kind, &namespace, origin, &self.procfs)?;
        }
        self.namespaces.insert(kind, namespace);
        Ok(())
    }

    pub(super) fn open_hook_output(&mut self, stream: usize, path: &Path) -> Result<(), Failure> {
        self.hook_output.streams[stream] = Some(hooks::Output::file(path)?);
        Ok(())
    }
}
