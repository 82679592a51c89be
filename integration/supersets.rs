//! What is printed as JSON has every key that runc's has, with a value of the same type: programs that read runc's read ours.
//!
//! The installed runc is asked beside us, with the same bundle; `RUNC` names it. What newer ones have added is listed here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        state_list_ps_and_events_have_what_runc_has,
        features_has_what_runc_has,
        state_and_list_have_the_types_of_newer_runc,
        events_have_the_types_of_newer_runc,
    }
}

fn runc() -> Option<PathBuf> {
    let named = std::env::var_os("RUNC").map(PathBuf::from);
    named.or_else(|| ["/usr/sbin/runc", "/usr/bin/runc"].map(PathBuf::from).into_iter().find(|path| path.exists()))
}

/// The peer, unless it is the one under test.
macro_rules! peer {
    ($ctx:expr) => {
        match runc() {
            _ if !$ctx.is_rt() => return Skip("peer: it would be compared with itself".to_owned()),
            None => return Skip("runc is not installed".to_owned()),
            Some(path) => path,
        }
    };
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Every path in a document with the type of what is there. Elements of an array share one path.
fn shape(value: &Value, path: &str, found: &mut BTreeMap<String, &'static str>) {
    found.insert(path.to_owned(), type_of(value));
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| shape(value, &format!("{path}/{key}"), found)),
        Value::Array(list) => list.iter().for_each(|value| shape(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

/// Theirs without those that `own` excuses must be ours as well.
fn is_superset(ours: &Value, theirs: &Value, excused: &[&str], what: &str) {
    let (mut here, mut there) = (BTreeMap::new(), BTreeMap::new());
    shape(ours, "", &mut here);
    shape(theirs, "", &mut there);
    there.retain(|path, _| !excused.iter().any(|prefix| path.starts_with(prefix)));
    for (path, kind) in there {
        let mine = here.get(&path);
        // `null` is what Go prints for a list that was never made.
        assert!(
            mine == Some(&kind) || (kind == "null" && mine.is_some()),
            "{what}: {path} is a {kind}, and here {mine:?}: {ours}"
        );
    }
}

/// What a command of a runtime prints about a container of the bundle.
fn asked(ctx: &Ctx, runtime: &str, root: &str, id: &str, arguments: &[&str]) -> Value {
    let mut argv = vec![runtime, "--root", root];
    argv.extend(arguments);
    argv.push(id);
    ctx.command(&argv).run().ok().json()
}

const ABOUT_ONE: &[&[&str]] = &[&["state"], &["ps", "--format", "json"], &["events", "--stats"]];

fn state_list_ps_and_events_have_what_runc_has(ctx: &Ctx) -> Outcome {
    let peer = peer!(ctx);
    let peer = peer.to_str().unwrap();
    let container = ctx.create(|c| c["annotations"] = json!({ "org.example": "x" }));
    let (ours, theirs) = (ctx.path("state"), ctx.path("peer"));
    let name = format!("{}-peer", container.id);
    let at_peer = |arguments: &[&str]| {
        let mut argv = vec![peer, "--root", &theirs];
        argv.extend(arguments);
        ctx.command(&argv).run()
    };
    at_peer(&["create", "--bundle", container.bundle.path(), &name]).ok();
    let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for status in ["created", "running", "stopped"] {
            if status == "running" {
                container.start().ok();
                at_peer(&["start", &name]).ok();
            }
            if status == "stopped" {
                container.stop();
                at_peer(&["kill", &name, "KILL"]).ok();
                let has_stopped = || asked(ctx, peer, &theirs, &name, &["state"])["status"] == "stopped";
                ctx.wait_until("runc's has stopped", has_stopped);
            }
            for arguments in ABOUT_ONE.iter().filter(|arguments| status != "stopped" || arguments[0] == "state") {
                let mine = asked(ctx, ctx.runtime().to_str().unwrap(), &ours, &container.id, arguments);
                let other = asked(ctx, peer, &theirs, &name, arguments);
                is_superset(&mine, &other, &[], &format!("{status}: {arguments:?}"));
                if arguments[0] == "state" {
                    assert_eq!(mine["pid"] == 0, other["pid"] == 0, "{status}");
                    assert_eq!((&mine["status"], &mine["bundle"]), (&other["status"], &other["bundle"]));
                }
            }
            let mine = ctx.rt(&["list", "--format", "json"]).ok().json();
            is_superset(&mine, &at_peer(&["list", "--format", "json"]).ok().json(), &[], &format!("{status}: list"));
        }
    }));
    at_peer(&["delete", "--force", &name]);
    compared.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Pass
}

