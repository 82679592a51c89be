//! `rt mounts add` and `rt mounts remove`: mounts for a container that exists, seen from inside, and never from outside.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Container, Ctx, Output};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        a_folder_and_a_file_come_and_go,
        a_tmpfs_belongs_to_the_container,
        a_created_and_a_paused_container,
        the_list_comes_from_standard_input,
        the_example_of_the_readme_works,
        all_or_nothing,
        only_what_was_added_is_taken_away,
        links_stay_in_the_container,
        the_kernel_s_filesystems_are_refused,
        an_exchanged_path_leads_nowhere,
        what_cannot_be_added_is_named,
        a_container_that_does_not_run,
    }
    Root {
        in_a_user_namespace_the_filesystem_is_the_container_s,
        ids_are_mapped,
        what_is_shared_with_the_host_is_no_place,
        a_checkpoint_names_it,
    }
}

fn entry(source: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "source": source, "options": options })
}

fn change(ctx: &Ctx, verb: &str, container: &Container, list: &Value) -> Output {
    let file = ctx.path("mounts.json");
    fs::write(&file, list.to_string()).unwrap();
    ctx.rt(&["mounts", verb, &container.id, &file])
}

fn add(ctx: &Ctx, container: &Container, list: &Value) -> Output {
    change(ctx, "add", container, list)
}

fn remove(ctx: &Ctx, container: &Container, list: &Value) -> Output {
    change(ctx, "remove", container, list)
}

/// The host's mounts below the test's folder, or with it as their source. Others come and go with what else runs there.
fn host_mounts(ctx: &Ctx) -> Vec<String> {
    let dir = ctx.dir.to_str().unwrap();
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(dir)).map(str::to_owned).collect()
}

/// How many mounts the container has.
fn count(container: &Container) -> usize {
    fs::read_to_string(format!("/proc/{}/mountinfo", container.pid())).unwrap().lines().count()
}

fn a_folder_and_a_file_come_and_go(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let source = ctx.host_dir("source", "file", "from the host");
    let container = ctx.running(|_| {});
    let (before, count_before) = (host_mounts(ctx), count(&container));
    let list = json!([
        entry(&source, "/new/folder", &["bind", "ro", "nosuid"]),
        entry(&format!("{source}/file"), "/new/one", &["bind"]),
    ]);
    add(ctx, &container, &list).ok();
    assert_eq!(
        container.sh("cat /new/folder/file /new/one; touch /new/folder/x 2>&1 | grep -o Read-only"),
        "from the hostfrom the hostRead-only"
    );
    let line = container.sh("grep ' /new/folder ' /proc/self/mountinfo");
    assert!(line.contains("ro,nosuid"), "{line}");
    assert!(!line.contains("shared:"), "{line}");
    assert_eq!(host_mounts(ctx), before);
    assert_eq!(count(&container), count_before + 2);
    // The state says what it said before, and another exec sees it, too.
    assert_eq!(container.status(), "running");
    remove(ctx, &container, &list).ok();
    assert_eq!(count(&container), count_before);
    assert_eq!(container.sh("ls /new/folder; cat /new/one"), "");
    remove(ctx, &container, &list).refused("/new/folder was not mounted by `rt mounts add`; expected a mount that was");
    add(ctx, &container, &list).ok();
    container.stop();
    container.delete().ok();
    assert_eq!(host_mounts(ctx), before);
    Pass
}

fn a_tmpfs_belongs_to_the_container(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let container = ctx.running(|_| {});
    let tmpfs = json!([{ "destination": "/scratch", "type": "tmpfs", "options": ["size=64k", "mode=1777", "noexec"] },
                       { "destination": "/queue", "type": "mqueue" },
                       { "destination": "/scratch/below", "type": "tmpfs", "options": ["size=8k"] }]);
    add(ctx, &container, &tmpfs).ok();
    let out = container.sh("df -k /scratch | awk 'NR == 2 { print $2 }'; stat -c %a /scratch; grep -c ' /scratch/below ' /proc/self/mountinfo; stat -c %u /scratch; echo x > /scratch/x && echo written");
    assert_eq!(out, "64\n1777\n1\n0\nwritten");
    // Taking the first one away takes what is below it along, and both are forgotten.
    remove(ctx, &container, &json!([{ "destination": "/scratch" }])).ok();
    assert_eq!(container.sh("grep -c /scratch /proc/self/mountinfo; true"), "0");
    remove(ctx, &container, &json!([{ "destination": "/scratch/below" }])).refused("was not mounted by");
    Pass
}

