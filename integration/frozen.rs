//! Commands that meet a container while it is frozen, or about to be.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::ctx::{Container, Ctx, Running, read};
use crate::hierarchy::{in_pure_view, in_version_1_view, unified};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        pause_and_resume_race_with_execs,
        pause_and_resume_race_with_execs_in_version_1,
        pause_and_resume_race_with_execs_in_version_2,
        an_exec_that_is_interrupted_while_frozen_leaves_nothing,
        an_exec_that_is_interrupted_while_frozen_leaves_nothing_in_version_1,
        an_exec_that_is_interrupted_while_frozen_leaves_nothing_in_version_2,
    }
}

/// What a process writes that is told to `work`: the number grows for a third of a second.
fn written(container: &Container) -> u64 {
    fs::metadata(container.bundle.rootfs("log")).map_or(0, |file| file.len())
}

fn at_work(container: &Container) -> Running {
    let script = "i=0; while test $i -lt 30; do echo >> /log; i=$((i+1)); usleep 10000; done";
    container.exec_command(&[], &["sh", "-c", script]).spawn()
}

/// Twenty at a time: those that come too late are told so, the others stand still as a whole, and go on as a whole.
fn pause_and_resume_race_with_execs(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no promise about commands at the same time");
    ctx.may_take(1, Duration::from_secs(30));
    let container = ctx.running(|_| {});
    let mut done = 0;
    for round in 0..4 {
        let execs: Vec<Running> = (0..20).map(|_| at_work(&container)).collect();
        std::thread::sleep(Duration::from_millis(20 * round));
        container.verb("pause").ok();
        let before = written(&container);
        assert_eq!(container.status(), "paused");
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(written(&container), before, "somebody runs while the container is paused");
        assert_eq!(container.status(), "paused");
        container.verb("resume").ok();
        assert_eq!(container.status(), "running");
        for output in execs.into_iter().map(Running::wait) {
            match output.code {
                0 => done += 30,
                _ => drop(output.exits(255).refused("cannot exec in a paused container")),
            }
        }
        assert_eq!(written(&container), done);
    }
    // The container's own process, and nobody else.
    assert_eq!(container.verb("ps").ok().lines().len(), 2);
    container.exec(&[], &["true"]).ok();
    Pass
}

fn pause_and_resume_race_with_execs_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, pause_and_resume_race_with_execs)
}

fn pause_and_resume_race_with_execs_in_version_2(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("the test without a view is the same here".to_owned());
    }
    in_pure_view(ctx, pause_and_resume_race_with_execs)
}

/// An exec whose process is in the frozen cgroup, and does not get on.
fn stuck<'c>(ctx: &'c Ctx<'c>, container: &Container<'c>) -> Running {
    let exec = container.exec_command(&["--ignore-paused"], &["sh", "-c", "echo >> /log; exec sleep 1000"]).spawn();
    // It has made its process, which is in the container's cgroup, and waits for it.
    ctx.wait_until("the exec waits", || read(format!("/proc/{}/wchan", exec.pid()).as_ref()).contains("poll"));
    std::thread::sleep(Duration::from_millis(100));
    exec
}

fn an_exec_that_is_interrupted_while_frozen_leaves_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others wait, or leave their processes");
    let container = ctx.running(|_| {});
    for (signal, code) in [("TERM", None), ("INT", None), ("KILL", Some(137))] {
        container.verb("pause").ok();
        let exec = stuck(ctx, &container);
        ctx.host(&["kill", &format!("-{signal}"), &exec.pid()]).ok();
        let resume = std::thread::scope(|scope| {
            let resumed = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                container.verb("resume")
            });
            let output = exec.wait();
            assert!(output.code != 0 && code.is_none_or(|code| code == output.code), "{output}");
            resumed.join().unwrap()
        });
        resume.ok();
        ctx.wait_until("the process of the exec is gone", || container.verb("ps").ok().lines().len() == 2);
        assert_eq!(container.status(), "running");
        assert!(!Path::new(&container.bundle.rootfs("log")).exists(), "the program of the interrupted exec ran");
    }
    container.exec(&[], &["true"]).ok();
    Pass
}

fn an_exec_that_is_interrupted_while_frozen_leaves_nothing_in_version_1(ctx: &Ctx) -> Outcome {
    in_version_1_view(ctx, an_exec_that_is_interrupted_while_frozen_leaves_nothing)
}

fn an_exec_that_is_interrupted_while_frozen_leaves_nothing_in_version_2(ctx: &Ctx) -> Outcome {
    if unified() {
        return Skip("the test without a view is the same here".to_owned());
    }
    in_pure_view(ctx, an_exec_that_is_interrupted_while_frozen_leaves_nothing)
}
