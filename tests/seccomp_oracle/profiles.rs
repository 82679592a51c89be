//! Profiles: those that engines and units have, and some that ask for what those do not.
//!
//! Below `profiles/` is what programs made of their defaults for a plain container on amd64, as they handed it to a runtime: Docker 20.10,
//! containerd 1.6 (`ctr run --seccomp`), Podman 4.3. Those of systemd are its sets of system calls (systemd 252) as the one rule of a unit with
//! `SystemCallFilter=@system-service`, and as a unit that denies what the `Restrict*` settings do, which compare arguments.

use rt::spec::Seccomp;
use serde_json::{Value, json};

/// What engines give a container by default.
const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const DOCKER: &str = "/usr/share/containers/seccomp.json";

pub fn parse(profile: Value) -> Seccomp {
    serde_json::from_value(profile).unwrap()
}

/// What others ask for, with a name each.
pub fn of_others() -> Vec<(&'static str, Seccomp)> {
    let all = [
        ("docker", include_str!("profiles/docker.json")),
        ("containerd", include_str!("profiles/containerd.json")),
        ("podman", include_str!("profiles/podman.json")),
        ("systemd, what a service may do", include_str!("profiles/systemd-allow.json")),
        ("systemd, what a unit may not do", include_str!("profiles/systemd-deny.json")),
    ];
    all.into_iter().map(|(name, text)| (name, serde_json::from_str(text).unwrap())).collect()
}

/// Docker's default profile for amd64 as this machine's package of engines has it, if there is one.
pub fn docker() -> Option<Seccomp> {
    let Ok(text) = std::fs::read_to_string(DOCKER) else {
        println!("skipped: there is no {DOCKER}");
        return None;
    };
    let profile: Value = serde_json::from_str(&text).unwrap();
    let has = |list: &Value, key: &str, what: &[&str]| {
        let entries = list[key].as_array().cloned().unwrap_or_default();
        (!entries.is_empty()).then(|| entries.iter().any(|entry| what.contains(&entry.as_str().unwrap())))
    };
    let applies = |rule: &&Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        has(includes, "caps", CAPABILITIES) != Some(false)
            && has(includes, "arches", &["amd64"]) != Some(false)
            && has(excludes, "caps", CAPABILITIES) != Some(true)
            && has(excludes, "arches", &["amd64"]) != Some(true)
    };
    let rules: Vec<&Value> = profile["syscalls"].as_array().unwrap().iter().filter(applies).collect();
    Some(parse(json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })))
}

fn arg(index: u32, op: &str, value: u64) -> Value {
    json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value })
}

fn masked(index: u32, mask: u64, value: u64) -> Value {
    json!({ "index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value })
}

/// Profiles in which it matters which rule comes first.
pub fn ordered() -> Vec<(&'static str, Seccomp)> {
    vec![
        (
            "what an earlier rule has decided contradicts nobody",
            parse(json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_PPC64LE"],
                "syscalls": [
                    { "names": ["accept"], "action": "SCMP_ACT_ERRNO", "args": [arg(2, "EQ", 7)] },
                    { "names": ["accept"], "action": "SCMP_ACT_TRAP", "args": [arg(2, "EQ", 7), arg(3, "EQ", 0)] },
                    { "names": ["accept"], "action": "SCMP_ACT_ERRNO" },
                    { "names": ["socketcall"], "action": "SCMP_ACT_TRAP", "args": [arg(0, "EQ", 5), arg(1, "EQ", 1)] },
                ],
            })),
        ),
        (
            "several that are not equal, and differ in the lower half",
            parse(json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    { "names": ["lseek"], "action": "SCMP_ACT_ERRNO", "args": [arg(0, "NE", 0)] },
                    { "names": ["lseek"], "action": "SCMP_ACT_TRAP", "args": [arg(0, "NE", 1)] },
                    { "names": ["lseek"], "action": "SCMP_ACT_LOG", "args": [arg(0, "NE", 1 << 32)] },
                ],
            })),
        ),
    ]
}