fn a_created_and_a_paused_container(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let source = ctx.host_dir("source", "file", "early");
    let list = json!([entry(&source, "/early", &["rbind"])]);
    let container = ctx.create(|c| config::shell(c, "cat /early/file; sleep 1000"));
    add(ctx, &container, &list).ok();
    container.start().ok();
    ctx.wait_until("the program has read it", || container.printed() == "early");
    if container.verb("pause").code != 0 {
        return Skip("created shown; no control group that can be frozen".to_owned());
    }
    let late = json!([entry(&source, "/late", &["bind"])]);
    add(ctx, &container, &late).ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume").ok();
    assert_eq!(container.sh("cat /late/file"), "early");
    Pass
}

fn the_list_comes_from_standard_input(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let container = ctx.running(|_| {});
    let list = json!([{ "destination": "/scratch", "type": "tmpfs" }]).to_string();
    ctx.rt_command(&["mounts", "add", &container.id, "-"]).stdin(&list).run().ok();
    assert_eq!(container.sh("grep -c ' /scratch ' /proc/self/mountinfo"), "1");
    ctx.rt_command(&["mounts", "remove", &container.id, "-"]).stdin(&list).run().ok();
    assert_eq!(container.sh("grep -c ' /scratch ' /proc/self/mountinfo; true"), "0");
    Pass
}

/// In the bundle of the README's tour, which `rt spec` has made.
fn the_example_of_the_readme_works(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others write another config");
    let readme = include_str!("../README.md");
    let section = readme.split("\n## ").find(|section| section.starts_with("Mounts for a container")).unwrap();
    let lines: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let bundle = ctx.bundle(|_| {});
    let rt = format!("rt() {{ {} --root {} \"$@\"; }}", ctx.runtime().display(), ctx.path("state"));
    let look = "rt exec web cat /proc/self/mountinfo | grep -c ' /data '";
    let edit = r#"s/"terminal": true/"terminal": false/; s/"sh"/"sleep", "1000"/"#;
    let script = format!(
        "{rt}; rmdir rootfs/data; rm config.json; rt spec && sed -i '{edit}' config.json && rt run --detach web < /dev/null > /dev/null || exit
         {}; {look}; {}; {look}; rt delete --force web",
        lines[..2].join("\n"),
        lines[2]
    );
    let output = ctx.command(&["sh", "-c", &script]).cwd(bundle.path().as_ref()).run();
    assert_eq!(output.ok().lines(), ["1", "0"]);
    Pass
}

fn all_or_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let source = ctx.host_dir("source", "file", "x");
    let container = ctx.running(|_| {});
    container.sh("echo x > /tmp/file");
    let before = count(&container);
    let good = [entry(&source, "/one", &["bind"]), json!({ "destination": "/two", "type": "tmpfs" })];
    // A folder cannot be mounted on a file: the third one fails when two are attached.
    let bad = json!([good[0], good[1], entry(&source, "/tmp/file", &["bind"])]);
    add(ctx, &container, &bad).refused("mounts[2]");
    assert_eq!(count(&container), before);
    remove(ctx, &container, &json!([good[0]])).refused("was not mounted by");
    // A source that is missing stops it before anything is attached.
    add(ctx, &container, &json!([good[0], entry("/not/there", "/three", &["bind"])])).refused("no such file or directory");
    assert_eq!(count(&container), before);
    // One that is gone keeps the others from being taken away.
    add(ctx, &container, &json!(good)).ok();
    let both = json!([good[0], good[1], { "destination": "/never" }]);
    remove(ctx, &container, &both).refused("mounts[2].destination: /never was not mounted by");
    assert_eq!(count(&container), before + 2);
    remove(ctx, &container, &json!(good)).ok();
    assert_eq!(count(&container), before);
    Pass
}

fn only_what_was_added_is_taken_away(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let container = ctx.running(|c| {
        config::mount(c, "tmpfs", "tmpfs", "/vault", &["mode=700"]);
        c["linux"]["maskedPaths"] = json!(["/proc/kcore", "/data/mask"]);
    });
    for place in ["/vault", "/proc/kcore", "/proc/sys", "/dev", "/"] {
        remove(ctx, &container, &json!([{ "destination": place }])).refused(&format!("{place} was not mounted by"));
    }
    // The destination that was added leads to a mount of the config when it is to be taken away.
    add(ctx, &container, &json!([{ "destination": "/free/vault", "type": "tmpfs" }])).ok();
    container.sh("mv /free /gone && ln -s / /free");
    let before = count(&container);
    let said = "what is on /free/vault now is not what `rt mounts add` mounted there";
    remove(ctx, &container, &json!([{ "destination": "/free/vault" }])).refused(said);
    assert_eq!(count(&container), before);
    Pass
}

