//! Namespaces: new, joined by path, shared as in a pod, mapped, shifted in time.

use std::fs::read_link;

use serde_json::json;

use crate::config::{self, id_map};
use crate::ctx::{Container, Ctx, read};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        each_asked_for_is_new,
        each_left_out_is_the_caller_s,
        init_is_process_1,
        a_new_pid_namespace_shows_only_itself,
        the_loopback_interface_is_up,
        hostname_is_set,
        domainname_is_set,
        a_new_cgroup_namespace_hides_the_path,
        a_missing_path_is_refused,
        a_duplicate_is_refused,
        hostname_without_a_uts_namespace_is_refused,
    }
    Root {
        the_host_s_own_names_and_parameters_are_left_alone,
        each_joined_by_path_is_the_owner_s,
        a_pod_member_shares_the_sandbox_s_namespaces,
        a_joined_pid_namespace_sees_its_owner,
        a_path_of_the_wrong_type_is_refused,
        user_namespace_maps_are_as_configured,
        a_user_namespace_owns_the_others,
        a_rootfs_behind_a_private_folder_works_in_a_user_namespace,
        maps_that_are_not_those_of_the_joined_namespace_are_a_warning,
        a_user_namespace_is_joined_by_path,
        time_namespace_offsets,
        time_offsets_without_a_time_namespace_are_refused,
    }
}

/// The types of config.json with their names in /proc.
const TYPES: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("cgroup", "cgroup")];

/// The link text, such as `net:[4026531833]`, of the caller's namespace.
fn own(name: &str) -> String {
    read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap().to_owned()
}

fn inside(container: &Container, name: &str) -> String {
    container.sh(&format!("readlink /proc/self/ns/{name}"))
}

fn path(container: &Container, name: &str) -> String {
    format!("/proc/{}/ns/{name}", container.pid())
}

fn each_asked_for_is_new(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| config::namespace(c, "cgroup", None));
    for (kind, name) in TYPES {
        assert_ne!(inside(&container, name), own(name), "{kind}");
    }
    Pass
}

fn each_left_out_is_the_caller_s(ctx: &Ctx) -> Outcome {
    for (kind, name) in TYPES.into_iter().filter(|(kind, _)| !["mount", "cgroup"].contains(kind)) {
        // A mqueue needs an ipc namespace of one's own, sysfs a network namespace, a proc mount a pid namespace.
        let output = ctx.sh_with(&format!("readlink /proc/self/ns/{name}"), |c| {
            config::without_namespace(c, kind);
            config::without_mount(c, "/dev/mqueue");
            config::without_mount(c, "/sys");
            c.as_object_mut().unwrap().remove("hostname");
            if kind == "pid" {
                config::without_mount(c, "/proc");
                config::mount(c, "bind", "/proc", "/proc", &["rbind"]);
                c["linux"]["maskedPaths"] = json!([]);
                c["linux"]["readonlyPaths"] = json!([]);
            }
        });
        assert_eq!(output.trim(), own(name), "{kind}");
    }
    Pass
}

fn init_is_process_1(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh("echo $$").ok().text(), "1");
    Pass
}

fn a_new_pid_namespace_shows_only_itself(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    assert_eq!(container.sh("ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm").lines().last(), Some("sleep"));
    assert!(container.sh("ls -d /proc/[0-9]* | wc -l").parse::<u32>().unwrap() < 6);
    Pass
}

fn the_loopback_interface_is_up(ctx: &Ctx) -> Outcome {
    let output = ctx.sh("ip -o link; ping -c 1 -W 2 127.0.0.1 > /dev/null && echo answered").ok();
    assert!(output.stdout.contains("LOOPBACK,UP") && output.stdout.ends_with("answered\n"), "{output}");
    assert!(!output.stdout.contains("eth"), "{output}");
    Pass
}

fn hostname_is_set(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh("hostname").ok().text(), "inside");
    Pass
}

