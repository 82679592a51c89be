//! What a config may leave out, set to null, or say to somebody else; and warnings: shown, logged, kept, and errors if they are to be.

use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        null_is_as_good_as_absent,
        null_within_every_object,
        unknown_properties_are_ignored_at_every_level,
        sections_for_other_platforms_are_a_warning,
        a_newer_minor_version_is_a_warning,
        versions_that_are_none_are_refused,
        warnings_are_shown_logged_and_kept,
        warnings_are_errors_if_they_are_to_be,
        environment_keeps_its_order,
    }
    Root {
        what_goes_wrong_later_is_a_strict_error_too,
    }
}

fn null_is_as_good_as_absent(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind, "path": null }));
        let linux: Vec<&str> = LINUX.split_whitespace().collect();
        let process: Vec<&str> = PROCESS.split_whitespace().collect();
        let user = ctx.uid() != 0;
        for name in ["hooks", "annotations", "hostname", "domainname", "mounts", "windows", "solaris", "vm", "zos", "freebsd"] {
            c[name] = Value::Null;
        }
        for name in process {
            c["process"][name] = Value::Null;
        }
        for name in linux {
            if !(user && ["uidMappings", "gidMappings"].contains(&name)) {
                c["linux"][name] = Value::Null;
            }
        }
        c["root"]["readonly"] = Value::Null;
        c["linux"]["namespaces"] = json!(namespaces);
        if user {
            config::namespace(c, "user", None);
        }
        c["process"]["args"] = json!(["/bin/echo", "here"]);
    });
    let output = output.ok();
    assert_eq!((output.text(), output.stderr.as_str()), ("here", ""));
    Pass
}

/// The optional properties of `process` and of `linux`.
const PROCESS: &str = "apparmorProfile capabilities commandLine consoleSize env execCPUAffinity ioPriority noNewPrivileges oomScoreAdj \
    rlimits scheduler selinuxLabel terminal user";
const LINUX: &str = "cgroupsPath devices gidMappings intelRdt maskedPaths memoryPolicy mountLabel namespaces netDevices personality \
    readonlyPaths resources rootfsPropagation seccomp sysctl timeOffsets uidMappings";

fn null_within_every_object(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/echo", "here"]);
        c["process"]["user"] = json!({ "uid": null, "gid": null, "umask": null, "additionalGids": null, "username": null });
        let sets = ["bounding", "permitted", "effective", "inheritable", "ambient"];
        c["process"]["capabilities"] = sets.map(|name| (name.to_owned(), Value::Null)).into_iter().collect();
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": null });
        c["process"]["scheduler"] = json!({
            "policy": "SCHED_OTHER", "nice": null, "priority": null, "flags": null, "runtime": null, "deadline": null, "period": null
        });
        c["process"]["execCPUAffinity"] = json!({ "initial": null, "final": null });
        let hook = json!({ "path": "/bin/true", "args": null, "env": null, "timeout": null });
        c["hooks"] = json!({ "prestart": null, "createRuntime": [hook], "createContainer": null, "startContainer": null,
            "poststart": [hook], "poststop": [hook] });
        for mount in c["mounts"].as_array_mut().unwrap() {
            mount["uidMappings"] = Value::Null;
            mount["gidMappings"] = Value::Null;
        }
        let bare = json!({ "destination": "/mnt", "type": "tmpfs", "source": null, "options": null });
        c["mounts"].as_array_mut().unwrap().push(bare);
        let fifo = json!({ "type": "p", "path": "/dev/fifo", "major": null, "minor": null, "fileMode": null, "uid": null, "gid": null });
        c["linux"]["devices"] = json!([fifo]);
        c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_DEFAULT", "nodes": null, "flags": null });
        c["linux"]["personality"] = json!({ "domain": "LINUX", "flags": null });
        c["linux"]["timeOffsets"] = json!({ "boottime": null, "monotonic": null });
        let call = json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": null,
            "args": [{ "index": 0, "value": 5, "valueTwo": null, "op": "SCMP_CMP_EQ" }] });
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": null, "flags": null,
            "listenerPath": null, "listenerMetadata": null, "architectures": null, "syscalls": [call] });
        c["linux"]["resources"] = resources();
    });
    let output = output.ok();
    assert_eq!((output.text(), output.stderr.as_str()), ("here", ""));
    Pass
}

