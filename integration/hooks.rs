//! Hooks: when the six kinds run, where, with what on standard input, and what their failure does.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        the_six_kinds_run_in_order,
        hooks_of_a_kind_run_in_the_order_of_the_list,
        host_hooks_receive_the_state,
        hooks_find_the_names_and_mounts_of_the_container,
        poststop_receives_a_stopped_state,
        the_environment_is_exactly_the_configured_one,
        the_environment_is_empty_by_default,
        the_working_directory_is_the_bundle,
        arguments_begin_with_the_name,
        hooks_of_the_container_know_the_pid_that_it_has_there,
        hooks_of_the_container_run_in_its_namespaces,
        start_container_sees_the_root_file_system,
        a_failing_create_hook_leaves_nothing,
        a_failing_hook_is_named_with_what_it_said,
        poststop_hooks_follow_a_failed_hook,
        poststop_hooks_follow_a_killed_create,
        no_hook_follows_a_failure_before_the_first,
        a_failing_start_container_hook_ends_the_container,
        a_failing_poststart_hook_ends_the_container,
        a_failing_poststop_hook_is_a_warning,
        a_hook_that_takes_too_long_is_killed,
        a_hook_need_not_read_its_input,
        a_missing_hook_is_refused,
        a_relative_hook_path_is_refused,
        a_timeout_of_zero_is_refused,
        hooks_of_create_see_the_id_in_use,
        no_descriptor_leaks_into_hooks,
        hooks_of_create_need_no_cgroup_mount,
        a_poststart_hook_finds_a_program_that_has_begun,
    }
}

fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] })
}

/// Hooks of one kind from shell scripts.
fn hooks(c: &mut Value, kind: &str, scripts: &[&str]) {
    c["hooks"][kind] = scripts.iter().map(|script| hook(script)).collect();
}

fn the_six_kinds_run_in_order(ctx: &Ctx) -> Outcome {
    fs::create_dir(ctx.path("shared")).unwrap();
    let (outside, inside) = (format!("{}/log", ctx.path("shared")), "/shared/log");
    let container = ctx.create(|c| {
        config::mount(c, "bind", &ctx.path("shared"), "/shared", &["bind"]);
        config::shell(c, &format!("echo program >> {inside}; sleep 1000"));
        for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            // poststart promises to run after the program was started, not after it has done something.
            hooks(c, kind, &[&format!("echo {kind} >> {outside}")]);
        }
        hooks(c, "startContainer", &[&format!("echo startContainer >> {inside}")]);
    });
    let so_far = || read(outside.as_ref()).lines().map(str::to_owned).collect::<Vec<_>>();
    if ctx.is_rt() {
        assert_eq!(so_far(), ["prestart", "createRuntime", "createContainer"], "after create");
    }
    container.start().ok();
    ctx.wait_until("the program has begun", || so_far().contains(&"program".to_owned()));
    let mut started = so_far();
    assert_eq!(started.iter().filter(|line| *line == "poststart").count(), 1);
    started.retain(|line| line != "poststart");
    assert_eq!(started, ["prestart", "createRuntime", "createContainer", "startContainer", "program"]);
    container.stop();
    assert_ne!(so_far().last().unwrap(), "poststop");
    container.delete().ok();
    assert_eq!(so_far().last().unwrap(), "poststop");
    Pass
}

/// config.md, "Prestart", "CreateRuntime Hooks": the environment has been created according to the configuration. What is left for later
/// is what hooks may still have to reach: parameters of network devices that they bring, masks, and a read-only root.
fn hooks_find_the_names_and_mounts_of_the_container(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 sets the names after them");
    let (outside, inside) = (ctx.path("outside"), ctx.path("inside"));
    ctx.create(|c| {
        c["hostname"] = json!("by-config");
        let pid = "$(grep -o '\"pid\": *[0-9]*' | grep -o '[0-9]*')";
        hooks(
            c,
            "createRuntime",
            &[&format!(
                "pid={pid}; nsenter -t $pid -u hostname > {outside}; grep -c rootfs/dev/mqueue /proc/$pid/mountinfo >> {outside}"
            )],
        );
        hooks(
            c,
            "createContainer",
            &[&format!("hostname > {inside}; grep -c rootfs/dev/mqueue /proc/self/mountinfo >> {inside}")],
        );
    });
    assert_eq!(read(inside.as_ref()), "by-config\n1\n");
    if ctx.uid() == 0 {
        assert_eq!(read(outside.as_ref()), "by-config\n1\n");
    }
    Pass
}

