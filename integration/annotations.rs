//! The annotations that take effect, seen from inside; and the warning about those that do not (docs/annotations.md).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, read, status};
use crate::hierarchy::unified;
use crate::runner::Outcome::{self, Pass};
use crate::subgroups::{DELEGATED, SUBGROUP};

tests! {
    Root {
        the_caller_s_groups_stay,
    }
    Both {
        what_hooks_say_goes_to_files,
        the_output_of_a_failing_hook_is_in_its_file,
        a_file_for_hooks_that_cannot_be_opened_is_an_error,
        the_seccomp_agent_of_an_annotation,
        unknown_system_calls_are_refused_on_request,
        a_filter_in_base64,
        a_filter_in_base64_holds_for_exec,
        what_has_no_effect_is_a_warning,
        what_engines_write_is_silent,
        one_that_is_wrong_is_refused,
    }
}

const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// A group that the caller has, and that means something to the kernel only.
const GROUP: &str = "4321";

/// A user without capabilities reads a file that the caller's group may read.
fn reader(c: &mut Value, folder: &str) {
    config::mount(c, "bind", folder, "/shared", &["bind", "ro"]);
    config::shell(c, "cat /shared/secret; grep Groups: /proc/self/status");
    c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    c["process"]["capabilities"] = json!({});
}

fn the_caller_s_groups_stay(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let folder = ctx.host_dir("shared", "secret", "secret\n");
    fs::set_permissions(Path::new(&folder).join("secret"), fs::Permissions::from_mode(0o640)).unwrap();
    chown(Path::new(&folder).join("secret"), Some(0), Some(GROUP.parse().unwrap())).unwrap();
    for (keep, own_users, groups) in [(false, false, ""), (true, false, GROUP), (true, true, "65534")] {
        let container = ctx.container(ctx.bundle(|c| {
            reader(c, &folder);
            if own_users {
                let map = || json!([config::id_map(0, 0, 1), config::id_map(1000, 100_000, 1)]);
                config::in_user_namespace(c, map(), map());
            }
            if keep {
                c["annotations"] = json!({ KEEP_GROUPS: "1" });
            }
        }));
        let root = ctx.path("state");
        let (rt, bundle) = (ctx.runtime().to_str().unwrap(), container.bundle.path());
        let as_member = ["setpriv", "--groups", GROUP, "--", rt, "--root", &root, "run", "--bundle", bundle, &container.id];
        let output = ctx.command(&as_member).run();
        assert_eq!((output.stdout.contains("secret\n"), status(&output.stdout, "Groups").as_str()), (keep, groups), "{output}");
    }
    Pass
}

