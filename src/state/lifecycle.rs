//! [`Container`]: a record with the status that the kernel gives it now, and the typed states that commands ask for.

use std::os::fd::OwnedFd;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cgroups::Cgroup;
use crate::error::{Error, Failure};
use crate::id::ContainerId;
use crate::plan::document::WARNINGS;
use crate::procfs::ProcFs;
use crate::spec;
use crate::sys::process;

use super::record::{LAYOUT, ProcessRef, Record};
use super::status::{Looks, Status};
use super::store::{Directory, FIFO, Store};

/// A container as it stands now.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub directory: Directory,
    /// Its record.
    pub record: Record,
    /// Its status when it was looked at.
    pub status: Status,
    /// The host's procfs, and the first process if it was alive then, by a pidfd that cannot come to mean another one.
    seen: Seen,
}

/// What was opened to find the status out, for whoever needs it next.
#[derive(Debug, Default)]
struct Seen {
    procfs: Option<ProcFs>,
    init: Option<(ProcessRef, OwnedFd)>,
}

/// What nobody should find out from two texts: engines match this one.
pub fn does_not_exist(id: &ContainerId) -> Error {
    Error::new("not-found", format!("container {id}: container does not exist"))
}

/// Between mkdir and the first record of a create, and after a crash in that instant.
pub(super) fn no_record(directory: &Directory) -> Error {
    let id = directory.id();
    if let Some(layout) = directory.foreign_layout() {
        let text = format!("container {id}: its record has layout {layout}, and this version of rt knows layout {LAYOUT}");
        return Error::new("foreign-record", text).hint_text("use the version that has made the container");
    }
    Error::new("no-record", format!("container {id}: container does not exist (it has no readable record)"))
        .hint_text(format!("`rt delete --force {id}` removes what is left of it"))
}

/// Whether the lock of a container's directory is ours: then nobody else makes it, and nobody needs to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Held,
    NotHeld,
}

impl Container {
    /// Looks at a container.
    ///
    /// # Errors
    /// `container does not exist`, or a record that cannot be read.
    pub fn load(store: &Store, id: &ContainerId) -> Result<Self, Error> {
        let directory = store.find(id)?.ok_or_else(|| does_not_exist(id))?;
        Self::from_directory(directory, Lock::NotHeld)
    }

    /// Locks and looks at a container, in that order.
    ///
    /// # Errors
    /// As [`Container::load`], or if another command holds the lock for long.
    pub fn load_locked(store: &Store, id: &ContainerId) -> Result<Self, Error> {
        let directory = store.lock(id)?.ok_or_else(|| does_not_exist(id))?;
        Self::from_directory(directory, Lock::Held)
    }

    fn from_directory(directory: Directory, lock: Lock) -> Result<Self, Error> {
        let Some(record) = directory.read_record() else {
            return Err(no_record(&directory));
        };
        let mut seen = Seen::default();
        let status = status(&directory, &record, lock, &mut seen)?;
        Ok(Self { directory, record, status, seen })
    }

    /// The id.
    pub fn id(&self) -> &ContainerId {
        &self.record.id
    }

    /// The first process, if it was alive, with a pidfd that cannot come to mean another one.
    pub fn init(&self) -> Option<(ProcessRef, &OwnedFd)> {
        self.seen.init.as_ref().map(|(init, pidfd)| (*init, pidfd))
    }

    /// The host's procfs.
    ///
    /// # Errors
    /// See [`ProcFs::open`].
    pub fn take_procfs(&mut self) -> Result<ProcFs, Failure> {
        self.seen.procfs.take().map_or_else(ProcFs::open, Ok)
    }

    /// The host's procfs, which is open if there is a first process.
    ///
    /// # Errors
    /// If there is none.
    pub fn procfs(&self) -> Result<&ProcFs, Failure> {
        self.seen.procfs.as_ref().ok_or_else(|| Failure::because("the container has no process"))
    }

    /// As [`Container::init`], for whoever keeps it.
    pub fn take_init(&mut self) -> Option<OwnedFd> {
        self.seen.init.take().map(|(_, pidfd)| pidfd)
    }

    /// True if the container's processes are alone in a pid namespace, so that the kernel ends them with the first one.
    pub fn has_own_pid_namespace(&self) -> bool {
        self.record.has_own_pid_namespace()
    }

    /// The control groups.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cgroup(&self) -> Result<Cgroup, Failure> {
        Cgroup::open(&self.record.cgroup)
    }

    /// The state document of runtime.md with the extra fields that engines read.
    pub fn state(&self) -> Value {
        state_document(&self.record, self.status)
    }

    /// `container not running` and its kin, naming the status.
    pub fn wrong_status(&self, doing: &str, text: &str) -> Error {
        Error::new("wrong-status", format!("{doing} {}: {text} (status {})", self.id(), self.status))
    }
}

