//! The ends of cgroups: what is killed, thawed and removed, what is left alone, and how long that takes. Each is tried where version 1 and
//! version 2 are mixed (or as the machine is), where version 2 is all there is, and where version 1 is.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, read, slowness};
use crate::hierarchy::{Version, folder, in_pure_view, in_version_1_view, unified, unified_mount, value, version};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        a_fork_bomb_is_gone_in_two_seconds,
        a_fork_bomb_is_gone_in_two_seconds_in_version_2,
        a_fork_bomb_is_gone_in_two_seconds_in_version_1,
        a_fork_bomb_with_little_time_is_gone_in_two_seconds,
        a_fork_bomb_with_little_time_is_gone_in_two_seconds_in_version_1,
        a_fork_bomb_among_others_is_gone_in_two_seconds,
        a_fork_bomb_among_others_is_gone_in_two_seconds_in_version_1,
        who_is_inside_is_not_caught,
        who_is_inside_is_not_caught_in_version_2,
        who_is_inside_is_not_caught_in_version_1,
        a_frozen_container_is_handled,
        a_frozen_container_is_handled_in_version_2,
        a_frozen_container_is_handled_in_version_1,
        an_exec_into_a_frozen_container_waits,
        an_exec_into_a_frozen_container_waits_in_version_2,
        an_exec_into_a_frozen_container_waits_in_version_1,
        what_is_frozen_above_is_killed_in_version_2,
        threads_of_a_container_are_killed_in_version_2,
        what_is_frozen_below_is_killed,
        what_is_frozen_below_is_killed_in_version_2,
        what_is_frozen_below_is_killed_in_version_1,
        what_cannot_be_killed_is_not_waited_for_forever,
        a_foreign_cgroup_stays,
        a_foreign_cgroup_stays_in_version_2,
        a_cgroup_that_is_in_use_is_refused,
        parents_go_with_the_last_container,
        the_payload_s_cgroups_go,
        the_payload_s_cgroups_go_in_version_1,
        exec_finds_its_place_beside_nested_cgroups,
        exec_finds_its_place_beside_nested_cgroups_in_version_2,
        exec_enters_a_nested_cgroup,
        exec_enters_cgroups_of_version_1,
        a_cgroup_that_was_killed_takes_a_process_again,
        a_cgroup_that_was_killed_takes_a_process_again_in_version_2,
        the_attributes_of_bpf_have_their_full_size,
        a_later_container_in_the_same_cgroup_lives_on,
        of_two_creates_in_one_new_cgroup_one_gives_way,
    }
}

fn limited<'c>(ctx: &'c Ctx<'c>, path: &str, resources: Value) -> Container<'c> {
    ctx.create(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = resources;
    })
}

/// The folders of this path in all hierarchies that are to be seen.
fn everywhere(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    // Folders of version 2 are cgroups, other containers' for one, and no hierarchies.
    let hierarchies = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|_| !unified());
    let mut found: Vec<PathBuf> = hierarchies.chain([root.to_path_buf()]).collect();
    found.iter_mut().for_each(|folder| folder.push(path.trim_start_matches('/')));
    found.retain(|folder| folder.exists());
    found
}

/// One at a time: it is not the harness that is to be measured.
static BOMB: Mutex<()> = Mutex::new(());

