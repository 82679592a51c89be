//! Callers, hooks and moments that nobody wishes for: little stack, long environments, hooks that hang, deaths between two system calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::config;
use crate::ctx::{Container, Ctx, Running, read};
use crate::hierarchy::apart;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        a_small_stack_is_enough,
        a_waiting_init_keeps_a_long_environment_once,
        a_hanging_poststop_hook_holds_nobody_up,
        an_interrupted_delete_runs_no_hook_twice,
        damaged_records_are_named,
    }
    Root {
        a_create_that_lost_its_cgroup_kills_nobody,
        control_groups_that_are_read_only_leave_nothing,
        a_procfs_of_another_pid_namespace_is_refused,
        a_filesystem_that_hangs_holds_nothing_for_ever,
        a_filesystem_that_lies_is_refused,
        a_container_in_a_container,
    }
}

fn a_small_stack_is_enough(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others have their stacks from elsewhere");
    for kib in [64, 128, 512] {
        let container = ctx.container(ctx.bundle(|c| config::shell(c, "ulimit -s; exit 7")));
        let output = container.run_command(&[]).after(&format!("ulimit -s {kib}")).run().exits(7);
        assert_eq!(output.text(), kib.to_string(), "the payload has the limit that the caller has");
    }
    let container = ctx.running(|_| {});
    container.exec_command(&[], &["true"]).after("ulimit -s 64").run().ok();
    ctx.rt_command(&["delete", "--force", &container.id]).after("ulimit -s 64").run().ok();
    Pass
}

/// What a process has of its own, in KiB.
fn private_dirty(pid: u64) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    // A binary that was built a moment ago may be dirty in the page cache.
    let mut anonymous = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [range, _, _, _, inode, ..] if range.contains('-') => anonymous = inode == "0",
            ["Private_Dirty:", kib, "kB"] if anonymous => sum += kib.parse::<u64>().unwrap(),
            _ => {}
        }
    }
    sum
}

fn a_waiting_init_keeps_a_long_environment_once(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others keep what they like");
    let long = "x".repeat(100_000);
    let container = ctx.create(|c| {
        config::shell(c, "test ${#LONG_14} = 100000 && exec sleep 1000");
        let env = c["process"]["env"].as_array_mut().unwrap();
        env.extend((0..15).map(|number| json!(format!("LONG_{number}={long}"))));
    });
    // It goes on alone for a moment after create has returned.
    ctx.wait_until("init has let go of all but one copy of 1500 KB", || private_dirty(container.pid()) < 3000);
    container.start().ok();
    assert_eq!(container.status(), "running");
    Pass
}

/// A stopped container with two poststop hooks, of which the first hangs, a delete that waits for it, and the file that hooks write to.
fn hanging<'c>(ctx: &'c Ctx<'c>) -> (Container<'c>, Running, PathBuf) {
    let log = PathBuf::from(ctx.path(&ctx.fresh("hooks")));
    let hook = |script: String| json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    let container = ctx.running(|c| {
        let (first, second) =
            (format!("echo first >> {0}; sleep 1000", log.display()), format!("echo second >> {}", log.display()));
        c["hooks"] = json!({ "poststop": [hook(first), hook(second)] });
    });
    container.stop();
    let delete = ctx.rt_command(&["delete", &container.id]).spawn();
    ctx.wait_until("the hook runs", || read(&log) == "first\n");
    (container, delete, log)
}

