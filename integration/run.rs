//! run: the exit status, standard streams, signals and files of a container in the foreground or detached.

use serde_json::json;

use crate::config;
use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        exit_status_is_the_program_s,
        exit_status_of_a_killed_program_is_128_plus_the_signal,
        standard_streams_are_passed_through,
        standard_input_stays_a_file,
        nothing_is_left_after_run,
        keep_leaves_a_stopped_container,
        a_program_that_cannot_start_is_status_1,
        detach_returns_while_the_program_runs,
        pid_file_of_a_detached_run,
        term_to_the_runtime_reaches_the_program,
        hup_to_the_runtime_reaches_the_program,
        run_with_an_id_in_use_is_refused,
        the_bundle_may_be_the_working_directory,
        the_bundle_may_be_a_relative_path,
        short_programs_always_return,
        a_deleted_container_leaves_the_next_one_of_its_id_alone,
    }
}

fn exit_status_is_the_program_s(ctx: &Ctx) -> Outcome {
    for code in [0, 1, 7, 255] {
        ctx.sh(&format!("exit {code}")).exits(code);
    }
    Pass
}

fn exit_status_of_a_killed_program_is_128_plus_the_signal(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    let run = container.run_command(&[]).spawn();
    container_appears(ctx, &container.id);
    container.wait_for("running");
    container.kill("KILL").ok();
    run.wait().exits(137);
    Pass
}

fn standard_streams_are_passed_through(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "cat; echo to stderr >&2")));
    let output = container.run_command(&[]).stdin("from stdin\n").run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("from stdin\n", "to stderr\n"));
    Pass
}

/// Descriptors are handed on, not copied: the program finds the caller's own file, at the caller's offset.
fn standard_input_stays_a_file(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|c| config::shell(c, "stat -L -c %F /proc/self/fd/0 /proc/self/fd/1")));
    container.create().ok();
    container.start().ok();
    container.wait_for("stopped");
    assert_eq!(container.printed(), "character special file\nregular empty file\n");
    Pass
}

fn nothing_is_left_after_run(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "exit 0")));
    container.run().ok();
    container.verb("state").refused("does not exist");
    container.run().ok();
    Pass
}

fn keep_leaves_a_stopped_container(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "exit 0")));
    container.run_command(&["--keep"]).run().ok();
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
    Pass
}

fn a_program_that_cannot_start_is_status_1(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["no-such-program"])));
    container.run().exits(1);
    container.verb("state").refused("does not exist");
    Pass
}

fn detach_returns_while_the_program_runs(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    container.run_command(&["--detach"]).run().ok();
    assert_eq!(container.status(), "running");
    Pass
}

fn pid_file_of_a_detached_run(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    let file = ctx.path("pid");
    container.run_command(&["--detach", "--pid-file", &file]).run().ok();
    assert_eq!(read(file.as_ref()), container.pid().to_string());
    Pass
}

fn term_to_the_runtime_reaches_the_program(ctx: &Ctx) -> Outcome {
    forwards(ctx, "TERM")
}

fn hup_to_the_runtime_reaches_the_program(ctx: &Ctx) -> Outcome {
    forwards(ctx, "HUP")
}

fn forwards(ctx: &Ctx, signal: &str) -> Outcome {
    let script = format!("trap 'echo got it; exit 3' {signal}; echo ready; while :; do sleep 0.01; done");
    let container = ctx.container(ctx.bundle(|c| config::shell(c, &script)));
    let run = container.run_command(&[]).spawn();
    ctx.wait_until("the trap is set", || run.stdout_so_far() == "ready\n");
    ctx.host(&["kill", &format!("-{signal}"), &run.pid()]).ok();
    let output = run.wait().exits(3);
    assert_eq!(output.stdout, "ready\ngot it\n");
    Pass
}

fn run_with_an_id_in_use_is_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.run().exits(1).refused("already exists");
    assert_eq!(container.status(), "running");
    Pass
}

fn the_bundle_may_be_the_working_directory(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "echo here")));
    let output = ctx.rt_command(&["run", &container.id]).cwd(&container.bundle.dir).run().ok();
    assert_eq!(output.stdout, "here\n");
    Pass
}

fn the_bundle_may_be_a_relative_path(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    let name = container.bundle.dir.file_name().unwrap().to_str().unwrap();
    ctx.rt_command(&["create", "-b", name, &container.id]).cwd(&ctx.dir).run().ok();
    assert_eq!(container.state()["bundle"], *container.bundle.path());
    container.start().ok();
    Pass
}

/// A program that ends before the runtime begins to wait for it must not be missed.
fn short_programs_always_return(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["true"])));
    for _ in 0..20 {
        container.run().ok();
    }
    Pass
}

fn container_appears(ctx: &Ctx, id: &str) {
    ctx.wait_until("the container exists", || ctx.rt(&["state", id]).code == 0);
}

/// Somebody deletes the container of a foreground run and makes another one of the same id: the run must not take that one down, and its
/// exit status is that of its own program.
fn a_deleted_container_leaves_the_next_one_of_its_id_alone(ctx: &Ctx) -> Outcome {
    for _ in 0..5 {
        let container = ctx.container(ctx.bundle(|c| config::shell(c, "exec sleep 100")));
        let run = container.run_command(&[]).spawn();
        container_appears(ctx, &container.id);
        container.wait_for("running");
        ctx.rt(&["delete", "--force", &container.id]).ok();
        let bundle = container.bundle.path();
        ctx.rt(&["create", "--bundle", bundle, &container.id]).ok();
        run.wait().exits(137);
        assert_eq!(container.status(), "created");
        ctx.rt(&["delete", "--force", &container.id]).ok();
    }
    Pass
}