/// How many bombs: `RT_BOMBS`, 3 by default, because a machine has better things to do.
fn bombs(ctx: &Ctx, edit: fn(&mut Value), update: &[&str]) -> Outcome {
    let rounds: usize = std::env::var("RT_BOMBS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    ctx.may_take(u32::try_from(rounds).unwrap(), Duration::from_secs(3));
    for _ in 0..rounds {
        let _one = BOMB.lock().unwrap_or_else(PoisonError::into_inner);
        let path = ctx.fresh("/rt-bomb");
        let container = ctx.create(|c| {
            c["process"]["args"] = json!(["probe", "bomb"]);
            c["linux"]["cgroupsPath"] = json!(path);
            if version("pids").is_some() {
                c["linux"]["resources"] = json!({ "pids": { "limit": 500 } });
            } else {
                // Nobody's id, whose processes are counted in its place.
                c["process"]["user"] = json!({ "uid": 54_399, "gid": 54_399 });
                c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NPROC", "soft": 500, "hard": 500 }]);
            }
            edit(c);
        });
        container.start().ok();
        let count = || {
            let current = value("pids", &path, "pids.current", "pids.current");
            current.parse().unwrap_or_else(|_| read(&folder("cgroup", &path).join("cgroup.procs")).lines().count())
        };
        ctx.wait_until("it has exploded", || count() > 450);
        if !update.is_empty() {
            ctx.rt(&[&["update"], update, &[&container.id]].concat()).ok();
        }
        let began = Instant::now();
        ctx.rt(&["delete", "--force", &container.id]).ok();
        let took = began.elapsed();
        if rounds > 3 {
            println!("         {path}: {} ms", took.as_millis());
        }
        assert!(took < Duration::from_secs(2) * slowness(), "{took:?}");
        assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
    }
    Pass
}

fn a_fork_bomb_is_gone_in_two_seconds(ctx: &Ctx) -> Outcome {
    bombs(ctx, |_| {}, &[])
}

fn a_fork_bomb_is_gone_in_two_seconds_in_version_2(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("as without a view".to_owned());
    }
    in_pure_view(ctx, a_fork_bomb_is_gone_in_two_seconds)
}

fn a_fork_bomb_is_gone_in_two_seconds_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, a_fork_bomb_is_gone_in_two_seconds)
}

/// Hundreds who share a fiftieth of a CPU need that for seconds only to die.
fn a_fork_bomb_with_little_time_is_gone_in_two_seconds(ctx: &Ctx) -> Outcome {
    if version("cpu").is_none() {
        return Skip("no controller cpu".to_owned());
    }
    bombs(ctx, |_| {}, &["--cpu-quota", "2000", "--cpu-period", "100000", "--cpu-share", "2"])
}

fn a_fork_bomb_with_little_time_is_gone_in_two_seconds_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, a_fork_bomb_with_little_time_is_gone_in_two_seconds)
}

/// In the caller's pid namespace: there is nobody with whom the kernel would end the others.
fn a_fork_bomb_among_others_is_gone_in_two_seconds(ctx: &Ctx) -> Outcome {
    bombs(ctx, |c| config::without_namespace(c, "pid"), &[])
}

fn a_fork_bomb_among_others_is_gone_in_two_seconds_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, a_fork_bomb_among_others_is_gone_in_two_seconds)
}

/// A caller who is in the container's cgroup: what would stop or kill the caller as well is refused, and reaches the others where it can.
fn caller_inside(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others stop or kill themselves");
    let path = ctx.fresh("/rt-inside");
    let container = limited(ctx, &path, json!({}));
    container.start().ok();
    let enter: Vec<String> = everywhere(&path).iter().map(|dir| format!("echo $$ > {}/cgroup.procs", dir.display())).collect();
    let inside = |words: &[&str]| ctx.rt_command(words).after(&enter.join(";")).run();
    inside(&["pause", &container.id]).exits(1).refused("the caller is in the container's cgroup");
    inside(&["delete", "--force", &container.id]).exits(1).refused("the caller is in the container's cgroup");
    assert_eq!(container.status(), "running");
    inside(&["kill", "--all", &container.id, "WINCH"]).ok();
    inside(&["kill", "--all", &container.id, "KILL"]).ok();
    container.wait_for("stopped");
    container.delete().ok();
    Pass
}

fn who_is_inside_is_not_caught(ctx: &Ctx) -> Outcome {
    caller_inside(ctx)
}

fn who_is_inside_is_not_caught_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, caller_inside)
}

