//! Where the specification is silent and the other runtimes agree, or scripts count on what runc does.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, Running, read, status};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        a_file_is_bound_where_a_dangling_link_leads,
        a_read_only_tmpfs_has_mounts_below,
        a_read_only_dev_has_its_devices,
        a_read_only_dev_has_a_console,
        a_tmpfs_is_no_more_open_than_what_it_hides,
        a_process_without_capabilities_has_the_container_s,
        a_process_comes_through_a_pipe,
        json_records_go_to_standard_error_without_a_log,
        rootless_has_its_value_apart,
        an_unknown_command_is_no_help_topic,
    }
    User {
        a_path_of_control_groups_that_a_user_cannot_have,
    }
    Root {
        limits_come_through_a_pipe,
        tun_may_be_opened,
        criu_is_the_one_that_is_named,
        cgroup2_is_the_unified_hierarchy_alone,
    }
}

/// Images come with an /etc/resolv.conf that leads into a /run which is empty in a container.
fn a_file_is_bound_where_a_dangling_link_leads(ctx: &Ctx) -> Outcome {
    let source = format!("{}/here", ctx.host_dir("bound", "here", "bound\n"));
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "cat /etc/resolv.conf; cat /run/systemd/resolve/stub; readlink /etc/resolv.conf");
        config::mount(c, "bind", &source, "/etc/resolv.conf", &["bind"]);
    }));
    symlink("../run/systemd/resolve/stub", container.bundle.rootfs("etc/resolv.conf")).unwrap();
    assert_eq!(container.run().ok().stdout, "bound\nbound\n../run/systemd/resolve/stub\n");
    assert!(!Path::new("/run/systemd/resolve/stub").exists());
    Pass
}

fn a_read_only_tmpfs_has_mounts_below(ctx: &Ctx) -> Outcome {
    let source = format!("{}/file", ctx.host_dir("filled", "file", "below\n"));
    let script = "cat /data/deep/file; touch /data/no 2> /dev/null || echo read-only; touch /data/free/yes && echo free
                  awk '$5 == \"/data\" { split($6, option, \",\"); print option[1] }' /proc/self/mountinfo";
    let output = ctx.sh_with(script, |c| {
        config::mount(c, "tmpfs", "tmpfs", "/data", &["ro", "nosuid"]);
        config::mount(c, "bind", &source, "/data/deep/file", &["bind"]);
        config::mount(c, "tmpfs", "tmpfs", "/data/free", &[]);
    });
    assert_eq!(output, "below\nread-only\nfree\nro\n");
    Pass
}

fn a_read_only_dev_has_its_devices(ctx: &Ctx) -> Outcome {
    let script = "echo > /dev/null && echo open; test -L /dev/fd && echo link; touch /dev/no 2> /dev/null || echo read-only";
    let output = ctx.sh_with(script, read_only_dev);
    assert_eq!(output, "open\nlink\nread-only\n");
    Pass
}

fn read_only_dev(c: &mut Value) {
    let dev = |mount: &&mut Value| mount["destination"] == "/dev";
    let dev = c["mounts"].as_array_mut().unwrap().iter_mut().find(dev).unwrap();
    dev["options"].as_array_mut().unwrap().push(json!("ro"));
}

fn a_read_only_dev_has_a_console(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, "test -c /dev/console && tty && touch /dev/no 2> /dev/null || echo read-only");
        c["process"]["terminal"] = json!(true);
        read_only_dev(c);
    });
    assert_eq!(output.ok().stdout, "/dev/pts/0\r\nread-only\r\n");
    Pass
}

/// The mode of the directory stays; one that is asked for wins, and a mount point that is made has the kernel's.
fn a_tmpfs_is_no_more_open_than_what_it_hides(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "stat -c %a /data /data/asked /data/new; stat -f -c %T /data");
        config::mount(c, "tmpfs", "tmpfs", "/data", &["ro", "size=64k"]);
        config::mount(c, "tmpfs", "tmpfs", "/data/asked", &["mode=711"]);
        config::mount(c, "tmpfs", "tmpfs", "/data/new", &[]);
    }));
    std::fs::set_permissions(container.bundle.rootfs("data"), std::fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(container.run().ok().stdout, "750\n711\n1777\ntmpfs\n");
    Pass
}

fn process_of(args: &[&str]) -> String {
    let env = json!(["PATH=/bin:/usr/bin"]);
    json!({ "args": args, "cwd": "/", "env": env, "user": { "uid": 0, "gid": 0 } }).to_string()
}

fn a_process_without_capabilities_has_the_container_s(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::capabilities(c, &["CAP_KILL", "CAP_CHOWN"]));
    let file = ctx.path("bare.json");
    std::fs::write(&file, process_of(&["cat", "/proc/self/status"])).unwrap();
    let output = container.exec(&["--process", &file], &[]).ok();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(&output.stdout, set), "0000000000000021", "{set}");
    }
    Pass
}