/// Every property of `linux.resources` as null, and every one of its objects with nulls.
fn resources() -> Value {
    let nulls = |names: &str| names.split_whitespace().map(|name| (name.to_owned(), Value::Null)).collect::<Value>();
    let mut block =
        nulls("throttleReadBpsDevice throttleWriteBpsDevice throttleReadIOPSDevice throttleWriteIOPSDevice weightDevice");
    block["weight"] = Value::Null;
    block["leafWeight"] = Value::Null;
    json!({
        "unified": null,
        "devices": [{ "allow": false, "type": null, "major": null, "minor": null, "access": null }],
        "pids": nulls("limit"),
        "blockIO": block,
        "cpu": nulls("shares quota burst period realtimeRuntime realtimePeriod cpus mems idle"),
        "hugepageLimits": null,
        "memory": nulls("limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy checkBeforeUpdate"),
        "network": nulls("classID priorities"),
        "rdma": null
    })
}

/// Puts a property that nobody knows into every object, but not into maps whose keys are data.
fn add_unknown(value: &mut Value, is_map: bool) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|inner| add_unknown(inner, false)),
        Value::Object(object) => {
            for (name, inner) in object.iter_mut() {
                let maps = ["annotations", "sysctl", "unified", "netDevices", "timeOffsets", "rdma"];
                add_unknown(inner, maps.contains(&name.as_str()));
            }
            if !is_map {
                object.insert("ofTheFuture".to_owned(), json!({ "a": [1, null, { "b": -1.5e300 }] }));
            }
        }
        _ => {}
    }
}

fn unknown_properties_are_ignored_at_every_level(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/echo", "here"]);
        c["process"]["scheduler"] = json!({ "policy": "SCHED_OTHER" });
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE" });
        c["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
        c["hooks"] = json!({ "poststop": [{ "path": "/bin/true" }] });
        c["annotations"] = json!({ "org.example": "x" });
        c["linux"]["resources"] = json!({ "devices": [{ "allow": false }], "cpu": {}, "memory": {}, "pids": {}, "blockIO": {}, "network": {} });
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }] });
        add_unknown(c, false);
    });
    let output = output.ok();
    assert_eq!((output.text(), output.stderr.as_str()), ("here", ""));
    Pass
}

fn sections_for_other_platforms_are_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no peer says so");
    let container = ctx.container(ctx.bundle(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        for name in FOREIGN {
            c[name] = json!({ "layerFolders": ["C:\\\\"], "cpu": "not a number", "nested": [{ "x": null }] });
        }
        c["process"]["commandLine"] = json!("cmd /c dir");
        c["process"]["user"]["username"] = json!("ContainerUser");
    }));
    let output = container.run().ok();
    for name in FOREIGN.iter().chain(&["process.commandLine", "process.user.username"]) {
        assert!(output.stderr.contains(&format!("{name}: left out: it is for")), "{name}: {output}");
    }
    Pass
}

const FOREIGN: [&str; 5] = ["windows", "solaris", "vm", "zos", "freebsd"];

fn a_newer_minor_version_is_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no peer looks");
    for version in ["1.0.0", "1.0.0-rc5", "1.3.0", "1.2.1+dev"] {
        let output = ctx.run(|c| {
            c["process"]["args"] = json!(["/bin/true"]);
            c["ociVersion"] = json!(version);
        });
        assert_eq!(output.ok().stderr, "", "{version}");
    }
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        c["ociVersion"] = json!("1.9.0");
    });
    assert!(output.ok().stderr.contains("ociVersion: version \"1.9.0\" is newer than 1.3.0"));
    Pass
}

