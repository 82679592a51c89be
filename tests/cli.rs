//! The command line of the binary: what engines and people rely on before any container is made. `RT` names another binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const COMMANDS: &[&str] = &[
    "create",
    "start",
    "state",
    "update",
    "kill",
    "delete",
    "run",
    "exec",
    "list",
    "ps",
    "events",
    "pause",
    "resume",
    "spec",
    "features",
    "plan",
    "check",
    "checkpoint",
    "restore",
    "mounts",
    "info",
    "completion",
    "help",
];

/// The largest release binary that is still "small".
const MAX_SIZE: u64 = 4 << 20;

fn binary() -> PathBuf {
    std::env::var_os("RT").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_rt")), PathBuf::from)
}

/// What a command printed, and its exit status.
struct Ended {
    status: i32,
    stdout: String,
    stderr: String,
}

fn rt(arguments: &[&str]) -> Ended {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { status: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A folder that goes away.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rt-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_command_has_help() {
    let all = rt(&["--help"]);
    assert_eq!((all.status, all.stderr.as_str()), (0, ""));
    for command in COMMANDS {
        assert!(all.stdout.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not in rt --help");
        for flag in ["--help", "-h"].iter().filter(|_| *command != "help") {
            let help = rt(&[command, flag]);
            assert_eq!((help.status, help.stderr.as_str()), (0, ""), "{command} {flag}");
            assert!(help.stdout.contains(&format!("Usage: rt {command}")), "{command} {flag}: {}", help.stdout);
            let about = help.stdout.lines().next().unwrap_or_default();
            let listed = all.stdout.lines().find_map(|line| line.trim_start().strip_prefix(command)?.strip_prefix(' '));
            assert_eq!(listed.map(str::trim), Some(about), "rt --help and rt {command} {flag}");
        }
    }
    let listed = all.stdout.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty()).count();
    assert_eq!(listed, COMMANDS.len(), "a command is not in this test: {}", all.stdout);
}

#[test]
fn the_version_is_what_docker_parses() {
    for flag in ["--version", "-v", "-V"] {
        let version = rt(&[flag]);
        assert_eq!((version.status, version.stderr.as_str()), (0, ""), "{flag}");
        let lines: Vec<&str> = version.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{flag}: {lines:?}");
        assert_eq!(lines[0], format!("rt version {}", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].strip_prefix("commit: ").is_some_and(|commit| !commit.is_empty()), "{lines:?}");
        assert!(lines[2].strip_prefix("spec: ").is_some_and(|spec| spec.starts_with("1.")), "{lines:?}");
    }
}

/// The wording is what engines look for, and the exit status is 1, as runc has both.
const MISUSE: &[(&[&str], &str)] = &[
    (&["--nonsense"], "flag provided but not defined: --nonsense"),
    (&["nonsense"], "no such command: \"nonsense\""),
    (&["create", "--nonsense", "x"], "create: flag provided but not defined: --nonsense"),
    (&["create"], "create: missing: <ID>"),
    (&["create", "x", "y"], "create: too many arguments: \"y\""),
    (&["create", "--bundle"], "create: flag needs an argument: --bundle"),
    (&["create", "-bundle"], "create: flag needs an argument: --bundle"),
    (&["run", "x", "--pid-file"], "run: flag needs an argument: --pid-file"),
    (&["exec", "--process"], "exec: flag needs an argument: --process"),
    (&["--root"], "flag needs an argument: --root"),
    (&["list", "--format", "xml"], "list: invalid value \"xml\" for --format; expected table or json"),
    (&["--rootless=maybe", "list"], "invalid value \"maybe\" for --rootless; expected auto or true or false"),
    (&["kill"], "kill: missing: <ID>"),
    (&["exec", "--nonsense", "x", "true"], "exec: flag provided but not defined: --nonsense"),
    (&["create", "--preserve-fds", "x", "y"], "create: invalid value \"x\" for --preserve-fds; expected a whole number in range"),
    (&["completion"], "completion: missing: <SHELL>"),
    (&["completion", "csh"], "completion: invalid value \"csh\" for <SHELL>; expected bash or zsh or fish"),
    (&[], "no command given"),
];

#[test]
fn what_is_not_understood_is_an_error() {
    for (arguments, text) in MISUSE {
        let ended = rt(arguments);
        assert_eq!((ended.status, ended.stdout.as_str()), (1, ""), "{arguments:?}: {}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines[0], format!("rt: {text}"), "{arguments:?}");
        assert!(lines.len() == 2 && lines[1].starts_with("   hint: "), "{arguments:?}: {lines:?}");
    }
}

#[test]
fn misuse_is_one_record_of_the_json_log() {
    let dir = Temporary::new("misuse");
    for (index, (arguments, text)) in MISUSE.iter().filter(|(arguments, _)| arguments.first() != Some(&"--root")).enumerate() {
        let log = dir.path(&format!("log{index}"));
        let mut all = vec!["--log", &log, "--log-format", "json"];
        all.extend(*arguments);
        assert_eq!(rt(&all).status, 1, "{all:?}");
        let written = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(written.lines().count(), 1, "{all:?}: {written}");
        let record: Value = serde_json::from_str(&written).unwrap();
        assert_eq!((record["level"].as_str(), record["msg"].as_str()), (Some("error"), Some(*text)), "{all:?}");
    }
}

#[test]
fn help_is_a_command_too() {
    assert_eq!(rt(&["help", "create"]).stdout, rt(&["create", "--help"]).stdout);
    assert_eq!(rt(&["help"]).stdout, rt(&["--help"]).stdout);
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = rt(&["completion", shell]);
        assert_eq!((script.status, script.stderr.as_str()), (0, ""), "{shell}");
        for word in COMMANDS.iter().filter(|command| **command != "help").chain(&["console-socket", "pidfd-socket"]) {
            assert!(script.stdout.contains(word), "{shell} does not know {word}");
        }
    }
    let dir = Temporary::new("completion");
    let file = dir.path("rt.bash");
    fs::write(&file, rt(&["completion", "bash"]).stdout).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(rt --root /x cre); COMP_CWORD=3; _rt; echo ${COMPREPLY[@]}; \
               COMP_WORDS=(rt create --pid); COMP_CWORD=2; _rt; echo ${COMPREPLY[@]}; \
               COMP_WORDS=(rt mounts re); COMP_CWORD=2; _rt; echo ${COMPREPLY[@]}";
    let asked = Command::new("bash").args(["-c", ask, &file]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "create\n--pid-file --pidfd-socket\nremove\n");
}

#[test]
fn info_says_what_a_report_needs() {
    let info = rt(&["info"]);
    assert_eq!((info.status, info.stderr.as_str()), (0, ""));
    for word in ["version", "kernel", "cgroup v2", "caller", "state root"] {
        assert!(info.stdout.lines().any(|line| line.starts_with(word)), "{word}: {}", info.stdout);
    }
}

/// Logs that are sent: a socket stands for syslog's; the journal's path cannot be taken here.
#[test]
fn logs_have_targets_and_levels() {
    let dir = Temporary::new("targets");
    let (root, log) = (dir.path("state"), dir.path("log"));
    rt(&["--root", &root, "--log", &format!("file:{log}"), "state", "x"]);
    assert!(fs::read_to_string(&log).unwrap().contains("container does not exist"));
    for target in ["journald:", "syslog:"] {
        let ended = rt(&["--log", target, "list"]);
        assert_eq!(ended.status, 1);
        assert!(ended.stderr.starts_with("rt: open the log (--log): "), "{}", ended.stderr);
    }
}

#[test]
fn global_flags_stand_before_the_command() {
    let dir = Temporary::new("global");
    let (root, log) = (dir.path("state"), dir.path("log"));
    for dashes in ["--", "-"] {
        let flags = [format!("{dashes}root"), format!("{dashes}log"), format!("{dashes}log-format"), format!("{dashes}debug")];
        let ended = rt(&[&flags[0], &root, &flags[1], &log, &flags[2], "json", &flags[3], "list", "-q"]);
        assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""), "{flags:?}");
        let equals = rt(&[&format!("{dashes}root={root}"), "list", "-q"]);
        assert_eq!((equals.status, equals.stdout.as_str()), (0, ""), "{}", equals.stderr);
    }
    assert_eq!(rt(&["list", "--root", &root]).status, 1);
    assert!(!Path::new(&root).exists(), "list makes no state root");
}

