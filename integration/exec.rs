//! exec: what a further process in a container gets, from the container's configuration and from flags.

use std::fs;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, read, status};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        exit_status_is_the_command_s,
        exit_status_of_a_killed_command_is_128_plus_the_signal,
        standard_streams_are_passed_through,
        environment_is_the_container_s_plus_flags,
        working_directory_is_the_container_s_or_a_flag_s,
        flags_after_the_id_belong_to_the_command,
        a_missing_command_is_status_255,
        a_stopped_container_is_refused,
        a_created_container_can_be_entered,
        detach_returns_at_once_and_writes_the_pid_file,
        the_process_file_replaces_the_configuration,
        the_process_file_without_args_is_refused,
        no_new_privileges_is_inherited,
        no_new_privileges_by_flag,
        capabilities_are_inherited,
        a_capability_by_flag_is_neither_inheritable_nor_ambient,
        what_create_has_warned_of_is_not_said_again,
        rlimits_are_inherited,
        umask_is_the_container_s,
        seccomp_is_inherited,
        the_oom_score_is_inherited,
        signals_start_from_a_clean_slate,
        no_descriptor_leaks_in,
        preserved_descriptors_arrive,
        a_terminal_is_given_with_tty,
        all_namespaces_are_the_container_s,
        an_edit_of_config_json_has_no_effect,
    }
    Root {
        user_and_groups_are_inherited,
        user_and_groups_by_flag,
        invalid_users_are_refused,
        the_command_lands_in_the_container_s_cgroups,
    }
}

fn exit_status_is_the_command_s(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    for code in [0, 3, 254] {
        container.exec(&[], &["sh", "-c", &format!("exit {code}")]).exits(code);
    }
    Pass
}

fn exit_status_of_a_killed_command_is_128_plus_the_signal(ctx: &Ctx) -> Outcome {
    ctx.running(|_| {}).exec(&[], &["sh", "-c", "kill -9 $$"]).exits(137);
    Pass
}

fn standard_streams_are_passed_through(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let output = container.exec_command(&[], &["sh", "-c", "cat; echo oops >&2"]).stdin("in\n").run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("in\n", "oops\n"));
    Pass
}

fn environment_is_the_container_s_plus_flags(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["process"]["env"] = json!(["PATH=/bin", "A=config", "B=config"]));
    let output = container.exec_command(&["--env", "B=flag", "--env", "C=flag"], &["env"]).env("D", "caller").run().ok();
    let mut lines = output.lines();
    lines.retain(|line| !line.starts_with("HOME="));
    lines.sort_unstable();
    assert_eq!(lines, ["A=config", "B=flag", "C=flag", "PATH=/bin"]);
    Pass
}

fn working_directory_is_the_container_s_or_a_flag_s(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["process"]["cwd"] = json!("/tmp"));
    assert_eq!(container.exec(&[], &["pwd"]).ok().text(), "/tmp");
    assert_eq!(container.exec(&["--cwd", "/etc"], &["pwd"]).ok().text(), "/etc");
    Pass
}

fn flags_after_the_id_belong_to_the_command(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    assert_eq!(container.exec(&[], &["echo", "--cwd", "-t", "--", "-x"]).ok().text(), "--cwd -t -- -x");
    Pass
}

fn a_missing_command_is_status_255(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.exec(&[], &["no-such-program"]).exits(255).refused("executable file not found in $PATH");
    container.exec(&[], &["/no/such/program"]).exits(255).refused("no such file or directory");
    container.exec(&[], &["/etc/passwd"]).exits(255).refused("permission denied");
    Pass
}

fn a_stopped_container_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.stop();
    container.exec(&[], &["true"]).exits(255).refused("cannot exec in a stopped container");
    Pass
}

fn a_created_container_can_be_entered(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|_| {});
    assert_eq!(container.sh("hostname"), "inside");
    assert_eq!(container.status(), "created");
    Pass
}

fn detach_returns_at_once_and_writes_the_pid_file(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let file = ctx.path("pid");
    container.exec(&["--detach", "--pid-file", &file], &["sleep", "1000"]).ok();
    let pid = read(file.as_ref());
    assert!(!pid.is_empty() && pid.chars().all(|c| c.is_ascii_digit()), "{pid:?}");
    assert_eq!(fs::read(format!("/proc/{pid}/cmdline")).unwrap(), b"sleep\x001000\0");
    Pass
}