fn say(words: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {words}; echo {words} aside >&2")] })
}

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn what_hooks_say_goes_to_files(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let (out, err) = (ctx.path("out"), ctx.path("err"));
    fs::write(&out, "before\n").unwrap();
    let container = ctx.running(|c| {
        KINDS.iter().for_each(|kind| c["hooks"][*kind] = json!([say(kind)]));
        c["annotations"] = json!({ "run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err });
    });
    container.stop();
    container.delete().ok();
    let said = |text: &str| KINDS.iter().map(|kind| format!("{kind}{text}\n")).collect::<String>();
    assert_eq!(read(out.as_ref()), format!("before\n{}", said("")));
    assert_eq!(read(err.as_ref()), said(" aside"));
    assert_eq!(fs::metadata(&err).unwrap().mode() & 0o777, 0o600);
    Pass
}

fn the_output_of_a_failing_hook_is_in_its_file(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let out = ctx.path("out");
    let failing = |c: &mut Value| {
        c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo one; echo two >&2; exit 3"] }]);
        c["annotations"] = json!({ "run.oci.hooks.stdout": out });
    };
    ctx.run(failing).exits(1).refused("exit status 3: two");
    assert_eq!(read(out.as_ref()), "one\n");
    Pass
}

fn a_file_for_hooks_that_cannot_be_opened_is_an_error(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let annotate = |c: &mut Value| c["annotations"] = json!({ "run.oci.hooks.stderr": "/nowhere/file" });
    let container = ctx.container(ctx.bundle(|c| {
        c["hooks"]["createRuntime"] = json!([say("x")]);
        annotate(c);
    }));
    let checked = ctx.rt(&["check", container.bundle.path()]).exits(1);
    assert!(checked.stdout.contains("annotations[\"run.oci.hooks.stderr\"]"), "{checked}");
    let refused = container.run();
    let refused = refused.exits(1).refused("annotations[\"run.oci.hooks.stderr\"]");
    assert!(refused.stderr.contains("no such file or directory"), "{refused}");
    // Nobody writes: nothing is opened.
    ctx.run(|c| {
        config::shell(c, "exit 0");
        annotate(c);
    })
    .ok();
    // What comes after the container is a warning (runtime.md, "Lifecycle").
    let container = ctx.running(|c| {
        c["hooks"]["poststop"] = json!([say("x")]);
        annotate(c);
    });
    container.stop();
    let deleted = container.delete().ok();
    assert!(deleted.stderr.contains("run.oci.hooks.stderr"), "{deleted}");
    Pass
}

const GETPRIORITY: &str = "140";

fn the_seccomp_agent_of_an_annotation(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let notify = |c: &mut Value, socket: &str| {
        let rules = json!([{ "names": ["getpriority"], "action": "SCMP_ACT_NOTIFY" }]);
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
        c["process"]["args"] = json!(["/bin/probe", "syscall", GETPRIORITY]);
        c["annotations"] = json!({ "run.oci.seccomp.receiver": socket });
    };
    let socket = ctx.socket_path();
    let agent = ctx.command(&[&ctx.probe(), "notify", &socket, GETPRIORITY, "95"]).spawn();
    ctx.wait_until("the agent listens", || Path::new(&socket).exists());
    let container = ctx.container(ctx.bundle(|c| notify(c, &socket)));
    assert_eq!(container.run().ok().text(), "EOPNOTSUPP");
    let state: Value = serde_json::from_str(agent.wait().ok().lines()[0]).unwrap();
    assert_eq!((&state["fds"], &state["state"]["id"]), (&json!(["seccompFd"]), &json!(container.id)));
    ctx.run(|c| notify(c, "/nowhere/agent")).exits(1).refused("/nowhere/agent (annotations[\"run.oci.seccomp.receiver\"])");
    Pass
}

fn unknown_system_calls_are_refused_on_request(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let profile = |c: &mut Value| {
        let rules = json!([{ "names": ["getpid", "not_a_call"], "action": "SCMP_ACT_ALLOW" }]);
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
        config::shell(c, "exit 0");
    };
    ctx.run(profile).ok();
    ctx.run(|c| {
        profile(c);
        c["annotations"] = json!({ "run.oci.seccomp_fail_unknown_syscall": "1" });
    })
    .exits(1)
    .refused("linux.seccomp.syscalls: unknown system calls: not_a_call; expected none");
    Pass
}

/// Four instructions: getpriority(2) fails with EDOM (33), everything else is allowed.
#[cfg(target_arch = "x86_64")]
const DENY_GETPRIORITY: &str = "IAAAAAAAAAAVAAABjAAAAAYAAAAhAAUABgAAAAAA/38=";
const EDOM: &str = "EDOM";

fn with_filter(c: &mut Value) {
    c["annotations"] = json!({ "run.oci.seccomp_bpf_data": DENY_GETPRIORITY });
    c["process"]["args"] = json!(["/bin/probe", "syscall", GETPRIORITY]);
}

fn a_filter_in_base64(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    for unprivileged in [true, false] {
        let output = ctx.run(|c| {
            with_filter(c);
            c["process"]["noNewPrivileges"] = json!(unprivileged);
        });
        let output = output.ok();
        assert_eq!((output.text(), output.stderr.as_str()), (EDOM, ""));
    }
    let replaced = ctx.run(|c| {
        with_filter(c);
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_KILL" });
    });
    let replaced = replaced.ok();
    assert_eq!(replaced.text(), EDOM);
    assert!(replaced.stderr.contains("linux.seccomp: left out"), "{replaced}");
    Pass
}

fn a_filter_in_base64_holds_for_exec(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let container = ctx.running(|c| {
        with_filter(c);
        c["process"]["args"] = json!(["sleep", "1000"]);
    });
    assert_eq!(container.exec(&[], &["/bin/probe", "syscall", GETPRIORITY]).ok().text(), EDOM);
    Pass
}

fn what_has_no_effect_is_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others pass it over");
    // A machine with version 2 alone has something to delegate.
    let delegated = (!unified()).then_some(DELEGATED);
    for name in ["run.oci.handler", SUBGROUP, "krun.cpus", "run.oci.newer.than-this"].into_iter().chain(delegated) {
        let mut container = ctx.container(ctx.bundle(|c| c["annotations"] = json!({ name: "x" })));
        let created = container.create().ok();
        let warning = format!("annotations[{name:?}]: left out: ");
        assert!(created.stderr.contains(&warning) && created.stderr.lines().count() == 1, "{created}");
        let kept: Vec<String> =
            serde_json::from_str(container.state()["annotations"]["io.github.rt.warnings"].as_str().unwrap()).unwrap();
        assert!(kept.iter().any(|text| text.starts_with(&warning)), "{kept:?}");
        let strict = ctx.rt(&["--strict", "run", "--bundle", container.bundle.path(), "strict"]);
        strict.exits(1).refused(&warning);
    }
    Pass
}

/// What Podman, CRI-O, containerd and Docker were seen to write into config.json, in so far as it is of these families.
fn what_engines_write_is_silent(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|c| {
        c["annotations"] = json!({
            "io.container.manager": "libpod",
            "io.kubernetes.cri.container-type": "container",
            "io.podman.annotations.autoremove": "FALSE",
            "org.opencontainers.image.stopSignal": "15",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "run.oci.keep_original_groups": "1",
            "run.oci.mount_context_type": "rootcontext",
            "run.oci.systemd.subgroup": ""
        });
    }));
    let created = container.create().ok();
    assert_eq!(created.stderr, "");
    Pass
}

fn one_that_is_wrong_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    for (name, value) in [
        ("run.oci.hooks.stdout", "relative"),
        ("run.oci.seccomp.receiver", "relative"),
        ("run.oci.seccomp_bpf_data", "no base64"),
        ("run.oci.mount_context_type", "seclabel"),
    ] {
        ctx.run(|c| c["annotations"] = json!({ name: value })).exits(1).refused(&format!("annotations[{name:?}]: "));
    }
    Pass
}
