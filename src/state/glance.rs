//! [`Glance`]: what `list` and `state` show of a container, from the few fields of its record that say it.
//!
//! A list of hundreds of containers is asked for by monitors every few seconds: of each the record is read without its process, its
//! namespaces and its hooks, and nothing is opened that only a change needs.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::cgroups::CgroupRecord;
use crate::error::{Error, Failure};
use crate::id::ContainerId;
use crate::procfs::ProcFs;
use crate::spec::StringMap;

use super::lifecycle::{self, Shown};
use super::record::{self, Phase, ProcessRef};
use super::status::{Looks, Status};
use super::store::Store;

/// Some of a [`Record`](super::Record)'s fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    layout: u32,
    id: ContainerId,
    phase: Phase,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    owner: u32,
    annotations: StringMap,
    cgroup: CgroupRecord,
    #[serde(default)]
    init: Option<ProcessRef>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// A container as it stands now, to be shown.
#[derive(Debug)]
pub struct Glance {
    head: Head,
    /// Its status when it was looked at.
    pub status: Status,
}

impl Glance {
    /// Looks at a container. `procfs` is opened by the first one that has a process.
    ///
    /// # Errors
    /// `container does not exist`, or a record that cannot be read.
    pub fn load(store: &Store, id: &ContainerId, procfs: &mut Option<ProcFs>) -> Result<Self, Error> {
        let bytes = store.read_record(id)?;
        let Some(mut head) = bytes.and_then(|bytes| record::parse(&bytes, |head: &Head| head.layout)) else {
            let directory = store.find(id)?;
            return Err(directory.map_or_else(|| lifecycle::does_not_exist(id), |directory| lifecycle::no_record(&directory)));
        };
        let status = status(&head, store, procfs)?;
        // Nobody asks for it any more, and of a list it would be most of the memory.
        head.cgroup = CgroupRecord::default();
        Ok(Self { head, status })
    }

    /// The id.
    pub fn id(&self) -> &ContainerId {
        &self.head.id
    }

    /// The bundle, absolute, as given.
    pub fn bundle(&self) -> &std::path::Path {
        &self.head.bundle
    }

    /// When create began, RFC 3339.
    pub fn created(&self) -> &str {
        &self.head.created
    }

    /// Effective user id of the caller of create.
    pub fn owner(&self) -> u32 {
        self.head.owner
    }

    /// The first process, 0 if there is none any more.
    pub fn pid(&self) -> i32 {
        lifecycle::shown_pid(self.head.init, self.status)
    }

    /// The state document of runtime.md with the extra fields that engines read.
    pub fn state(&self) -> Value {
        let Head { id, bundle, rootfs, created, annotations, warnings, init, .. } = &self.head;
        lifecycle::document(&Shown { id, bundle, rootfs, created, annotations, warnings, init: *init }, self.status)
    }
}

fn status(head: &Head, store: &Store, procfs: &mut Option<ProcFs>) -> Result<Status, Failure> {
    let looks = Looks {
        is_locked: || Ok(store.find(&head.id)?.is_some_and(|directory| directory.is_locked().unwrap_or(false))),
        is_alive: |init| {
            let procfs = match procfs {
                Some(procfs) => procfs,
                None => procfs.insert(ProcFs::open()?),
            };
            Ok(lifecycle::is_same_process(procfs, init))
        },
        has_fifo: || store.has_fifo(&head.id),
    };
    looks.status(head.phase, head.init, &head.cgroup)
}
