//! The systemd driver: a scope for each container, in systemd's eyes and in the kernel's files, and nothing of it afterwards.
//! Where systemd does not run, or not for this user, there is nothing to test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};
use crate::subgroups::{DELEGATED, SUBGROUP};

tests! {
    Both {
        a_scope_has_the_limits,
        the_scope_goes_with_the_container,
        a_slice_of_its_own_goes_with_the_last_container,
        update_tells_systemd_too,
        annotations_set_properties,
        annotations_do_not_set_the_runtime_s_own,
        a_cgroups_path_of_another_form_is_refused,
        a_failed_scope_is_removed,
        a_leftover_scope_makes_way,
        a_scope_in_use_is_left_alone,
        a_failed_create_leaves_no_scope,
        exec_runs_in_the_scope,
        a_group_below_the_scope_is_the_container_s,
        cycles_leave_nothing,
    }
    Root {
        devices_survive_reloads,
        a_user_outside_of_its_systemd_s_tree,
    }
}

macro_rules! needs_systemd {
    ($ctx:expr) => {
        if !Path::new("/run/systemd/system").exists() || systemctl($ctx, &["show", "--property", "Version"]).is_empty() {
            return Skip("systemd does not run here".to_owned());
        }
    };
}

fn systemctl(ctx: &Ctx, arguments: &[&str]) -> String {
    let mut argv = vec!["systemctl"];
    argv.extend((ctx.uid() != 0).then_some("--user"));
    argv.extend(arguments);
    ctx.command(&argv).run().stdout.trim().to_owned()
}

fn property(ctx: &Ctx, unit: &str, name: &str) -> String {
    systemctl(ctx, &["show", "--value", "--property", name, unit])
}

/// Every unit that systemd knows whose name has this in it.
fn units(ctx: &Ctx, part: &str) -> Vec<String> {
    let list = systemctl(ctx, &["list-units", "--all", "--plain", "--no-legend", "--full"]);
    list.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.contains(part)).map(str::to_owned).collect()
}

/// `rt --systemd-cgroup create`, with a path in this slice.
fn create_in<'c>(ctx: &'c Ctx<'c>, slice: &str, edit: impl FnOnce(&mut Value)) -> Container<'c> {
    let mut container = ctx.container(ctx.bundle(edit));
    let path = format!("{slice}:rt:{}", container.id);
    container.bundle.edit(|c| c["linux"]["cgroupsPath"] = json!(path));
    container.create_by_systemd().ok();
    container
}

fn create<'c>(ctx: &'c Ctx<'c>, edit: impl FnOnce(&mut Value)) -> Container<'c> {
    create_in(ctx, "", edit)
}

fn unit(container: &Container) -> String {
    format!("rt-{}.scope", container.id)
}

/// The cgroup of the container's first process.
fn folder(container: &Container) -> PathBuf {
    let groups = read(format!("/proc/{}/cgroup", container.pid()).as_ref());
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
    Path::new("/sys/fs/cgroup").join(path)
}

fn file(container: &Container, name: &str) -> String {
    read(&folder(container).join(name)).trim().to_owned()
}

fn a_scope_has_the_limits(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let container = create(ctx, |c| {
        c["linux"]["resources"] = json!({
            "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 67_108_864 },
            "cpu": { "shares": 1024, "quota": 20_000, "period": 100_000, "cpus": "0" },
            "pids": { "limit": 50 },
            "unified": { "memory.high": "60000000" }
        });
    });
    assert!(folder(&container).ends_with(unit(&container)), "{:?}", folder(&container));
    let of = |name| property(ctx, &unit(&container), name);
    let told = ["MemoryMax", "MemoryLow", "MemoryHigh", "MemorySwapMax", "CPUWeight", "TasksMax", "AllowedCPUs", "Delegate"];
    assert_eq!(told.map(of), ["67108864", "33554432", "60000000", "0", "100", "50", "0", "yes"]);
    assert_eq!(of("CPUQuotaPerSecUSec"), "200ms");
    let files = ["memory.max", "memory.low", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "cpuset.cpus"];
    assert_eq!(files.map(|name| file(&container, name)), ["67108864", "33554432", "0", "20000 100000", "100", "50", "0"]);
    // The kernel keeps it in pages.
    assert_eq!(file(&container, "memory.high"), "59998208");
    Pass
}

