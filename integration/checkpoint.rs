//! Checkpoint and restore: a program that counts in its memory goes on counting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, Output, Running, read};
use crate::runner::Outcome::{self, Pass, Skip};
use crate::subgroups::{DELEGATED, SUBGROUP};

tests! {
    Root {
        the_count_goes_on,
        standard_output_is_found_behind_a_redirection,
        a_restored_container_is_like_any_other,
        a_container_can_run_on,
        a_paused_container_can_be_saved,
        restore_in_the_foreground_passes_output_and_exit_status_on,
        a_terminal_goes_to_the_new_console_socket,
        bind_mounts_come_from_the_config_at_restore,
        a_mount_point_that_criu_would_misread_is_refused,
        mounts_that_are_missing_at_restore_are_named,
        a_joined_network_namespace_is_joined_again,
        a_user_namespace_and_a_cgroup_namespace_are_restored,
        limits_and_seccomp_hold_after_restore,
        hooks_run_when_the_namespaces_exist,
        a_failing_hook_leaves_nothing,
        a_killed_restore_can_be_deleted,
        a_restore_ends_with_criu,
        memory_is_saved_beforehand,
        what_criu_says_is_in_the_error,
        what_cannot_be_saved_is_named,
        images_are_for_their_owner_only,
        links_beside_the_images_are_not_followed,
        processes_of_exec_are_warned_about,
        a_systemd_scope_is_made_again,
        criu_is_named_when_it_is_missing,
    }
    User {
        an_ordinary_user_is_told_what_is_missing,
    }
}

/// Why CRIU, by itself and without any runtime, cannot dump and restore a process on this machine.
pub fn unfit(ctx: &Ctx) -> Option<String> {
    static PROBED: OnceLock<Option<String>> = OnceLock::new();
    PROBED.get_or_init(|| probe(&ctx.dir.join("probe-of-criu")).err()).clone()
}

fn probe(dir: &Path) -> Result<(), String> {
    fs::create_dir(dir).unwrap();
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").status()
    };
    if quiet(Command::new("criu").arg("--version")).is_err() {
        return Err("there is no criu in $PATH".to_owned());
    }
    let mut sleep = Command::new("setsid");
    let mut sleeping =
        sleep.args(["sleep", "100"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let criu = |verb: &str, flags: &[&str]| -> Result<(), String> {
        let ended = quiet(Command::new("criu").arg(verb).args(flags).arg("-D").arg(dir).args(["-o", "log"]));
        if ended.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let log = read(&dir.join("log"));
        let last = log.lines().rfind(|line| line.contains("Error")).unwrap_or("no error in its log").to_owned();
        Err(format!("criu {verb} of a sleeping process fails here: {last}"))
    };
    let dumped = criu("dump", &["-t", &sleeping.id().to_string()]);
    let _ = sleeping.kill();
    sleeping.wait().unwrap();
    dumped?;
    let pid_file = dir.join("pid");
    criu("restore", &["-d", "--pidfile", pid_file.to_str().unwrap()])?;
    let _ = Command::new("kill").args(["-9", read(&pid_file).trim()]).status();
    Ok(())
}

macro_rules! needs_criu {
    ($ctx:expr) => {
        if let Some(why) = unfit($ctx) {
            return Skip(why);
        }
    };
}

/// One CRIU at a time: on version 1 each mounts the controllers that nobody has mounted, and gets into another one's way.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts in a variable of a shell, and writes the number to /count.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; sleep 0.02; done";

pub fn counting(c: &mut Value) {
    config::shell(c, COUNT);
}

pub fn count(container: &Container) -> u64 {
    read(&container.bundle.rootfs("count")).trim().parse().unwrap_or(0)
}

/// Waits until the count is above a number.
pub fn counts_on(ctx: &Ctx, container: &Container, from: u64) {
    ctx.wait_until("the count goes on", || count(container) > from);
}

pub fn images(ctx: &Ctx) -> String {
    ctx.path("images")
}

pub fn checkpoint(ctx: &Ctx, container: &Container, flags: &[&str]) -> Output {
    let _alone = alone();
    let images = images(ctx);
    let mut arguments = vec!["checkpoint", "--image-path", &images];
    arguments.extend(flags);
    arguments.push(&container.id);
    ctx.rt(&arguments)
}

/// A container that has counted to 5 or more and was saved; the number that it had reached.
pub fn saved<'c>(ctx: &'c Ctx<'c>, edit: impl FnOnce(&mut Value)) -> (Container<'c>, u64) {
    let container = ctx.running(|c| {
        counting(c);
        edit(c);
    });
    counts_on(ctx, &container, 5);
    checkpoint(ctx, &container, &[]).ok();
    let reached = count(&container);
    (container, reached)
}

