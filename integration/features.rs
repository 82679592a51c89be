//! `rt features`: what it lists is taken.

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Bundle, Ctx};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both { every_listed_name_is_recognized, every_listed_namespace_is_made, every_listed_hook_runs, the_host_is_probed }
    Root { every_listed_mount_option_is_taken }
}

fn list(ctx: &Ctx, pointer: &str) -> Vec<String> {
    let features = ctx.rt(&["features"]).ok().json();
    let names = features.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no {pointer}"));
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// The words of planning for a name that it does not know.
fn recognized(ctx: &Ctx, what: &str, edit: impl FnOnce(&mut Value)) {
    // A plan looks at no rootfs.
    let bundle = Bundle { dir: ctx.dir.clone() };
    let mut config = ctx.config();
    edit(&mut config);
    bundle.write_config(&config);
    let output = ctx.rt(&["plan", bundle.path()]);
    let said =
        format!("{}{}", output.stdout.lines().filter(|line| line.starts_with("warning")).collect::<String>(), output.stderr);
    // Of another byte order, or without an agent: known, and refused for that reason.
    let known = output.code == 0 || ["byte order", "listenerPath"].iter().any(|word| said.contains(word));
    assert!(known && !said.contains("unknown") && !said.contains("expected one of"), "{what}: {said}");
}

fn every_listed_name_is_recognized(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the names are those of rt features");
    let capabilities = list(ctx, "/linux/capabilities");
    let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
    recognized(ctx, "capabilities", |c| config::capabilities(c, &names));
    let filter = |rule: Value, rest: Value| {
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
        profile.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        profile
    };
    for action in list(ctx, "/linux/seccomp/actions") {
        recognized(ctx, &action, |c| c["linux"]["seccomp"] = filter(json!({ "names": ["swapon"], "action": action }), json!({})));
    }
    for op in list(ctx, "/linux/seccomp/operators") {
        let rule = json!({ "names": ["swapon"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 1, "valueTwo": 1, "op": op }] });
        recognized(ctx, &op, |c| c["linux"]["seccomp"] = filter(rule, json!({})));
    }
    let rule = || json!({ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" });
    for arch in list(ctx, "/linux/seccomp/archs") {
        recognized(ctx, &arch, |c| c["linux"]["seccomp"] = filter(rule(), json!({ "architectures": [arch] })));
    }
    for flag in list(ctx, "/linux/seccomp/supportedFlags") {
        recognized(ctx, &flag, |c| c["linux"]["seccomp"] = filter(rule(), json!({ "flags": [flag] })));
    }
    for mode in list(ctx, "/linux/memoryPolicy/modes") {
        let nodes = if matches!(mode.as_str(), "MPOL_DEFAULT" | "MPOL_LOCAL") { Value::Null } else { json!("0") };
        recognized(ctx, &mode, |c| c["linux"]["memoryPolicy"] = json!({ "mode": mode, "nodes": nodes }));
    }
    for flag in list(ctx, "/linux/memoryPolicy/flags") {
        recognized(ctx, &flag, |c| c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": [flag] }));
    }
    for option in list(ctx, "/mountOptions") {
        recognized(ctx, &option, |c| {
            let (kind, source) = if option.ends_with("bind") { ("none", "/etc") } else { ("tmpfs", "tmpfs") };
            if option.ends_with("idmap") && ctx.uid() != 0 || option == "unbindable" || option == "runbindable" {
                return;
            }
            config::mount(c, kind, source, "/data", &[&option]);
            if option.ends_with("idmap") {
                let map = json!([config::id_map(0, 1000, 1)]);
                let last = c["mounts"].as_array_mut().unwrap().last_mut().unwrap();
                (last["uidMappings"], last["gidMappings"]) = (map.clone(), map);
            }
        });
    }
    Pass
}

/// None of them is handed to the filesystem, which would refuse it.
fn every_listed_mount_option_is_taken(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the names are those of rt features");
    let options = list(ctx, "/mountOptions");
    let others = ["bind", "rbind", "idmap", "ridmap", "remount", "tmpcopyup"];
    ctx.run(|c| {
        config::shell(c, "true");
        for (index, option) in options.iter().filter(|option| !others.contains(&option.as_str())).enumerate() {
            config::mount(c, "tmpfs", "tmpfs", &format!("/data/{index}"), &[option]);
        }
        config::mount(c, "tmpfs", "tmpfs", "/etc", &["tmpcopyup"]);
        config::mount(c, "tmpfs", "tmpfs", "/etc", &["remount", "ro"]);
        config::mount(c, "none", "/etc", "/tmp", &["bind"]);
        config::mount(c, "none", "/etc", "/root", &["rbind"]);
    })
    .ok();
    Pass
}

fn every_listed_namespace_is_made(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the names are those of rt features");
    let namespaces = list(ctx, "/linux/namespaces");
    let container = ctx.running(|c| {
        for kind in &namespaces {
            config::namespace(c, kind, None);
        }
        if ctx.uid() == 0 {
            let map = json!([config::id_map(0, 0, 65536)]);
            config::in_user_namespace(c, map.clone(), map);
        }
    });
    for kind in &namespaces {
        let file = match kind.as_str() {
            "mount" => "mnt",
            "network" => "net",
            other => other,
        };
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_ne!(link(&container.pid().to_string()), link("self"), "{kind}");
    }
    Pass
}

fn every_listed_hook_runs(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the names are those of rt features");
    let hooks = list(ctx, "/hooks");
    let folder = ctx.host_dir("ran", "file", "");
    let container = ctx.running(|c| {
        config::mount(c, "bind", &folder, &folder, &["bind"]);
        for moment in &hooks {
            c["hooks"][moment] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo >{folder}/{moment}")] }]);
        }
    });
    container.stop();
    container.delete().ok();
    for moment in &hooks {
        assert!(std::path::Path::new(&folder).join(moment).exists(), "{moment}");
    }
    Pass
}

fn the_host_is_probed(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "--host is a flag of rt");
    let host = ctx.rt(&["features", "--host"]).ok().json()["host"].clone();
    assert_eq!(host["caller"]["uid"], ctx.uid());
    assert_eq!(host["caller"]["privileged"], ctx.uid() == 0);
    assert_eq!(host["kernel"], ctx.host(&["uname", "-r"]).text());
    // This very suite needs one as an ordinary user.
    if host["userNamespaces"]["available"] != true {
        return Skip("no user namespaces here".to_owned());
    }
    let mode = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "hybrid" };
    assert!(host["cgroup"]["mode"] == mode || host["cgroup"]["mode"] == "v1" || host["cgroup"]["mode"] == "none", "{host}");
    assert_eq!(host["idmappedMounts"].is_null(), ctx.uid() != 0, "{host}");
    Pass
}