fn domainname_is_set(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("cat /proc/sys/kernel/domainname", |c| c["domainname"] = json!("example.org"));
    needs_rt!(ctx, "runc 1.1.5 does not know domainname");
    assert_eq!(output.trim(), "example.org");
    Pass
}

fn a_new_cgroup_namespace_hides_the_path(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("cut -d: -f3 /proc/self/cgroup | sort -u", |c| config::namespace(c, "cgroup", None));
    // An ordinary user without delegation stays in the caller's cgroup, which then is the root of the namespace.
    assert_eq!(output.trim(), "/");
    Pass
}

fn a_missing_path_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| config::namespace(c, "network", Some("/nonexistent/ns"))).exits(1).refused("/nonexistent/ns");
    Pass
}

fn a_duplicate_is_refused(ctx: &Ctx) -> Outcome {
    let duplicate = json!({ "type": "uts" });
    ctx.run(|c| c["linux"]["namespaces"].as_array_mut().unwrap().push(duplicate)).exits(1);
    Pass
}

/// Naming the host's namespace is no better than having none.
fn the_host_s_own_names_and_parameters_are_left_alone(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 looks at the network only");
    let name = read("/proc/sys/kernel/hostname".as_ref());
    for (kind, file, key, value) in [
        ("uts", "uts", "hostname", json!("changed-by-a-container")),
        ("network", "net", "linux.sysctl[\"net.core.somaxconn\"]", json!({ "net.core.somaxconn": "77" })),
    ] {
        let path = format!("/proc/self/ns/{file}");
        let mut container = ctx.container(ctx.bundle(|c| {
            c.as_object_mut().unwrap().remove("hostname");
            config::namespace(c, kind, Some(&path));
            match kind {
                "uts" => c[key] = value,
                _ => c["linux"]["sysctl"] = value,
            }
        }));
        let text = format!("it is the {kind} namespace of the host, which {key} would change; expected another one");
        assert!(ctx.rt(&["check", container.bundle.path()]).exits(1).stdout.contains(&text), "{text}");
        container.create().exits(1).refused(&text);
    }
    assert_eq!(read("/proc/sys/kernel/hostname".as_ref()), name);
    Pass
}

fn hostname_without_a_uts_namespace_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| config::without_namespace(c, "uts")).exits(1);
    Pass
}

fn each_joined_by_path_is_the_owner_s(ctx: &Ctx) -> Outcome {
    let owner = ctx.running(|c| config::namespace(c, "cgroup", None));
    for (kind, name) in TYPES.into_iter().filter(|(kind, _)| !["mount", "cgroup"].contains(kind)) {
        let output = ctx.sh_with(&format!("readlink /proc/self/ns/{name}"), |c| {
            config::namespace(c, kind, Some(&path(&owner, name)));
            c.as_object_mut().unwrap().remove("hostname");
        });
        assert_eq!(output.trim(), inside(&owner, name), "{kind}");
    }
    Pass
}

/// What engines do for a pod: net, ipc, uts and pid are the sandbox's; the mount namespace is one's own.
fn a_pod_member_shares_the_sandbox_s_namespaces(ctx: &Ctx) -> Outcome {
    let sandbox = ctx.running(|_| {});
    let member = ctx.running(|c| {
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
            config::namespace(c, kind, Some(&path(&sandbox, name)));
        }
        c.as_object_mut().unwrap().remove("hostname");
    });
    for name in ["net", "ipc", "uts", "pid"] {
        assert_eq!(inside(&member, name), inside(&sandbox, name));
    }
    assert_ne!(inside(&member, "mnt"), inside(&sandbox, "mnt"));
    member.stop();
    assert_eq!(sandbox.status(), "running");
    Pass
}

fn a_joined_pid_namespace_sees_its_owner(ctx: &Ctx) -> Outcome {
    let owner = ctx.running(|_| {});
    let output = ctx.sh_with("cat /proc/1/comm; echo $$", |c| config::namespace(c, "pid", Some(&path(&owner, "pid"))));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "sleep");
    assert_ne!(lines[1], "1");
    Pass
}

