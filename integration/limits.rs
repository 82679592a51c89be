//! The properties of `linux.resources`, one by one, as the kernel's files show them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cgroups::{folder, limited, unified, value};
use crate::config;
use crate::ctx::{Ctx, read};
use crate::hierarchy::forget_network_classes;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        burst_and_idle,
        real_time,
        memory_and_swap,
        settings_of_version_1_memory,
        settings_that_version_2_has_not_are_refused,
        kernel_memory_is_counted_elsewhere,
        an_update_below_the_usage_is_refused,
        rates_of_block_devices,
        weights_of_block_devices,
        huge_pages,
        network_class_and_priorities,
        unified_files_in_their_order,
        unified_without_version_2_is_refused,
        device_rules_by_kind_and_number,
        what_was_there_before_stays,
    }
    User {
        denied_devices_are_a_warning,
    }
}

fn burst_and_idle(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 knows neither");
    let path = ctx.fresh("/rt-burst");
    let container = limited(ctx, &path, json!({ "cpu": { "quota": 50_000, "period": 100_000, "burst": 20_000 } }));
    assert_eq!(value("cpu", &path, "cpu.cfs_burst_us", "cpu.max.burst"), "20000");
    drop(container);
    let path = ctx.fresh("/rt-idle");
    let _container = limited(ctx, &path, json!({ "cpu": { "idle": 1 } }));
    assert_eq!(value("cpu", &path, "cpu.idle", "cpu.idle"), "1");
    Pass
}

fn real_time(ctx: &Ctx) -> Outcome {
    if unified() {
        return refused(ctx, json!({ "cpu": { "realtimeRuntime": 1000 } }), "linux.resources.cpu.realtimeRuntime");
    }
    if !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        return Skip("this kernel has no real time of control groups".to_owned());
    }
    let path = ctx.fresh("/rt-realtime");
    let _container = limited(ctx, &path, json!({ "cpu": { "realtimeRuntime": 5000, "realtimePeriod": 500_000 } }));
    assert_eq!(value("cpu", &path, "cpu.rt_runtime_us", ""), "5000");
    assert_eq!(value("cpu", &path, "cpu.rt_period_us", ""), "500000");
    Pass
}

fn refused(ctx: &Ctx, resources: Value, text: &str) -> Outcome {
    ctx.run(|c| c["linux"]["resources"] = resources).exits(1).refused(text);
    Pass
}

fn memory_and_swap(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-swap");
    let file =
        if unified() { "/sys/fs/cgroup/init.scope/memory.swap.max" } else { "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes" };
    if !Path::new(file).exists() {
        return Skip("swap is not counted here".to_owned());
    }
    let _container = limited(ctx, &path, json!({ "memory": { "limit": 33_554_432, "swap": 50_331_648 } }));
    let expected = if unified() { "16777216" } else { "50331648" };
    assert_eq!(value("memory", &path, "memory.memsw.limit_in_bytes", "memory.swap.max"), expected);
    Pass
}

fn settings_of_version_1_memory(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("needs the memory controller of version 1".to_owned());
    }
    needs_rt!(ctx, "runc leaves kernelTCP out");
    let path = ctx.fresh("/rt-memory");
    let memory = json!({ "swappiness": 7, "disableOOMKiller": true, "kernelTCP": 8_388_608, "useHierarchy": true });
    let _container = limited(ctx, &path, json!({ "memory": memory }));
    let of = |name| value("memory", &path, name, "");
    assert_eq!(of("memory.swappiness"), "7");
    assert!(of("memory.oom_control").starts_with("oom_kill_disable 1"));
    assert_eq!(of("memory.kmem.tcp.limit_in_bytes"), "8388608");
    assert_eq!(of("memory.use_hierarchy"), "1");
    Pass
}

fn settings_that_version_2_has_not_are_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc ignores some of them");
    if !unified() {
        return Skip("needs pure cgroup version 2".to_owned());
    }
    let cases = [
        (json!({ "memory": { "swappiness": 7 } }), "memory.swappiness"),
        (json!({ "memory": { "disableOOMKiller": true } }), "memory.disableOOMKiller"),
        (json!({ "blockIO": { "leafWeight": 100 } }), "blockIO.leafWeight"),
        (json!({ "network": { "classID": 100 } }), "network.classID"),
    ];
    for (resources, name) in cases {
        refused(ctx, resources, &format!("linux.resources.{name}"));
    }
    Pass
}

/// It is part of what `memory.limit` counts; the kernel does not limit it on its own any more.
fn kernel_memory_is_counted_elsewhere(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not say so");
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        c["linux"]["resources"] = json!({ "memory": { "kernel": 16_777_216, "useHierarchy": false } });
    });
    let output = output.ok();
    for name in ["kernel", "useHierarchy"] {
        assert!(output.stderr.contains(&format!("linux.resources.memory.{name}")), "{output}");
    }
    Pass
}

