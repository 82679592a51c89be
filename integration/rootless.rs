//! What only an ordinary user meets: maps, helpers, and resources that nobody has delegated.

use std::fs;

use serde_json::json;

use crate::config::{self, id_map};
use crate::ctx::Ctx;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    User {
        a_single_id_is_mapped,
        files_belong_to_the_user,
        subordinate_ids_are_mapped_by_the_helpers,
        a_process_of_a_subordinate_id,
        additional_groups_of_the_subordinate_range,
        a_foreign_id_is_not_mapped,
        additional_groups_need_a_mapping,
        without_a_user_namespace_one_is_made,
        the_config_of_rt_spec_runs_as_it_is,
        without_helpers_the_own_id_is_the_process_s,
        limits_without_delegation_do_not_stop_it,
        the_host_s_network_with_sys_bound,
        the_state_root_is_below_xdg_runtime_dir,
        namespaces_are_joined_from_within_a_user_namespace,
        a_host_file_cannot_be_written,
        devices_are_the_host_s,
    }
}

fn a_single_id_is_mapped(ctx: &Ctx) -> Outcome {
    let output = ctx.sh("id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups").ok();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    let (uid, gid) = (ctx.uid().to_string(), ctx.gid().to_string());
    assert_eq!(words, ["0", "0", &uid, "1", "0", &gid, "1", "deny"]);
    Pass
}

fn files_belong_to_the_user(ctx: &Ctx) -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let source = ctx.host_dir("source", "file", "");
    ctx.sh_with("touch /mnt/new", |c| config::mount(c, "bind", &source, "/mnt", &["bind"]));
    assert_eq!(fs::metadata(format!("{source}/new")).unwrap().uid(), ctx.uid());
    Pass
}

/// The name of the user who runs the suite.
fn user_name() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let user = users.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
    user.split(':').next().map(str::to_owned)
}

/// The user's range of subordinate ids.
fn range(file: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string(file).ok()?;
    let user = format!("{}:", user_name()?);
    let mut fields = text.lines().find(|line| line.starts_with(&user))?.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Maps root to the user and the next thousand ids to the user's subordinate ones.
pub fn with_subordinate_ids(ctx: &Ctx, c: &mut serde_json::Value) -> Option<()> {
    let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
    let map = |own, first| json!([id_map(0, own, 1), id_map(1, first, 2000)]);
    config::in_user_namespace(c, map(ctx.uid(), uids.0), map(ctx.gid(), gids.0));
    Some(())
}

fn subordinate_ids_are_mapped_by_the_helpers(ctx: &Ctx) -> Outcome {
    let Some((first, _)) = range("/etc/subuid") else { return Skip("no subordinate ids".to_owned()) };
    let output = ctx.sh_with("cat /proc/self/uid_map", |c| with_subordinate_ids(ctx, c).unwrap());
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", &ctx.uid().to_string(), "1", "1", &first.to_string(), "2000"]);
    Pass
}

fn a_process_of_a_subordinate_id(ctx: &Ctx) -> Outcome {
    if range("/etc/subuid").is_none() {
        return Skip("no subordinate ids".to_owned());
    }
    let output = ctx.sh_with("id -u; id -g; touch /scratch/x && stat -c %u /scratch/x", |c| {
        with_subordinate_ids(ctx, c).unwrap();
        config::mount(c, "tmpfs", "tmpfs", "/scratch", &["mode=1777"]);
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1001 });
    });
    assert_eq!(output, "1000\n1001\n1000\n");
    Pass
}

fn additional_groups_of_the_subordinate_range(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 refuses all groups without privileges");
    let output = ctx.sh_with("id -G", |c| {
        with_subordinate_ids(ctx, c).unwrap();
        c["process"]["user"]["additionalGids"] = json!([5, 7]);
    });
    assert_eq!(output, "0 5 7\n");
    Pass
}

fn a_foreign_id_is_not_mapped(ctx: &Ctx) -> Outcome {
    ctx.run(|c| config::in_user_namespace(c, json!([id_map(0, 1, 1)]), json!([id_map(0, 1, 1)]))).exits(1);
    Pass
}