fn a_hanging_poststop_hook_holds_nobody_up(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others have no lock, or wait for ever");
    let (container, delete, log) = hanging(ctx);
    let began = Instant::now();
    assert_eq!(container.status(), "stopped");
    assert!(ctx.rt(&["list"]).ok().stdout.contains(&container.id));
    container.kill("TERM").refused("container not running");
    ctx.rt(&["delete", "--force", &container.id]).ok();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // The command that waited has left the hook, has run the other one, and is done.
    let output = delete.wait().ok();
    assert!(output.stderr.contains("poststop hook /bin/sh") && output.stderr.contains("signal 15"), "{output}");
    assert_eq!(read(&log), "first\nsecond\n");
    assert!(!ctx.state_root().join(&container.id).exists());
    // A foreground run, which has its signals blocked, too.
    let hang = json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo run >> {}; sleep 1000", log.display())] }] });
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "exit 3");
        c["hooks"] = hang;
    }));
    let run = container.run_command(&[]).spawn();
    ctx.wait_until("the hook runs", || read(&log).ends_with("run\n"));
    ctx.host(&["kill", "-INT", &run.pid()]).ok();
    run.wait().exits(3);
    assert!(!ctx.state_root().join(&container.id).exists());
    Pass
}

fn an_interrupted_delete_runs_no_hook_twice(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others run them again");
    let (container, delete, log) = hanging(ctx);
    ctx.host(&["kill", "-KILL", &delete.pid()]).ok();
    delete.wait().exits(137);
    let output = container.delete().ok();
    assert!(output.stderr.contains("is not run again"), "{output}");
    assert_eq!(read(&log), "first\nsecond\n");
    Pass
}

/// A create that finds its cgroup made by another is killed before it can say so in its record.
fn a_create_that_lost_its_cgroup_kills_nobody(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no promise about a death in the middle");
    let path = format!("/{}", ctx.fresh("lost"));
    let winner = ctx.running(|c| c["linux"]["cgroupsPath"] = json!(path));
    let loser = ctx.container(ctx.bundle(|c| c["linux"]["cgroupsPath"] = json!(path)));
    // What it would have left: the record from before the first effect, which claims all directories.
    let state = |id: &str| ctx.state_root().join(id);
    let mut record: serde_json::Value = serde_json::from_str(&read(&state(&winner.id).join("record.json"))).unwrap();
    let directories = record["cgroup"]["directories"].as_array().unwrap().clone();
    if directories.is_empty() {
        return Skip("no control groups".to_owned());
    }
    record["id"] = json!(loser.id);
    record["phase"] = json!("creating");
    record["maker"]["pid"] = json!(1);
    record.as_object_mut().unwrap().remove("init");
    fs::create_dir(state(&loser.id)).unwrap();
    fs::write(state(&loser.id).join("record.json"), record.to_string()).unwrap();
    let output = ctx.rt(&["delete", "--force", &loser.id]).ok();
    assert!(output.stderr.contains("is left: it is not of this container's making"), "{output}");
    assert!(!state(&loser.id).exists());
    assert_eq!(winner.status(), "running");
    let place = |directory: &serde_json::Value| Path::new(directory["mount"].as_str().unwrap()).join(&path[1..]);
    directories.iter().for_each(|directory| assert!(place(directory).exists(), "{directory}"));
    winner.exec(&[], &["true"]).ok();
    // The directories of a create that died before it could mark them are removed, if nobody is in them.
    winner.stop();
    winner.delete().ok();
    directories.iter().for_each(|directory| fs::create_dir(place(directory)).unwrap());
    fs::create_dir(state(&loser.id)).unwrap();
    fs::write(state(&loser.id).join("record.json"), record.to_string()).unwrap();
    ctx.rt(&["delete", "--force", &loser.id]).ok();
    directories.iter().for_each(|directory| assert!(!place(directory).exists(), "{directory}"));
    Pass
}

/// A mount namespace in which all control groups are read-only, as in a container.
const READ_ONLY_GROUPS: &str =
    r#"for m in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do mount -o remount,bind,ro "$m"; done; exec "$@""#;

