//! Looking at a container that is to be dumped.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::{CONFIG_FILES, DumpFacts, Mounted, Outside, Stdio, config_file};
use crate::cgroups::{CgroupRecord, Version};
use crate::error::{Doing, Failure};
use crate::namespaces::Kind;
use crate::procfs::ProcFs;
use crate::rootfs::{InRoot, Root};
use crate::spec::StringMap;
use crate::sys::{At, CallResult, fs};

/// Looks at everything that planning a dump asks for.
///
/// # Errors
/// The kernel's; the container may end at any moment.
pub fn of_container(pid: i32, outside: &[Outside], cgroup: &CgroupRecord, annotations: &StringMap) -> Result<DumpFacts, Failure> {
    let procfs = ProcFs::open()?;
    let doing = || format!("look at process {pid}");
    let namespace = |kind: Kind| -> CallResult<(Kind, u64)> {
        let namespace = procfs.open_namespace(&format!("{pid}/ns/{}", kind.proc_name()))?;
        Ok((kind, fs::fstat(&namespace)?.ino))
    };
    let mounts = mounted(&procfs.read(&format!("{pid}/mountinfo")).doing(doing)?);
    Ok(DumpFacts {
        pid,
        stdio: standard_descriptors(pid, &mounts, &procfs).doing(doing)?,
        mounts,
        host_devices: mounted(&procfs.read("self/mountinfo")?).into_iter().map(|mounted| mounted.device).collect(),
        outside: mount_points(pid, outside, &procfs)?,
        namespaces: [Kind::Network, Kind::Pid].into_iter().map(namespace).collect::<CallResult<_>>().doing(doing)?,
        freezer: freezer(cgroup),
        config_file: existing_config_file(annotations),
    })
}

