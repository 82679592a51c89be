//! How exec gets into a container and its launcher out again: what holds it up, what goes wrong on the way, and what of it is to be seen from
//! inside.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::config;
use crate::crash::{has_strace, needs_strace};
use crate::ctx::{Container, Ctx, Output, read};
use crate::hierarchy::apart;
use crate::hostile::foreign;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        a_relative_pid_file_is_the_caller_s,
        an_own_descriptor_is_not_preserved,
        what_others_say_in_init_s_place_does_not_count,
    }
    Root {
        a_caller_in_a_dead_filesystem_gets_in,
        a_caller_with_capabilities_and_another_id_gets_in,
        who_cannot_come_back_says_so_and_leaves_nobody,
        a_container_that_ends_meanwhile_is_named,
        who_is_on_the_way_in_shows_nothing,
        an_init_that_is_made_shows_nothing_to_others,
        mounts_of_the_payload_mislead_nobody,
    }
}

/// `exec` with the launcher under strace.
fn traced(container: &Container, ctx: &Ctx, strace: &[&str], flags: &[&str], command: &[&str]) -> crate::ctx::Running {
    let root = ctx.path("state");
    let mut argv = vec!["strace", "-o", "/dev/null"];
    argv.extend(strace);
    argv.extend([ctx.runtime().to_str().unwrap(), "--root", &root, "exec"]);
    argv.extend(flags);
    argv.push(&container.id);
    argv.extend(command);
    ctx.command(&argv).spawn()
}

fn a_relative_pid_file_is_the_caller_s(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let folder = ctx.host_dir("here", "other", "");
    container.exec_command(&["--detach", "--pid-file", "../here/pid"], &["sleep", "1000"]).cwd(folder.as_ref()).run().ok();
    let pid = read(&Path::new(&folder).join("pid"));
    assert_eq!(read(format!("/proc/{pid}/cmdline").as_ref()), "sleep\x001000\0");
    Pass
}

/// The log is open by the time that the number is looked at, and has the lowest one that is free.
fn an_own_descriptor_is_not_preserved(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not look");
    let (log, root) = (ctx.path("log"), ctx.path("state"));
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "echo forged >&3")));
    let runtime = ctx.runtime().to_str().unwrap();
    let argv = [
        runtime,
        "--root",
        &root,
        "--log",
        &log,
        "run",
        "--preserve-fds",
        "1",
        "--bundle",
        container.bundle.path(),
        &container.id,
    ];
    ctx.command(&argv).after("exec 3<&-").run().exits(1).refused("descriptor 3 is not open");
    assert!(!read(log.as_ref()).contains("forged"), "{}", read(log.as_ref()));
    Pass
}

/// A program that is in the container before it is started may reach the fifo on which init says why it failed. What it writes there
/// neither holds start up nor is believed.
fn what_others_say_in_init_s_place_does_not_count(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others have other fifos");
    let lie = r#"echo '{"reason":"a lie","origin":"hooks.poststart"}'"#;
    for speech in ["cat /dev/zero", "while :; do echo x; sleep 0.05; done", lie] {
        let container = ctx.create(|c| {
            for set in ["bounding", "effective", "permitted"] {
                c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
            }
        });
        let find = r#"for f in /proc/1/fd/*; do case $(readlink $f) in *exec.fifo) exec 9>$f;; esac; done"#;
        // It waits for a reader, as init does.
        container
            .exec(&["--detach"], &["sh", "-c", &format!("echo > /here; {find}; exec >&9; {speech}; echo > /said; sleep 1000")])
            .ok();
        ctx.wait_until("somebody else is at the fifo", || container.bundle.rootfs("/here").exists());
        std::thread::sleep(Duration::from_millis(100));
        ctx.rt_command(&["start", &container.id]).after("ulimit -v 1000000").run().ok();
        assert_eq!(container.status(), "running", "{speech}");
    }
    Pass
}

/// Its working directory answers nothing but errors, and nobody needs it.
fn a_caller_in_a_dead_filesystem_gets_in(ctx: &Ctx) -> Outcome {
    apart(
        ctx,
        || Ok(()),
        |ctx| {
            let Some((server, folder)) = foreign(ctx, "lies") else { return Skip("there is no FUSE here".to_owned()) };
            let container = ctx.running(|_| {});
            let there = format!("cd {folder}; kill -KILL {}; sleep 0.3", server.pid());
            let output = container.exec_command(&[], &["pwd"]).after(&there).run();
            assert_eq!(output.ok().text(), "/");
            drop(server);
            ctx.host(&["umount", "-l", &folder]).ok();
            Pass
        },
    )
}