fn hooks_of_a_kind_run_in_the_order_of_the_list(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log");
    let scripts = ["sleep 0.1; echo 1", "echo 2", "echo 3"].map(|script| format!("{script} >> {log}"));
    ctx.create(|c| hooks(c, "createRuntime", &scripts.each_ref().map(String::as_str)));
    assert_eq!(read(log.as_ref()), "1\n2\n3\n");
    Pass
}

fn host_hooks_receive_the_state(ctx: &Ctx) -> Outcome {
    let kinds = [("prestart", "creat"), ("createRuntime", "creat"), ("createContainer", "creat"), ("poststart", "running")];
    let container = ctx.running(|c| {
        c["annotations"] = json!({ "org.example": "1" });
        for (kind, _) in kinds {
            hooks(c, kind, &[&format!("cat > {}", ctx.path(kind))]);
        }
    });
    let pid = container.pid();
    for (kind, status) in kinds {
        let state: Value = serde_json::from_str(&read(ctx.path(kind).as_ref())).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(state["id"], *container.id, "{kind}");
        assert_eq!(state["bundle"], *container.bundle.path(), "{kind}");
        assert_eq!(state["annotations"], json!({ "org.example": "1" }), "{kind}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}");
        assert!(state["status"].as_str().unwrap().starts_with(status) || !ctx.is_rt(), "{kind}: {state}");
        if kind != "createContainer" {
            assert_eq!(state["pid"], pid, "{kind}");
        }
    }
    Pass
}

fn poststop_receives_a_stopped_state(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| hooks(c, "poststop", &[&format!("cat > {}", ctx.path("state.json"))]));
    container.stop();
    container.delete().ok();
    let state: Value = serde_json::from_str(&read(ctx.path("state.json").as_ref())).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&json!(container.id), &json!("stopped")));
    Pass
}

fn the_environment_is_exactly_the_configured_one(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log");
    ctx.create(|c| {
        let args = json!(["sh", "-c", format!("tr '\\0' '\\n' < /proc/$$/environ > {log}")]);
        c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": args, "env": ["A=1", "B=x=y", "PATH=/bin:/usr/bin"] }]);
    });
    assert_eq!(read(log.as_ref()), "A=1\nB=x=y\nPATH=/bin:/usr/bin\n");
    Pass
}

fn the_environment_is_empty_by_default(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc hands on its own environment");
    let log = ctx.path("log");
    ctx.create(|c| {
        let args = json!(["sh", "-c", format!("/usr/bin/wc -c < /proc/$$/environ > {log}")]);
        c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": args }]);
    });
    assert_eq!(read(log.as_ref()).trim(), "0");
    Pass
}

fn the_working_directory_is_the_bundle(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log");
    let container = ctx.create(|c| hooks(c, "createRuntime", &[&format!("pwd > {log}")]));
    assert_eq!(read(log.as_ref()).trim(), container.bundle.path());
    Pass
}

fn arguments_begin_with_the_name(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log");
    ctx.create(|c| {
        let args = json!(["my-name", "-c", format!("echo $0 $1 > {log}"), "zero", "one"]);
        c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": args }]);
    });
    assert_eq!(read(log.as_ref()), "zero one\n");
    Pass
}

fn hooks_of_the_container_run_in_its_namespaces(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| {
        hooks(c, "createRuntime", &[&format!("readlink /proc/self/ns/mnt > {}", ctx.path("runtime"))]);
        hooks(c, "createContainer", &[&format!("readlink /proc/self/ns/mnt > {}", ctx.path("container"))]);
    });
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(read(ctx.path("runtime").as_ref()).trim(), own.to_str().unwrap());
    assert_eq!(read(ctx.path("container").as_ref()).trim(), container.sh("readlink /proc/self/ns/mnt"));
    Pass
}

