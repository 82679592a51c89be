//! Mounts for a container that exists: two processes go into it and come to their end there.
//!
//! ```text
//! launcher --clone3--> keeper --clone3--> worker
//!    |                   | opens or makes what is to be mounted, and can take it away again
//!    |                   | <---- what was mounted, or why not ---- | resolves paths of the container, mounts on what they lead to
//!    | <---- the same -- |
//!    | -- "kept" ------> |   recorded; anything else, the end of the launcher for one, takes everything away again
//! ```
//!
//! The worker does what programs of the container can hold up (a path may lead through a filesystem that one of them serves), the keeper
//! does not: it ends the worker in time, and undoes.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure};
use crate::namespaces::{NamespaceStep, idmap, join, steps};
use crate::plan::mounts::{Adding, Joins};
use crate::procfs::ProcFs;
use crate::rootfs::hot::{self, Added};
use crate::rootfs::mounts::{self, Sources};
use crate::rootfs::steps::{MountKind, MountStep, Preparation};
use crate::rootfs::{InRoot, Root};
use crate::sys::process::{self, CloneArgs, Cloned};
use crate::sys::{fs, ns, signal, socket};

/// How long the container may hold the worker up.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer.
const MAX_ANSWER: usize = 256 * 1024;

/// The container.
#[derive(Debug)]
pub struct Place<'a> {
    /// Its first process.
    pub pidfd: &'a OwnedFd,
    /// The host's procfs.
    pub procfs: &'a ProcFs,
    /// Its root directory.
    pub root: Root,
    /// What is joined of it.
    pub joins: &'a Joins,
}

impl<'a> Place<'a> {
    /// Opens the root of the container's first process.
    ///
    /// # Errors
    /// The kernel's; `ESRCH` if the process is gone.
    pub fn open(pid: i32, pidfd: &'a OwnedFd, procfs: &'a ProcFs, joins: &'a Joins) -> Result<Self, Failure> {
        let root = procfs.open_namespace_path(&format!("{pid}/root")).doing(|| "open the container's root")?;
        // The number meant this process when the path was resolved, if it is still there.
        process::pidfd_send_signal(pidfd, 0).doing(|| "look at the container's first process")?;
        Ok(Self { pidfd, procfs, root: Root::new(root), joins })
    }
}

/// What the processes say to each other.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done(Vec<Added>),
    Failed(Box<Failure>),
}

/// Adds all mounts, or none. `keep` writes down what was added; if it cannot, everything is taken away again.
///
/// # Errors
/// Of the first mount that fails.
pub fn add(adding: &Adding, place: &Place<'_>, keep: impl FnOnce(&[Added]) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut sources = Sources::new();
    for step in &adding.steps {
        open_on_the_host(step, &mut sources, place.procfs).doing(|| step).map_err(|failure| at(step, failure))?;
    }
    let table = place.procfs.read("self/mountinfo").doing(|| "read the host's mounts")?;
    let groups: Vec<String> = hot::peer_groups(&table).into_iter().map(str::to_owned).collect();
    let work = |sources: &Sources| {
        let attach = |step: &MountStep| {
            let detached = sources.get(&step.index).ok_or_else(|| Failure::because("the mount was not opened"))?;
            hot::attach(step, &place.root, detached, place.procfs, &groups).doing(|| step).map_err(|failure| at(step, failure))
        };
        adding.steps.iter().map(attach).collect()
    };
    inside(place, &adding.steps, sources, work, keep)
}