/// Profiles with a name each.
pub fn written() -> Vec<(&'static str, Seccomp)> {
    let allow = "SCMP_ACT_ALLOW";
    let common = [
        "read",
        "write",
        "openat",
        "close",
        "mmap",
        "munmap",
        "brk",
        "futex",
        "exit_group",
        "exit",
        "rt_sigreturn",
        "execve",
        "fstat",
        "newfstatat",
        "statx",
        "socket",
        "connect",
        "accept4",
        "bind",
        "listen",
        "semop",
        "semtimedop",
        "shmat",
        "msgget",
        "clock_gettime64",
        "futex_time64",
        "mq_open",
        "_llseek",
        "stat64",
        "waitid",
        "not_a_system_call",
    ];
    vec![
        ("nothing but a default", parse(json!({ "defaultAction": "SCMP_ACT_ERRNO" }))),
        (
            "engine: clone without new namespaces, some personalities",
            parse(json!({
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [
                    { "names": common, "action": allow },
                    { "names": ["clone"], "action": allow, "args": [masked(0, 0x7e02_0000, 0)] },
                    { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
                    { "names": ["personality"], "action": allow, "args": [arg(0, "EQ", 0)] },
                    { "names": ["personality"], "action": allow, "args": [arg(0, "EQ", 8)] },
                    { "names": ["personality"], "action": allow, "args": [arg(0, "EQ", 0xffff_ffff)] },
                    { "names": ["personality"], "action": allow, "args": [arg(0, "EQ", 0x20000), arg(0, "EQ", 0x20008)] },
                    { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [arg(0, "EQ", 16), arg(2, "EQ", 9)] },
                    { "names": ["ptrace", "bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
                ],
            })),
        ),
        (
            "engine: sockets by family",
            parse(json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [
                    { "names": ["read", "write", "socketcall"], "action": allow },
                    { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [arg(0, "EQ", 16), arg(2, "EQ", 9)] },
                    { "names": ["socket"], "action": allow, "args": [arg(2, "NE", 9)] },
                    { "names": ["socket"], "action": allow, "args": [arg(0, "NE", 16)] },
                    { "names": ["socket"], "action": allow, "args": [arg(2, "NE", 9)] },
                ],
            })),
        ),
        (
            "services: a list of what is denied",
            parse(json!({
                "defaultAction": allow,
                "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
                "syscalls": [
                    { "names": ["mount", "umount2", "pivot_root", "kexec_load", "reboot", "init_module"], "action": "SCMP_ACT_ERRNO" },
                    { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [arg(0, "GT", 2)] },
                    { "names": ["mmap", "mmap2", "mprotect"], "action": "SCMP_ACT_ERRNO", "args": [masked(2, 6, 6)] },
                    { "names": ["clone", "unshare"], "action": "SCMP_ACT_ERRNO", "args": [masked(0, 0x1000_0000, 0x1000_0000)] },
                    { "names": ["sched_setscheduler"], "action": "SCMP_ACT_ERRNO", "args": [arg(1, "GE", 1), ] },
                    { "names": ["ioctl"], "action": "SCMP_ACT_KILL_PROCESS", "args": [arg(1, "EQ", 0x5412)] },
                    { "names": ["semop", "shmget", "msgrcv"], "action": "SCMP_ACT_TRAP" },
                ],
            })),
        ),
        (
            "every action",
            parse(json!({
                "defaultAction": "SCMP_ACT_LOG",
                "syscalls": [
                    { "names": ["getpid"], "action": "SCMP_ACT_KILL" },
                    { "names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS" },
                    { "names": ["gettid"], "action": "SCMP_ACT_KILL_THREAD" },
                    { "names": ["getuid"], "action": "SCMP_ACT_TRAP" },
                    { "names": ["getgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0 },
                    { "names": ["geteuid"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535 },
                    { "names": ["getegid"], "action": "SCMP_ACT_TRACE" },
                    { "names": ["getsid"], "action": allow },
                    { "names": ["getpgid"], "action": "SCMP_ACT_NOTIFY" },
                ],
                "listenerPath": "/run/agent.sock",
            })),
        ),
        (
            "ranges that overlap",
            parse(json!({
                "defaultAction": allow,
                "syscalls": [
                    { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [arg(1, "GT", 5)] },
                    { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2, "args": [arg(1, "GT", 10)] },
                    { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3, "args": [arg(1, "LT", 3)] },
                    { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4, "args": [arg(1, "LE", 1)] },
                    { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [arg(1, "EQ", 12)] },
                    { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6, "args": [arg(3, "NE", 7)] },
                    { "names": ["fcntl"], "action": "SCMP_ACT_TRAP", "args": [arg(1, "GE", 1 << 40)] },
                    { "names": ["fcntl"], "action": "SCMP_ACT_TRACE", "args": [arg(0, "LT", 1 << 33)] },
                ],
            })),
        ),
        (
            "every architecture of this byte order that libseccomp 2.5 knows",
            parse(json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": [
                    "SCMP_ARCH_NATIVE", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPSEL",
                    "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64",
                ],
                "syscalls": [
                    { "names": common, "action": allow },
                    { "names": ["breakpoint", "cacheflush", "set_tls", "sync_file_range2"], "action": allow },
                    { "names": ["ipc"], "action": "SCMP_ACT_LOG", "args": [arg(1, "EQ", 3)] },
                    { "names": ["sendmmsg"], "action": "SCMP_ACT_LOG", "args": [arg(0, "EQ", 3), arg(1, "LE", (1 << 32) + 3)] },
                    { "names": ["personality"], "action": allow, "args": [arg(0, "EQ", 0)] },
                ],
            })),
        ),
        (
            "more values than a jump is far",
            parse(json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": (0..300).map(|i| json!({
                    "names": ["ioctl", "prctl"], "action": allow, "args": [arg(1, "EQ", 0x5400 + i * 3)],
                })).collect::<Vec<Value>>(),
            })),
        ),
    ]
}