/// `checkBeforeUpdate`; the version 1 kernel checks by itself.
fn an_update_below_the_usage_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 has no such check on version 1");
    let path = ctx.fresh("/rt-check");
    let script = "dd if=/dev/zero of=/dev/shm/big bs=1M count=24 2> /dev/null; sleep 1000";
    let container = ctx.running(|c| {
        config::shell(c, script);
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864, "swap": 67_108_864 } });
    });
    let usage = || value("memory", &path, "memory.usage_in_bytes", "memory.current").parse::<u64>().unwrap_or(0);
    ctx.wait_until("the file is written", || usage() > 24 << 20);
    let resources = json!({ "memory": { "limit": 4_194_304, "swap": 4_194_304, "checkBeforeUpdate": true } });
    let file = ctx.path("resources.json");
    fs::write(&file, resources.to_string()).unwrap();
    ctx.rt(&["update", "--resources", &file, &container.id]).exits(1);
    assert_eq!(value("memory", &path, "memory.limit_in_bytes", "memory.max"), "67108864");
    Pass
}

/// The number of a disk.
fn disk() -> Option<(u64, u64)> {
    let names = ["vda", "sda", "nvme0n1", "xvda", "zram0"];
    let text = names.iter().map(|name| read(format!("/sys/block/{name}/dev").as_ref())).find(|text| !text.is_empty())?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn rates_of_block_devices(ctx: &Ctx) -> Outcome {
    let Some((major, minor)) = disk() else { return Skip("no disk".to_owned()) };
    let path = ctx.fresh("/rt-rates");
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let _container = limited(
        ctx,
        &path,
        json!({ "blockIO": {
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400)
        } }),
    );
    if unified() {
        let expected = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=300 wiops=400");
        assert_eq!(value("io", &path, "", "io.max"), expected);
        return Pass;
    }
    for (name, rate) in [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 300), ("write_iops", 400)] {
        let found = value("blkio", &path, &format!("blkio.throttle.{name}_device"), "");
        assert_eq!(found, format!("{major}:{minor} {rate}"), "{name}");
    }
    Pass
}

/// BFQ's files, where the kernel has that scheduler; a device has a weight of its own only if it is used there.
fn weights_of_block_devices(ctx: &Ctx) -> Outcome {
    let Some((major, minor)) = disk() else { return Skip("no disk".to_owned()) };
    let path = ctx.fresh("/rt-weights");
    let own = json!([{ "major": major, "minor": minor, "weight": 444, "leafWeight": 445 }]);
    let mut block = json!({ "weight": 333, "leafWeight": 334, "weightDevice": own });
    if unified() {
        block = json!({ "weight": 333 });
    }
    let mut container = ctx.container(ctx.bundle(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({ "blockIO": block });
    }));
    let output = container.create().ok();
    let place = folder(if unified() { "io" } else { "blkio" }, &path);
    let bfq = place.join(if unified() { "io.bfq.weight" } else { "blkio.bfq.weight" });
    if bfq.exists() {
        assert!(read(&bfq).trim().ends_with("333"), "{}", read(&bfq));
    } else {
        assert!(output.stderr.contains("blockIO.weight") || place.join("io.weight").exists(), "{output}");
    }
    if !unified() && ctx.is_rt() {
        for name in ["blockIO.leafWeight", "weightDevice[0].leafWeight"] {
            assert!(output.stderr.contains(name), "{name}: {output}");
        }
        let set = read(&place.join("blkio.bfq.weight_device")).contains(&format!("{major}:{minor} 444"));
        assert!(set || output.stderr.contains("weightDevice[0].weight"), "{output}");
    }
    Pass
}

fn huge_pages(ctx: &Ctx) -> Outcome {
    let mount = if unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    let there = read(Path::new(mount).join("cgroup.controllers").as_ref()).contains("hugetlb");
    if !there || !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        return Skip("no huge pages of 2 MB, or they are not counted".to_owned());
    }
    needs_rt!(ctx, "runc 1.1.5 looks for them on version 1 only");
    let path = ctx.fresh("/rt-huge");
    let _container = limited(ctx, &path, json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] }));
    let place = Path::new(mount).join(path.trim_start_matches('/'));
    for name in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(read(&place.join(name)).trim(), "4194304", "{name}");
    }
    Pass
}

