//! The state root and the directories in it: one per container, locked by whoever changes it.
//!
//! The root has mode 0700 and must belong to the caller; nothing below is reached through a symbolic link.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Doing, Error, Failure};
use crate::id::ContainerId;
use crate::sys::fs::{self, Resolve};
use crate::sys::{At, CallResult, cred};

use super::record::{self, LAYOUT, Record};

/// The name of the record in a container's directory.
const RECORD: &str = "record.json";
/// The name of the fifo on which init waits for start; tools look for it.
pub const FIFO: &str = "exec.fifo";
/// The name of the compiled seccomp program in a container's directory.
pub const SECCOMP: &str = "seccomp.bpf";
/// The name of the folder that a container with NOTIFY_SOCKET sees.
pub const NOTIFY: &str = "notify";
/// The largest record that is read.
const MAX_RECORD: usize = 16 << 20;

/// The state root.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Absent until the first create makes it.
    fd: Option<OwnedFd>,
}

/// The default state root: `/run/rt` for root, `$XDG_RUNTIME_DIR/rt` for others, and `/tmp/rt-UID` where that is not set.
pub fn default_root() -> PathBuf {
    let uid = cred::geteuid();
    // Podman's monitor is root of the user's namespace, and has no USER in its environment.
    let may_be_user = std::env::var_os("USER").is_none_or(|user| user != "root");
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(directory) if uid != 0 || (may_be_user && !is_initial_user_namespace()) => Path::new(&directory).join("rt"),
        _ if uid == 0 => PathBuf::from("/run/rt"),
        _ => PathBuf::from(format!("/tmp/rt-{uid}")),
    }
}

fn is_initial_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