/// The processes of a container that do not descend from its first one: CRIU does not see what exec has started.
///
/// # Errors
/// The kernel's.
pub fn not_descendants(init: i32, processes: &[i32]) -> Result<Vec<i32>, Failure> {
    let procfs = ProcFs::open()?;
    let parent = |pid: i32| -> Option<i32> {
        let status = procfs.read(&format!("{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
    };
    // A process that ends meanwhile has no parent to be found, and is nobody's concern.
    let is_strange = |pid: &i32| {
        let mut ancestors = std::iter::successors(Some(*pid), |pid| if *pid == init { None } else { parent(*pid) });
        let top = ancestors.find(|pid| *pid <= 1 || *pid == init);
        top.is_some_and(|pid| pid != init)
    };
    Ok(processes.iter().copied().filter(is_strange).collect())
}

/// CRIU's configuration file: that of the annotation, or the first of the usual ones that exists.
pub fn existing_config_file(annotations: &StringMap) -> Option<PathBuf> {
    let usual = || CONFIG_FILES.iter().map(PathBuf::from).find(|path| path.exists());
    config_file(annotations).unwrap_or_else(usual)
}

/// The mounts of a process and of its mount namespace (proc_pid_mountinfo(5)).
pub fn mounted(mountinfo: &str) -> Vec<Mounted> {
    mountinfo.lines().filter_map(mounted_line).collect()
}

fn mounted_line(line: &str) -> Option<Mounted> {
    let mut words = line.split(' ');
    let id = words.next()?.parse().ok()?;
    let device = words.nth(1)?.to_owned();
    let point = unescape(words.nth(1)?);
    Some(Mounted { id, device, point, options: words.next()?.to_owned() })
}

/// Undoes the escapes of the mount table: a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\').then(|| after.get(..3)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the destinations of the config lead to in the running container; one that leads nowhere is not mounted (any more).
///
/// # Errors
/// The kernel's.
pub fn mount_points(pid: i32, outside: &[Outside], procfs: &ProcFs) -> Result<Vec<(Outside, String)>, Failure> {
    if outside.is_empty() {
        return Ok(Vec::new());
    }
    let root = procfs.open_namespace_path(&format!("{pid}/root")).doing(|| "open the container's root")?;
    let root = Root::new(root);
    let mut found = Vec::new();
    for outside in outside {
        if let Ok(place) = root.resolve(&InRoot::new(&outside.destination)) {
            found.push((outside.clone(), path_of(&place)?));
        }
    }
    Ok(found)
}

/// The path of what a descriptor leads to, seen from the root of its mount namespace.
fn path_of(fd: &OwnedFd) -> CallResult<String> {
    let link = fs::readlinkat(At::Cwd, Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))?;
    Ok(link.to_string_lossy().into_owned())
}

/// How often it is looked whether a descriptor has changed, and the time in between.
const GLANCES: (u32, Duration) = (10, Duration::from_millis(1));
/// Where shells begin to keep what they have put something else in the place of (dup(2) with `F_DUPFD`, 10).
const FIRST_KEPT: i32 = 10;

/// What stdio leads to. A shell puts a file in the place of its own standard output for as long as builtins write to it: then it is the
/// file outside of the container that the shell keeps meanwhile.
fn standard_descriptors(pid: i32, mounts: &[Mounted], procfs: &ProcFs) -> CallResult<Vec<Option<Stdio>>> {
    let is_inside = |stdio: &Stdio| stdio.link.starts_with('/') && mounts.iter().any(|mounted| mounted.id == stdio.mount);
    let stable = |number| stable(|| stdio(pid, number, procfs), |found| found.as_ref().is_none_or(is_inside));
    let mut all: Vec<Option<Stdio>> = (0..3).map(stable).collect::<CallResult<_>>()?;
    if !all.iter().flatten().any(is_inside) {
        return Ok(all);
    }
    let folder = procfs.open_namespace_path(&format!("{pid}/fd"))?;
    let mut numbers: Vec<i32> = fs::list_dir(folder.as_fd())?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    for number in numbers.into_iter().filter(|number| *number >= FIRST_KEPT) {
        let Ok(Some(kept)) = stdio(pid, number, procfs) else { continue };
        let is_file = kept.link.starts_with('/') && !is_inside(&kept);
        let is_known = all.iter().flatten().any(|known| (known.mount, known.inode) == (kept.mount, kept.inode));
        let replaced = all.iter_mut().find(|found| found.as_ref().is_some_and(is_inside));
        if let Some(place) = replaced.filter(|_| is_file && !is_known) {
            *place = Some(kept);
        }
    }
    Ok(all)
}

/// What is found twice in a row, since it may change between the calls of one look; where possible, something that is not `unusual`.
fn stable<T: PartialEq>(look: impl Fn() -> CallResult<T>, unusual: impl Fn(&T) -> bool) -> CallResult<T> {
    let mut found = look();
    for _ in 0..GLANCES.0 {
        let again = look();
        if again == found && !again.as_ref().is_ok_and(&unusual) {
            break;
        }
        found = again;
        std::thread::sleep(GLANCES.1);
    }
    found
}

/// What a descriptor of a process leads to; nothing if it is closed.
fn stdio(pid: i32, number: i32, procfs: &ProcFs) -> CallResult<Option<Stdio>> {
    let path = format!("{pid}/fd/{number}");
    let link = match fs::readlinkat(At::Cwd, &Path::new("/proc").join(&path)) {
        Err(error) if error.is(libc::ENOENT) => return Ok(None),
        other => other?.to_string_lossy().into_owned(),
    };
    let info = procfs.read(&format!("{pid}/fdinfo/{number}"))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()).unwrap_or(0);
    let stat = fs::fstat(procfs.open_namespace_path(&path)?)?;
    let device = stat.is(libc::S_IFCHR).then_some((stat.rdev, stat.dev));
    Ok(Some(Stdio { link, mount, inode: stat.ino, device }))
}

/// The directory in which CRIU may freeze the container: where `pause` would.
fn freezer(cgroup: &CgroupRecord) -> Option<PathBuf> {
    let directories = || cgroup.directories.iter().map(|recorded| &recorded.place);
    let v2 = directories().find(|place| place.version == Version::V2).map(crate::cgroups::Place::directory);
    let v1 = directories().find(|place| place.version == Version::V1 && place.has("freezer"));
    v2.filter(|path| path.join("cgroup.freeze").exists()).or_else(|| v1.map(crate::cgroups::Place::directory))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mount_table() {
        let text = "31 23 0:28 /docker/x /sys/a\\040b\\134 rw,nosuid shared:4 - cgroup cgroup rw\nnonsense\n32 31 8:1 / / ro - ext4 d rw\n";
        let expected = [
            Mounted { id: 31, device: "0:28".into(), point: "/sys/a b\\".into(), options: "rw,nosuid".into() },
            Mounted { id: 32, device: "8:1".into(), point: "/".into(), options: "ro".into() },
        ];
        assert_eq!(mounted(text), expected);
    }
}
