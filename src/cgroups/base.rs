//! Where in the unified hierarchy a caller's containers can have limits, and which ones.
//!
//! That takes a directory that the caller may write to, and in which no process sits: controllers are enabled only for the children of
//! such a one (cgroups(7), "No internal processes").

use std::path::{Path, PathBuf};

use crate::sys::At;
use crate::sys::fs::{faccessat, openat, read_to_end};

/// The directory (relative to the mount point, with a slash before it) below which containers of this user can have limits: the nearest
/// one above the caller's own that was given to the user as well and has no processes. Nothing above a unit of systemd's: what is there
/// is systemd's to change (systemd's CGROUP_DELEGATION.md, "The Single-Writer Rule").
pub(super) fn base(mount: &Path, own: &Path) -> Option<PathBuf> {
    let mut below = own;
    loop {
        let name = below.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let above = below.parent().filter(|_| !matches!(name, "scope" | "service" | "slice"))?;
        let directory = mount.join(above.strip_prefix("/").unwrap_or(above));
        if !is_given(&directory) {
            return None;
        }
        if is_empty(&directory) {
            return Some(above.to_path_buf());
        }
        below = above;
    }
}

fn is_empty(directory: &Path) -> bool {
    let file = openat(At::Cwd, &directory.join("cgroup.procs"), libc::O_RDONLY, 0);
    file.and_then(|file| read_to_end(file, 1 << 20)).is_ok_and(|content| content.is_empty())
}

/// From where on the caller can pass controllers down to this directory: the outermost one above it where that is allowed.
pub(super) fn source(mount: &Path, deepest: &Path) -> PathBuf {
    let above: Vec<&Path> = deepest.ancestors().take_while(|path| path.starts_with(mount)).collect();
    let may_pass = |path: &&&Path| faccessat(At::Cwd, &path.join("cgroup.subtree_control"), libc::W_OK).is_ok();
    above.iter().rev().find(may_pass).map_or(deepest, |path| *path).to_path_buf()
}

/// True if directories can be made in it, processes moved to it, and controllers passed on.
fn is_given(directory: &Path) -> bool {
    let may_write = |file: &str, mode| faccessat(At::Cwd, &directory.join(file), mode).is_ok();
    may_write("", libc::W_OK | libc::X_OK)
        && may_write("cgroup.procs", libc::W_OK)
        && may_write("cgroup.subtree_control", libc::W_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_above_a_unit_is_used() {
        let directory = std::env::temp_dir().join(format!("rt-base-{}", std::process::id()));
        for group in ["mine", "mine/job", "mine/job.scope", "mine/busy", "mine/busy/job"] {
            std::fs::create_dir_all(directory.join(group)).ok();
            for (file, text) in [("cgroup.procs", if group == "mine/busy" { "1\n" } else { "" }), ("cgroup.subtree_control", "")]
            {
                std::fs::write(directory.join(group).join(file), text).ok();
            }
        }
        let of = |own: &str| base(&directory, Path::new(own));
        assert_eq!(of("/mine/job"), Some("/mine".into()));
        assert_eq!(of("/mine/busy/job"), Some("/mine".into()));
        assert_eq!(of("/mine/job.scope"), None);
        assert_eq!(of("/"), None);
        assert_eq!(of("/mine"), None);
        std::fs::remove_dir_all(directory).ok();
    }
}