fn control_groups_that_are_read_only_leave_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "a state of their own");
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "exit 5")));
    let root = ctx.path("state");
    let run = |flag: &[&str]| {
        let mut argv =
            vec!["unshare", "-m", "bash", "-c", READ_ONLY_GROUPS, "bash", ctx.runtime().to_str().unwrap(), "--root", &root];
        argv.extend(flag);
        argv.extend(["run", "--bundle", container.bundle.path(), &container.id]);
        ctx.command(&argv).run()
    };
    let output = run(&[]).refused("read-only file system (EROFS)").refused("--cgroup-manager=disabled");
    assert!(!output.stderr.contains("also:"), "{output}");
    assert!(!ctx.state_root().join(&container.id).exists());
    run(&["--cgroup-manager=disabled"]).exits(5);
    run(&["--rootless=true"]).exits(5);
    Pass
}

/// The numbers that the kernel gives are not those of that /proc: it would be somebody else who is waited for, recorded, and killed.
fn a_procfs_of_another_pid_namespace_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others wait for ever, or do as they like");
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "exit 5")));
    let root = ctx.path("state");
    let run = |flags: &str, verb: &[&str]| {
        let argv = ["unshare", "--fork", "--pid"].into_iter().chain(flags.split_whitespace());
        let argv: Vec<&str> =
            argv.chain([ctx.runtime().to_str().unwrap(), "--root", &root]).chain(verb.iter().copied()).collect();
        ctx.command(&argv).run()
    };
    let run_it = ["run", "--bundle", container.bundle.path(), &container.id];
    run("", &run_it).exits(1).refused("it belongs to another pid namespace: this process is 1 here");
    assert!(!ctx.state_root().join(&container.id).exists());
    run("--mount-proc", &run_it).exits(5);
    // A container that runs is not taken for one that has ended.
    let other = ctx.running(|_| {});
    run("", &["delete", "--force", &other.id]).exits(1).refused("another pid namespace");
    assert_eq!(other.status(), "running");
    Pass
}

fn damaged_records_are_named(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "records of their own");
    let damages: [(&str, &[&str], &str); 4] = [
        ("truncated", &["truncate", "-s", "100"], "no readable record"),
        ("of another version", &["sed", "-i", "s/\"layout\":1/\"layout\":9/"], "its record has layout 9"),
        ("missing", &["rm"], "no readable record"),
        // Nothing waits for somebody to write into it.
        ("a fifo", &["sh", "-c", "rm $0; mkfifo $0"], "no readable record"),
    ];
    for (what, command, said) in damages {
        let container = ctx.create(|_| {});
        let record = ctx.state_root().join(&container.id).join("record.json");
        ctx.host(&[command, &[record.to_str().unwrap()]].concat()).ok();
        for verb in ["state", "start", "kill", "delete", "pause"] {
            container.verb(verb).refused(said);
        }
        let list = ctx.rt(&["list"]).ok();
        assert!(list.stderr.contains(said) && !list.stdout.contains(&container.id), "{what}: {list}");
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert!(!ctx.state_root().join(&container.id).exists(), "{what}");
    }
    Pass
}

/// A filesystem of the prober's in a folder of the test's, which is there as long as the process is. Nothing if this machine has no FUSE.
pub(crate) fn foreign(ctx: &Ctx, kind: &str) -> Option<(Running, String)> {
    let folder = ctx.path(kind);
    fs::create_dir(&folder).unwrap();
    let server = ctx.command(&[&ctx.probe(), "fuse", &folder, kind]).spawn();
    let is_over = || !Path::new(&format!("/proc/{}/exe", server.pid())).exists();
    ctx.wait_until("the filesystem is mounted", || server.stdout_so_far() == "mounted\n" || is_over());
    (server.stdout_so_far() == "mounted\n").then_some((server, folder))
}

