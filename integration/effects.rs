//! What limits do, as it is felt inside of the container. That they are written is shown by `resources`.

use std::path::Path;
use std::time::{Duration, Instant};

use rt::sys::mount;
use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, read};
use crate::hierarchy::{Version, apart, forget_network_classes, in_pure_view, unified, value, version};
use crate::resources::disk;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        memory_runs_out_at_the_limit,
        without_the_oom_killer_processes_wait,
        a_limit_below_what_is_in_use_is_refused,
        memory_high_throttles,
        a_quota_throttles,
        shares_divide_a_cpu,
        realtime_needs_a_budget,
        cpus_and_memory_nodes_are_seen_inside,
        forks_fail_at_the_pids_limit,
        reads_take_their_time,
        huge_pages_run_out,
        sub_cgroups_run_out,
        network_class_and_priorities,
    }
}

macro_rules! needs {
    ($controller:literal) => {
        if version($controller).is_none() {
            return Skip(format!("no cgroup controller {}", $controller));
        }
    };
}

/// A running container at a path of its own, with these resources.
fn limited<'c>(ctx: &'c Ctx<'c>, path: &str, resources: Value) -> Container<'c> {
    ctx.running(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = resources;
    })
}

/// The number behind this word in a file of words and numbers.
fn count(controller: &str, path: &str, v1: &str, v2: &str, word: &str) -> u64 {
    let content = value(controller, path, v1, v2);
    let line = content.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
}

/// A pipe that holds 60 MB in the memory of its reader.
const HOG: &str = "head -c 64000000 /dev/zero | tail -c 60000000 | wc -c";

fn memory_runs_out_at_the_limit(ctx: &Ctx) -> Outcome {
    needs!("memory");
    let path = ctx.fresh("/rt-oom");
    let container = limited(ctx, &path, json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }));
    let kills = || count("memory", &path, "memory.oom_control", "memory.events", "oom_kill");
    assert_eq!((container.sh("head -c 1000000 /dev/zero | tail -c 900000 | wc -c"), kills()), ("900000".to_owned(), 0));
    assert_ne!(container.exec(&[], &["sh", "-c", HOG]).text(), "60000000");
    assert!(kills() > 0, "the kernel counts whom it killed");
    let used = value("memory", &path, "memory.max_usage_in_bytes", "memory.peak");
    assert!(used.is_empty() || used.parse::<u64>().unwrap() <= 33_554_432, "{used}");
    Pass
}

fn without_the_oom_killer_processes_wait(ctx: &Ctx) -> Outcome {
    if version("memory") != Some(Version::V1) {
        return Skip("version 2 always has its OOM killer".to_owned());
    }
    let path = ctx.fresh("/rt-oomless");
    let memory = json!({ "limit": 33_554_432, "swap": 33_554_432, "disableOOMKiller": true });
    let container = limited(ctx, &path, json!({ "memory": memory }));
    // Memory of its own: a system call that finds none would fail instead of waiting.
    let grow = r#"BEGIN { s = "x"; while (length(s) < 60000000) s = s s; print length(s) }"#;
    let hog = container.exec_command(&[], &["awk", grow]).spawn();
    ctx.wait_until("it waits for memory", || count("memory", &path, "memory.oom_control", "", "under_oom") == 1);
    ctx.rt(&["update", "--memory", "512m", "--memory-swap", "512m", &container.id]).ok();
    assert_eq!(hog.wait().ok().text(), "67108864");
    assert_eq!(count("memory", &path, "memory.oom_control", "", "oom_kill"), 0);
    Pass
}

