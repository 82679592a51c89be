//! Flags in words, as strace(1) prints them: for the arguments in a [`super::CallError`].

/// A bit, or a group of them, and its name.
type Names = &'static [(u64, &'static str)];

const fn bits(flags: i32) -> u64 {
    flags.cast_unsigned() as u64
}

/// open(2), without the access mode. What contains another comes before it.
const OPEN: Names = &[
    (bits(libc::O_CREAT), "O_CREAT"),
    (bits(libc::O_EXCL), "O_EXCL"),
    (bits(libc::O_NOCTTY), "O_NOCTTY"),
    (bits(libc::O_TRUNC), "O_TRUNC"),
    (bits(libc::O_APPEND), "O_APPEND"),
    (bits(libc::O_NONBLOCK), "O_NONBLOCK"),
    (bits(libc::O_TMPFILE), "O_TMPFILE"),
    (bits(libc::O_SYNC), "O_SYNC"),
    (bits(libc::O_DIRECTORY), "O_DIRECTORY"),
    (bits(libc::O_NOFOLLOW), "O_NOFOLLOW"),
    (bits(libc::O_NOATIME), "O_NOATIME"),
    (bits(libc::O_CLOEXEC), "O_CLOEXEC"),
    (bits(libc::O_PATH), "O_PATH"),
];

/// openat2(2).
const RESOLVE: Names = &[
    (0x01, "RESOLVE_NO_XDEV"),
    (0x02, "RESOLVE_NO_MAGICLINKS"),
    (0x04, "RESOLVE_NO_SYMLINKS"),
    (0x08, "RESOLVE_BENEATH"),
    (0x10, "RESOLVE_IN_ROOT"),
    (0x20, "RESOLVE_CACHED"),
];

/// clone3(2), as far as we use it.
const CLONE: Names = &[
    (0x0000_0080, "CLONE_NEWTIME"),
    (bits(libc::CLONE_PARENT), "CLONE_PARENT"),
    (bits(libc::CLONE_NEWNS), "CLONE_NEWNS"),
    (bits(libc::CLONE_NEWCGROUP), "CLONE_NEWCGROUP"),
    (bits(libc::CLONE_NEWUTS), "CLONE_NEWUTS"),
    (bits(libc::CLONE_NEWIPC), "CLONE_NEWIPC"),
    (bits(libc::CLONE_NEWUSER), "CLONE_NEWUSER"),
    (bits(libc::CLONE_NEWPID), "CLONE_NEWPID"),
    (bits(libc::CLONE_NEWNET), "CLONE_NEWNET"),
    (bits(libc::CLONE_PIDFD), "CLONE_PIDFD"),
    (0x2_0000_0000, "CLONE_INTO_CGROUP"),
];

/// The flags of open(2), access mode first.
pub fn open(flags: i32) -> String {
    let mode = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => "O_RDONLY",
        libc::O_WRONLY => "O_WRONLY",
        _ => "O_RDWR",
    };
    words(Some(mode), bits(flags & !libc::O_ACCMODE), OPEN)
}

/// The `resolve` of openat2(2).
pub fn resolve(flags: u64) -> String {
    words(None, flags, RESOLVE)
}

/// The flags of clone3(2).
pub fn clone(flags: u64) -> String {
    words(None, flags, CLONE)
}

fn words(first: Option<&str>, mut flags: u64, names: Names) -> String {
    let mut words: Vec<String> = first.map(str::to_owned).into_iter().collect();
    for (bits, name) in names {
        if flags & bits == *bits {
            words.push((*name).to_owned());
            flags &= !bits;
        }
    }
    if flags != 0 || words.is_empty() {
        words.push(format!("{flags:#x}"));
    }
    words.join("|")
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_strace_prints_them() {
        assert_eq!(super::open(0), "O_RDONLY");
        assert_eq!(super::open(libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW), "O_WRONLY|O_CREAT|O_NOFOLLOW");
        assert_eq!(super::open(libc::O_PATH | libc::O_DIRECTORY), "O_RDONLY|O_DIRECTORY|O_PATH");
        assert_eq!(super::open(libc::O_RDWR | 1 << 30), "O_RDWR|0x40000000");
        assert_eq!(super::resolve(0x0c), "RESOLVE_NO_SYMLINKS|RESOLVE_BENEATH");
        assert_eq!(super::clone(0x2002_0040), "CLONE_NEWNS|CLONE_NEWPID|0x40");
        assert_eq!(super::clone(0), "0x0");
    }
}