/// In a private view of the host, where the hierarchy of these controllers is mounted if it is not.
fn network_class_and_priorities(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("needs controllers of version 1".to_owned());
    }
    let mount = ctx.path("net");
    fs::create_dir(&mount).unwrap();
    let container = ctx.container(ctx.bundle(|c| {
        c["linux"]["cgroupsPath"] = json!(format!("/{}", ctx.fresh("rt-net")));
        let priorities = json!([{ "name": "lo", "priority": 3 }]);
        c["linux"]["resources"] = json!({ "network": { "classID": 1_048_577, "priorities": priorities } });
    }));
    let rt = format!("{} --root {}", ctx.runtime().display(), ctx.path("state"));
    let (id, bundle) = (&container.id, container.bundle.path());
    let script = format!(
        "mount -t cgroup -o net_cls,net_prio none {mount} || exit 77; {rt} create -b {bundle} {id} < /dev/null > /dev/null || exit 1
         cat {mount}/rt-net*/net_cls.classid; grep '^lo ' {mount}/rt-net*/net_prio.ifpriomap; {rt} delete --force {id}"
    );
    let was_there = read(Path::new("/proc/self/cgroup")).contains("net_cls");
    let output = ctx.command(&["unshare", "-m", "sh", "-c", &script]).run();
    if !was_there {
        forget_network_classes(ctx);
    }
    if output.code == 77 {
        return Skip("the controllers net_cls and net_prio cannot be mounted".to_owned());
    }
    assert_eq!(output.ok().lines(), ["1048577", "lo 3"]);
    Pass
}

fn unified_files_in_their_order(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc shuffles them");
    let mount = if unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    if !Path::new(mount).join("cgroup.controllers").exists() {
        return Skip("needs cgroup version 2".to_owned());
    }
    let path = ctx.fresh("/rt-unified");
    // Files of the core, which need no controller.
    let _container = limited(ctx, &path, json!({ "unified": { "cgroup.max.descendants": "11", "cgroup.max.depth": "5" } }));
    let place = Path::new(mount).join(path.trim_start_matches('/'));
    assert_eq!(read(&place.join("cgroup.max.descendants")).trim(), "11");
    assert_eq!(read(&place.join("cgroup.max.depth")).trim(), "5");
    let order = |files: [&str; 2]| {
        let container = ctx.container(ctx.bundle(|c| {
            c["linux"]["resources"] = json!({ "unified": { files[0]: "7", files[1]: "7" } });
        }));
        let plan = ctx.rt(&["plan", container.bundle.path()]).ok().stdout;
        plan.find(files[0]).unwrap() < plan.find(files[1]).unwrap()
    };
    assert!(order(["cgroup.max.depth", "cgroup.max.descendants"]) && order(["cgroup.max.descendants", "cgroup.max.depth"]));
    Pass
}

/// On a hybrid host: files of controllers that are on version 1.
fn unified_without_version_2_is_refused(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("every controller is on version 2".to_owned());
    }
    needs_rt!(ctx, "runc has another text");
    refused(ctx, json!({ "unified": { "memory.max": "1000000000" } }), "linux.resources.unified[\"memory.max\"]");
    refused(ctx, json!({ "unified": { "cgroup.procs": "1" } }), "linux.resources.unified[\"cgroup.procs\"]")
}

/// The later rule decides, on its kind, number and access alone.
fn device_rules_by_kind_and_number(ctx: &Ctx) -> Outcome {
    let rules = json!([
        { "allow": false },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" },
        { "allow": true, "type": "b", "major": 7, "access": "r" },
    ]);
    let script = "mknod /dev/kmsg c 1 11; mknod /dev/mem c 1 1; mknod /dev/loop b 7 0
        for node in kmsg mem; do ( : > /dev/$node ) 2> /dev/null && echo $node; done
        ( : < /dev/loop ) 2> /dev/null && echo read; ( : > /dev/loop ) 2> /dev/null && echo write; true";
    let output = ctx.sh_with(script, |c| c["linux"]["resources"] = json!({ "devices": rules }));
    assert!(output.starts_with("kmsg\n") && !output.contains("mem") && !output.contains("write"), "{output}");
    let allowed = ctx.sh_with("head -c 1 /dev/zero | wc -c; mknod /dev/kmsg c 1 11 && : > /dev/kmsg && echo all", |c| {
        c["linux"]["resources"] = json!({ "devices": [{ "allow": true, "type": "a", "access": "rwm" }] });
    });
    assert_eq!(allowed, "1\nall\n");
    Pass
}

fn denied_devices_are_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc ignores them");
    let run = |rules: Value| {
        let output = ctx.run(|c| {
            c["process"]["args"] = json!(["/bin/true"]);
            c["linux"]["resources"] = json!({ "devices": rules });
        });
        output.ok().stderr.contains("linux.resources.devices: not applied")
    };
    assert!(!run(json!([{ "allow": false, "access": "rwm" }])), "in a user namespace nobody makes devices");
    assert!(run(json!([{ "allow": false, "type": "c", "major": 1, "minor": 5, "access": "rwm" }])));
    Pass
}

/// runtime.md, "Delete": what the container did not create is not deleted.
fn what_was_there_before_stays(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc removes them if they are empty");
    let path = ctx.fresh("/rt-before");
    let place = folder("pids", &path);
    fs::create_dir(&place).unwrap();
    let container = limited(ctx, &path, json!({}));
    container.start().ok();
    container.stop();
    container.delete().ok();
    assert!(place.exists());
    fs::remove_dir(&place).unwrap();
    Pass
}
