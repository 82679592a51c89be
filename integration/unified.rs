//! What only the unified hierarchy has: controllers that have to be passed down, processes that may not be in their way, and `unified`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        unified_is_written_in_the_order_of_the_document,
        a_controller_that_does_not_exist_is_named,
        controllers_are_enabled_down_the_path,
        a_cgroup_with_processes_in_the_way_is_named_and_left_alone,
        a_threaded_cgroup_in_the_way_is_named,
        exec_follows_init_into_a_cgroup_made_inside,
        exec_chooses_among_nested_cgroups,
        exec_into_a_cgroup_that_takes_no_processes_is_explained,
        exec_does_not_leave_the_container_s_cgroup,
        memory_that_runs_out_while_init_is_set_up_is_explained,
    }
}

macro_rules! needs_v2 {
    () => {
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return Skip("needs a machine with cgroup v2 only".to_owned());
        }
    };
}

fn folder(path: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))
}

fn file(path: &str, name: &str) -> String {
    read(&folder(path).join(name)).trim().to_owned()
}

fn unified_file(path: &Path) -> String {
    read(path).trim().to_owned()
}

/// A cgroup of the test's own, emptied and removed in the end with all below it.
struct Group(PathBuf);

impl Group {
    fn new(path: &str) -> Self {
        std::fs::create_dir(folder(path)).unwrap();
        Self(folder(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fn remove(path: &Path) {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                remove(&entry.path());
            }
            let _ = std::fs::remove_dir(path);
        }
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..100 {
            remove(&self.0);
            if !self.0.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// A container with this `unified` as text: maps of the suite do not keep an order.
fn with_unified<'c>(ctx: &'c Ctx<'c>, path: &str, unified: &str) -> Container<'c> {
    let container = ctx.container(ctx.bundle(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({ "unified": "HERE" });
    }));
    let at = container.bundle.dir.join("config.json");
    std::fs::write(&at, read(&at).replace("\"HERE\"", unified)).unwrap();
    container
}

/// The kernel refuses a weight for what is idle: one order works, the other one is an error.
fn unified_is_written_in_the_order_of_the_document(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "others have no order");
    let path = ctx.fresh("/rt-order");
    let mut container = with_unified(ctx, &path, r#"{ "cpu.weight": "50", "memory.high": "40000000", "cpu.idle": "1" }"#);
    container.create().ok();
    assert_eq!([file(&path, "cpu.idle"), file(&path, "memory.high")], ["1", "39997440"]);
    ctx.rt(&["delete", "--force", &container.id]).ok();
    let mut container = with_unified(ctx, &path, r#"{ "cpu.idle": "1", "cpu.weight": "50" }"#);
    container.create().exits(1).refused("linux.resources.unified[\"cpu.weight\"]");
    assert!(!folder(&path).exists());
    Pass
}

fn a_controller_that_does_not_exist_is_named(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "runc says something else");
    let path = ctx.fresh("/rt-nosuch");
    with_unified(ctx, &path, r#"{ "nosuch.max": "1" }"#).create().exits(1).refused("the cgroup v2 controller `nosuch`");
    let refused = with_unified(ctx, &path, r#"{ "memory.nosuch": "1" }"#).create().exits(1);
    refused.refused("linux.resources.unified[\"memory.nosuch\"]");
    assert!(!folder(&path).exists());
    Pass
}

fn controllers_are_enabled_down_the_path(ctx: &Ctx) -> Outcome {
    needs_v2!();
    let top = ctx.fresh("/rt-down");
    let _group = Group::new(&top);
    std::fs::create_dir(folder(&top).join("middle")).unwrap();
    // Nothing has been passed to it so far.
    assert_eq!(file(&top, "middle/cgroup.controllers"), "");
    let path = format!("{top}/middle/inner");
    let container = ctx.create(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 50 } });
    });
    assert_eq!([file(&path, "memory.max"), file(&path, "pids.max")], ["67108864", "50"]);
    assert_eq!([file(&top, "cgroup.type"), file(&path, "cgroup.type")], ["domain", "domain"]);
    container.delete().ok();
    assert!(folder(&top).join("middle").exists() && !folder(&path).exists());
    Pass
}

/// A process that sleeps in this cgroup.
fn inhabit<'c>(ctx: &'c Ctx<'c>, group: &Path) -> crate::ctx::Running {
    let script = format!("echo 0 > {}/cgroup.procs; exec sleep 100", group.display());
    let sleeper = ctx.command(&["sh", "-c", &script]).spawn();
    ctx.wait_until("it is there", || !unified_file(&group.join("cgroup.procs")).is_empty());
    sleeper
}

fn a_cgroup_with_processes_in_the_way_is_named_and_left_alone(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "runc says less");
    let top = ctx.fresh("/rt-busy");
    let group = Group::new(&top);
    let _sleeper = inhabit(ctx, &group.0);
    let path = format!("{top}/inner");
    let container = ctx.container(ctx.bundle(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 } });
    }));
    let named = format!("/sys/fs/cgroup{top}/cgroup.subtree_control");
    let foreseen = ctx.rt(&["check", container.bundle.path()]).exits(1);
    assert!(foreseen.stdout.contains(&named), "{foreseen:?}");
    let output = container.run().exits(1).refused(&named);
    output.refused("hint: a control group with processes of its own cannot pass controllers on");
    assert_eq!([file(&top, "cgroup.subtree_control"), file(&top, "cgroup.type")], ["", "domain"]);
    // Without limits nothing has to be passed on.
    let output = ctx.run(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        config::shell(c, "exit 0");
    });
    output.ok();
    assert_eq!([file(&top, "cgroup.subtree_control"), file(&top, "cgroup.type")], ["", "domain"]);
    Pass
}

