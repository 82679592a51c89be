//! The container's file system: mounts and their options, devices, masks, and that nothing of the host is left in it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::Ctx;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        a_read_only_root_cannot_be_written,
        masked_files_are_empty,
        masked_directories_are_empty_and_read_only,
        masked_paths_that_do_not_exist_are_ignored,
        read_only_paths_cannot_be_written,
        default_devices_exist,
        links_in_dev_are_standard,
        tmpfs_options,
        tmpfs_mode_and_size,
        a_bind_mount_shows_the_host_s_folder,
        a_bind_mount_of_a_file_makes_its_target,
        a_read_only_bind_mount,
        a_bind_mount_keeps_locked_flags,
        an_rbind_brings_the_mounts_below,
        a_bind_brings_no_mounts_below,
        a_missing_bind_source_is_refused,
        an_unknown_file_system_is_refused,
        a_bad_tmpfs_size_is_refused,
        mounts_happen_in_the_order_of_the_list,
        destinations_are_made,
        destinations_through_links_stay_inside,
        tmpcopyup_copies_what_lies_below,
        tmpcopyup_keeps_holes,
        mqueue_is_mounted,
        devpts_is_new,
        proc_shows_this_pid_namespace,
        the_old_root_is_gone,
        no_mount_is_left_on_the_host,
        a_later_mount_covers_dev,
        a_link_as_the_source_is_copied,
        links_of_a_bind_mount_are_not_followed,
        the_option_defaults_means_nothing,
    }
    Root {
        overlay_is_mounted,
        a_recursive_read_only_mount,
        each_propagation_per_mount,
        a_shared_mount_is_listed_at_its_place,
        a_mount_in_a_shared_mount_arrives_on_the_host,
        root_propagation_is_private_by_default,
        root_propagation_shared,
        a_mount_on_the_host_arrives_in_a_slave,
        extra_devices_are_made,
        an_extra_device_under_another_folder,
        sysctls_are_written,
        a_sysctl_of_the_host_is_refused,
        no_pivot_works,
    }
}

/// The line of `/proc/self/mountinfo` for this mount point, from inside.
fn mountinfo<'a>(text: &'a str, point: &str) -> Vec<&'a str> {
    let of = |line: &'a str| line.split(' ').collect::<Vec<_>>();
    let last = text.lines().map(of).rfind(|fields| fields[4] == point);
    last.unwrap_or_else(|| panic!("{point} is not mounted in\n{text}"))
}

fn a_read_only_root_cannot_be_written(ctx: &Ctx) -> Outcome {
    let script = "touch /x 2>&1; touch /dev/x && echo dev is writable; grep ' / / ' /proc/self/mountinfo";
    let output = ctx.run(|c| {
        config::shell(c, script);
        c["root"]["readonly"] = json!(true);
    });
    assert!(output.stdout.contains("Read-only file system") && output.stdout.contains("dev is writable"), "{output}");
    Pass
}

fn masked_files_are_empty(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with(
        "wc -c < /proc/version; echo x 2>/dev/null > /etc/passwd; wc -c < /etc/passwd; stat -c %t:%T /etc/passwd",
        |c| {
            c["linux"]["maskedPaths"] = json!(["/proc/version", "/etc/passwd"]);
        },
    );
    assert_eq!(output.lines().collect::<Vec<_>>(), ["0", "0", "1:3"]);
    Pass
}

fn masked_directories_are_empty_and_read_only(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, "ls -A /proc/scsi /etc | wc -l; touch /etc/x; touch /proc/scsi/x");
        c["linux"]["maskedPaths"] = json!(["/etc", "/proc/scsi"]);
    });
    assert_eq!(output.lines()[0], if Path::new("/proc/scsi").exists() { "4" } else { "1" }, "{output}");
    assert!(output.stderr.contains("/etc/x: Read-only file system"), "{output}");
    Pass
}

fn masked_paths_that_do_not_exist_are_ignored(ctx: &Ctx) -> Outcome {
    ctx.sh_with("! ls /nowhere 2>/dev/null", |c| {
        c["linux"]["maskedPaths"] = json!(["/nowhere/at/all"]);
        c["linux"]["readonlyPaths"] = json!(["/nowhere"]);
    });
    Pass
}