/// What the state document says of a container, but for the status.
pub(super) struct Shown<'a> {
    pub id: &'a ContainerId,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    pub annotations: &'a spec::StringMap,
    pub warnings: &'a [String],
    pub init: Option<ProcessRef>,
}

/// The first process, 0 if there is none any more.
pub(super) fn shown_pid(init: Option<ProcessRef>, status: Status) -> i32 {
    match status {
        Status::Stopped => 0,
        _ => init.map_or(0, |init| init.pid),
    }
}

/// The state document of runtime.md for a status.
pub fn state_document(record: &Record, status: Status) -> Value {
    let Record { id, bundle, rootfs, created, annotations, warnings, init, .. } = record;
    document(&Shown { id, bundle, rootfs, created, annotations, warnings, init: *init }, status)
}

pub(super) fn document(record: &Shown<'_>, status: Status) -> Value {
    let mut state = Map::new();
    state.insert("ociVersion".to_owned(), json!(spec::VERSION));
    state.insert("id".to_owned(), json!(record.id));
    state.insert("status".to_owned(), json!(status.to_string()));
    state.insert("pid".to_owned(), json!(shown_pid(record.init, status)));
    state.insert("bundle".to_owned(), json!(record.bundle));
    state.insert("rootfs".to_owned(), json!(record.rootfs));
    state.insert("created".to_owned(), json!(record.created));
    state.insert("owner".to_owned(), json!(""));
    let annotations = annotations(record);
    if !annotations.is_empty() {
        state.insert("annotations".to_owned(), json!(annotations));
    }
    Value::Object(state)
}

/// Those of the config, and one of our own for the warnings of create.
fn annotations(record: &Shown<'_>) -> spec::StringMap {
    let mut annotations = record.annotations.clone();
    if !record.warnings.is_empty() {
        annotations.insert(WARNINGS.to_owned(), json!(record.warnings).to_string());
    }
    annotations
}

fn status(directory: &Directory, record: &Record, lock: Lock, seen: &mut Seen) -> Result<Status, Failure> {
    let looks = Looks {
        is_locked: || Ok(lock == Lock::NotHeld && directory.is_locked()?),
        is_alive: |init| {
            seen.init = live(init, seen.procfs.insert(ProcFs::open()?));
            Ok(seen.init.is_some())
        },
        has_fifo: || directory.has(FIFO),
    };
    looks.status(record.phase, record.init, &record.cgroup)
}

/// The first process of a container, if it is alive, with a pidfd that cannot come to mean another one.
///
/// # Errors
/// See [`ProcFs::open`].
pub fn live_init(record: &Record) -> Result<Option<(ProcessRef, OwnedFd)>, Failure> {
    live_process(record.init)
}

/// This process.
///
/// # Errors
/// The kernel's.
pub fn own_reference(procfs: &ProcFs) -> Result<ProcessRef, Failure> {
    reference(procfs.own_pid()?, procfs)
}

/// A process, as it is recorded.
///
/// # Errors
/// The kernel's.
pub fn reference(pid: i32, procfs: &ProcFs) -> Result<ProcessRef, Failure> {
    let (_, start_time) = procfs.process_stat(pid)?;
    Ok(ProcessRef { pid, start_time })
}

/// A recorded process, if it is alive, with a pidfd that cannot come to mean another one.
///
/// # Errors
/// See [`ProcFs::open`].
pub fn live_process(recorded: Option<ProcessRef>) -> Result<Option<(ProcessRef, OwnedFd)>, Failure> {
    let Some(recorded) = recorded else { return Ok(None) };
    // Before the process is looked for: in another pid namespace its number says nothing.
    Ok(live(recorded, &ProcFs::open()?))
}

fn live(recorded: ProcessRef, procfs: &ProcFs) -> Option<(ProcessRef, OwnedFd)> {
    let pidfd = process::pidfd_open(recorded.pid).ok()?;
    is_same_process(procfs, recorded).then_some((recorded, pidfd))
}

/// True if the process is alive, not a zombie, and the one that was recorded. A number is not used twice within a tick of the clock, which is what
/// a time namespace may put its start off by.
pub(super) fn is_same_process(procfs: &ProcFs, init: ProcessRef) -> bool {
    let is_same = |(state, start): (char, u64)| start.abs_diff(init.start_time) <= 1 && !matches!(state, 'Z' | 'X');
    procfs.process_stat(init.pid).is_ok_and(is_same)
}
