//! create, start, state, kill, delete: what each does, and when it is refused.

use std::path::Path;

use serde_json::json;

use crate::config;
use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        statuses_from_created_to_gone,
        create_does_not_run_the_program,
        create_prints_nothing,
        state_tells_what_the_specification_asks_for,
        pid_file_holds_digits_and_no_newline,
        create_with_an_id_in_use_is_refused_and_changes_nothing,
        start_twice_is_refused,
        start_of_a_stopped_container_is_refused,
        kill_reaches_a_created_container,
        kill_takes_names_and_numbers,
        kill_sends_term_by_default,
        kill_of_a_stopped_container_says_not_running,
        kill_with_an_unknown_signal_is_refused,
        delete_of_a_created_container_kills_it,
        delete_of_a_running_container_is_refused,
        delete_force_kills_a_running_container,
        delete_force_of_an_unknown_id_succeeds,
        unknown_ids_do_not_exist,
        failed_create_leaves_no_container,
        an_edit_of_config_json_after_create_has_no_effect,
        an_id_is_usable_again_after_delete,
        init_belongs_to_the_caller_of_create,
        stopped_while_nobody_has_reaped_init,
        init_is_a_child_of_the_caller_s_subreaper,
        a_time_namespace_of_the_caller_changes_nothing,
        nobody_who_reaps_late_holds_delete_up,
        a_program_whose_first_thread_has_ended_runs,
        the_start_fifo_has_the_name_that_tools_expect,
        a_container_without_a_process_is_made_and_removed,
        a_signal_right_after_start_finds_its_handler,
        creating_is_seen_from_another_process,
        every_operation_needs_an_id,
        everything_but_the_program_is_there_after_create,
        what_is_paused_is_not_deleted,
        a_bundle_that_is_its_own_root,
    }
    Root { a_lost_config_json_does_not_matter_to_delete }
    Root {
        run_adopts_orphans_of_the_container,
    }
}

fn statuses_from_created_to_gone(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|_| {});
    assert_eq!(container.status(), "created");
    container.start().ok();
    assert_eq!(container.status(), "running");
    container.stop();
    container.delete().ok();
    container.verb("state").refused("does not exist");
    Pass
}

fn create_does_not_run_the_program(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| config::shell(c, "echo started; sleep 1000"));
    assert_eq!(container.printed(), "");
    container.start().ok();
    ctx.wait_until("the program prints", || container.printed() == "started\n");
    Pass
}

fn create_prints_nothing(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|_| {}));
    let output = container.create().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    Pass
}

fn state_tells_what_the_specification_asks_for(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| c["annotations"] = json!({ "org.example.a": "1", "org.example.empty": "" }));
    let state = container.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], *container.id);
    assert_eq!(state["bundle"], *container.bundle.path());
    assert_eq!(state["annotations"], json!({ "org.example.a": "1", "org.example.empty": "" }));
    let pid = state["pid"].as_u64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{state}");
    container.start().ok();
    container.stop();
    assert!(container.state()["pid"].as_u64().unwrap_or(0) == 0);
    Pass
}

fn pid_file_holds_digits_and_no_newline(ctx: &Ctx) -> Outcome {
    let file = ctx.path("pid");
    let mut container = ctx.container(ctx.bundle(|_| {}));
    container.create_with(&["--pid-file", &file]).ok();
    assert_eq!(read(file.as_ref()), container.pid().to_string());
    Pass
}

fn create_with_an_id_in_use_is_refused_and_changes_nothing(ctx: &Ctx) -> Outcome {
    let mut container = ctx.create(|_| {});
    let before = container.state();
    container.create().refused("already exists");
    assert_eq!(container.state(), before);
    container.start().ok();
    Pass
}

fn start_twice_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.start().refused("");
    assert_eq!(container.status(), "running");
    Pass
}

fn start_of_a_stopped_container_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::shell(c, "echo once"));
    container.wait_for("stopped");
    container.start().refused("");
    assert_eq!(container.printed(), "once\n");
    Pass
}

fn kill_reaches_a_created_container(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|_| {});
    container.stop();
    container.delete().ok();
    Pass
}

