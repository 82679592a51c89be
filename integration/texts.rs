//! The texts and exit statuses that engines match on: one table, each row against a container in each of the statuses that it names.
//!
//! Every failure is one record of the JSON log, of level error, with a time that containerd can read, and the same text on standard error.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, Output, read};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        an_id_that_nobody_has,
        what_the_status_does_not_allow,
        an_id_that_is_in_use,
        programs_that_cannot_be_executed_by_run,
        programs_that_cannot_be_executed_by_create,
        programs_that_cannot_be_executed_by_exec,
        options_of_exec_that_are_wrong,
        bundles_that_are_not_there,
        signals_in_every_form,
        delete_force_twice_says_nothing,
        long_options_with_one_dash,
        podman_finds_the_flags_of_checkpoint,
    }
}

const NOT_FOUND: &str = "container does not exist";

/// Runs a command that must fail with this status and text, as one record.
fn fails(ctx: &Ctx, arguments: &[&str], status: i32, texts: &[&str]) -> Output {
    let log = ctx.path(&ctx.fresh("log"));
    let mut all = vec!["--log", &log, "--log-format", "json"];
    all.extend(arguments);
    let output = ctx.rt(&all);
    assert_eq!(output.code, status, "{output}");
    let written = read(log.as_ref());
    let records: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors: Vec<&Value> = records.iter().filter(|record| record["level"] == "error").collect();
    assert_eq!(errors.len(), 1, "{output}\nlog: {written}");
    let message = errors[0]["msg"].as_str().unwrap();
    for text in texts {
        assert!(message.contains(text) && output.stderr.contains(text), "{text:?} in {output}\nlog: {written}");
    }
    assert!(is_rfc3339(errors[0]["time"].as_str().unwrap()), "{written}");
    if ctx.is_rt() {
        assert_eq!(records.last(), Some(errors[0]), "the error is the last record");
        assert!(output.stderr.lines().any(|line| line.strip_prefix("rt: ") == Some(message)), "{output}\nlog: {written}");
        assert!(output.stdout.is_empty(), "{output}");
    }
    output
}

/// `2006-01-02T15:04:05`, a fraction or none, and a zone.
fn is_rfc3339(time: &str) -> bool {
    let (day, rest) = time.split_at(19.min(time.len()));
    let shape: String = day.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    shape == "0000-00-00T00:00:00" && (zone == "Z" || (zone.len() == 6 && zone.contains(':')))
}

/// Commands about one container, which is `ID`. `exec` fails with 255, all others with 1.
const ABOUT_ONE: &[&[&str]] = &[
    &["state", "ID"],
    &["start", "ID"],
    &["kill", "ID"],
    &["kill", "ID", "9"],
    &["kill", "ID", "0"],
    &["delete", "ID"],
    &["pause", "ID"],
    &["resume", "ID"],
    &["ps", "ID"],
    &["ps", "--format", "json", "ID"],
    &["events", "--stats", "ID"],
    &["update", "--pids-limit", "100", "ID"],
    &["exec", "ID", "true"],
];

fn with_id<'a>(arguments: &[&'a str], id: &'a str) -> Vec<&'a str> {
    arguments.iter().map(|word| if *word == "ID" { id } else { word }).collect()
}

fn an_id_that_nobody_has(ctx: &Ctx) -> Outcome {
    for arguments in ABOUT_ONE {
        let status = if arguments[0] == "exec" { 255 } else { 1 };
        fails(ctx, &with_id(arguments, "nobody"), status, &[NOT_FOUND]);
    }
    needs_rt!(ctx, "runc asks other questions of an ordinary user first");
    fails(ctx, &["checkpoint", "--image-path", &ctx.path("image"), "nobody"], 1, &[NOT_FOUND]);
    Pass
}

/// A container in one of the statuses.
fn in_status<'c>(ctx: &'c Ctx<'c>, status: &str) -> Container<'c> {
    let container = ctx.create(|_| {});
    if status != "created" {
        container.start().ok();
    }
    match status {
        "paused" => drop(container.verb("pause").ok()),
        "stopped" => container.stop(),
        _ => {}
    }
    container
}

/// The status, the command, its exit status, and what is said. Without a text it is only the status that counts.
const REFUSALS: &[(&str, &[&str], i32, &str)] = &[
    ("created", &["resume", "ID"], 1, "container not paused"),
    ("running", &["start", "ID"], 1, "cannot start an already running container"),
    ("running", &["delete", "ID"], 1, "running"),
    ("running", &["resume", "ID"], 1, "container not paused"),
    ("stopped", &["start", "ID"], 1, "cannot start a container that has stopped"),
    ("stopped", &["kill", "ID"], 1, "container not running"),
    ("stopped", &["kill", "ID", "9"], 1, "container not running"),
    ("stopped", &["kill", "ID", "0"], 1, "container not running"),
    ("stopped", &["pause", "ID"], 1, "container not running"),
    ("stopped", &["resume", "ID"], 1, "container not paused"),
    ("stopped", &["update", "--pids-limit", "100", "ID"], 1, "container not running"),
    ("stopped", &["events", "--stats", "ID"], 1, "not running"),
    ("stopped", &["exec", "ID", "true"], 255, "cannot exec in a stopped container"),
    ("paused", &["start", "ID"], 1, "cannot start a container in the paused state"),
    ("paused", &["pause", "ID"], 1, "container"),
    ("paused", &["delete", "ID"], 1, "paused"),
    ("paused", &["exec", "ID", "true"], 255, "cannot exec in a paused container (use --ignore-paused to override)"),
];

