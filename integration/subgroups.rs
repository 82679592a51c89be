//! Directories below the container's control group, and below the scope that systemd makes: crun's annotations for them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, read};
use crate::hierarchy::{in_pure_view, unified_mount};
use crate::runner::Outcome::{self, Pass};

tests! {
    Root {
        the_program_manages_a_group_below_its_limits,
        exec_goes_where_the_program_has_moved_to,
        exec_is_not_in_the_way_of_a_systemd,
        the_group_is_the_container_s_root_s,
        without_a_cgroup_namespace_the_group_is_the_same,
    }
    Both {
        a_name_that_is_a_path_is_refused,
    }
}

pub const SUBGROUP: &str = "run.oci.systemd.subgroup";
pub const DELEGATED: &str = "run.oci.delegate-cgroup";

/// A container whose program sees its control groups, and may write to them.
fn sees_its_groups(c: &mut Value, path: &str, script: &str) {
    config::namespace(c, "cgroup", None);
    config::without_mount(c, "/sys/fs/cgroup");
    config::mount(c, "cgroup", "cgroup", "/sys/fs/cgroup", &["rw"]);
    config::shell(c, &format!("{script}; echo done; exec sleep 1000"));
    c["linux"]["cgroupsPath"] = json!(path);
    c["annotations"] = json!({ DELEGATED: "payload" });
}

fn running<'c>(ctx: &'c Ctx<'c>, edit: impl FnOnce(&mut Value)) -> Container<'c> {
    let container = ctx.running(edit);
    ctx.wait_until("it has done what it does first", || container.printed().ends_with("done\n"));
    container
}

fn folder(path: &str) -> PathBuf {
    unified_mount().unwrap().join(path.trim_start_matches('/'))
}

/// Where a process is, as the host sees it.
fn place(pid: &str) -> String {
    let groups = read(Path::new(&format!("/proc/{}/cgroup", pid.trim())));
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

/// Where a process is that exec starts.
fn place_of_exec(container: &Container) -> String {
    let file = container.bundle.dir.join("pid");
    container.exec(&["--detach", "--pid-file", file.to_str().unwrap()], &["sleep", "100"]).ok();
    place(&read(&file))
}

/// Controllers can be passed on from a group without processes of its own, which that of the limits is then.
const PASSES_ON: &str = "grep ^0: /proc/self/cgroup; cd /sys/fs/cgroup; ls -d payload; read first rest < cgroup.controllers
     echo +$first > cgroup.subtree_control && grep -c $first payload/cgroup.controllers";

fn the_program_manages_a_group_below_its_limits(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "an annotation of crun's");
    in_pure_view(ctx, |ctx| {
        let path = ctx.fresh("/rt-delegated");
        let container = running(ctx, |c| {
            sees_its_groups(c, &path, PASSES_ON);
            c["linux"]["resources"] = json!({ "unified": { "cgroup.max.descendants": "7" } });
        });
        assert_eq!(container.printed(), "0::/payload\npayload\n1\ndone\n");
        assert_eq!(place(&container.pid().to_string()), format!("{path}/payload"));
        let of = |group: &str| read(&folder(&path).join(group).join("cgroup.max.descendants")).trim().to_owned();
        assert_eq!([of(""), of("payload")], ["7", "max"]);
        assert_eq!(place_of_exec(&container), format!("{path}/payload"));
        ctx.rt(&["pause", &container.id]).ok();
        assert!(read(&folder(&path).join("payload/cgroup.events")).contains("frozen 1"));
        ctx.rt(&["resume", &container.id]).ok();
        assert_eq!(ctx.rt(&["ps", "--format", "json", &container.id]).ok().json().as_array().unwrap().len(), 2);
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert!(!folder(&path).exists());
        Pass
    })
}

fn exec_goes_where_the_program_has_moved_to(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "an annotation of crun's");
    in_pure_view(ctx, |ctx| {
        let path = ctx.fresh("/rt-moved");
        let script = "cd /sys/fs/cgroup; mkdir elsewhere; echo 1 > elsewhere/cgroup.procs; rmdir payload";
        let container = running(ctx, |c| sees_its_groups(c, &path, script));
        assert_eq!(place_of_exec(&container), format!("{path}/elsewhere"));
        let file = container.bundle.dir.join("pid");
        container.exec(&["--cgroup", "/", "--detach", "--pid-file", file.to_str().unwrap()], &["sleep", "100"]).ok();
        assert_eq!(place(&read(&file)), path);
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert!(!folder(&path).exists());
        Pass
    })
}

/// A systemd keeps the group that it was given empty, to pass controllers on. What others make for themselves is theirs.
fn exec_is_not_in_the_way_of_a_systemd(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others start it in the group itself, as long as they can");
    in_pure_view(ctx, |ctx| {
        for (below, expected) in [("init.scope", "/init.scope"), ("other.scope", "")] {
            let path = ctx.fresh("/rt-systemd");
            let script = format!("cd /sys/fs/cgroup; mkdir {below}; echo 1 > {below}/cgroup.procs");
            let container = running(ctx, |c| {
                sees_its_groups(c, &path, &script);
                c.as_object_mut().unwrap().remove("annotations");
            });
            assert_eq!(place_of_exec(&container), format!("{path}{expected}"));
            let file = container.bundle.dir.join("pid");
            container.exec(&["--cgroup", "/", "--detach", "--pid-file", file.to_str().unwrap()], &["sleep", "100"]).ok();
            assert_eq!(place(&read(&file)), path);
        }
        Pass
    })
}

fn the_group_is_the_container_s_root_s(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "an annotation of crun's");
    in_pure_view(ctx, |ctx| {
        let path = ctx.fresh("/rt-owned");
        let container = running(ctx, |c| {
            let map = || json!([config::id_map(0, 100_000, 1000)]);
            config::in_user_namespace(c, map(), map());
            sees_its_groups(c, &path, "grep ^0: /proc/self/cgroup; mkdir /sys/fs/cgroup/payload/below && echo made");
        });
        assert_eq!(container.printed(), "0::/payload\nmade\ndone\n");
        let owner = |file: &str| folder(&path).join("payload").join(file).metadata().unwrap().uid();
        assert_eq!(["", "cgroup.procs", "cgroup.subtree_control", "below"].map(owner), [100_000; 4]);
        assert_eq!(owner("cgroup.max.depth"), 0);
        assert_eq!(place_of_exec(&container), format!("{path}/payload"));
        Pass
    })
}

fn without_a_cgroup_namespace_the_group_is_the_same(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "an annotation of crun's");
    in_pure_view(ctx, |ctx| {
        let path = ctx.fresh("/rt-plain");
        let container = running(ctx, |c| {
            config::shell(c, "grep ^0: /proc/self/cgroup; echo done; exec sleep 1000");
            c["linux"]["cgroupsPath"] = json!(path);
            c["annotations"] = json!({ DELEGATED: "payload" });
            c["hooks"] =
                json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "grep ^0: /proc/self/cgroup > /seen"] }] });
        });
        assert_eq!(container.printed(), format!("0::{path}/payload\ndone\n"));
        assert_eq!(read(&container.bundle.rootfs("seen")), format!("0::{path}/payload\n"));
        Pass
    })
}

fn a_name_that_is_a_path_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "an annotation of crun's");
    for key in [SUBGROUP, DELEGATED] {
        for name in ["..", "a/b", "/a", "a\nb"] {
            let output = ctx.run(|c| c["annotations"] = json!({ key: name })).exits(1);
            output.refused(&format!("annotations[{key:?}]: {name:?}: expected the name of a directory"));
        }
    }
    Pass
}
