//! `update`: limits and device rules of a container that exists, all of a call or nothing.

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, Output, read};
use crate::hierarchy::{Version, folder, in_pure_view, unified, value, version};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        every_flag_sets_its_limit,
        a_created_container_gets_limits,
        a_paused_container_gets_limits,
        flags_win_over_the_file,
        limits_come_from_a_file,
        memory_and_swap_go_up_and_down,
        kernel_memory_is_warned_about,
        resctrl_that_is_not_there_is_refused,
        a_refusal_names_the_value_and_changes_nothing,
        a_stopped_container_is_refused,
        devices_change,
        devices_change_in_version_2,
        devices_survive_a_refusal,
        devices_survive_a_refusal_in_version_2,
        device_rules_that_are_refused_change_nothing,
        a_list_that_only_denies_is_no_wish,
        exec_and_the_program_meet_the_same_rules,
        devices_are_never_denied_on_the_way,
        device_rules_are_recorded,
    }
}

/// Flag, value, controller, and what the files say then: in version 1 and in version 2; without a name there is none.
type Row = (&'static str, &'static str, &'static str, (&'static str, &'static str), (&'static str, &'static str));

const FLAGS: [Row; 14] = [
    ("--memory", "128m", "memory", ("memory.limit_in_bytes", "134217728"), ("memory.max", "134217728")),
    ("--memory-reservation", "32m", "memory", ("memory.soft_limit_in_bytes", "33554432"), ("memory.low", "33554432")),
    ("--kernel-memory-tcp", "8m", "memory", ("memory.kmem.tcp.limit_in_bytes", "8388608"), ("", "")),
    ("--cpu-share", "512", "cpu", ("cpu.shares", "512"), ("cpu.weight", "59")),
    ("--cpu-period", "50000", "cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "max 50000")),
    ("--cpu-quota", "30000", "cpu", ("cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 50000")),
    ("--cpu-burst", "1000", "cpu", ("cpu.cfs_burst_us", "1000"), ("cpu.max.burst", "1000")),
    ("--cpu-rt-period", "500000", "cpu", ("cpu.rt_period_us", "500000"), ("", "")),
    ("--cpu-rt-runtime", "5000", "cpu", ("cpu.rt_runtime_us", "5000"), ("", "")),
    ("--cpu-idle", "1", "cpu", ("cpu.idle", "1"), ("cpu.idle", "1")),
    ("--cpuset-cpus", "0", "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    ("--cpuset-mems", "0", "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
    ("--pids-limit", "23", "pids", ("pids.max", "23"), ("pids.max", "23")),
    ("--blkio-weight", "500", "blkio", ("blkio.bfq.weight", "500"), ("io.bfq.weight", "default 500")),
];

fn created<'c>(ctx: &'c Ctx<'c>, path: &str, resources: Value) -> Container<'c> {
    ctx.create(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = resources;
    })
}

/// Sets each limit by its flag, in the order of the table.
fn set_all(ctx: &Ctx, container: &Container, path: &str) {
    for (flag, text, controller, v1, v2) in FLAGS {
        let (file, expected) = match version(controller) {
            None => continue,
            Some(Version::V1) => v1,
            // Without the BFQ scheduler it is the other file, and another scale.
            Some(Version::V2) if v2.0 == "io.bfq.weight" && !folder(controller, path).join(v2.0).exists() => {
                ("io.weight", "default 4950")
            }
            Some(Version::V2) => v2,
        };
        let output = ctx.rt(&["update", flag, text, &container.id]);
        let lacking = file.is_empty() || !folder(controller, path).join(file).exists();
        if lacking {
            assert!(output.code != 0 || !output.stderr.is_empty(), "nothing is ignored in silence: {flag}: {output}");
        } else {
            assert_eq!((output.code, value(controller, path, file, file).as_str()), (0, expected), "{flag}: {output}");
        }
    }
}

fn every_flag_sets_its_limit(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "older ones lack flags");
    let path = ctx.fresh("/rt-flags");
    let container = created(ctx, &path, json!({}));
    container.start().ok();
    set_all(ctx, &container, &path);
    assert_eq!(container.status(), "running");
    Pass
}

fn a_created_container_gets_limits(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "older ones lack flags");
    let path = ctx.fresh("/rt-unstarted");
    let container = created(ctx, &path, json!({}));
    set_all(ctx, &container, &path);
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    Pass
}

