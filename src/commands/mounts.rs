//! `rt mounts`: mounts for a container that exists.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};

use crate::error::Error;
use crate::host::Host;
use crate::launch::hot::{self as launch, Place};
use crate::plan::{Findings, mounts as plan};
use crate::process::seal;
use crate::rootfs::hot;
use crate::spec::{self, Mount};
use crate::state::{Container, Status};

use super::{Globals, parse_id};

/// Add mounts to a container that exists, or take them away again
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Mount what a list says, all of it or nothing
    Add(List),
    /// Unmount the destinations of a list that were added before
    Remove(List),
}

#[derive(Clone, Debug, ClapArgs)]
struct List {
    /// The container's id
    id: String,
    /// A JSON list in the form of mounts in config.json: a file, or - for standard input
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If one of the mounts cannot be made or taken away; then nothing has changed.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let (Verb::Add(list) | Verb::Remove(list)) = &args.verb;
    let name = if matches!(args.verb, Verb::Add(_)) { "add" } else { "remove" };
    change(&args.verb, list, globals).map_err(|error| error.during(format!("mounts {name} {}", list.id)))?;
    Ok(0)
}

fn change(verb: &Verb, list: &List, globals: &Globals) -> Result<(), Error> {
    seal::seal()?;
    let id = parse_id(&list.id)?;
    let (mounts, name) = read(&list.file)?;
    let mut container = Container::load_locked(&globals.store()?, &id)?;
    // A paused container has mounts like any other: none of its processes is needed.
    if matches!(container.status, Status::Creating | Status::Stopped) {
        return Err(Error::new("wrong-status", format!("container not running (status {})", container.status)));
    }
    let procfs = container.take_procfs()?;
    let gone = || Error::new("wrong-status", "container not running");
    let pid = container.record.init.map(|init| init.pid).ok_or_else(gone)?;
    let pidfd = container.take_init().ok_or_else(gone)?;
    let there = hot::numbers(&procfs.read(&format!("{pid}/mountinfo"))?);
    container.record.added.retain(|added| there.contains(&added.mount));
    let (record, directory) = (&container.record, &container.directory);
    let mut findings = Findings::default();
    match verb {
        Verb::Add(_) => {
            let host = Host::probe_caller()?.with_lsm(None, record.mount_label.is_some());
            let adding = plan::add(&mounts, record, &host, &mut findings);
            judge(&findings, &name, globals)?;
            let place = Place::open(pid, &pidfd, &procfs, &adding.joins)?;
            launch::add(&adding, &place, |added| {
                let mut record = record.clone();
                record.added.extend_from_slice(added);
                directory.write_record(&record)
            })?;
        }
        Verb::Remove(_) => {
            let (destinations, joins) = plan::remove(&mounts, record, &mut findings);
            judge(&findings, &name, globals)?;
            let place = Place::open(pid, &pidfd, &procfs, &joins)?;
            launch::remove(&destinations, &record.added, &place, |removed| {
                let mut record = record.clone();
                record.added.retain(|added| !removed.contains(added));
                directory.write_record(&record)
            })?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<(Vec<Mount>, String), Error> {
    let (bytes, name) = spec::load::read_named(path)?;
    let mounts: Vec<Mount> = spec::load::parse(&bytes, &name)?;
    spec::load::without_nul(&bytes, &mounts, &name)?;
    Ok((mounts, name))
}

fn judge(findings: &Findings, name: &str, globals: &Globals) -> Result<(), Error> {
    globals.judge(&findings.problems, &findings.warnings, name)?;
    globals.warn(&findings.warnings);
    Ok(())
}
