//! What may help, by failure: a table. A hint is printed on a line of its own, under the message.

use crate::error::Failure;

/// A hint and the failures that it is for.
struct Hint {
    /// The system call; any, if it is empty.
    call: &'static str,
    /// Its error number.
    errno: i32,
    /// What stands in its arguments, or in the words of what was being done.
    about: &'static str,
    /// What may help.
    text: &'static str,
}

/// The first one that fits is given.
const HINTS: &[Hint] = &[
    Hint {
        call: "fsconfig",
        errno: libc::EINVAL,
        about: "\"size\"",
        text: "tmpfs sizes are a number with an optional k, m, g or %",
    },
    Hint { call: "fsconfig", errno: libc::EINVAL, about: "\"gid\"", text: IDS_OF_OPTIONS },
    Hint { call: "fsconfig", errno: libc::EINVAL, about: "\"uid\"", text: IDS_OF_OPTIONS },
    Hint {
        call: "mkdirat",
        errno: libc::EROFS,
        about: "make cgroup ",
        text: "control groups are mounted read-only here, as in a container that may not have any below its own; with \
               --cgroup-manager=disabled the container stays in the caller's",
    },
    Hint { call: "openat", errno: libc::ENOENT, about: "/proc/self/exe", text: "rt needs a procfs on /proc" },
    Hint {
        call: "mkdirat",
        errno: libc::EROFS,
        about: "make mount point ",
        text: "the root filesystem is read-only: the mount point has to be part of it",
    },
    Hint {
        call: "move_mount",
        errno: libc::EINVAL,
        about: "bind ",
        text: "a directory is mounted on a directory, and a file on a file",
    },
    Hint {
        call: "open",
        errno: libc::ENOENT,
        about: "/config.json",
        text: "--bundle names the directory that holds config.json; `rt spec` writes one to start from",
    },
    Hint {
        call: "connect",
        errno: libc::EAGAIN,
        about: "",
        text: "who listens there has not accepted a connection for ten seconds",
    },
    Hint {
        call: "write",
        errno: libc::EBUSY,
        about: "memory.limit_in_bytes",
        text: "the processes use more than that, and the kernel cannot take it from them",
    },
    Hint { call: "close_range", errno: libc::EPERM, about: "", text: FILTER },
    Hint { call: "openat2", errno: libc::EPERM, about: "RESOLVE_", text: FILTER },
    Hint {
        call: "",
        errno: libc::EMFILE,
        about: "",
        text: "the limit of open files (ulimit -n) is too low: rt takes about forty, and some for each mount of a long list",
    },
    Hint {
        call: "fsopen",
        errno: libc::ENODEV,
        about: "",
        text: "/proc/filesystems lists the types that the kernel has now; others need a module to be loaded first",
    },
    Hint {
        call: "fsconfig",
        errno: libc::EPERM,
        about: "mount proc ",
        text: "a new proc needs a pid namespace of its own, and in a user namespace a /proc of the caller without masked paths",
    },
    Hint {
        call: "fsmount",
        errno: libc::EPERM,
        about: "mount proc ",
        text: "a new proc needs a pid namespace of its own, and in a user namespace a /proc of the caller without masked paths",
    },
    Hint {
        call: "open_tree",
        errno: libc::ENOENT,
        about: "attach rootfs ",
        text: "root.path is the directory, relative to the bundle, into which the image's files are to be unpacked",
    },
    Hint { call: "write", errno: libc::ERANGE, about: "cpuset.cpus", text: CPUSET },
    Hint { call: "write", errno: libc::EINVAL, about: "cpuset.cpus", text: CPUSET },
    Hint { call: "write", errno: libc::EACCES, about: "cpuset.cpus", text: CPUSET },
    Hint { call: "write", errno: libc::ERANGE, about: "cpuset.mems", text: CPUSET },
    Hint { call: "write", errno: libc::EINVAL, about: "cpuset.mems", text: CPUSET },
    Hint { call: "write", errno: libc::EACCES, about: "cpuset.mems", text: CPUSET },
    Hint {
        call: "clone3",
        errno: libc::EPERM,
        about: "",
        text: "an ordinary user needs a user namespace, and these may be switched off: see the sysctls user.max_user_namespaces, \
               kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns",
    },
    Hint {
        call: "clone3",
        errno: libc::ENOSPC,
        about: "",
        text: "the number or depth of namespaces is limited: see the sysctls user.max_*_namespaces",
    },
    Hint {
        call: "clone3",
        errno: libc::EAGAIN,
        about: "",
        text: "the caller's own limit of processes is used up: see pids.max of its control group, and ulimit -u",
    },
    Hint {
        call: "clone3",
        errno: libc::EBUSY,
        about: "",
        text: "a control group that has enabled controllers for its children takes no processes itself",
    },
    Hint {
        call: "clone3",
        errno: libc::EOPNOTSUPP,
        about: "",
        text: "a control group for threads, or one below it, takes no processes of its own: see cgroup.type of those that \
               linux.cgroupsPath leads through",
    },
    Hint {
        call: "write",
        errno: libc::EBUSY,
        about: "cgroup.subtree_control",
        text: "a control group with processes of its own cannot pass controllers on: move them to one below it first",
    },
    Hint {
        call: "write",
        errno: libc::EPERM,
        about: "uid_map",
        text: "an ordinary user may map its own id alone; more needs newuidmap(1) and a range in /etc/subuid",
    },
    Hint {
        call: "write",
        errno: libc::EPERM,
        about: "gid_map",
        text: "an ordinary user may map its own group alone; more needs newgidmap(1) and a range in /etc/subgid",
    },
    Hint { call: "prlimit64", errno: libc::EPERM, about: "", text: "a hard limit above the caller's own needs CAP_SYS_RESOURCE" },
    Hint {
        call: "sethostname",
        errno: libc::EPERM,
        about: "",
        text: "hostname needs a uts namespace that belongs to the container",
    },
    Hint {
        call: "setresuid",
        errno: libc::EINVAL,
        about: "",
        text: "ids in a user namespace are those on the left side of its maps (containerID in linux.uidMappings)",
    },
    Hint {
        call: "setresgid",
        errno: libc::EINVAL,
        about: "",
        text: "ids in a user namespace are those on the left side of its maps (containerID in linux.gidMappings)",
    },
    Hint {
        call: "",
        errno: libc::ENOSYS,
        about: "",
        text: "rt needs Linux 6.1 or newer, and no seccomp filter around it that takes system calls away",
    },
];