fn the_scope_goes_with_the_container(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let container = create(ctx, |_| {});
    let (unit, folder) = (unit(&container), folder(&container));
    assert_eq!(property(ctx, &unit, "ActiveState"), "active");
    assert_eq!(property(ctx, &unit, "TasksMax"), "infinity");
    container.start().ok();
    container.stop();
    container.delete().ok();
    assert_eq!((units(ctx, &container.id), folder.exists()), (Vec::new(), false));
    Pass
}

fn a_slice_of_its_own_goes_with_the_last_container(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let stem = ctx.fresh("rtt").replace('-', "x");
    let slice = format!("{stem}-inner.slice");
    let first = create_in(ctx, &slice, |_| {});
    let second = create_in(ctx, &slice, |_| {});
    assert!(folder(&first).starts_with(folder(&second).parent().unwrap()));
    ctx.rt(&["delete", "--force", &first.id]).ok();
    assert_eq!(property(ctx, &unit(&second), "ActiveState"), "active");
    ctx.rt(&["delete", "--force", &second.id]).ok();
    ctx.wait_until("the slices are gone", || units(ctx, &stem).is_empty());
    Pass
}

fn update_tells_systemd_too(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let container = create(ctx, |c| c["linux"]["resources"] = json!({ "pids": { "limit": 50 } }));
    ctx.rt(&["update", "--pids-limit", "23", "--memory", "64m", &container.id]).ok();
    let of = |name| property(ctx, &unit(&container), name);
    assert_eq!(["TasksMax", "MemoryMax"].map(of), ["23", "67108864"]);
    assert_eq!(["pids.max", "memory.max"].map(|name| file(&container, name)), ["23", "67108864"]);
    Pass
}

fn annotations_set_properties(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let container = create(ctx, |c| {
        c["annotations"] = json!({
            "org.systemd.property.TimeoutStopSec": "7",
            "org.systemd.property.Description": "'a scope with a name'",
            "org.systemd.property.Before": "['rt-tests.target']"
        });
    });
    let of = |name| property(ctx, &unit(&container), name);
    assert_eq!(["TimeoutStopUSec", "Description"].map(of), ["7s", "a scope with a name"]);
    assert!(of("Before").contains("rt-tests.target"));
    Pass
}

fn annotations_do_not_set_the_runtime_s_own(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    for (name, value) in [("Slice", "'user.slice'"), ("PIDs", "[uint32 1]"), ("a.b", "true"), ("Description", "no quotes")] {
        let mut container = ctx.container(ctx.bundle(|c| {
            c["annotations"] = json!({ format!("org.systemd.property.{name}"): value });
        }));
        container.create_by_systemd().exits(1).refused("annotations[");
        assert_eq!(units(ctx, &container.id), Vec::<String>::new(), "{name}");
    }
    Pass
}

fn a_cgroups_path_of_another_form_is_refused(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    for path in ["/rt/web", "a:b", "no-slice:rt:web", "a--b.slice:rt:web", "system.slice:rt:"] {
        let mut container = ctx.container(ctx.bundle(|c| c["linux"]["cgroupsPath"] = json!(path)));
        container.create_by_systemd().exits(1).refused("linux.cgroupsPath: expected");
    }
    Pass
}

/// A scope that systemd ended because its time was over, and which asked to be kept: the unit is `failed`.
fn failed_scope<'c>(ctx: &'c Ctx<'c>) -> Container<'c> {
    let container = create(ctx, |c| {
        c["annotations"] = json!({
            "org.systemd.property.RuntimeMaxUSec": "uint64 100000",
            "org.systemd.property.CollectMode": "'inactive'"
        });
    });
    ctx.wait_until("the scope has failed", || property(ctx, &unit(&container), "ActiveState") == "failed");
    container
}

