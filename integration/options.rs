//! Mount options: each word of the specification's table has its effect, and the words that clear something clear it.

use std::fs;

use serde_json::json;

use crate::config;
use crate::ctx::Ctx;
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        access_times,
        properties_of_the_filesystem,
        links_are_not_followed,
        words_without_effect,
        a_remount_changes_what_it_names,
        a_remount_changes_the_filesystem,
        a_folder_is_not_the_requested_device,
        a_remount_of_a_bind_mount_changes_the_mount_alone,
        options_that_mean_nothing_are_a_warning,
    }
    Root {
        recursive_words_that_set,
        mandatory_locks_are_no_more,
        words_that_clear,
        recursive_words_that_clear,
        recursive_access_times,
        own_and_recursive_words_together,
        intel_rdt_without_resctrl_is_refused,
    }
}

/// The line of `/proc/self/mountinfo` for this mount point: attributes of the mount, and properties of the filesystem.
fn flags(text: &str, point: &str) -> (Vec<String>, Vec<String>) {
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
    let line = line.unwrap_or_else(|| panic!("{point} is not mounted in\n{text}"));
    let words = |list: &str| list.split(',').map(str::to_owned).collect();
    (words(line.split(' ').nth(5).unwrap()), words(line.rsplit(' ').next().unwrap()))
}

/// A tmpfs for each list of options, and what the kernel says of them.
fn tmpfs_each(ctx: &Ctx, lists: &[&[&str]]) -> Vec<(Vec<String>, Vec<String>)> {
    let text = ctx.sh_with("cat /proc/self/mountinfo", |c| {
        for (index, options) in lists.iter().enumerate() {
            config::mount(c, "tmpfs", "tmpfs", &format!("/tmp/{index}"), options);
        }
    });
    (0..lists.len()).map(|index| flags(&text, &format!("/tmp/{index}"))).collect()
}

fn access_times(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 lets earlier words win");
    let lists: [(&[&str], &[&str]); 9] = [
        (&["noatime"], &["rw", "noatime"]),
        (&["relatime"], &["rw", "relatime"]),
        (&["strictatime"], &["rw"]),
        (&["noatime", "atime"], &["rw", "relatime"]),
        (&["strictatime", "nostrictatime"], &["rw", "relatime"]),
        (&["relatime", "norelatime"], &["rw", "relatime"]),
        (&["noatime", "strictatime"], &["rw"]),
        (&["nodiratime"], &["rw", "nodiratime", "relatime"]),
        (&["nodiratime", "diratime"], &["rw", "relatime"]),
    ];
    for ((options, expected), (found, _)) in lists.iter().zip(tmpfs_each(ctx, &lists.map(|(options, _)| options))) {
        assert_eq!(found, *expected, "{options:?}");
    }
    Pass
}

fn properties_of_the_filesystem(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know lazytime");
    let lists: [(&[&str], &[&str]); 7] = [
        (&["sync"], &["sync"]),
        (&["dirsync"], &["dirsync"]),
        (&["lazytime"], &["lazytime"]),
        (&["sync", "async"], &[]),
        (&["lazytime", "nolazytime"], &[]),
        (&["lazytime", "sync", "iversion"], &["sync", "lazytime"]),
        (&["lazytime", "sync", "iversion", "async", "noiversion"], &["lazytime"]),
    ];
    for ((options, expected), (_, found)) in lists.iter().zip(tmpfs_each(ctx, &lists.map(|(options, _)| options))) {
        let found: Vec<&str> =
            found.iter().map(String::as_str).filter(|word| ["sync", "dirsync", "lazytime"].contains(word)).collect();
        assert_eq!(found, *expected, "{options:?}");
    }
    Pass
}

fn links_are_not_followed(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know nosymfollow");
    let script =
        "for d in a b; do ln -s /bin/busybox /tmp/$d/link; head -c 1 /tmp/$d/link > /tmp/out 2> /dev/null && echo $d; done; true";
    let output = ctx.sh_with(script, |c| {
        config::mount(c, "tmpfs", "tmpfs", "/tmp", &[]);
        config::mount(c, "tmpfs", "tmpfs", "/tmp/a", &["nosymfollow"]);
        config::mount(c, "tmpfs", "tmpfs", "/tmp/b", &["nosymfollow", "symfollow"]);
    });
    assert_eq!(output, "b\n");
    Pass
}

fn words_without_effect(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 hands some of them to the file system");
    let words = ["defaults", "silent", "loud", "async", "nomand", "noiversion", "nolazytime", "rw", "suid", "dev", "exec"];
    let (found, _) = tmpfs_each(ctx, &[&words]).remove(0);
    assert_eq!(found, ["rw", "relatime"]);
    Pass
}