fn who_is_inside_is_not_caught_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, caller_inside)
}

/// A paused container: killed, deleted, and not started.
fn frozen(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.verb("pause").ok();
    container.exec(&[], &["true"]).exits(255).refused("cannot exec in a paused container");
    container.delete().exits(1).refused("container still running");
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
    // A signal that the program handles is lost on nobody: it comes with the thaw at the latest.
    let container =
        ctx.running(|c| config::shell(c, "trap 'echo caught; exit 0' TERM; echo ready; while :; do sleep 0.02; done"));
    ctx.wait_until("it is ready", || container.printed() == "ready\n");
    container.verb("pause").ok();
    container.kill("TERM").ok();
    container.verb("resume");
    container.wait_for("stopped");
    assert_eq!(container.printed(), "ready\ncaught\n");
    let container = ctx.running(|_| {});
    container.verb("pause").ok();
    ctx.rt(&["delete", "--force", &container.id]).ok();
    let container = ctx.create(|_| {});
    container.verb("pause").ok();
    container.start().exits(1);
    ctx.rt(&["kill", "--all", &container.id, "KILL"]).ok();
    container.wait_for("stopped");
    container.delete().ok();
    let container = ctx.create(|_| {});
    container.verb("pause").ok();
    ctx.rt(&["delete", "--force", &container.id]).ok();
    Pass
}

fn a_frozen_container_is_handled(ctx: &Ctx) -> Outcome {
    frozen(ctx)
}

fn a_frozen_container_is_handled_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, frozen)
}

fn a_frozen_container_is_handled_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, frozen)
}

fn exec_while_frozen(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.verb("pause").ok();
    let exec = container.exec_command(&["--ignore-paused"], &["echo", "thawed"]).spawn();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((exec.stdout_so_far().as_str(), container.status().as_str()), ("", "paused"));
    container.verb("resume").ok();
    assert_eq!(exec.wait().ok().text(), "thawed");
    Pass
}

fn an_exec_into_a_frozen_container_waits(ctx: &Ctx) -> Outcome {
    exec_while_frozen(ctx)
}

fn an_exec_into_a_frozen_container_waits_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, exec_while_frozen)
}

fn an_exec_into_a_frozen_container_waits_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, exec_while_frozen)
}

fn what_is_frozen_above_is_killed_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        let above = ctx.fresh("/rt-cold");
        std::fs::create_dir(folder("cgroup", &above)).unwrap();
        let container = limited(ctx, &format!("{above}/box"), json!({}));
        container.start().ok();
        std::fs::write(folder("cgroup", &above).join("cgroup.freeze"), "1").unwrap();
        ctx.rt(&["delete", "--force", &container.id]).ok();
        std::fs::remove_dir(folder("cgroup", &above)).unwrap();
        Pass
    })
}

/// A cgroup below the container's own that is frozen by itself, three levels deep.
fn frozen_below(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-chill");
    let container = ctx.running(|c| {
        config::shell(c, "sleep 1000 & sleep 1000");
        c["linux"]["cgroupsPath"] = json!(path);
    });
    let top = folder("freezer", &path);
    let deep = top.join("a/b/c");
    std::fs::create_dir_all(&deep).unwrap();
    let listed = || read(&top.join("cgroup.procs")).lines().last().unwrap_or_default().to_owned();
    ctx.wait_until("it has a child", || listed() != container.pid().to_string());
    std::fs::write(deep.join("cgroup.procs"), listed()).unwrap();
    let (file, word) = if version("freezer") == Some(Version::V1) { ("freezer.state", "FROZEN") } else { ("cgroup.freeze", "1") };
    std::fs::write(deep.join(file), word).unwrap();
    let began = Instant::now();
    ctx.rt(&["delete", "--force", &container.id]).ok();
    assert!(began.elapsed() < Duration::from_secs(5) * slowness(), "{:?}", began.elapsed());
    assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
    Pass
}

