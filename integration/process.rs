//! The program itself: identity, rights, limits, environment, and the state in which it begins.

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, status};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        no_new_privileges_is_as_configured,
        umask_is_set,
        umask_defaults_to_0022,
        rlimits_are_set,
        an_unknown_rlimit_is_refused,
        a_duplicate_rlimit_is_refused,
        the_oom_score_is_set,
        the_oom_score_is_left_alone_by_default,
        the_environment_is_exactly_the_configured_one,
        home_comes_from_passwd,
        the_working_directory_is_entered,
        the_working_directory_is_made,
        a_relative_working_directory_is_refused,
        the_program_is_searched_in_the_container_s_path,
        arguments_arrive_as_they_are,
        a_program_not_in_path_says_so,
        a_missing_program_says_so,
        a_program_without_permission_says_so,
        a_directory_is_no_program,
        empty_arguments_are_refused,
        signals_start_from_a_clean_slate,
        no_descriptor_leaks_in,
        preserved_descriptors_arrive,
        a_preserved_descriptor_that_is_closed_is_refused,
        listen_fds_are_passed_on,
        listen_fds_of_another_process_are_not,
        a_session_keyring_of_its_own,
        the_program_leads_a_session,
        a_script_runs_by_its_interpreter,
        a_personality_is_set,
    }
    Root {
        what_procfs_takes_is_set_in_a_user_namespace,
        user_and_groups_are_exact,
        no_groups_by_default,
        capabilities_of_root_are_exact,
        capabilities_of_a_user_are_exact,
        each_capability_set_is_its_own,
        no_capabilities_at_all,
        an_unknown_capability_is_a_warning,
        scheduler_and_io_priority_are_set,
        a_working_directory_of_another_user_is_entered,
    }
}

const STATUS: &str = "cat /proc/self/status";

fn no_new_privileges_is_as_configured(ctx: &Ctx) -> Outcome {
    for wanted in [true, false] {
        let output = ctx.sh_with(STATUS, |c| c["process"]["noNewPrivileges"] = json!(wanted));
        assert_eq!(status(&output, "NoNewPrivs"), if wanted { "1" } else { "0" });
    }
    let absent = ctx.sh_with(STATUS, |c| {
        c["process"].as_object_mut().unwrap().remove("noNewPrivileges");
    });
    assert_eq!(status(&absent, "NoNewPrivs"), "0");
    Pass
}

fn umask_is_set(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh_with("umask", |c| c["process"]["user"]["umask"] = json!(0o27)), "0027\n");
    assert_eq!(ctx.sh_with("umask", |c| c["process"]["user"]["umask"] = json!(0)), "0000\n");
    Pass
}

fn umask_defaults_to_0022(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "umask")));
    assert_eq!(container.run_command(&[]).after("umask 077").run().ok().text(), "0022");
    Pass
}

fn rlimits_are_set(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("grep -e 'open files' -e 'core file' -e 'processes' /proc/self/limits", |c| {
        c["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 200, "hard": 300 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 500, "hard": 600 }
        ]);
    });
    let rows: Vec<Vec<&str>> = output.lines().map(|line| line[26..].split_whitespace().take(2).collect()).collect();
    assert_eq!(rows, [["0", "0"], ["500", "600"], ["200", "300"]]);
    Pass
}

fn an_unknown_rlimit_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1 }]))
        .exits(1)
        .refused("RLIMIT_NONSENSE");
    Pass
}

fn a_duplicate_rlimit_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no peer enforces it");
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 });
    ctx.run(|c| c["process"]["rlimits"] = json!([limit, limit])).exits(1).refused("RLIMIT_NOFILE");
    Pass
}

fn the_oom_score_is_set(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("cat /proc/self/oom_score_adj", |c| c["process"]["oomScoreAdj"] = json!(500));
    assert_eq!(output.trim(), "500");
    Pass
}