fn additional_groups_need_a_mapping(ctx: &Ctx) -> Outcome {
    ctx.run(|c| c["process"]["user"]["additionalGids"] = json!([5])).exits(1).refused("roup");
    Pass
}

/// The default config without what makes it one for an ordinary user.
fn as_for_root(c: &mut serde_json::Value) {
    config::without_namespace(c, "user");
    c["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
}

fn without_a_user_namespace_one_is_made(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc refuses");
    let output = ctx.run(|c| {
        as_for_root(c);
        config::shell(c, "id -u; cat /proc/self/uid_map");
    });
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!((output.code, &words[..4]), (0, &["0", "0", ctx.uid().to_string().as_str(), "1"][..]), "{output}");
    if let Some((first, size)) = range("/etc/subuid") {
        assert_eq!(words[4..], ["1", &first.to_string(), &size.to_string()], "{output}");
    }
    let text = "linux.namespaces: no user namespace; one is made because this caller does not have CAP_SYS_ADMIN";
    assert!(output.stderr.contains(text), "{output}");
    let container = ctx.running(as_for_root);
    assert!(container.state()["annotations"]["io.github.rt.warnings"].as_str().unwrap().contains(text));
    // It is recorded: other processes of the container come into it.
    assert_eq!(container.sh("readlink /proc/self/ns/user"), container.sh("readlink /proc/1/ns/user"));
    let bundle = ctx.bundle(as_for_root);
    ctx.rt(&["--strict", "run", "--bundle", bundle.path(), &ctx.fresh("strict")]).exits(1).refused(text);
    Pass
}

/// Nothing but the program is changed in it; standard input is no terminal here, so there is none.
fn the_config_of_rt_spec_runs_as_it_is(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc refuses");
    let bundle = ctx.bundle(|_| {});
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    ctx.rt(&["spec", "--bundle", bundle.path()]).ok();
    bundle.edit(|c| {
        config::shell(c, "id -u; hostname; ls -d /sys/class/net/lo; touch /x 2>&1 | grep -o Read-only; echo x > /dev/shm/x && echo shm; stat -c %g /dev/pts/ptmx");
        c["process"]["terminal"] = json!(false);
    });
    let container = ctx.container(bundle);
    let output = container.run();
    assert_eq!(output.stdout, "0\nrt\n/sys/class/net/lo\nRead-only\nshm\n0\n", "{output}");
    assert!(output.stderr.contains("one is made"), "{output}");
    // Without a network namespace of its own the host's /sys is bound.
    container.bundle.edit(|c| {
        config::without_namespace(c, "network");
        config::shell(c, "ls -d /sys/class/net/lo; grep -c ' /sys ro' /proc/self/mountinfo");
    });
    let output = container.run();
    assert_eq!(output.stdout, "/sys/class/net/lo\n1\n", "{output}");
    assert!(output.stderr.contains("the host's /sys is bound read-only"), "{output}");
    Pass
}

/// newuidmap and newgidmap are looked for in PATH: without them the id of the process is the only one.
fn without_helpers_the_own_id_is_the_process_s(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc refuses");
    let container = ctx.container(ctx.bundle(|c| {
        as_for_root(c);
        config::shell(c, "id -u; id -g; cat /proc/self/uid_map; grep -c ' /dev/pts ' /proc/self/mountinfo");
        c["process"]["user"] = json!({ "uid": 7, "gid": 8 });
        c["mounts"][2]["options"] = json!(["newinstance", "gid=5", "mode=0620"]);
    }));
    let output = container.run_command(&[]).env("PATH", "/nowhere").run();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["7", "8", "7", &ctx.uid().to_string(), "1", "1"], "{output}");
    assert!(output.stderr.contains("mounts[2].options: gid=5 is left out: it is not mapped in the user namespace"), "{output}");
    Pass
}

