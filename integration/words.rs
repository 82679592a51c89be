//! The words of a seccomp profile, one by one.

use std::path::Path;

use serde_json::{Value, json};

use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        every_seccomp_action,
        every_seccomp_operator,
        every_architecture_of_this_byte_order,
        threads_are_not_synchronized_beside_a_listener,
    }
    Root {
        seccomp_flags_reach_the_kernel,
    }
}

/// Numbers of x86-64: what nothing else in these containers calls.
const GETPRIORITY: &str = "140";

fn seccomp(c: &mut Value, rule: Value) {
    let arches = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": arches, "syscalls": [rule] });
}

/// What the one of a call is, for every action but SCMP_ACT_NOTIFY, which needs an agent.
fn every_seccomp_action(ctx: &Ctx) -> Outcome {
    let cases = [
        ("SCMP_ACT_ALLOW", "ok 0"),
        ("SCMP_ACT_LOG", "ok 0"),
        ("SCMP_ACT_ERRNO", "EPERM 0"),
        // Nobody traces.
        ("SCMP_ACT_TRACE", "ENOSYS 0"),
        ("SCMP_ACT_TRAP", "159"),
        ("SCMP_ACT_KILL", "159"),
        ("SCMP_ACT_KILL_THREAD", "159"),
        ("SCMP_ACT_KILL_PROCESS", "159"),
    ];
    for (action, expected) in cases {
        let rule = json!({ "names": ["getpriority"], "action": action });
        let output = ctx.sh_with(&format!("echo $(probe syscall {GETPRIORITY} 0 0; echo $?)"), |c| seccomp(c, rule));
        assert_eq!(output.trim(), expected, "{action}");
    }
    Pass
}

fn every_seccomp_operator(ctx: &Ctx) -> Outcome {
    let cases = [
        ("SCMP_CMP_NE", [true, false, true]),
        ("SCMP_CMP_LT", [true, false, false]),
        ("SCMP_CMP_LE", [true, true, false]),
        ("SCMP_CMP_EQ", [false, true, false]),
        ("SCMP_CMP_GE", [false, true, true]),
        ("SCMP_CMP_GT", [false, false, true]),
    ];
    let script = format!("for n in 76 77 78; do probe syscall {GETPRIORITY} 9 $n; done");
    for (op, hits) in cases {
        let argument = json!({ "index": 1, "value": 77, "op": op });
        let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [argument] });
        let output = ctx.sh_with(&script, |c| seccomp(c, rule));
        let expected = hits.map(|hit| if hit { "EOPNOTSUPP" } else { "EINVAL" });
        assert_eq!(output.lines().collect::<Vec<_>>(), expected, "{op}");
    }
    Pass
}

/// The kernel takes a filter for all of them, and it holds on this one; those of the other byte order are refused.
fn every_architecture_of_this_byte_order(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "libseccomp 2.5 does not know all of them");
    let little = [
        "X86",
        "X86_64",
        "X32",
        "ARM",
        "AARCH64",
        "LOONGARCH64",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC64LE",
        "RISCV64",
        "SH",
    ];
    let big = ["M68K", "MIPS", "MIPS64", "MIPS64N32", "PPC", "PPC64", "S390", "S390X", "SHEB", "PARISC", "PARISC64"];
    let rule = json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 });
    let arches = |names: &[&str]| names.iter().map(|name| json!(format!("SCMP_ARCH_{name}"))).collect::<Value>();
    let output = ctx.sh_with(&format!("probe syscall {GETPRIORITY}"), |c| {
        seccomp(c, rule.clone());
        c["linux"]["seccomp"]["architectures"] = arches(&little);
    });
    assert_eq!(output, "EOPNOTSUPP\n");
    let container = ctx.container(ctx.bundle(|c| seccomp(c, rule)));
    for name in big {
        container.bundle.edit(|c| c["linux"]["seccomp"]["architectures"] = arches(&[name]));
        container.run().exits(1).refused("expected an architecture with this machine's byte order");
    }
    Pass
}

/// What strace(1) shows of the call that loads the filter: its flags, and that the kernel took them.
fn seccomp_flags_reach_the_kernel(ctx: &Ctx) -> Outcome {
    if ctx.command(&["strace", "-V"]).run().code != 0 {
        return Skip("no strace".to_owned());
    }
    let flags = ["TSYNC", "LOG", "SPEC_ALLOW"];
    for flag in flags {
        let container = ctx.container(ctx.bundle(|c| {
            c["process"]["args"] = json!(["/bin/true"]);
            seccomp(c, json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" }));
            c["linux"]["seccomp"]["flags"] = json!([format!("SECCOMP_FILTER_FLAG_{flag}")]);
        }));
        let trace = ctx.path(&format!("trace-{flag}"));
        let (rt, root) = (ctx.runtime().to_str().unwrap(), ctx.path("state"));
        let strace = ["strace", "-f", "-e", "trace=seccomp", "-o", &trace];
        let run = [rt, "--root", &root, "run", "--bundle", container.bundle.path(), &container.id];
        ctx.command(&[&strace[..], &run].concat()).run().ok();
        let calls = read(Path::new(&trace));
        let wanted = format!("SECCOMP_FILTER_FLAG_{flag}, ");
        assert!(calls.lines().any(|line| line.contains(&wanted) && line.ends_with("= 0")), "{flag}: {calls}");
    }
    Pass
}

/// The flag would take the thread that hands the listener over under the filter.
fn threads_are_not_synchronized_beside_a_listener(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 passes it on");
    let socket = ctx.socket_path();
    let agent = ctx.command(&[&ctx.probe(), "notify", &socket, GETPRIORITY, "95"]).spawn();
    ctx.wait_until("the agent listens", || Path::new(&socket).exists());
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/probe", "syscall", GETPRIORITY]);
        // The first call that the agent answers is the one that makes the program.
        seccomp(c, json!({ "names": ["getpriority", "execve", "sendmsg"], "action": "SCMP_ACT_NOTIFY" }));
        c["linux"]["seccomp"]["listenerPath"] = json!(socket);
        let flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];
        c["linux"]["seccomp"]["flags"] = json!(flags);
    });
    let output = output.ok();
    assert_eq!(output.text(), "EOPNOTSUPP");
    assert!(output.stderr.contains("linux.seccomp.flags[0]: left out beside SCMP_ACT_NOTIFY"), "{output}");
    agent.wait().ok();
    Pass
}
