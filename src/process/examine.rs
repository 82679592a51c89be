//! What execve(2) would say about a file, as far as it can be seen without executing it.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::sys::{At, CallError, CallResult, fs};

use super::program;

/// How many interpreters of interpreters the kernel follows (BINPRM recursion).
const MAX_DEPTH: usize = 5;
/// What is read of a file: the kernel looks at 256 bytes for `#!`, and the headers of a program are near its beginning.
const HEAD: usize = 1 << 16;

/// Looks at a program as [`program::execute`] would execute it, in the same words.
///
/// # Errors
/// As there.
pub fn program(path: &Path, name: &str) -> Result<(), Failure> {
    executable(path).map_err(|error| program::refused(name, error.errno))
}

/// Looks at a file that is to be executed: its kind and mode, the interpreter of a script, the loader and machine of an ELF program.
///
/// # Errors
/// That of execve(2). `ENOEXEC` can be wrong where the kernel knows more formats (binfmt_misc).
pub fn executable(path: &Path) -> CallResult<()> {
    let mut file = path.to_owned();
    for _ in 0..MAX_DEPTH {
        let refused = |errno: i32| CallError::new("execve", format!("{path:?}"), errno);
        let stat = fs::fstatat(At::Cwd, &file, 0).map_err(|error| refused(error.errno))?;
        if !stat.is(libc::S_IFREG) || stat.mode & 0o111 == 0 {
            return Err(refused(libc::EACCES));
        }
        fs::faccessat(At::Cwd, &file, libc::X_OK).map_err(|error| refused(error.errno))?;
        // A file may be executable and not readable: then nobody knows more.
        let Some(head) = head(&file) else { return Ok(()) };
        match next(&head) {
            Next::Runs => return Ok(()),
            Next::Foreign => return Err(refused(libc::ENOEXEC)),
            Next::Loader(loader) => return fs::fstatat(At::Cwd, &loader, 0).map(drop).map_err(|error| refused(error.errno)),
            Next::Script(interpreter) => file = interpreter,
        }
    }
    Err(CallError::new("execve", format!("{path:?}"), libc::ELOOP))
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let file: OwnedFd = fs::openat(At::Cwd, path, libc::O_RDONLY | libc::O_NONBLOCK, 0).ok()?;
    let mut head = vec![0; HEAD];
    let mut len = 0;
    while len < HEAD {
        match fs::read(&file, &mut head[len..]).ok()? {
            0 => break,
            more => len += more,
        }
    }
    head.truncate(len);
    Some(head)
}

/// What follows from the beginning of a file.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It runs by itself.
    Runs,
    /// It needs this loader (`PT_INTERP`).
    Loader(PathBuf),
    /// It is executed by this program.
    Script(PathBuf),
    /// It is no program of this machine.
    Foreign,
}

fn next(head: &[u8]) -> Next {
    if let Some(rest) = head.strip_prefix(b"#!") {
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty());
        return word.map_or(Next::Foreign, |word| Next::Script(path_of(word)));
    }
    if head.starts_with(b"\x7fELF") { elf(head) } else { Next::Foreign }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// The machines that this kernel runs (elf.h): the native one and its 32-bit relative.
const MACHINES: &[u16] = if cfg!(target_arch = "x86_64") {
    &[62, 3]
} else if cfg!(target_arch = "aarch64") {
    &[183, 40]
} else if cfg!(target_arch = "riscv64") {
    &[243]
} else {
    &[]
};

const PT_INTERP: u64 = 3;

/// elf(5). Only the byte order of this machine is read: another one is foreign.
fn elf(head: &[u8]) -> Next {
    let wide = head.get(4) == Some(&2);
    let native_order = if cfg!(target_endian = "little") { 1 } else { 2 };
    let machine = number(head, 18, 2).and_then(|value| u16::try_from(value).ok());
    let known = machine.is_some_and(|machine| MACHINES.is_empty() || MACHINES.contains(&machine));
    if head.get(5) != Some(&native_order) || !known {
        return Next::Foreign;
    }
    loader(head, wide).map_or(Next::Runs, Next::Loader)
}

fn loader(head: &[u8], wide: bool) -> Option<PathBuf> {
    let (table, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
    let word = if wide { 8 } else { 4 };
    let (at, size, count) = (number(head, table, word)?, number(head, size, 2)?, number(head, count, 2)?);
    for index in 0..count {
        let entry = at.checked_add(index.checked_mul(size)?)?;
        if number(head, entry, 4)? == PT_INTERP {
            let (offset, len) = if wide { (entry + 8, entry + 32) } else { (entry + 4, entry + 16) };
            let (offset, len) = (number(head, offset, word)?, number(head, len, word)?);
            let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
            let text = head.get(offset..offset.checked_add(len)?)?;
            return Some(path_of(text.split(|byte| *byte == 0).next()?));
        }
    }
    None
}

/// A number of so many bytes in the byte order of this machine.
fn number(head: &[u8], at: impl TryInto<usize>, len: usize) -> Option<u64> {
    let at = at.try_into().ok()?;
    let bytes = head.get(at..at.checked_add(len)?)?;
    let mut whole = [0; 8];
    if cfg!(target_endian = "little") {
        whole[..len].copy_from_slice(bytes)
    } else {
        whole[8 - len..].copy_from_slice(bytes)
    }
    Some(u64::from_ne_bytes(whole))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scripts() {
        assert_eq!(next(b"#! /bin/sh -e\n"), Next::Script("/bin/sh".into()));
        assert_eq!(next(b"#!/usr/bin/env\tx"), Next::Script("/usr/bin/env".into()));
        assert_eq!(next(b"#!\n"), Next::Foreign);
        assert_eq!(next(b"plain text"), Next::Foreign);
        assert_eq!(next(b""), Next::Foreign);
    }

    #[test]
    fn programs_of_this_machine_and_of_others() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(matches!(next(&own[..HEAD.min(own.len())]), Next::Runs | Next::Loader(_)));
        let mut foreign = own[..64].to_vec();
        foreign[18] = 0xff;
        assert_eq!(next(&foreign), Next::Foreign);
        assert_eq!(next(b"\x7fELF"), Next::Foreign);
    }

    #[test]
    fn what_execve_says() {
        let errno = |path: &str| executable(Path::new(path)).map_err(|error| error.errno);
        assert_eq!(errno("/nonexistent"), Err(libc::ENOENT));
        assert_eq!(errno("/"), Err(libc::EACCES));
        assert_eq!(errno("/proc/self/status"), Err(libc::EACCES));
        assert_eq!(errno("/proc/self/exe"), Ok(()));
    }
}