fn the_process_file_replaces_the_configuration(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["process"]["env"] = json!(["PATH=/bin", "A=config"]));
    let file = process_file(ctx, |p| {
        p["args"] = json!(["sh", "-c", "pwd; env | grep -v -e HOME -e PWD -e SHLVL"]);
        p["env"] = json!(["PATH=/bin", "B=file"]);
        p["cwd"] = json!("/tmp");
    });
    let output = container.exec(&["--process", &file], &[]).ok();
    assert_eq!(output.lines(), ["/tmp", "PATH=/bin", "B=file"]);
    Pass
}

fn the_process_file_without_args_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let file = process_file(ctx, |p| p["args"] = json!([]));
    container.exec(&["--process", &file], &[]).exits(255);
    Pass
}

fn no_new_privileges_is_inherited(ctx: &Ctx) -> Outcome {
    for wanted in [true, false] {
        let container = ctx.running(|c| c["process"]["noNewPrivileges"] = json!(wanted));
        assert_eq!(status(&container.sh("cat /proc/self/status"), "NoNewPrivs"), if wanted { "1" } else { "0" });
    }
    Pass
}

fn no_new_privileges_by_flag(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["process"]["noNewPrivileges"] = json!(false));
    let output = container.exec(&["--no-new-privs"], &["cat", "/proc/self/status"]).ok();
    assert_eq!(status(&output.stdout, "NoNewPrivs"), "1");
    Pass
}

fn capabilities_are_inherited(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::capabilities(c, &["CAP_KILL", "CAP_CHOWN"]));
    let of_exec = container.sh("grep Cap /proc/self/status");
    assert_eq!(of_exec, container.sh("grep Cap /proc/1/status"));
    assert_eq!(status(&of_exec, "CapBnd"), "0000000000000021");
    Pass
}

/// runc's own example of a config has ambient capabilities that are not inheritable.
fn what_create_has_warned_of_is_not_said_again(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others say nothing");
    let mut container = ctx.container(ctx.bundle(|c| {
        let set = || json!(["CAP_KILL"]);
        c["process"]["capabilities"] = json!({ "bounding": set(), "permitted": set(), "effective": set(), "ambient": set() });
        config::shell(c, "sleep 1000");
    }));
    let created = container.create().ok();
    assert!(created.stderr.contains("process.capabilities.ambient"), "{created}");
    container.start().ok();
    let quiet = container.exec(&[], &["true"]).ok();
    assert_eq!(quiet.stderr, "");
    let file = ctx.path("process.json");
    let process = json!({ "args": ["true"], "cwd": "/", "capabilities": { "ambient": ["CAP_CHOWN"] } });
    std::fs::write(&file, process.to_string()).unwrap();
    let other = ctx.rt(&["exec", "--process", &file, &container.id]).ok();
    assert!(other.stderr.contains("process.capabilities.ambient"), "{other}");
    Pass
}

fn a_capability_by_flag_is_neither_inheritable_nor_ambient(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let output = container.exec(&["--cap", "CAP_NET_ADMIN"], &["cat", "/proc/self/status"]).ok();
    assert_eq!(status(&output.stdout, "CapEff"), "00000000a80435fb"); // the default list plus CAP_NET_ADMIN (bit 12)
    assert_eq!(status(&output.stdout, "CapInh"), "0000000000000000");
    assert_eq!(status(&output.stdout, "CapAmb"), "0000000000000000");
    Pass
}

fn rlimits_are_inherited(ctx: &Ctx) -> Outcome {
    // Not NOFILE, which Go's runtime raises by itself in runc.
    let container = ctx.running(|c| c["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 1024, "hard": 4096 }]));
    assert_eq!(container.sh("awk '/core file/ { print $5, $6 }' /proc/self/limits"), "1024 4096");
    Pass
}

fn umask_is_the_container_s(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "exec in runc 1.1.5 sets 0022 whatever the configuration says");
    let container = ctx.running(|c| c["process"]["user"]["umask"] = json!(0o77));
    assert_eq!(container.sh("umask"), "0077");
    Pass
}

fn seccomp_is_inherited(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]
        });
    });
    assert_eq!(status(&container.sh("cat /proc/self/status"), "Seccomp"), "2");
    assert!(container.sh("mkdir /tmp/x 2>&1 || true").contains("Operation not supported"));
    Pass
}

fn the_oom_score_is_inherited(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["process"]["oomScoreAdj"] = json!(321));
    assert_eq!(container.sh("cat /proc/1/oom_score_adj /proc/self/oom_score_adj"), "321\n321");
    Pass
}

