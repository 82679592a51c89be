//! An open cgroup directory and its files.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::fs::{Resolve, faccessat, list_dir, mkdirat, openat, openat2, read_record, read_to_end, unlinkat, write_all};
use crate::sys::{At, CallError, CallResult};

const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
/// cgroup.procs of a large container is the longest of these files.
const LONGEST_FILE: usize = 16 << 20;

/// A cgroup directory: descriptor for the work, path for the messages.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens a mount point.
    pub fn mount(path: &Path) -> CallResult<Self> {
        let fd = openat(At::Cwd, path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        Ok(Self { fd, path: path.to_path_buf() })
    }

    /// Opens a directory by its whole path in one call: below a mount point of cgroups there are no links that could lead elsewhere.
    pub fn open(path: PathBuf) -> CallResult<Self> {
        let fd = openat(At::Cwd, &path, DIRECTORY, 0)?;
        Ok(Self { fd, path })
    }

    /// Like [`Dir::open`], with nothing for a directory that does not exist.
    pub fn open_if_present(path: PathBuf) -> CallResult<Option<Self>> {
        absent(Self::open(path))
    }

    /// The descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below; the path cannot lead out.
    pub fn below(&self, path: &Path) -> CallResult<Self> {
        if path.as_os_str().is_empty() {
            return Ok(Self { fd: openat(At::from(&self.fd), Path::new("."), DIRECTORY, 0)?, path: self.path.clone() });
        }
        let whole = self.path.join(path);
        let named = |error: CallError| CallError::new("openat2", format!("{whole:?}"), error.errno);
        let fd = openat2(At::from(&self.fd), path, DIRECTORY, 0, Resolve::PLAIN).map_err(named)?;
        Ok(Self { fd, path: whole })
    }

    /// Like [`Dir::below`], with nothing for a directory that does not exist.
    pub fn find(&self, path: &Path) -> CallResult<Option<Self>> {
        absent(self.below(path))
    }

    /// Removes an empty directory. A missing one is success.
    pub fn remove(&self, name: &OsStr) -> CallResult<()> {
        let removed = unlinkat(At::from(&self.fd), Path::new(name), libc::AT_REMOVEDIR);
        absent(removed).map(drop).map_err(|error| self.named(&error, name, ", AT_REMOVEDIR"))
    }

    /// Reads a file.
    pub fn read(&self, file: &str) -> CallResult<String> {
        let content = openat(At::from(&self.fd), Path::new(file), libc::O_RDONLY | libc::O_NOFOLLOW, 0)
            .and_then(|fd| read_to_end(fd, LONGEST_FILE))
            .map_err(|error| self.named(&error, OsStr::new(file), ""))?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Reads a file that may not exist.
    pub fn read_if_present(&self, file: &str) -> CallResult<Option<String>> {
        absent(self.read(file))
    }

    /// Opens a file for reading.
    pub fn open_file(&self, file: &str) -> CallResult<OwnedFd> {
        openat(At::from(&self.fd), Path::new(file), libc::O_RDONLY | libc::O_NOFOLLOW, 0)
            .map_err(|error| self.named(&error, OsStr::new(file), ""))
    }

    /// Opens a file for reading and writing.
    pub fn open_for_change(&self, file: &str) -> CallResult<OwnedFd> {
        openat(At::from(&self.fd), Path::new(file), libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)
            .map_err(|error| self.named(&error, OsStr::new(file), ""))
    }

    /// Opens a file for writing.
    pub fn open_for_writing(&self, file: &str) -> CallResult<OwnedFd> {
        openat(At::from(&self.fd), Path::new(file), libc::O_WRONLY | libc::O_NOFOLLOW, 0)
            .map_err(|error| self.named(&error, OsStr::new(file), ""))
    }

    /// Writes a value with one write(2).
    pub fn write(&self, file: &str, value: &str) -> CallResult<()> {
        self.write_each(file, std::iter::once(value))
    }

    /// Writes values one after the other, each with one write(2), up to the first that is refused.
    pub fn write_each<'a>(&self, file: &str, values: impl Iterator<Item = &'a str>) -> CallResult<()> {
        let named = |error: CallError, value: &str| self.named(&error, OsStr::new(file), &format!(", {value:?}"));
        let mut values = values.peekable();
        let Some(first) = values.peek() else { return Ok(()) };
        let opened = openat(At::from(&self.fd), Path::new(file), libc::O_WRONLY | libc::O_NOFOLLOW, 0);
        let fd = opened.map_err(|error| named(error, first))?;
        values.try_for_each(|value| {
            // An empty value still has to reach the kernel.
            let written = write_all(&fd, if value.is_empty() { b"\n" } else { value.as_bytes() });
            written.map_err(|error| named(error, value))
        })
    }

    /// The directories in it.
    pub fn children(&self) -> CallResult<Vec<Self>> {
        let names = match list_dir(self.as_fd()) {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            other => other?,
        };
        let open = |name: &std::ffi::OsString| match self.below(Path::new(name)) {
            Err(error) if error.is(libc::ENOTDIR) || is_gone(&error) => None,
            other => Some(other),
        };
        names.iter().filter_map(open).collect()
    }

    /// The call with the whole path instead of a descriptor number.
    fn named(&self, error: &CallError, name: &OsStr, rest: &str) -> CallError {
        CallError::new(&error.call, format!("{:?}{rest}", self.path.join(name)), error.errno)
    }
}

/// True if the file or the whole cgroup does not exist (any more): a file of a removed cgroup gives ENODEV.
pub(super) fn is_gone(error: &CallError) -> bool {
    error.is(libc::ENOENT) || error.is(libc::ENODEV)
}

/// Makes a directory. False if it exists.
pub(super) fn make(path: &Path) -> CallResult<bool> {
    match mkdirat(At::Cwd, path, 0o755) {
        Err(error) if error.is(libc::EEXIST) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Removes an empty directory. A missing one is success.
pub(super) fn remove(path: &Path) -> CallResult<()> {
    match unlinkat(At::Cwd, path, libc::AT_REMOVEDIR) {
        // The kernel looks at the filesystem before it looks for the directory.
        Err(error) if error.is(libc::EROFS) && faccessat(At::Cwd, path, libc::F_OK).is_err_and(|error| is_gone(&error)) => Ok(()),
        other => absent(other).map(drop),
    }
}

/// The only line of a file that may not exist, by its whole path.
pub(super) fn line_if_present(path: &Path) -> CallResult<Option<String>> {
    let content = openat(At::Cwd, path, libc::O_RDONLY | libc::O_NOFOLLOW, 0).and_then(read_record);
    Ok(absent(content)?.map(|content| String::from_utf8_lossy(&content).trim_end().to_owned()))
}

/// Nothing in place of an error that says that there is nothing.
fn absent<T>(result: CallResult<T>) -> CallResult<Option<T>> {
    match result {
        Err(error) if is_gone(&error) => Ok(None),
        other => other.map(Some),
    }
}