fn kill_takes_names_and_numbers(ctx: &Ctx) -> Outcome {
    let container = ctx
        .running(|c| config::shell(c, "trap 'echo usr1' USR1; trap 'echo usr2' USR2; echo ready; while :; do sleep 0.01; done"));
    ctx.wait_until("the traps are set", || container.printed() == "ready\n");
    for (count, signal) in ["USR1", "SIGUSR1", "10", "USR2"].iter().enumerate() {
        container.kill(signal).ok();
        ctx.wait_until(signal, || container.printed().lines().count() == count + 2);
    }
    assert_eq!(container.printed(), "ready\nusr1\nusr1\nusr1\nusr2\n");
    Pass
}

fn kill_sends_term_by_default(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::shell(c, "trap 'echo term; exit' TERM; echo ready; while :; do sleep 0.01; done"));
    ctx.wait_until("the trap is set", || container.printed() == "ready\n");
    container.verb("kill").ok();
    container.wait_for("stopped");
    assert_eq!(container.printed(), "ready\nterm\n");
    Pass
}

fn kill_of_a_stopped_container_says_not_running(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::shell(c, "exit 0"));
    container.wait_for("stopped");
    let before = container.state();
    container.kill("TERM").exits(1).refused("container not running");
    assert_eq!(container.state(), before);
    Pass
}

fn kill_with_an_unknown_signal_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.kill("NONSENSE").refused("");
    assert_eq!(container.status(), "running");
    Pass
}

fn delete_of_a_created_container_kills_it(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|_| {});
    let pid = container.pid();
    container.delete().ok();
    ctx.wait_until("init is gone", || !alive(pid));
    container.verb("state").refused("does not exist");
    Pass
}

fn delete_of_a_running_container_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.delete().exits(1);
    assert_eq!(container.status(), "running");
    Pass
}

fn delete_force_kills_a_running_container(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let pid = container.pid();
    ctx.rt(&["delete", "--force", &container.id]).ok();
    ctx.wait_until("init is gone", || !alive(pid));
    container.verb("state").refused("does not exist");
    Pass
}

fn delete_force_of_an_unknown_id_succeeds(ctx: &Ctx) -> Outcome {
    ctx.rt(&["delete", "--force", "never-made"]).ok();
    Pass
}

fn unknown_ids_do_not_exist(ctx: &Ctx) -> Outcome {
    for verb in ["state", "start", "kill", "delete"] {
        ctx.rt(&[verb, "never-made"]).exits(1).refused("does not exist");
    }
    ctx.rt(&["exec", "never-made", "true"]).exits(255).refused("does not exist");
    Pass
}

fn failed_create_leaves_no_container(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["/no/such/program"])));
    container.create().exits(1);
    container.verb("state").refused("does not exist");
    container.bundle.edit(|c| c["process"]["args"] = json!(["true"]));
    container.create().ok();
    Pass
}

fn an_edit_of_config_json_after_create_has_no_effect(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| config::shell(c, "echo the first"));
    container.bundle.edit(|c| config::shell(c, "echo the second"));
    container.start().ok();
    container.wait_for("stopped");
    assert_eq!(container.printed(), "the first\n");
    Pass
}

fn an_id_is_usable_again_after_delete(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|_| {}));
    for _ in 0..3 {
        container.create().ok();
        ctx.rt(&["delete", "--force", &container.id]).ok();
    }
    Pass
}

/// Engines' monitors wait for init: it is reparented to whoever is the subreaper, with nothing of ours between.
fn init_belongs_to_the_caller_of_create(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|_| {});
    let parent = field(container.pid(), "PPid");
    let program = std::fs::read_link(format!("/proc/{parent}/exe")).unwrap_or_default();
    assert!(program != ctx.runtime(), "the runtime stays as the parent of init");
    Pass
}

/// Nobody waits for init here when the test's caller is a subreaper, and a zombie counts as stopped.
fn stopped_while_nobody_has_reaped_init(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["true"])));
    let script = format!(
        "{0} --root {1} create --bundle {2} {3} && {0} --root {1} start {3}; sleep 0.3; {0} --root {1} state {3}",
        ctx.runtime().display(),
        ctx.path("state"),
        container.bundle.path(),
        container.id
    );
    let state = ctx.command(&[ctx.probe().as_str(), "subreaper", "sh", "-c", &script]).run().ok().json();
    assert_eq!(state["status"], "stopped", "{state}");
    Pass
}