/// Takes mounts away, after all of them have been looked at.
///
/// # Errors
/// If one of them is not there, or is another; then nothing has changed.
pub fn remove(
    destinations: &[InRoot],
    added: &[Added],
    place: &Place<'_>,
    keep: impl FnOnce(&[Added]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let work = |_: &Sources| {
        let found = destinations.iter().map(|destination| hot::find(destination, &place.root, added));
        let found: Vec<(OwnedFd, Added)> = found.collect::<Result<_, _>>()?;
        for (mount, added) in &found {
            hot::take_away(mount, place.procfs).doing(|| format!("unmount {}", added.destination.display()))?;
        }
        Ok(found.into_iter().map(|(_, added)| added).collect())
    };
    inside(place, &[], Sources::new(), work, keep)
}

fn at(step: &MountStep, failure: Failure) -> Failure {
    failure.origin(format!("mounts[{}]", step.index))
}

fn open_on_the_host(step: &MountStep, sources: &mut Sources, procfs: &ProcFs) -> Result<(), Failure> {
    let detached = match step.preparation() {
        Some(Preparation::Clone { source, recursive }) => {
            mounts::open_source(source, recursive, step.links.of_source_followed())?
        }
        Some(Preparation::Make(kind)) => mounts::detached(kind, 0)?,
        Some(Preparation::Find { .. }) | None => return Ok(()),
    };
    if let Some(map) = &step.id_map {
        let namespace = idmap::namespace_for(&map.uids, &map.gids, procfs)?;
        mounts::map_ids(&detached, &namespace, map.recursive)?;
    }
    sources.insert(step.index, detached);
    Ok(())
}

/// Has the keeper and the worker do it, and hears what came of it.
fn inside(
    place: &Place<'_>,
    steps: &[MountStep],
    sources: Sources,
    work: impl Fn(&Sources) -> Result<Vec<Added>, Failure>,
    keep: impl FnOnce(&[Added]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    let pidfd = match process::clone3(&CloneArgs::default())? {
        Cloned::Child => {
            drop(ours);
            process::exit_now(keeper(place, steps, sources, &theirs, &work))
        }
        Cloned::Parent(_, pidfd) => pidfd,
    };
    drop(theirs);
    let outcome = hear(&ours).and_then(|added| keep(&added));
    if outcome.is_ok() {
        // If the keeper cannot hear it any more, what is recorded will not be found there.
        socket::send(&ours, b"kept", None).doing(|| "end the process in the container")?;
    }
    drop(ours);
    process::wait_pidfd(&pidfd)?;
    outcome
}

fn hear(link: &OwnedFd) -> Result<Vec<Added>, Failure> {
    let bytes = socket::receive(link, MAX_ANSWER)?.data;
    if bytes.is_empty() {
        return Err(Failure::because("the process in the container was killed; nothing has changed"));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Answer::Done(added)) => Ok(added),
        Ok(Answer::Failed(failure)) => Err(*failure),
        Err(error) => Err(Failure::because(format!("unknown message from the container: {error}"))),
    }
}

fn tell(link: &OwnedFd, outcome: Result<Vec<Added>, Failure>) -> bool {
    let answer = outcome.map_or_else(|failure| Answer::Failed(Box::new(failure.shortened())), Answer::Done);
    serde_json::to_vec(&answer).is_ok_and(|bytes| socket::send(link, &bytes, None).is_ok())
}

/// The keeper. Returns its exit status.
fn keeper(
    place: &Place<'_>,
    steps: &[MountStep],
    mut sources: Sources,
    link: &OwnedFd,
    work: &dyn Fn(&Sources) -> Result<Vec<Added>, Failure>,
) -> i32 {
    let outcome = enter(place, steps, &mut sources).and_then(|()| supervise(&sources, work));
    let added = outcome.is_ok();
    let told = tell(link, outcome);
    let kept = told && added && socket::receive(link, 8).is_ok_and(|received| received.data == b"kept");
    if !kept {
        for detached in sources.values().rev() {
            // What was not attached cannot be taken away, and need not be.
            let _ = hot::take_away(detached, place.procfs);
        }
    }
    i32::from(!kept)
}

/// Goes into the namespaces, opening and making on the way what has to be opened and made there.
fn enter(place: &Place<'_>, steps: &[MountStep], sources: &mut Sources) -> Result<(), Failure> {
    // An interrupted command takes back what it has done, like one that fails.
    signal::block_all()?;
    process::set_dumpable(false)?;
    fs::umask(0);
    let joins = place.joins;
    if joins.user.is_some() {
        ns::setns(place.pidfd, libc::CLONE_NEWUSER).doing(|| "join the container's user namespace")?;
    }
    let opened_here = |step: &&MountStep| matches!(step.kind, MountKind::Bind { .. }) && !sources.contains_key(&step.index);
    let binds: Vec<&MountStep> = steps.iter().filter(opened_here).collect();
    if !binds.is_empty() {
        // Who has no rights over the host's mounts has them over a copy.
        ns::unshare(libc::CLONE_NEWNS).doing(|| "copy the host's mounts into the container's user namespace")?;
    }
    for step in binds {
        if let MountKind::Bind { source, recursive, .. } = &step.kind {
            let opened = mounts::open_source(source, *recursive, step.links.of_source_followed()).doing(|| step);
            sources.insert(step.index, opened.map_err(|failure| at(step, failure))?);
        }
    }
    ns::setns(place.pidfd, steps::flags(&joins.kinds)).doing(|| "join the container's namespaces")?;
    if let Some((uid, gid)) = joins.user {
        let context = join::Context { procfs: place.procfs, opened: &join::Opened::new(), container: Some(place.pidfd) };
        join::run(&NamespaceStep::BecomeRoot { uid, gid, drop_groups: true }, &context)?;
    }
    for step in steps {
        if matches!(step.kind, MountKind::Filesystem { .. }) && !sources.contains_key(&step.index) {
            let made = mounts::detached(&step.kind, 0).doing(|| step);
            sources.insert(step.index, made.map_err(|failure| at(step, failure))?);
        }
    }
    Ok(())
}

/// Lets the worker work, as long as there is patience for it.
fn supervise(sources: &Sources, work: &dyn Fn(&Sources) -> Result<Vec<Added>, Failure>) -> Result<Vec<Added>, Failure> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    let pidfd = match process::clone3(&CloneArgs::default())? {
        Cloned::Child => {
            drop(ours);
            let done = process::set_parent_death_signal(true).map_err(Failure::from).and_then(|()| work(sources));
            process::exit_now(i32::from(!tell(&theirs, done)))
        }
        Cloned::Parent(_, pidfd) => pidfd,
    };
    drop(theirs);
    let in_time = process::poll(&[(ours.as_fd(), false)], Some(PATIENCE))?.iter().any(|ready| ready.readable || ready.hangup);
    if !in_time {
        process::pidfd_send_signal(&pidfd, libc::SIGKILL)?;
    }
    let outcome = if in_time { hear(&ours) } else { Err(held_up()) };
    process::wait_pidfd(&pidfd)?;
    outcome
}

fn held_up() -> Failure {
    let text = format!("no answer from a filesystem of the container within {} s; nothing has changed", PATIENCE.as_secs());
    Failure::because(text)
}