/// The files in procfs of a process that hides itself are root's.
fn a_caller_with_capabilities_and_another_id_gets_in(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "not looked at");
    let container = ctx.container(ctx.bundle(|c| {
        c["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
        c["process"]["oomScoreAdj"] = json!(321);
        config::capabilities(c, &["CAP_KILL"]);
    }));
    let root = ctx.path("state");
    fs::create_dir(&root).unwrap();
    std::os::unix::fs::chown(&root, Some(1000), Some(1000)).unwrap();
    let rt = format!("{} --root {root}", ctx.runtime().display());
    let (id, bundle) = (&container.id, container.bundle.path());
    let most =
        ["sys_admin", "sys_chroot", "sys_ptrace", "setuid", "setgid", "setpcap", "kill", "chown", "fowner", "mknod", "net_admin"];
    let all: String = most.iter().map(|name| format!(",+{name}")).collect();
    let other = format!("setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all{all} --ambient-caps=-all{all}");
    let script = format!(
        "umount -R /sys/fs/cgroup; {other} {rt} create --bundle {bundle} {id} && {other} {rt} start {id} \
         && {other} {rt} exec {id} cat /proc/self/oom_score_adj; code=$?; {rt} delete --force {id}; exit $code"
    );
    if ctx.command(&["setpriv", "--version"]).run().code != 0 {
        return Skip("setpriv is not installed".to_owned());
    }
    let output = ctx.command(&["unshare", "--mount", "sh", "-c", &script]).run().ok();
    assert_eq!(output.text(), "321");
    Pass
}

fn who_cannot_come_back_says_so_and_leaves_nobody(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    let container = ctx.running(|_| {});
    let mut refused = 0;
    // The first call enters, those after it return. The error is one that means something else where a process is born.
    for number in 1..=6 {
        let inject = format!("inject=setns:error=EACCES:when={number}");
        let output: Output = traced(&container, ctx, &["-e", "trace=setns", "-e", &inject], &[], &["true"]).wait();
        let said = if number == 1 { "join the container's namespaces" } else { "return to the own" };
        if output.code != 0 {
            refused += 1;
            output.exits(255).refused(said);
        }
        let processes = ctx.rt(&["ps", "--format", "json", &container.id]).ok().json();
        assert_eq!(processes.as_array().map(Vec::len), Some(1), "{inject}");
    }
    assert!(refused > 4, "{refused}");
    container.exec(&[], &["true"]).ok();
    Pass
}

/// Whichever step notices it, with whichever error of the kernel's.
fn a_container_that_ends_meanwhile_is_named(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    for (call, number) in [("setns", 1), ("clone3", 1), ("setns", 2), ("sendmsg", 1)] {
        let container = ctx.running(|_| {});
        let inject = format!("inject={call}:delay_enter=1500000:when={number}");
        let exec = traced(&container, ctx, &["-e", &format!("trace={call}"), "-e", &inject], &[], &["true"]);
        std::thread::sleep(Duration::from_millis(1000));
        container.kill("KILL").ok();
        let output = exec.wait().exits(255).refused("the container has ended meanwhile");
        assert!(!output.stderr.contains("hint:"), "{output}");
    }
    Pass
}