/// Its requests are waited for without end, but not by whoever is killed.
fn a_filesystem_that_hangs_holds_nothing_for_ever(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no promise about filesystems that hang");
    apart(
        ctx,
        || Ok(()),
        |ctx| {
            let Some((server, folder)) = foreign(ctx, "hangs") else { return Skip("there is no FUSE here".to_owned()) };
            // The bundle: nothing is begun yet, and a signal ends it.
            let create = ctx.rt_command(&["create", "--bundle", &folder, "hangs-bundle"]).spawn();
            std::thread::sleep(Duration::from_millis(300));
            ctx.host(&["kill", "-TERM", &create.pid()]).ok();
            assert!(create.wait().code != 0);
            assert!(!ctx.state_root().join("hangs-bundle").exists());
            // The root filesystem, and what is bound from it: whatever waits for it ends with delete --force.
            for is_root in [true, false] {
                let container = ctx.container(ctx.bundle(|c| match is_root {
                    true => c["root"]["path"] = json!(folder),
                    false => config::mount(c, "bind", &format!("{folder}/file"), "/data", &["bind"]),
                }));
                let create = ctx.rt_command(&["create", "--bundle", container.bundle.path(), &container.id]).spawn();
                std::thread::sleep(Duration::from_millis(500));
                let began = Instant::now();
                ctx.rt(&["delete", "--force", &container.id]).ok();
                assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
                ctx.host(&["kill", "-KILL", &create.pid()]);
                assert!(create.wait().code != 0);
                ctx.rt(&["delete", "--force", &container.id]).ok();
                assert!(!ctx.state_root().join(&container.id).exists());
                let groups = ctx.host(&["find", "/sys/fs/cgroup", "-name", &format!("*{}*", container.id)]);
                assert_eq!(groups.text(), "");
            }
            drop(server);
            Pass
        },
    )
}

/// Every file has four exabytes of spaces, by its size and by what is read.
fn a_filesystem_that_lies_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no promise about filesystems that lie");
    apart(
        ctx,
        || Ok(()),
        |ctx| {
            let Some((server, folder)) = foreign(ctx, "lies") else { return Skip("there is no FUSE here".to_owned()) };
            let create = ctx.rt_command(&["create", "--bundle", &folder, "lies"]).after("ulimit -v 1000000").run();
            create.exits(1).refused("config.json");
            assert!(!ctx.state_root().join("lies").exists());
            let container = ctx.container(ctx.bundle(|c| c["root"]["path"] = json!(folder)));
            container.run_command(&[]).run().exits(1);
            assert!(!ctx.state_root().join(&container.id).exists());
            drop(server);
            Pass
        },
    )
}

/// The runtime itself is the program of a container with all rights, and a cgroup namespace and control groups that it may write.
fn a_container_in_a_container(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others need more than a binary");
    let script = "cd /inner; rt run --detach inner < /dev/null > /dev/null && rt exec inner echo hello && rt pause inner && rt resume inner
                  rt update --pids-limit 9 inner; rt state inner | grep -o running; rt delete --force inner; echo $?; rt list | wc -l";
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, script);
        config::namespace(c, "cgroup", None);
        let all: Vec<String> = ctx.rt(&["features"]).ok().json()["linux"]["capabilities"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set] = json!(all);
        }
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
        c["linux"]["resources"] = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
        for at in ["/sys", "/sys/fs/cgroup"] {
            config::without_mount(c, at);
        }
        config::mount(c, "sysfs", "sysfs", "/sys", &[]);
        config::mount(c, "cgroup", "cgroup", "/sys/fs/cgroup", &[]);
        config::mount(c, "tmpfs", "tmpfs", "/run", &[]);
    }));
    fs::copy(ctx.runtime(), container.bundle.rootfs("bin/rt")).unwrap();
    let inner = ctx.bundle(|_| {});
    fs::rename(inner.path(), container.bundle.rootfs("inner")).unwrap();
    let output = container.run().ok();
    assert_eq!(output.lines(), ["hello", "running", "0", "1"], "{output}");
    nothing_in_cgroups(ctx, "inner");
    Pass
}

fn nothing_in_cgroups(ctx: &Ctx, name: &str) {
    assert_eq!(ctx.host(&["find", "/sys/fs/cgroup", "-name", &format!("rt-{name}")]).text(), "");
}
