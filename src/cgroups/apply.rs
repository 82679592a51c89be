//! Carrying out the steps of a plan.

use std::path::Path;

use super::cgroup::Cgroup;
use super::change::{exchange, write_lines};
use super::dir::Dir;
use super::plan::CgroupPlan;
use super::steps::{Place, Step, Tolerance, Write};
use crate::error::{Doing, Failure, Problem};
use crate::plan::{Origin, Planned};
use crate::spec::Field;
use crate::sys::fs::{fchownat, openat, read_to_end};
use crate::sys::{At, CallError, CallResult, bpf};

/// `ENOTSUPP`, which the kernel leaks to user space here and there; libc has no name for it.
const ENOTSUPP: i32 = 524;

impl Cgroup {
    /// Carries out the steps of a plan that was made for these directories. What the plan lets fail becomes a warning.
    ///
    /// # Errors
    /// The first refusal that the plan does not let pass, with file, value and config path.
    pub fn apply(&self, plan: &CgroupPlan) -> Result<Vec<Problem>, Failure> {
        let mut warnings = Vec::new();
        let mut again = Vec::new();
        for planned in &plan.steps {
            if let Err(call) = self.step(planned)? {
                match &planned.step {
                    Step::Write(write) if write.again => again.push((planned, write)),
                    Step::Write(write) => judge(write.tolerance, call, planned, &mut warnings)?,
                    Step::Enable { tolerance, .. } => judge(*tolerance, call, planned, &mut warnings)?,
                    _ => return Err(failure(call, planned)),
                }
            }
        }
        for (planned, write) in again {
            if let Err(call) = self.write(write)? {
                judge(write.tolerance, call, planned, &mut warnings)?;
            }
        }
        Ok(warnings)
    }

    /// The inner result is the kernel's refusal, the outer one any other failure.
    fn step(&self, planned: &Planned<Step>) -> Result<CallResult<()>, Failure> {
        Ok(match &planned.step {
            Step::Enable { place, controllers, required, .. } => {
                enable(&self.record.directories[*place].place, controllers, required)
            }
            Step::CheckMemory { place, limit } => return check_memory(self.at(*place)?, *limit, planned).map(Ok),
            Step::Write(write) => self.write(write)?,
            Step::DeviceList { place, lines } => write_lines(self.at(*place)?, lines),
            Step::DeviceProgram { place, instructions, .. } => device_program(self.at(*place)?, instructions),
            Step::Delegate { place, uid } => delegate(self.at(*place)?, *uid),
            Step::Account { place, controllers } => account(&self.record.directories[*place].place, controllers),
            Step::MakeChild { place, name, owner } => make_child(self.at(*place)?, name, *owner),
        })
    }

    pub(super) fn at(&self, place: usize) -> Result<&Dir, Failure> {
        let missing = || match self.record.directories.get(place) {
            Some(recorded) => Failure::because(format!("{} does not exist", recorded.place)),
            None => Failure::because("the plan was made for other cgroups"),
        };
        self.dirs.get(place).and_then(Option::as_ref).ok_or_else(missing)
    }

    fn write(&self, write: &Write) -> Result<CallResult<()>, Failure> {
        let dir = self.at(write.place)?;
        Ok(match (dir.write(&write.file, &write.value), &write.instead) {
            (Err(error), Some((file, value))) if error.is(libc::ENOENT) => dir.write(file, value),
            (other, _) => other,
        })
    }
}

pub(super) fn failure(call: CallError, planned: &Planned<Step>) -> Failure {
    Failure::from(call).doing(&planned.step).origin(&planned.origin)
}

/// What the kernel says where it does not have something, or not for us.
pub(super) const UNSUPPORTED: [i32; 7] =
    [libc::ENOENT, libc::EACCES, libc::EPERM, libc::EROFS, libc::EOPNOTSUPP, ENOTSUPP, libc::ENODEV];

/// What a refused write means.
fn judge(tolerance: Tolerance, call: CallError, planned: &Planned<Step>, warnings: &mut Vec<Problem>) -> Result<(), Failure> {
    let passes = match tolerance {
        Tolerance::Required => false,
        Tolerance::Warn => true,
        // A cgroup that has processes of its own cannot have controllers enabled below it: what an ordinary user meets who
        // has a delegated cgroup and sits in it.
        Tolerance::WarnIfUnsupported => {
            UNSUPPORTED.contains(&call.errno) || (call.is(libc::EBUSY) && matches!(planned.step, Step::Enable { .. }))
        }
        Tolerance::IfPresent if call.is(libc::ENOENT) => return Ok(()),
        Tolerance::IfPresent => false,
    };
    if !passes {
        return Err(failure(call, planned));
    }
    let field = match &planned.origin {
        Origin::Config(field) => field.clone(),
        Origin::Flag(name) | Origin::Default(name) => Field::from(*name),
    };
    let busy = call.is(libc::EBUSY) && matches!(planned.step, Step::Enable { .. });
    let why = if busy {
        " (the cgroup has processes of its own, which have to move below first; in its directory: `mkdir rest && for p in $(cat \
         cgroup.procs); do echo $p > rest/cgroup.procs; done`; where the user has a systemd, `rt --systemd-cgroup ...` needs no such step)"
    } else {
        ""
    };
    warnings.push(Problem::new(field, format!("not applied: {}: {call}{why}", planned.step)));
    Ok(())
}