fn read_only_paths_cannot_be_written(ctx: &Ctx) -> Outcome {
    let output = ctx.run(|c| {
        config::shell(c, "echo changed > /proc/sys/kernel/domainname; touch /data/x; touch /tmp/x && echo tmp is writable");
        c["linux"]["readonlyPaths"] = json!(["/proc/sys", "/data"]);
    });
    assert_eq!(output.text(), "tmp is writable");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output}");
    Pass
}

fn default_devices_exist(ctx: &Ctx) -> Outcome {
    let devices = [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")];
    let script = devices.map(|(name, _)| format!("stat -c '%F %t:%T %a' /dev/{name}")).join("; ");
    let expected = devices.map(|(_, number)| format!("character special file {number} 666\n")).concat();
    assert_eq!(ctx.sh(&script).ok().stdout, expected);
    let works =
        "head -c 3 /dev/zero | wc -c; echo x > /dev/null; ! echo x 2>/dev/null > /dev/full; head -c 4 /dev/urandom | wc -c";
    assert_eq!(ctx.sh(works).ok().lines(), ["3", "4"]);
    Pass
}

fn links_in_dev_are_standard(ctx: &Ctx) -> Outcome {
    let output = ctx.sh("for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done").ok();
    assert_eq!(output.lines(), ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]);
    Pass
}

/// Every per-mount flag that an option names, as the kernel shows it.
fn tmpfs_options(ctx: &Ctx) -> Outcome {
    let options = ["nosuid", "nodev", "noexec", "ro", "nodiratime", "noatime"];
    let all = ctx.sh_with("cat /proc/self/mountinfo", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/t/all", &options);
        for option in options {
            config::mount(c, "tmpfs", "tmpfs", &format!("/t/{option}"), &[option]);
        }
        config::mount(c, "tmpfs", "tmpfs", "/t/undone", &["ro", "noexec", "nodev", "nosuid", "rw", "exec", "dev", "suid"]);
        config::mount(c, "tmpfs", "tmpfs", "/t/strict", &["strictatime"]);
    });
    let flags = |point: &str| mountinfo(&all, point)[5].split(',').map(str::to_owned).collect::<Vec<_>>();
    for option in options {
        assert!(flags("/t/all").contains(&option.to_owned()), "{option}: {:?}", flags("/t/all"));
        assert!(flags(&format!("/t/{option}")).contains(&option.to_owned()), "{option}");
    }
    assert_eq!(flags("/t/undone"), ["rw", "relatime"]);
    assert_eq!(flags("/t/strict"), ["rw"]);
    Pass
}

fn tmpfs_mode_and_size(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("stat -c %a /t; df -k /t | tail -n 1 | awk '{ print $2 }'", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/t", &["mode=1750", "size=128k"]);
    });
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["1750", "128"]);
    Pass
}

fn a_bind_mount_shows_the_host_s_folder(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "from the host");
    let output = ctx.sh_with("cat /mnt/file; echo written > /mnt/new", |c| config::mount(c, "bind", &source, "/mnt", &["bind"]));
    assert_eq!(output, "from the host");
    assert_eq!(fs::read_to_string(format!("{source}/new")).unwrap(), "written\n");
    Pass
}

fn a_bind_mount_of_a_file_makes_its_target(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "from the host");
    let file = format!("{source}/file");
    let output = ctx.sh_with("cat /a/new/folder/file", |c| config::mount(c, "bind", &file, "/a/new/folder/file", &["bind"]));
    assert_eq!(output, "from the host");
    Pass
}

fn a_read_only_bind_mount(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "kept");
    let output = ctx.run(|c| {
        config::shell(c, "echo lost > /mnt/file");
        config::mount(c, "bind", &source, "/mnt", &["bind", "ro"]);
    });
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    assert_eq!(fs::read_to_string(format!("{source}/file")).unwrap(), "kept");
    Pass
}

/// A user namespace may not clear the flags that a mount has on the host, so a remount must repeat them.
fn a_bind_mount_keeps_locked_flags(ctx: &Ctx) -> Outcome {
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let output = ctx.sh_with("cat /proc/self/mountinfo", |c| config::mount(c, "bind", "/dev/pts", "/mnt", &["bind", "ro"]));
    let flags = mountinfo(&output, "/mnt")[5];
    assert!(flags.starts_with("ro"), "{flags}");
    for flag in mountinfo(&own, "/dev/pts")[5].split(',').filter(|f| f.starts_with("no") && ctx.uid() != 0) {
        assert!(flags.contains(flag), "{flag} is lost: {flags}");
    }
    Pass
}