pub fn restore_flags(ctx: &Ctx, container: &Container, flags: &[&str]) -> Vec<String> {
    let mut arguments = vec!["restore".to_owned(), "--image-path".to_owned(), images(ctx)];
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    arguments.extend(["--bundle".to_owned(), container.bundle.path().to_owned(), container.id.clone()]);
    arguments
}

pub fn restore(ctx: &Ctx, container: &Container, flags: &[&str]) -> Output {
    let _alone = alone();
    let arguments = restore_flags(ctx, container, flags);
    ctx.rt(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

pub fn restore_in_background(ctx: &Ctx, container: &Container) {
    restore(ctx, container, &["--detach"]).ok();
}

fn the_count_goes_on(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (mut container, reached) = saved(ctx, |_| {});
    container.verb("state").refused("container does not exist");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(count(&container), reached, "it still counts");
    // A fresh number in the file: what goes on is in the memory.
    fs::write(container.bundle.rootfs("count"), "0").unwrap();
    container.id = ctx.fresh("restored");
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    assert!(count(&container) < reached + 2000);
    Pass
}

/// A shell puts a file in the place of its own standard output, most of the time here.
fn standard_output_is_found_behind_a_redirection(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let script = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; if test -e /say; then echo said; exit 7; fi; \
                  j=0; while test $j -lt 300; do j=$((j+1)); echo $j; done > /much; done";
    let container = ctx.running(|c| config::shell(c, script));
    counts_on(ctx, &container, 2);
    for _ in 0..4 {
        checkpoint(ctx, &container, &["--leave-running"]).ok();
        counts_on(ctx, &container, count(&container));
    }
    checkpoint(ctx, &container, &[]).ok();
    fs::write(container.bundle.rootfs("say"), "").unwrap();
    let output = restore(ctx, &container, &[]).exits(7);
    assert_eq!(output.stdout, "said\n");
    Pass
}

fn a_restored_container_is_like_any_other(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, reached) = saved(ctx, |c| c["annotations"] = json!({ "a": "b" }));
    let pid_file = ctx.path("pid");
    restore(ctx, &container, &["--detach", "--pid-file", &pid_file]).ok();
    let state = container.state();
    assert_eq!((&state["status"], &state["annotations"]["a"]), (&json!("running"), &json!("b")), "{state}");
    assert_eq!(read(Path::new(&pid_file)), state["pid"].to_string());
    assert_eq!(state["bundle"], container.bundle.path());
    counts_on(ctx, &container, reached);
    assert_eq!(container.sh("hostname; echo $$ > /dev/null; test -e /proc/1/stat && echo proc"), "inside\nproc");
    container.verb("pause").ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume").ok();
    assert!(container.verb("ps").ok().lines().len() > 1);
    container.delete().refused("still running");
    container.stop();
    container.delete().ok();
    let mounts = read(Path::new("/proc/self/mountinfo"));
    assert!(!mounts.contains(container.bundle.path()), "{mounts}");
    Pass
}

fn a_container_can_run_on(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = ctx.running(counting);
    counts_on(ctx, &container, 5);
    let pid = container.pid();
    checkpoint(ctx, &container, &["--leave-running"]).ok();
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    counts_on(ctx, &container, count(&container));
    Pass
}

fn a_paused_container_can_be_saved(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = ctx.running(counting);
    counts_on(ctx, &container, 5);
    container.verb("pause").ok();
    let reached = count(&container);
    checkpoint(ctx, &container, &["--leave-running"]).ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume").ok();
    counts_on(ctx, &container, reached);
    Pass
}

fn restore_in_the_foreground_passes_output_and_exit_status_on(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let script = "i=0; until test -e /end; do i=$((i+1)); echo $i; sleep 0.02; done; exit 7";
    let container = ctx.container(ctx.bundle(|c| config::shell(c, script)));
    let run = container.run_command(&[]).spawn();
    ctx.wait_until("it counts", || run.stdout_so_far().lines().count() > 5);
    checkpoint(ctx, &container, &[]).ok();
    let first = run.wait().exits(137).stdout;
    let last: u64 = first.lines().last().unwrap().parse().unwrap();
    let alone = alone();
    let arguments = restore_flags(ctx, &container, &[]);
    let restored = ctx.rt_command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn();
    ctx.wait_until("it counts on", || restored.stdout_so_far().lines().count() > 3);
    drop(alone);
    fs::write(container.bundle.rootfs("end"), "").unwrap();
    let output = restored.wait().exits(7);
    assert_eq!(output.lines()[0], (last + 1).to_string());
    container.verb("state").refused("container does not exist");
    Pass
}

/// A listener on a console socket, which prints what it gets.
fn listen(ctx: &Ctx) -> (Running, String) {
    let socket = ctx.socket_path();
    let listener = ctx.command(&[ctx.probe(), "recvtty".to_owned(), socket.clone()]).spawn();
    ctx.wait_until("the socket is there", || Path::new(&socket).exists());
    (listener, socket)
}

fn a_terminal_goes_to_the_new_console_socket(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (first, socket) = listen(ctx);
    let mut container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "i=0; until test -e /end; do i=$((i+1)); echo $i; sleep 0.02; done; tty");
        c["process"]["terminal"] = json!(true);
    }));
    container.create_with(&["--console-socket", &socket]).ok();
    container.start().ok();
    ctx.wait_until("it counts", || first.stdout_so_far().lines().count() > 5);
    checkpoint(ctx, &container, &[]).ok();
    let last = first.wait().ok().stdout.trim().lines().last().unwrap().trim().parse::<u64>().unwrap();
    let (second, socket) = listen(ctx);
    restore(ctx, &container, &["--detach", "--console-socket", &socket]).ok();
    ctx.wait_until("it counts on", || second.stdout_so_far().lines().count() > 3);
    fs::write(container.bundle.rootfs("end"), "").unwrap();
    let output = second.wait().ok().stdout.replace('\r', "");
    assert!(output.starts_with("received 1 master ") && output.contains(&format!("\n{}\n", last + 2)), "{last} {output}");
    assert!(output.ends_with("/dev/pts/0\n"), "{output}");
    Pass
}