fn a_failed_scope_is_removed(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let container = failed_scope(ctx);
    container.delete().ok();
    assert_eq!(units(ctx, &container.id), Vec::<String>::new());
    Pass
}

fn a_leftover_scope_makes_way(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let mut container = failed_scope(ctx);
    std::fs::remove_dir_all(ctx.state_root().join(&container.id)).unwrap();
    container.bundle.edit(|c| c["annotations"] = json!({}));
    container.create_by_systemd().ok();
    assert_eq!(property(ctx, &unit(&container), "ActiveState"), "active");
    Pass
}

fn a_scope_in_use_is_left_alone(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let first = create(ctx, |_| {});
    let path = format!(":rt:{}", first.id);
    let mut second = ctx.container(ctx.bundle(|c| c["linux"]["cgroupsPath"] = json!(path)));
    second.create_by_systemd().exits(1).refused("processes in it");
    assert_eq!((first.status().as_str(), property(ctx, &unit(&first), "ActiveState").as_str()), ("created", "active"));
    Pass
}

fn a_failed_create_leaves_no_scope(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let mut container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["/no/such/program"])));
    container.create_by_systemd().exits(1);
    assert_eq!(units(ctx, &container.id), Vec::<String>::new());
    Pass
}

fn exec_runs_in_the_scope(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let container = create(ctx, |_| {});
    container.start().ok();
    let group = container.sh("cat /proc/self/cgroup");
    assert!(group.ends_with(&unit(&container)), "{group}");
    Pass
}