fn an_rbind_brings_the_mounts_below(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("stat -f -c %T /mnt/pts", |c| config::mount(c, "bind", "/dev", "/mnt", &["rbind"]));
    assert_eq!(output.trim(), "devpts");
    Pass
}

fn a_bind_brings_no_mounts_below(ctx: &Ctx) -> Outcome {
    if ctx.uid() != 0 {
        return Skip("a user namespace may not open up what other mounts cover".to_owned());
    }
    let output = ctx.sh_with("stat -f -c %T /mnt/pts", |c| config::mount(c, "bind", "/dev", "/mnt", &["bind"]));
    assert_ne!(output.trim(), "devpts");
    Pass
}

fn a_missing_bind_source_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| config::mount(c, "bind", "/nonexistent", "/mnt", &["bind"])).exits(1).refused("/nonexistent");
    Pass
}

fn an_unknown_file_system_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| config::mount(c, "nosuchfs", "none", "/mnt", &[])).exits(1).refused("/mnt");
    Pass
}

fn a_bad_tmpfs_size_is_refused(ctx: &Ctx) -> Outcome {
    ctx.run(|c| config::mount(c, "tmpfs", "tmpfs", "/mnt", &["size=abc"])).exits(1).refused("/mnt");
    Pass
}

fn mounts_happen_in_the_order_of_the_list(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "below");
    let output = ctx.sh_with("ls /t /t/inner", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/t", &[]);
        config::mount(c, "bind", &source, "/t/inner", &["bind"]);
    });
    assert_eq!(output, "/t:\ninner\n\n/t/inner:\nfile\n");
    Pass
}

fn destinations_are_made(ctx: &Ctx) -> Outcome {
    ctx.sh_with("grep -q ' /deep/down/there ' /proc/self/mountinfo", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/deep/down/there", &[])
    });
    Pass
}

/// A link in the image is followed below the root of the container, never on the host.
fn destinations_through_links_stay_inside(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| {
        config::mount(c, "tmpfs", "tmpfs", "/link/there", &[]);
        config::shell(c, "grep -q ' /data/there ' /proc/self/mountinfo && echo inside");
    }));
    std::os::unix::fs::symlink("/data", container.bundle.rootfs("/link")).unwrap();
    assert_eq!(container.run().ok().text(), "inside");
    assert!(!Path::new("/data/there").exists());
    Pass
}

fn tmpcopyup_copies_what_lies_below(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("cat /etc/passwd | wc -l; stat -f -c %T /etc; touch /etc/new", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/etc", &["tmpcopyup", "mode=755"]);
    });
    assert_eq!(output, "2\ntmpfs\n");
    Pass
}

/// A file of a gigabyte with three short pieces of data, in a tmpfs of a megabyte.
fn tmpcopyup_keeps_holes(ctx: &Ctx) -> Outcome {
    use std::os::unix::fs::FileExt;
    needs_rt!(ctx, "others copy the holes as well");
    let script = "stat -c '%s' /data/sparse; test $(du -k /data/sparse | cut -f 1) -lt 100 && echo small; cat /data/small
                  for at in 4096 536870912 1073741810; do dd if=/data/sparse bs=1 skip=$at count=6 2> /dev/null; done; stat -c %a /data/sparse";
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, script);
        config::mount(c, "tmpfs", "tmpfs", "/data", &["tmpcopyup", "size=1m"]);
    }));
    let file = std::fs::File::create(container.bundle.rootfs("data/sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    for (text, at) in [("first\n", 4096), ("inner\n", 1 << 29), ("final\n", (1 << 30) - 14)] {
        file.write_at(text.as_bytes(), at).unwrap();
    }
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    drop(file);
    std::fs::write(container.bundle.rootfs("data/small"), "small file\n").unwrap();
    let output = container.run().ok();
    assert_eq!(output.lines(), ["1073741824", "small", "small file", "first", "inner", "final", "640"]);
    Pass
}

fn mqueue_is_mounted(ctx: &Ctx) -> Outcome {
    let output = ctx.sh("cat /proc/self/mountinfo").ok().stdout;
    assert!(mountinfo(&output, "/dev/mqueue").contains(&"mqueue"));
    Pass
}