fn what_is_frozen_below_is_killed(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others wait for it");
    frozen_below(ctx)
}

fn what_is_frozen_below_is_killed_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, frozen_below)
}

fn what_is_frozen_below_is_killed_in_version_1(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others wait for it");
    in_version_1_view(ctx, frozen_below)
}

/// Threads of the container are in cgroups of their own: these have no list of processes, and nothing to be killed by itself.
fn threads_of_a_container_are_killed_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        let path = ctx.fresh("/rt-threads");
        let container = limited(ctx, &path, json!({}));
        container.start().ok();
        let top = folder("cgroup", &path);
        for (inner, is_frozen) in [("one", false), ("one/deep", true)] {
            std::fs::create_dir(top.join(inner)).unwrap();
            std::fs::write(top.join(inner).join("cgroup.type"), "threaded").unwrap();
            std::fs::write(top.join(inner).join("cgroup.threads"), container.pid().to_string()).unwrap();
            if is_frozen {
                std::fs::write(top.join(inner).join("cgroup.freeze"), "1").unwrap();
            }
        }
        assert!(container.exec(&[], &["true"]).code != 255 || !ctx.is_rt(), "exec finds a place");
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
        Pass
    })
}

/// Where version 1 has frozen a cgroup above, the killed do not end before they are thawed: that is said, and not waited for.
fn what_cannot_be_killed_is_not_waited_for_forever(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, |ctx| {
        needs_rt!(ctx, "the others wait for long");
        let above = ctx.fresh("/rt-cold");
        std::fs::create_dir(folder("freezer", &above)).unwrap();
        let container = limited(ctx, &format!("{above}/box"), json!({}));
        container.start().ok();
        let freezer = folder("freezer", &above).join("freezer.state");
        std::fs::write(&freezer, "FROZEN").unwrap();
        let began = Instant::now();
        let output = ctx.rt(&["delete", "--force", &container.id]);
        std::fs::write(&freezer, "THAWED").unwrap();
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}: {output}", began.elapsed());
        output.exits(1);
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert!(!folder("freezer", &format!("{above}/box")).exists());
        for left in everywhere(&above) {
            std::fs::remove_dir(left).unwrap();
        }
        Pass
    })
}

fn foreign(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-foreign");
    let mut hierarchies: Vec<PathBuf> = everywhere("/").into_iter().filter(|dir| dir.join("cgroup.procs").exists()).collect();
    // Where the mount point is a cgroup itself, what is in it are cgroups of other tests.
    if hierarchies.iter().any(|dir| dir == Path::new("/sys/fs/cgroup/")) {
        hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
    }
    let made: Vec<PathBuf> = hierarchies.iter().map(|dir| dir.join(path.trim_start_matches('/'))).collect();
    for dir in &made {
        std::fs::create_dir(dir).unwrap();
        // The device list of version 1 is only changed where there is nothing below.
        if !dir.join("devices.list").exists() {
            std::fs::create_dir(dir.join("inner")).unwrap();
        }
    }
    let container = limited(ctx, &path, json!({}));
    container.start().ok();
    ctx.rt(&["delete", "--force", &container.id]).ok();
    assert!(
        made.iter().all(|dir| dir.join("devices.list").exists() || dir.join("inner").exists()),
        "what was there before stays"
    );
    let procs = |dir: &PathBuf| read(&dir.join("cgroup.procs"));
    assert!(made.iter().all(|dir| procs(dir).is_empty()));
    for dir in made {
        let _ = std::fs::remove_dir(dir.join("inner"));
        std::fs::remove_dir(dir).unwrap();
    }
    Pass
}

fn a_foreign_cgroup_stays(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others remove it");
    foreign(ctx)
}

fn a_foreign_cgroup_stays_in_version_2(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others remove it");
    in_pure_view(ctx, foreign)
}

