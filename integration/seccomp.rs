//! Seccomp: what a profile forbids is forbidden, the rest works, and the runtime itself does not stumble over it.

use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, status};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        an_error_number_is_returned,
        the_default_error_is_eperm,
        a_rule_with_an_argument,
        a_rule_with_a_masked_argument,
        kill_process_ends_the_program,
        trap_sends_sigsys,
        a_deny_by_default_profile_runs_a_shell,
        the_default_error_number_of_a_profile,
        works_with_and_without_no_new_privileges,
        a_profile_that_denies_getcwd,
        a_profile_that_denies_what_only_the_runtime_needs,
        unknown_system_calls_are_ignored,
        an_unknown_action_is_refused,
        an_unknown_architecture_is_refused,
        allow_by_default_without_rules,
        a_profile_that_kills_everything_does_not_hang,
        system_calls_newer_than_the_profile_do_not_exist,
        the_listener_goes_to_its_agent,
        the_listener_of_exec_goes_to_its_agent,
        an_agent_that_is_not_there_is_an_error,
        an_agent_that_leaves_is_an_error,
    }
}

/// Numbers of x86-64 (and their names in profiles) that nothing in these tests needs.
const GETPRIORITY: &str = "140";

fn profile(default: &str, syscalls: Value) -> Value {
    json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": syscalls })
}

fn allow_but(syscall: Value) -> impl FnOnce(&mut Value) {
    move |c| c["linux"]["seccomp"] = profile("SCMP_ACT_ALLOW", json!([syscall]))
}

fn an_error_number_is_returned(ctx: &Ctx) -> Outcome {
    let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 });
    let output =
        ctx.sh_with(&format!("probe syscall {GETPRIORITY}; probe syscall 39; grep Seccomp: /proc/self/status"), allow_but(rule));
    assert_eq!(output, "EOPNOTSUPP\nok\nSeccomp:\t2\n");
    Pass
}

fn the_default_error_is_eperm(ctx: &Ctx) -> Outcome {
    let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" });
    assert_eq!(ctx.sh_with(&format!("probe syscall {GETPRIORITY}"), allow_but(rule)), "EPERM\n");
    Pass
}

fn a_rule_with_an_argument(ctx: &Ctx) -> Outcome {
    let argument = json!({ "index": 1, "value": 77, "op": "SCMP_CMP_EQ" });
    let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [argument] });
    let script = format!("probe syscall {GETPRIORITY} 9 77; probe syscall {GETPRIORITY} 9 78");
    assert_eq!(ctx.sh_with(&script, allow_but(rule)), "EOPNOTSUPP\nEINVAL\n");
    Pass
}

fn a_rule_with_a_masked_argument(ctx: &Ctx) -> Outcome {
    let argument = json!({ "index": 1, "value": 0xf0, "valueTwo": 0x30, "op": "SCMP_CMP_MASKED_EQ" });
    let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [argument] });
    let script = format!("probe syscall {GETPRIORITY} 9 0x135; probe syscall {GETPRIORITY} 9 0x125");
    assert_eq!(ctx.sh_with(&script, allow_but(rule)), "EOPNOTSUPP\nEINVAL\n");
    Pass
}

fn kill_process_ends_the_program(ctx: &Ctx) -> Outcome {
    let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_KILL_PROCESS" });
    let output = ctx.sh_with(&format!("probe syscall {GETPRIORITY}; echo $?"), allow_but(rule));
    assert_eq!(output.trim(), "159", "128 + SIGSYS");
    Pass
}

fn trap_sends_sigsys(ctx: &Ctx) -> Outcome {
    let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_TRAP" });
    assert_eq!(ctx.sh_with(&format!("probe syscall {GETPRIORITY}; echo $?"), allow_but(rule)).trim(), "159");
    Pass
}

/// What a shell and the runtime's last steps need, and little else.
const ALLOWED: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_ctl",
    "epoll_pwait",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "fchdir",
    "fchown",
    "fcntl",
    "fork",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "pipe2",
    "poll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setuid",
    "sigaltstack",
    "stat",
    "tgkill",
    "uname",
    "vfork",
    "wait4",
    "write",
];