const FILTER: &str = "a seccomp filter around rt refuses this call: profiles of older engines do not know it";

const IDS_OF_OPTIONS: &str = "the id has to be one of the user namespace in which the mount is made; `rt spec --rootless` writes a config \
                              without such options";

const CPUSET: &str = "the list may name only what is online and what the parent control group may use itself";

/// The hint for a failure, if the table knows one.
pub fn find(failure: &Failure) -> Option<&'static str> {
    let call = failure.call.as_ref()?;
    let about = |hint: &Hint| call.args.contains(hint.about) || failure.doing.contains(hint.about);
    let fits = |hint: &&Hint| (hint.call.is_empty() || hint.call == call.call) && call.is(hint.errno) && about(hint);
    HINTS.iter().find(fits).map(|hint| hint.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::CallError;

    /// What Podman, Docker, containerd and CRI-O look for in error texts.
    const MATCHED_BY_ENGINES: &[&str] = &[
        "does not exist",
        "not running",
        "no such",
        "already",
        "not found",
        "permission",
        "not permitted",
        "not a directory",
        "is a directory",
        "paused",
        "stopped",
    ];

    #[test]
    fn no_hint_looks_like_another_error() {
        for hint in HINTS {
            for phrase in MATCHED_BY_ENGINES {
                assert!(!hint.text.contains(phrase), "{phrase:?} in the hint {:?}", hint.text);
            }
            assert!(!hint.text.contains('\n') && !hint.text.ends_with('.'), "{:?}", hint.text);
        }
    }

    #[test]
    fn every_hint_can_be_found() {
        for hint in HINTS {
            let failure = Failure::from(CallError::new(hint.call, hint.about, hint.errno));
            assert_eq!(find(&failure), Some(hint.text), "hidden by an earlier one");
        }
        assert_eq!(find(&Failure::from(CallError::new("fsopen", "", libc::EPERM))), None);
        assert_eq!(find(&Failure::because("no call")), None);
    }
}