/// In a namespace whose root is another user of the host's: what is written to procfs about the process is the host's.
fn what_procfs_takes_is_set_in_a_user_namespace(ctx: &Ctx) -> Outcome {
    let edit = |c: &mut Value| {
        c["process"]["oomScoreAdj"] = json!(77);
        config::namespace(c, "time", None);
        c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 100_000_000 } });
        let map = json!([config::id_map(0, 200_000, 1000)]);
        config::in_user_namespace(c, map.clone(), map);
    };
    let bundle = ctx.bundle(|c| {
        config::shell(c, "cat /proc/self/oom_score_adj; cut -d. -f1 /proc/uptime; cat /proc/self/uid_map");
        edit(c);
    });
    ctx.host(&["chown", "-R", "200000:200000", bundle.rootfs("/").to_str().unwrap()]).ok();
    let output = ctx.container(bundle).run().ok();
    let words: Vec<u64> = output.stdout.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(words[0] == 77 && words[1] > 100_000_000 && words[2..] == [0, 200_000, 1000], "{output}");
    let container = ctx.running(edit);
    assert_eq!(container.sh("cat /proc/self/oom_score_adj /proc/1/oom_score_adj"), "77\n77");
    Pass
}

fn the_oom_score_is_left_alone_by_default(ctx: &Ctx) -> Outcome {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(ctx.sh("cat /proc/self/oom_score_adj").ok().stdout, own);
    Pass
}

fn the_environment_is_exactly_the_configured_one(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| {
        c["process"]["args"] = json!(["env"]);
        c["process"]["env"] = json!(["B=1", "PATH=/bin", "EMPTY=", "A=x=y z", "HOME=/data"]);
    }));
    let output = container.run_command(&[]).env("SECRET", "of the caller").run().ok();
    assert_eq!(output.lines(), ["B=1", "PATH=/bin", "EMPTY=", "A=x=y z", "HOME=/data"]);
    Pass
}

fn home_comes_from_passwd(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh("echo $HOME").ok().text(), "/root");
    if ctx.uid() == 0 {
        let output = ctx.sh_with("echo $HOME", |c| c["process"]["user"] = json!({ "uid": 4321, "gid": 1 }));
        assert_eq!(output.trim(), "/");
    }
    Pass
}

fn the_working_directory_is_entered(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh_with("pwd", |c| c["process"]["cwd"] = json!("/tmp")), "/tmp\n");
    Pass
}

fn the_working_directory_is_made(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh_with("pwd", |c| c["process"]["cwd"] = json!("/made/by/runtime")), "/made/by/runtime\n");
    Pass
}

fn a_relative_working_directory_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["process"]["cwd"] = json!("tmp")).exits(1).refused("absolute");
    Pass
}

fn the_program_is_searched_in_the_container_s_path(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| {
        c["process"]["args"] = json!(["mine"]);
        c["process"]["env"] = json!(["PATH=/nowhere:/data:/bin"]);
    }));
    script(&container.bundle.rootfs("/data/mine"), 0o755);
    assert_eq!(container.run().ok().text(), "script");
    Pass
}

fn arguments_arrive_as_they_are(ctx: &Ctx) -> Outcome {
    let args = json!(["printf", "[%s]", "two words", "", "$HOME", "*", "-x", "\u{e9}"]);
    assert_eq!(ctx.run(|c| c["process"]["args"] = args).ok().text(), "[two words][][$HOME][*][-x][\u{e9}]");
    Pass
}

fn a_program_not_in_path_says_so(ctx: &Ctx) -> Outcome {
    let text = "\"no-such-program\\\": executable file not found in $PATH";
    let output = ctx.run(|c| c["process"]["args"] = json!(["no-such-program"])).exits(1);
    assert!(output.stderr.replace("\\\"", "\"").contains(&text.replace("\\\"", "\"")), "{output}");
    Pass
}

fn a_missing_program_says_so(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["process"]["args"] = json!(["/no/such/program"])).exits(1).refused("no such file or directory");
    Pass
}

fn a_program_without_permission_says_so(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["process"]["args"] = json!(["/etc/passwd"])).exits(1).refused("permission denied");
    Pass
}

fn a_directory_is_no_program(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| c["process"]["args"] = json!(["/etc"])).exits(1);
    // Docker makes exit status 126 of these words.
    assert!(output.stderr.contains("permission denied"), "{output}");
    Pass
}