fn a_limit_below_what_is_in_use_is_refused(ctx: &Ctx) -> Outcome {
    needs!("memory");
    let path = ctx.fresh("/rt-check");
    let container = ctx.running(|c| {
        config::shell(c, "head -c 30000000 /dev/zero > /dev/shm/held; echo held; sleep 1000");
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864, "swap": 67_108_864 } });
    });
    ctx.wait_until("memory is in use", || container.printed() == "held\n");
    let resources = json!({ "memory": { "limit": 1_048_576, "checkBeforeUpdate": true } }).to_string();
    let update = ctx.rt_command(&["update", "--resources", "-", &container.id]).stdin(&resources).run();
    update.exits(1).refused("memory");
    assert_eq!(value("memory", &path, "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(container.status(), "running");
    Pass
}

fn memory_high_throttles(ctx: &Ctx) -> Outcome {
    if version("memory") != Some(Version::V2) {
        return Skip("version 1 has no memory.high".to_owned());
    }
    let path = ctx.fresh("/rt-high");
    let container = limited(ctx, &path, json!({ "unified": { "memory.high": "16777216" } }));
    // Files are given back under pressure, so that this ends.
    container.sh("head -c 40000000 /dev/zero > /data/file; cat /data/file | wc -c");
    assert!(count("memory", &path, "", "memory.events", "high") > 0);
    Pass
}

fn a_quota_throttles(ctx: &Ctx) -> Outcome {
    needs!("cpu");
    let path = ctx.fresh("/rt-quota");
    let container = limited(ctx, &path, json!({ "cpu": { "quota": 5000, "period": 50_000 } }));
    let began = Instant::now();
    let times = container.sh("time -p sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done' 2>&1");
    assert!(count("cpu", &path, "cpu.stat", "cpu.stat", "nr_throttled") > 0, "{times} in {:?}", began.elapsed());
    Pass
}

/// Two containers that want the same CPU, one with ten times the shares of the other.
fn shares_divide_a_cpu(ctx: &Ctx) -> Outcome {
    needs!("cpu");
    needs!("cpuset");
    let paths = [ctx.fresh("/rt-many"), ctx.fresh("/rt-few")];
    let hogs = [5120, 512].into_iter().zip(&paths).map(|(shares, path)| {
        ctx.running(|c| {
            config::shell(c, "while :; do :; done");
            c["linux"]["cgroupsPath"] = json!(path);
            c["linux"]["resources"] = json!({ "cpu": { "shares": shares, "cpus": "0" } });
        })
    });
    let hogs: Vec<Container> = hogs.collect();
    let used = |path: &String| match version("cpuacct") {
        Some(Version::V1) => value("cpuacct", path, "cpuacct.usage", "").parse::<u64>().unwrap() / 1000,
        _ => count("cpu", path, "", "cpu.stat", "usage_usec"),
    };
    let before: Vec<u64> = paths.iter().map(used).collect();
    ctx.wait_until("there is something to compare", || used(&paths[0]) > before[0] + 400_000);
    let [many, few] = [0, 1].map(|index: usize| used(&paths[index]) - before[index]);
    drop(hogs);
    assert!(many > few * 3, "{many} and {few} microseconds");
    Pass
}

fn realtime_needs_a_budget(ctx: &Ctx) -> Outcome {
    let file = "/sys/fs/cgroup/cpu/cpu.rt_runtime_us";
    if version("cpu") != Some(Version::V1) || !Path::new(file).exists() {
        return Skip("no realtime budgets: version 1 has them, if the kernel is built so".to_owned());
    }
    let realtime = |runtime: i64| {
        ctx.run(|c| {
            config::shell(c, "grep ^policy /proc/self/sched | tr -dc 0-9");
            c["process"]["scheduler"] = json!({ "policy": "SCHED_FIFO", "priority": 1 });
            c["linux"]["cgroupsPath"] = json!(ctx.fresh("/rt-realtime"));
            c["linux"]["resources"] = json!({ "cpu": { "realtimeRuntime": runtime, "realtimePeriod": 1_000_000 } });
        })
    };
    assert_eq!(realtime(5000).ok().text(), "1");
    assert_ne!(realtime(0).code, 0, "without a budget there is none");
    Pass
}

fn cpus_and_memory_nodes_are_seen_inside(ctx: &Ctx) -> Outcome {
    needs!("cpuset");
    let output = ctx.sh_with("grep _allowed_list /proc/self/status", |c| {
        c["linux"]["resources"] = json!({ "cpu": { "cpus": "0", "mems": "0" } });
    });
    assert_eq!(output, "Cpus_allowed_list:\t0\nMems_allowed_list:\t0\n");
    Pass
}

fn forks_fail_at_the_pids_limit(ctx: &Ctx) -> Outcome {
    needs!("pids");
    let path = ctx.fresh("/rt-forks");
    let container = limited(ctx, &path, json!({ "pids": { "limit": 10 } }));
    let output = container.exec(&[], &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done; echo all"]);
    assert!(output.stderr.contains("fork") && !output.stdout.contains("all"), "{output}");
    assert!(count("pids", &path, "pids.events", "pids.events", "max") > 0, "the kernel counts the refusals");
    Pass
}

fn reads_take_their_time(ctx: &Ctx) -> Outcome {
    needs!("blkio");
    let Some(disk) = disk(ctx) else { return Skip("the test's files are on no disk".to_owned()) };
    let (major, minor) = disk.split_once(':').unwrap();
    let device = json!({ "major": major.parse::<u64>().unwrap(), "minor": minor.parse::<u64>().unwrap(), "rate": 20 });
    let container = limited(ctx, &ctx.fresh("/rt-reads"), json!({ "blockIO": { "throttleReadIOPSDevice": [device] } }));
    let write = "dd if=/dev/zero of=/data/file bs=4096 count=20 conv=fsync 2>/dev/null && echo written";
    assert_eq!(container.sh(write), "written");
    let began = Instant::now();
    let read = container.exec(&[], &["dd", "if=/data/file", "of=/dev/null", "bs=4096", "iflag=direct"]);
    if read.code != 0 {
        return Skip(format!("the disk is not read directly: {}", read.stderr.trim()));
    }
    // 20 reads, 20 a second.
    assert!(began.elapsed() > Duration::from_millis(600), "{:?}", began.elapsed());
    Pass
}

/// A machine that keeps two huge pages while this lives.
struct HugePages(String);

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

impl HugePages {
    fn new() -> Option<Self> {
        let before = read(Path::new(POOL)).trim().to_owned();
        let more = before.parse::<u64>().ok()? + 2;
        let kept = Self(before);
        std::fs::write(POOL, more.to_string()).ok()?;
        (read(Path::new(POOL)).trim() == more.to_string()).then_some(kept)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::fs::write(POOL, &self.0);
    }
}

fn huge_pages_run_out(ctx: &Ctx) -> Outcome {
    needs!("hugetlb");
    let Some(pages) = HugePages::new() else { return Skip("the machine has no huge pages to give".to_owned()) };
    // Two megabytes, readable and writable, private, anonymous, huge.
    let map = format!(
        "probe syscall {} 0 2097152 3 {} -1 0",
        libc::SYS_mmap,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB
    );
    for (limit, expected) in [(2_097_152, "ok\n"), (0, "ENOMEM\n")] {
        let output = ctx.sh_with(&map, |c| {
            c["linux"]["cgroupsPath"] = json!(ctx.fresh("/rt-huge"));
            c["linux"]["resources"] = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": limit }] });
        });
        assert_eq!(output, expected, "{limit}");
    }
    drop(pages);
    Pass
}

fn sub_cgroups_run_out(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        let output = ctx.run(|c| {
            config::shell(c, "for i in 1 2 3; do mkdir /sys/fs/cgroup/$i && echo made; done");
            config::namespace(c, "cgroup", None);
            config::without_mount(c, "/sys/fs/cgroup");
            config::mount(c, "cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev"]);
            c["linux"]["resources"] = json!({ "unified": { "cgroup.max.descendants": "2" } });
        });
        assert_eq!((output.text(), output.stderr.contains("unavailable")), ("made\nmade", true), "{output}");
        Pass
    })
}

