//! What planning has to know about the control groups of the machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::base::{base, source};
use super::plan::Want;
use super::systemd::{Manager, Systemd, Which};
use crate::error::{Doing, Failure};
use crate::host::delegation::Delegation;
use crate::sys::fs::{faccessat, openat, read_to_end, statfs};
use crate::sys::{At, CallResult};

const ROOT: &str = "/sys/fs/cgroup";

/// A version 1 hierarchy that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its controllers; `name=systemd` for a named one without.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The calling process's place in it, absolute as seen from the mount point.
    pub own: PathBuf,
    /// True if directories can be made where the container's shall be.
    pub writable: bool,
}

/// The version 2 hierarchy, if it is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unified {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The calling process's place in it, absolute as seen from the mount point; for an ordinary user the base of its containers,
    /// where there is one (`base.rs`).
    pub own: PathBuf,
    /// The controllers that can be had in the container's directory.
    pub controllers: Vec<String>,
    /// True if directories can be made where the container's shall be.
    pub writable: bool,
}

/// The hierarchies of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Version 1.
    pub v1: Vec<Hierarchy>,
    /// Version 2; beside version 1 on a hybrid host.
    pub v2: Option<Unified>,
    /// systemd, if it shall manage the container's cgroup.
    #[serde(default)]
    pub systemd: Option<Systemd>,
    /// For a caller who has only what was delegated: how far that goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Delegation>,
}

impl Facts {
    /// A host with version 2 only and these controllers, for tests.
    pub fn unified_fixture(controllers: &[&str]) -> Self {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        let v2 = Unified { mount: ROOT.into(), own: "/own".into(), controllers, writable: true };
        Self { v1: Vec::new(), v2: Some(v2), systemd: None, delegation: None }
    }

    /// A hybrid host whose unified tree has the hugetlb controller only, for tests.
    pub fn hybrid_fixture() -> Self {
        let names = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"];
        let hierarchy = |name: &&str| Hierarchy {
            controllers: vec![(*name).to_owned()],
            mount: Path::new(ROOT).join(name.trim_start_matches("name=")),
            own: "/own".into(),
            writable: true,
        };
        let unified = Self::unified_fixture(&["hugetlb"]).v2.map(|v2| Unified { mount: Path::new(ROOT).join("unified"), ..v2 });
        Self { v1: names.iter().map(hierarchy).collect(), v2: unified, systemd: None, delegation: None }
    }
}

/// Looks at the machine: /proc/self/cgroup and a statfs(2) per hierarchy where it is usually mounted; the mount table is
/// read only if it is not there. `cgroups_path` is that of the config: whether directories can be made and which
/// controllers there are depends on it.
///
/// # Errors
/// If /proc/self/cgroup cannot be read. A hierarchy that is not visible is left out.
pub fn probe(id: &str, cgroups_path: Option<&str>, privileged: bool) -> Result<Facts, Failure> {
    let memberships = read("/proc/self/cgroup").doing(|| "find the own cgroups")?;
    // A path that the plan will refuse is as good as none here.
    let want = Want::new(id, cgroups_path, privileged).ok();
    let mut table = None;
    let mut facts = Facts::default();
    for membership in memberships.lines().filter_map(Membership::parse) {
        // Version 2 is listed last. Beside version 1 in the usual places it is in its own usual place, or nobody uses it.
        let may_be_elsewhere = membership.controllers.is_some() || facts.v1.is_empty() || table.is_some();
        let look_up = || membership.look_up(mount_table(&mut table));
        let found = membership.guess().or_else(|| may_be_elsewhere.then(look_up).flatten());
        let Some((mount, mut own)) = found else { continue };
        if !privileged && membership.controllers.is_none() {
            own = base(&mount, &own).unwrap_or(own);
        }
        let deepest = || deepest_existing(&mount, &want.as_ref().map_or_else(|| own.clone(), |want| want.below(&own)));
        let writable = privileged || faccessat(At::Cwd, &deepest(), libc::W_OK | libc::X_OK).is_ok();
        match membership.controllers {
            Some(controllers) => facts.v1.push(Hierarchy { controllers, mount, own, writable }),
            None => {
                let controllers = words(&read(source(&mount, &deepest()).join("cgroup.controllers")).unwrap_or_default());
                facts.v2 = Some(Unified { mount, own, controllers, writable });
            }
        }
    }
    Ok(facts)
}

/// Looks at the machine for a container whose cgroup systemd shall make: the controllers are those that its manager has to give.
///
/// # Errors
/// As [`probe`], or if systemd cannot be reached.
pub fn probe_systemd(id: &str, privileged: bool) -> Result<Facts, Failure> {
    let mut facts = probe(id, None, privileged)?;
    let systemd = Manager::probe(if privileged { Which::System } else { Which::User })?;
    if let Some(unified) = &mut facts.v2 {
        let manager = unified.mount.join(systemd.control_group.strip_prefix("/").unwrap_or(&systemd.control_group));
        unified.controllers = words(&read(manager.join("cgroup.controllers")).unwrap_or_default());
        unified.writable = true;
    }
    facts.systemd = Some(systemd);
    Ok(facts)
}