/// Enables controllers from the mount point down to the directory above the container's. Directories that are not ours to
/// change are skipped; what counts is whether the required ones arrive.
fn enable(place: &Place, controllers: &[String], required: &[String]) -> CallResult<()> {
    let mount = Dir::mount(&place.mount)?;
    let mut refusal = None;
    for level in std::iter::once(Path::new("")).chain(place.path.parent().into_iter().flat_map(levels)) {
        let dir = mount.below(level)?;
        if let Err(error) = enable_in(&dir, controllers, required) {
            let foreign = [libc::EACCES, libc::EPERM, libc::EROFS].contains(&error.errno);
            refusal = Some(error);
            // What is not ours to change may be right as it is; any other refusal also stops those below.
            if !foreign {
                break;
            }
        }
    }
    let arrived = mount.below(&place.path)?.read("cgroup.controllers")?;
    let missing = required.iter().find(|name| !arrived.split_whitespace().any(|word| word == *name));
    match (missing, refusal) {
        (None, _) => Ok(()),
        (Some(_), Some(error)) => Err(error),
        (Some(name), None) => Err(CallError::new("write", format!("\"cgroup.subtree_control\", \"+{name}\""), libc::ENOENT)),
    }
}

/// A relative path's ancestors, outermost first, without the empty one, the path itself last.
fn levels(path: &Path) -> Vec<&Path> {
    let mut levels: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    levels.reverse();
    levels
}

/// All at once; one by one if that is refused, and then only a required one's refusal counts.
fn enable_in(dir: &Dir, controllers: &[String], required: &[String]) -> CallResult<()> {
    let missing = not_enabled(dir, controllers)?;
    if missing.is_empty() {
        return Ok(());
    }
    let all = enabling(&missing);
    check_uninhabited(dir, &all)?;
    if dir.write(SUBTREE_CONTROL, &all).is_ok() {
        return Ok(());
    }
    let mut refusal = Ok(());
    for name in missing {
        let written = dir.write(SUBTREE_CONTROL, &enabling(&[name]));
        if written.is_err() && refusal.is_ok() && required.contains(name) {
            refusal = written;
        }
    }
    refusal
}

const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// Those that the directory does not pass on.
pub(super) fn not_enabled<'a>(dir: &Dir, controllers: &'a [String]) -> CallResult<Vec<&'a String>> {
    let enabled = dir.read(SUBTREE_CONTROL)?;
    Ok(controllers.iter().filter(|name| !enabled.split_whitespace().any(|word| word == *name)).collect())
}

/// The line that enables them.
pub(super) fn enabling(controllers: &[&String]) -> String {
    controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

/// Controllers cannot be enabled where the directory has processes of its own, which is allowed to the root only: it has no
/// cgroup.type.
///
/// The write is not even tried. The kernel refuses it for most controllers, but grants the threaded ones (cpu, cpuset, pids),
/// and that turns the directory into a threaded domain in which no container can be started any more.
pub(super) fn check_uninhabited(dir: &Dir, line: &str) -> CallResult<()> {
    let is_root = dir.read_if_present("cgroup.type")?.is_none();
    if is_root || dir.read("cgroup.procs")?.is_empty() {
        return Ok(());
    }
    Err(CallError::new("write", format!("{:?}, {line:?}", dir.path().join(SUBTREE_CONTROL)), libc::EBUSY))
}

/// Whatever of these the directory above has, and may pass on.
fn account(place: &Place, controllers: &[String]) -> CallResult<()> {
    let above = Dir::mount(&place.mount)?.below(place.path.parent().unwrap_or(Path::new("")))?;
    let offered = above.read("cgroup.controllers")?;
    let wanted: Vec<String> =
        controllers.iter().filter(|name| offered.split_whitespace().any(|word| word == *name)).cloned().collect();
    enable_in(&above, &wanted, &[])
}

fn make_child(dir: &Dir, name: &str, owner: Option<u32>) -> CallResult<()> {
    super::dir::make(&dir.path().join(name))?;
    let child = dir.below(Path::new(name))?;
    owner.map_or(Ok(()), |uid| delegate(&child, uid))
}

fn check_memory(dir: &Dir, limit: u64, planned: &Planned<Step>) -> Result<(), Failure> {
    let current = dir.read("memory.current").doing(|| &planned.step)?;
    match current.trim().parse::<u64>() {
        Ok(usage) if usage > limit => {
            let text = format!("expected a limit above the memory in use, which is {usage} bytes, found {limit}");
            Err(Failure::because(text).doing(&planned.step).origin(&planned.origin))
        }
        _ => Ok(()),
    }
}

fn device_program(dir: &Dir, instructions: &[u64]) -> CallResult<()> {
    let program = bpf::load_device_program(instructions)?;
    exchange(dir, &program, &bpf::device_programs(dir)?)
}

/// The files that a delegatee may own, if the kernel does not list them itself (runtime-spec, "Cgroup ownership").
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

fn delegate(dir: &Dir, uid: u32) -> CallResult<()> {
    let list = openat(At::Cwd, Path::new("/sys/kernel/cgroup/delegate"), libc::O_RDONLY, 0)
        .and_then(|fd| read_to_end(fd, 1 << 16))
        .map_or_else(|_| DELEGATED.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    fchownat(At::from(dir), Path::new(""), uid, u32::MAX)?;
    for file in list.lines().filter(|file| !file.contains('/')) {
        match fchownat(At::from(dir), Path::new(file), uid, u32::MAX) {
            Err(error) if error.is(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}
