//! Words and values of config.json, one by one: each has its effect, or is refused with its name.

use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, read, status};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        every_capability_by_its_name,
        every_rlimit_by_its_name,
        every_memory_policy,
        each_device_type,
        a_console_size_without_a_terminal_is_ignored,
        every_kind_of_hook_gets_arguments_and_environment,
        every_kind_of_hook_has_a_timeout,
        every_personality,
        a_mount_label_without_selinux_is_a_warning,
        modules_that_are_not_active_are_refused,
    }
    User {
        a_bound_device_keeps_its_mode,
    }
    Root {
        each_scheduler_policy,
        each_scheduler_flag,
        scheduler_values_that_mean_nothing_are_a_warning,
        each_io_priority_class,
        every_root_propagation,
        what_exists_is_not_replaced_by_a_device,
        without_a_mount_namespace_paths_are_a_warning,
        a_bound_dev_keeps_its_devices,
    }
}

/// The capabilities by number (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// In a user namespace every capability can be had.
fn every_capability_by_its_name(ctx: &Ctx) -> Outcome {
    let last: usize = read(Path::new("/proc/sys/kernel/cap_last_cap")).trim().parse().unwrap();
    let container = ctx.container(ctx.bundle(|c| {
        config::without_mount(c, "/sys");
        let map = |id| json!([config::id_map(0, id, 1)]);
        config::in_user_namespace(c, map(ctx.uid()), map(ctx.gid()));
        c["process"]["args"] = json!(["/bin/cat", "/proc/self/status"]);
    }));
    for (number, name) in CAPABILITIES.iter().enumerate().take(last + 1) {
        container.bundle.edit(|c| config::capabilities(c, &[&format!("CAP_{name}")]));
        let output = container.run().ok();
        for set in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&status(&output.stdout, set), 16).unwrap(), 1 << number, "{name}: {set}");
        }
    }
    Pass
}

/// The limits in the order of `/proc/PID/limits`.
const LIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

fn every_rlimit_by_its_name(ctx: &Ctx) -> Outcome {
    let hard = |line: &str| line[26..].split_whitespace().nth(1).unwrap().parse::<u64>().ok();
    let host = read(Path::new("/proc/self/limits"));
    let wanted = |index: usize| match hard(host.lines().nth(index + 1).unwrap()) {
        None => 1 << 40,
        Some(limit) => limit - limit / 4,
    };
    let output = ctx.sh_with("cat /proc/self/limits", |c| {
        let limit = |(index, name): (usize, &&str)| {
            json!({ "type": format!("RLIMIT_{name}"), "soft": wanted(index) / 2, "hard": wanted(index) })
        };
        c["process"]["rlimits"] = LIMITS.iter().enumerate().map(limit).collect();
    });
    for (index, name) in LIMITS.iter().enumerate() {
        let found: Vec<&str> = output.lines().nth(index + 1).unwrap()[26..].split_whitespace().take(2).collect();
        assert_eq!(found, [(wanted(index) / 2).to_string(), wanted(index).to_string()], "{name}");
    }
    Pass
}

/// What the prober says of itself in a container with this scheduler; control groups have no real time of their own unless they get some.
fn scheduled(ctx: &Ctx, scheduler: Value) -> crate::ctx::Output {
    ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/probe", "sched"]);
        c["process"]["scheduler"] = scheduler;
        c["linux"]["cgroupsPath"] = json!(format!("/{}", ctx.fresh("rt-fields")));
        if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
            c["linux"]["resources"] = json!({ "cpu": { "realtimeRuntime": 10_000 } });
        }
    })
}