/// Otherwise they would print rt's own help or version.
#[test]
fn what_follows_the_id_of_exec_is_the_program_s() {
    let dir = Temporary::new("exec");
    let root = dir.path("state");
    for flag in ["--help", "--version", "-h", "-v", "--nonsense", "--cwd", "-nonsense", "--"] {
        let ended = rt(&["--root", &root, "exec", "x", "ls", flag]);
        assert_eq!((ended.status, ended.stdout.as_str()), (255, ""), "{flag}");
        assert_eq!(ended.stderr, "rt: exec x: container x: container does not exist\n", "{flag}");
    }
}

#[test]
fn a_failure_is_one_record_in_the_log() {
    let dir = Temporary::new("log");
    let (root, log) = (dir.path("state"), dir.path("log"));
    let failed = rt(&["--root", &root, "--log", &log, "--log-format", "json", "state", "x"]);
    assert_eq!((failed.status, failed.stdout.as_str()), (1, ""));
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
    let record: Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys[..3], ["level", "msg", "time"]);
    assert_eq!(record["level"], "error");
    assert_eq!(record["code"], "not-found");
    assert_eq!(failed.stderr, format!("rt: {}\n", record["msg"].as_str().unwrap()));
    assert!(is_rfc3339(record["time"].as_str().unwrap()), "{record}");

    let missing = dir.path("nothing");
    rt(&["--root", &root, "--log", &log, "--log-format", "json", "create", "--bundle", &missing, "x"]);
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 2, "the log is appended to: {text}");
    let record: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((record["syscall"].as_str(), record["errno"].as_str()), (Some("open"), Some("ENOENT")), "{record}");
}