fn empty_arguments_are_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["process"]["args"] = json!([])).exits(1).refused("args");
    Pass
}

fn signals_start_from_a_clean_slate(ctx: &Ctx) -> Outcome {
    // Not by a shell, which has ideas of its own about signals.
    let container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["cat", "/proc/self/status"])));
    let output = container.run_command(&[]).after("trap '' PIPE USR1 HUP").run().ok();
    ctx.assert_clean_signals(&output.stdout);
    Pass
}

fn no_descriptor_leaks_in(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "ls /proc/$$/fd; true")));
    let output = container.run_command(&[]).after("exec 9</etc 11</etc/passwd").run().ok();
    assert_eq!(output.lines(), ["0", "1", "2"]);
    Pass
}

fn preserved_descriptors_arrive(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "cat <&3; cat <&4; ls /proc/$$/fd; true")));
    let open = format!("echo three > {0}3; echo four > {0}4; exec 3<{0}3 4<{0}4 9</etc", ctx.path("file"));
    let output = container.run_command(&["--preserve-fds", "2"]).after(&open).run().ok();
    assert_eq!(output.lines(), ["three", "four", "0", "1", "2", "3", "4"]);
    Pass
}

fn a_preserved_descriptor_that_is_closed_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not look");
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "exit 0")));
    container.run_command(&["--preserve-fds", "2"]).after("exec 3</etc 4<&-").run().exits(1);
    Pass
}

fn listen_fds_are_passed_on(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "cat <&3; echo $LISTEN_FDS $LISTEN_PID")));
    let open = format!("echo three > {0}; exec 3<{0}; export LISTEN_FDS=1 LISTEN_PID=$$", ctx.path("file"));
    assert_eq!(container.run_command(&[]).after(&open).run().ok().lines(), ["three", "1 1"]);
    Pass
}

/// sd_listen_fds(3): the variables are about the process that LISTEN_PID names.
fn listen_fds_of_another_process_are_not(ctx: &Ctx) -> Outcome {
    let script = "ls /proc/self/fd/3 2>&1 | grep -c 'No such'; echo fds=$LISTEN_FDS pid=$LISTEN_PID names=$LISTEN_FDNAMES";
    let container = ctx.container(ctx.bundle(|c| config::shell(c, script)));
    let open = |pid| format!("exec 3</etc; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID={pid}");
    if ctx.is_rt() {
        assert_eq!(container.run_command(&[]).after(&open("1")).run().ok().lines()[1], "fds= pid= names=");
    }
    let output = container.run_command(&[]).after(&open("$$")).run().ok();
    assert_eq!(output.lines()[1], "fds=1 pid=1 names=web", "{output}");
    Pass
}

/// keyrings(7): it is called as engines expect; with the flag it is the caller's, whose name is another.
fn a_session_keyring_of_its_own(ctx: &Ctx) -> Outcome {
    if !std::path::Path::new("/proc/keys").exists() {
        return Skip("this kernel shows no keys".to_owned());
    }
    let container = ctx.container(ctx.bundle(|c| {
        c["linux"]["maskedPaths"] = json!([]);
        config::shell(c, "cat /proc/keys");
    }));
    let name = format!("_ses.{}", container.id);
    let output = container.run().ok();
    assert!(output.stdout.contains(&name), "{name}: {output}");
    let output = container.run_command(&["--no-new-keyring"]).run().ok();
    assert!(!output.stdout.contains(&name), "{name}: {output}");
    Pass
}

/// Without a session of its own the program could reach into the caller's terminal.
fn the_program_leads_a_session(ctx: &Ctx) -> Outcome {
    let output = ctx.sh("cut -d' ' -f5-6 /proc/1/stat").ok();
    assert_eq!(output.text(), "1 1", "process group and session");
    Pass
}

fn a_script_runs_by_its_interpreter(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["/data/script"])));
    script(&container.bundle.rootfs("/data/script"), 0o755);
    assert_eq!(container.run().ok().text(), "script");
    Pass
}

fn a_personality_is_set(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know it");
    assert_eq!(ctx.sh_with("uname -m", |c| c["linux"]["personality"] = json!({ "domain": "LINUX32" })), "i686\n");
    Pass
}

