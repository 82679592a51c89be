//! What lies beside CRIU's images: two files of ours, and CRIU's log.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::plan::Saved;
use crate::error::{Doing, Failure};
use crate::namespaces::idmap::host_id;
use crate::spec::IdMapping;
use crate::sys::{At, CallError, fs};

/// What a restore needs to know about the dump.
const SAVED: &str = "rt.json";
/// Where the first three descriptors led to, as a list of strings: other tools look for this file.
const DESCRIPTORS: &str = "descriptors.json";
/// The default of `--image-path`.
pub const DEFAULT: &str = "checkpoint";
/// The largest file of ours, and the largest log that is searched.
const MAX_FILE: usize = 16 << 20;

/// An image or work directory.
#[derive(Debug)]
pub struct Folder {
    /// Its path, for messages.
    pub path: PathBuf,
    /// It, opened.
    pub fd: OwnedFd,
}

impl Folder {
    /// Opens a directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(path: &Path, what: &str) -> Result<Self, Failure> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let fd = fs::openat(At::Cwd, path, flags, 0).doing(|| format!("open the {what}"))?;
        Ok(Self { path: path.to_owned(), fd })
    }

    /// Opens a directory and makes it if need be, for its owner only: what was in the memory of processes lies there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make(path: &Path, what: &str) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| CallError::from_io("mkdir", format!("{path:?}"), &error)).doing(|| format!("make the {what}"))?;
        Self::open(path, what)
    }

    /// Lets the first user of a container's user namespace through a directory that nobody else may enter, by its group: processes that are
    /// restored read their images partly as the caller, partly when they are who they were.
    ///
    /// # Errors
    /// The kernel's.
    pub fn let_root_of_through(&self, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Failure> {
        let (Some(_), Some(gid)) = (host_id(uids, 0), host_id(gids, 0)) else { return Ok(()) };
        let stat = fs::fstat(&self.fd)?;
        if stat.mode & 0o001 != 0 {
            return Ok(());
        }
        let change = || {
            fs::fchownat(At::from(&self.fd), Path::new("."), stat.uid, gid)?;
            fs::fchmod(&self.fd, (stat.mode & 0o700) | 0o010)
        };
        change().doing(|| format!("let the container's root through {}", self.path.display()))
    }

    /// Writes our files.
    ///
    /// # Errors
    /// The kernel's.
    pub fn save(&self, saved: &Saved, links: &[String]) -> Result<(), Failure> {
        let json = |result: serde_json::Result<Vec<u8>>| result.map_err(|error| Failure::because(error.to_string()));
        self.write(SAVED, &json(serde_json::to_vec(saved))?)?;
        self.write(DESCRIPTORS, &json(serde_json::to_vec(links))?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
        let write = || fs::write_all(&fs::openat(At::from(&self.fd), Path::new(name), flags, 0o600)?, bytes);
        write().doing(|| format!("write {}", self.path.join(name).display()))
    }

    /// Removes what CRIU is about to write anew beside the images: it follows links, and images may come from elsewhere.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&self, names: [&str; 2]) -> Result<(), Failure> {
        let remove = |name: &str| match fs::unlinkat(At::from(&self.fd), Path::new(name), 0) {
            Err(error) if error.is(libc::ENOENT) => Ok(()),
            other => other.doing(|| format!("remove {}", self.path.join(name).display())),
        };
        names.into_iter().try_for_each(remove)
    }

    /// Reads what the dump has left.
    ///
    /// # Errors
    /// If there is nothing, or it is damaged.
    pub fn saved(&self) -> Result<Saved, Failure> {
        let doing = || format!("read {}", self.path.join(SAVED).display());
        let read = || {
            // A fifo would be waited for.
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = fs::openat(At::from(&self.fd), Path::new(SAVED), flags, 0)?;
            fs::read_to_end(&file, MAX_FILE)
        };
        let bytes = read().doing(doing).map_err(|failure| failure.hint("is this the image directory of an `rt checkpoint`?"))?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::because(error.to_string()).doing(doing()))
    }

    /// The last errors in a log of CRIU's, without their times.
    pub fn errors(&self, log: &str) -> Vec<String> {
        let read = || {
            let file = fs::openat(At::from(&self.fd), Path::new(log), libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
            fs::read_to_end(&file, MAX_FILE)
        };
        errors(&String::from_utf8_lossy(&read().unwrap_or_default()))
    }
}

/// How many lines of the log an error shows.
const SHOWN: usize = 3;

/// What CRIU calls an error and goes on after.
const HARMLESS: [&str; 2] = ["tun: Unable to create tun", "rlimit: Can't setup RLIMIT_NOFILE for self"];

/// What it does not call an error although it fails for it.
const NO_SERVER: &str = "Can't connect to server";

fn errors(log: &str) -> Vec<String> {
    let message = |line: &str| line.find("Error (").or_else(|| line.find(NO_SERVER)).map(|at| line[at..].trim().to_owned());
    let mut found: Vec<String> = log.lines().filter_map(message).collect();
    found.dedup();
    let is_serious = |text: &String| !HARMLESS.iter().any(|harmless| text.contains(harmless));
    if found.iter().any(is_serious) {
        found.retain(is_serious);
    }
    found.split_off(found.len().saturating_sub(SHOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_of_a_log() {
        let log = "(00.1) Warn  (x): y\n(00.2) Error (criu/a.c:1): one\n(00.3)   12: Error (criu/b.c:2): two\n(00.3) fine\n";
        assert_eq!(errors(log), ["Error (criu/a.c:1): one", "Error (criu/b.c:2): two"]);
        let log = "Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: x\nError (criu/a.c:1): one\n";
        assert_eq!(errors(log), ["Error (criu/a.c:1): one"]);
        let many: String = (0..9).map(|number| format!("(00.1) Error (x): {number}\n")).collect();
        assert_eq!(errors(&many).last().map(String::as_str), Some("Error (x): 8"));
        assert_eq!(errors(&many).len(), SHOWN);
    }
}
