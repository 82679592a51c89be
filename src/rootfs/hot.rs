//! Mounts in the root of a container that exists: attached to, and taken away from, descriptors that were checked.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure};
use crate::procfs::ProcFs;
use crate::sys::mount::umount2;
use crate::sys::{CallResult, fs};

use super::mounts;
use super::root::{InRoot, Root};
use super::steps::MountStep;

/// A mount that was added to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Where, as the list said it.
    pub destination: PathBuf,
    /// The number that the kernel gave it, the first field of proc_pid_mountinfo(5). Another mount can have it later, but none that was
    /// there before: what masks a path of the container is not mistaken for it.
    pub mount: u64,
}

/// The filesystems in which the kernel shows itself.
const KERNEL_S: [i64; 4] = [libc::PROC_SUPER_MAGIC, libc::SYSFS_MAGIC, libc::CGROUP_SUPER_MAGIC, libc::CGROUP2_SUPER_MAGIC];

/// The groups of peers among which mounts of a mount table spread: the numbers of its `shared:N`.
pub fn peer_groups(mountinfo: &str) -> Vec<&str> {
    mountinfo.lines().flat_map(|line| line.split(' ').skip(6).take_while(|word| *word != "-")).filter_map(shared).collect()
}

fn shared(word: &str) -> Option<&str> {
    word.strip_prefix("shared:")
}

/// The numbers of the mounts of a mount table.
pub fn numbers(mountinfo: &str) -> Vec<u64> {
    mountinfo.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// Attaches a detached mount. What its destination leads to now is what is looked at and what is mounted on: the path, which programs of
/// the container may exchange at any time, is resolved once. `host_groups` are the peer groups of the caller's mounts.
///
/// # Errors
/// If that is no place for a mount, and the kernel's.
pub fn attach(
    step: &MountStep,
    root: &Root,
    detached: &OwnedFd,
    procfs: &ProcFs,
    host_groups: &[String],
) -> Result<Added, Failure> {
    let target = mounts::bind_target(step, root, fs::fstat(detached)?.is_dir())?;
    if KERNEL_S.contains(&fs::fstatfs(&target)?.magic) {
        let text = format!("{} leads to a filesystem of the kernel's; expected a place of the container's own", step.destination);
        return Err(Failure::because(text));
    }
    stays_in_the_container(&target, procfs, host_groups)?;
    mounts::change(detached, step.own, false)?;
    mounts::finish(step, detached, &target)?;
    Ok(Added { destination: step.destination.as_path().to_owned(), mount: fs::mount_of(detached)?.number })
}

/// Below a mount that is shared with the host the new one would come up there as well.
fn stays_in_the_container(target: &OwnedFd, procfs: &ProcFs, host_groups: &[String]) -> Result<(), Failure> {
    let number = fs::mount_of(target)?.number.to_string();
    let table = procfs.read("self/mountinfo").doing(|| "read the container's mounts")?;
    let line = table.lines().find(|line| line.split(' ').next() == Some(&number));
    let line =
        line.ok_or_else(|| Failure::because("the mount point is on a mount that the container's root does not lead to"))?;
    let groups = peer_groups(line);
    match groups.iter().any(|group| host_groups.iter().any(|host| host == group)) {
        true => {
            Err(Failure::because("the mount point is on a mount that is shared with the host; the new mount would be there, too"))
        }
        false => Ok(()),
    }
}

/// The mount on a destination, which must be the one that was added there.
///
/// # Errors
/// If it is another one, or none.
pub fn find(destination: &InRoot, root: &Root, added: &[Added]) -> Result<(OwnedFd, Added), Failure> {
    let target = root.resolve(destination).doing(|| format!("find the mount on {destination}"))?;
    let here = fs::mount_of(&target)?;
    let is_it = |added: &&Added| here.is_its_root && added.mount == here.number && added.destination == destination.as_path();
    match added.iter().find(is_it) {
        Some(found) => Ok((target, found.clone())),
        None => Err(Failure::because(format!("what is on {destination} now is not what `rt mounts add` mounted there"))),
    }
}

/// Takes the mount away whose root a descriptor names, with all below. The way to the descriptor is the verified procfs: what the container
/// has on its /proc plays no part.
///
/// # Errors
/// The kernel's; `EINVAL` if it is not mounted.
pub fn take_away(mount: &OwnedFd, procfs: &ProcFs) -> CallResult<()> {
    procfs.enter()?;
    // The last component is a link of procfs to the descriptor itself; nothing after it is looked up.
    umount2(Path::new(&format!("self/fd/{}", mount.as_raw_fd())), libc::MNT_DETACH)
}

#[cfg(test)]
mod tests {
    use super::{numbers, peer_groups};

    #[test]
    fn tables_are_read() {
        let table = "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n30 24 0:5 / /a rw shared:7 master:2 - tmpfs shared:9 rw\n31 24 0:6 / /b rw - tmpfs t rw\n";
        assert_eq!(peer_groups(table), ["1", "7"]);
        assert_eq!(numbers(table), [24, 30, 31]);
    }
}
