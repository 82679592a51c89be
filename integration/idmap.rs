//! Mounts whose ids are mapped: `idmap`, `ridmap`, and the maps of a mount.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use serde_json::{Value, json};

use crate::config::{self, id_map};
use crate::ctx::Ctx;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        a_map_of_its_own_on_a_bind_mount,
        the_container_s_map_on_a_bind_mount,
        the_map_of_a_joined_user_namespace,
        recursive_and_not,
        a_map_on_a_tmpfs,
        a_map_on_a_tmpfs_in_a_user_namespace,
        copies_in_a_mapped_tmpfs_keep_their_owners,
        a_filesystem_without_support_says_so,
        maps_come_in_pairs,
        a_map_that_nobody_gives_is_refused,
    }
    User {
        an_ordinary_user_is_refused,
    }
}

/// Adds a mount with maps to the last place of the list.
fn mapped(c: &mut Value, kind: &str, source: &str, options: &[&str], map: &Value) {
    config::mount(c, kind, source, "/mnt", options);
    let mount = c["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    (mount["uidMappings"], mount["gidMappings"]) = (map.clone(), map.clone());
}

/// A folder whose file belongs to this user and group.
fn source(ctx: &Ctx, name: &str, owner: u32) -> String {
    let source = ctx.host_dir(name, "file", "from the host");
    chown(format!("{source}/file"), Some(owner), Some(owner)).unwrap();
    source
}

fn user_namespace(c: &mut Value) {
    config::in_user_namespace(c, json!([id_map(0, 100_000, 65536)]), json!([id_map(0, 100_000, 65536)]));
}

fn a_map_of_its_own_on_a_bind_mount(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let source = source(ctx, "source", 1000);
    let map = json!([id_map(1000, 5000, 10)]);
    for options in [&["bind", "idmap"][..], &["rbind", "ridmap"], &["bind"]] {
        let output = ctx.sh_with("stat -c %u:%g /mnt/file", |c| mapped(c, "bind", &source, options, &map));
        assert_eq!(output, "5000:5000\n", "{options:?}");
    }
    assert_eq!(fs::metadata(format!("{source}/file")).unwrap().uid(), 1000, "the file itself is left alone");
    Pass
}

fn the_container_s_map_on_a_bind_mount(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let source = source(ctx, "source", 7);
    let output = ctx.sh_with("stat -c %u:%g /data/file; touch /data/new; stat -c %u /data/new", |c| {
        user_namespace(c);
        config::mount(c, "bind", &source, "/data", &["rbind", "idmap"]);
    });
    assert_eq!(output, "7:7\n0\n");
    assert_eq!(fs::metadata(format!("{source}/new")).unwrap().uid(), 0, "container root is root there");
    Pass
}

fn the_map_of_a_joined_user_namespace(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let source = source(ctx, "source", 7);
    let first = ctx.running(user_namespace);
    let path = format!("/proc/{}/ns/user", first.pid());
    let output = ctx.sh_with("stat -c %u:%g /data/file", |c| {
        user_namespace(c);
        config::namespace(c, "user", Some(&path));
        config::mount(c, "bind", &source, "/data", &["bind", "idmap"]);
    });
    assert_eq!(output, "7:7\n");
    Pass
}

fn recursive_and_not(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let top = source(ctx, "top", 1000);
    let below = source(ctx, "below", 1000);
    fs::create_dir(format!("{top}/below")).unwrap();
    let rt = format!("{} --root {}", ctx.runtime().display(), ctx.path("state"));
    for (word, expected) in [("ridmap", "5000 5000"), ("idmap", "5000 1000")] {
        let container = ctx.container(ctx.bundle(|c| {
            config::shell(c, "echo $(stat -c %u /mnt/file /mnt/below/file)");
            mapped(c, "bind", &top, &["rbind", word], &json!([id_map(1000, 5000, 10)]));
        }));
        let script = format!("mount --bind {below} {top}/below && exec {rt} run -b {} {}", container.bundle.path(), container.id);
        let output = ctx.command(&["unshare", "-m", "sh", "-c", &script]).run().ok();
        assert_eq!(output.text(), expected, "{word}: {output}");
    }
    Pass
}

fn a_map_on_a_tmpfs(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let map = json!([id_map(0, 5000, 10)]);
    let output = ctx.run(|c| {
        config::shell(c, "stat -c %u:%g:%a /mnt");
        mapped(c, "tmpfs", "tmpfs", &["idmap", "mode=700"], &map);
    });
    if output.stderr.contains("EINVAL") {
        return Skip("this kernel does not map ids of a tmpfs (Linux 6.3)".to_owned());
    }
    assert_eq!(output.ok().text(), "5000:5000:700");
    Pass
}

/// Its files belong to the host's root on disk and to the container's root inside.
fn a_map_on_a_tmpfs_in_a_user_namespace(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let output = ctx.run(|c| {
        config::shell(c, "touch /data/new && stat -c %u:%g /data /data/new");
        user_namespace(c);
        config::mount(c, "tmpfs", "tmpfs", "/data", &["idmap"]);
    });
    if output.stderr.contains("EINVAL") {
        return Skip("this kernel does not map ids of a tmpfs (Linux 6.3)".to_owned());
    }
    assert_eq!(output.ok().stdout, "0:0\n0:0\n");
    Pass
}

/// What belonged to somebody before the mount belongs to the same one in it.
fn copies_in_a_mapped_tmpfs_keep_their_owners(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let copied = |map: Option<Value>| {
        let container = ctx.container(ctx.bundle(|c| {
            config::shell(c, "stat -c '%u:%g:%a' /data /data/sub /data/sub/file");
            config::mount(c, "tmpfs", "tmpfs", "/data", &["idmap", "tmpcopyup"]);
            match map {
                Some(map) => {
                    let mount = c["mounts"].as_array_mut().unwrap().last_mut().unwrap();
                    mount["uidMappings"] = map.clone();
                    mount["gidMappings"] = map;
                }
                None => user_namespace(c),
            }
        }));
        let shift = if container.bundle.config()["linux"]["uidMappings"].is_array() { 100_000 } else { 0 };
        let place = container.bundle.rootfs("/data");
        fs::create_dir(place.join("sub")).unwrap();
        fs::write(place.join("sub/file"), "x").unwrap();
        for (name, owner) in [("", 0), ("sub", 7), ("sub/file", 8)] {
            let id = Some(shift + owner);
            std::os::unix::fs::chown(place.join(name), id, id).unwrap();
        }
        container.run()
    };
    let mapped = copied(None);
    if mapped.stderr.contains("EINVAL") {
        return Skip("this kernel does not map ids of a tmpfs (Linux 6.3)".to_owned());
    }
    assert_eq!(mapped.ok().lines(), ["0:0:755", "7:7:755", "8:8:644"]);
    let own = copied(Some(json!([id_map(0, 0, 10)])));
    assert_eq!(own.ok().lines(), ["0:0:755", "7:7:755", "8:8:644"]);
    // Nobody in there can be the owner that the copies had.
    copied(Some(json!([id_map(0, 5000, 10)]))).exits(1).refused("its map has to give ids to the owners of all that is copied");
    Pass
}

fn a_filesystem_without_support_says_so(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let output = ctx.run(|c| mapped(c, "bind", "/proc", &["bind", "idmap"], &json!([id_map(0, 5000, 10)])));
    output.exits(1).refused("does not support mapped ids");
    Pass
}

fn maps_come_in_pairs(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    let output = ctx.run(|c| {
        config::mount(c, "bind", "/tmp", "/mnt", &["bind", "idmap"]);
        c["mounts"].as_array_mut().unwrap().last_mut().unwrap()["uidMappings"] = json!([id_map(0, 1, 1)]);
    });
    output.exits(1).refused("uidMappings: set without gidMappings; expected both or none");
    Pass
}

fn a_map_that_nobody_gives_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    ctx.run(|c| config::mount(c, "bind", "/tmp", "/mnt", &["bind", "idmap"]))
        .exits(1)
        .refused("idmap without uidMappings and gidMappings");
    Pass
}

fn an_ordinary_user_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know mapped ids");
    ctx.run(|c| config::mount(c, "bind", "/tmp", "/mnt", &["bind", "idmap"])).exits(1).refused("mapped ids need CAP_SYS_ADMIN");
    Pass
}