fn user_and_groups_are_exact(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with(STATUS, |c| c["process"]["user"] = json!({ "uid": 1000, "gid": 2000, "additionalGids": [5, 7] }));
    assert_eq!(status(&output, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(status(&output, "Gid"), "2000\t2000\t2000\t2000");
    assert_eq!(status(&output, "Groups"), "5 7");
    Pass
}

fn no_groups_by_default(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        config::shell(c, STATUS);
    }));
    let argv = ["setpriv", "--groups", "4,24", ctx.runtime().to_str().unwrap(), "--root", &ctx.path("state")];
    let output = ctx.command(&[&argv[..], &["run", "-b", container.bundle.path(), &container.id]].concat()).run().ok();
    assert_eq!(status(&output.stdout, "Groups"), "");
    Pass
}

/// The masks of `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`.
fn masks(text: &str) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|key| u64::from_str_radix(&status(text, key), 16).unwrap())
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;

fn capabilities_of_root_are_exact(ctx: &Ctx) -> Outcome {
    for nnp in [true, false] {
        let output = ctx.sh_with(STATUS, |c| {
            c["process"]["noNewPrivileges"] = json!(nnp);
            let (bounding, permitted) = (json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]), json!(["CAP_CHOWN", "CAP_KILL"]));
            c["process"]["capabilities"] = json!({ "bounding": bounding, "permitted": permitted, "effective": permitted });
        });
        // `cat` is executed by a shell of uid 0, which the kernel gives all of the bounding set (unless that is forbidden).
        let [inheritable, permitted, effective, bounding, ambient] = masks(&output);
        assert_eq!((inheritable, bounding, ambient), (0, CHOWN | KILL | NET_RAW, 0));
        assert_eq!(permitted, effective);
    }
    Pass
}

fn capabilities_of_a_user_are_exact(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with(STATUS, |c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        config::capabilities(c, &["CAP_CHOWN", "CAP_KILL"]);
    });
    assert_eq!(masks(&output), [CHOWN | KILL; 5], "ambient capabilities survive the exec of a user");
    let output = ctx.sh_with(STATUS, |c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(masks(&output), [0, 0, 0, 0xa804_25fb, 0], "the default list, without ambient ones, leaves nothing to a user");
    Pass
}

fn each_capability_set_is_its_own(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with(STATUS, |c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        c["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "ambient": ["CAP_KILL"]
        });
    });
    // After execve by a user, permitted and effective are what was ambient.
    assert_eq!(masks(&output), [CHOWN | KILL, KILL, KILL, CHOWN | KILL | NET_RAW, KILL]);
    Pass
}

fn no_capabilities_at_all(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with(STATUS, |c| c["process"]["capabilities"] = json!({}));
    assert_eq!(masks(&output), [0; 5]);
    Pass
}

fn an_unknown_capability_is_a_warning(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, STATUS);
        config::capabilities(c, &["CAP_CHOWN", "CAP_NONSENSE"]);
    });
    assert!(output.code == 0 && output.stderr.contains("CAP_NONSENSE"), "{output}");
    assert_eq!(masks(&output.stdout)[3], CHOWN);
    Pass
}

fn scheduler_and_io_priority_are_set(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know them");
    let output = ctx.sh_with("cut -d' ' -f41 /proc/1/stat; ionice -p 1; cut -d' ' -f19 /proc/1/stat", |c| {
        c["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    });
    assert_eq!(output.lines().collect::<Vec<_>>(), ["3", "best-effort: prio 6", "5"]);
    Pass
}

/// The folder belongs to the user of the process and is closed to root without CAP_DAC_OVERRIDE.
fn a_working_directory_of_another_user_is_entered(ctx: &Ctx) -> Outcome {
    use std::os::unix::fs::{PermissionsExt, chown};
    let container = ctx.container(ctx.bundle(|c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        c["process"]["cwd"] = json!("/data");
        config::shell(c, "pwd");
    }));
    let home = container.bundle.rootfs("/data");
    chown(&home, Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(container.run().ok().text(), "/data");
    Pass
}

/// A script that says so.
fn script(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, "#!/bin/sh\necho script\n").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