fn a_cgroup_that_is_in_use_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others share it");
    let path = ctx.fresh("/rt-used");
    let first = limited(ctx, &path, json!({}));
    let mut second = ctx.container(ctx.bundle(|c| c["linux"]["cgroupsPath"] = json!(path)));
    second.create().exits(1).refused("processes in it");
    assert_eq!(first.status(), "created");
    assert_ne!(everywhere(&path), Vec::<PathBuf>::new());
    Pass
}

fn a_later_container_in_the_same_cgroup_lives_on(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others wait for the cgroup");
    let path = ctx.fresh("/rt-later");
    let first = limited(ctx, &path, json!({}));
    first.kill("KILL").ok();
    first.wait_for("stopped");
    for flags in [&[][..], &["--force"]] {
        let second = limited(ctx, &path, json!({}));
        let deleted = ctx.rt(&[&["delete"], flags, &[&first.id]].concat()).ok();
        if flags.is_empty() {
            assert!(deleted.stderr.contains("is left: processes of others are in it"), "{deleted}");
        }
        assert_eq!(second.status(), "created");
        second.delete().ok();
    }
    everywhere(&path).iter().for_each(|folder| std::fs::remove_dir(folder).unwrap());
    Pass
}

/// Both have found that it is missing when the first one makes it.
fn of_two_creates_in_one_new_cgroup_one_gives_way(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others share it");
    let path = ctx.fresh("/rt-race");
    let root = ctx.path("state");
    let made = || ctx.container(ctx.bundle(|c| c["linux"]["cgroupsPath"] = json!(path)));
    let (mut first, second) = (made(), made());
    // The first directory that is made is that of the state.
    let inject = "--inject=mkdirat:delay_enter=1500000:when=2";
    let mut slow =
        vec!["strace", "-o", "/dev/null", "-e", "trace=mkdirat", inject, ctx.runtime().to_str().unwrap(), "--root", &root];
    slow.extend(["create", "--bundle", second.bundle.path(), &second.id]);
    let strace = std::process::Command::new("strace").arg("-V").output();
    if strace.is_err() {
        return Skip("strace is not installed".to_owned());
    }
    let slow = ctx.command(&slow).spawn();
    ctx.wait_until("it has surveyed", || Path::new(&root).join(&second.id).join("record.json").exists());
    first.create().ok();
    slow.wait().exits(1).refused("another container is being made in it");
    assert_eq!(first.status(), "created");
    first.delete().ok();
    assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
    Pass
}

fn parents_go_with_the_last_container(ctx: &Ctx) -> Outcome {
    let above = ctx.fresh("/rt-both");
    let first = limited(ctx, &format!("{above}/deep/one"), json!({}));
    let second = limited(ctx, &format!("{above}/deep/two"), json!({}));
    second.delete().ok();
    assert_ne!(everywhere(&format!("{above}/deep/one")), Vec::<PathBuf>::new());
    first.delete().ok();
    assert_eq!(everywhere(&above), Vec::<PathBuf>::new());
    Pass
}

/// The payload makes cgroups below its own, with processes in them, which are still there when the container is deleted.
fn payload_s_cgroups(ctx: &Ctx, dir: &str, options: &[&str]) -> Outcome {
    let path = ctx.fresh("/rt-payload");
    let container = ctx.running(|c| {
        let script = format!(
            "cd {dir} && mkdir -p a/b c && {{ sleep 1000 & echo $! > a/b/cgroup.procs; sleep 1000 & echo $! > c/cgroup.procs; \
             echo $$ > c/cgroup.procs; echo made; sleep 1000; }}"
        );
        config::shell(c, &script);
        config::namespace(c, "cgroup", None);
        config::without_mount(c, "/sys/fs/cgroup");
        config::mount(c, "cgroup", "cgroup", "/sys/fs/cgroup", options);
        c["linux"]["cgroupsPath"] = json!(path);
    });
    ctx.wait_until("it has made them", || container.printed() == "made\n");
    ctx.rt(&["delete", "--force", &container.id]).ok();
    assert_eq!(everywhere(&path), Vec::<PathBuf>::new());
    Pass
}