/// CVE-2016-9962, with time to look: exec stands still for a while when it has just been born, when it takes on its user, and when it has.
fn who_is_on_the_way_in_shows_nothing(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    // What is read has to be of the process that was meant, not of the program that it has become meanwhile.
    let script = r#"is_rt() { read -r name 2>/dev/null < $1/comm && case $name in rt*) true;; *) false;; esac; }
        got() { is_rt $p && echo GOT $1; }
        while :; do for p in /proc/[0-9]*; do is_rt $p || continue; echo seen
            readlink $p/fd/* >/dev/null && got descriptors
            ls $p/root/ >/dev/null && got root
            (cd $p/cwd) && got cwd
            readlink $p/exe >/dev/null && got exe
            readlink $p/ns/mnt >/dev/null && got namespaces
            head -c 1 $p/environ | grep -q . && got environment
            head -c 1 $p/maps | grep -q . && got memory
        done; done 2>/dev/null >"#;
    let container = ctx.running(|_| {});
    fs::create_dir(container.bundle.rootfs("/seen")).unwrap();
    fs::set_permissions(container.bundle.rootfs("/seen"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    for user in ["0", "1000"] {
        container.exec(&["--detach", "--user", user], &["sh", "-c", &format!("{script} /seen/{user}")]).ok();
    }
    for user in ["0:0", "1000:1000"] {
        for call in ["prctl", "setresuid", "faccessat2"] {
            let inject = format!("inject={call}:delay_enter=300000:when=1");
            let before = read(&container.bundle.rootfs("/seen/1000")).len();
            traced(&container, ctx, &["-f", "-e", &format!("trace={call}"), "-e", &inject], &["--user", user], &["true"])
                .wait()
                .ok();
            let seen = [read(&container.bundle.rootfs("/seen/0")), read(&container.bundle.rootfs("/seen/1000"))].concat();
            assert!(!seen.contains("GOT"), "at {call} as {user}: {}", seen.replace("seen\n", ""));
            assert!(read(&container.bundle.rootfs("/seen/1000")).len() > before, "nobody was seen at {call} as {user}");
        }
    }
    Pass
}

/// The same for `create`, and somebody in another container, without a pid namespace, who sees all processes and has the rights that
/// engines give: enough, if init were dumpable, for what root has put into a user namespace, and for whoever has dropped all other rights.
fn an_init_that_is_made_shows_nothing_to_others(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    let script = r#"is_init() { read -r name 2>/dev/null < $1/comm && case $name in rt*) grep -q being-made $1/cmdline;; *) false;; esac; }
        got() { is_init $p && echo GOT $1; }
        while :; do for p in /proc/[0-9]*; do is_init $p || continue; echo seen
            readlink $p/fd/* >/dev/null && got descriptors
            ls $p/root/ >/dev/null && got root
            (cd $p/cwd) && got cwd
        done; done 2>/dev/null > /seen"#;
    let watcher = ctx.running(|c| {
        config::shell(c, script);
        config::without_namespace(c, "pid");
    });
    let seen = watcher.bundle.rootfs("/seen");
    ctx.wait_until("somebody watches", || seen.exists());
    for (mapped, call) in [(None, "faccessat2"), (Some(0), "fsopen"), (Some(100_000), "fsopen"), (Some(100_000), "faccessat2")] {
        let bundle = ctx.bundle(|c| {
            config::shell(c, "exit 0");
            if let Some(outside) = mapped {
                let ids = json!([config::id_map(0, outside, 65_536)]);
                config::in_user_namespace(c, ids.clone(), ids);
            }
        });
        let id = ctx.fresh("being-made");
        let (inject, root, before) = (format!("inject={call}:delay_enter=300000:when=1"), ctx.path("state"), read(&seen).len());
        let (runtime, trace) = (ctx.runtime().to_str().unwrap(), format!("trace={call}"));
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject, runtime, "--root", &root];
        ctx.command(&[&strace[..], &["run", "--bundle", bundle.path(), &id]].concat()).run().ok();
        let text = read(&seen);
        assert!(!text.contains("GOT"), "at {call}, mapped to {mapped:?}: {}", text.replace("seen\n", ""));
        assert!(text.len() > before, "nobody was seen at {call}");
    }
    Pass
}

/// CVE-2019-16884 and CVE-2025-52565, -52881 by exec: a payload that may mount has put its own files where exec writes and opens.
fn mounts_of_the_payload_mislead_nobody(ctx: &Ctx) -> Outcome {
    let mounts = "mount -t tmpfs none /dev/pts && echo marker > /marker && ln -s /marker /dev/pts/ptmx && ln -s /marker /dev/pts/0 \
                  && mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/self/fd /proc/thread-self && echo 0 > /proc/self/oom_score_adj \
                  && for n in 0 1 2 3 4 5 6 7 8 9; do ln -s /marker /proc/self/fd/$n; done && touch /ready && exec sleep 1000";
    let container = ctx.running(|c| {
        config::shell(c, mounts);
        c["process"]["noNewPrivileges"] = json!(false);
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
        }
    });
    ctx.wait_until("everything is covered", || container.bundle.rootfs("/ready").exists());
    let process = ctx.path("process.json");
    fs::write(&process, json!({ "args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 432, "user": { "uid": 0, "gid": 0 } }).to_string())
        .unwrap();
    let pid_file = ctx.path("pid");
    container.exec(&["--detach", "--pid-file", &pid_file, "--process", &process], &[]).ok();
    assert_eq!(read(format!("/proc/{}/oom_score_adj", read(pid_file.as_ref())).as_ref()).trim(), "432");
    assert_eq!(container.sh("cat /proc/self/oom_score_adj"), "0", "it was written to the payload's file");
    container.exec(&["--tty"], &["echo", "given"]).exits(255).refused("open a terminal");
    assert_eq!(container.sh("cat /marker"), "marker");
    Pass
}
