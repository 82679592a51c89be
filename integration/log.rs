//! Where records go, which ones, and what the flags before the command do.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::config;
use crate::ctx::{Cmd, Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        records_reach_the_journal,
        records_reach_syslog,
        a_reader_that_hangs_stops_nothing,
        a_level_says_which_records_there_are,
        without_a_manager_of_control_groups_the_container_stays,
        short_forms_of_youki,
    }
    Root { the_manager_may_be_said_in_two_ways }
}

/// A command of the runtime with a mount namespace of its own, in which the socket is the journal's and that of syslog.
fn with_socket<'c>(ctx: &'c Ctx<'c>, socket: &str, arguments: &[&str]) -> Cmd<'c> {
    let root = ctx.path("state");
    let (unshare, busybox) = (if ctx.uid() == 0 { "-m" } else { "-mUr" }, ctx.path("../busybox"));
    // /dev itself stays, and what of it is needed: only the name of the socket is new.
    let prepare = "b=$0; s=$1; shift; mkdir -p $1; shift
        $b mount -t tmpfs t /run && $b mkdir -p /run/systemd/journal && $b ln -s $s /run/systemd/journal/socket || exit 99
        $b mkdir /run/dev && for f in null zero full random urandom tty; do
            : > /run/dev/$f; $b mount -o bind /dev/$f /run/dev/$f; done
        $b ln -s $s /run/dev/log && $b mount -o rbind /run/dev /dev || exit 98
        exec \"$@\"";
    let runtime = ctx.runtime().to_str().unwrap().to_owned();
    let mut argv =
        vec![busybox.as_str(), "unshare", unshare, "sh", "-c", prepare, &busybox, socket, &root, &runtime, "--root", &root];
    argv.extend(arguments);
    ctx.command(&argv)
}

fn received(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 8192];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn listener(ctx: &Ctx) -> (UnixDatagram, String) {
    let path = ctx.socket_path();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    (socket, path)
}

fn records_reach_the_journal(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such target");
    let (socket, path) = listener(ctx);
    for flags in [&["--log", "journald:me"][..], &["--systemd-log"], &["--systemd-log", "--log", "journald:me"]] {
        let output = with_socket(ctx, &path, &[flags, &["state", "nobody"]].concat()).run();
        let output = output.exits(1).refused("container does not exist");
        assert!(!output.stderr.contains("open the log"), "{output}");
        for flag in flags.iter().filter(|flag| **flag != "--log") {
            let record = received(&socket).unwrap();
            let fields: Vec<&str> = record.lines().collect();
            let name = if *flag == "journald:me" { "SYSLOG_IDENTIFIER=me" } else { "SYSLOG_IDENTIFIER=rt" };
            assert_eq!(
                fields[..2],
                ["MESSAGE=state nobody: container nobody: container does not exist", "PRIORITY=3"],
                "{record}"
            );
            assert!(flags.len() == 3 || fields.contains(&name), "{record}");
            assert!(fields.contains(&"RT_CODE=not-found"), "{record}");
        }
        assert_eq!(received(&socket), None, "one record for each target");
    }
    with_socket(ctx, &path, &["--log", "journald:me", "list"]).run().ok();
    assert_eq!(received(&socket), None, "a success is no record");
    // What is wrong with the command line is a record, too.
    with_socket(ctx, &path, &["--systemd-log", "state"]).run().exits(1);
    assert!(received(&socket).unwrap().contains("missing: <ID>"));
    Pass
}

fn records_reach_syslog(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such target");
    let (socket, path) = listener(ctx);
    with_socket(ctx, &path, &["--log", "syslog:me", "state", "nobody"]).run().exits(1).refused("container does not exist");
    let record = received(&socket).unwrap();
    // LOG_USER and LOG_ERR (syslog(3)).
    let number = record.strip_prefix("<11>me[").unwrap().split(']').next().unwrap();
    assert!(number.parse::<u32>().is_ok(), "{record}");
    assert!(record.ends_with("]: state nobody: container nobody: container does not exist"), "{record}");
    Pass
}

/// The queue of the socket is full and nobody reads: the container is made, and what nobody has taken is on standard error.
fn a_reader_that_hangs_stops_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such target");
    let (_socket, path) = listener(ctx);
    // One socket may have less room for what it sends than the queue has (net.unix.max_dgram_qlen).
    loop {
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        if filler.send_to(b"full", &path).is_err() {
            break;
        }
        while filler.send_to(b"full", &path).is_ok() {}
    }
    let bundle = ctx.bundle(|c| {
        config::shell(c, "echo ran");
        config::mount(c, "tmpfs", "tmpfs", "/data", &["mand"]);
    });
    let started = Instant::now();
    for target in ["journald:me", "syslog:me"] {
        let id = ctx.fresh("full");
        let output = with_socket(ctx, &path, &["--log", target, "run", "--bundle", bundle.path(), &id]).run();
        if ctx.uid() != 0 && output.code != 0 {
            return Skip("a user namespace in a user namespace is more than this test prepares".to_owned());
        }
        let output = output.ok();
        assert_eq!(output.stdout, "ran\n");
        assert!(output.stderr.contains("rt: warning: ") && output.stderr.contains("mand"), "{output}");
    }
    assert!(started.elapsed() < Duration::from_secs(5) * crate::ctx::slowness());
    Pass
}