/// runtime.md, "State": the pid as seen by the container.
fn hooks_of_the_container_know_the_pid_that_it_has_there(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 passes the host's");
    let log = ctx.host_dir("log", "file", "");
    let container = ctx.running(|c| {
        config::mount(c, "bind", &log, &log, &["bind"]);
        hooks(c, "createContainer", &[&format!("cat > {log}/createContainer")]);
        hooks(c, "startContainer", &[&format!("cat > {log}/startContainer")]);
    });
    for kind in ["createContainer", "startContainer"] {
        let state: Value = serde_json::from_str(&read(Path::new(&log).join(kind).as_ref())).unwrap();
        assert_eq!((&state["pid"], &state["id"]), (&json!(1), &json!(container.id)), "{kind}");
    }
    Pass
}

fn start_container_sees_the_root_file_system(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| {
        config::shell(c, "cat /tmp/mark; sleep 1000");
        hooks(c, "startContainer", &["hostname > /tmp/mark"]);
    });
    assert!(!container.bundle.rootfs("/tmp/mark").exists(), "not before start");
    container.start().ok();
    ctx.wait_until("the program has printed", || container.printed() == "inside\n");
    Pass
}

fn a_failing_create_hook_leaves_nothing(ctx: &Ctx) -> Outcome {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let second = ctx.path(kind);
        let mut container = ctx.container(ctx.bundle(|c| hooks(c, kind, &["exit 3", &format!("touch {second}")])));
        container.create().exits(1);
        container.verb("state").refused("does not exist");
        assert!(!Path::new(&second).exists(), "no {kind} hook may follow the failed one");
    }
    Pass
}

fn a_failing_hook_is_named_with_what_it_said(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|c| hooks(c, "createRuntime", &["echo the reason >&2; exit 3"])));
    container.create().refused("the reason").refused("3");
    Pass
}

fn a_failing_start_container_hook_ends_the_container(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| {
        config::shell(c, "echo must not run");
        hooks(c, "startContainer", &["exit 3"]);
    });
    container.start().exits(1).refused("startContainer");
    container.verb("state").refused("does not exist");
    assert!(!container.printed().contains("must not run"));
    Pass
}

/// runtime.md, "Lifecycle", steps 3 to 9 and 13: whatever hook fails before, the poststop hooks run when the container is gone.
fn poststop_hooks_follow_a_failed_hook(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 leaves some of it to delete");
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let log = ctx.path(kind);
        let mut container = ctx.container(ctx.bundle(|c| {
            hooks(c, kind, &["exit 3"]);
            hooks(c, "poststop", &[&format!("grep -o stopped >> {log}")]);
        }));
        let created = container.create();
        let failed = if created.code == 0 { container.start() } else { created };
        failed.exits(1).refused(kind);
        assert_eq!(read(log.as_ref()), "stopped\n", "{kind}");
        container.verb("state").refused("does not exist");
    }
    Pass
}

/// Steps 12 and 13 of the lifecycle come to whoever deletes what a create that was killed has left.
fn poststop_hooks_follow_a_killed_create(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no promise about a death in the middle");
    for kind in ["createRuntime", "createContainer"] {
        let (begun, log) = (ctx.path(&format!("{kind}-begun")), ctx.path(kind));
        let container = ctx.container(ctx.bundle(|c| {
            hooks(c, kind, &[&format!("touch {begun}; exec sleep 60")]);
            hooks(c, "poststop", &[&format!("grep -o stopped >> {log}")]);
        }));
        let create = ctx.rt_command(&["create", "--bundle", container.bundle.path(), &container.id]).spawn();
        ctx.wait_until("the hook runs", || Path::new(&begun).exists());
        ctx.host(&["kill", "-9", &create.pid()]).ok();
        create.wait().exits(128 + 9);
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert_eq!(read(log.as_ref()), "stopped\n", "{kind}");
        container.verb("state").refused("does not exist");
    }
    Pass
}

/// "Generating an error MUST leave the state of the environment as if the operation were never attempted."
fn no_hook_follows_a_failure_before_the_first(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log");
    let mut container = ctx.container(ctx.bundle(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "ipc");
        crate::config::namespace(c, "ipc", Some("/nonexistent/ipc"));
        hooks(c, "createRuntime", &["true"]);
        hooks(c, "poststop", &[&format!("echo poststop >> {log}")]);
    }));
    container.create().exits(1);
    assert_eq!(read(log.as_ref()), "");
    Pass
}

fn a_failing_poststart_hook_ends_the_container(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 runs them in create");
    let container = ctx.create(|c| hooks(c, "poststart", &["exit 3"]));
    let pid = container.pid();
    container.start().exits(1).refused("poststart");
    ctx.wait_until("the program is gone", || !Path::new(&format!("/proc/{pid}/fd/0")).exists());
    container.verb("state").refused("does not exist");
    Pass
}