impl Store {
    /// Opens the state root, which need not exist.
    ///
    /// # Errors
    /// If it is not a directory of the caller's.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match fs::openat(At::Cwd, path, libc::O_PATH | libc::O_DIRECTORY, 0) {
            Err(error) if error.is(libc::ENOENT) => Ok(Self { path: path.to_owned(), fd: None }),
            Err(error) => Err(Failure::from(error).doing("open the state root (--root)").into()),
            Ok(fd) => Self::checked(path, fd),
        }
    }

    /// Opens the state root and makes it if need be.
    ///
    /// # Errors
    /// If it cannot be made or is not a directory of the caller's.
    pub fn open_or_make(path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        let store = Self::open(path)?;
        if store.fd.is_some() {
            return Ok(store);
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| crate::sys::CallError::from_io("mkdir", format!("{path:?}"), &error))
            .doing(|| "make the state root (--root)")?;
        Self::open(path)
    }

    fn checked(path: &Path, fd: OwnedFd) -> Result<Self, Error> {
        let stat = fs::fstat(&fd)?;
        if stat.uid != cred::geteuid() || stat.mode & 0o022 != 0 {
            return Err(Error::new(
                "state-root",
                format!(
                    "state root {}: expected a directory that only its owner, uid {}, can write to; found owner {} and mode {:o}",
                    path.display(),
                    cred::geteuid(),
                    stat.uid,
                    stat.mode
                ),
            ));
        }
        Ok(Self { path: path.to_owned(), fd: Some(fd) })
    }

    /// The path of the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a container, or `None` if there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn find(&self, id: &ContainerId) -> Result<Option<Directory>, Failure> {
        let Some(root) = &self.fd else { return Ok(None) };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match fs::openat2(At::from(root), Path::new(id.as_str()), flags, 0, Resolve::PLAIN) {
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            Err(error) => Err(Failure::from(error).doing(format!("open the state of {id}"))),
            Ok(fd) => Ok(Some(Directory { id: id.clone(), path: self.path.join(id.as_str()), fd })),
        }
    }

    /// Finds and locks the directory of a container. `None` if there is none, or if it is deleted while its lock is waited for; a new
    /// container of the same id has a directory of its own, which is found then.
    ///
    /// # Errors
    /// The kernel's, or if it stays locked.
    pub fn lock(&self, id: &ContainerId) -> Result<Option<Directory>, Failure> {
        while let Some(directory) = self.find(id)? {
            directory.lock()?;
            if directory.is_linked()? {
                return Ok(Some(directory));
            }
        }
        Ok(None)
    }

    /// Makes and locks the directory of a new container. `None` if the id is taken.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make(&self, id: &ContainerId) -> Result<Option<Directory>, Failure> {
        let Some(root) = &self.fd else { return Err(Failure::because("the state root does not exist")) };
        match fs::mkdirat(At::from(root), Path::new(id.as_str()), 0o700) {
            Err(error) if error.is(libc::EEXIST) => return Ok(None),
            other => other.doing(|| format!("make the state of {id}"))?,
        }
        self.take(id).inspect_err(|_| {
            // Nobody has put anything into it; the error that is reported is the first one.
            let _ = fs::unlinkat(At::from(root), Path::new(id.as_str()), libc::AT_REMOVEDIR);
        })
    }

    /// Opens and locks a directory that was just made.
    fn take(&self, id: &ContainerId) -> Result<Option<Directory>, Failure> {
        let made = self
            .find(id)?
            .ok_or_else(|| Failure::because("another command has removed the container while it was being made"))?;
        // Nobody else locks a directory without a record, but for a `delete --force` in this very moment, which may win.
        if made.try_lock()? { Ok(Some(made)) } else { Ok(None) }
    }

    /// Removes the directory of a container and whatever is in it, the record last.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, directory: &Directory) -> Result<(), Failure> {
        let Some(root) = &self.fd else { return Ok(()) };
        let unlink = |name: &str| ignore_missing(fs::unlinkat(At::from(&directory.fd), Path::new(name), 0));
        let remove = || ignore_missing(fs::unlinkat(At::from(root), Path::new(directory.id.as_str()), libc::AT_REMOVEDIR));
        [SECCOMP, FIFO, RECORD].into_iter().try_for_each(unlink).doing(|| "remove the state")?;
        match remove() {
            // A socket of the notification proxy, or what a crash has left.
            Err(error) if error.is(libc::ENOTEMPTY) => {
                let names = fs::list_dir(directory.fd.as_fd()).doing(|| "list the state directory")?;
                names.iter().try_for_each(|name| directory.remove_entry(Path::new(name)))?;
                remove().doing(|| "remove the state")
            }
            other => other.doing(|| "remove the state"),
        }
    }

    /// The record of a container as it was written, by one call for the whole path. `None` if there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_record(&self, id: &ContainerId) -> Result<Option<Vec<u8>>, Failure> {
        let Some(root) = &self.fd else { return Ok(None) };
        let path = [id.as_str(), "/", RECORD].concat();
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        match fs::openat2(At::from(root), Path::new(&path), flags, 0, Resolve::PLAIN) {
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            Err(error) => Err(Failure::from(error).doing(format!("open the state of {id}"))),
            Ok(file) => Ok(Some(fs::read_regular(&file, MAX_RECORD)?)),
        }
    }

    /// True if a container's init waits for start.
    pub fn has_fifo(&self, id: &ContainerId) -> bool {
        let path = [id.as_str(), "/", FIFO].concat();
        self.fd.as_ref().is_some_and(|root| fs::fstatat(At::from(root), Path::new(&path), libc::AT_SYMLINK_NOFOLLOW).is_ok())
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ids(&self) -> Result<Vec<ContainerId>, Failure> {
        let Some(root) = &self.fd else { return Ok(Vec::new()) };
        let names = fs::list_dir(root.as_fd()).doing(|| "list the state root")?;
        let mut ids: Vec<ContainerId> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

fn ignore_missing(result: CallResult<()>) -> CallResult<()> {
    match result {
        Err(error) if error.is(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// The directory of a container.
#[derive(Debug)]
pub struct Directory {
    id: ContainerId,
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Its path, for messages and for children that are told about it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of its container.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// How long ago a file in it was made, replaced or removed: start removes the fifo.
    ///
    /// # Errors
    /// The kernel's.
    pub fn age(&self) -> Result<Duration, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(now.saturating_sub(fs::fstat(&self.fd)?.modified))
    }

    /// False once it has been removed: a lock on it means nothing then.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_linked(&self) -> Result<bool, Failure> {
        Ok(fs::fstat(&self.fd)?.links > 0)
    }

    /// Its descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Locks it for a change, without waiting; the kernel unlocks it when this process ends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_lock(&self) -> Result<bool, Failure> {
        fs::try_lock(&self.fd, true).doing(|| format!("lock the state of {}", self.id))
    }

    /// True if somebody is changing it. Several may ask at once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_locked(&self) -> Result<bool, Failure> {
        let free = fs::try_lock(&self.fd, false).doing(|| format!("look at the lock of {}", self.id))?;
        if free {
            self.unlock()?;
        }
        Ok(!free)
    }

    /// Locks it for a change, waiting for another command to finish, at most ten seconds.
    ///
    /// # Errors
    /// If it stays locked.
    pub fn lock(&self) -> Result<(), Failure> {
        for _ in 0..1000 {
            if self.try_lock()? {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(Failure::because(format!("container {} is busy: another command has held its lock for ten seconds", self.id)))
    }

    /// Lets other commands change it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unlock(&self) -> Result<(), Failure> {
        fs::unlock(&self.fd).doing(|| format!("unlock the state of {}", self.id))
    }

    /// Reads the record. `None` if it is missing, truncated, or of another layout: only `delete --force` can deal with that.
    pub fn read_record(&self) -> Option<Record> {
        record::parse(&self.read_file(RECORD).ok()?, |record: &Record| record.layout)
    }

    /// The layout of a record that [`Directory::read_record`] does not know, if it has one.
    pub fn foreign_layout(&self) -> Option<u64> {
        let record: serde_json::Value = serde_json::from_slice(&self.read_file(RECORD).ok()?).ok()?;
        record.get("layout")?.as_u64().filter(|layout| *layout != u64::from(LAYOUT))
    }

    /// Writes the record atomically: a temporary name, then a rename.
    ///
    /// # Errors
    /// The kernel's; a full disk leaves the old record.
    pub fn write_record(&self, record: &Record) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(record).map_err(|error| Failure::because(error.to_string()))?;
        self.write_file("record.new", &bytes)?;
        fs::renameat(At::from(&self.fd), Path::new("record.new"), Path::new(RECORD)).doing(|| "replace the record")
    }

    /// Reads a file of the directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_file(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let file = fs::openat(At::from(&self.fd), Path::new(name), libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
        Ok(fs::read_regular(&file, MAX_RECORD)?)
    }

    /// Writes a new file, mode 0600.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
        let write = || fs::write_all(&fs::openat(At::from(&self.fd), Path::new(name), flags, 0o600)?, bytes);
        write().doing(|| format!("write {}", self.path.join(name).display()))
    }

    /// Removes a file; a missing one is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_file(&self, name: &str) -> Result<(), Failure> {
        ignore_missing(fs::unlinkat(At::from(&self.fd), Path::new(name), 0)).doing(|| format!("remove {name}"))
    }

    /// Removes a file, or the folder of the notify socket with what is in it.
    fn remove_entry(&self, name: &Path) -> Result<(), Failure> {
        match fs::unlinkat(At::from(&self.fd), name, 0) {
            Err(error) if error.is(libc::EISDIR) => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let folder = fs::openat(At::from(&self.fd), name, flags, 0)?;
                for inner in fs::list_dir(folder.as_fd())? {
                    ignore_missing(fs::unlinkat(At::from(&folder), Path::new(&inner), 0))?;
                }
                ignore_missing(fs::unlinkat(At::from(&self.fd), name, libc::AT_REMOVEDIR))
            }
            other => ignore_missing(other),
        }
        .doing(|| "remove the state")
    }

    /// Makes the folder of the notify socket, which is bound into the container: others may look into it, and nothing above it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_notify_folder(&self) -> Result<(), Failure> {
        let make = || {
            fs::mkdirat(At::from(&self.fd), Path::new(NOTIFY), 0o755)?;
            // The umask has taken bits away.
            fs::fchmodat(At::from(&self.fd), Path::new(NOTIFY), 0o755)
        };
        make().doing(|| "make the folder of the notify socket")
    }

    /// A new socket in that folder, to which every user of the container may write.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen_for_notifications(&self) -> CallResult<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let folder = fs::openat(At::from(&self.fd), Path::new(NOTIFY), flags, 0)?;
        let name = Path::new(crate::notify::SOCKET);
        ignore_missing(fs::unlinkat(At::from(&folder), name, 0))?;
        let socket = crate::sys::socket::bind_datagram(At::from(&folder), name)?;
        fs::fchmodat(At::from(&folder), name, 0o777)?;
        Ok(socket)
    }

    /// True if a file of this name is there.
    pub fn has(&self, name: &str) -> bool {
        fs::fstatat(At::from(&self.fd), Path::new(name), libc::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes the fifo on which init waits for start. Its mode lets container root of another user id open it through the descriptor.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_fifo(&self) -> Result<OwnedFd, Failure> {
        let make = || -> CallResult<OwnedFd> {
            fs::mkfifoat(At::from(&self.fd), Path::new(FIFO), 0o622)?;
            // The umask has taken bits away; the directory is 0700, so nobody else reaches the fifo by its name.
            fs::fchmodat(At::from(&self.fd), Path::new(FIFO), 0o622)?;
            fs::openat(At::from(&self.fd), Path::new(FIFO), libc::O_PATH | libc::O_NOFOLLOW, 0)
        };
        make().doing(|| "make the start fifo")
    }
}