fn versions_that_are_none_are_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "no peer looks");
    for version in ["2.0.0", "0.9.0", "1", "1.x.0", "", "version one"] {
        ctx.run(|c| c["ociVersion"] = json!(version)).exits(1).refused("ociVersion: version");
    }
    Pass
}

const KEY: &str = "io.github.rt.warnings";
const TEXT: &str = "process.capabilities.bounding[0]: unknown capability \"CAP_OF_THE_FUTURE\" is left out";

fn with_a_warning(c: &mut Value) {
    c["process"]["capabilities"]["bounding"] = json!(["CAP_OF_THE_FUTURE"]);
    c["annotations"] = json!({ "org.example": "kept" });
}

fn warnings_are_shown_logged_and_kept(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "annotations of rt");
    let log = ctx.path("log.json");
    let mut container = ctx.container(ctx.bundle(with_a_warning));
    let output = container.create().ok();
    assert!(output.stderr.contains(TEXT), "{output}");
    let annotations = container.state()["annotations"].clone();
    assert_eq!(annotations["org.example"], "kept");
    let kept: Vec<String> = serde_json::from_str(annotations[KEY].as_str().unwrap()).unwrap();
    assert!(kept.contains(&TEXT.to_owned()), "{kept:?}");
    container.delete().ok();
    ctx.rt(&["--log", &log, "--log-format", "json", "create", "--bundle", container.bundle.path(), &container.id]).ok();
    let logged = read(Path::new(&log));
    assert!(logged.contains("\"level\":\"warning\"") && logged.contains("CAP_OF_THE_FUTURE"), "{logged}");
    let quiet = ctx.create(|c| c["annotations"] = json!({ "org.example": "kept" }));
    assert_eq!(quiet.state()["annotations"], json!({ "org.example": "kept" }));
    Pass
}

fn warnings_are_errors_if_they_are_to_be(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "a flag of rt");
    let container = ctx.container(ctx.bundle(with_a_warning));
    let output = ctx.rt(&["--strict", "create", "--bundle", container.bundle.path(), &container.id]);
    output.exits(1).refused(TEXT);
    container.verb("state").refused("does not exist");
    container.bundle.edit(|c| c["process"]["capabilities"]["bounding"] = json!([]));
    container.bundle.edit(|c| {
        for set in ["effective", "permitted"] {
            c["process"]["capabilities"][set] = json!([]);
        }
    });
    ctx.rt(&["--strict", "create", "--bundle", container.bundle.path(), &container.id]).ok();
    Pass
}

/// The kernel refuses this only when it is written.
fn what_goes_wrong_later_is_a_strict_error_too(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "a flag of rt");
    if !Path::new("/sys/fs/cgroup/memory/memory.use_hierarchy").exists() {
        return Skip("no memory controller of version 1".to_owned());
    }
    let mut container = ctx.container(ctx.bundle(|c| c["linux"]["resources"] = json!({ "memory": { "useHierarchy": false } })));
    let output = ctx.rt(&["--strict", "create", "--bundle", container.bundle.path(), &container.id]);
    output.exits(1).refused("linux.resources.memory.useHierarchy");
    container.verb("state").refused("does not exist");
    container.create().ok();
    assert!(container.state()["annotations"][KEY].as_str().unwrap().contains("useHierarchy"));
    Pass
}

fn environment_keeps_its_order(ctx: &Ctx) -> Outcome {
    let names = ["Z=1", "A=2", "PATH=/bin", "M=3", "B=4"];
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/env"]);
        c["process"]["env"] = json!(names);
    });
    let output = output.ok();
    let found: Vec<&str> = output.lines().into_iter().filter(|line| names.contains(line)).collect();
    assert_eq!(found, names);
    Pass
}
