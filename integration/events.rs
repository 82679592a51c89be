//! `events`: usage figures in runc's form, and what happens to a container, when it happens.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, Running, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        the_exit_is_told,
        a_stopped_container_has_no_events,
        waiting_costs_nothing,
    }
    Root {
        stats_have_the_form_of_runc,
        stats_come_at_the_interval,
        an_oom_kill_is_told,
        a_reached_pids_limit_is_told,
        pause_and_resume_are_told,
        pressure_is_told,
        a_wrong_threshold_is_refused,
    }
}

/// A cgroup tree with all controllers in version 2.
fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// `rt events --interval 0 FLAGS ID`, which has begun to watch.
fn watch(ctx: &Ctx, container: &Container, flags: &[&str]) -> Running {
    let mut arguments = vec!["events", "--interval", "0"];
    arguments.extend(flags);
    arguments.push(&container.id);
    let running = ctx.rt_command(&arguments).spawn();
    let waits = || read(format!("/proc/{}/syscall", running.pid()).as_ref()).split(' ').next() == Some("7");
    let sleeps = || read(format!("/proc/{}/wchan", running.pid()).as_ref()).contains("poll");
    ctx.wait_until("it waits", || waits() || sleeps());
    running
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(text: &str) -> Vec<String> {
    lines(text).iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect()
}

fn the_exit_is_told(ctx: &Ctx) -> Outcome {
    let container = ctx.create(|c| config::shell(c, "read line < /dev/zero; exit 3"));
    container.start().ok();
    let events = watch(ctx, &container, &[]);
    container.kill("KILL").ok();
    let output = events.wait().ok();
    let last = lines(&output.stdout).pop().unwrap();
    assert_eq!((last["type"].as_str(), last["id"].as_str()), (Some("exit"), Some(container.id.as_str())));
    // An older kernel forgets how a process ended as soon as somebody has waited for it.
    assert!(last["data"]["signal"] == 9 || last["data"] == json!({}), "{last}");
    Pass
}

fn a_stopped_container_has_no_events(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    container.stop();
    ctx.rt(&["events", "--stats", &container.id]).exits(1).refused("container not running");
    Pass
}

fn waiting_costs_nothing(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let events = watch(ctx, &container, &[]);
    let times = || {
        let stat = read(format!("/proc/{}/schedstat", events.pid()).as_ref());
        stat.split(' ').nth(2).unwrap_or_default().to_owned()
    };
    let before = times();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(times(), before, "the process has not run once");
    Pass
}

fn stats_have_the_form_of_runc(ctx: &Ctx) -> Outcome {
    let container =
        ctx.running(|c| c["linux"]["resources"] = json!({ "pids": { "limit": 33 }, "memory": { "limit": 67_108_864 } }));
    let stats = ctx.rt(&["events", "--stats", &container.id]).ok();
    assert_eq!(stats.lines().len(), 1);
    let stats = stats.json();
    assert_eq!((stats["type"].as_str(), stats["id"].as_str()), (Some("stats"), Some(container.id.as_str())));
    let data = &stats["data"];
    assert_eq!((&data["pids"]["current"], &data["pids"]["limit"]), (&json!(1), &json!(33)));
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(
        data["cpu"]["usage"]["total"].as_u64().unwrap() > 0 && data["memory"]["usage"]["usage"].as_u64().unwrap() > 0,
        "{data}"
    );
    Pass
}

fn stats_come_at_the_interval(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let events = ctx.rt_command(&["events", "--interval", "50ms", &container.id]).spawn();
    ctx.wait_until("there are three", || events.stdout_so_far().lines().count() >= 3);
    container.kill("KILL").ok();
    let kinds = kinds(&events.wait().ok().stdout);
    assert!(kinds[..3].iter().all(|kind| kind == "stats") && kinds.last().unwrap() == "exit", "{kinds:?}");
    Pass
}

fn an_oom_kill_is_told(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["linux"]["resources"] = json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }));
    let events = watch(ctx, &container, &[]);
    // Again and again: the first time may be before anybody watches.
    ctx.wait_until("it is told", || {
        container.exec(&[], &["sh", "-c", "head -c 64000000 /dev/zero | tail -c 60000000 > /dev/null"]);
        events.stdout_so_far().contains("oom-kill")
    });
    let told = kinds(&events.stdout_so_far());
    assert!(told.contains(&"oom".to_owned()), "{told:?}");
    Pass
}

fn a_reached_pids_limit_is_told(ctx: &Ctx) -> Outcome {
    if !unified() {
        return Skip("newer kernels announce it in version 2 only".to_owned());
    }
    let container = ctx.running(|c| c["linux"]["resources"] = json!({ "pids": { "limit": 4 } }));
    let events = watch(ctx, &container, &[]);
    ctx.wait_until("it is told", || {
        container.exec(&[], &["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 0.1 & done; wait"]);
        kinds(&events.stdout_so_far()).contains(&"pids-max".to_owned())
    });
    Pass
}

fn pause_and_resume_are_told(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let events = watch(ctx, &container, &[]);
    container.verb("pause").ok();
    ctx.wait_until("the pause is told", || kinds(&events.stdout_so_far()) == ["frozen"]);
    container.verb("resume").ok();
    ctx.wait_until("the end of it is told", || kinds(&events.stdout_so_far()) == ["frozen", "thawed"]);
    Pass
}

fn pressure_is_told(ctx: &Ctx) -> Outcome {
    if !unified() || !Path::new("/proc/pressure/cpu").exists() {
        return Skip("no pressure information".to_owned());
    }
    let container = ctx.running(|c| {
        c["linux"]["resources"] = json!({ "cpu": { "quota": 10_000, "period": 100_000 } });
    });
    let events = watch(ctx, &container, &["--pressure", "cpu:some:50ms/500ms"]);
    let hog = container.exec_command(&[], &["timeout", "20", "sh", "-c", "while :; do :; done"]).spawn();
    ctx.wait_until("it is told", || kinds(&events.stdout_so_far()).contains(&"pressure".to_owned()));
    drop(hog);
    let line = lines(&events.stdout_so_far()).into_iter().find(|line| line["type"] == "pressure").unwrap();
    assert_eq!((&line["data"]["resource"], &line["data"]["stall"]), (&json!("cpu"), &json!(50_000)));
    Pass
}

fn a_wrong_threshold_is_refused(ctx: &Ctx) -> Outcome {
    ctx.rt(&["events", "--pressure", "disk:some:1/2", "x"]).refused("expected RESOURCE:some|full");
    Pass
}