fn devpts_is_new(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh("ls /dev/pts; stat -c %a /dev/pts/ptmx").ok().lines(), ["ptmx", "666"]);
    Pass
}

fn proc_shows_this_pid_namespace(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.sh("cat /proc/1/comm; readlink /proc/self; true").ok().lines().len(), 2);
    Pass
}

fn the_old_root_is_gone(ctx: &Ctx) -> Outcome {
    let secret = ctx.host_dir("secret", "canary", "host data");
    let output =
        ctx.sh(&format!("ls -d {secret} ../../../..{secret} /.old* /oldroot /put_old; cat /proc/self/mountinfo")).exits(0);
    assert_eq!(output.stderr.lines().count(), 5, "{output}");
    let points: Vec<&str> = output.stdout.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    let allowed = ["/", "/proc", "/dev", "/sys"];
    for point in points {
        assert!(
            allowed.iter().any(|top| point == *top || point.starts_with(&format!("{top}/"))),
            "{point} is mounted:\n{output}"
        );
    }
    Pass
}

fn no_mount_is_left_on_the_host(ctx: &Ctx) -> Outcome {
    let mounts =
        || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains(ctx.dir.to_str().unwrap())).count();
    let container = ctx.running(|_| {});
    assert_eq!(mounts(), 0, "while it runs");
    container.stop();
    container.delete().ok();
    assert_eq!(mounts(), 0, "after delete");
    Pass
}

fn a_later_mount_covers_dev(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "mine");
    let output = ctx.sh_with("cat /dev/shm/file", |c| config::mount(c, "bind", &source, "/dev/shm", &["bind"]));
    assert_eq!(output, "mine");
    Pass
}

fn the_option_defaults_means_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 hands it to the file system");
    ctx.sh_with("grep -q ' /t ' /proc/self/mountinfo", |c| config::mount(c, "tmpfs", "tmpfs", "/t", &["defaults"]));
    Pass
}

fn overlay_is_mounted(ctx: &Ctx) -> Outcome {
    let lower = ctx.host_dir("lower", "file", "lower");
    let work = ctx.host_dir("work", ".keep", "");
    fs::remove_file(format!("{work}/.keep")).unwrap();
    // An upper layer must lie on a file system with extended attributes of its own: a tmpfs of the container will do.
    let output = ctx.sh_with("cat /o/file; echo upper > /o/file 2>/dev/null; cat /o/file", |c| {
        let other = ctx.host_dir("lower2", "other", "x");
        config::mount(c, "overlay", "overlay", "/o", &[&format!("lowerdir={lower}:{other}")]);
    });
    assert_eq!(output, "lowerlower", "two lower layers make a read-only mount");
    Pass
}

fn a_recursive_read_only_mount(ctx: &Ctx) -> Outcome {
    let output =
        ctx.sh_with("cat /proc/self/mountinfo", |c| config::mount(c, "bind", "/dev", "/mnt", &["rbind", "rro", "rnosuid"]));
    for point in ["/mnt", "/mnt/pts"] {
        let flags = mountinfo(&output, point)[5];
        assert!(flags.starts_with("ro,nosuid"), "{point}: {flags}");
    }
    Pass
}

fn each_propagation_per_mount(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "");
    let kinds = ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"];
    let output = ctx.sh_with("cat /proc/self/mountinfo", |c| {
        for kind in kinds {
            config::mount(c, "bind", &source, &format!("/p/{kind}"), &["bind", kind]);
        }
    });
    for kind in kinds {
        let tags = mountinfo(&output, &format!("/p/{kind}"))[6..].join(" ");
        let tag = tags.split(" - ").next().unwrap();
        assert_eq!(tag.contains("shared:"), kind.ends_with("shared"), "{kind}: {tag}");
        assert_eq!(tag.contains("unbindable"), kind.ends_with("unbindable"), "{kind}: {tag}");
    }
    Pass
}

fn a_shared_mount_is_listed_at_its_place(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "");
    let output = ctx.sh_with("grep -o ' /p/[a-z]* ' /proc/self/mountinfo", |c| {
        config::mount(c, "tmpfs", "tmpfs", "/p/first", &[]);
        config::mount(c, "bind", &source, "/p/second", &["rbind", "rshared"]);
        config::mount(c, "tmpfs", "tmpfs", "/p/third", &[]);
        config::mount(c, "bind", &source, "/p/fourth", &["bind", "shared"]);
    });
    let points: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(points, ["/p/first", "/p/second", "/p/third", "/p/fourth"]);
    Pass
}