fn a_paused_container_gets_limits(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "older ones lack flags");
    let path = ctx.fresh("/rt-standing");
    let container = created(ctx, &path, json!({}));
    container.start().ok();
    container.verb("pause").ok();
    set_all(ctx, &container, &path);
    assert_eq!(container.status(), "paused");
    container.verb("resume").ok();
    container.exec(&[], &["true"]).ok();
    Pass
}

/// `rt update --resources - FLAGS ID`.
fn update(ctx: &Ctx, container: &Container, flags: &[&str], resources: &Value) -> Output {
    let mut arguments = vec!["update", "--resources", "-"];
    arguments.extend(flags);
    arguments.push(&container.id);
    ctx.rt_command(&arguments).stdin(&resources.to_string()).run()
}

fn flags_win_over_the_file(ctx: &Ctx) -> Outcome {
    if version("pids").is_none() {
        return Skip("no cgroup controller pids".to_owned());
    }
    needs_rt!(ctx, "runc ignores the flags beside a file");
    let path = ctx.fresh("/rt-flag");
    let container = created(ctx, &path, json!({ "pids": { "limit": 17 } }));
    update(ctx, &container, &["--pids-limit", "31"], &json!({ "pids": { "limit": 29 } })).ok();
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "31");
    ctx.rt(&["update", "--pids-limit", "-1", &container.id]).ok();
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "max");
    Pass
}

fn limits_come_from_a_file(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-file");
    let container = created(ctx, &path, json!({ "pids": { "limit": 17 } }));
    let dir = ctx.host_dir("limits", "new.json", &json!({ "pids": { "limit": 29 } }).to_string());
    ctx.rt(&["update", "-r", &format!("{dir}/new.json"), &container.id]).ok();
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "29");
    ctx.rt(&["update", "-r", &format!("{dir}/none.json"), &container.id]).exits(1).refused("none.json");
    Pass
}

/// The two limits bound each other in version 1, and which may be written first depends on the direction.
fn memory_and_swap_go_up_and_down(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-swap");
    let container = created(ctx, &path, json!({ "memory": { "limit": 67_108_864, "swap": 67_108_864 } }));
    if value("memory", &path, "memory.memsw.limit_in_bytes", "memory.swap.max").is_empty() {
        return Skip("the kernel does not count swap".to_owned());
    }
    for (memory, both, v2) in [("256m", "512m", "268435456"), ("32m", "64m", "33554432"), ("64m", "64m", "0")] {
        ctx.rt(&["update", "--memory", memory, "--memory-swap", both, &container.id]).ok();
        let bytes = |text: &str| (text.trim_end_matches('m').parse::<u64>().unwrap() << 20).to_string();
        let expected = if version("memory") == Some(Version::V1) { bytes(both) } else { v2.to_owned() };
        assert_eq!(value("memory", &path, "memory.limit_in_bytes", "memory.max"), bytes(memory));
        assert_eq!(value("memory", &path, "memory.memsw.limit_in_bytes", "memory.swap.max"), expected);
    }
    Pass
}

fn kernel_memory_is_warned_about(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc says nothing");
    let container = ctx.create(|_| {});
    let output = ctx.rt(&["update", "--kernel-memory", "32m", &container.id]);
    assert!(output.code == 0 && output.stderr.contains("linux.resources.memory.kernel: "), "{output}");
    Pass
}

fn resctrl_that_is_not_there_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc says it in other words");
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        return Skip("resctrl is there".to_owned());
    }
    let container = ctx.create(|_| {});
    for flag in ["--l3-cache-schema=L3:0=f", "--mem-bw-schema=MB:0=50"] {
        ctx.rt(&["update", flag, &container.id]).exits(1).refused("no resctrl filesystem is mounted");
    }
    Pass
}

