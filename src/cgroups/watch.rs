//! What happens to a container, as it happens: the kernel announces changes of a cgroup's files to whoever polls them.
//!
//! All of them, and the end of the first process, are waited for in one poll(2) without a time limit. There are at most ten descriptors, so
//! that epoll(7) would only add calls. Nothing is looked at while nothing is announced.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use super::cgroup::Cgroup;
use super::dir::{Dir, is_gone};
use super::stats::pairs;
use crate::error::{Doing, Failure};
use crate::sys::CallResult;
use crate::sys::fs::{read_to_end, write_all};
use crate::sys::process::eventfd;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Memory ran out and could not be reclaimed.
    Oom,
    /// The kernel killed processes for lack of memory: so many since the container began.
    OomKill(u64),
    /// Processes were throttled because memory.high was exceeded: so often since the container began.
    MemoryHigh(u64),
    /// A process could not be made because of pids.max: so often since the container began.
    PidsMax(u64),
    /// The threshold of this trigger was exceeded.
    Pressure(Trigger),
    /// All processes stand still.
    Frozen,
    /// They move again.
    Thawed,
}

/// A threshold of pressure (the kernel's Documentation/accounting/psi.rst): `RESOURCE:some|full:STALL/WINDOW`, in microseconds or with
/// a unit of `ms` or `s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// `cpu`, `io` or `memory`.
    pub resource: String,
    /// `some` processes wait, or `full`: all do.
    pub kind: String,
    /// The time that is lost within a window, in microseconds.
    pub stall: u64,
    /// The window, in microseconds; an ordinary user needs a multiple of two seconds.
    pub window: u64,
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?}: expected RESOURCE:some|full:STALL/WINDOW, such as memory:some:150ms/1s");
        let parts: Vec<&str> = text.split(':').collect();
        let [resource @ ("cpu" | "io" | "memory"), kind @ ("some" | "full"), times] = parts.as_slice() else {
            return Err(expected());
        };
        let (stall, window) = times.split_once('/').and_then(|(s, w)| Some((micros(s)?, micros(w)?))).ok_or_else(expected)?;
        if stall == 0 || stall > window {
            return Err(expected());
        }
        Ok(Self { resource: (*resource).to_owned(), kind: (*kind).to_owned(), stall, window })
    }
}

fn micros(text: &str) -> Option<u64> {
    let units = [("us", 1), ("ms", 1000), ("s", 1_000_000), ("", 1)];
    let (digits, unit) = units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    digits.parse::<u64>().ok()?.checked_mul(*unit)
}

/// The counters that are watched: file, key.
const COUNTERS: [(&str, &[&str]); 3] =
    [("memory.events", &["oom", "oom_kill", "high"]), ("pids.events", &["max"]), ("cgroup.events", &["frozen"])];

enum Kind {
    /// A file of names and numbers, with those that were seen last.
    Counters { file: &'static str, keys: &'static [&'static str], last: BTreeMap<String, u64> },
    /// A trigger of pressure.
    Pressure(Trigger),
    /// Version 1: an eventfd that counts the moments without memory.
    OomV1 { last: u64, _control: OwnedFd },
}

/// An open file that announces changes.
struct Source<'a> {
    dir: &'a Dir,
    kind: Kind,
    fd: OwnedFd,
}

/// The files of a container that announce changes.
pub struct Watch<'a> {
    sources: Vec<Source<'a>>,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({} files)", self.sources.len())
    }
}

impl Cgroup {
    /// Begins to watch. What the kernel cannot announce here (version 1 knows little) is left out, except for triggers.
    ///
    /// # Errors
    /// If a trigger cannot be set.
    pub fn watch(&self, triggers: &[Trigger]) -> Result<Watch<'_>, Failure> {
        let mut sources = Vec::new();
        for (file, keys) in COUNTERS {
            let dir = if file == "pids.events" { self.v1("pids").or(self.v2()) } else { self.v2() };
            if let Some(source) = dir.map_or(Ok(None), |dir| counters(dir, file, keys)).doing(|| format!("watch {file}"))? {
                sources.push(source);
            }
        }
        if let Some(dir) = self.v1("memory") {
            sources.extend(oom_v1(dir).doing(|| "watch memory.oom_control")?);
        }
        for trigger in triggers {
            let dir = self.v2().ok_or_else(|| Failure::because("expected a cgroup of version 2 for triggers of pressure"));
            sources.push(pressure(dir?, trigger).doing(|| format!("watch {}.pressure", trigger.resource))?);
        }
        Ok(Watch { sources })
    }
}

