//! Control groups: limits are written and enforced, and nothing remains. Both hierarchies' files are known here.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config;
use crate::ctx::{Container, Ctx, read};
use crate::hierarchy::{Version, version};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        the_memory_limit_is_written,
        the_memory_limit_is_enforced,
        memory_reservation_and_swap_are_written,
        the_pids_limit_is_written,
        the_pids_limit_is_enforced,
        cpu_shares_quota_and_period_are_written,
        the_cpuset_is_applied,
        an_impossible_cpuset_is_refused,
        devices_are_denied_but_the_default_ones,
        an_allowed_device_can_be_opened,
        version_1_lists_device_rules_in_their_order,
        init_is_in_its_cgroup,
        the_path_is_the_configured_one,
        a_relative_path_lies_below_the_caller_s,
        nothing_is_left_after_delete,
        nothing_is_left_after_a_failed_create,
        sub_cgroups_made_inside_are_removed,
        a_path_is_usable_again_at_once,
        a_pids_limit_of_0_leaves_the_first_process_alone,
        the_cgroup_mount_shows_the_container_s_own,
        a_memory_limit_that_is_text_is_refused,
        pause_stops_and_resume_continues,
        a_paused_container_that_was_not_started_goes_on_after_resume,
        update_changes_limits,
        a_refused_update_changes_nothing,
        a_memory_limit_too_low_to_start_is_explained,
        a_full_pids_limit_is_explained,
        an_existing_cgroup_is_empty_in_every_hierarchy,
    }
}

pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The folder of a cgroup in this controller's hierarchy.
pub fn folder(controller: &str, path: &str) -> PathBuf {
    let mount = if unified() { "/sys/fs/cgroup".to_owned() } else { format!("/sys/fs/cgroup/{controller}") };
    Path::new(&mount).join(path.trim_start_matches('/'))
}

/// The value of a cgroup file, which has one name per hierarchy version.
pub fn value(controller: &str, path: &str, v1: &str, v2: &str) -> String {
    read(&folder(controller, path).join(if unified() { v2 } else { v1 })).trim().to_owned()
}

/// A created container in a cgroup of this path, with these resources.
pub fn limited<'c>(ctx: &'c Ctx<'c>, path: &str, resources: serde_json::Value) -> Container<'c> {
    ctx.create(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = resources;
    })
}

fn the_memory_limit_is_written(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-memory");
    let _container = limited(ctx, &path, json!({ "memory": { "limit": 67_108_864 } }));
    assert_eq!(value("memory", &path, "memory.limit_in_bytes", "memory.max"), "67108864");
    Pass
}

fn the_memory_limit_is_enforced(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        // A variable of 64 MB in 32 MB of memory.
        config::shell(c, "head -c 64000000 /dev/zero | tail -c 60000000 | wc -c; echo $?");
        c["linux"]["resources"] = json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } });
    });
    assert!(!output.stdout.contains("60000000"), "{output}");
    Pass
}

fn memory_reservation_and_swap_are_written(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-reservation");
    let _container = limited(ctx, &path, json!({ "memory": { "limit": 67_108_864, "reservation": 33_554_432 } }));
    assert_eq!(value("memory", &path, "memory.soft_limit_in_bytes", "memory.low"), "33554432");
    Pass
}

fn the_pids_limit_is_written(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-pids");
    let _container = limited(ctx, &path, json!({ "pids": { "limit": 17 } }));
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "17");
    Pass
}

fn the_pids_limit_is_enforced(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo all started");
        c["linux"]["resources"] = json!({ "pids": { "limit": 10 } });
    });
    assert!(output.stderr.contains("fork") && !output.stdout.contains("all started"), "{output}");
    Pass
}

