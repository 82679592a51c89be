//! The program, its rights, and how it is run.

use serde_json::{Value, json};

use super::{Dice, World};

pub(super) fn capabilities(config: &mut Value, dice: &Dice, world: &World) {
    let all = world.listed("/linux/capabilities");
    let permitted = dice.some(&all);
    let inheritable = dice.some(&permitted);
    let effective = dice.some(&permitted);
    let ambient = dice.some(&inheritable);
    let bounding = if dice.once_in(2) { permitted.clone() } else { all };
    config["process"]["capabilities"] = json!({ "bounding": bounding, "permitted": permitted, "effective": effective,
        "inheritable": inheritable, "ambient": ambient });
    if dice.once_in(8) {
        config["process"].as_object_mut().unwrap().remove("capabilities");
    }
}

pub(super) fn rlimits(config: &mut Value, dice: &Dice, _: &World) {
    let mut list = Vec::new();
    for (name, least) in dice.some(&[
        ("RLIMIT_AS", 1i64 << 28),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_CPU", 60),
        ("RLIMIT_DATA", 1 << 26),
        ("RLIMIT_FSIZE", 1 << 16),
        ("RLIMIT_LOCKS", 5),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_NICE", 0),
        ("RLIMIT_NOFILE", 3),
        ("RLIMIT_NPROC", 4000),
        ("RLIMIT_RSS", 1 << 20),
        ("RLIMIT_RTPRIO", 0),
        ("RLIMIT_RTTIME", 100_000),
        ("RLIMIT_SIGPENDING", 10),
        ("RLIMIT_STACK", 1 << 20),
    ]) {
        let privileged = ["RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_MSGQUEUE"].contains(&name);
        let soft = least + if privileged && !dice.bold { 0 } else { dice.between(0, 1000) };
        list.push(json!({ "type": name, "soft": soft, "hard": soft + dice.pick_or(&[0], &[1, 100_000, 1 << 40]) }));
    }
    config["process"]["rlimits"] = json!(list);
}

/// False where one id alone is mapped.
pub(super) fn has_ids(config: &Value, world: &World) -> bool {
    world.uid == 0 || config["linux"]["uidMappings"].as_array().is_some_and(|maps| maps.len() > 1)
}

pub(super) fn user(config: &mut Value, dice: &Dice, world: &World) {
    if !has_ids(config, world) && !dice.bold {
        return;
    }
    let id = |dice: &Dice| dice.pick(&[0, 0, 1, 1000, 65_534]);
    let (uid, gid) = (id(dice), id(dice));
    config["process"]["user"] = json!({ "uid": uid, "gid": gid, "umask": dice.pick(&[0, 0o22, 0o77, 0o777]) });
    if dice.once_in(2) {
        config["process"]["user"]["additionalGids"] = json!([1, 5, id(dice)]);
    }
}

pub(super) fn seccomp(config: &mut Value, dice: &Dice, world: &World) {
    let mut calls = Vec::new();
    for _ in 0..dice.between(1, 4) {
        let names = dice.some(&[
            "mkdirat",
            "chmod",
            "fchmodat",
            "ptrace",
            "kexec_load",
            "swapon",
            "nosuchcall",
            "keyctl",
            "add_key",
            "socket",
        ]);
        let action = dice.pick(&[
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_LOG",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_TRAP",
            "SCMP_ACT_TRACE",
        ]);
        let mut rule = json!({ "names": names, "action": action });
        if names.is_empty() {
            rule["names"] = json!(["chmod"]);
        }
        if dice.once_in(2) {
            let op = dice.pick(&world.listed("/linux/seccomp/operators"));
            rule["args"] = json!([{ "index": dice.below(6), "value": dice.below(100), "valueTwo": dice.below(100), "op": op }]);
        }
        if action == "SCMP_ACT_ERRNO" && dice.once_in(2) {
            rule["errnoRet"] = json!(dice.between(0, 100));
        }
        calls.push(rule);
    }
    let mut flags = world.listed("/linux/seccomp/supportedFlags");
    flags.retain(|flag| flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
    let mut archs = dice.some(&world.listed("/linux/seccomp/archs"));
    if !dice.bold {
        let big = ["M68K", "MIPS", "MIPS64", "MIPS64N32", "PARISC", "PARISC64", "PPC", "PPC64", "S390", "S390X", "SHEB"];
        archs.retain(|arch| !big.iter().any(|name| arch.ends_with(&format!("_{name}"))));
    }
    config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls, "architectures": archs,
        "flags": dice.some(&flags) });
}

