//! The steps that init takes to build and enter the root filesystem.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cgroup_mount::CgroupMount;
use super::options::{Change, Links, PropagationChange};
use super::root::InRoot;
use crate::spec::IdMapping;
use crate::sys::mount::attr;

/// Who opens the source of a bind mount or of the rootfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenedBy {
    /// The launcher, with the caller's rights, before the user namespace changes what they are.
    Launcher,
    /// Init, in its own mount namespace.
    Init,
    /// Init, from what the launcher has found, and in the launcher's mount namespace: the clone stays a peer of the host's mount.
    InitOutside,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    /// A new filesystem.
    Filesystem {
        /// Its type, as in /proc/filesystems.
        fstype: String,
        /// Its source, if one is named.
        source: Option<String>,
        /// Options that every filesystem understands.
        superblock: Vec<&'static str>,
        /// The filesystem's own options.
        data: Vec<(String, Option<String>)>,
    },
    /// A part of the host's file tree.
    Bind {
        /// Its place on the host.
        source: PathBuf,
        /// With all mounts below.
        recursive: bool,
        /// Who opens it.
        opened_by: OpenedBy,
    },
    /// The control group hierarchies.
    Cgroup(CgroupMount),
    /// The mount that is there.
    Remount {
        /// Options that every filesystem understands.
        superblock: Vec<&'static str>,
        /// The filesystem's own options.
        data: Vec<(String, Option<String>)>,
    },
}

/// The ids of a mount are mapped (mount_setattr(2), "ID-mapped mounts").
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MountMap {
    /// User ids: what the filesystem says, and which id that is on the host. Without any, the joined user namespace is the map.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
    /// For all mounts below, too.
    pub recursive: bool,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MountStep {
    /// Its number in `mounts`.
    pub index: usize,
    /// Where it is mounted.
    pub destination: InRoot,
    /// What is mounted.
    pub kind: MountKind,
    /// Attributes of the mount.
    pub own: Change,
    /// Attributes of the mount and all below it.
    pub all: Change,
    /// Propagation.
    pub propagation: Vec<PropagationChange>,
    /// Copy what the mount hides into it.
    pub copy_up: bool,
    /// The destination must not go through a link (proc, sysfs).
    pub plain_destination: bool,
    /// Which symbolic links are not followed.
    #[serde(skip_serializing_if = "Links::followed")]
    pub links: Links,
    /// Its ids are mapped: the launcher makes such a mount, because init has no rights over what is mapped to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_map: Option<MountMap>,
    /// The SELinux label of its root directory, for a filesystem that is there before it is mounted and takes no option for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_label: Option<String>,
}

/// What has to be done for a mount with the rights and in the namespaces of the caller, before anybody is in the container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation<'a> {
    /// The source of a bind mount is cloned.
    Clone {
        /// Its place on the host.
        source: &'a Path,
        /// With all mounts below.
        recursive: bool,
    },
    /// The source of a bind mount is found; init clones it.
    Find {
        /// Its place on the host.
        source: &'a Path,
    },
    /// A filesystem is made whose ids will be mapped.
    Make(&'a MountKind),
}

impl MountStep {
    /// What has to be done before; mostly nothing.
    pub fn preparation(&self) -> Option<Preparation<'_>> {
        match &self.kind {
            MountKind::Bind { source, recursive, opened_by: OpenedBy::Launcher } => {
                Some(Preparation::Clone { source, recursive: *recursive })
            }
            MountKind::Bind { source, opened_by: OpenedBy::InitOutside, .. } => Some(Preparation::Find { source }),
            kind @ MountKind::Filesystem { .. } if self.id_map.is_some() => Some(Preparation::Make(kind)),
            _ => None,
        }
    }
}

/// A device node, or its stand-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStep {
    /// Where it is.
    pub path: InRoot,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Its numbers.
    pub major: u32,
    /// Its numbers.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Bind the host's node of this name instead of making one, which a user namespace may not.
    pub bind: bool,
    /// The config says which mode it is to have.
    #[serde(skip)]
    pub mode_asked: bool,
}

/// How the container's root becomes `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// pivot_root(2), and the old root is unmounted.
    Pivot,
    /// The root is moved over `/`, then chroot(2) (`--no-pivot`).
    Move,
    /// chroot(2) alone: there is no mount namespace of its own.
    Chroot,
}

/// What init does to the root filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RootfsStep {
    /// Sets the propagation of every mount of the new mount namespace, so that nothing reaches the host.
    Propagation(PropagationChange),
    /// Attaches the rootfs as a mount of its own.
    AttachRoot {
        /// Where it is on the host.
        path: PathBuf,
        /// Who opens it.
        opened_by: OpenedBy,
    },
    /// A mount.
    Mount(Box<MountStep>),
    /// A device node.
    Device(DeviceStep),
    /// A symbolic link below /dev.
    Link {
        /// Where it is.
        path: InRoot,
        /// What it says.
        target: PathBuf,
        /// Replace what is there.
        replace: bool,
    },
    /// A kernel parameter of one of the container's namespaces.
    Sysctl {
        /// The path below /proc/sys.
        path: String,
        /// What is written.
        value: String,
    },
    /// The host name.
    Hostname(String),
    /// The NIS domain name.
    Domainname(String),
    /// A path that can be read but not written.
    ReadonlyPath(InRoot),
    /// A path that is empty.
    MaskedPath(InRoot),
    /// The root becomes read-only.
    ReadonlyRoot,
    /// The root becomes `/`.
    SwitchRoot(Switch),
    /// The propagation of the container's root mount.
    RootPropagation(PropagationChange),
}