fn cpu_shares_quota_and_period_are_written(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-cpu");
    let _container = limited(ctx, &path, json!({ "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 } }));
    if unified() {
        assert_eq!(value("cpu", &path, "", "cpu.max"), "50000 100000");
    } else {
        let of = |name| value("cpu", &path, name, "");
        assert_eq!([of("cpu.shares"), of("cpu.cfs_quota_us"), of("cpu.cfs_period_us")], ["512", "50000", "100000"]);
    }
    Pass
}

fn the_cpuset_is_applied(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("grep Cpus_allowed_list /proc/self/status", |c| {
        c["linux"]["resources"] = json!({ "cpu": { "cpus": "0", "mems": "0" } });
    });
    assert_eq!(output, "Cpus_allowed_list:\t0\n");
    Pass
}

fn an_impossible_cpuset_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["linux"]["resources"] = json!({ "cpu": { "cpus": "99999" } })).exits(1).refused("cpuset");
    Pass
}

/// A node for /dev/mem made inside, where nodes work (the bundle may lie on a filesystem where they do not): CAP_MKNOD allows to make it, the cgroup forbids to open it.
const OPEN_MEM: &str = "mknod /dev/mem c 1 1 && head -c 1 /dev/mem > /dev/null 2>&1 && echo opened || echo denied";

fn devices_are_denied_but_the_default_ones(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with(&format!("{OPEN_MEM}; head -c 1 /dev/zero | wc -c"), |c| {
        c["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    });
    assert_eq!(output, "denied\n1\n");
    Pass
}

fn an_allowed_device_can_be_opened(ctx: &Ctx) -> Outcome {
    // /dev/kmsg, which needs no capability to be opened for writing.
    let script = "mknod /dev/kmsg c 1 11 && ( : > /dev/kmsg ) 2>/dev/null && echo opened || echo denied";
    let denied = json!({ "allow": false, "access": "rwm" });
    for (access, expected) in [("rw", "opened\n"), ("r", "denied\n")] {
        let allowed = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": access });
        let output = ctx.sh_with(script, |c| c["linux"]["resources"] = json!({ "devices": [denied, allowed] }));
        assert_eq!(output, expected, "{access}");
    }
    Pass
}

fn version_1_lists_device_rules_in_their_order(ctx: &Ctx) -> Outcome {
    if unified() {
        return Outcome::Skip("version 2 has no device list".to_owned());
    }
    needs_rt!(ctx, "runc sorts them");
    let path = ctx.fresh("/rt-devices");
    let _container = limited(
        ctx,
        &path,
        json!({ "devices": [
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
            { "allow": true, "type": "b", "major": 8, "minor": 20, "access": "rw" },
            { "allow": true, "type": "b", "major": 10, "minor": 200, "access": "r" },
        ] }),
    );
    let list = read(&folder("devices", &path).join("devices.list"));
    assert!(list.starts_with("c 10:229 rwm\nb 8:20 rw\nb 10:200 r\nc *:* m\n"), "{list}");
    Pass
}

fn init_is_in_its_cgroup(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-init");
    let container = limited(ctx, &path, json!({}));
    let procs = read(&folder("pids", &path).join("cgroup.procs"));
    assert!(procs.lines().any(|pid| pid == container.pid().to_string()), "{procs}");
    Pass
}

fn the_path_is_the_configured_one(ctx: &Ctx) -> Outcome {
    let path = format!("/rt-parent/{}", ctx.fresh("deep"));
    let container = limited(ctx, &path, json!({}));
    let of_init = read(format!("/proc/{}/cgroup", container.pid()).as_ref());
    assert!(of_init.lines().filter(|line| line.ends_with(&path)).count() >= if unified() { 1 } else { 5 }, "{of_init}");
    container.delete().ok();
    for controller in ["memory", "pids", "cpu", "cpuset", "cpuacct", "devices", "freezer", "blkio", "systemd", "unified"] {
        let _ = std::fs::remove_dir(folder(controller, "/rt-parent"));
    }
    Pass
}

fn a_relative_path_lies_below_the_caller_s(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("needs a cgroup with processes and children: hierarchy version 1".to_owned());
    }
    let path = ctx.fresh("rt-relative");
    let container = limited(ctx, &path, json!({}));
    let own = read("/proc/self/cgroup".as_ref());
    let of = |text: &str| text.lines().find(|line| line.contains(":pids:")).unwrap().rsplit(':').next().unwrap().to_owned();
    let own = of(&own);
    let of_init = of(&read(format!("/proc/{}/cgroup", container.pid()).as_ref()));
    assert_eq!(of_init, format!("{}/{path}", own.trim_end_matches('/')));
    Pass
}

fn nothing_is_left_after_delete(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-delete");
    let container = limited(ctx, &path, json!({}));
    assert_ne!(everywhere(&path), Vec::<PathBuf>::new());
    container.start().ok();
    container.stop();
    container.delete().ok();
    assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
    Pass
}

fn nothing_is_left_after_a_failed_create(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-failed");
    let mut container = ctx.container(ctx.bundle(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["process"]["args"] = json!(["/no/such/program"]);
    }));
    container.create().exits(1);
    assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
    Pass
}

fn sub_cgroups_made_inside_are_removed(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-nested");
    let container = limited(ctx, &path, json!({}));
    std::fs::create_dir_all(folder("pids", &path).join("one/two")).unwrap();
    container.delete().ok();
    assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
    Pass
}

/// The folders of this path in all hierarchies.
fn everywhere(path: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).collect();
    found.iter_mut().for_each(|folder| folder.push(path.trim_start_matches('/')));
    found.retain(|folder| folder.exists());
    found
}

fn a_path_is_usable_again_at_once(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-again");
    for limit in [20, 30, 0] {
        let resources = if limit == 0 { json!({}) } else { json!({ "pids": { "limit": limit } }) };
        let container = limited(ctx, &path, resources);
        let expected = if limit == 0 { "max".to_owned() } else { limit.to_string() };
        assert_eq!(value("pids", &path, "pids.max", "pids.max"), expected);
        ctx.rt(&["delete", "--force", &container.id]).ok();
    }
    Pass
}

/// "`0` is a valid limit value [...] and SHOULD be treated as such" (runtime-spec, "PIDs"): there is the first process, and no other one.
fn a_pids_limit_of_0_leaves_the_first_process_alone(ctx: &Ctx) -> Outcome {
    if version("pids").is_none() {
        return Skip("no controller pids".to_owned());
    }
    needs_rt!(ctx, "the others take 0 for none");
    let path = ctx.fresh("/rt-none");
    let container = limited(ctx, &path, json!({ "pids": { "limit": 0 } }));
    container.start().ok();
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "0");
    container.exec(&[], &["true"]).exits(255).refused("the container's pids limit of 0");
    ctx.run(|c| {
        config::shell(c, "/bin/true; echo not reached");
        c["linux"]["resources"] = json!({ "pids": { "limit": 0 } });
    })
    .refused("can't fork");
    Pass
}