fn a_refusal_names_the_value_and_changes_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc leaves what it had written before the refusal");
    let path = ctx.fresh("/rt-all-or-nothing");
    let container = created(ctx, &path, json!({ "pids": { "limit": 17 }, "cpu": { "shares": 2048, "quota": 20_000 } }));
    let files = |names: &[&str]| -> Vec<String> { names.iter().map(|name| read(&folder("cpu", &path).join(name))).collect() };
    let names = ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.weight", "cpu.max"];
    let before = files(&names);
    let wrong = json!({ "cpu": { "shares": 512, "quota": 30_000, "period": 50_000, "cpus": "4095" }, "pids": { "limit": 23 } });
    update(ctx, &container, &[], &wrong).exits(1).refused("set cpuset.cpus to \"4095\"");
    assert_eq!((files(&names), value("pids", &path, "pids.max", "pids.max")), (before, "17".to_owned()));
    // What cannot be meant is refused before anything is written.
    let output =
        update(ctx, &container, &[], &json!({ "cpu": { "idle": 7, "shares": 512 }, "memory": { "limit": -5 } })).exits(1);
    assert!(output.stderr.contains("cpu.idle: expected 0 or 1") && output.stderr.contains("memory.limit: expected"), "{output}");
    Pass
}

fn a_stopped_container_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.stop();
    ctx.rt(&["update", "--pids-limit", "5", &container.id]).exits(1);
    Pass
}

const NOTHING: &str = r#"{ "allow": false, "access": "rwm" }"#;

/// Device rules: nothing, but for these accesses to /dev/kmsg (1:11), which needs no capability to be opened for writing.
fn rules(access: &str) -> Value {
    let nothing: Value = serde_json::from_str(NOTHING).unwrap();
    json!({ "devices": [nothing, { "allow": true, "type": "c", "major": 1, "minor": 11, "access": access }] })
}

/// A running container that may do nothing with kmsg but make its node.
fn with_kmsg<'c>(ctx: &'c Ctx<'c>) -> Container<'c> {
    let container = ctx.running(|c| {
        config::shell(c, "mknod /dev/kmsg c 1 11 && echo ready && sleep 1000");
        // To read it.
        config::capabilities(c, &[&config::CAPABILITIES[..], &["CAP_SYSLOG"]].concat());
        c["linux"]["resources"] = rules("m");
    });
    ctx.wait_until("there is a node", || container.printed() == "ready\n");
    container
}

/// What the container may do with kmsg, by opening it inside, and whether the default devices are still there.
fn tried(container: &Container) -> String {
    let script = "for f in r w; do \
        case $f in r) ( : < /dev/kmsg ) ;; w) ( : > /dev/kmsg ) ;; esac 2>/dev/null && printf $f; done; \
        head -c 1 /dev/zero > /dev/null && printf +";
    container.sh(script)
}

fn change_there_and_back(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no other one changes devices");
    let container = with_kmsg(ctx);
    for (access, expected) in [("m", "+"), ("w", "w+"), ("rw", "rw+"), ("r", "r+"), ("m", "+")] {
        update(ctx, &container, &[], &rules(access)).ok();
        assert_eq!(tried(&container), expected, "{access}");
    }
    // Everything, with a hole, and back again.
    let holed =
        json!({ "devices": [{ "allow": true }, { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" }] });
    update(ctx, &container, &[], &holed).ok();
    assert_eq!(tried(&container), "r+");
    update(ctx, &container, &[], &rules("w")).ok();
    assert_eq!(tried(&container), "w+");
    Pass
}

fn devices_change(ctx: &Ctx) -> Outcome {
    change_there_and_back(ctx)
}

fn devices_change_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, change_there_and_back)
}

fn refuse_and_look(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no other one changes devices");
    let container = with_kmsg(ctx);
    let mut wrong = rules("rw");
    wrong["unified"] = json!({ "cgroup.max.depth": "none" });
    update(ctx, &container, &[], &wrong).exits(1).refused("cgroup.max.depth");
    assert_eq!(tried(&container), "+");
    Pass
}

fn devices_survive_a_refusal(ctx: &Ctx) -> Outcome {
    refuse_and_look(ctx)
}

fn devices_survive_a_refusal_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, refuse_and_look)
}

