//! A whole system in a container: systemd as its init, with a cgroup of its own to divide.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Bundle, Container, Ctx, Running, read};
use crate::hierarchy::unified;
use crate::rootless::with_subordinate_ids;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        systemd_boots_answers_and_stops,
        systemd_runs_in_a_scope_of_systemd_s,
    }
}

/// The root filesystem to boot: `RT_INIT_TREE`, an archive that integration/vm/tree makes. It is unpacked, and then not written to.
macro_rules! tree {
    ($ctx:expr) => {
        match std::env::var("RT_INIT_TREE") {
            Ok(archive) if !unified() => return Skip(format!("{archive} needs a machine with cgroup v2 only")),
            Ok(archive) if Path::new(&archive).exists() => unpacked($ctx, &archive),
            _ => return Skip("no root filesystem with systemd in it (RT_INIT_TREE)".to_owned()),
        }
    };
}

fn unpacked(ctx: &Ctx, archive: &str) -> String {
    let tree = ctx.path("tree");
    std::fs::create_dir(&tree).unwrap();
    ctx.may_take(1, Duration::from_secs(20));
    ctx.command(&["tar", "-C", &tree, "--exclude=./dev/*", "-xf", archive]).run().ok();
    tree
}

/// What systemd asks of a container manager (systemd's CONTAINER_INTERFACE.md): its own cgroup, writable, what it writes on tmpfs, the
/// variable `container`, and no right to end the machine.
fn system(config: &mut Value, tree: &str) {
    config["root"] = json!({ "path": tree, "readonly": true });
    config["process"]["args"] = json!(["/sbin/init", "--log-target=console", "--show-status=false"]);
    config["process"]["env"] = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=rt"]);
    config["process"]["noNewPrivileges"] = json!(false);
    config::namespace(config, "cgroup", None);
    config::without_mount(config, "/sys/fs/cgroup");
    config::mount(config, "cgroup", "cgroup", "/sys/fs/cgroup", &["rw", "nosuid", "noexec", "nodev", "relatime"]);
    for place in ["/run", "/run/lock", "/tmp", "/var/log", "/var/lib", "/var/tmp"] {
        config::mount(config, "tmpfs", "tmpfs", place, &["nosuid", "nodev", "mode=755"]);
    }
}

/// A bundle with it. Its users are subordinate ids of an ordinary user; `None` if there are none.
fn bundle(ctx: &Ctx, tree: &str) -> Option<Bundle> {
    let mut mapped = Some(());
    let bundle = ctx.bundle(|c| {
        if ctx.uid() != 0 {
            mapped = with_subordinate_ids(ctx, c);
        }
        system(c, tree);
    });
    mapped.map(|()| bundle)
}

/// Boots, asks, has a service started, and stops.
fn lives(ctx: &Ctx, container: &Container, mut running: Option<Running>) {
    let state = || container.exec(&[], &["systemctl", "is-system-running"]).text().to_owned();
    let mut last = String::new();
    ctx.wait_until("systemd has booted", || {
        last = state();
        ["running", "degraded"].contains(&last.as_str())
    });
    let failed = container.exec(&[], &["systemctl", "--failed", "--plain", "--no-legend"]);
    println!("         {last}; failed units: {:?}", failed.lines());
    // Its units are cgroups below the container's, which it may make. The limit of one is the kernel's, where the container has the
    // controller: an ordinary user's cgroup passes on none while the caller itself is in it.
    let script = "systemd-run --quiet --unit=one --property=TasksMax=23 sleep 1000 && cd /sys/fs/cgroup && \
                  if grep -qw pids cgroup.controllers; then cat system.slice/one.service/pids.max || \
                  { grep '' cgroup.procs cgroup.subtree_control system.slice/cgroup.subtree_control /proc/*/cgroup /proc/*/comm >&2; \
                  journalctl -b --no-pager | grep -i -e cgroup -e controller >&2; false; }; else echo none; fi && \
                  test $(cat system.slice/one.service/cgroup.procs) -gt 1 && systemctl is-active one dbus.socket";
    let answer = container.exec(&[], &["sh", "-c", script]).ok();
    println!("         pids.max of a unit: {}", answer.lines()[0]);
    assert!(["23", "none"].contains(&answer.lines()[0]) && (answer.lines()[0] == "23" || ctx.uid() != 0), "{answer}");
    assert_eq!(answer.lines()[1..], ["active", "active"]);
    container.kill("RTMIN+3").ok();
    match running.take() {
        Some(command) => drop(command.wait().exits(0)),
        None => container.wait_for("stopped"),
    }
}

/// The container's own system, run in the foreground: it stops with success when it is told to (SIGRTMIN+3, systemd(1)).
fn systemd_boots_answers_and_stops(ctx: &Ctx) -> Outcome {
    let tree = tree!(ctx);
    let Some(bundle) = bundle(ctx, &tree) else { return Skip("no subordinate ids".to_owned()) };
    let container = ctx.container(bundle);
    let running = container.run_command(&[]).spawn();
    ctx.wait_until("it runs", || container.verb("state").stdout.contains("\"running\""));
    if ctx.uid() != 0 && !may_divide(&container) {
        return Skip("no cgroup was delegated to this user".to_owned());
    }
    lives(ctx, &container, Some(running));
    Pass
}

/// True if the container has a cgroup of its own.
fn may_divide(container: &Container) -> bool {
    let group = |pid: &str| read(Path::new("/proc").join(pid).join("cgroup").as_ref());
    group(&container.pid().to_string()) != group("self")
}

/// The same where systemd outside manages the container's cgroup, which it hands over whole.
fn systemd_runs_in_a_scope_of_systemd_s(ctx: &Ctx) -> Outcome {
    let tree = tree!(ctx);
    if !Path::new("/run/systemd/system").exists() {
        return Skip("systemd does not run here".to_owned());
    }
    let Some(bundle) = bundle(ctx, &tree) else { return Skip("no subordinate ids".to_owned()) };
    let mut container = ctx.container(bundle);
    container.create_by_systemd().ok();
    container.start().ok();
    lives(ctx, &container, None);
    container.delete().ok();
    Pass
}