fn bind_mounts_come_from_the_config_at_restore(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let old = ctx.host_dir("old", "file", "old");
    let new = ctx.host_dir("new", "file", "new");
    let (container, reached) = saved(ctx, |c| {
        config::mount(c, "bind", &old, "/data", &["rbind", "ro"]);
        config::mount(c, "bind", &format!("{old}/file"), "/etc/one", &["bind"]);
    });
    container.bundle.edit(|c| {
        config::without_mount(c, "/data");
        config::without_mount(c, "/etc/one");
        config::mount(c, "bind", &new, "/data", &["rbind", "ro"]);
        config::mount(c, "bind", &format!("{new}/file"), "/etc/one", &["bind"]);
    });
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    assert_eq!(container.sh("cat /data/file /etc/one; echo x > /data/file || echo read-only"), "newnewread-only");
    Pass
}

fn a_mount_point_that_criu_would_misread_is_refused(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let host = ctx.host_dir("host", "file", "");
    let container = ctx.running(|c| {
        counting(c);
        config::mount(c, "bind", &host, "/a]:/b", &["bind"]);
    });
    checkpoint(ctx, &container, &[]).refused("mount point \"/a]:/b\" has `]:`");
    assert_eq!(container.status(), "running");
    Pass
}

fn mounts_that_are_missing_at_restore_are_named(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let host = ctx.host_dir("host", "file", "");
    let (container, _) = saved(ctx, |c| config::mount(c, "bind", &host, "/data", &["bind"]));
    container.bundle.edit(|c| config::without_mount(c, "/data"));
    restore(ctx, &container, &["--detach"]).refused("mounts: nothing on /data; expected the bind mount");
    container.verb("state").refused("container does not exist");
    Pass
}