fn the_cgroup_mount_shows_the_container_s_own(ctx: &Ctx) -> Outcome {
    let file = if unified() { "/sys/fs/cgroup/pids.max" } else { "/sys/fs/cgroup/pids/pids.max" };
    for namespace in [false, true] {
        let output = ctx.sh_with(&format!("cat {file}"), |c| {
            c["linux"]["resources"] = json!({ "pids": { "limit": 19 } });
            if namespace {
                config::namespace(c, "cgroup", None);
            }
        });
        assert_eq!(output, "19\n", "with a cgroup namespace: {namespace}");
    }
    Pass
}

fn a_memory_limit_that_is_text_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["linux"]["resources"] = json!({ "memory": { "limit": "64m" } })).exits(1).refused("memory");
    Pass
}

fn pause_stops_and_resume_continues(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::shell(c, "while :; do echo tick; sleep 0.01; done"));
    ctx.wait_until("it ticks", || !container.printed().is_empty());
    container.verb("pause").ok();
    assert_eq!(container.status(), "paused");
    let before = container.printed();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(container.printed(), before);
    container.exec(&[], &["true"]).exits(255).refused("cannot exec in a paused container");
    container.verb("resume").ok();
    assert_eq!(container.status(), "running");
    ctx.wait_until("it ticks again", || container.printed().len() > before.len());
    container.verb("resume").exits(1).refused("container not paused");
    Pass
}

fn a_paused_container_that_was_not_started_goes_on_after_resume(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|_| {});
    container.verb("pause").ok();
    assert_eq!(container.status(), "paused");
    container.start().exits(1);
    container.verb("resume").ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    Pass
}

