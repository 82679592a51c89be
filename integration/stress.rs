//! The same again and again: every exit status is right, nothing hangs, nothing is left.
//!
//! `RT_STRESS` is the number of containers per test (200 without it).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::ctx::{Bundle, Ctx, read};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        many_containers_one_after_the_other,
        many_containers_four_at_a_time,
    }
}

fn count() -> usize {
    std::env::var("RT_STRESS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// A bundle for each exit status that is wanted at the same time.
fn exiting_bundle(ctx: &Ctx) -> Bundle {
    ctx.bundle(|c| c["process"]["args"] = json!(["sh", "-c", "exit 0"]))
}

/// Runs a container to its end; a hang ends after twenty seconds, with the status of timeout(1).
fn run_one(ctx: &Ctx, bundle: &Bundle, id: &str, number: usize) {
    let status = i32::try_from(number % 256).unwrap();
    bundle.edit(|c| c["process"]["args"] = json!(["sh", "-c", format!("exit {status}")]));
    let mut command = Command::new("timeout");
    command.arg("--signal=KILL").arg("20").arg(ctx.runtime()).args(["--root", &ctx.path("state"), "run", "--bundle"]);
    let output = command.arg(bundle.path()).arg(id).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(status), ""), "container number {number}");
}

/// No state, no control group, and no process, not even a dead one: a zombie keeps its place in the group of version 2.
fn assert_nothing_left(ctx: &Ctx, stem: &str) {
    let state: Vec<_> = fs::read_dir(ctx.state_root()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(state.is_empty(), "{state:?}");
    let find = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("{stem}*")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&find.stdout), "");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let groups = read(&entry.path().join("cgroup"));
        assert!(!groups.contains(stem), "{}: {groups}", entry.path().display());
    }
    assert!(!read(Path::new("/proc/self/mountinfo")).contains(stem));
}

fn many_containers_one_after_the_other(ctx: &Ctx) -> Outcome {
    let (bundle, id) = (exiting_bundle(ctx), ctx.fresh("stress-row"));
    for number in 0..count() {
        run_one(ctx, &bundle, &id, number);
    }
    assert_nothing_left(ctx, &id);
    Pass
}

fn many_containers_four_at_a_time(ctx: &Ctx) -> Outcome {
    const AT_A_TIME: usize = 4;
    let stem = ctx.fresh("stress-four");
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for thread in 0..AT_A_TIME {
            let (bundle, id) = (exiting_bundle(ctx), format!("{stem}-{thread}"));
            threads.push(scope.spawn(move || {
                for number in (thread..count()).step_by(AT_A_TIME) {
                    run_one(ctx, &bundle, &id, number);
                }
            }));
        }
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    assert_nothing_left(ctx, &stem);
    Pass
}