fn the_payload_s_cgroups_go(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| payload_s_cgroups(ctx, "/sys/fs/cgroup", &["nosuid", "noexec", "nodev"]))
}

fn the_payload_s_cgroups_go_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, |ctx| payload_s_cgroups(ctx, "/sys/fs/cgroup/pids", &["nosuid", "noexec", "nodev"]))
}

/// The container's cgroup with controllers enabled below, as a nested engine makes it: init is moved to `inner`.
fn nest(container: &Container, folder: &Path) -> bool {
    let Some(controller) = read(&folder.join("cgroup.controllers")).split_whitespace().next().map(str::to_owned) else {
        return false;
    };
    std::fs::create_dir(folder.join("inner")).unwrap();
    std::fs::write(folder.join("inner/cgroup.procs"), container.pid().to_string()).unwrap();
    std::fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")).is_ok()
}

fn beside_nested_cgroups(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-nest");
    // For a controller to be there where there is one only.
    let huge = if version("hugetlb").is_some() { json!([{ "pageSize": "2MB", "limit": 0 }]) } else { json!([]) };
    let container = limited(ctx, &path, json!({ "hugepageLimits": huge }));
    container.start().ok();
    let Some(mount) = unified_mount() else { return Skip("no unified hierarchy".to_owned()) };
    let folder = mount.join(path.trim_start_matches('/'));
    if !nest(&container, &folder) {
        return Skip("no controller to be nested".to_owned());
    }
    let own = container.sh("grep ^0: /proc/self/cgroup");
    assert!(own.ends_with(&format!("{path}/inner")), "{own}");
    if unified() {
        container.exec(&["--cgroup", "/inner"], &["true"]).ok();
    }
    Pass
}

fn exec_finds_its_place_beside_nested_cgroups(ctx: &Ctx) -> Outcome {
    beside_nested_cgroups(ctx)
}

fn exec_finds_its_place_beside_nested_cgroups_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, beside_nested_cgroups)
}

fn exec_enters_a_nested_cgroup(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        let path = ctx.fresh("/rt-enter");
        let container = limited(ctx, &path, json!({}));
        container.start().ok();
        std::fs::create_dir_all(folder("cgroup", &path).join("inner/most")).unwrap();
        for (choice, place) in [("inner", "/inner"), ("/inner/most", "/inner/most"), ("/", "")] {
            let own = container.exec(&["--cgroup", choice], &["grep", "^0:", "/proc/self/cgroup"]).ok();
            assert_eq!(own.text(), format!("0::{path}{place}"));
        }
        container.exec(&["--cgroup", "../.."], &["true"]).exits(255).refused("without `..`");
        container.exec(&["--cgroup", "inner/../../x"], &["true"]).exits(255).refused("without `..`");
        container.exec(&["--cgroup", "absent"], &["true"]).exits(255).refused("does not exist");
        Pass
    })
}