fn each_scheduler_policy(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know them");
    let cases = [
        (json!({ "policy": "SCHED_OTHER", "nice": 3 }), "0 0 3 0"),
        (json!({ "policy": "SCHED_BATCH", "nice": 4 }), "3 0 4 0"),
        (json!({ "policy": "SCHED_IDLE" }), "5 0 0 0"),
        (json!({ "policy": "SCHED_FIFO", "priority": 7 }), "1 0 0 7"),
        (json!({ "policy": "SCHED_RR", "priority": 8 }), "2 0 0 8"),
    ];
    for (scheduler, expected) in cases {
        let text = scheduler.to_string();
        let output = scheduled(ctx, scheduler).ok();
        assert!(output.text().starts_with(expected), "{text}: {output}");
    }
    let budget = json!({ "policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 50_000_000, "period": 100_000_000 });
    let output = scheduled(ctx, budget);
    assert_eq!(output.ok().text(), "6 0 0 0 2000000 50000000 100000000");
    scheduled(ctx, json!({ "policy": "SCHED_ISO" })).exits(1).refused("sched_setattr");
    scheduled(ctx, json!({ "policy": "SCHED_FIFO" })).exits(1).refused("sched_setattr");
    Pass
}

fn each_scheduler_flag(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know them");
    let deadline = |flag: &str| {
        let budget = (2_000_000, 50_000_000, 100_000_000);
        json!({ "policy": "SCHED_DEADLINE", "runtime": budget.0, "deadline": budget.1, "period": budget.2, "flags": [flag] })
    };
    let cases = [
        (json!({ "policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"] }), "3 1 "),
        (deadline("SCHED_FLAG_RECLAIM"), "6 2 "),
        (deadline("SCHED_FLAG_DL_OVERRUN"), "6 4 "),
        (json!({ "policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_KEEP_POLICY"] }), "0 0 7 "),
        (json!({ "policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_KEEP_PARAMS"] }), "0 0 0 "),
    ];
    for (scheduler, expected) in cases {
        let text = scheduler.to_string();
        let output = scheduled(ctx, scheduler).ok();
        assert!(output.stdout.starts_with(expected), "{text}: {output}");
    }
    // The kernel counts the policy among the parameters that are kept.
    for flag in ["SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"] {
        let output = scheduled(ctx, json!({ "policy": "SCHED_OTHER", "flags": [flag] }));
        // Kernels without CONFIG_UCLAMP_TASK say so.
        assert!(output.code == 0 || output.stderr.contains("EOPNOTSUPP"), "{flag}: {output}");
    }
    Pass
}

fn scheduler_values_that_mean_nothing_are_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know them");
    let output = scheduled(ctx, json!({ "policy": "SCHED_BATCH", "runtime": 5_000_000, "period": 7_000_000 })).ok();
    assert!(output.text().starts_with("3 0 0 0"), "{output}");
    for name in ["runtime", "period"] {
        assert!(output.stderr.contains(&format!("process.scheduler.{name}: left out")), "{output}");
    }
    let output = scheduled(ctx, json!({ "policy": "SCHED_RR", "priority": 1, "nice": 5 })).ok();
    assert!(output.stderr.contains("process.scheduler.nice: has no effect"), "{output}");
    Pass
}

fn each_io_priority_class(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know them");
    for (class, priority, expected) in [("RT", 3, "1 3"), ("BE", 6, "2 6"), ("IDLE", 0, "3 0")] {
        let output = ctx.run(|c| {
            c["process"]["args"] = json!(["/bin/probe", "ioprio"]);
            c["process"]["ioPriority"] = json!({ "class": format!("IOPRIO_CLASS_{class}"), "priority": priority });
        });
        assert_eq!(output.ok().text(), expected, "{class}");
    }
    Pass
}

fn every_memory_policy(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know memory policies");
    if !Path::new("/proc/self/numa_maps").exists() {
        return Skip("this kernel knows no memory nodes".to_owned());
    }
    let policy = |mode: &str, nodes: Option<&str>, flags: &[&str]| {
        let output = ctx.run(|c| {
            c["process"]["args"] = json!(["/bin/probe", "mempolicy"]);
            c["linux"]["memoryPolicy"] = json!({ "mode": mode, "flags": flags });
            if let Some(nodes) = nodes {
                c["linux"]["memoryPolicy"]["nodes"] = json!(nodes);
            }
        });
        if output.code == 0 { output.text().to_owned() } else { output.stderr.clone() }
    };
    assert_eq!(policy("MPOL_DEFAULT", None, &[]), "0 0");
    assert_eq!(policy("MPOL_PREFERRED", Some("0"), &[]), "1 1");
    assert_eq!(policy("MPOL_BIND", Some("0"), &[]), "2 1");
    assert_eq!(policy("MPOL_INTERLEAVE", Some("0"), &[]), "3 1");
    assert_eq!(policy("MPOL_LOCAL", None, &[]), "4 0");
    assert_eq!(policy("MPOL_PREFERRED_MANY", Some("0"), &[]), "5 1");
    // Linux 6.9
    let weighted = policy("MPOL_WEIGHTED_INTERLEAVE", Some("0"), &[]);
    assert!(weighted == "6 1" || weighted.contains("EINVAL"), "{weighted}");
    assert_eq!(policy("MPOL_BIND", Some("0"), &["MPOL_F_STATIC_NODES"]), format!("{} 1", 2 | 1 << 15));
    assert_eq!(policy("MPOL_BIND", Some("0"), &["MPOL_F_RELATIVE_NODES"]), format!("{} 1", 2 | 1 << 14));
    let balanced = policy("MPOL_BIND", Some("0"), &["MPOL_F_NUMA_BALANCING"]);
    assert!(balanced == format!("{} 1", 2 | 1 << 13) || balanced.contains("EINVAL"), "{balanced}");
    Pass
}