/// Network classes and priorities have a hierarchy only where somebody mounts it: here that is a mount namespace of the test's own.
fn network_class_and_priorities(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("version 2 has no network classes".to_owned());
    }
    let usual = Path::new("/sys/fs/cgroup/net_cls,net_prio");
    if usual.exists() {
        return classified(ctx, usual);
    }
    let prepare = || {
        mount::mount("tmpfs", Path::new("/mnt"), "tmpfs", 0, "")?;
        std::fs::create_dir("/mnt/net").ok();
        // Where the kernel has none, or they are elsewhere, nothing is mounted.
        mount::mount("cgroup", Path::new("/mnt/net"), "cgroup", 0, "net_cls,net_prio").or(Ok(()))
    };
    let was_there = read(Path::new("/proc/self/cgroup")).contains("net_cls");
    let outcome = apart(ctx, prepare, |ctx| {
        let place = Path::new("/mnt/net");
        if !place.join("cgroup.procs").exists() {
            return Skip("this kernel has no network classes, or they are elsewhere".to_owned());
        }
        classified(ctx, place)
    });
    if !was_there {
        forget_network_classes(ctx);
    }
    outcome
}

fn classified(ctx: &Ctx, place: &Path) -> Outcome {
    let path = ctx.fresh("/rt-net");
    let folder = place.join(path.trim_start_matches('/'));
    let container = ctx.create(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({ "network": { "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 4 }] } });
    });
    let file = |name: &str| read(&folder.join(name));
    assert_eq!(file("net_cls.classid"), "1048577\n");
    assert!(file("net_prio.ifpriomap").lines().any(|line| line == "lo 4"), "{}", file("net_prio.ifpriomap"));
    container.delete().ok();
    assert!(!folder.exists());
    Pass
}