/// What the remount does not name stays: nosuid and nodev above all.
fn a_remount_changes_what_it_names(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 clears what a remount does not repeat");
    let text = ctx.sh_with("cat /proc/self/mountinfo", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/tmp", &["nosuid", "nodev", "noexec", "size=1m"]);
        config::mount(c, "", "", "/tmp", &["remount", "ro", "exec"]);
    });
    let (mut found, filesystem) = flags(&text, "/tmp");
    found.sort_unstable();
    assert_eq!(found, ["nodev", "nosuid", "relatime", "ro"]);
    assert!(filesystem.contains(&"size=1024k".to_owned()), "{filesystem:?}");
    Pass
}

fn a_remount_changes_the_filesystem(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 clears what a remount does not repeat");
    let text = ctx.sh_with("cat /proc/self/mountinfo", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/tmp", &["nosuid", "nodev", "size=1m", "lazytime"]);
        config::mount(c, "", "", "/tmp", &["remount", "size=2m", "sync", "nolazytime"]);
    });
    let (found, filesystem) = flags(&text, "/tmp");
    assert_eq!(found, ["rw", "nosuid", "nodev", "relatime"]);
    for word in ["size=2048k", "sync"] {
        assert!(filesystem.contains(&word.to_owned()), "{word}: {filesystem:?}");
    }
    assert!(!filesystem.contains(&"lazytime".to_owned()), "{filesystem:?}");
    Pass
}

/// config-linux.md, "Devices": what exists and does not match is an error, with and without a user namespace.
fn a_folder_is_not_the_requested_device(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not look");
    let container = ctx.container(ctx.bundle(|c| {
        config::without_mount(c, "/dev");
    }));
    fs::create_dir_all(container.bundle.rootfs("/dev/full")).unwrap();
    container.run().exits(1).refused("/dev/full exists and is not the requested device");
    Pass
}

/// Runs a container in a private view of the host, after this preparation.
fn prepared(ctx: &Ctx, preparation: &str, edit: impl FnOnce(&mut serde_json::Value)) -> String {
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "cat /proc/self/mountinfo");
        edit(c);
    }));
    let rt = format!("{} --root {}", ctx.runtime().display(), ctx.path("state"));
    let script = format!("{preparation} && exec {rt} run -b {} {}", container.bundle.path(), container.id);
    ctx.command(&["unshare", "-m", "sh", "-c", &script]).run().ok().stdout
}

/// A tmpfs with every attribute, and another below it.
fn restricted(ctx: &Ctx) -> (String, String) {
    let source = ctx.host_dir("source", "file", "");
    let all = "ro,nosuid,nodev,noexec,nodiratime,noatime,nosymfollow";
    let script = format!(
        "mount -t tmpfs -o rw tmpfs {source} && mkdir {source}/below && mount -t tmpfs -o {all} tmpfs {source}/below \
         && mount -o remount,bind,{all} {source}"
    );
    (source, script)
}

fn words_that_clear(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know symfollow");
    let (source, script) = restricted(ctx);
    let text = prepared(ctx, &script, |c| {
        let words = ["rbind", "rw", "suid", "dev", "exec", "diratime", "relatime", "symfollow"];
        config::mount(c, "bind", &source, "/mnt", &words);
    });
    assert_eq!(flags(&text, "/mnt").0, ["rw", "relatime"]);
    assert!(flags(&text, "/mnt/below").0.contains(&"noexec".to_owned()), "only the mount itself: {text}");
    Pass
}

fn recursive_words_that_clear(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know rsymfollow");
    let (source, script) = restricted(ctx);
    let text = prepared(ctx, &script, |c| {
        let words = ["rbind", "rrw", "rsuid", "rdev", "rexec", "rdiratime", "rrelatime", "rsymfollow"];
        config::mount(c, "bind", &source, "/mnt", &words);
    });
    for point in ["/mnt", "/mnt/below"] {
        assert_eq!(flags(&text, point).0, ["rw", "relatime"], "{point}");
    }
    Pass
}

/// Each word on a bind mount of its own: what it says is seen on the mount and on the one below.
fn shown_on_both(ctx: &Ctx, source: &str, below: &str, cases: &[(&str, &[&str])]) -> Outcome {
    let text = prepared(ctx, below, |c| {
        for (word, _) in cases {
            config::mount(c, "bind", source, &format!("/mnt/{word}"), &["rbind", word]);
        }
    });
    for (word, expected) in cases {
        for point in [format!("/mnt/{word}"), format!("/mnt/{word}/below")] {
            assert_eq!(flags(&text, &point).0, *expected, "{point}");
        }
    }
    Pass
}