fn what_the_status_does_not_allow(ctx: &Ctx) -> Outcome {
    for status in ["created", "running", "stopped", "paused"] {
        if status == "paused" && ctx.uid() != 0 {
            // Without a control group of its own nothing can be paused.
            continue;
        }
        let container = in_status(ctx, status);
        for (_, arguments, code, text) in REFUSALS.iter().filter(|row| row.0 == status) {
            fails(ctx, &with_id(arguments, &container.id), *code, &[text]);
        }
        assert_eq!(container.status(), status, "nothing has changed");
        if ctx.is_rt() && matches!(status, "running" | "paused") {
            fails(ctx, &["delete", &container.id], 1, &["container still running"]);
        }
    }
    Pass
}

fn an_id_that_is_in_use(ctx: &Ctx) -> Outcome {
    for status in ["created", "running", "stopped"] {
        let container = in_status(ctx, status);
        for verb in ["create", "run"] {
            let arguments = [verb, "--bundle", container.bundle.path(), &container.id];
            fails(ctx, &arguments, 1, &["container with given ID already exists"]);
        }
        assert_eq!(container.status(), status);
    }
    Pass
}

/// What cannot be executed, and the words from which Podman and Docker make 127 and 126.
const PROGRAMS: &[(&str, &str)] = &[
    ("nothing", "exec: \"nothing\": executable file not found in $PATH"),
    ("/nothing", "exec: \"/nothing\": stat /nothing: no such file or directory"),
    ("./nothing", "no such file or directory"),
    ("/data/plain", "exec: \"/data/plain\": permission denied"),
    ("/data/plain/below", "not a directory"),
    ("/data", "permission denied"),
];

/// Only who executes it finds out.
const LATE: &[(&str, &str)] =
    &[("/data/garbage", "exec format error"), ("/data/lost", "exec: \"/data/lost\": no such file or directory")];

fn bundle_of_programs(c: &mut Value, program: &str) {
    c["process"]["args"] = json!([program, "argument"]);
}

