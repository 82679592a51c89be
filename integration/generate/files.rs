//! What the container sees of files.

use serde_json::{Value, json};

use super::{Dice, World, push};
use crate::config;

pub(super) fn mounts(config: &mut Value, dice: &Dice, world: &World) {
    let words = world.listed("/mountOptions");
    for _ in 0..dice.between(1, 3) {
        let kind = dice.pick(&["tmpfs", "tmpfs", "tmpfs", "proc", "sysfs", "mqueue", "devpts"]);
        let at =
            dice.pick_or(&["/data", "/tmp", "/data/deep/er", "/new", "/tmp/a/../b"], &["/bin/sh/x", "/data/link", "/etc/passwd"]);
        let mut options: Vec<String> = (0..dice.below(5)).map(|_| dice.pick(&words)).collect();
        options.retain(|word| !["bind", "rbind", "idmap", "ridmap", "remount"].contains(&word.as_str()));
        if !dice.bold {
            options.retain(|word| word != "iversion" && (word != "tmpcopyup" || kind == "tmpfs"));
        }
        if kind == "tmpfs" && dice.once_in(2) {
            options.push(
                dice.pick_or(&["size=64k", "mode=700", "nr_inodes=20", "size=10%"], &["uid=5", "size=x", "what=ever"]).to_owned(),
            );
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        config::mount(config, kind, kind, at, &options);
    }
}

pub(super) fn binds(config: &mut Value, dice: &Dice, world: &World) {
    let words = world.listed("/mountOptions");
    for _ in 0..dice.between(1, 3) {
        let file = format!("{}/file", world.folder);
        let source = dice.pick_or(
            &[world.folder.as_str(), "/dev", "rootfs/etc"],
            &[file.as_str(), "/proc", "/nonexistent/x", "/etc/hostname"],
        );
        let at = dice.pick_or(&["/data", "/tmp/new", "/new/place", "/mnt"], &["/data/file", "/etc/passwd", "/bin/sh"]);
        let mut options: Vec<String> = (0..dice.below(5)).map(|_| dice.pick(&words)).collect();
        options.retain(|word| !["idmap", "ridmap"].contains(&word.as_str()) && (dice.bold || word != "tmpcopyup"));
        options.push(dice.pick(&["bind", "rbind"]).to_owned());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        config::mount(config, "bind", source, at, &options);
    }
}

pub(super) fn strange_mounts(config: &mut Value, dice: &Dice, _: &World) {
    match dice.below(5) {
        0 => config::mount(config, "nosuchfs", "none", "/data", &[]),
        1 => config::mount(config, "tmpfs", "tmpfs", "/tmp", &["remount", "ro"]),
        2 => config::mount(config, "tmpfs", "tmpfs", "/dev/shm", &["remount", "nosuid", "size=1m"]),
        3 => config::mount(config, "cgroup2", "cgroup", "/data", &["ro"]),
        _ => config::mount(config, "tmpfs", "tmpfs", "relative", &[]),
    }
}

pub(super) fn mapped_mount(config: &mut Value, dice: &Dice, world: &World) {
    let map = json!([config::id_map(0, 1000, 10)]);
    let source = dice.pick_or(&[world.folder.as_str()], &["/proc", "/sys"]);
    if world.uid != 0 && !dice.bold {
        return;
    }
    let option = dice.pick(&["idmap", "ridmap"]);
    config::mount(config, "bind", source, "/data", &["bind", option]);
    let list = config["mounts"].as_array_mut().unwrap();
    let last = list.last_mut().unwrap();
    last["uidMappings"] = map.clone();
    last["gidMappings"] = map;
}

pub(super) fn devices(config: &mut Value, dice: &Dice, _: &World) {
    let (kind, path, major, minor) = dice.pick(&[
        ("c", "/dev/fuse", 10, 229),
        ("c", "/dev/mynull", 1, 3),
        ("b", "/dev/disk", 7, 100),
        ("p", "/dev/pipe", 0, 0),
        ("u", "/dev/deep/er/zero", 1, 5),
        ("c", "/dev/null", 1, 3),
        ("c", "/data/node", 1, 8),
    ]);
    let binds = config["linux"]["uidMappings"].is_array() && !dice.bold;
    let (kind, path, major, minor) = if binds { ("c", "/dev/null", 1, 3) } else { (kind, path, major, minor) };
    let (kind, path, major, minor) = if dice.bold { ("c", "/etc/passwd", 1, 3) } else { (kind, path, major, minor) };
    let mut device =
        json!({ "type": kind, "path": path, "fileMode": dice.pick(&[0o600, 0o666, 0]), "uid": dice.pick(&[0, 5]), "gid": 0 });
    if kind != "p" {
        device["major"] = json!(major);
        device["minor"] = json!(minor);
    }
    push(config, "/linux", "devices", device);
}

pub(super) fn paths(config: &mut Value, dice: &Dice, _: &World) {
    let list = [
        "/proc/kcore",
        "/proc/acpi",
        "/sys/firmware",
        "/etc/passwd",
        "/nonexistent",
        "/data",
        "/bin/busybox/x",
        "/",
        "/dev/null",
    ];
    config["linux"]["maskedPaths"] = json!(dice.some(&list[..7]));
    config["linux"]["readonlyPaths"] = json!(dice.some(&list));
}

pub(super) fn propagation(config: &mut Value, dice: &Dice, _: &World) {
    let words = ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"];
    config["linux"]["rootfsPropagation"] = json!(dice.pick(&words));
}

pub(super) fn root(config: &mut Value, dice: &Dice, _: &World) {
    let own_mounts = config["linux"]["namespaces"].as_array().unwrap().iter().any(|entry| entry["type"] == "mount");
    config["root"]["readonly"] = json!(own_mounts || dice.bold);
    if dice.once_in(4) {
        config["root"]["path"] = json!(dice.pick_or(&["./rootfs", "rootfs/../rootfs"], &["nonexistent", "config.json"]));
    }
}

pub(super) fn mapped_tmpfs(config: &mut Value, dice: &Dice, _: &World) {
    let kind = dice.pick(&["tmpfs", "mqueue", "proc", "devpts"]);
    config::mount(config, kind, kind, "/data", &["nosuid"]);
    let last = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    last["uidMappings"] = json!([config::id_map(0, 1000, 10)]);
    if !dice.once_in(4) {
        last["gidMappings"] = json!([config::id_map(0, 1000, 10), config::id_map(dice.pick(&[10, 5]), 3000, 10)]);
    }
}