/// Images may come from elsewhere, and CRIU opens what it writes beside them as anybody would.
fn links_beside_the_images_are_not_followed(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others leave it to CRIU");
    needs_criu!(ctx);
    let (container, reached) = saved(ctx, |_| {});
    let outside = ctx.path("outside");
    fs::write(&outside, "untouched").unwrap();
    for name in ["restore.log", "stats-restore"] {
        std::os::unix::fs::symlink(&outside, Path::new(&images(ctx)).join(name)).unwrap();
    }
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    assert_eq!(read(outside.as_ref()), "untouched");
    Pass
}

fn a_joined_network_namespace_is_joined_again(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let owner = ctx.running(|_| {});
    let path = format!("/proc/{}/ns/net", owner.pid());
    let (container, reached) = saved(ctx, |c| config::namespace(c, "network", Some(&path)));
    let another = ctx.running(|_| {});
    let path = format!("/proc/{}/ns/net", another.pid());
    container.bundle.edit(|c| config::namespace(c, "network", Some(&path)));
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    let net = |container: &Container| fs::read_link(format!("/proc/{}/ns/net", container.pid())).unwrap();
    assert_eq!(net(&container), net(&another));
    container.stop();
    container.delete().ok();
    container.bundle.edit(|c| config::namespace(c, "network", None));
    restore(ctx, &container, &["--detach"]).refused("the network namespace was joined by path");
    Pass
}

fn a_user_namespace_and_a_cgroup_namespace_are_restored(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let bundle = ctx.bundle(|c| {
        counting(c);
        let map = json!([config::id_map(0, 100_000, 65536)]);
        config::in_user_namespace(c, map.clone(), map);
        config::namespace(c, "cgroup", None);
    });
    ctx.host(&["chown", "-R", "100000:100000", bundle.rootfs("/").to_str().unwrap()]).ok();
    let mut container = ctx.container(bundle);
    container.create().ok();
    container.start().ok();
    counts_on(ctx, &container, 5);
    checkpoint(ctx, &container, &[]).ok();
    let reached = count(&container);
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    assert_eq!(container.sh("cat /proc/self/uid_map").split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    let ours = fs::read_link("/proc/self/ns/cgroup").unwrap();
    assert_ne!(fs::read_link(format!("/proc/{}/ns/cgroup", container.pid())).unwrap(), ours);
    // Nobody else may look into the memory that was saved.
    assert_eq!(fs::metadata(images(ctx)).unwrap().permissions().mode() & 0o777, 0o710);
    Pass
}

fn limits_and_seccomp_hold_after_restore(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (mut container, reached) = saved(ctx, |c| {
        c["linux"]["resources"] = json!({ "pids": { "limit": 37 } });
        let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 });
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    });
    container.id = ctx.fresh("limited");
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    let status = read(Path::new(&format!("/proc/{}/status", container.pid())));
    assert_eq!(crate::ctx::status(&status, "Seccomp"), "2");
    let groups = read(Path::new(&format!("/proc/{}/cgroup", container.pid())));
    assert!(groups.lines().any(|line| line.ends_with(&container.id)), "{groups}");
    let events = ctx.rt(&["events", "--stats", &container.id]).ok().json();
    assert_eq!(events["data"]["pids"]["limit"], 37, "{events}");
    Pass
}

/// A hook that appends its name and the status that it reads to a file.
fn noting(log: &str, name: &str) -> Value {
    let script = format!("read -r state; case $state in *'\"pid\":0'*) p=0;; *) p=pid;; esac; echo {name} $p >> {log}");
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

fn hooks_run_when_the_namespaces_exist(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, reached) = saved(ctx, |_| {});
    let log = ctx.path("hooks");
    container.bundle.edit(|c| {
        for name in ["prestart", "createRuntime", "poststart", "poststop"] {
            c["hooks"][name] = noting(&log, name);
        }
    });
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    container.stop();
    container.delete().ok();
    assert_eq!(read(Path::new(&log)), "prestart pid\ncreateRuntime pid\npoststart pid\npoststop 0\n");
    Pass
}

