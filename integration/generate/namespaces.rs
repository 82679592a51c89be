//! Namespaces, who is in them, and what they have of their own.

use serde_json::{Value, json};

use super::{Dice, World};
use crate::config;

pub(super) fn namespaces(config: &mut Value, dice: &Dice, world: &World) {
    for kind in dice.some(if world.uid == 0 || dice.bold { &["pid", "network", "ipc", "uts"] } else { &["uts"] }) {
        config::without_namespace(config, kind);
        if kind == "uts" && !dice.bold {
            config.as_object_mut().unwrap().remove("hostname");
        }
    }
    for kind in dice.some(&["cgroup", "time"]) {
        config::namespace(config, kind, None);
    }
}

pub(super) fn no_mount_namespace(config: &mut Value, dice: &Dice, world: &World) {
    if dice.once_in(3) && (world.uid == 0 || dice.bold) {
        config::without_namespace(config, "mount");
        if !dice.bold {
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        }
    }
}

pub(super) fn user_namespace(config: &mut Value, dice: &Dice, world: &World) {
    let map = match world.uid {
        0 => dice.pick_or(
            &[json!([config::id_map(0, 0, 65536)]), json!([config::id_map(0, 0, 1), config::id_map(1, 100_001, 65535)])],
            &[json!([config::id_map(0, 100_000, 65536)]), json!([config::id_map(0, 0, 1000)])],
        ),
        uid => dice.pick_or(
            &[json!([config::id_map(0, uid, 1), config::id_map(1, world.ids, 65535)])],
            &[json!([config::id_map(0, world.ids, 65536)]), json!([config::id_map(0, 0, 1)]), json!([config::id_map(0, uid, 1)])],
        ),
    };
    config::in_user_namespace(config, map.clone(), map);
    if !dice.bold {
        // What is mounted in a user namespace has to belong to it.
        ["pid", "network", "ipc", "uts", "mount"].into_iter().for_each(|kind| config::namespace(config, kind, None));
    }
}

pub(super) fn time_offsets(config: &mut Value, dice: &Dice, _: &World) {
    if !dice.bold || !dice.once_in(4) {
        config::namespace(config, "time", None);
    }
    let clock = dice.pick(&["monotonic", "boottime"]);
    config["linux"]["timeOffsets"] =
        json!({ clock: { "secs": dice.between(-50, 100_000), "nanosecs": dice.below(1_000_000_000) } });
}

pub(super) fn joined(config: &mut Value, dice: &Dice, world: &World) {
    let user = config["linux"]["uidMappings"].is_array();
    if (world.uid != 0 || user) && !dice.bold {
        return;
    }
    let (kind, file) = dice.pick_or(
        &[("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"), ("cgroup", "cgroup")],
        &[("network", "uts"), ("network", "x")],
    );
    // The host name and the parameters of a joined namespace are changed.
    let whose = if matches!(file, "pid" | "cgroup") { None } else { world.holder.as_deref() };
    config::namespace(config, kind, Some(&format!("/proc/{}/ns/{file}", whose.unwrap_or("self"))));
}

pub(super) fn sysctl(config: &mut Value, dice: &Dice, _: &World) {
    let list = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "0 0"),
        ("net.core.somaxconn", "100"),
        ("kernel.shmmax", "1000000"),
        ("kernel.msgmax", "9000"),
        ("kernel.domainname", "example"),
        ("fs.mqueue.msg_max", "12"),
    ];
    let bad = [
        ("user.max_net_namespaces", "3"),
        ("net.ipv4.nonexistent", "1"),
        ("kernel.core_pattern", "x"),
        ("net.core.somaxconn", "minus"),
    ];
    for _ in 0..dice.between(1, 3) {
        let (name, value) = dice.pick_or(&list, &bad);
        config["linux"]["sysctl"][name] = json!(value);
        if !dice.bold {
            let kind = if name.starts_with("net.") {
                "network"
            } else if name == "kernel.domainname" {
                "uts"
            } else {
                "ipc"
            };
            config::namespace(config, kind, None);
        }
    }
}

pub(super) fn names(config: &mut Value, dice: &Dice, _: &World) {
    config["hostname"] = json!(dice.pick(&["h", "a.b.c", "with space", ""]));
    config["domainname"] = json!(dice.pick(&["d.example", ""]));
    if !dice.bold {
        config::namespace(config, "uts", None);
    }
}