fn a_mount_in_a_shared_mount_arrives_on_the_host(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others want rootfsPropagation to be shared, too");
    let source = ctx.host_dir("source", "file", "");
    fs::create_dir(format!("{source}/later")).unwrap();
    let container = ctx.container(ctx.bundle(|c| {
        config::mount(c, "bind", &source, "/mnt", &["rbind", "rshared"]);
        config::capabilities(c, &["CAP_SYS_ADMIN"]);
        config::shell(c, "mount -t tmpfs tmpfs /mnt/later; sleep 1000");
    }));
    let rt = format!("{} --root {}", ctx.runtime().display(), ctx.path("state"));
    let (id, bundle) = (&container.id, container.bundle.path());
    let script = format!(
        "mount --bind {source} {source} && mount --make-shared {source} && {rt} run -d -b {bundle} {id} >/dev/null 2>&1; \
         for i in 1 2 3 4 5 6 7 8 9; do grep -o '/later ' /proc/self/mountinfo && break; sleep 0.2; done; {rt} delete --force {id}"
    );
    let output = ctx.command(&["unshare", "-m", "sh", "-c", &script]).run().ok();
    assert_eq!(output.text().trim(), "/later", "{output}");
    Pass
}

fn root_propagation_is_private_by_default(ctx: &Ctx) -> Outcome {
    let output = ctx.sh("cat /proc/self/mountinfo").ok().stdout;
    assert!(!output.contains("shared:"), "{output}");
    Pass
}

fn root_propagation_shared(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 leaves the root private");
    let output = ctx.sh_with("cat /proc/self/mountinfo", |c| c["linux"]["rootfsPropagation"] = json!("shared"));
    assert!(mountinfo(&output, "/")[6].starts_with("shared:"), "{output}");
    Pass
}

/// In a private view of the host: a mount made there after start arrives in a container that asked for rslave.
fn a_mount_on_the_host_arrives_in_a_slave(ctx: &Ctx) -> Outcome {
    let source = ctx.host_dir("source", "file", "");
    fs::create_dir(format!("{source}/later")).unwrap();
    let container = ctx.container(ctx.bundle(|c| {
        config::mount(c, "bind", &source, "/mnt", &["rbind", "rslave"]);
        c["linux"]["rootfsPropagation"] = json!("rslave");
    }));
    let rt = format!("{} --root {}", ctx.runtime().display(), ctx.path("state"));
    let (id, bundle) = (&container.id, container.bundle.path());
    let script = format!(
        "mount --bind {source} {source} && mount --make-shared {source} && {rt} run -d -b {bundle} {id} >/dev/null 2>&1 \
         && mount -t tmpfs tmpfs {source}/later && {rt} exec {id} grep -o ' /mnt/later ' /proc/self/mountinfo; {rt} delete --force {id}"
    );
    let output = ctx.command(&["unshare", "-m", "sh", "-c", &script]).run().ok();
    assert_eq!(output.text(), "/mnt/later", "{output}");
    Pass
}

fn device(path: &str, kind: &str, major: u32, minor: u32) -> Value {
    json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o640, "uid": 10, "gid": 20 })
}

fn extra_devices_are_made(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("stat -c '%F %t:%T %a %u %g' /dev/my-char /dev/my-block /dev/my-fifo", |c| {
        let fifo = json!({ "path": "/dev/my-fifo", "type": "p", "fileMode": 0o640, "uid": 10, "gid": 20 });
        c["linux"]["devices"] = json!([device("/dev/my-char", "c", 1, 3), device("/dev/my-block", "b", 7, 0), fifo]);
    });
    let expected = "character special file 1:3 640 10 20\nblock special file 7:0 640 10 20\nfifo 0:0 640 10 20\n";
    assert_eq!(output, expected);
    Pass
}

fn an_extra_device_under_another_folder(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("stat -c %t:%T /data/deep/zero", |c| {
        c["linux"]["devices"] = json!([device("/data/deep/zero", "c", 1, 5)]);
    });
    assert_eq!(output.trim(), "1:5");
    Pass
}

fn sysctls_are_written(ctx: &Ctx) -> Outcome {
    let output = ctx.sh_with("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", |c| {
        c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "65536" });
    });
    assert_eq!(output, "1\n65536\n");
    Pass
}