fn a_failing_hook_leaves_nothing(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, _) = saved(ctx, |_| {});
    container.bundle.edit(|c| c["hooks"]["createRuntime"] = json!([{ "path": "/bin/false" }]));
    let output = restore(ctx, &container, &["--detach"]).refused("run createRuntime hook /bin/false (hooks.createRuntime[0])");
    assert!(output.stderr.contains("exit status 1"), "{output}");
    container.verb("state").refused("container does not exist");
    let groups = ctx.host(&["find", "/sys/fs/cgroup", "-name", &container.id]);
    assert_eq!(groups.text(), "");
    Pass
}

fn a_killed_restore_can_be_deleted(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, _) = saved(ctx, |_| {});
    let mark = ctx.path("mark");
    let script = format!("touch {mark}; sleep 20");
    container.bundle.edit(|c| c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    let _alone = alone();
    let arguments = restore_flags(ctx, &container, &["--detach"]);
    let restoring = ctx.rt_command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn();
    ctx.wait_until("the hook runs", || Path::new(&mark).exists());
    ctx.host(&["kill", "-KILL", &restoring.pid()]).ok();
    restoring.wait().exits(137);
    ctx.rt(&["delete", "--force", &container.id]).ok();
    container.verb("state").refused("container does not exist");
    let groups = ctx.host(&["find", "/sys/fs/cgroup", "-name", &container.id]);
    assert_eq!(groups.text(), "");
    Pass
}

/// CRIU's children have its end of the conversation, too, and live on.
fn a_restore_ends_with_criu(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, _) = saved(ctx, |_| {});
    let mark = ctx.path("mark");
    // The hook is a child of the command, and so is CRIU.
    let script =
        format!("touch {mark}; for pid in $(cat /proc/$PPID/task/$PPID/children); do test $pid = $$ || kill -KILL $pid; done");
    container.bundle.edit(|c| c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    restore(ctx, &container, &["--detach"]).refused("restore by CRIU: ");
    assert!(Path::new(&mark).exists());
    container.verb("state").refused("container does not exist");
    let groups = ctx.host(&["find", "/sys/fs/cgroup", "-name", &container.id]);
    assert_eq!(groups.text(), "");
    Pass
}

fn memory_is_saved_beforehand(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = ctx.running(counting);
    counts_on(ctx, &container, 5);
    let path = |name: &str| ctx.path(&format!("dumps/{name}"));
    let _alone = alone();
    let early = ctx.rt(&["checkpoint", "--image-path", &path("early"), "--pre-dump", &container.id]);
    if early.stderr.contains("track changes of memory") {
        assert_eq!(container.status(), "running");
        return Skip("this kernel does not track changes of memory".to_owned());
    }
    early.ok();
    assert_eq!(container.status(), "running");
    ctx.rt(&["checkpoint", "--image-path", &path("late"), "--parent-path", "/early", &container.id]).refused("--parent-path");
    ctx.rt(&["checkpoint", "--image-path", &path("late"), "--parent-path", "../early", &container.id]).ok();
    let reached = count(&container);
    ctx.rt(&["restore", "-d", "--image-path", &path("late"), "--bundle", container.bundle.path(), &container.id]).ok();
    counts_on(ctx, &container, reached);
    Pass
}

fn what_criu_says_is_in_the_error(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, _) = saved(ctx, |_| {});
    let inventory = PathBuf::from(images(ctx)).join("pstree.img");
    fs::write(inventory, "nonsense").unwrap();
    let work = ctx.path("work");
    let output = restore(ctx, &container, &["--detach", "--work-path", &work]).refused("restore by CRIU: Error (criu/");
    assert!(output.stderr.contains(&format!("(log: {work}/restore.log)")), "{output}");
    container.verb("state").refused("container does not exist");
    restore(ctx, &container, &["--detach", "--image-path", &ctx.path("nothing")])
        .refused("open the image directory (--image-path)");
    restore(ctx, &container, &["--detach", "--image-path", &work]).refused("rt.json");
    Pass
}

