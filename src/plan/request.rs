//! [`Request`]: what the command line says.

use std::path::{Path, PathBuf};

use crate::id::ContainerId;

use super::StartSignal;

/// What the command line says about a container or process to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// The container.
    pub id: ContainerId,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// `--config`, from the bundle.
    pub config: PathBuf,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// `--preserve-fds`, with those that `LISTEN_FDS` adds.
    pub preserve_fds: u32,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// The folder of the notify socket on the host, if the caller has a service manager.
    pub notify: Option<PathBuf>,
    /// What starts the program.
    pub start: StartSignal,
    /// The caller will not stay to serve a terminal.
    pub detached: bool,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// `--cgroup-manager disabled`.
    pub no_cgroup: bool,
}

impl Request {
    /// A request for tests and for `rt plan`.
    pub fn plain(id: ContainerId, bundle: PathBuf) -> Self {
        Self {
            id,
            bundle,
            config: PathBuf::from("config.json"),
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            console_socket: None,
            pid_file: None,
            pidfd_socket: None,
            notify: None,
            start: StartSignal::Fifo,
            detached: false,
            systemd_cgroup: false,
            no_cgroup: false,
        }
    }

    /// The name of the session keyring, unless the caller's is to be kept.
    pub fn keyring(&self) -> Option<String> {
        (!self.no_new_keyring).then(|| format!("_ses.{}", self.id))
    }
}

/// An absolute form of a bundle path: an absolute one as it is, because engines compare it.
pub fn absolute(path: &Path, cwd: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_owned();
    }
    let mut clean = PathBuf::new();
    for component in cwd.join(path).components() {
        match component {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