/// `2006-01-02T15:04:05.999999999Z`: containerd loses the message of a record whose time it cannot read.
fn is_rfc3339(time: &str) -> bool {
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let (seconds, fraction) = shape.split_at(19.min(shape.len()));
    let fraction = fraction.trim_end_matches('Z').trim_start_matches('.');
    seconds == "0000-00-00T00:00:00" && fraction.chars().all(|c| c == '0') && time.ends_with('Z')
}

#[test]
fn a_failure_in_the_text_log() {
    let dir = Temporary::new("text-log");
    let (root, log) = (dir.path("state"), dir.path("log"));
    rt(&["--root", &root, "--log", &log, "state", "x"]);
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.starts_with("time=\"") && text.contains("\" level=error msg=\"state x: container x: container does not exist\"\n"),
        "{text}"
    );
}

#[test]
fn success_is_silent() {
    let dir = Temporary::new("silent");
    let (root, log) = (dir.path("state"), dir.path("log"));
    for command in [&["features"][..], &["list"], &["delete", "--force", "x"], &["--version"]] {
        let mut arguments = vec!["--root", &root, "--log", &log, "--log-format", "json"];
        arguments.extend(command);
        let ended = rt(&arguments);
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{command:?}");
    }
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error() {
    let ended = rt(&["--log", "/nonexistent/log", "list"]);
    assert_eq!(ended.status, 1);
    assert!(
        ended.stderr.starts_with("rt: open the log (--log): open(\"/nonexistent/log\"): no such file or directory"),
        "{}",
        ended.stderr
    );
}

#[test]
fn ids_that_are_not_names() {
    let dir = Temporary::new("ids");
    let root = dir.path("state");
    let long = "x".repeat(251);
    for id in ["", ".", "..", "a/b", "../x", "a b", "a\nb", "ä", &long] {
        for command in
            [&["state"][..], &["start"], &["kill"], &["delete"], &["delete", "--force"], &["create"], &["run"], &["ps"]]
        {
            let mut arguments = vec!["--root", &root];
            arguments.extend(command);
            arguments.extend(["--", id]);
            let ended = rt(&arguments);
            assert_eq!(ended.status, 1, "{arguments:?}: {}", ended.stderr);
            assert!(ended.stderr.contains("invalid container ID") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
        }
    }
    assert!(!Path::new(&root).exists());
}

#[test]
fn features_are_json() {
    let ended = rt(&["features"]);
    let features: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    assert!(features["ociVersionMin"].as_str().unwrap() <= features["ociVersionMax"].as_str().unwrap(), "{features}");
}

/// The program header types of an ELF file of 64 bits (elf(5)), and the tags of its dynamic section.
fn elf(bytes: &[u8]) -> (Vec<u32>, Vec<u64>) {
    let half = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let place = |at: usize| usize::try_from(long(at)).unwrap();
    assert_eq!(&bytes[..5], b"\x7fELF\x02", "an ELF file of 64 bits");
    let headers: Vec<usize> = (0..half(56)).map(|index| place(32) + index * half(54)).collect();
    let mut tags = Vec::new();
    for header in headers.iter().filter(|header| word(**header) == PT_DYNAMIC) {
        let (start, size) = (place(header + 8), place(header + 32));
        tags.extend((start..start + size).step_by(16).map(long).take_while(|tag| *tag != 0));
    }
    (headers.into_iter().map(word).collect(), tags)
}

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const ET_DYN: u8 = 3;

/// Nothing of an image can be loaded into the runtime, and it runs wherever it is copied to.
#[test]
fn the_binary_is_static_and_position_independent() {
    let bytes = fs::read(binary()).unwrap();
    let (headers, tags) = elf(&bytes);
    assert_eq!(bytes[16], ET_DYN, "e_type: a static binary at random addresses");
    assert!(!headers.contains(&PT_INTERP), "it asks for a loader");
    assert!(headers.contains(&PT_DYNAMIC) && !tags.is_empty(), "it relocates itself");
    assert!(!tags.contains(&DT_NEEDED), "it asks for a library");
}

#[test]
fn the_release_binary_is_small() {
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/rt");
    match fs::metadata(&release) {
        Ok(metadata) => assert!(metadata.len() < MAX_SIZE, "{} bytes", metadata.len()),
        Err(_) => println!("skipped: there is no bin/rt"),
    }
}

#[test]
fn it_runs_alone_in_an_empty_root() {
    let dir = Temporary::new("alone");
    fs::copy(binary(), dir.0.join("rt")).unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if root { Command::new("chroot") } else { Command::new("unshare") };
    if !root {
        command.args(["--map-root-user", "chroot"]);
    }
    let output = command.arg(&dir.0).args(["/rt", "--version"]).output().unwrap();
    if !root && !output.status.success() {
        println!("skipped: no user namespaces here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.starts_with("rt version "), "{stdout}{stderr}");
}

#[test]
fn systemd_cgroup_is_a_global_flag() {
    let dir = Temporary::new("systemd");
    let ended = rt(&["--systemd-cgroup", "--root", &dir.path("state"), "list", "-q"]);
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
}
