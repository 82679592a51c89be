//! Finding and executing the program, with the words that engines derive exit codes from.

use std::convert::Infallible;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::sys::process::Image;
use crate::sys::{At, CallError, errno, fs};

/// Where execvp(3) looks if there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Arguments and environment as execve(2) wants them.
///
/// # Errors
/// If a string contains a NUL, which the plan has checked.
pub fn c_strings(strings: &[String]) -> Result<Vec<CString>, Failure> {
    let convert = |text: &String| CString::new(text.as_bytes()).map_err(|_| Failure::because(format!("{text:?} contains a NUL")));
    strings.iter().map(convert).collect()
}

/// The value of a variable in an environment; the last one wins.
pub fn variable<'env>(env: &'env [String], name: &str) -> Option<&'env str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// An environment in which each name stands once, with the last value given for it, at the first place.
pub fn last_wins(env: &[String]) -> Vec<String> {
    let mut result: indexmap::IndexMap<&str, &str> = indexmap::IndexMap::new();
    for entry in env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        result.insert(name, value);
    }
    result.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Looks a program up as execvp(3) does, in the container's environment and with the payload's rights.
///
/// # Errors
/// `executable file not found in $PATH`, `no such file or directory`, `permission denied`, `is a directory: permission denied`.
pub fn find(name: &str, env: &[String]) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(error) if error.is(libc::ENOENT) || error.is(libc::ENOTDIR) => {
                Err(Failure::because(format!("exec: {name:?}: stat {name}: {}", errno::text(error.errno))))
            }
            // execve(2) knows a directory as EACCES only; Docker makes 126 of these words.
            Err(error) if error.is(libc::EISDIR) => {
                Err(Failure::because(format!("exec: {name:?}: {}: {}", errno::text(libc::EISDIR), errno::text(libc::EACCES))))
            }
            Err(error) => Err(Failure::because(format!("exec: {name:?}: {}", errno::text(error.errno)))),
        };
    }
    let mut denied = false;
    for directory in variable(env, "PATH").unwrap_or(DEFAULT_PATH).split(':') {
        // An empty element means the current directory.
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => {
                denied |= error.is(libc::EACCES) && fs::fstatat(At::Cwd, &candidate, 0).is_ok_and(|stat| !stat.is_dir())
            }
        }
    }
    if denied {
        return Err(Failure::because(format!("exec: {name:?}: {}", errno::text(libc::EACCES))));
    }
    Err(Failure::because(format!("exec: {name:?}: executable file not found in $PATH")))
}

fn check(path: &Path) -> Result<(), CallError> {
    let stat = fs::fstatat(At::Cwd, path, 0)?;
    if stat.is_dir() {
        return Err(CallError::new("execve", format!("{path:?}"), libc::EISDIR));
    }
    if !stat.is(libc::S_IFREG) || stat.mode & 0o111 == 0 {
        return Err(CallError::new("execve", format!("{path:?}"), libc::EACCES));
    }
    fs::faccessat(At::Cwd, path, libc::X_OK)
}

/// Everything that becoming the program takes.
///
/// # Errors
/// If there is a NUL in one of the strings.
pub fn prepare(path: &Path, args: &[String], env: &[String]) -> Result<Image, Failure> {
    Ok(Image::new(path, c_strings(args)?, c_strings(env)?)?)
}

/// Becomes the program. Returns only an error.
///
/// # Errors
/// The kernel's, in the words of [`find`].
pub fn execute(image: &Image) -> Result<Infallible, Failure> {
    image.execute().map_err(|error| refused(&image.name(), error.errno))
}

/// What is said when execve(2) fails.
pub(super) fn refused(name: &str, number: i32) -> Failure {
    let text = format!("exec: {name:?}: {}", errno::text(number));
    let failure = Failure { reason: Some(text), ..Failure::default() };
    match number {
        libc::ENOENT => failure.hint("the file is there: its interpreter (#! line or ELF loader) is not"),
        libc::ENOEXEC => failure.hint("expected an ELF program for this machine, or a script that begins with #!"),
        _ => failure,
    }
}