/// `u` is another word for `c`. An ordinary user gets the host's devices, and can make a fifo.
fn each_device_type(ctx: &Ctx) -> Outcome {
    let stat = "stat -c '%F %t:%T' /dev/one /dev/two /dev/three; true";
    let output = ctx.run(|c| {
        config::shell(c, stat);
        let device = |path: &str, kind: &str| json!({ "path": path, "type": kind, "major": 1, "minor": 5, "fileMode": 0o600 });
        let fifo = json!({ "path": "/dev/three", "type": "p", "fileMode": 0o644, "major": 9, "minor": 9 });
        c["linux"]["devices"] = json!([device("/dev/zero", "c"), fifo]);
        if ctx.uid() == 0 {
            c["linux"]["devices"] = json!([device("/dev/one", "u"), device("/dev/two", "b"), fifo]);
        }
    });
    let lines = output.ok().stdout;
    assert!(lines.contains("fifo 0:0"), "{lines}");
    if ctx.uid() == 0 {
        assert_eq!(lines, "character special file 1:5\nblock special file 1:5\nfifo 0:0\n");
    }
    Pass
}

fn a_console_size_without_a_terminal_is_ignored(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, "test -t 1 || echo none");
        c["process"]["consoleSize"] = json!({ "height": 10, "width": 20 });
    });
    assert_eq!(output.ok().text(), "none");
    Pass
}

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn every_kind_of_hook_gets_arguments_and_environment(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 adds to the environment");
    // Hooks of the container see what is bound there at the same path.
    let log = ctx.host_dir("log", "all", "");
    let container = ctx.running(|c| {
        config::mount(c, "bind", &log, &log, &["bind"]);
        for kind in KINDS {
            let script = "echo $0 $1 $2 $WORD >> $0/all";
            let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script, log, kind, "second"], "env": ["WORD=given"] });
            c["hooks"][kind] = json!([hook]);
        }
    });
    container.stop();
    container.delete().ok();
    let expected: String = KINDS.iter().map(|kind| format!("{log} {kind} second given\n")).collect();
    assert_eq!(read(&Path::new(&log).join("all")), expected);
    Pass
}

fn every_kind_of_hook_has_a_timeout(ctx: &Ctx) -> Outcome {
    for kind in KINDS {
        let container = ctx.container(ctx.bundle(|c| {
            config::shell(c, "sleep 0.1");
            c["hooks"][kind] = json!([{ "path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1 }]);
        }));
        let output = container.run();
        assert!(output.stderr.contains("timeout of 1 s"), "{kind}: {output}");
        // A poststop hook that fails is a warning.
        assert_eq!(output.code == 0, kind == "poststop", "{kind}: {output}");
    }
    Pass
}

fn every_personality(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know it");
    for (domain, expected) in [("LINUX", "x86_64\n"), ("LINUX32", "i686\n")] {
        assert_eq!(ctx.sh_with("uname -m", |c| c["linux"]["personality"] = json!({ "domain": domain })), expected);
    }
    let flagged = ctx.run(|c| c["linux"]["personality"] = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }));
    flagged.exits(1).refused("linux.personality.flags");
    Pass
}

fn every_root_propagation(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 leaves the root private");
    for word in ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"] {
        let output = ctx.sh_with("cat /proc/self/mountinfo", |c| c["linux"]["rootfsPropagation"] = json!(word));
        let tags = |point: &str| {
            let line = output.lines().find(|line| line.split(' ').nth(4) == Some(point)).unwrap();
            line.split(" - ").next().unwrap().split(' ').skip(6).collect::<Vec<_>>().join(" ")
        };
        for (point, concerned) in [("/", true), ("/dev", word.starts_with('r'))] {
            let found = tags(point);
            assert_eq!(found.contains("shared:"), concerned && word.ends_with("shared"), "{word} {point}: {found}");
            assert_eq!(found.contains("unbindable"), concerned && word.ends_with("unbindable"), "{word} {point}: {found}");
            assert!(!word.ends_with("private") || found.is_empty(), "{word} {point}: {found}");
        }
    }
    Pass
}

