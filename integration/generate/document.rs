//! The form of the document, and what is about the container as a whole.

use serde_json::{Value, json};

use super::{Dice, World};

pub(super) fn hooks(config: &mut Value, dice: &Dice, _: &World) {
    for moment in dice.some(&["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]) {
        let mut hook = json!({ "path": "/bin/true" });
        for (key, value) in
            dice.some(&[("args", json!(["true", "x"])), ("env", json!(["A=b"])), ("timeout", json!(dice.between(5, 20)))])
        {
            hook[key] = value;
        }
        config["hooks"][moment] = json!([hook]);
    }
}

pub(super) fn strange_hooks(config: &mut Value, dice: &Dice, _: &World) {
    let moment = dice.pick(&["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]);
    config["hooks"][moment] = json!([{ "path": dice.pick(&["/nonexistent", "/etc/passwd", "/etc", "relative"]) }]);
}

pub(super) fn annotations(config: &mut Value, dice: &Dice, _: &World) {
    config["annotations"] = json!({ "org.example.key": format!("value {}", dice.below(10)), "empty": "" });
}

pub(super) fn lacking(config: &mut Value, dice: &Dice, _: &World) {
    match dice.below(3) {
        0 => config["linux"]["intelRdt"] = json!({ "closID": "x", "schemata": ["L3:0=ff"] }),
        1 => config["linux"]["netDevices"] = json!({ "nonexistent0": { "name": "eth7" } }),
        _ => config["linux"]["resources"]["rdma"] = json!({ "mlx5_1": { "hcaHandles": 3 } }),
    }
}

/// Null is as good as nothing wherever something may be absent.
pub(super) fn nulls(config: &mut Value, dice: &Dice, _: &World) {
    for (pointer, keys) in [
        ("", &["hostname", "domainname", "mounts", "hooks", "annotations", "windows", "solaris", "vm", "zos", "freebsd"][..]),
        (
            "/process",
            &[
                "terminal",
                "consoleSize",
                "capabilities",
                "rlimits",
                "noNewPrivileges",
                "apparmorProfile",
                "oomScoreAdj",
                "selinuxLabel",
                "ioPriority",
                "scheduler",
                "execCPUAffinity",
                "env",
            ],
        ),
        ("/process/user", &["umask", "additionalGids", "username"]),
        ("/root", &["readonly"]),
        (
            "/linux",
            &[
                "devices",
                "netDevices",
                "cgroupsPath",
                "resources",
                "sysctl",
                "seccomp",
                "rootfsPropagation",
                "maskedPaths",
                "readonlyPaths",
                "mountLabel",
                "intelRdt",
                "memoryPolicy",
                "personality",
                "timeOffsets",
            ],
        ),
    ] {
        let Some(object) = config.pointer_mut(pointer).and_then(Value::as_object_mut) else { continue };
        for key in dice.some(keys) {
            if object.get(key).is_none() || (dice.bold && !["mounts", "env"].contains(&key)) {
                object.insert(key.to_owned(), Value::Null);
            }
        }
    }
}

pub(super) fn unknown_properties(config: &mut Value, dice: &Dice, _: &World) {
    for pointer in dice.some(&["", "/process", "/process/user", "/root", "/linux", "/linux/namespaces/0", "/mounts/0"]) {
        if let Some(object) = config.pointer_mut(pointer).and_then(Value::as_object_mut) {
            object.insert("org.example.unknown".to_owned(), dice.pick(&[json!(1), json!([{ "a": null }]), json!("text")]));
        }
    }
}

pub(super) fn other_platforms(config: &mut Value, dice: &Dice, _: &World) {
    for (key, value) in dice.some(&[
        ("windows", json!({ "layerFolders": ["C:\\x"], "devices": 5 })),
        ("solaris", json!({ "anet": [] })),
        ("vm", json!({ "kernel": { "path": 7 } })),
        ("zos", json!({ "namespaces": "none" })),
        ("freebsd", json!([])),
    ]) {
        config[key] = value;
    }
}

pub(super) fn version(config: &mut Value, dice: &Dice, _: &World) {
    config["ociVersion"] = json!(dice.pick_or(
        &["1.0.0", "1.1.0", "1.2.1", "1.3.0", "1.0.0-rc5", "1.2.0+dev", "1.9.0"],
        &["2.0.0", "0.9.0", "1.0", "v1.0.0", "", "1.00.0"]
    ));
}

/// Everything that may be absent is.
pub(super) fn minimal(config: &mut Value, dice: &Dice, world: &World) {
    if !dice.once_in(4) || (world.uid != 0 && !dice.bold) {
        return;
    }
    let keep = ["ociVersion", "root", "process"];
    config.as_object_mut().unwrap().retain(|key, _| keep.contains(&key.as_str()));
    config["process"].as_object_mut().unwrap().retain(|key, _| ["args", "cwd"].contains(&key.as_str()));
    config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    config["process"]["args"][0] = json!("/bin/sleep");
    config["linux"] = json!({ "namespaces": [{ "type": "mount" }, { "type": "pid" }], "resources": {} });
}

pub(super) fn no_process(config: &mut Value, dice: &Dice, _: &World) {
    if dice.once_in(8) {
        config.as_object_mut().unwrap().remove("process");
    }
}