pub(super) fn cwd(config: &mut Value, dice: &Dice, _: &World) {
    config["process"]["cwd"] = json!(
        dice.pick_or(&["/", "/data", "/new/place", "/tmp/../data", "/root"], &["/etc/passwd", "/proc/self", "/proc/nosuch"])
    );
}

pub(super) fn environment(config: &mut Value, dice: &Dice, _: &World) {
    let env = dice.pick_or(
        &[json!([]), json!(["PATH=/bin", "HOME=/x"]), json!(["PATH=/bin", "PATH=/sbin:/bin", "A="])],
        &[json!(["PATH=/nowhere"]), json!(["novalue"])],
    );
    config["process"]["env"] = env;
}

pub(super) fn priorities(config: &mut Value, dice: &Dice, _: &World) {
    let process = &mut config["process"];
    for key in dice.some(&["oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity", "noNewPrivileges"]) {
        process[key] = match key {
            "oomScoreAdj" => json!(dice.between(if dice.bold { -1000 } else { 500 }, 1000)),
            "scheduler" => match dice.below(5) {
                0 => json!({ "policy": "SCHED_BATCH", "nice": dice.between(-5, 19) }),
                1 => json!({ "policy": "SCHED_IDLE" }),
                2 if dice.bold => {
                    json!({ "policy": "SCHED_FIFO", "priority": dice.between(1, 99), "flags": ["SCHED_FLAG_RESET_ON_FORK"] })
                }
                3 if dice.bold => {
                    json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000 })
                }
                _ => json!({ "policy": "SCHED_OTHER", "nice": dice.between(0, 19) }),
            },
            "ioPriority" => {
                json!({ "class": dice.pick(&["IOPRIO_CLASS_BE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_IDLE"]), "priority": dice.below(8) })
            }
            "execCPUAffinity" => json!({ "initial": "0", "final": "0-1" }),
            _ => json!(dice.once_in(2)),
        };
    }
}

pub(super) fn memory_policy(config: &mut Value, dice: &Dice, _: &World) {
    let (mode, nodes) = dice.pick_or(
        &[
            ("MPOL_DEFAULT", None),
            ("MPOL_BIND", Some("0")),
            ("MPOL_INTERLEAVE", Some("0")),
            ("MPOL_PREFERRED", Some("0")),
            ("MPOL_LOCAL", None),
        ],
        &[("MPOL_BIND", Some("50")), ("MPOL_BIND", None)],
    );
    let mut policy = json!({ "mode": mode });
    if let Some(nodes) = nodes {
        policy["nodes"] = json!(nodes);
    }
    config["linux"]["memoryPolicy"] = policy;
}

pub(super) fn personality(config: &mut Value, dice: &Dice, _: &World) {
    config["linux"]["personality"] = json!({ "domain": dice.pick(&["LINUX", "LINUX32"]) });
}

pub(super) fn program(config: &mut Value, dice: &Dice, _: &World) {
    let duration = config["process"]["args"][1].clone();
    let program = dice.pick_or(
        &["/bin/sleep", "sleep"],
        &[
            "bin/sleep",
            "./bin/sleep",
            "nosuch",
            "/nosuch",
            "/etc/passwd",
            "/etc",
            "/bin/script",
            "/bin/foreign",
            "/bin/needs-loader",
        ],
    );
    config["process"]["args"] = json!([program, duration]);
}

pub(super) fn security_modules(config: &mut Value, dice: &Dice, _: &World) {
    match dice.below(3) {
        0 => config["process"]["apparmorProfile"] = json!(dice.pick(&["unconfined", "nosuch"])),
        1 => config["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0"),
        _ => config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0"),
    }
}

pub(super) fn terminal(config: &mut Value, dice: &Dice, _: &World) {
    config["process"]["terminal"] = json!(true);
    if dice.once_in(2) {
        config["process"]["consoleSize"] = json!({ "height": dice.below(70_000), "width": dice.between(1, 300) });
    }
}

pub(super) fn listener(config: &mut Value, dice: &Dice, _: &World) {
    let call = json!([{ "names": ["swapon"], "action": "SCMP_ACT_NOTIFY" }]);
    config["linux"]["seccomp"] =
        json!({ "defaultAction": dice.pick(&["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY"]), "syscalls": call });
    for (key, value) in dice.some(&[
        ("listenerPath", json!(dice.pick(&["/nonexistent/agent", "/etc/passwd", "relative"]))),
        ("listenerMetadata", json!("for the agent")),
        ("defaultErrnoRet", json!(5)),
        ("flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"])),
    ]) {
        config["linux"]["seccomp"][key] = value;
    }
}