/// The kernel ends the first process of a pid namespace when everybody in it was reaped, and what was started from outside is reaped outside.
fn nobody_who_reaps_late_holds_delete_up(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "some wait until they lose patience");
    for (kill, delete) in [("true", "delete --force"), ("$rt kill $id KILL; sleep 0.3; $rt state $id", "delete")] {
        let container = ctx.running(|_| {});
        let script = format!(
            "rt='{} --root {}' id={}; now() {{ date +%s%N; }}; $rt exec --detach $id sleep 1000 || exit; {kill}
             before=$(now); $rt {delete} $id || exit; between=$(now); $rt --version >&2; after=$(now)
             echo $(((between - before - 10 * (after - between)) / 1000000))",
            ctx.runtime().display(),
            ctx.path("state"),
            container.id,
        );
        let output = ctx.command(&[ctx.probe().as_str(), "subreaper", "sh", "-c", &script]).run().ok();
        // As slow as the machine is at the moment: a delete takes less than ten programs that only start.
        let took: i64 = output.lines().last().unwrap().parse().unwrap();
        assert!(took < 900, "{took} ms");
        assert!(kill == "true" || output.stdout.contains("\"status\": \"stopped\""), "{output}");
        assert!(!ctx.state_root().join(&container.id).exists());
    }
    Pass
}

/// The kernel shows a caller when a process was started by the clock of the caller's time namespace.
fn a_time_namespace_of_the_caller_changes_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others take the process for another one");
    if ctx.uid() != 0 || !Path::new("/proc/self/ns/time").exists() {
        return Skip("needs root, and a kernel with time namespaces".to_owned());
    }
    let apart = |arguments: &[&str]| {
        let runtime = ctx.runtime().to_str().unwrap();
        let unshare = ["unshare", "--time", "--boottime", "86401", "--monotonic", "1000", runtime, "--root"];
        ctx.command(&[&unshare, [ctx.path("state").as_str()].as_slice(), arguments].concat()).run()
    };
    let container = ctx.running(|_| {});
    assert_eq!(apart(&["state", &container.id]).ok().json()["status"], "running");
    apart(&["exec", &container.id, "true"]).ok();
    apart(&["delete", &container.id]).refused("container still running");
    let inside = ctx.container(ctx.bundle(|_| {}));
    apart(&["create", "--bundle", inside.bundle.path(), &inside.id]).ok();
    assert_eq!(inside.status(), "created");
    inside.start().ok();
    assert_eq!(inside.status(), "running");
    apart(&["kill", &inside.id, "KILL"]).ok();
    ctx.wait_until("it ends", || apart(&["state", &inside.id]).json()["status"] == "stopped");
    Pass
}

/// What is left of its first thread is a zombie, as long as the others run.
fn a_program_whose_first_thread_has_ended_runs(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others take it for a zombie");
    let container = ctx.running(|c| c["process"]["args"] = json!(["probe", "leaderless"]));
    ctx.wait_until("its first thread ends", || field(container.pid(), "State").starts_with('Z'));
    assert_eq!(container.status(), "running");
    container.delete().refused("container still running");
    container.kill("KILL").ok();
    ctx.wait_until("it ends", || container.status() == "stopped");
    container.delete().ok();
    Pass
}

/// As conmon and the shim wait for it.
fn init_is_a_child_of_the_caller_s_subreaper(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    let script = format!(
        "{0} --root {1} create --pid-file {4} --bundle {2} {3} && echo $PPID && grep PPid /proc/$(cat {4})/status",
        ctx.runtime().display(),
        ctx.path("state"),
        container.bundle.path(),
        container.id,
        ctx.path("pid")
    );
    let output = ctx.command(&[ctx.probe().as_str(), "subreaper", "sh", "-c", &script]).run().ok();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!((words[1], words[2]), ("PPid:", words[0]), "{output}");
    Pass
}

/// Where the container has the host's processes, `run` waits for those whose parents have ended; with the flag they are somebody else's.
fn run_adopts_orphans_of_the_container(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| {
        config::without_namespace(c, "pid");
        config::shell(c, "(sh -c 'sleep 0.3; grep PPid /proc/$$/status' &); sleep 0.8");
    }));
    for (flags, adopted) in [(&[][..], true), (&["--no-subreaper"][..], false)] {
        let running = container.run_command(flags).spawn();
        let pid = running.pid();
        let output = running.wait().ok();
        assert_eq!(output.text().ends_with(&format!("\t{pid}")), adopted, "{pid}: {output}");
    }
    Pass
}