fn what_cannot_be_saved_is_named(ctx: &Ctx) -> Outcome {
    let created = ctx.create(|_| {});
    checkpoint(ctx, &created, &[]).refused("cannot checkpoint a container that does not run (status created)");
    ctx.rt(&["checkpoint", "nobody"]).refused("container does not exist");
    needs_criu!(ctx);
    let shared = ctx.running(|c| config::without_namespace(c, "pid"));
    let output = checkpoint(ctx, &shared, &["--page-server", "nowhere"]).refused("no pid namespace");
    assert!(output.stderr.contains("--page-server: \"nowhere\"; expected ADDRESS:PORT"), "{output}");
    Pass
}

fn processes_of_exec_are_warned_about(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = ctx.running(counting);
    container.exec(&["--detach"], &["sleep", "1000"]).ok();
    counts_on(ctx, &container, 5);
    let output = checkpoint(ctx, &container, &["--leave-running"]).ok();
    let warnings = output.stderr.lines().filter(|line| line.contains("was started by exec and is not saved")).count();
    assert_eq!(warnings, 1, "{output}");
    Pass
}

fn images_are_for_their_owner_only(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (_container, _) = saved(ctx, |_| {});
    assert_eq!(fs::metadata(images(ctx)).unwrap().permissions().mode() & 0o777, 0o700);
    let links: Value = serde_json::from_str(&read(&Path::new(&images(ctx)).join("descriptors.json"))).unwrap();
    assert_eq!(links[0], "/dev/null");
    Pass
}

fn a_systemd_scope_is_made_again(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    if !Path::new("/run/systemd/system").exists() {
        return Skip("systemd does not run here".to_owned());
    }
    for below in ["", "/inner/payload"] {
        let mut container = ctx.container(ctx.bundle(|c| {
            counting(c);
            if !below.is_empty() {
                c["annotations"] = json!({ SUBGROUP: "inner", DELEGATED: "payload" });
            }
        }));
        container.create_by_systemd().ok();
        container.start().ok();
        counts_on(ctx, &container, 5);
        checkpoint(ctx, &container, &[]).ok();
        let reached = count(&container);
        let alone = alone();
        let flags = restore_flags(ctx, &container, &["--detach"]);
        let arguments: Vec<&str> = ["--systemd-cgroup"].into_iter().chain(flags.iter().map(String::as_str)).collect();
        ctx.rt(&arguments).ok();
        drop(alone);
        counts_on(ctx, &container, reached);
        let groups = read(Path::new(&format!("/proc/{}/cgroup", container.pid())));
        assert!(groups.trim_end().ends_with(&format!("/rt-{}.scope{below}", container.id)), "{groups}");
        container.stop();
        container.delete().ok();
        let units = ctx.command(&["systemctl", "list-units", "--all", "--plain", "--no-legend"]).run();
        assert!(!units.stdout.contains(&container.id), "{units}");
    }
    Pass
}

fn criu_is_named_when_it_is_missing(ctx: &Ctx) -> Outcome {
    if ["/usr/local/sbin/criu", "/usr/sbin/criu", "/sbin/criu"].iter().any(|path| Path::new(path).exists()) {
        return Skip("criu is in a directory that is always searched".to_owned());
    }
    let container = ctx.running(|_| {});
    let output = ctx.rt_command(&["checkpoint", "--image-path", &images(ctx), &container.id]).env("PATH", "/bin").run();
    let output = output.refused("\"criu\": executable file not found in $PATH");
    assert!(output.stderr.contains("CRIU 3.15 or newer"), "{output}");
    Pass
}

fn an_ordinary_user_is_told_what_is_missing(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    checkpoint(ctx, &container, &[]).refused("CRIU needs CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE");
    assert_eq!(container.status(), "running");
    Pass
}
