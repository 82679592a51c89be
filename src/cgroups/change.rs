//! A change of limits and device rules, all of it or nothing.

use super::apply::failure;
use super::cgroup::Cgroup;
use super::devices::Change;
use super::dir::Dir;
use super::exceptions::Exceptions;
use super::plan::CgroupPlan;
use super::steps::{DeviceLine, Step};
use crate::error::{Failure, Problem};
use crate::sys::{CallResult, bpf};

/// What takes a change of device rules back.
enum Undo<'a> {
    /// Version 1: what the list was, and where it can be read only in part, the lines that led to it.
    List(&'a Dir, Exceptions, &'a [DeviceLine]),
    /// Version 2: the program that decides now, and the one that decided before.
    Program(&'a Dir, std::os::fd::OwnedFd, Vec<std::os::fd::OwnedFd>),
}

impl Cgroup {
    /// Carries out a change of limits and of device rules: if a value is refused, or what has to be done `afterwards` fails,
    /// the files get back what they had, and the devices are those from before.
    ///
    /// # Errors
    /// As [`Cgroup::apply`], or those of `afterwards`.
    pub fn update(
        &self,
        plan: &CgroupPlan,
        devices: Option<&Change>,
        afterwards: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Vec<Problem>, Failure> {
        let before = self.snapshot(plan);
        let limits = self.apply(plan);
        let done = limits.and_then(|warnings| {
            let undo = devices.map(|change| self.change_devices(change)).transpose()?;
            match afterwards() {
                Ok(()) => Ok(warnings),
                Err(failure) => {
                    undo.into_iter().for_each(Undo::run);
                    Err(failure)
                }
            }
        });
        if done.is_err() {
            // Twice: of two values that bound each other one may be refused until the other is back.
            for _ in 0..2 {
                before.iter().rev().for_each(|(dir, file, value)| drop(dir.write(file, value)));
            }
        }
        done
    }

    /// What the files that a plan writes say now, as it has to be written to be in force again.
    fn snapshot<'a>(&'a self, plan: &'a CgroupPlan) -> Vec<(&'a Dir, &'a str, String)> {
        let writes = plan.steps.iter().filter_map(|planned| match &planned.step {
            Step::Write(write) => Some(write),
            _ => None,
        });
        let files = writes.flat_map(|write| {
            let instead = write.instead.iter().map(move |(file, value)| (write.place, file.as_str(), value.as_str()));
            std::iter::once((write.place, write.file.as_str(), write.value.as_str())).chain(instead)
        });
        let saved = |(place, file, value): (usize, &'a str, &str)| {
            let dir = self.at(place).ok()?;
            let content = dir.read_if_present(file).ok()??;
            Some((dir, file, previous(file, value, &content)))
        };
        files.filter_map(saved).collect()
    }

    fn change_devices<'a>(&'a self, change: &'a Change) -> Result<Undo<'a>, Failure> {
        let refused = |call| failure(call, &change.step);
        match &change.step.step {
            Step::DeviceList { place, lines } => {
                let dir = self.at(*place)?;
                let before = dir.read("devices.list").map(|list| Exceptions::read(&list)).map_err(refused)?;
                let undo = Undo::List(dir, before, &change.before);
                if let Err(call) = change_list(dir, &Exceptions::after(lines), lines) {
                    undo.run();
                    return Err(refused(call));
                }
                Ok(undo)
            }
            Step::DeviceProgram { place, instructions, .. } => {
                let dir = self.at(*place)?;
                let old = bpf::device_programs(dir).map_err(refused)?;
                let new = bpf::load_device_program(instructions).map_err(refused)?;
                exchange(dir, &new, &old).map_err(refused)?;
                Ok(Undo::Program(dir, new, old))
            }
            _ => Err(Failure::because("expected a step about devices")),
        }
    }
}