/// config-linux.md, "Devices": an error if what is there is something else; the same device is taken as it is.
fn what_exists_is_not_replaced_by_a_device(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 keeps whatever exists");
    let device = |c: &mut Value, minor: u32| {
        config::shell(c, "stat -c '%F %t:%T' /data/node");
        c["linux"]["devices"] = json!([{ "path": "/data/node", "type": "c", "major": 1, "minor": minor }]);
    };
    for (kind, numbers) in [("c", ["1", "3"]), ("b", ["1", "5"])] {
        let container = ctx.container(ctx.bundle(|c| device(c, 5)));
        let node = container.bundle.rootfs("/data/node");
        ctx.host(&["mknod", node.to_str().unwrap(), kind, numbers[0], numbers[1]]).ok();
        container.run().exits(1).refused("/data/node exists and is not the requested device");
    }
    let container = ctx.container(ctx.bundle(|c| device(c, 5)));
    std::fs::write(container.bundle.rootfs("/data/node"), "").unwrap();
    container.run().exits(1).refused("/data/node exists and is not the requested device");
    let container = ctx.container(ctx.bundle(|c| device(c, 5)));
    let node = container.bundle.rootfs("/data/node");
    ctx.host(&["mknod", node.to_str().unwrap(), "c", "1", "5"]).ok();
    assert_eq!(container.run().ok().text(), "character special file 1:5");
    container.bundle.edit(|c| c["linux"]["devices"][0]["fileMode"] = json!(0o600));
    let output = container.run().ok();
    assert!(output.stderr.contains("/data/node was there before and keeps mode 644"), "{output}");
    Pass
}

fn without_a_mount_namespace_paths_are_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 refuses");
    let container = ctx.container(ctx.bundle(|c| {
        config::without_namespace(c, "mount");
        c["mounts"] = json!([]);
        c["process"]["args"] = json!(["/bin/true"]);
        c["linux"]["rootfsPropagation"] = json!("private");
    }));
    let output = container.run().ok();
    for name in ["maskedPaths", "readonlyPaths", "rootfsPropagation"] {
        assert!(output.stderr.contains(&format!("linux.{name}: not applied")), "{output}");
    }
    Pass
}

fn a_bound_dev_keeps_its_devices(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not say so");
    let output = ctx.run(|c| {
        config::shell(c, "test -e /dev/extra || echo none");
        config::without_mount(c, "/dev");
        config::mount(c, "bind", "/dev", "/dev", &["rbind", "rslave"]);
        c["linux"]["devices"] = json!([{ "path": "/dev/extra", "type": "c", "major": 1, "minor": 5 }]);
    });
    let output = output.ok();
    assert_eq!(output.text(), "none");
    assert!(output.stderr.contains("linux.devices: left out"), "{output}");
    Pass
}

fn a_mount_label_without_selinux_is_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc hands it to the file system");
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return Skip("SELinux is active".to_owned());
    }
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        c["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    });
    assert!(output.ok().stderr.contains("linux.mountLabel: left out"));
    Pass
}

fn modules_that_are_not_active_are_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has another text");
    let modules = read(Path::new("/sys/kernel/security/lsm"));
    for (name, module) in [("apparmorProfile", "AppArmor"), ("selinuxLabel", "SELinux")] {
        let active = Path::new("/sys/fs/selinux/enforce").exists() || Path::new("/sys/kernel/security/apparmor").exists();
        if active || modules.contains(&module.to_lowercase()) {
            return Skip(format!("{module} is active"));
        }
        ctx.run(|c| c["process"][name] = json!("strict")).exits(1).refused(&format!("{module} is not active on this host"));
    }
    Pass
}

/// In a user namespace devices are the host's.
fn a_bound_device_keeps_its_mode(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc does not say so");
    let run = |mode: u32| {
        let output = ctx.run(|c| {
            c["process"]["args"] = json!(["/bin/true"]);
            let device = json!({ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": mode });
            c["linux"]["devices"] = json!([device]);
        });
        output.ok().stderr
    };
    assert_eq!(run(0o666), "");
    assert!(run(0o600).contains("/dev/zero was there before and keeps mode 666"));
    Pass
}
