//! Id maps of a new user namespace (user_namespaces(7)): written by the launcher, directly or through newuidmap and newgidmap.

use std::fmt;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::error::{Doing, Failure};
use crate::procfs::ProcFs;
use crate::spec::IdMapping;
use crate::sys::process::{self, CloneArgs, Cloned};
use crate::sys::{CallResult, socket};

/// User or group ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// User ids.
    Uid,
    /// Group ids.
    Gid,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uid => "uid",
            Self::Gid => "gid",
        })
    }
}

/// Who may write a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The launcher has CAP_SETUID and CAP_SETGID.
    Direct,
    /// One own id: the kernel lets everybody write that, if setgroups is denied first.
    Single,
    /// The set-user-id helpers newuidmap(1) and newgidmap(1), which check /etc/subuid and /etc/subgid.
    Helper,
}

/// One map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdMap {
    /// User or group ids.
    pub which: Which,
    /// Its entries.
    pub entries: Vec<IdMapping>,
    /// Who writes it.
    pub method: Method,
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = |map: &IdMapping| format!("{}+{} to {}", map.container_id, map.size, map.host_id);
        let entries: Vec<String> = self.entries.iter().map(entry).collect();
        write!(f, "map {}s {}", self.which, entries.join(", "))?;
        match self.method {
            Method::Direct => Ok(()),
            Method::Single => write!(f, " (the own id, setgroups denied)"),
            Method::Helper => write!(f, " (through new{}map)", self.which),
        }
    }
}

/// The id inside of a host id, or the host id of an id inside.
pub fn host_id(entries: &[IdMapping], inner: u32) -> Option<u32> {
    entries.iter().find_map(|map| {
        let offset = inner.checked_sub(map.container_id)?;
        (offset < map.size).then(|| map.host_id.checked_add(offset))?
    })
}

/// Writes a map for the process that is the first one in a new user namespace.
///
/// # Errors
/// The kernel's, or what the helper said.
pub fn write(map: &IdMap, pid: i32, procfs: &ProcFs) -> Result<(), Failure> {
    let file = format!("{pid}/{}_map", map.which);
    match map.method {
        Method::Helper => helper(map, pid),
        Method::Direct => Ok(procfs.write(&file, &lines(&map.entries))?),
        Method::Single => {
            if map.which == Which::Gid {
                procfs.write(&format!("{pid}/setgroups"), "deny")?;
            }
            Ok(procfs.write(&file, &lines(&map.entries))?)
        }
    }
}

/// Makes a user namespace that ends at once, to see whether this caller can.
///
/// # Errors
/// The kernel's.
pub fn try_namespace() -> CallResult<()> {
    match process::clone3(&CloneArgs { flags: u64::from(libc::CLONE_NEWUSER.cast_unsigned()), cgroup: None })? {
        Cloned::Child => process::exit_now(0),
        Cloned::Parent(_, pidfd) => process::wait_pidfd(&pidfd).map(drop),
    }
}

/// Compares a configured map with that of the user namespace that the process lives in, which is the one that counts. What differs is
/// the text of a warning.
///
/// # Errors
/// The kernel's.
pub fn compare(map: &IdMap, pid: i32, procfs: &ProcFs) -> Result<Option<String>, Failure> {
    let text = procfs.read(&format!("{pid}/{}_map", map.which))?;
    let numbers = |line: &str| line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<Vec<u32>>>();
    let entry = |line: &str| match numbers(line)?[..] {
        [container_id, host_id, size] => Some(IdMapping { container_id, host_id, size }),
        _ => None,
    };
    let there: Vec<IdMapping> = text.lines().filter_map(entry).collect();
    if joined_up(&there) == joined_up(&map.entries) {
        return Ok(None);
    }
    let IdMap { which, method, .. } = map;
    let found = IdMap { which: *which, entries: there, method: *method };
    Ok(Some(format!("linux.{which}Mappings: not those of the user namespace that is joined, which count: {found}")))
}

/// The entries in order, with neighbours as one.
fn joined_up(entries: &[IdMapping]) -> Vec<IdMapping> {
    let mut sorted = entries.to_vec();
    sorted.sort_by_key(|map| map.container_id);
    let mut result: Vec<IdMapping> = Vec::new();
    for map in sorted {
        match result.last_mut() {
            Some(last) if follows(last, &map) => last.size += map.size,
            _ => result.push(map),
        }
    }
    result
}

fn follows(last: &IdMapping, next: &IdMapping) -> bool {
    let end = |start: u32| start.checked_add(last.size);
    end(last.container_id) == Some(next.container_id) && end(last.host_id) == Some(next.host_id)
}

/// A user namespace that nobody lives in, only for its maps: those of an idmapped mount (user_namespaces(7)).
///
/// It is made with a child that waits until the namespace is opened, and that ends if this process does.
///
/// # Errors
/// The kernel's.
pub fn namespace_for(uids: &[IdMapping], gids: &[IdMapping], procfs: &ProcFs) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = socket::seqpacket_pair()?;
    let request = CloneArgs { flags: u64::from(libc::CLONE_NEWUSER.cast_unsigned()), cgroup: None };
    let (pid, pidfd) = match process::clone3(&request).doing(|| "make a user namespace for mapped ids")? {
        Cloned::Child => {
            drop(ours);
            // The end of the other side is what is waited for.
            let _ = socket::receive(&theirs, 1);
            process::exit_now(0)
        }
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(theirs);
    let map = |which, entries: &[IdMapping]| IdMap { which, entries: entries.to_vec(), method: Method::Direct };
    let opened = write(&map(Which::Uid, uids), pid, procfs)
        .and_then(|()| write(&map(Which::Gid, gids), pid, procfs))
        .and_then(|()| procfs.open_namespace(&format!("{pid}/ns/user")).doing(|| "open the user namespace for mapped ids"));
    drop(ours);
    process::wait_pidfd(&pidfd)?;
    opened
}

fn lines(entries: &[IdMapping]) -> String {
    entries.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size)).collect()
}

fn helper(map: &IdMap, pid: i32) -> Result<(), Failure> {
    let program = format!("new{}map", map.which);
    let numbers = map.entries.iter().flat_map(|map| [map.container_id, map.host_id, map.size]);
    let arguments: Vec<String> = std::iter::once(pid.to_string()).chain(numbers.map(|number| number.to_string())).collect();
    let call = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(&program).args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = output
        .map_err(|error| crate::sys::CallError::from_io("execve", format!("{program:?}"), &error))
        .doing(call)
        .map_err(|failure| failure.hint(format!("{program} comes with the package uidmap (Debian) or shadow-utils")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(Failure::because(format!("{said} ({})", output.status))
        .doing(call())
        .hint(format!("the ranges a user may map are in /etc/sub{}", map.which)))
}