fn recursive_access_times(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know all of them");
    let source = ctx.host_dir("source", "file", "");
    let below = format!("mount -t tmpfs tmpfs {source} && mkdir {source}/below && mount -t tmpfs tmpfs {source}/below");
    let cases: [(&str, &[&str]); 5] = [
        ("rnoatime", &["rw", "noatime"]),
        ("rstrictatime", &["rw"]),
        ("ratime", &["rw", "relatime"]),
        ("rnostrictatime", &["rw", "relatime"]),
        ("rnodiratime", &["rw", "nodiratime", "relatime"]),
    ];
    shown_on_both(ctx, &source, &below, &cases)
}

fn own_and_recursive_words_together(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know all of them");
    let source = ctx.host_dir("source", "file", "");
    let below = format!("mount -t tmpfs tmpfs {source} && mkdir {source}/below && mount -t tmpfs tmpfs {source}/below");
    let text = prepared(ctx, &below, |c| {
        config::mount(c, "bind", &source, "/mnt", &["rbind", "nodev", "rnoexec", "rnosymfollow", "rprivate"]);
    });
    assert_eq!(flags(&text, "/mnt").0, ["rw", "nodev", "noexec", "relatime", "nosymfollow"]);
    assert_eq!(flags(&text, "/mnt/below").0, ["rw", "noexec", "relatime", "nosymfollow"]);
    Pass
}

fn intel_rdt_without_resctrl_is_refused(ctx: &Ctx) -> Outcome {
    if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
        return Outcome::Skip("resctrl is mounted".to_owned());
    }
    ctx.run(|c| c["linux"]["intelRdt"] = json!({ "closID": "gold" })).exits(1).refused("ntel");
    Pass
}

/// mount(2), `MS_REMOUNT | MS_BIND`: the attributes of the mount change, its filesystem does not.
fn a_remount_of_a_bind_mount_changes_the_mount_alone(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 clears what a remount does not repeat");
    let output = ctx.run(|c| {
        config::shell(c, "cat /proc/self/mountinfo");
        config::mount(c, "tmpfs", "tmpfs", "/tmp", &["nosuid", "nodev", "size=1m"]);
        config::mount(c, "", "", "/tmp", &["remount", "bind", "ro", "size=2m"]);
    });
    let output = output.ok();
    let (mut found, filesystem) = flags(&output.stdout, "/tmp");
    found.sort_unstable();
    assert_eq!(found, ["nodev", "nosuid", "relatime", "ro"]);
    assert!(filesystem.contains(&"rw".to_owned()) && filesystem.contains(&"size=1024k".to_owned()), "{filesystem:?}");
    assert!(output.stderr.contains("size means nothing on a remount of a bind mount"), "{output}");
    Pass
}

fn options_that_mean_nothing_are_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 refuses");
    let source = ctx.host_dir("source", "file", "");
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        config::mount(c, "bind", &source, "/mnt", &["bind", "mode=700", "lazytime"]);
    });
    assert!(output.ok().stderr.contains("mode, lazytime means nothing on a bind mount and is left out"));
    Pass
}

fn recursive_words_that_set(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know all of them");
    let source = ctx.host_dir("source", "file", "");
    let below = format!("mount -t tmpfs tmpfs {source} && mkdir {source}/below && mount -t tmpfs tmpfs {source}/below");
    let cases: [(&str, &[&str]); 7] = [
        ("rro", &["ro", "relatime"]),
        ("rnosuid", &["rw", "nosuid", "relatime"]),
        ("rnodev", &["rw", "nodev", "relatime"]),
        ("rnoexec", &["rw", "noexec", "relatime"]),
        ("rnosymfollow", &["rw", "relatime", "nosymfollow"]),
        ("rnorelatime", &["rw", "relatime"]),
        ("rrelatime", &["rw", "relatime"]),
    ];
    shown_on_both(ctx, &source, &below, &cases)
}

/// Since Linux 5.15 the kernel takes `mand` and does nothing: it shows it for whom it may.
fn mandatory_locks_are_no_more(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 fails where the kernel does");
    let found = tmpfs_each(ctx, &[&["mand"], &["nomand"]]);
    assert_eq!(found[0].0, ["rw", "relatime"]);
    assert!(!found[1].1.contains(&"mand".to_owned()), "{found:?}");
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        config::mount(c, "tmpfs", "tmpfs", "/tmp", &["mand"]);
    });
    assert!(output.ok().stderr.contains("mounts[7].options: mand has no effect"));
    Pass
}