fn read(path: impl AsRef<Path>) -> CallResult<String> {
    let file = openat(At::Cwd, path.as_ref(), libc::O_RDONLY, 0)?;
    Ok(String::from_utf8_lossy(&read_to_end(file, 1 << 20)?).into_owned())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The directory itself, or the nearest one above it that exists.
fn deepest_existing(mount: &Path, path: &Path) -> PathBuf {
    let whole = mount.join(path.strip_prefix("/").unwrap_or(path));
    let exists = |path: &&Path| faccessat(At::Cwd, path, libc::F_OK).is_ok();
    whole.ancestors().take_while(|path| path.starts_with(mount)).find(exists).unwrap_or(mount).to_path_buf()
}

fn mount_table(table: &mut Option<String>) -> &str {
    table.get_or_insert_with(|| read("/proc/self/mountinfo").unwrap_or_default())
}

/// A line of /proc/self/cgroup (cgroups(7)): `id:controllers:path`, without controllers for version 2.
#[derive(Debug, PartialEq, Eq)]
struct Membership {
    controllers: Option<Vec<String>>,
    list: String,
    path: PathBuf,
}

impl Membership {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (id, list, path) = (fields.next()?, fields.next()?, fields.next()?);
        let controllers = (id != "0").then(|| list.split(',').map(str::to_owned).collect());
        Some(Self { controllers, list: list.to_owned(), path: path.into() })
    }

    fn magic(&self) -> i64 {
        if self.controllers.is_some() { libc::CGROUP_SUPER_MAGIC } else { libc::CGROUP2_SUPER_MAGIC }
    }

    /// The usual mount points, believed if the own directory is found below.
    fn guess(&self) -> Option<(PathBuf, PathBuf)> {
        let candidates = match &self.controllers {
            Some(_) => vec![Path::new(ROOT).join(self.list.trim_start_matches("name="))],
            None => vec![ROOT.into(), Path::new(ROOT).join("unified")],
        };
        let fits = |mount: &PathBuf| is(self.magic(), &mount.join(self.path.strip_prefix("/").unwrap_or(&self.path)));
        let escapes = self.path.components().any(|part| part == std::path::Component::ParentDir);
        let mount = candidates.into_iter().filter(|_| !escapes).find(fits)?;
        Some((mount, self.path.clone()))
    }

    /// The mount point and own directory by the mount table.
    fn look_up(&self, table: &str) -> Option<(PathBuf, PathBuf)> {
        let mut found = table.lines().filter_map(Mounted::parse).filter(|mounted| self.is_on(mounted));
        found.rfind(|mounted| is(self.magic(), &mounted.point)).map(|mounted| {
            // Where the mount shows a part of the hierarchy only, paths in it start at that part. A process outside of
            // it (`/../x`, or another branch) is treated as if it were at its root.
            let own = self.path.strip_prefix(&mounted.root).ok().map(|rest| Path::new("/").join(rest));
            let inside = |path: &PathBuf| is(self.magic(), &mounted.point.join(path.strip_prefix("/").unwrap_or(path)));
            let own = own.filter(|path| !path.components().any(|part| part == std::path::Component::ParentDir)).filter(inside);
            (mounted.point, own.unwrap_or_else(|| "/".into()))
        })
    }

    fn is_on(&self, mounted: &Mounted) -> bool {
        match &self.controllers {
            None => mounted.kind == "cgroup2",
            Some(names) => mounted.kind == "cgroup" && names.iter().all(|name| mounted.options.contains(name)),
        }
    }
}

fn is(magic: i64, path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.magic == magic)
}

/// A line of /proc/self/mountinfo, as far as it matters (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    root: PathBuf,
    point: PathBuf,
    kind: String,
    options: Vec<String>,
}

impl Mounted {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (root, point) = (unescape(left.next()?), unescape(left.next()?));
        let (kind, options) = (right.next()?.to_owned(), right.nth(1)?.split(',').map(str::to_owned).collect());
        Some(Self { root: root.into(), point: point.into(), kind, options })
    }
}

/// Undoes the escapes of the mount table: a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships() {
        let v1 = Membership::parse("4:cpu,cpuacct:/a:b").map(|m| (m.controllers, m.path));
        assert_eq!(v1, Some((Some(vec!["cpu".to_owned(), "cpuacct".to_owned()]), "/a:b".into())));
        assert_eq!(Membership::parse("0::/x").map(|m| (m.controllers, m.path)), Some((None, "/x".into())));
        assert_eq!(Membership::parse("nonsense"), None);
    }

    #[test]
    fn mount_lines() {
        let line = "31 23 0:28 /docker/x /sys/fs/cgroup/a\\040b rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct";
        let mounted = Mounted::parse(line);
        let expected = Mounted {
            root: "/docker/x".into(),
            point: "/sys/fs/cgroup/a b".into(),
            kind: "cgroup".into(),
            options: vec!["rw".into(), "cpu".into(), "cpuacct".into()],
        };
        assert_eq!(mounted, Some(expected));
        assert_eq!(unescape("a\\1"), "a\\1");
    }
}
