//! `rt events`: usage figures in runc's form, and what happens to a container as it happens.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::cgroups::Cgroup;
use crate::cgroups::watch::{Event, Trigger, Watch};
use crate::error::{Error, Failure};
use crate::procfs::ProcFs;
use crate::state::{Container, Status};
use crate::sys::process::{self, Exit};

use super::{Globals, parse_id, print};

/// Show what happens to a container: lines of JSON, until it ends
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "The last line, of type exit, has the code of the program or the signal that ended it. Before Linux 6.15 it has \
neither if the program's parent, such as an engine's monitor, has waited for it already."
)]
pub struct Args {
    /// Show the usage figures once
    #[arg(long)]
    stats: bool,
    /// How often the usage figures are shown: 5s, 1m30s, 500ms; 0 for never, which costs nothing while nothing happens
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    interval: Duration,
    /// Tell when pressure exceeds RESOURCE:some|full:STALL/WINDOW, such as memory:some:150ms/1s (cgroup v2)
    #[arg(long, value_name = "THRESHOLD")]
    pressure: Vec<Trigger>,
    /// The container's id
    id: String,
}

/// A duration as Go writes it; a plain number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?}: expected a time such as 5s, 1m30s or 500ms");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let number: u64 = digits.parse().map_err(|_| expected())?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(expected()),
        };
        let part = Duration::from_millis(number.checked_mul(millis).ok_or_else(expected)?);
        sum = sum.checked_add(part).ok_or_else(expected)?;
        rest = tail;
    }
    if text.is_empty() { Err(expected()) } else { Ok(sum) }
}

/// Runs the command.
///
/// # Errors
/// If the container does not run, or nobody reads the lines.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("events {}", args.id));
    let container = Container::load(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    let stopped = || container.wrong_status("events", "container not running");
    if matches!(container.status, Status::Stopped | Status::Creating) {
        return Err(stopped());
    }
    let (init, pidfd) = container.init().ok_or_else(stopped)?;
    let cgroup = container.cgroup().map_err(|failure| during(failure.into()))?;
    let stream = Stream { id: &args.id, pid: init.pid, pidfd, cgroup: &cgroup };
    let done = if args.stats { stream.stats() } else { stream.follow(args.interval, &args.pressure) };
    done.map_err(during)?;
    Ok(0)
}

struct Stream<'a> {
    id: &'a str,
    pid: i32,
    pidfd: &'a OwnedFd,
    cgroup: &'a Cgroup,
}

impl Stream<'_> {
    fn line(&self, kind: &str, data: Option<&Value>) -> Result<(), Error> {
        let mut line = json!({ "type": kind, "id": self.id });
        if let Some(data) = data {
            line["data"] = data.clone();
        }
        print(&format!("{line}\n"))
    }

    fn stats(&self) -> Result<(), Error> {
        self.line("stats", Some(&json!(self.cgroup.stats()?)))
    }

    fn follow(&self, interval: Duration, triggers: &[Trigger]) -> Result<(), Error> {
        let mut watch = self.cgroup.watch(triggers)?;
        // Never, too, if that is longer than there are numbers for.
        let after = || Instant::now().checked_add(interval).filter(|_| !interval.is_zero());
        let mut next = after();
        loop {
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            let (ended, announced) = wait(self.pidfd, &watch, left)?;
            let due = next.is_some_and(|next| Instant::now() >= next);
            // With the figures comes what the kernel counts and does not announce (pids.max in version 1).
            let events = if ended || due { watch.rest(&announced) } else { watch.changes(&announced) };
            events.iter().try_for_each(|event| self.event(event))?;
            if ended {
                return self.line("exit", Some(&self.exit()));
            }
            if due {
                self.stats()?;
                next = after();
            }
        }
    }

    fn event(&self, event: &Event) -> Result<(), Error> {
        let count = |count: &u64| json!({ "count": count });
        let (kind, data) = match event {
            Event::Oom => ("oom", None),
            Event::OomKill(kills) => ("oom-kill", Some(count(kills))),
            Event::MemoryHigh(times) => ("memory-high", Some(count(times))),
            Event::PidsMax(times) => ("pids-max", Some(count(times))),
            Event::Frozen => ("frozen", None),
            Event::Thawed => ("thawed", None),
            Event::Pressure(trigger) => {
                let data = json!({
                    "resource": trigger.resource,
                    "kind": trigger.kind,
                    "stall": trigger.stall,
                    "window": trigger.window
                });
                ("pressure", Some(data))
            }
        };
        self.line(kind, data.as_ref())
    }

    /// How the first process ended: a zombie still says so, and Linux 6.15 remembers it for whoever holds a pidfd.
    fn exit(&self) -> Value {
        let of_zombie = || ProcFs::open().ok()?.process_exit(self.pid).ok().flatten();
        let exit = process::pidfd_exit(self.pidfd).ok().flatten().or_else(of_zombie);
        match exit {
            Some(Exit::Code(code)) => json!({ "code": code }),
            Some(Exit::Signal(signal)) => json!({ "signal": signal }),
            None => json!({}),
        }
    }
}

/// Waits until the process ends, a file announces something, or the time is over. True if the process has ended.
fn wait(pidfd: &OwnedFd, watch: &Watch<'_>, left: Option<Duration>) -> Result<(bool, Vec<bool>), Failure> {
    let mut list = vec![(pidfd.as_fd(), libc::POLLIN)];
    list.extend(watch.descriptors());
    let ready = process::poll_for(&list, left)?;
    let happened: Vec<bool> = list.iter().zip(&ready).map(|((_, wanted), got)| got & (wanted | libc::POLLERR) != 0).collect();
    Ok((happened[0], happened[1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn durations() {
        let good = [("5s", 5000), ("1m30s", 90_000), ("500ms", 500), ("0", 0), ("7", 7000), ("1h", 3_600_000)];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "5x", "5s5", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