fn a_level_says_which_records_there_are(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has --debug only");
    for (flags, levels) in [
        (&["--log-level", "error"][..], &[][..]),
        (&[], &["warning"]),
        (&["--log-level", "warning"], &["warning"]),
        (&["--log-level=info"], &["warning"]),
        (&["--log-level", "debug"], &["debug", "warning"]),
        (&["--debug"], &["debug", "warning"]),
        // As runc has it: the switch wins.
        (&["--debug", "--log-level", "error"], &["debug", "warning"]),
    ] {
        let log = ctx.path(&ctx.fresh("log"));
        let bundle = ctx.bundle(|c| {
            config::shell(c, "true");
            c["process"]["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_UNHEARD_OF"));
        });
        let id = ctx.fresh("level");
        let target = format!("file:{log}");
        let run = ["--log", &target, "--log-format", "json", "run", "--bundle", bundle.path(), &id];
        let output = ctx.rt(&[flags, &run[..]].concat()).ok();
        assert_eq!(output.stderr, "", "{flags:?}: there is a log");
        let records = read(Path::new(&log));
        for level in ["debug", "info", "warning", "error"] {
            let there = records.contains(&format!("\"level\":\"{level}\""));
            assert_eq!(there, levels.contains(&level), "{flags:?} {level}: {records}");
        }
        // Without a log the same goes to standard error.
        let output = ctx.rt(&[flags, &["run", "--bundle", bundle.path(), &ctx.fresh("level")]].concat()).ok();
        assert_eq!(output.stderr.contains("rt: warning: "), levels.contains(&"warning"), "{flags:?} {output}");
        assert_eq!(output.stderr.contains(" level=debug msg="), levels.contains(&"debug"), "{flags:?} {output}");
    }
    Pass
}

fn without_a_manager_of_control_groups_the_container_stays(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the flag is crun's");
    let bundle = ctx.bundle(|c| {
        config::shell(c, "cat /proc/self/cgroup");
        config::without_namespace(c, "cgroup");
        c["linux"]["resources"] = json!({ "pids": { "limit": 37 } });
    });
    let id = ctx.fresh("unmanaged");
    let output = ctx.rt(&["--cgroup-manager", "disabled", "run", "--bundle", bundle.path(), &id]).ok();
    assert_eq!(output.stdout, read(Path::new("/proc/self/cgroup")));
    assert!(output.stderr.contains("linux.resources: not set: control groups are disabled (--cgroup-manager)"), "{output}");
    let log = ctx.path("log");
    ctx.rt(&["--strict", "--log", &log, "--cgroup-manager=disabled", "run", "--bundle", bundle.path(), &id]).exits(1);
    Pass
}

/// `-r`, `-s`, `-p` and `-c`, and `completion -s`.
fn short_forms_of_youki(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the short forms are youki's");
    let (other, pid_file) = (ctx.path("other"), ctx.path("pid"));
    let container = ctx.container(ctx.bundle(|_| {}));
    let runtime = ctx.runtime().to_str().unwrap();
    ctx.command(&[runtime, "-r", &other, "create", "-p", &pid_file, "-b", container.bundle.path(), &container.id]).run().ok();
    let state = ctx.command(&[runtime, "--root", &other, "state", &container.id]).run().ok().json();
    assert_eq!(read(pid_file.as_ref()), state["pid"].to_string());
    ctx.command(&[runtime, "-root", &other, "delete", "-f", &container.id]).run().ok();
    container.bundle.edit(|c| c["process"]["terminal"] = json!(true));
    let socket = ctx.socket_path();
    let terminal = ctx.command(&[ctx.probe(), "recvtty".to_owned(), socket.clone()]).spawn();
    ctx.wait_until("the socket is there", || Path::new(&socket).exists());
    container.bundle.edit(|c| config::shell(c, "tty"));
    ctx.rt(&["run", "-d", "-c", &socket, "-b", container.bundle.path(), &container.id]).ok();
    assert!(terminal.wait().ok().stdout.contains("/dev/pts/0"));
    for form in [&["-s"][..], &["--shell"], &[]] {
        let script = ctx.rt(&[&["completion"], form, &["fish"]].concat()).ok();
        assert!(script.stdout.contains("complete"), "{script}");
    }
    ctx.rt(&["completion"]).exits(1).refused("completion: missing: <SHELL>");
    Pass
}

/// `--systemd-cgroup`, `-s` and `--cgroup-manager systemd` are one: without systemd all are refused with the same words.
fn the_manager_may_be_said_in_two_ways(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the flag is crun's");
    if fs::metadata("/run/systemd/system").is_ok() {
        return Skip("systemd runs here, and has tests of its own".to_owned());
    }
    let mut said = Vec::new();
    for flags in [&["--systemd-cgroup"][..], &["-s"], &["--cgroup-manager", "systemd"], &["--cgroup-manager=systemd"]] {
        let bundle = ctx.bundle(|c| c["linux"]["cgroupsPath"] = json!("system.slice:rt:same"));
        let output = ctx.rt(&[flags, &["create", "--bundle", bundle.path(), "same"]].concat()).exits(1);
        said.push(output.stderr.replace(bundle.path(), ""));
    }
    assert!(said.iter().all(|text| *text == said[0]) && said[0].contains("systemd"), "{said:?}");
    // The last word is that of the newer flag.
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "true")));
    ctx.rt(&["--systemd-cgroup", "--cgroup-manager", "cgroupfs", "run", "--bundle", container.bundle.path(), &container.id]).ok();
    Pass
}