fn links_stay_in_the_container(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let outside = ctx.host_dir("outside", "file", "host");
    let source = ctx.host_dir("source", "file", "new");
    let container = ctx.running(|_| {});
    for (name, target) in [("absolute", outside.clone()), ("climbing", format!("../../../../../../../..{outside}"))] {
        symlink(&target, container.bundle.rootfs(name)).unwrap();
    }
    let before = host_mounts(ctx);
    add(ctx, &container, &json!([entry(&source, "/absolute", &["bind"])])).ok();
    add(ctx, &container, &json!([entry(&source, "/climbing/../x/../../../y", &["bind"])])).ok();
    assert_eq!(host_mounts(ctx), before);
    assert_eq!(fs::read_to_string(format!("{outside}/file")).unwrap(), "host");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // It is below the container's root that the link leads to.
    assert_eq!(container.sh(&format!("cat {outside}/file /y/file")), "newnew");
    Pass
}

fn the_kernel_s_filesystems_are_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let source = ctx.host_dir("source", "file", "new");
    let container = ctx.running(|_| {});
    let links = [
        ("link1", "/proc/sys"),
        ("link2", "/proc/1/root"),
        ("link3", "/sys/fs"),
        ("link4", "proc/self/attr"),
        ("link5", "/proc/self/cwd"),
    ];
    for (name, target) in links {
        symlink(target, container.bundle.rootfs(name)).unwrap();
    }
    let before = (host_mounts(ctx), count(&container));
    for place in ["/proc", "/proc/sys", "/sys/fs/cgroup", "/proc/../proc/1"] {
        add(ctx, &container, &json!([entry(&source, place, &["bind"])]))
            .refused("expected another place in a container that exists");
    }
    for (name, _) in links {
        add(ctx, &container, &json!([entry(&source, &format!("/{name}"), &["bind"])])).exits(1);
    }
    add(ctx, &container, &json!([entry(&source, "/link1", &["bind"])])).refused("/link1 leads to a filesystem of the kernel's");
    assert_eq!((host_mounts(ctx), count(&container)), before);
    Pass
}