impl Undo<'_> {
    /// As far as it goes: the failure that led here is the one to be reported.
    fn run(self) {
        match self {
            Self::List(dir, before, lines) if before.allows() => drop(write_lines(dir, lines)),
            Self::List(dir, before, lines) => drop(change_list(dir, &before, lines)),
            Self::Program(dir, new, old) => match old.as_slice() {
                [only] => drop(bpf::replace_device_program(dir, only, &new)),
                several => {
                    let back = several.iter().try_for_each(|program| bpf::attach_device_program(dir, program));
                    drop(back.and_then(|()| bpf::detach_device_program(dir, &new)));
                }
            },
        }
    }
}

/// From the list that is in force to another one, which `lines` lead to as well, from anywhere.
fn change_list(dir: &Dir, there: &Exceptions, lines: &[DeviceLine]) -> CallResult<()> {
    let here = Exceptions::read(&dir.read("devices.list")?);
    match here.way_to(there) {
        Some(way) => write_lines(dir, &way),
        // The kernel forgets all exceptions with the rule about everything: for a moment only that is in force.
        None => write_lines(dir, lines),
    }
}

/// Lines for `devices.allow` and `devices.deny` of version 1: one write(2) for each, and a file is opened once for all that follow each other.
pub(super) fn write_lines(dir: &Dir, lines: &[DeviceLine]) -> CallResult<()> {
    lines.chunk_by(|one, next| one.allow == next.allow).try_for_each(|lines| {
        let file = if lines[0].allow { "devices.allow" } else { "devices.deny" };
        dir.write_each(file, lines.iter().map(|line| line.text.as_str()))
    })
}

/// One program for another in a single call; in place of none or of several (others attach theirs, too), the new one is
/// attached before the old ones are detached: the kernel asks all of them, so that in between only what all allow is possible.
pub(super) fn exchange(dir: &Dir, new: &std::os::fd::OwnedFd, old: &[std::os::fd::OwnedFd]) -> CallResult<()> {
    if let [only] = old {
        match bpf::replace_device_program(dir, new, only) {
            // Linux 5.6; and programs that were attached without BPF_F_ALLOW_MULTI cannot be named.
            Err(error) if error.is(libc::EINVAL) || error.is(libc::EPERM) || error.is(libc::ENOENT) => {}
            other => return other,
        }
    }
    bpf::attach_device_program(dir, new)?;
    old.iter().try_for_each(|old| bpf::detach_device_program(dir, old))
}

/// The value that undoes a write to a file with this content. In files that have a line per device it is the device's line, or
/// what means that there is none.
fn previous(file: &str, value: &str, content: &str) -> String {
    let key = value.split(' ').next().filter(|key| key.contains(':') || file == "rdma.max" || *key == "default");
    let Some(key) = key else {
        // memory.oom_control of version 1 shows more than it takes.
        let first = content.lines().next().unwrap_or_default();
        return first.strip_prefix("oom_kill_disable ").unwrap_or(first).to_owned();
    };
    let line = content.lines().find(|line| line.split(' ').next() == Some(key));
    line.map_or_else(|| format!("{key} {}", nothing(file)), str::to_owned)
}

/// How a file is told that a device has no setting.
fn nothing(file: &str) -> &'static str {
    match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.weight" | "io.bfq.weight" => "default",
        "rdma.max" => "hca_handle=max hca_object=max",
        _ => "0",
    }
}

#[cfg(test)]
mod tests {
    use super::previous;

    #[test]
    fn what_undoes_a_write() {
        let io = "8:0 rbps=1 wbps=max riops=max wiops=max\n";
        assert_eq!(previous("memory.max", "5", "max\n"), "max");
        assert_eq!(previous("cpu.max", "5 6", "max 100000\n"), "max 100000");
        assert_eq!(previous("cpuset.cpus", "0", "\n"), "");
        assert_eq!(previous("io.max", "8:0 rbps=9", io), io.trim_end());
        assert_eq!(previous("io.max", "8:16 rbps=9", io), "8:16 rbps=max wbps=max riops=max wiops=max");
        assert_eq!(previous("blkio.throttle.read_bps_device", "8:0 9", ""), "8:0 0");
        assert_eq!(previous("io.weight", "default 5", "default 100\n"), "default 100");
        assert_eq!(previous("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\n"), "0");
    }
}