fn deny_but_the_shell_s(c: &mut Value) {
    c["linux"]["seccomp"] = profile("SCMP_ACT_ERRNO", json!([{ "names": ALLOWED, "action": "SCMP_ACT_ALLOW" }]));
}

fn a_deny_by_default_profile_runs_a_shell(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("echo works; mkdir /tmp/x 2>&1 || true", deny_but_the_shell_s);
    assert_eq!(output, "works\nmkdir: can't create directory '/tmp/x': Operation not permitted\n");
    Pass
}

fn the_default_error_number_of_a_profile(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("mkdir /tmp/x 2>&1 || true", |c| {
        deny_but_the_shell_s(c);
        c["linux"]["seccomp"]["defaultErrnoRet"] = json!(95);
    });
    assert!(output.contains("Operation not supported"), "{output}");
    Pass
}

/// Without noNewPrivileges the filter must be loaded while CAP_SYS_ADMIN is still there; with it, as late as possible.
fn works_with_and_without_no_new_privileges(ctx: &Ctx) -> Outcome {
    for wanted in [Some(true), Some(false), None] {
        let output = ctx.sh_with("cat /proc/self/status", |c| {
            deny_but_the_shell_s(c);
            match wanted {
                Some(value) => c["process"]["noNewPrivileges"] = json!(value),
                None => drop(c["process"].as_object_mut().unwrap().remove("noNewPrivileges")),
            }
        });
        assert_eq!(status(&output, "Seccomp"), "2", "{wanted:?}");
        assert_eq!(status(&output, "NoNewPrivs"), if wanted == Some(true) { "1" } else { "0" });
        assert_eq!(status(&output, "CapEff"), "00000000a80425fb", "{wanted:?}");
    }
    Pass
}

fn a_profile_that_denies_getcwd(ctx: &Ctx) -> Outcome {
    let rule = json!({ "names": ["getcwd"], "action": "SCMP_ACT_ERRNO" });
    let output = ctx.sh_with("probe syscall 79", |c| {
        c["process"]["cwd"] = json!("/tmp");
        allow_but(rule)(c);
    });
    assert_eq!(output, "EPERM\n");
    Pass
}

/// With noNewPrivileges nothing but execve needs to come after the filter.
fn a_profile_that_denies_what_only_the_runtime_needs(ctx: &Ctx) -> Outcome {
    let names =
        ["setuid", "setresuid", "setgid", "setresgid", "setgroups", "capset", "capget", "prctl", "chdir", "fchdir", "setsid"];
    let rule = json!({ "names": names, "action": "SCMP_ACT_ERRNO" });
    let edit = allow_but(rule);
    assert_eq!(
        ctx.run(|c| {
            config::shell(c, "echo works");
            edit(c)
        })
        .ok()
        .text(),
        "works"
    );
    Pass
}

fn unknown_system_calls_are_ignored(ctx: &Ctx) -> Outcome {
    let rule = json!({ "names": ["no_such_call", "getpriority"], "action": "SCMP_ACT_ERRNO" });
    assert_eq!(ctx.sh_with(&format!("probe syscall {GETPRIORITY}"), allow_but(rule)), "EPERM\n");
    Pass
}

fn an_unknown_action_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(allow_but(json!({ "names": ["getpriority"], "action": "SCMP_ACT_NONSENSE" }))).exits(1).refused("SCMP_ACT_NONSENSE");
    Pass
}

fn an_unknown_architecture_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| {
        c["linux"]["seccomp"] = profile("SCMP_ACT_ALLOW", json!([]));
        c["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_NONSENSE"]);
    })
    .exits(1)
    .refused("SCMP_ARCH_NONSENSE");
    Pass
}

fn allow_by_default_without_rules(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh_with("echo works", |c| c["linux"]["seccomp"] = profile("SCMP_ACT_ALLOW", json!([]))), "works\n");
    Pass
}

/// The filter kills the runtime's own init: that must be an error that says so, not a wait for ever.
fn a_profile_that_kills_everything_does_not_hang(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 waits for ever");
    let output = ctx.run(|c| c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_KILL" }));
    assert!(output.code != 0 && !output.stderr.is_empty(), "{output}");
    Pass
}

/// A libc that probes for a new call must be told that it is missing, not that it is forbidden.
fn system_calls_newer_than_the_profile_do_not_exist(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh_with("probe syscall 1000", deny_but_the_shell_s), "ENOSYS\n");
    Pass
}

