//! Becoming the user, and where that user lives.

use std::os::fd::AsFd;
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::passwd;
use crate::sys::{At, cred, fs};

use super::steps::UserStep;

/// The largest passwd file that is looked into.
const MAX_PASSWD: usize = 1 << 20;

/// Sets groups, group and user, keeping the permitted capabilities.
///
/// # Errors
/// The kernel's.
pub fn become_user(step: &UserStep) -> Result<(), Failure> {
    own_stdio(step.uid)?;
    // Capabilities are lost on the way from root to somebody else.
    let leaves_root = step.uid != 0;
    if leaves_root {
        cred::set_keep_caps(true)?;
    }
    if let Some(groups) = &step.groups {
        cred::setgroups(groups)?;
    }
    cred::setresgid(step.gid)?;
    cred::setresuid(step.uid)?;
    if leaves_root {
        cred::set_keep_caps(false)?;
    }
    Ok(())
}

/// Gives stdio to the user, so that opening /dev/stdout works for others than root. The real /dev/null stays root's; what cannot
/// change its owner (a read-only filesystem, an id that is not mapped) can be used as it is.
fn own_stdio(uid: u32) -> Result<(), Failure> {
    for stream in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let Ok(stat) = fs::fstat(stream) else { continue };
        if stat.uid == uid || stat.is_char_device(1, 3) {
            continue;
        }
        match fs::fchownat(At::Fd(stream), Path::new(""), uid, u32::MAX) {
            Err(error) if matches!(error.errno, libc::EINVAL | libc::EPERM | libc::EROFS | libc::EOVERFLOW) => {}
            other => other.doing(|| "give stdio to the user")?,
        }
    }
    Ok(())
}

/// Where a user lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The directory.
    pub path: String,
    /// Why nobody looked for it, where that is worth a word.
    pub warning: Option<String>,
}

/// The home directory in the container's own /etc/passwd, or `/`. Only an absolute path without control characters is believed. A file that
/// cannot be read is the image's affair: the program runs all the same.
pub fn home(uid: u32) -> Home {
    let nowhere = |warning: Option<String>| Home { path: "/".to_owned(), warning };
    let opened = fs::openat(At::Cwd, Path::new("/etc/passwd"), libc::O_RDONLY | libc::O_NONBLOCK, 0);
    let Some(file) = opened.ok().filter(|file| fs::fstat(file).is_ok_and(|stat| stat.is(libc::S_IFREG))) else {
        return nowhere(None);
    };
    match fs::read_to_end(&file, MAX_PASSWD) {
        Ok(content) => {
            let path = home_in(&String::from_utf8_lossy(&content), uid).unwrap_or("/").to_owned();
            Home { path, warning: None }
        }
        Err(error) if error.is(libc::EFBIG) => nowhere(Some(format!(
            "/etc/passwd of the container is larger than {MAX_PASSWD} bytes and not looked into; HOME is /"
        ))),
        Err(error) => nowhere(Some(format!("/etc/passwd of the container cannot be read: {error}; HOME is /"))),
    }
}

fn home_in(passwd: &str, uid: u32) -> Option<&str> {
    let home = passwd::entries(passwd, uid).next()?.home?;
    (home.starts_with('/') && !home.chars().any(char::is_control)).then_some(home)
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_home_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n1000:x:5:5::/five:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbad:x:7:7::rel:/";
        assert_eq!(super::home_in(passwd, 1000), Some("/home/alice"));
        assert_eq!(super::home_in(passwd, 0), Some("/root"));
        assert_eq!(super::home_in(passwd, 7), None);
        assert_eq!(super::home_in(passwd, 8), None);
    }
}
