//! [`Root`]: the descriptor below which every container path is resolved, and [`InRoot`], a path that means nothing elsewhere.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use crate::error::{Doing, Failure};
use crate::sys::fs::{self, Resolve};
use crate::sys::{At, CallError, CallResult};

/// A path inside of a container: absolute, with `.` and `..` removed as if no component were a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InRoot(PathBuf);

impl InRoot {
    /// Reads a path of the config; a relative one is relative to `/` (config.md, "Mounts").
    pub fn new(path: impl AsRef<Path>) -> Self {
        let mut clean = PathBuf::from("/");
        for component in path.as_ref().components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => {
                    clean.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Self(clean)
    }

    /// The path as the container sees it.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The path without its leading slash, `.` for the root itself.
    fn relative(&self) -> &Path {
        match self.0.strip_prefix("/") {
            Ok(rest) if !rest.as_os_str().is_empty() => rest,
            _ => Path::new("."),
        }
    }
}

impl fmt::Display for InRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

/// The kind of a mount point that may have to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountPoint {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// An `O_PATH` descriptor of the container's root.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// The directory in which something was made last, until something is mounted: device nodes come in dozens.
    parent: RefCell<Option<(InRoot, Rc<OwnedFd>)>>,
}

/// How many links a path may go through (MAXSYMLINKS of the kernel).
const MAX_LINKS: usize = 40;

impl Root {
    /// Takes the descriptor of a root directory.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, parent: RefCell::default() }
    }

    /// The descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Resolves a path to an `O_PATH` descriptor; links and `..` stay below the root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resolve(&self, path: &InRoot) -> CallResult<OwnedFd> {
        self.open(path, libc::O_PATH)
    }

    /// Opens what a path names with these flags; links and `..` stay below the root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self, path: &InRoot, flags: i32) -> CallResult<OwnedFd> {
        fs::openat2(At::from(&self.fd), path.relative(), flags, 0, Resolve::IN_ROOT)
    }

    /// Resolves a path that must not go through any link: the mount points of proc and sysfs, which an image could otherwise
    /// lead elsewhere (CVE-2019-19921).
    ///
    /// # Errors
    /// `ELOOP` if there is a link.
    pub fn resolve_plain(&self, path: &InRoot) -> CallResult<OwnedFd> {
        fs::openat2(At::from(&self.fd), path.relative(), libc::O_PATH, 0, Resolve::PLAIN)
    }

    /// Resolves a directory and makes what is missing of it, mode 0755 less the umask.
    ///
    /// # Errors
    /// The kernel's; `ENOTDIR` if something on the way is not a directory.
    pub fn make_directories(&self, path: &InRoot) -> CallResult<OwnedFd> {
        match self.open(path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if error.is(libc::ENOENT) => self.make_missing(path),
            other => other,
        }
    }

    /// Makes a directory and returns it, where only this one is missing.
    fn make_last(&self, path: &InRoot) -> CallResult<OwnedFd> {
        let split = path.0.parent().zip(path.0.file_name());
        let (parent, name) = split.ok_or_else(|| CallError::new("openat2", "\"/\"", libc::EEXIST))?;
        let parent = self.open(&InRoot(parent.to_path_buf()), libc::O_PATH | libc::O_DIRECTORY)?;
        fs::mkdirat(At::from(&parent), Path::new(name), 0o755)?;
        fs::openat2(At::from(&parent), Path::new(name), libc::O_PATH | libc::O_DIRECTORY, 0, Resolve::PLAIN)
    }

    /// Walks a path one component at a time, each from the descriptor of the one before, and makes the missing ones. A link that
    /// points nowhere yet leads to where it points, below the root.
    fn make_missing(&self, path: &InRoot) -> CallResult<OwnedFd> {
        if let Ok(made) = self.make_last(path) {
            return Ok(made);
        }
        let mut todo = path.clone();
        for _ in 0..MAX_LINKS {
            match self.walk(&todo)? {
                Walked::Arrived(fd) => return Ok(fd),
                Walked::Link(elsewhere) => todo = elsewhere,
            }
        }
        Err(CallError::new("openat2", format!("{path}: too many links"), libc::ELOOP))
    }

    fn walk(&self, path: &InRoot) -> CallResult<Walked> {
        let mut done = PathBuf::from("/");
        let mut here = fs::openat(At::from(&self.fd), Path::new("."), libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let mut components = path.relative().components();
        while let Some(component) = components.next() {
            let name = Path::new(component.as_os_str());
            let next = done.join(name);
            here = match self.open(&InRoot(next.clone()), libc::O_PATH | libc::O_DIRECTORY) {
                Ok(fd) => fd,
                Err(error) if !error.is(libc::ENOENT) => return Err(error),
                Err(_) => match fs::mkdirat(At::from(&here), name, 0o755) {
                    // Somebody else made it, or it is a link that points nowhere.
                    Err(error) if error.is(libc::EEXIST) => match fs::readlinkat(At::from(&here), name) {
                        Ok(target) => return Ok(Walked::Link(InRoot::new(done.join(target).join(components.as_path())))),
                        Err(_) => fs::openat2(At::from(&here), name, libc::O_PATH | libc::O_DIRECTORY, 0, Resolve::PLAIN)?,
                    },
                    Err(error) => return Err(error),
                    Ok(()) => fs::openat2(At::from(&here), name, libc::O_PATH | libc::O_DIRECTORY, 0, Resolve::PLAIN)?,
                },
            };
            done = next;
        }
        Ok(Walked::Arrived(here))
    }

    /// Resolves a mount point and makes it if it is missing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mount_point(&self, path: &InRoot, kind: MountPoint) -> Result<OwnedFd, Failure> {
        let found = match self.resolve(path) {
            Err(error) if error.is(libc::ENOENT) => self.make_mount_point(path, kind),
            other => other,
        };
        found.doing(|| format!("make mount point {path}"))
    }

    fn make_mount_point(&self, path: &InRoot, kind: MountPoint) -> CallResult<OwnedFd> {
        if kind == MountPoint::Directory {
            return self.make_missing(path);
        }
        let mut todo = path.clone();
        for _ in 0..MAX_LINKS {
            match self.make_file(&todo)? {
                Walked::Arrived(fd) => return Ok(fd),
                Walked::Link(elsewhere) => todo = elsewhere,
            }
        }
        Err(CallError::new("openat2", format!("{path}: too many links"), libc::ELOOP))
    }

    /// Makes an empty file. A link that points nowhere yet (an image's /etc/resolv.conf, which leads into a /run that is empty) is where
    /// the file is to be, below the root; `O_NOFOLLOW` leaves it to us to stay there.
    fn make_file(&self, path: &InRoot) -> CallResult<Walked> {
        let (parent, name) = self.make_parent(path)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        match fs::openat(At::from(&*parent), &name, flags, 0o644) {
            Err(error) if error.is(libc::ELOOP) => {
                let target = fs::readlinkat(At::from(&*parent), &name)?;
                let folder = path.as_path().parent().unwrap_or(Path::new("/"));
                Ok(Walked::Link(InRoot::new(folder.join(target))))
            }
            Err(error) => Err(error),
            Ok(_) => fs::openat2(At::from(&*parent), &name, libc::O_PATH, 0, Resolve::PLAIN).map(Walked::Arrived),
        }
    }

    /// The directory that holds the last component of a path, made if it is missing, and that component.
    ///
    /// # Errors
    /// The kernel's; `EEXIST` for the root itself.
    pub fn make_parent(&self, path: &InRoot) -> CallResult<(Rc<OwnedFd>, PathBuf)> {
        let split = path.as_path().parent().zip(path.as_path().file_name());
        let (parent, name) = split.ok_or_else(|| CallError::new("openat2", "\"/\"", libc::EEXIST))?;
        let mut last = self.parent.borrow_mut();
        let fd = match &*last {
            Some((path, fd)) if path.as_path() == parent => fd.clone(),
            _ => {
                let path = InRoot::new(parent);
                let fd = Rc::new(self.make_directories(&path)?);
                *last = Some((path, fd.clone()));
                fd
            }
        };
        Ok((fd, PathBuf::from(name)))
    }

    /// Something is about to be mounted: what a path leads to may change.
    pub fn will_change(&self) {
        self.parent.replace(None);
    }
}