/// exec.fifo in the container's folder, as long as it waits for start.
fn the_start_fifo_has_the_name_that_tools_expect(ctx: &Ctx) -> Outcome {
    use std::os::unix::fs::FileTypeExt;
    let container = ctx.create(|_| {});
    let fifo = ctx.state_root().join(&container.id).join("exec.fifo");
    assert!(std::fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    container.start().ok();
    assert!(!fifo.exists());
    Pass
}

fn a_lost_config_json_does_not_matter_to_delete(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    std::fs::remove_file(container.bundle.dir.join("config.json")).unwrap();
    container.stop();
    container.delete().ok();
    Pass
}

fn a_container_without_a_process_is_made_and_removed(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc refuses it in create");
    let container = ctx.create(|c| drop(c.as_object_mut().unwrap().remove("process")));
    assert_eq!(container.status(), "created");
    let began = std::time::Instant::now();
    container.start().exits(1).refused("process is missing");
    assert_eq!(container.status(), "created");
    container.delete().ok();
    // Its init holds nothing that other commands wait for.
    assert!(began.elapsed().as_secs() < 5);
    Pass
}

fn a_signal_right_after_start_finds_its_handler(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others send it at once");
    for _ in 0..5 {
        let container = ctx.create(|c| config::shell(c, "trap 'echo caught; exit' TERM; sleep 1000 & wait"));
        container.start().ok();
        container.kill("TERM").ok();
        container.wait_for("stopped");
        assert_eq!(container.printed(), "caught\n");
    }
    Pass
}

fn a_bundle_that_is_its_own_root(ctx: &Ctx) -> Outcome {
    let bundle = ctx.bundle(|c| config::shell(c, "test -e /config.json && echo here"));
    let (root, path) = (bundle.rootfs("/"), bundle.path().to_owned());
    for entry in std::fs::read_dir(&root).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), format!("{path}/{}", entry.file_name().to_str().unwrap())).unwrap();
    }
    std::fs::remove_dir(&root).unwrap();
    bundle.edit(|c| c["root"]["path"] = json!("."));
    let container = ctx.container(bundle);
    assert_eq!(container.run_command(&[]).run().ok().stdout, "here\n");
    Pass
}

/// A field of `/proc/PID/status`.
fn field(pid: u64, name: &str) -> String {
    let status = read(format!("/proc/{pid}/status").as_ref());
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// True while the process exists and is no zombie.
fn alive(pid: u64) -> bool {
    !matches!(field(pid, "State").chars().next(), None | Some('Z' | 'X'))
}

/// runtime.md, "State": `creating`, until create is done. Nothing may be done to it meanwhile.
fn creating_is_seen_from_another_process(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 writes its record last");
    let go = ctx.path("go");
    let container = ctx.container(ctx.bundle(|c| {
        let script = format!("for i in $(seq 500); do test -e {go} && exit 0; sleep 0.02; done; exit 1");
        c["hooks"]["createRuntime"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }]);
    }));
    let create = ctx.rt_command(&["create", "--bundle", container.bundle.path(), &container.id]).spawn();
    ctx.wait_until("the container appears", || container.verb("state").code == 0);
    assert_eq!(container.status(), "creating");
    let another = ctx.rt(&["create", "--bundle", container.bundle.path(), &container.id]);
    another.refused("already exists");
    container.kill("KILL").refused("");
    assert_eq!(container.status(), "creating");
    std::fs::write(&go, "").unwrap();
    create.wait().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    Pass
}

fn every_operation_needs_an_id(ctx: &Ctx) -> Outcome {
    for verb in ["state", "create", "start", "kill", "delete"] {
        let output = ctx.rt(&[verb]);
        assert_ne!(output.code, 0, "{output}");
    }
    Pass
}

/// runtime.md, "Create": all properties but `process` are applied, and `process.args` is not.
fn everything_but_the_program_is_there_after_create(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| {
        crate::config::shell(c, "touch /data/ran; sleep 1000");
        crate::config::mount(c, "tmpfs", "tmpfs", "/tmp", &["size=1m"]);
    });
    assert_eq!(container.sh("hostname; stat -f -c %T /tmp; test -e /data/ran || echo waiting"), "inside\ntmpfs\nwaiting");
    container.start().ok();
    ctx.wait_until("the program runs", || container.bundle.rootfs("/data/ran").exists());
    Pass
}

fn what_is_paused_is_not_deleted(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    if container.verb("pause").code != 0 {
        return crate::runner::Outcome::Skip("no control group to freeze".to_owned());
    }
    container.delete().refused("");
    assert_eq!(container.status(), "paused");
    container.verb("resume").ok();
    Pass
}