fn counters<'a>(dir: &'a Dir, file: &'static str, keys: &'static [&'static str]) -> CallResult<Option<Source<'a>>> {
    let fd = match dir.open_file(file) {
        Err(error) if is_gone(&error) => return Ok(None),
        other => other?,
    };
    let last = pairs(&String::from_utf8_lossy(&read_to_end(&fd, 4096)?));
    Ok(Some(Source { dir, kind: Kind::Counters { file, keys, last }, fd }))
}

fn pressure<'a>(dir: &'a Dir, trigger: &Trigger) -> CallResult<Source<'a>> {
    let fd = dir.open_for_change(&format!("{}.pressure", trigger.resource))?;
    write_all(&fd, format!("{} {} {}\0", trigger.kind, trigger.stall, trigger.window).as_bytes())?;
    Ok(Source { dir, kind: Kind::Pressure(trigger.clone()), fd })
}

/// The kernel's Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control".
fn oom_v1(dir: &Dir) -> CallResult<Option<Source<'_>>> {
    let control = match dir.open_file("memory.oom_control") {
        Err(error) if is_gone(&error) => return Ok(None),
        other => other?,
    };
    let fd = eventfd()?;
    match dir.write("cgroup.event_control", &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd())) {
        // Kernels without it (a realtime configuration, or one that has dropped it) have the counter only.
        Err(error) if is_gone(&error) || error.is(libc::EINVAL) || error.is(libc::EOPNOTSUPP) => return Ok(None),
        other => other?,
    }
    Ok(Some(Source { dir, kind: Kind::OomV1 { last: oom_kills_v1(dir), _control: control }, fd }))
}

fn oom_kills_v1(dir: &Dir) -> u64 {
    let content = dir.read("memory.oom_control").unwrap_or_default();
    pairs(&content).get("oom_kill").copied().unwrap_or(0)
}

impl Watch<'_> {
    /// What to poll: a descriptor and the events (poll(2)).
    pub fn descriptors(&self) -> Vec<(BorrowedFd<'_>, i16)> {
        let interest = |source: &Source<'_>| match source.kind {
            Kind::OomV1 { .. } => libc::POLLIN,
            _ => libc::POLLPRI,
        };
        self.sources.iter().map(|source| (source.fd.as_fd(), interest(source))).collect()
    }

    /// What has happened in the files that announced something, by their index in [`Watch::descriptors`].
    pub fn changes(&mut self, announced: &[bool]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut announced = announced.iter().copied().chain(std::iter::repeat(false));
        // A cgroup that is gone has nothing more to say.
        self.sources.retain_mut(|source| !announced.next().unwrap_or(false) || source.look(&mut events).is_ok());
        events
    }

    /// What has happened, announced or not: the end of the container overtakes everything, and some counters are never announced.
    pub fn rest(&mut self, announced: &[bool]) -> Vec<Event> {
        let pressed = announced.iter().copied().chain(std::iter::repeat(false));
        let of = |(source, pressed): (&Source<'_>, bool)| pressed || !matches!(source.kind, Kind::Pressure(_));
        let looked: Vec<bool> = self.sources.iter().zip(pressed).map(of).collect();
        self.changes(&looked)
    }
}

impl Source<'_> {
    fn look(&mut self, events: &mut Vec<Event>) -> CallResult<()> {
        match &mut self.kind {
            Kind::Pressure(trigger) => events.push(Event::Pressure(trigger.clone())),
            Kind::OomV1 { last, .. } => {
                // It may never have been announced; then there is nothing to be read.
                crate::sys::fs::drain(&self.fd);
                let kills = oom_kills_v1(self.dir);
                if kills > *last {
                    events.extend([Event::Oom, Event::OomKill(kills)]);
                    *last = kills;
                }
            }
            Kind::Counters { file, keys, last } => {
                // A new descriptor: it is the read that tells the kernel what we know already.
                self.fd = self.dir.open_file(file)?;
                let now = pairs(&String::from_utf8_lossy(&read_to_end(&self.fd, 4096)?));
                for key in *keys {
                    let (before, after) = (last.get(*key).copied().unwrap_or(0), now.get(*key).copied().unwrap_or(0));
                    events.extend((before != after).then(|| counted(key, after)).flatten());
                }
                *last = now;
            }
        }
        Ok(())
    }
}

fn counted(key: &str, value: u64) -> Option<Event> {
    Some(match (key, value) {
        ("oom", _) => Event::Oom,
        ("oom_kill", _) => Event::OomKill(value),
        ("high", _) => Event::MemoryHigh(value),
        ("max", _) => Event::PidsMax(value),
        ("frozen", 0) => Event::Thawed,
        ("frozen", _) => Event::Frozen,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers() {
        let trigger = |text: &str| text.parse::<Trigger>().map(|trigger| (trigger.stall, trigger.window));
        assert_eq!(trigger("memory:some:150ms/1s"), Ok((150_000, 1_000_000)));
        assert_eq!(trigger("cpu:full:500/2000000"), Ok((500, 2_000_000)));
        for bad in ["", "memory", "disk:some:1/2", "memory:any:1/2", "memory:some:2/1", "memory:some:0/1", "memory:some:1"] {
            assert!(trigger(bad).is_err(), "{bad}");
        }
    }
}