fn a_failing_poststop_hook_is_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 fails, and leaves out the next ones");
    let second = ctx.path("second");
    let container = ctx.running(|c| hooks(c, "poststop", &["exit 3", &format!("touch {second}")]));
    container.stop();
    let output = container.delete().ok();
    assert!(output.stderr.contains("poststop"), "{output}");
    assert!(Path::new(&second).exists(), "the next hook runs");
    container.verb("state").refused("does not exist");
    Pass
}

fn a_hook_that_takes_too_long_is_killed(ctx: &Ctx) -> Outcome {
    let began = std::time::Instant::now();
    let mut container = ctx.container(ctx.bundle(|c| {
        c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1 }]);
    }));
    container.create().exits(1);
    assert!(began.elapsed().as_secs() < 10);
    container.verb("state").refused("does not exist");
    Pass
}

fn a_hook_need_not_read_its_input(ctx: &Ctx) -> Outcome {
    ctx.create(|c| {
        let long = "x".repeat(100_000);
        c["annotations"] = json!({ "org.example": long });
        hooks(c, "createRuntime", &["exec 0<&-; exit 0"]);
    });
    Pass
}

fn a_missing_hook_is_refused(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|c| c["hooks"]["createRuntime"] = json!([{ "path": "/nonexistent/hook" }])));
    container.create().exits(1).refused("/nonexistent/hook");
    Pass
}

fn a_relative_hook_path_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no peer enforces it");
    let mut container = ctx.container(ctx.bundle(|c| c["hooks"]["poststop"] = json!([{ "path": "bin/true" }])));
    container.create().exits(1).refused("hooks.poststop[0].path");
    Pass
}

fn a_timeout_of_zero_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no peer enforces it");
    let mut container = ctx.container(ctx.bundle(|c| c["hooks"]["poststop"] = json!([{ "path": "/bin/true", "timeout": 0 }])));
    container.create().exits(1).refused("hooks.poststop[0].timeout");
    Pass
}

fn hooks_of_create_see_the_id_in_use(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc writes its record last");
    let log = ctx.path("log");
    let script = format!(
        "id=$(sed 's/.*\"id\": *\"\\([^\"]*\\)\".*/\\1/'); {} --root {} state $id > {log} 2>&1",
        ctx.runtime().display(),
        ctx.path("state")
    );
    let mut container = ctx.container(ctx.bundle(|c| hooks(c, "createRuntime", &[&format!("tr -d '\\n' | ( {script} )")])));
    container.create().ok();
    assert!(read(log.as_ref()).contains("\"creating\""), "{}", read(log.as_ref()));
    Pass
}

fn no_descriptor_leaks_into_hooks(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log");
    let container = ctx.container(ctx.bundle(|c| {
        hooks(
            c,
            "createRuntime",
            &[&format!("for fd in 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd >> {log}; done; true")],
        );
        config::shell(c, "exit 0");
    }));
    container.run_command(&[]).after("exec 9</etc").run().ok();
    assert_eq!(read(log.as_ref()), "");
    Pass
}

fn hooks_of_create_need_no_cgroup_mount(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log");
    ctx.create(|c| {
        c["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
        for kind in ["prestart", "createRuntime", "createContainer"] {
            hooks(c, kind, &[&format!("echo {kind} >> {log}")]);
        }
    });
    assert_eq!(read(log.as_ref()), "prestart\ncreateRuntime\ncreateContainer\n");
    Pass
}

fn a_poststart_hook_finds_a_program_that_has_begun(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "with the others it is a race");
    for _ in 0..5 {
        let log = ctx.path("log");
        let container = ctx.create(|c| {
            config::shell(c, "echo program >> /tmp/log");
            let inside = format!("{}/tmp/log", ctx.path("link"));
            hooks(c, "poststart", &[&format!("cp {inside} {log}; echo hook >> {log}")]);
        });
        std::os::unix::fs::symlink(container.bundle.rootfs("/"), ctx.path("link")).unwrap();
        container.start().ok();
        assert_eq!(read(log.as_ref()), "program\nhook\n");
        fs::remove_file(ctx.path("link")).unwrap();
    }
    Pass
}