impl fmt::Display for RootfsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propagation(change) => write!(f, "make every mount {change}"),
            Self::AttachRoot { path, opened_by: OpenedBy::Init } => write!(f, "attach rootfs {}", path.display()),
            Self::AttachRoot { path, .. } => write!(f, "attach rootfs {} (opened by the launcher)", path.display()),
            Self::Mount(mount) => write!(f, "{mount}"),
            Self::Device(device) => write!(f, "{device}"),
            Self::Link { path, target, .. } => write!(f, "link {path} -> {}", target.display()),
            Self::Sysctl { path, value } => write!(f, "set sysctl {path} to {value:?}"),
            Self::Hostname(name) => write!(f, "set host name {name:?}"),
            Self::Domainname(name) => write!(f, "set domain name {name:?}"),
            Self::ReadonlyPath(path) => write!(f, "make {path} read-only"),
            Self::MaskedPath(path) => write!(f, "mask {path}"),
            Self::ReadonlyRoot => write!(f, "make / read-only"),
            Self::SwitchRoot(Switch::Pivot) => write!(f, "pivot to the rootfs"),
            Self::SwitchRoot(Switch::Move) => write!(f, "move the rootfs to / and change root"),
            Self::SwitchRoot(Switch::Chroot) => write!(f, "change root to the rootfs"),
            Self::RootPropagation(change) => write!(f, "make / {change}"),
        }
    }
}

impl fmt::Display for MountMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = |map: &IdMapping| format!("{}+{} to {}", map.container_id, map.size, map.host_id);
        let list = |entries: &[IdMapping]| entries.iter().map(entry).collect::<Vec<_>>().join(", ");
        write!(f, "{}", if self.recursive { " and of all below" } else { "" })?;
        if self.uids.is_empty() {
            return write!(f, " as the joined user namespace does");
        }
        write!(f, ": uids {}; gids {}", list(&self.uids), list(&self.gids))
    }
}

impl fmt::Display for MountStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            MountKind::Filesystem { fstype, .. } => write!(f, "mount {fstype} on {}", self.destination)?,
            MountKind::Bind { source, recursive, .. } => {
                write!(f, "bind{} {} on {}", if *recursive { " recursively" } else { "" }, source.display(), self.destination)?;
            }
            MountKind::Cgroup(_) => write!(f, "mount cgroup on {}", self.destination)?,
            MountKind::Remount { .. } => write!(f, "remount {}", self.destination)?,
        }
        let mut words = words_of(self.own, false);
        words.extend(words_of(self.all, true));
        if let MountKind::Filesystem { superblock, data, .. } = &self.kind {
            words.extend(superblock.iter().map(|key| (*key).to_owned()));
            words.extend(
                data.iter().map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"))),
            );
        }
        words.extend(self.propagation.iter().map(ToString::to_string));
        words.extend(self.links.words().map(str::to_owned));
        if self.copy_up {
            words.push("copying up".to_owned());
        }
        words.extend(self.root_label.iter().map(|label| format!("its root labelled {label}")));
        if words.is_empty() { Ok(()) } else { write!(f, ": {}", words.join(",")) }
    }
}

/// Attributes as option words.
fn words_of(change: Change, recursive: bool) -> Vec<String> {
    let names = [
        (attr::RDONLY, "ro", "rw"),
        (attr::NOSUID, "nosuid", "suid"),
        (attr::NODEV, "nodev", "dev"),
        (attr::NOEXEC, "noexec", "exec"),
        (attr::NODIRATIME, "nodiratime", "diratime"),
        (attr::NOSYMFOLLOW, "nosymfollow", "symfollow"),
    ];
    let mut words: Vec<&str> = Vec::new();
    for (bit, set, clear) in names {
        words.extend((change.set & bit != 0).then_some(set));
        words.extend((change.clear & bit != 0).then_some(clear));
    }
    if change.clear & attr::ATIME != 0 {
        words.push(match change.set & attr::ATIME {
            attr::NOATIME => "noatime",
            attr::STRICTATIME => "strictatime",
            _ => "relatime",
        });
    }
    words.into_iter().map(|word| format!("{}{word}", if recursive { "r" } else { "" })).collect()
}

impl fmt::Display for PropagationChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.flag {
            libc::MS_SHARED => "shared",
            libc::MS_SLAVE => "slave",
            libc::MS_PRIVATE => "private",
            _ => "unbindable",
        };
        write!(f, "{}{word}", if self.recursive { "r" } else { "" })
    }
}

impl fmt::Display for DeviceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, path) = (if self.bind { "bind the host's device on" } else { "make device" }, &self.path);
        match self.kind {
            libc::S_IFIFO => write!(f, "make fifo {path}, mode {:o}", self.mode),
            kind => {
                let letter = if kind == libc::S_IFCHR { 'c' } else { 'b' };
                write!(f, "{verb} {path}: {letter} {}:{}, mode {:o}", self.major, self.minor, self.mode)?;
                if (self.uid, self.gid) == (0, 0) { Ok(()) } else { write!(f, ", owner {}:{}", self.uid, self.gid) }
            }
        }
    }
}