enum Walked {
    Arrived(OwnedFd),
    Link(InRoot),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn in_root_cleans() {
        for (given, clean) in [("a/b", "/a/b"), ("/a/../../b", "/b"), ("/", "/"), ("//x/./y/", "/x/y"), ("..", "/")] {
            assert_eq!(InRoot::new(given).as_path(), Path::new(clean), "{given}");
        }
    }

    fn temporary() -> (PathBuf, Root) {
        let path = std::env::temp_dir().join(format!("rt-root-{}-{:?}", std::process::id(), std::thread::current().id()));
        std::fs::create_dir_all(&path).unwrap();
        let fd = fs::openat(At::Cwd, &path, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
        (path, Root::new(fd))
    }

    #[test]
    fn links_stay_below_the_root() {
        let (path, root) = temporary();
        std::os::unix::fs::symlink("/etc", path.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../../../../etc", path.join("climbing")).unwrap();
        std::os::unix::fs::symlink("/not/there", path.join("dangling")).unwrap();
        assert!(root.resolve(&InRoot::new("/absolute/passwd")).is_err());
        assert!(root.resolve(&InRoot::new("/climbing/passwd")).is_err());
        root.make_directories(&InRoot::new("/dangling/deep")).unwrap();
        assert!(path.join("not/there/deep").is_dir());
        assert!(root.mount_point(&InRoot::new("/file/x"), MountPoint::File).is_ok());
        assert!(path.join("file/x").is_file());
        std::os::unix::fs::symlink("../nowhere/file", path.join("file/dangling")).unwrap();
        assert!(root.mount_point(&InRoot::new("/file/dangling"), MountPoint::File).is_ok());
        assert!(path.join("nowhere/file").is_file());
        std::os::unix::fs::symlink("round", path.join("round")).unwrap();
        assert!(root.mount_point(&InRoot::new("/round"), MountPoint::File).is_err());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
