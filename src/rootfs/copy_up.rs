//! `tmpcopyup`: what a tmpfs is about to hide is copied into it, with owners and modes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::{Doing, Failure};
use crate::sys::{At, CallResult, fs};

/// How deep directories are followed: far beyond real trees, short of exhausting the stack.
const MAX_DEPTH: usize = 200;

/// How much is copied at a time. A smaller file is copied as if it had no holes.
const BUFFER: usize = 64 * 1024;

/// Copies the content of a directory into another one, and its owner, and its mode unless the tmpfs was asked to have another. What
/// belonged to somebody before belongs to the same one afterwards, also where the new tmpfs maps ids.
///
/// # Errors
/// The kernel's; a full tmpfs (`ENOSPC`); an owner that a mapped tmpfs cannot have (`EOVERFLOW`).
pub fn copy(from: &OwnedFd, to: &OwnedFd, with_mode: bool) -> Result<(), Failure> {
    let itself = |stat: fs::Stat| {
        fs::fchownat(At::from(to), Path::new(""), stat.uid, stat.gid)?;
        if with_mode { fs::fchmodat(At::from(to), Path::new("."), stat.mode) } else { Ok(()) }
    };
    let copied = fs::fstat(from).and_then(itself).and_then(|()| copy_directory(from, to, 0));
    let explained = copied.map_err(|error| {
        let unmapped = error.is(libc::EOVERFLOW);
        let failure = Failure::from(error);
        let hint =
            "the ids of this mount are mapped, and its map has to give ids to the owners of all that is copied, and to root";
        if unmapped { failure.hint(hint) } else { failure }
    });
    explained.doing(|| "copy up into the new tmpfs")
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> CallResult<()> {
    if depth > MAX_DEPTH {
        return Err(crate::sys::CallError::new("openat", format!("more than {MAX_DEPTH} levels"), libc::ELOOP));
    }
    for name in fs::list_dir(from.as_fd())? {
        copy_entry(from, to, Path::new(&name), depth)?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &Path, depth: usize) -> CallResult<()> {
    let stat = fs::fstatat(At::from(from), name, libc::AT_SYMLINK_NOFOLLOW)?;
    match stat.kind {
        libc::S_IFDIR => {
            fs::mkdirat(At::from(to), name, 0o700)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let (inner_from, inner_to) = (fs::openat(At::from(from), name, flags, 0)?, fs::openat(At::from(to), name, flags, 0)?);
            copy_directory(&inner_from, &inner_to, depth + 1)?;
        }
        libc::S_IFREG => copy_file(from, to, name)?,
        libc::S_IFLNK => fs::symlinkat(&fs::readlinkat(At::from(from), name)?, At::from(to), name)?,
        kind => fs::mknodat(At::from(to), name, kind, stat.mode, stat.rdev)?,
    }
    fs::fchownat(At::from(to), name, stat.uid, stat.gid)?;
    if stat.kind != libc::S_IFLNK {
        // After the owner: chown takes set-user-id bits away. The name is ours alone, the tmpfs is not attached yet.
        fs::fchmodat(At::from(to), name, stat.mode)?;
    }
    Ok(())
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &Path) -> CallResult<()> {
    let source = fs::openat(At::from(from), name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
    let target = fs::openat(At::from(to), name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, 0o600)?;
    let size = fs::fstat(&source)?.size;
    if size <= BUFFER as u64 {
        return copy_data(&source, &target, u64::MAX);
    }
    // Memory for what is there, and not for holes: a file may be said to be longer than all memory is.
    fs::ftruncate(&target, size)?;
    let mut offset = 0;
    while let Some((data, hole)) = next_data(&source, offset)? {
        fs::lseek(&source, data, libc::SEEK_SET)?;
        fs::lseek(&target, data, libc::SEEK_SET)?;
        copy_data(&source, &target, hole - data)?;
        offset = hole;
    }
    Ok(())
}

/// Where data begin and end from an offset on. Nothing at the end of the file, or if the filesystem's answer makes no sense.
fn next_data(file: &OwnedFd, offset: u64) -> CallResult<Option<(u64, u64)>> {
    let data = match fs::lseek(file, offset, libc::SEEK_DATA) {
        Err(error) if error.is(libc::ENXIO) => return Ok(None),
        other => other?,
    };
    let hole = fs::lseek(file, data, libc::SEEK_HOLE)?;
    Ok((offset <= data && data < hole).then_some((data, hole)))
}

fn copy_data(source: &OwnedFd, target: &OwnedFd, mut left: u64) -> CallResult<()> {
    let mut buffer = vec![0u8; BUFFER];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        match fs::read(source, &mut buffer[..most])? {
            0 => return Ok(()),
            len => {
                fs::write_all(target, &buffer[..len])?;
                left -= len as u64;
            }
        }
    }
    Ok(())
}