/// The path of a fifo that somebody is about to write this to: a shell's `<(...)` and /dev/stdin are no files either.
fn pipe(ctx: &Ctx, text: &str) -> (String, Running) {
    let (file, fifo) = (ctx.path(&ctx.fresh("text")), ctx.path(&ctx.fresh("fifo")));
    std::fs::write(&file, text).unwrap();
    ctx.host(&["mkfifo", &fifo]).ok();
    let writer = ctx.command(&["sh", "-c", &format!("sleep 0.2; cat {file} > {fifo}")]).spawn();
    (fifo, writer)
}

fn a_process_comes_through_a_pipe(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let (fifo, writer) = pipe(ctx, &process_of(&["echo", "piped"]));
    assert_eq!(container.exec(&["--process", &fifo], &[]).ok().text(), "piped");
    writer.wait().ok();
    Pass
}

fn limits_come_through_a_pipe(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let (fifo, writer) = pipe(ctx, &json!({ "pids": { "limit": 37 } }).to_string());
    ctx.rt(&["update", "--resources", &fifo, &container.id]).ok();
    writer.wait().ok();
    let stats = ctx.rt(&["events", "--stats", &container.id]).ok().json();
    assert_eq!(stats["data"]["pids"]["limit"], 37, "{stats}");
    Pass
}

fn json_records_go_to_standard_error_without_a_log(ctx: &Ctx) -> Outcome {
    let output = ctx.rt(&["--log-format", "json", "state", "never-made"]).exits(1);
    let record: Value = serde_json::from_str(&output.stderr).unwrap();
    assert_eq!(record["level"], "error");
    assert!(record["msg"].as_str().unwrap().contains("container does not exist"), "{record}");
    let output = ctx.rt(&["--debug", "list"]).ok();
    assert!(output.stderr.contains(" level=debug msg="), "{output}");
    Pass
}

fn rootless_has_its_value_apart(ctx: &Ctx) -> Outcome {
    for value in ["true", "false", "auto"] {
        ctx.rt(&["--rootless", value, "list"]).ok();
    }
    ctx.rt(&["--rootless", "perhaps", "list"]).exits(1);
    Pass
}

fn an_unknown_command_is_no_help_topic(ctx: &Ctx) -> Outcome {
    let output = ctx.rt(&["nosuch", "-h"]);
    assert!(output.code != 0 && output.stderr.contains("No help topic for 'nosuch'"), "{output}");
    Pass
}

fn a_path_of_control_groups_that_a_user_cannot_have(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, "cat /proc/self/cgroup");
        c["linux"]["cgroupsPath"] = json!("compared-path");
    });
    let told = output.stderr.contains("linux.cgroupsPath: not applied");
    assert!(told != output.stdout.contains("/compared-path"), "{output}");
    Pass
}

fn tun_may_be_opened(ctx: &Ctx) -> Outcome {
    let script = "mknod /dev/tun c 10 200 && (exec 3<> /dev/tun) 2>&1 && echo opened
                  mknod /dev/other c 10 201 && (exec 3<> /dev/other) 2>&1; true";
    let output = ctx.sh_with(script, |c| {
        config::capabilities(c, &["CAP_MKNOD"]);
        c["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    });
    let lines: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
    // Only who is allowed to open it is told that there is no driver.
    let [tun, other] = lines[..] else { panic!("{output}") };
    assert!(tun == "opened" || tun.ends_with("No such device") || tun.ends_with("No such device or address"), "{output}");
    assert!(other.ends_with("Operation not permitted"), "{output}");
    Pass
}

/// `cgroup` shows whatever the host has.
fn cgroup2_is_the_unified_hierarchy_alone(ctx: &Ctx) -> Outcome {
    if !read(Path::new("/proc/self/mountinfo")).contains(" - cgroup2 ") {
        return Skip("no unified hierarchy is mounted".to_owned());
    }
    let script = "stat -f -c %T /data; test -e /data/cgroup.procs && echo procs; touch /data/no 2> /dev/null || echo read-only";
    let output = ctx.sh_with(script, |c| config::mount(c, "cgroup2", "cgroup", "/data", &["ro"]));
    // busybox has no name for it.
    assert!(output == "UNKNOWN\nprocs\nread-only\n" || output == "cgroup2fs\nprocs\nread-only\n", "{output}");
    Pass
}

fn criu_is_the_one_that_is_named(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let images = ctx.path("images");
    let arguments = ["--criu", "/no/such/criu", "checkpoint", "--image-path", &images, &container.id];
    ctx.rt(&arguments).exits(1).refused("/no/such/criu");
    assert_eq!(container.status(), "running");
    Pass
}