fn lay_out(container: &Container) {
    for (name, content, mode) in [("plain", "x", 0o644), ("garbage", "garbage", 0o755), ("lost", "#!/no/such\n", 0o755)] {
        let path = container.bundle.rootfs("/data").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn programs_that_cannot_be_executed_by_run(ctx: &Ctx) -> Outcome {
    let late = LATE.iter().filter(|_| ctx.is_rt());
    for (program, text) in PROGRAMS.iter().chain(late) {
        let container = ctx.container(ctx.bundle(|c| bundle_of_programs(c, program)));
        lay_out(&container);
        fails(ctx, &["run", "--bundle", container.bundle.path(), &container.id], 1, &[text]);
        fails(ctx, &["state", &container.id], 1, &[NOT_FOUND]);
    }
    if ctx.is_rt() {
        let container = ctx.container(ctx.bundle(|c| bundle_of_programs(c, "/data")));
        fails(ctx, &["run", "--bundle", container.bundle.path(), &container.id], 1, &["is a directory"]);
    }
    Pass
}

fn programs_that_cannot_be_executed_by_create(ctx: &Ctx) -> Outcome {
    for (program, text) in PROGRAMS {
        let container = ctx.container(ctx.bundle(|c| bundle_of_programs(c, program)));
        lay_out(&container);
        fails(ctx, &["create", "--bundle", container.bundle.path(), &container.id], 1, &[text]);
        fails(ctx, &["state", &container.id], 1, &[NOT_FOUND]);
    }
    needs_rt!(ctx, "runc's start says it on the container's standard error");
    for (program, text) in LATE {
        let mut container = ctx.container(ctx.bundle(|c| bundle_of_programs(c, program)));
        lay_out(&container);
        container.create().ok();
        fails(ctx, &["start", &container.id], 1, &[text]);
    }
    Pass
}

fn programs_that_cannot_be_executed_by_exec(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    lay_out(&container);
    let late = LATE.iter().filter(|_| ctx.is_rt());
    for (program, text) in PROGRAMS.iter().chain(late) {
        // 255 is the runtime's own failure, whatever the reason: engines make 126 and 127 of the text.
        fails(ctx, &["exec", &container.id, program], 255, &[text]);
        fails(ctx, &["exec", "--detach", "--pid-file", &ctx.path("pid"), &container.id, program], 255, &[text]);
    }
    // The statuses of a program are its own.
    for status in [126, 127, 255] {
        container.exec(&[], &["sh", "-c", &format!("exit {status}")]).exits(status);
    }
    Pass
}

fn options_of_exec_that_are_wrong(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    lay_out(&container);
    for (flag, value, text) in [
        ("--user", "nobody", "nobody"),
        ("--user", "-1", ""),
        ("--cwd", "/nowhere", "no such file or directory"),
        ("--cwd", "/data/plain", "not a directory"),
        ("--cwd", "relative", "absolute path"),
        ("--process", "/nowhere", "no such file or directory"),
    ] {
        fails(ctx, &["exec", flag, value, &container.id, "true"], 255, &[text]);
    }
    fails(ctx, &["exec", &container.id], 255, &["empty"]);
    Pass
}

fn bundles_that_are_not_there(ctx: &Ctx) -> Outcome {
    let missing = "no such file or directory";
    let empty = ctx.host_dir("empty", "file", "");
    for verb in ["create", "run"] {
        fails(ctx, &[verb, "--bundle", "/nowhere", "x"], 1, &["/nowhere", missing]);
        fails(ctx, &[verb, "--bundle", &empty, "x"], 1, &["config.json"]);
        let without_root = ctx.bundle(|_| {});
        fs::remove_dir_all(without_root.rootfs("/")).unwrap();
        fails(ctx, &[verb, "--bundle", without_root.path(), "x"], 1, &["rootfs", missing]);
        let no_file = ctx.bundle(|c| config::shell(c, "exit 0"));
        fails(ctx, &[verb, "--bundle", no_file.path(), "--pid-file", "/nowhere/x", "x"], 1, &[missing]);
        fails(ctx, &[verb, "--bundle", &empty, "../x"], 1, &["invalid container ID"]);
    }
    Pass
}

fn signals_in_every_form(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| {
        config::shell(c, "for s in 10 12 15 37; do trap \"echo $s\" $s; done; echo up; while :; do sleep 0.02; done")
    });
    ctx.wait_until("the traps are set", || container.printed().contains("up"));
    let mut forms = vec![("10", 10), ("USR1", 10), ("SIGUSR1", 10), ("12", 12), ("sigusr2", 12), ("TERM", 15), ("37", 37)];
    if ctx.is_rt() {
        forms.extend([("RTMIN+3", 37), ("SIGRTMIN+3", 37)]);
    }
    for (index, (form, _)) in forms.iter().enumerate() {
        container.kill(form).ok();
        ctx.wait_until(&format!("{form} has come"), || container.printed().lines().count() == index + 2);
    }
    let came: Vec<String> = container.printed().lines().skip(1).map(str::to_owned).collect();
    assert_eq!(came, forms.iter().map(|(_, number)| number.to_string()).collect::<Vec<_>>());
    container.kill("0").ok();
    for wrong in ["NONE", "KILL9", "65", "SIG", ""] {
        fails(ctx, &["kill", &container.id, wrong], 1, &[]);
    }
    container.kill("SIGKILL").ok();
    container.wait_for("stopped");
    Pass
}

fn delete_force_twice_says_nothing(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let log = ctx.path("log");
    for _ in 0..3 {
        let output = ctx.rt(&["--log", &log, "--log-format", "json", "delete", "--force", &container.id]).ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    }
    assert_eq!(read(log.as_ref()), "");
    fails(ctx, &["delete", &container.id], 1, &[NOT_FOUND]);
    Pass
}

/// As Go's flag package has them, and with it those who write command lines for runc.
fn long_options_with_one_dash(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "exit 7")));
    let (bundle, id, pid_file) = (container.bundle.path(), container.id.as_str(), ctx.path("pid"));
    ctx.rt(&["run", "-no-subreaper", "-no-new-keyring", "-pid-file", &pid_file, "-bundle", bundle, id]).exits(7);
    assert!(read(pid_file.as_ref()).parse::<u32>().is_ok());
    ctx.rt(&["run", "-keep", &format!("-bundle={bundle}"), id]).exits(7);
    assert_eq!(container.status(), "stopped");
    ctx.rt(&["list", "-format", "json"]).ok().json();
    ctx.rt(&["kill", "-all", id, "9"]);
    ctx.rt(&["delete", "-force", id]).ok();
    needs_rt!(ctx, "the flag of create is crun's");
    ctx.rt(&["create", "-no-subreaper", "-bundle", bundle, id]).ok();
    ctx.rt(&["-debug", "delete", "-force=true", id]).ok();
    Pass
}

/// Podman looks for these in what `checkpoint --help` prints, and for the text about a flag without its value.
fn podman_finds_the_flags_of_checkpoint(ctx: &Ctx) -> Outcome {
    let help = ctx.rt(&["checkpoint", "--help"]).ok();
    for flag in [
        "--image-path",
        "--work-path",
        "--leave-running",
        "--tcp-established",
        "--ext-unix-sk",
        "--file-locks",
        "--pre-dump",
        "--parent-path",
    ] {
        assert!(help.stdout.contains(flag), "{flag}: {help}");
    }
    assert_eq!(help.stderr, "");
    ctx.rt(&["restore", "--lsm-mount-context"]).exits(1).refused("flag needs an argument");
    ctx.rt(&["restore", "--help"]).ok();
    Pass
}