fn a_sysctl_of_the_host_is_refused(ctx: &Ctx) -> Outcome {
    let value = || fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
    let before = value();
    ctx.run(|c| c["linux"]["sysctl"] = json!({ "vm.swappiness": "17" })).exits(1).refused("vm.swappiness");
    assert_eq!(value(), before);
    Pass
}

fn no_pivot_works(ctx: &Ctx) -> Outcome {
    let secret = ctx.host_dir("secret", "canary", "host data");
    let container = ctx.container(ctx.bundle(|c| config::shell(c, &format!("ls /bin/busybox {secret}"))));
    let output = container.run_command(&["--no-pivot"]).run();
    assert_eq!(output.text(), "/bin/busybox", "{output}");
    Pass
}

/// crun's `copy-symlink`.
fn a_link_as_the_source_is_copied(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the option is crun's");
    let source = ctx.host_dir("source", "file", "x");
    std::os::unix::fs::symlink("to/nowhere", format!("{source}/link")).unwrap();
    let link = format!("{source}/link");
    let script = "readlink /new/link; readlink /same; cat /plain; grep -c -e /new -e /same /proc/self/mountinfo";
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, script);
        config::mount(c, "bind", &link, "/new/link", &["bind", "copy-symlink"]);
        config::mount(c, "bind", &link, "/same", &["rbind", "ro", "copy-symlink"]);
        config::mount(c, "bind", &format!("{source}/file"), "/plain", &["bind", "copy-symlink"]);
    }));
    std::os::unix::fs::symlink("to/nowhere", container.bundle.rootfs("/same")).unwrap();
    assert_eq!(container.run().stdout, "to/nowhere\nto/nowhere\nx0\n");
    // What is there already and is something else stays.
    let other = ctx.container(ctx.bundle(|c| config::mount(c, "bind", &link, "/other", &["bind", "copy-symlink"])));
    std::os::unix::fs::symlink("elsewhere", other.bundle.rootfs("/other")).unwrap();
    other.run().refused("/other is a link to \"elsewhere\" already; expected one to \"to/nowhere\"");
    let file = ctx.container(ctx.bundle(|c| config::mount(c, "bind", &link, "/etc/passwd", &["bind", "copy-symlink"])));
    file.run().refused("/etc/passwd is there already; expected nothing, or a link to \"to/nowhere\"");
    let both = ctx.bundle(|c| config::mount(c, "bind", &link, "/x", &["bind", "copy-symlink", "dest-nofollow"]));
    let said = "config.json: mounts[7].options: copy-symlink and dest-nofollow; expected one of them, because a copied link is not mounted on anything";
    ctx.rt(&["plan", both.path()]).refused(said);
    let tmpfs = ctx.bundle(|c| config::mount(c, "tmpfs", "tmpfs", "/x", &["dest-nofollow"]));
    let plan = ctx.rt(&["plan", tmpfs.path()]).ok();
    assert!(plan.stdout.contains("mounts[7].options: dest-nofollow means nothing but on a bind mount and is left out"), "{plan}");
    Pass
}

/// crun's `src-nofollow` and `dest-nofollow`.
fn links_of_a_bind_mount_are_not_followed(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the options are crun's");
    let source = ctx.host_dir("source", "file", "host");
    std::os::unix::fs::symlink("/etc/inside", format!("{source}/link")).unwrap();
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "readlink /bound; cat /bound; readlink /to; cat /to /etc/inside; cat /followed");
        config::mount(c, "bind", &format!("{source}/link"), "/bound", &["bind", "src-nofollow"]);
        config::mount(c, "bind", &format!("{source}/file"), "/to", &["bind", "dest-nofollow"]);
        config::mount(c, "bind", &format!("{source}/file"), "/followed", &["bind"]);
    }));
    fs::write(container.bundle.rootfs("/etc/inside"), "container").unwrap();
    fs::write(container.bundle.rootfs("/etc/target"), "target").unwrap();
    std::os::unix::fs::symlink("/etc/inside", container.bundle.rootfs("/to")).unwrap();
    std::os::unix::fs::symlink("/etc/target", container.bundle.rootfs("/followed")).unwrap();
    // A link that is mounted leads where it leads in the container; a link that is mounted on is hidden, and what it led to is not.
    assert_eq!(container.run().stdout, "/etc/inside\ncontainerhostcontainerhost");
    Pass
}