/// Everything that init might be tempted to do between loading the filter and executing the program is reported.
const REPORTED: &[&str] = &[
    "brk",
    "clock_gettime",
    "clone",
    "clone3",
    "close",
    "close_range",
    "execve",
    "fcntl",
    "futex",
    "getpriority",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "prctl",
    "prlimit64",
    "read",
    "rt_sigprocmask",
    "sched_yield",
    "sendmsg",
    "sendto",
    "tgkill",
];

fn notifying(c: &mut Value, socket: &str) {
    c["linux"]["seccomp"] = profile("SCMP_ACT_ALLOW", json!([{ "names": REPORTED, "action": "SCMP_ACT_NOTIFY" }]));
    c["linux"]["seccomp"]["listenerPath"] = json!(socket);
    c["linux"]["seccomp"]["listenerMetadata"] = json!("some metadata");
}

fn the_listener_goes_to_its_agent(ctx: &Ctx) -> Outcome {
    for unprivileged in [true, false] {
        let socket = ctx.socket_path();
        let agent = ctx.command(&[&ctx.probe(), "notify", &socket, GETPRIORITY, "95"]).spawn();
        ctx.wait_until("the agent listens", || Path::new(&socket).exists());
        let container = ctx.container(ctx.bundle(|c| {
            notifying(c, &socket);
            c["process"]["noNewPrivileges"] = json!(unprivileged);
            c["process"]["args"] = json!(["/bin/probe", "syscall", GETPRIORITY]);
            c["annotations"] = json!({ "some.key": "some value" });
        }));
        assert_eq!(container.run().ok().text(), "EOPNOTSUPP");
        let output = agent.wait().ok();
        let lines = output.lines();
        let state: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["metadata"], "some metadata");
        assert_eq!(state["state"]["id"], container.id.as_str());
        assert_eq!(state["state"]["bundle"], container.bundle.path());
        assert_eq!(state["state"]["annotations"]["some.key"], "some value");
        assert_eq!(state["state"]["pid"], state["pid"]);
        assert!(state["pid"].as_u64().unwrap() > 1 && state["ociVersion"].is_string(), "{state}");
        if ctx.is_rt() {
            // The first call that is filtered is the one that makes the program.
            assert_eq!(lines[1], "call 59", "{output}");
        }
    }
    Pass
}

fn the_listener_of_exec_goes_to_its_agent(ctx: &Ctx) -> Outcome {
    let socket = ctx.socket_path();
    let agent = ctx.command(&[&ctx.probe(), "notify", &socket, GETPRIORITY, "95", "2"]).spawn();
    ctx.wait_until("the agent listens", || Path::new(&socket).exists());
    let container = ctx.running(|c| notifying(c, &socket));
    assert_eq!(container.exec(&[], &["/bin/probe", "syscall", GETPRIORITY]).ok().text(), "EOPNOTSUPP");
    let pid = container.pid();
    container.stop();
    let output = agent.wait().ok();
    let states: Vec<Value> = output.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(states.len(), 2, "{output}");
    assert_eq!(states[1]["state"]["status"], "running");
    assert_eq!(states[1]["state"]["pid"], pid);
    assert_ne!(states[1]["pid"], pid);
    Pass
}

fn an_agent_that_is_not_there_is_an_error(ctx: &Ctx) -> Outcome {
    ctx.run(|c| notifying(c, "/nowhere/agent")).exits(1).refused("/nowhere/agent");
    Pass
}

/// The agent ends between create and start: the program must not run without it.
fn an_agent_that_leaves_is_an_error(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc sends the listener in create");
    let socket = ctx.socket_path();
    let agent = ctx.command(&[&ctx.probe(), "notify", &socket, GETPRIORITY, "-1"]).spawn();
    ctx.wait_until("the agent listens", || Path::new(&socket).exists());
    let container = ctx.create(|c| notifying(c, &socket));
    agent.wait().ok();
    container.start().exits(1).refused("send the seccomp listener to its agent (linux.seccomp.listenerPath)");
    container.wait_for("stopped");
    ctx.run(|c| {
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "for nobody" });
    })
    .exits(1)
    .refused("listenerMetadata");
    Pass
}