fn limits_without_delegation_do_not_stop_it(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc refuses limits that it cannot set");
    let output = ctx.run(|c| {
        config::shell(c, "echo runs");
        c["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 50 } });
    });
    assert!(output.code == 0 && output.text() == "runs", "{output}");
    if output.stderr.is_empty() && std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Skip("a cgroup with its controllers was delegated to this user".to_owned());
    }
    assert!(output.stderr.contains("memory"), "a warning names what is not limited: {output}");
    if ctx.is_rt() && output.stderr.contains("not available to this user") {
        // The step that is missing, and what to do about it.
        let repairs = ["kernel parameter", "as root: `", "rt --systemd-cgroup", "this kernel has no such controller"];
        assert!(repairs.iter().any(|repair| output.stderr.contains(repair)), "{output}");
    }
    Pass
}

fn the_host_s_network_with_sys_bound(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("readlink /proc/self/ns/net; test -d /sys/class/net/lo && echo sys", |c| {
        config::without_namespace(c, "network");
        config::without_mount(c, "/sys");
        config::mount(c, "none", "/sys", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
    });
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(output, format!("{}\nsys\n", own.display()));
    Pass
}

fn the_state_root_is_below_xdg_runtime_dir(ctx: &Ctx) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let runtime_dir = ctx.host_dir("xdg", ".keep", "");
    fs::set_permissions(&runtime_dir, fs::Permissions::from_mode(0o700)).unwrap();
    let runtime = ctx.runtime().to_str().unwrap();
    ctx.command(&[runtime, "list"]).env("XDG_RUNTIME_DIR", &runtime_dir).run().ok();
    let bundle = ctx.bundle(|_| {});
    let id = ctx.fresh("xdg");
    ctx.command(&[runtime, "create", "-b", bundle.path(), &id]).env("XDG_RUNTIME_DIR", &runtime_dir).run().ok();
    let root = fs::read_dir(&runtime_dir).unwrap().map(|e| e.unwrap().path()).find(|path| path.join(&id).exists());
    ctx.command(&[runtime, "delete", "--force", &id]).env("XDG_RUNTIME_DIR", &runtime_dir).run().ok();
    assert!(root.is_some());
    Pass
}

/// As rootless Podman starts a container of a pod: it is root of a user namespace itself, and so is its monitor, without USER.
fn namespaces_are_joined_from_within_a_user_namespace(ctx: &Ctx) -> Outcome {
    if range("/etc/subuid").is_none() || range("/etc/subgid").is_none() {
        return Skip("no subordinate ids for this user".to_owned());
    }
    let bundle = ctx.bundle(|c| {
        *c = config::default(0, 0);
        config::shell(c, "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc");
        config::namespace(c, "network", Some("/proc/KEEPER/ns/net"));
        config::namespace(c, "ipc", Some("/proc/KEEPER/ns/ipc"));
    });
    let script = r#"
        unset USER
        unshare --net --ipc sleep 20 & keeper=$!
        while [ "$(readlink /proc/$keeper/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
        readlink /proc/$keeper/ns/net; readlink /proc/$keeper/ns/ipc
        sed -i "s/KEEPER/$keeper/" "$1/config.json"
        "$0" run --bundle "$1" pod-member; status=$?
        kill $keeper; exit $status"#;
    let runtime_dir = ctx.host_dir("xdg-pod", ".keep", "");
    let runtime = ctx.runtime().to_str().unwrap();
    let argv = ["unshare", "--user", "--map-root-user", "--map-auto", "sh", "-c", script, runtime, bundle.path()];
    let output = ctx.command(&argv).env("XDG_RUNTIME_DIR", &runtime_dir).run().ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!((lines.len(), &lines[..2]), (4, &lines[2..]), "{output}");
    // The state root is the user's, not /run/rt.
    assert!(fs::read_dir(&runtime_dir).unwrap().any(|entry| entry.unwrap().path().is_dir()));
    Pass
}

fn a_host_file_cannot_be_written(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, "echo x > /mnt/hostname");
        config::mount(c, "bind", "/etc", "/mnt", &["rbind"]);
    });
    assert!(output.stderr.contains("Permission denied"), "{output}");
    Pass
}

/// A user cannot make device nodes: the host's are bound.
fn devices_are_the_host_s(ctx: &Ctx) -> Outcome {
    let output = ctx.sh("grep -c ' /dev/null ' /proc/self/mountinfo; echo x > /dev/null").ok();
    assert_eq!(output.text(), "1");
    Pass
}