/// The scope is systemd's, and what is below it the container's.
fn a_group_below_the_scope_is_the_container_s(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    for (delegated, below) in [("", "inner"), ("payload", "inner/payload")] {
        let container = create(ctx, |c| {
            config::namespace(c, "cgroup", None);
            c["annotations"] = json!({ SUBGROUP: "inner", DELEGATED: delegated });
            c["linux"]["resources"] = json!({ "pids": { "limit": 50 }, "memory": { "limit": 67_108_864 } });
        });
        container.start().ok();
        let (unit, folder) = (unit(&container), folder(&container));
        assert!(folder.ends_with(format!("{unit}/{below}")), "{folder:?}");
        let scope = folder.ancestors().find(|above| above.ends_with(&unit)).unwrap().to_path_buf();
        let inside = format!("0::{}", &format!("/{below}")["/inner".len()..]);
        let expected = if delegated.is_empty() { "0::/" } else { inside.as_str() };
        assert_eq!(container.sh("cat /proc/self/cgroup"), expected);
        let limits = || {
            ["", "inner"]
                .map(|group| ["memory.max", "pids.max"].map(|file| read(&scope.join(group).join(file)).trim().to_owned()))
        };
        assert_eq!(limits(), [["67108864", "50"]; 2]);
        let counted: Value = ctx.rt(&["events", "--stats", &container.id]).ok().json();
        assert!(counted["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{counted}");
        ctx.rt(&["update", "--pids-limit", "23", &container.id]).ok();
        assert_eq!(limits(), [["67108864", "23"]; 2]);
        ctx.rt(&["pause", &container.id]).ok();
        ctx.rt(&["resume", &container.id]).ok();
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert_eq!((units(ctx, &container.id), scope.exists()), (Vec::new(), false));
    }
    Pass
}

/// A number that the environment gives.
fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many times a container is made and deleted: `RT_CYCLES`, 10 by default.
fn cycles_leave_nothing(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let cycles = number("RT_CYCLES", 10);
    ctx.may_take(cycles, Duration::from_secs(1));
    let bundle = ctx.bundle(|c| c["linux"]["resources"] = json!({ "pids": { "limit": 50 } }));
    let slice = ctx.fresh("cyc").replace('-', "x");
    let stem = ctx.fresh("cycle");
    for number in 0..cycles {
        let id = format!("{stem}-{number}");
        let path = format!("{slice}.slice:rt:{id}");
        bundle.edit(|c| c["linux"]["cgroupsPath"] = json!(path));
        ctx.rt(&["--systemd-cgroup", "create", "--bundle", bundle.path(), &id]).ok();
        ctx.rt(&["delete", "--force", &id]).ok();
    }
    assert_eq!(units(ctx, &stem), Vec::<String>::new());
    ctx.wait_until("the slice is gone", || units(ctx, &slice).is_empty());
    Pass
}

/// How often systemd reloads: `RT_RELOADS`, 3 by default, because the manager of a whole system takes its time.
fn devices_survive_reloads(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let container = create(ctx, |c| {
        let reads = "mknod /dev/mem c 1 1; while :; do head -c 1 /dev/zero > /dev/null || echo failed; \
                     head -c 1 /dev/mem > /dev/null 2>&1 && echo opened; done";
        config::shell(c, reads);
        c["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    });
    container.start().ok();
    let reloads = number("RT_RELOADS", 3);
    ctx.may_take(reloads, Duration::from_secs(5));
    for _ in 0..reloads {
        systemctl(ctx, &["daemon-reload"]);
    }
    assert_eq!((container.status().as_str(), container.printed().as_str()), ("running", ""));
    Pass
}

/// A user whose systemd runs.
fn user_with_systemd() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let folders = std::fs::read_dir("/run/user").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let sockets = folders.filter_map(|folder| std::fs::metadata(folder.join("systemd/private")).ok());
    sockets.map(|socket| socket.uid()).find(|uid| *uid != 0)
}

/// The user may not move processes from where they are to where they shall be: systemd does it, for create as for exec.
fn a_user_outside_of_its_systemd_s_tree(ctx: &Ctx) -> Outcome {
    needs_systemd!(ctx);
    let Some(uid) = user_with_systemd() else { return Skip("no user whose systemd runs".to_owned()) };
    let bundle = ctx.bundle(|c| {
        *c = config::default(uid, uid);
        c["linux"]["resources"] = json!({ "pids": { "limit": 50 } });
    });
    for folder in [ctx.state_root(), ctx.dir.join("traces")] {
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(folder, Some(uid), Some(uid)).unwrap();
    }
    let (trace, can_trace) = (ctx.path("traces/exec"), Path::new("/usr/bin/strace").exists());
    let script = format!(
        "{rt} --systemd-cgroup create -b {bundle} {id} </dev/null >/dev/null && {rt} start {id} && {traced} {rt} exec {id} cat /proc/self/cgroup; \
         code=$?; {rt} delete -f {id} && exit $code",
        rt = format_args!("{} --root {}", ctx.runtime().display(), ctx.path("state")),
        bundle = bundle.path(),
        id = ctx.fresh("outside"),
        traced = if can_trace { format!("strace -f -qq -s 1000 -e trace=write,sendto -o {trace}") } else { String::new() },
    );
    let (id, runtime_dir) = (uid.to_string(), format!("XDG_RUNTIME_DIR=/run/user/{uid}"));
    let bus = format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus");
    let user = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "env", &runtime_dir, &bus, "sh", "-c", &script];
    let own = read("/proc/self/cgroup".as_ref());
    assert!(!own.contains(&format!("user@{uid}.service")), "{own}");
    let group = ctx.command(&user).run().ok();
    assert!(group.text().contains(&format!("user@{uid}.service/")) && group.text().ends_with(".scope"), "{group}");
    assert_eq!(group.stderr, "");
    // It was asked, and did not only happen to allow what exec tries first.
    let trace = read(trace.as_ref());
    assert!(!can_trace || trace.contains("AttachProcessesToUnit"), "{trace}");
    Pass
}