fn update_changes_limits(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-update");
    let container = limited(ctx, &path, json!({ "pids": { "limit": 17 }, "memory": { "limit": 67_108_864 } }));
    ctx.rt(&["update", "--pids-limit", "23", &container.id]).ok();
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "23");
    ctx.rt(&["update", "--memory", "128m", &container.id]).ok();
    let resources = json!({ "pids": { "limit": 29 } }).to_string();
    ctx.rt_command(&["update", "--resources", "-", &container.id]).stdin(&resources).run().ok();
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "29");
    assert_eq!(value("memory", &path, "memory.limit_in_bytes", "memory.max"), "134217728");
    Pass
}

fn a_refused_update_changes_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc leaves what it had written before the refusal");
    let path = ctx.fresh("/rt-refused");
    let container = limited(ctx, &path, json!({ "pids": { "limit": 17 }, "memory": { "limit": 67_108_864 } }));
    let resources = json!({ "memory": { "limit": 134_217_728 }, "pids": { "limit": 23 }, "cpu": { "cpus": "4095" } });
    let update = ctx.rt_command(&["update", "--resources", "-", &container.id]).stdin(&resources.to_string()).run();
    update.exits(1).refused("cpuset.cpus");
    assert_eq!(value("pids", &path, "pids.max", "pids.max"), "17");
    assert_eq!(value("memory", &path, "memory.limit_in_bytes", "memory.max"), "67108864");
    Pass
}

fn a_memory_limit_too_low_to_start_is_explained(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc says less");
    let output = ctx.run(|c| c["linux"]["resources"] = json!({ "memory": { "limit": 16_384, "swap": 16_384 } }));
    let version_1 = version("memory") == Some(Version::V1);
    let need = if version_1 { 84 } else { 256 };
    output.exits(1).refused("memory limit of 16384 bytes is too low").refused(&format!("a start needs {need} KiB or more"));
    // With as much it starts, and the program may use the rest up.
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "exit 0");
        c["linux"]["resources"] = json!({ "memory": { "limit": need << 10, "swap": need << 10 } });
    }));
    let output = container.run_command(&[]).run();
    assert!(!version_1 || !output.stderr.contains("too low"), "{output}");
    Pass
}

fn a_full_pids_limit_is_explained(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc says less");
    let container = ctx.running(|c| c["linux"]["resources"] = json!({ "pids": { "limit": 1 } }));
    container.exec(&[], &["true"]).exits(255).refused("pids limit of 1 is reached");
    Pass
}

/// Its limits would be those of whoever is in it. Engines' monitors may be in groups below.
fn an_existing_cgroup_is_empty_in_every_hierarchy(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others look at one hierarchy");
    if unified() {
        return Skip("version 2 has one hierarchy".to_owned());
    }
    let path = ctx.fresh("/rt-existing");
    let (occupied, free) = (folder("memory", &path), folder("pids", &path));
    let below = occupied.join("monitor");
    for folder in [&occupied, &free, &below] {
        fs::create_dir(folder).unwrap();
    }
    let somebody = ctx.command(&["sleep", "1000"]).spawn();
    let create = || {
        let mut container = ctx.container(ctx.bundle(|c| c["linux"]["cgroupsPath"] = json!(path)));
        (container.create(), container)
    };
    for (place, refused) in [(&occupied, true), (&below, false)] {
        fs::write(place.join("cgroup.procs"), somebody.pid()).unwrap();
        let (output, container) = create();
        if refused {
            let output = output.exits(1).refused("expected an empty cgroup, found one with 1 processes in it");
            assert!(output.stderr.contains(&format!("{}/cgroup.procs", occupied.display())), "{output}");
        } else {
            output.ok();
            ctx.rt(&["delete", "--force", &container.id]).ok();
        }
    }
    let alive = read(format!("/proc/{}/cgroup", somebody.pid()).as_ref());
    assert!(alive.contains(&format!("memory:{path}/monitor")), "{alive}");
    drop(somebody);
    for folder in [&below, &occupied, &free] {
        ctx.wait_until("what was there stays, and is empty", || fs::remove_dir(folder).is_ok());
    }
    Pass
}