fn an_exchanged_path_leads_nowhere(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let outside = ctx.host_dir("outside", "file", "host");
    let source = ctx.host_dir("source", "file", "new");
    let container = ctx.running(|_| {});
    let volume = container.bundle.rootfs("/vol");
    fs::create_dir_all(volume.join("a/b")).unwrap();
    symlink(&outside, volume.join("link")).unwrap();
    symlink("/proc/sys", volume.join("proc")).unwrap();
    let before = (host_mounts(ctx), count(&container));
    for other in ["link", "proc"] {
        let (a, b) = (volume.join("a"), volume.join(other));
        let racer = ctx.command(&[ctx.probe().as_str(), "swap", a.to_str().unwrap(), b.to_str().unwrap()]).spawn();
        for _ in 0..15 {
            let list = json!([entry(&source, "/vol/a/b", &["bind"])]);
            if add(ctx, &container, &list).code == 0 {
                // It may have been exchanged meanwhile: then it is refused and stays.
                while remove(ctx, &container, &list).code != 0 {}
            }
        }
        drop(racer);
        assert_eq!((host_mounts(ctx), count(&container)), before, "{other}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(container.sh("grep -c '/proc/sys/b' /proc/self/mountinfo; true"), "0");
    Pass
}

fn what_cannot_be_added_is_named(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let container = ctx.running(|_| {});
    let cases = [
        (
            json!([{ "destination": "/" , "type": "tmpfs" }]),
            "mounts[0].destination: / is the root of the container; expected a place below it",
        ),
        (json!([{ "destination": "/x", "type": "proc" }]), "mounts[0].type: proc: expected it in config.json"),
        (json!([{ "destination": "/x", "type": "cgroup" }]), "mounts[0].type"),
        (json!([{ "destination": "/x", "options": ["remount", "ro"] }]), "mounts[0].options: remount: expected a new mount"),
        (
            json!([{ "destination": "/x", "type": "tmpfs", "options": ["tmpcopyup"] }]),
            "mounts[0].options: tmpcopyup: expected it in config.json",
        ),
        (
            json!([{ "destination": "/x" }]),
            "mounts[0].type: missing; expected a filesystem type, or bind or rbind among the options",
        ),
        (json!([{ "destination": 1 }]), "expected a string"),
        (json!({}), "expected a sequence"),
    ];
    let before = count(&container);
    for (list, said) in cases {
        let output = add(ctx, &container, &list).refused(said);
        assert!(
            output.stderr.contains(&format!("mounts add {}: ", container.id)) && output.stderr.contains("mounts.json: "),
            "{output}"
        );
    }
    assert_eq!(count(&container), before);
    Pass
}

fn a_container_that_does_not_run(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let list = json!([{ "destination": "/x", "type": "tmpfs" }]);
    let container = ctx.running(|_| {});
    container.stop();
    add(ctx, &container, &list).refused("container not running (status stopped)");
    container.delete().ok();
    add(ctx, &container, &list).refused("container does not exist");
    Pass
}

fn user_namespace(c: &mut Value) {
    let map = json!([config::id_map(0, 100_000, 65536)]);
    config::in_user_namespace(c, map.clone(), map);
}

fn in_a_user_namespace_the_filesystem_is_the_container_s(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let source = ctx.host_dir("source", "file", "only root may come here");
    fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let container = ctx.running(|c| {
        user_namespace(c);
        config::mount(c, "tmpfs", "tmpfs", "/data", &["mode=755"]);
    });
    let list = json!([{ "destination": "/data/made", "type": "tmpfs", "options": ["mode=755"] }, entry(&source, "/data/bound", &["bind"])]);
    add(ctx, &container, &list).ok();
    // Its superblock is owned by the container's user namespace: root there is root of it, and ids of outside are not known to it.
    assert_eq!(
        container.sh("stat -c %u /data /data/made; touch /data/made/x && chown 7 /data/made/x && stat -c %u /data/made/x"),
        "0\n0\n7"
    );
    assert_eq!(container.sh("stat -c %u /data/bound"), "65534");
    let nobody_s = ctx.command(&["stat", "-c", "%u", &format!("/proc/{}/root/data/made/x", container.pid())]).run().ok();
    assert_eq!(nobody_s.text(), "100007");
    remove(ctx, &container, &list).ok();
    assert_eq!(container.sh("grep -c ' /data/' /proc/self/mountinfo; true"), "0");
    Pass
}

fn ids_are_mapped(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let source = ctx.host_dir("source", "file", "");
    std::os::unix::fs::chown(format!("{source}/file"), Some(1000), Some(1000)).unwrap();
    let container = ctx.running(|_| {});
    let map = json!([config::id_map(1000, 5000, 1)]);
    let mut mount = entry(&source, "/mapped", &["bind"]);
    (mount["uidMappings"], mount["gidMappings"]) = (map.clone(), map);
    add(ctx, &container, &json!([mount])).ok();
    assert_eq!(container.sh("stat -c %u:%g /mapped/file"), "5000:5000");
    Pass
}

fn what_is_shared_with_the_host_is_no_place(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let source = ctx.host_dir("source", "file", "");
    let volume = ctx.host_dir("volume", "file", "");
    let own = ctx.runtime().to_str().unwrap().to_owned();
    let container = ctx.container(ctx.bundle(|c| config::mount(c, "bind", &volume, "/vol", &["rbind", "rshared"])));
    let file = ctx.path("mounts.json");
    fs::write(&file, json!([entry(&source, "/link/inner", &["bind"])]).to_string()).unwrap();
    symlink("/vol", container.bundle.rootfs("link")).unwrap();
    // In a mount namespace of the test's own there may be a shared mount.
    let script = r#"
        mount --bind "$1" "$1" && mount --make-shared "$1" || exit 9
        before=$(wc -l < /proc/self/mountinfo)
        "$0" --root "$2" run --detach --bundle "$3" "$4" || exit 8
        "$0" --root "$2" mounts add "$4" "$5"; status=$?
        test "$before" = "$(wc -l < /proc/self/mountinfo)" || exit 7
        "$0" --root "$2" delete --force "$4"
        exit $status"#;
    let root = ctx.path("state");
    let argv = ["unshare", "-m", "sh", "-c", script, &own, &volume, &root, container.bundle.path(), &container.id, &file];
    ctx.command(&argv)
        .run()
        .exits(1)
        .refused("the mount point is on a mount that is shared with the host; the new mount would be there, too");
    Pass
}

fn a_checkpoint_names_it(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc has no such command");
    let container = ctx.running(|_| {});
    add(ctx, &container, &json!([{ "destination": "/x", "type": "tmpfs" }])).ok();
    let output = ctx.rt(&["checkpoint", "--image-path", &ctx.path("images"), &container.id]);
    if !output.stderr.contains("mounts add") {
        return Skip(format!("no CRIU here: {}", output.stderr.trim()));
    }
    output.exits(1).refused("/x was added by `rt mounts add`, which restore would not know of");
    Pass
}