fn a_threaded_cgroup_in_the_way_is_named(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "runc says less");
    let top = ctx.fresh("/rt-threaded");
    let group = Group::new(&top);
    std::fs::create_dir(group.0.join("threads")).unwrap();
    std::fs::write(group.0.join("threads/cgroup.type"), "threaded").unwrap();
    let path = format!("{top}/threads/inner");
    let output = ctx.run(|c| c["linux"]["cgroupsPath"] = json!(path)).exits(1);
    output.refused("a control group for threads, or one below it, takes no processes");
    assert_eq!(file(&top, "threads/cgroup.type"), "threaded");
    Pass
}

/// As a nested engine does it, from inside: a cgroup of its own for the processes, controllers for what else will be made.
fn nested(c: &mut Value, path: &str) {
    config::namespace(c, "cgroup", None);
    config::without_mount(c, "/sys/fs/cgroup");
    config::mount(c, "cgroup", "cgroup", "/sys/fs/cgroup", &["rw"]);
    let script = "cd /sys/fs/cgroup && mkdir init other && echo 1 > init/cgroup.procs && \
                  echo '+memory +pids +cpu' > cgroup.subtree_control && echo nested; sleep 1000";
    config::shell(c, script);
    c["linux"]["cgroupsPath"] = json!(path);
    c["linux"]["resources"] = json!({ "pids": { "limit": 50 }, "memory": { "limit": 268_435_456 } });
}

fn nested_container<'c>(ctx: &'c Ctx<'c>, path: &str) -> Container<'c> {
    let container = ctx.running(|c| nested(c, path));
    ctx.wait_until("it is nested", || container.printed() == "nested\n");
    assert_eq!(file(path, "cgroup.subtree_control"), "cpu memory pids");
    container
}

/// The cgroup of a process that `exec` with these flags runs, from outside.
fn place(container: &Container, flags: &[&str]) -> String {
    // The reader is on the host side of the cgroup namespace: /proc of the host by its pid there.
    let file = container.bundle.dir.join("pid");
    let mut all = vec!["--detach", "--pid-file", file.to_str().unwrap()];
    all.extend(flags);
    container.exec(&all, &["sleep", "100"]).ok();
    let groups = read(format!("/proc/{}/cgroup", read(&file)).as_ref());
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

fn exec_follows_init_into_a_cgroup_made_inside(ctx: &Ctx) -> Outcome {
    needs_v2!();
    let path = ctx.fresh("/rt-follow");
    let container = nested_container(ctx, &path);
    assert_eq!(place(&container, &[]), format!("{path}/init"));
    ctx.rt(&["delete", "--force", &container.id]).ok();
    assert!(!folder(&path).exists());
    Pass
}

fn exec_chooses_among_nested_cgroups(ctx: &Ctx) -> Outcome {
    needs_v2!();
    let path = ctx.fresh("/rt-choose");
    let container = nested_container(ctx, &path);
    for (choice, expected) in [("other", "other"), ("/init", "init"), ("./other/", "other")] {
        assert_eq!(place(&container, &["--cgroup", choice]), format!("{path}/{expected}"), "{choice}");
    }
    Pass
}

fn exec_into_a_cgroup_that_takes_no_processes_is_explained(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "runc says less");
    let path = ctx.fresh("/rt-takes");
    let container = nested_container(ctx, &path);
    std::fs::create_dir_all(folder(&path).join("other/leaf")).unwrap();
    std::fs::write(folder(&path).join("other/cgroup.subtree_control"), "+memory").unwrap();
    // It was chosen: there is no other place for it.
    let refused = container.exec(&["--cgroup", "other"], &["true"]).exits(255);
    refused.refused("a control group that has enabled controllers for its children takes no processes itself");
    assert_eq!(place(&container, &["--cgroup", "other/leaf"]), format!("{path}/other/leaf"));
    Pass
}

fn exec_does_not_leave_the_container_s_cgroup(ctx: &Ctx) -> Outcome {
    needs_v2!();
    let path = ctx.fresh("/rt-leave");
    let beside = ctx.fresh("rt-beside");
    let _group = Group::new(&format!("/{beside}"));
    let container = nested_container(ctx, &path);
    for choice in ["..", "../..", &format!("../{beside}"), &format!("/../{beside}"), "init/../..", "init/../other"] {
        container.exec(&["--cgroup", choice], &["true"]).exits(255);
    }
    container.exec(&["--cgroup", &format!("/{beside}")], &["true"]).exits(255);
    assert_eq!(file(&beside, "cgroup.procs"), "");
    Pass
}

/// From a limit that stops the very first step to one that stops a late one: never a bare "killed".
fn memory_that_runs_out_while_init_is_set_up_is_explained(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "runc says less");
    let mut explained = 0;
    for limit in [4096, 131_072, 262_144, 393_216, 524_288] {
        let output = ctx.run(|c| {
            config::shell(c, "exit 0");
            c["linux"]["resources"] = json!({ "memory": { "limit": limit, "swap": limit } });
        });
        if output.code == 0 || output.code == 137 && output.stderr.is_empty() {
            // It was enough for init; the program is the container's business.
            continue;
        }
        output.exits(1).refused(&format!("memory limit of {limit} bytes is too low"));
        explained += 1;
    }
    assert!(explained > 0, "every limit was enough");
    Pass
}