/// Each hierarchy has its own place, and those that are not named keep the container's.
fn exec_enters_cgroups_of_version_1(ctx: &Ctx) -> Outcome {
    if version("pids") != Some(Version::V1) {
        return Skip("version 2 has one place for all".to_owned());
    }
    needs_rt!(ctx, "runc 1.1.5 has other words");
    let path = ctx.fresh("/rt-enter-1");
    let container = limited(ctx, &path, json!({}));
    container.start().ok();
    for (controller, inner) in [("pids", "few"), ("memory", "small"), ("memory", "few")] {
        std::fs::create_dir(folder(controller, &path).join(inner)).unwrap();
    }
    let place = |flags: &[&str], controller: &str| {
        let own = container.exec(flags, &["cat", "/proc/self/cgroup"]).ok();
        let line = own.lines().into_iter().find(|line| line.contains(&format!(":{controller}:"))).unwrap().to_owned();
        line.rsplit(':').next().unwrap().strip_prefix(&path).unwrap().to_owned()
    };
    let both = ["--cgroup", "pids:few", "--cgroup", "memory:/small"];
    assert_eq!(["pids", "memory", "devices"].map(|name| place(&both, name)), ["/few", "/small", ""]);
    let one = ["--cgroup", "pids,memory:few"];
    assert_eq!(["pids", "memory", "freezer"].map(|name| place(&one, name)), ["/few", "/few", ""]);
    let refused = |choice: &str, text: &str| drop(container.exec(&["--cgroup", choice], &["true"]).exits(255).refused(text));
    refused("few", "does not exist");
    refused("pids:../..", "without `..`");
    refused("nonsense:few", "expected controllers of the container's cgroups, found \"nonsense\"");
    Pass
}

/// Kernels 6.18 and 7.2 kill a process that is born in a cgroup that was once killed.
fn once_killed(ctx: &Ctx) -> Outcome {
    let path = ctx.fresh("/rt-killed");
    let container = limited(ctx, &path, json!({}));
    container.start().ok();
    let Some(mount) = unified_mount() else { return Skip("no unified hierarchy".to_owned()) };
    let folder = mount.join(path.trim_start_matches('/'));
    if !folder.join("cgroup.kill").exists() {
        return Skip("the kernel has no cgroup.kill".to_owned());
    }
    std::fs::create_dir(folder.join("dead")).unwrap();
    for _ in 0..3 {
        std::fs::write(folder.join("dead/cgroup.kill"), "1").unwrap();
    }
    if unified() {
        container.exec(&["--cgroup", "dead"], &["true"]).ok();
    }
    // The whole cgroup: its next inhabitant is another container.
    std::fs::write(folder.join("cgroup.kill"), "1").unwrap();
    container.wait_for("stopped");
    std::fs::remove_dir(folder.join("dead")).unwrap();
    let second = limited(ctx, &path, json!({}));
    second.start().ok();
    second.exec(&[], &["true"]).ok();
    // And back again: it is the difference that counts.
    std::fs::write(folder.join("cgroup.kill"), "1").unwrap();
    second.wait_for("stopped");
    let third = limited(ctx, &path, json!({}));
    third.start().ok();
    third.exec(&[], &["true"]).ok();
    Pass
}

fn a_cgroup_that_was_killed_takes_a_process_again(ctx: &Ctx) -> Outcome {
    once_killed(ctx)
}

fn a_cgroup_that_was_killed_takes_a_process_again_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, once_killed)
}

/// Kernels from 6.17 may write behind a shorter one.
fn the_attributes_of_bpf_have_their_full_size(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        needs_rt!(ctx, "the others pass short ones");
        if !ctx.command(&["sh", "-c", "command -v strace"]).run().stdout.contains("strace") {
            return Skip("no strace".to_owned());
        }
        let bundle = ctx.bundle(|c| config::shell(c, "true"));
        let root = ctx.path("traced-state");
        let trace = ctx.path("trace");
        let runtime = ctx.runtime().to_str().unwrap();
        let argv = [
            "strace",
            "-f",
            "-e",
            "trace=bpf",
            "-o",
            &trace,
            runtime,
            "--root",
            &root,
            "run",
            "-b",
            bundle.path(),
            &ctx.fresh("bpf"),
        ];
        if ctx.command(&argv).run().code != 0 {
            return Skip("processes are not to be traced here".to_owned());
        }
        let text = read(Path::new(&trace));
        let calls: Vec<&str> = text.lines().filter(|line| line.contains("bpf(")).collect();
        assert!(calls.len() >= 3 && calls.iter().all(|call| call.contains(", 256)")), "{text}");
        Pass
    })
}