/// In version 1 a cgroup cannot allow what the one above denies.
fn device_rules_that_are_refused_change_nothing(ctx: &Ctx) -> Outcome {
    if version("devices") != Some(Version::V1) {
        return Skip("version 2 refuses no rules".to_owned());
    }
    needs_rt!(ctx, "no other one changes devices");
    let above = ctx.fresh("/rt-above");
    std::fs::create_dir(folder("devices", &above)).unwrap();
    std::fs::write(folder("devices", &above).join("devices.deny"), "c 1:11 rw").unwrap();
    let path = format!("{above}/below");
    let container = created(ctx, &path, json!({ "devices": rules("m")["devices"], "pids": { "limit": 17 } }));
    let list = || read(&folder("devices", &path).join("devices.list"));
    let before = list();
    let mut wanted = rules("rw");
    wanted["devices"].as_array_mut().unwrap().insert(1, json!({ "allow": true, "type": "b", "major": 7, "access": "r" }));
    wanted["pids"] = json!({ "limit": 23 });
    update(ctx, &container, &[], &wanted).exits(1).refused("devices.allow");
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!((sorted(list()), value("pids", &path, "pids.max", "")), (sorted(before), "17".to_owned()));
    container.delete().ok();
    std::fs::remove_dir(folder("devices", &above)).unwrap();
    Pass
}

fn a_list_that_only_denies_is_no_wish(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no other one changes devices");
    let container = with_kmsg(ctx);
    update(ctx, &container, &[], &rules("w")).ok();
    let nothing: Value = serde_json::from_str(NOTHING).unwrap();
    let output = update(ctx, &container, &[], &json!({ "devices": [nothing], "pids": { "limit": 50 } })).ok();
    assert!(output.stderr.contains("linux.resources.devices: not applied: a list that only denies"), "{output}");
    assert_eq!(tried(&container), "w+");
    // Least of all where everything is allowed.
    let everything = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    let wide = ctx.running(|c| c["linux"]["resources"] = everything);
    let nothing: Value = serde_json::from_str(NOTHING).unwrap();
    update(ctx, &wide, &[], &json!({ "devices": [nothing] })).ok();
    assert!(wide.sh("mknod /tmp/other c 200 200; ( : < /tmp/other ) 2>&1 || true").contains("No such device"));
    Pass
}

/// Rules are those of the cgroup, not of a process: also for what runs already.
fn exec_and_the_program_meet_the_same_rules(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no other one changes devices");
    let container = ctx.running(|c| {
        config::shell(
            c,
            "mknod /dev/kmsg c 1 11; until ( : > /dev/kmsg ) 2>/dev/null; do sleep 0.02; done; echo opened; sleep 1000",
        );
        c["linux"]["resources"] = rules("m");
    });
    assert_eq!(container.printed(), "");
    update(ctx, &container, &[], &rules("w")).ok();
    ctx.wait_until("the program may open it", || container.printed() == "opened\n");
    Pass
}

/// While rules change again and again, what all of them allow is never denied.
fn devices_are_never_denied_on_the_way(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no other one changes devices");
    fn body(ctx: &Ctx) -> Outcome {
        let container = ctx.running(|c| {
            config::shell(c, "mknod /dev/kmsg c 1 11; while :; do ( : > /dev/null ) 2>/dev/null || echo denied; done");
            c["linux"]["resources"] = rules("m");
        });
        for round in 0..15 {
            update(ctx, &container, &[], &rules(if round % 2 == 0 { "rw" } else { "m" })).ok();
        }
        assert_eq!((container.printed().as_str(), container.status().as_str()), ("", "running"));
        Pass
    }
    body(ctx);
    if unified() { Pass } else { in_pure_view(ctx, body) }
}

fn device_rules_are_recorded(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no other one changes devices");
    let container = with_kmsg(ctx);
    update(ctx, &container, &[], &rules("w")).ok();
    let record: Value = serde_json::from_str(&read(&ctx.state_root().join(&container.id).join("record.json"))).unwrap();
    assert_eq!(record["deviceRules"][1]["access"], "w");
    // The same list once more is no change, whatever somebody else has done to the cgroup meanwhile.
    update(ctx, &container, &[], &rules("w")).ok();
    assert_eq!(tried(&container), "w+");
    Pass
}
