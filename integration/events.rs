//! `events`: usage figures in runc's form, and what happens to a container, when it happens.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, Running, read};
use crate::hierarchy::{Version, in_pure_view, unified_mount, version};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        the_exit_is_told,
        the_exit_status_is_told,
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
        memory_high_is_told,
        pause_and_resume_are_told_in_version_2,
        stats_have_every_field_of_runc,
        a_wrong_threshold_is_refused,
    }
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
    // Nanoseconds on a CPU, nanoseconds of waiting for one, and turns on one; the user's and the kernel's ticks.
    let times = || {
        let stat = read(format!("/proc/{}/stat", events.pid()).as_ref());
        let ticks: Vec<String> = stat.rsplit(')').next().unwrap().split(' ').skip(12).take(2).map(str::to_owned).collect();
        (read(format!("/proc/{}/schedstat", events.pid()).as_ref()), ticks)
    };
    let before = times();
    // Who makes a system call has had a turn.
    std::thread::sleep(Duration::from_millis(2500));
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
    let container = ctx.running(|c| c["linux"]["resources"] = json!({ "pids": { "limit": 4 } }));
    // The kernel counts it in both versions, and announces it in version 2: in version 1 it is told with the figures.
    let flags: &[&str] = if version("pids") == Some(Version::V1) { &["--interval", "100ms"] } else { &[] };
    let events = watch(ctx, &container, flags);
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
    if unified_mount().is_none() || read(Path::new("/proc/pressure/cpu")).is_empty() {
        return Skip("no pressure information".to_owned());
    }
    // Two that want one CPU.
    let container = ctx.running(|c| c["linux"]["resources"] = json!({ "cpu": { "cpus": "0", "mems": "0" } }));
    // Without CAP_SYS_RESOURCE the window is a multiple of two seconds.
    let events = watch(ctx, &container, &["--pressure", "cpu:some:50ms/2s"]);
    let hogs = [0, 1].map(|_| container.exec_command(&[], &["timeout", "20", "sh", "-c", "while :; do :; done"]).spawn());
    ctx.wait_until("it is told", || kinds(&events.stdout_so_far()).contains(&"pressure".to_owned()));
    drop(hogs);
    let line = lines(&events.stdout_so_far()).into_iter().find(|line| line["type"] == "pressure").unwrap();
    assert_eq!((&line["data"]["resource"], &line["data"]["stall"]), (&json!("cpu"), &json!(50_000)));
    Pass
}

fn memory_high_is_told(ctx: &Ctx) -> Outcome {
    if version("memory") != Some(Version::V2) {
        return Skip("version 1 has no memory.high".to_owned());
    }
    let container = ctx.running(|c| c["linux"]["resources"] = json!({ "unified": { "memory.high": "16777216" } }));
    let events = watch(ctx, &container, &[]);
    ctx.wait_until("it is told", || {
        container.exec(&[], &["sh", "-c", "head -c 40000000 /dev/zero > /data/file"]);
        kinds(&events.stdout_so_far()).contains(&"memory-high".to_owned())
    });
    let line = lines(&events.stdout_so_far()).into_iter().find(|line| line["type"] == "memory-high").unwrap();
    assert!(line["data"]["count"].as_u64().unwrap() > 0, "{line}");
    Pass
}

/// What the unified tree announces, where it is all there is.
fn pause_and_resume_are_told_in_version_2(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, pause_and_resume_are_told)
}

/// The end of a program that is still to be waited for, so that every kernel knows its status.
fn the_exit_status_is_told(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "until [ -e /data/go ]; do sleep 0.02; done; exit 3");
        config::mount(c, "bind", &ctx.host_dir("signal", ".keep", ""), "/data", &["bind"]);
    }));
    let run = container.run_command(&[]).spawn();
    ctx.wait_until("it runs", || ctx.rt(&["state", &container.id]).stdout.contains("\"running\""));
    let events = watch(ctx, &container, &[]);
    std::fs::write(ctx.path("signal/go"), "").unwrap();
    assert_eq!(run.wait().code, 3);
    let last = lines(&events.wait().ok().stdout).pop().unwrap();
    assert!(last["data"] == json!({ "code": 3 }) || last["data"] == json!({}), "{last}");
    Pass
}

/// Field by field what `runc events --stats` says (of which those that are zero may be missing).
fn stats_have_every_field_of_runc(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| {
        c["linux"]["resources"] = json!({ "pids": { "limit": 33 }, "memory": { "limit": 67_108_864 } });
    });
    let stats = ctx.rt(&["events", "--stats", &container.id]).ok().json();
    let data = &stats["data"];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<String>>().join(" ");
    assert_eq!(
        (keys(&stats).as_str(), keys(data).as_str()),
        ("type id data", "cpu cpuset memory pids blkio hugetlb intel_rdt network_interfaces")
    );
    for field in ["usage", "swap", "kernel", "kernelTCP", "raw"] {
        assert!(data["memory"][field].is_object(), "{field}: {data}");
    }
    for field in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ] {
        assert!(data["cpuset"][field].is_i64(), "{field}: {data}");
    }
    assert!(
        data["cpu"]["usage"]["kernel"].is_u64() && data["cpu"]["usage"]["user"].is_u64() && data["cpu"]["throttling"].is_object()
    );
    assert!(data["memory"]["usage"]["failcnt"].is_u64() && data["network_interfaces"].is_null() && data["intel_rdt"].is_object());
    let psi = data["cpu"]["psi"].as_object();
    assert!(psi.is_none_or(|psi| psi["some"]["avg10"].is_f64() && psi["full"]["total"].is_u64()), "{data}");
    Pass
}

fn a_wrong_threshold_is_refused(ctx: &Ctx) -> Outcome {
    ctx.rt(&["events", "--pressure", "disk:some:1/2", "x"]).refused("expected RESOURCE:some|full");
    Pass
}