fn a_path_of_the_wrong_type_is_refused(ctx: &Ctx) -> Outcome {
    let owner = ctx.running(|_| {});
    for (kind, wrong) in [("network", "ipc"), ("ipc", "uts"), ("uts", "net"), ("pid", "net"), ("mount", "uts")] {
        ctx.run(|c| config::namespace(c, kind, Some(&path(&owner, wrong)))).exits(1);
    }
    Pass
}

fn user_namespace_maps_are_as_configured(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g", |c| {
        let (uids, gids) = (json!([id_map(0, 200_000, 1000), id_map(1000, 300_000, 1)]), json!([id_map(0, 400_000, 10)]));
        config::in_user_namespace(c, uids, gids);
        own_dev(c);
    });
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "1000", "1000", "300000", "1", "0", "400000", "10", "0", "0"]);
    Pass
}

/// A network namespace made before the user namespace would not obey its root.
fn a_user_namespace_owns_the_others(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("hostname changed && ip link set lo down && hostname", |c| {
        mapped(c);
        config::capabilities(c, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    });
    assert_eq!(output.trim(), "changed");
    Pass
}

fn a_rootfs_behind_a_private_folder_works_in_a_user_namespace(ctx: &Ctx) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let container = ctx.container(ctx.bundle(|c| {
        mapped(c);
        config::shell(c, "echo inside");
    }));
    needs_rt!(ctx, "runc walks the path after it has become an ordinary user");
    std::fs::set_permissions(&container.bundle.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(container.run().ok().text(), "inside");
    Pass
}

fn a_user_namespace_is_joined_by_path(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 wants the maps again");
    let owner = ctx.running(mapped);
    let output = ctx.sh_with("readlink /proc/self/ns/user; cat /proc/self/uid_map", |c| {
        config::namespace(c, "user", Some(&path(&owner, "user")));
        own_dev(c);
    });
    let expected = owner.sh("readlink /proc/self/ns/user; cat /proc/self/uid_map");
    assert_eq!(output.trim(), expected);
    Pass
}

fn time_namespace_offsets(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know time namespaces");
    let output = ctx.sh_with("cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time", |c| {
        config::namespace(c, "time", None);
        c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 86_400_000, "nanosecs": 0 }, "monotonic": { "secs": 5 } });
    });
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].parse::<u64>().unwrap() >= 86_400_000, "{output}");
    assert_ne!(lines[1], own("time"));
    Pass
}

fn time_offsets_without_a_time_namespace_are_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know time namespaces");
    ctx.run(|c| c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } })).refused("timeOffsets");
    Pass
}

/// A user namespace whose root is host user 200000.
fn mapped(config: &mut serde_json::Value) {
    config::in_user_namespace(config, json!([id_map(0, 200_000, 65_536)]), json!([id_map(0, 200_000, 65_536)]));
    own_dev(config);
}

/// cgroup v1 cannot be mounted by a user namespace's root without a cgroup namespace of its own.
fn own_dev(config: &mut serde_json::Value) {
    config::without_mount(config, "/sys/fs/cgroup");
}

/// The map of a namespace that is joined is what it is.
fn maps_that_are_not_those_of_the_joined_namespace_are_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such check");
    let owner = ctx.running(mapped);
    let path = format!("/proc/{}/ns/user", owner.pid());
    let joined = |host: u32| {
        let output = ctx.run(|c| {
            c["process"]["args"] = json!(["/bin/true"]);
            let map = json!([id_map(0, host, 1000), id_map(1000, host + 1000, 64_536)]);
            config::in_user_namespace(c, map.clone(), map);
            config::namespace(c, "user", Some(&path));
            own_dev(c);
        });
        output.ok().stderr
    };
    assert_eq!(joined(200_000), "", "the same in other words");
    let warned = joined(300_000);
    assert!(warned.contains("linux.uidMappings: not those of the user namespace that is joined"), "{warned}");
    Pass
}