fn signals_start_from_a_clean_slate(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let output = container.exec_command(&[], &["cat", "/proc/self/status"]).after("trap '' PIPE USR1").run().ok();
    ctx.assert_clean_signals(&output.stdout);
    Pass
}

fn no_descriptor_leaks_in(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let output =
        container.exec_command(&[], &["sh", "-c", "ls /proc/$$/fd; true"]).after("exec 9</etc 11</etc/passwd").run().ok();
    assert_eq!(output.lines(), ["0", "1", "2"]);
    Pass
}

fn preserved_descriptors_arrive(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let open = format!("echo three > {0}; exec 3<{0}", ctx.path("three"));
    let output = container.exec_command(&["--preserve-fds", "1"], &["cat", "/proc/self/fd/3"]).after(&open).run().ok();
    assert_eq!(output.text(), "three");
    Pass
}

fn a_terminal_is_given_with_tty(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let root = ctx.path("state");
    let argv = [&ctx.probe(), "pty", ctx.runtime().to_str().unwrap(), "--root", &root, "exec", "--tty", &container.id];
    let command = ["sh", "-c", "tty; stty size; exit 5"];
    let output = ctx.command(&[&argv[..], &command[..]].concat()).run().exits(5);
    assert_eq!(output.lines(), ["/dev/pts/0", "41 121"]);
    Pass
}

fn all_namespaces_are_the_container_s(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::namespace(c, "cgroup", None));
    let script = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/$P/ns/$n; done";
    let of = |who: &str| container.sh(&script.replace("$P", who));
    assert_eq!(of("self"), of("1"));
    Pass
}

fn an_edit_of_config_json_has_no_effect(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "exec of runc reads the bundle again");
    let container = ctx.running(|c| c["process"]["env"] = json!(["PATH=/bin", "A=first"]));
    container.bundle.edit(|c| c["process"]["env"] = json!(["PATH=/bin", "A=second"]));
    assert_eq!(container.sh("echo $A"), "first");
    fs::remove_file(container.bundle.dir.join("config.json")).unwrap();
    assert_eq!(container.sh("echo $A"), "first");
    Pass
}

fn user_and_groups_are_inherited(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 2000, "additionalGids": [5, 7] }));
    let output = container.sh("cat /proc/self/status");
    assert_eq!(status(&output, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(status(&output, "Gid"), "2000\t2000\t2000\t2000");
    assert_eq!(status(&output, "Groups"), "5 7");
    Pass
}

fn user_and_groups_by_flag(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let ids = |flags: &[&str]| {
        let output = container.exec(flags, &["cat", "/proc/self/status"]).ok().stdout;
        ["Uid", "Gid", "Groups"].map(|key| status(&output, key).split('\t').next().unwrap().to_owned())
    };
    assert_eq!(ids(&["--user", "1"])[0], "1");
    assert_eq!(ids(&["--user", "1:2"])[..2], ["1", "2"]);
    assert_eq!(ids(&["--user", "65534:65534"])[..2], ["65534", "65534"]);
    assert_eq!(ids(&["--user", "1:2", "--additional-gids", "5", "--additional-gids", "7"]), ["1", "2", "5 7"]);
    Pass
}

/// THREATS T12: a number that does not fit must never become another user.
fn invalid_users_are_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc takes --user 4294967296 for 0");
    let container = ctx.running(|_| {});
    for user in ["-1", "4294967295", "4294967296", "18446744073709551616", "1:", ":1", "0x1", " 1", "1a"] {
        let output = container.exec(&[&format!("--user={user}")], &["id"]);
        assert!(output.code != 0 && output.stdout.is_empty(), "user {user:?}: {output}");
    }
    Pass
}

fn the_command_lands_in_the_container_s_cgroups(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let file = ctx.path("pid");
    container.exec(&["--detach", "--pid-file", &file], &["sleep", "1000"]).ok();
    let of = |pid: &str| read(format!("/proc/{pid}/cgroup").as_ref());
    assert_eq!(of(&read(file.as_ref())), of(&container.pid().to_string()));
    assert_ne!(of(&read(file.as_ref())), of("self"));
    Pass
}

/// The container's process object with an edit, in a file.
fn process_file(ctx: &Ctx, edit: impl FnOnce(&mut Value)) -> String {
    let mut process = ctx.config()["process"].take();
    edit(&mut process);
    fs::write(ctx.path("process.json"), process.to_string()).unwrap();
    ctx.path("process.json")
}