/// What is about that program or the library that it is linked with.
const OF_RUNC: &[&str] = &[
    "/annotations/org.opencontainers.runc.version",
    "/annotations/org.opencontainers.runc.commit",
    "/annotations/io.github.seccomp",
];

/// The specification does not know these two. They go to the filesystem, which knows what they mean there, as every word does that is not listed.
const OF_THE_FILESYSTEM: [&str; 2] = ["acl", "noacl"];

fn features_has_what_runc_has(ctx: &Ctx) -> Outcome {
    let peer = peer!(ctx);
    let mine = ctx.rt(&["features"]).ok().json();
    let theirs = ctx.command(&[peer.to_str().unwrap(), "features"]).run().ok().json();
    is_superset(&mine, &theirs, OF_RUNC, "features");
    let mut lists = Vec::new();
    lists_of(&theirs, String::new(), &mut lists);
    assert!(lists.len() >= 7, "{lists:?}");
    for path in lists {
        let words = |document: &Value| document.pointer(&path).and_then(Value::as_array).cloned().unwrap_or_default();
        let (here, there) = (words(&mine), words(&theirs));
        let lacking: Vec<_> =
            there.iter().filter(|word| !here.contains(word) && !OF_THE_FILESYSTEM.iter().any(|own| *word == own)).collect();
        assert!(lacking.is_empty(), "{path}: {lacking:?}");
    }
    Pass
}

fn lists_of(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Array(_) => found.push(path),
        Value::Object(map) => map.iter().for_each(|(key, value)| lists_of(value, format!("{path}/{key}"), found)),
        _ => {}
    }
}

/// Keys of runc 1.5.1 with an example of what is there.
fn state_of_newer() -> Value {
    json!({
        "ociVersion": "1.3.0", "id": "x", "pid": 7, "status": "running", "bundle": "/b", "rootfs": "/b/rootfs",
        "created": "2026-01-01T00:00:00.000000001Z", "owner": "", "annotations": { "org.example": "x" }
    })
}

fn state_and_list_have_the_types_of_newer_runc(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["annotations"] = json!({ "org.example": "x" }));
    is_superset(&container.state(), &state_of_newer(), &[], "state");
    is_superset(&ctx.rt(&["list", "-f", "json"]).ok().json(), &json!([state_of_newer()]), &[], "list");
    is_superset(&ctx.rt(&["ps", "-f", "json", &container.id]).ok().json(), &json!([7]), &[], "ps");
    Pass
}

/// Keys of runc 1.5.1 that are there on every host; those of a controller are there if the kernel has it.
fn events_have_the_types_of_newer_runc(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let stats = ctx.rt(&["events", "--stats", &container.id]).ok().json();
    let usage = json!({ "limit": 1, "usage": 1, "failcnt": 0 });
    let expected = json!({
        "type": "stats", "id": "x",
        "data": {
            "cpu": { "usage": { "total": 1, "kernel": 1, "user": 1 }, "throttling": {} },
            "memory": { "usage": usage, "raw": {} },
            "pids": { "current": 1 },
            "blkio": {}, "hugetlb": {}, "intel_rdt": {}
        }
    });
    let lacking = |name: &str| stats.pointer(&format!("/data/{name}")).is_some_and(|part| part == &json!({}));
    let excused: Vec<String> =
        ["memory", "pids"].into_iter().filter(|name| lacking(name)).map(|name| format!("/data/{name}/")).collect();
    is_superset(&stats, &expected, &excused.iter().map(String::as_str).collect::<Vec<_>>(), "events --stats");
    for part in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
        assert!(stats["data"].get(part).is_some(), "{part}: {stats}");
    }
    // Pressure is told where the kernel does (cgroup v2).
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && std::path::Path::new("/proc/pressure").exists() {
        for part in ["cpu", "memory", "blkio"] {
            let psi = &stats["data"][part]["psi"]["some"];
            assert!(psi["avg10"].is_number() && psi["total"].is_number(), "{part}: {stats}");
        }
    }
    Pass
}
