//! The flags of checkpoint and restore, each by what it does: connections, pages from elsewhere, control groups, namespaces, labels.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::checkpoint::{
    alone, checkpoint, count, counting, counts_on, images, restore, restore_flags, restore_in_background, saved, unfit,
};
use crate::config;
use crate::ctx::{Container, Ctx, Running, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        a_tcp_connection_goes_on,
        a_tcp_connection_is_closed,
        connections_in_flight_are_skipped,
        the_network_is_locked_as_it_is_said,
        pages_go_to_a_page_server,
        pages_come_when_they_are_used,
        pages_stay_until_they_are_asked_for,
        pages_that_nobody_asks_for_hold_nobody,
        pages_that_never_come_end_the_restore,
        pages_that_were_restored_take_no_room,
        settings_of_control_groups_are_the_config_s_or_the_images,
        an_empty_network_namespace_stays_empty,
        joined_namespaces_are_joined_again,
        file_locks_are_held_again,
        a_file_without_a_name_is_saved,
        the_profile_of_a_security_module_is_another,
        the_configuration_file_of_criu_wins,
    }
}

macro_rules! needs_criu {
    ($ctx:expr) => {
        if let Some(why) = unfit($ctx) {
            return Skip(why);
        }
    };
}

/// Both ends of a connection are in the container: what is sent, and what comes back, is counted.
fn connected<'c>(ctx: &'c Ctx<'c>, arguments: &[&str]) -> Container<'c> {
    let container = ctx.running(|c| c["process"]["args"] = json!([&["probe", "tcp"], arguments].concat()));
    counts_on(ctx, &container, 5);
    container
}

/// Checkpoints with flags; the reason if this CRIU cannot look at a TCP socket of this kernel (since Linux 6.16 not before CRIU 4.2).
fn saved_with_tcp(ctx: &Ctx, container: &Container, flags: &[&str]) -> Result<(), String> {
    let output = checkpoint(ctx, container, flags);
    if output.stderr.contains("Can't get 1:34 opt") || output.stderr.contains("Can't get 1:16 opt") {
        return Err("this CRIU cannot save a TCP socket of this kernel".to_owned());
    }
    output.ok();
    Ok(())
}

macro_rules! save_with_tcp {
    ($ctx:expr, $container:expr, $flags:expr) => {
        if let Err(why) = saved_with_tcp($ctx, $container, $flags) {
            return Skip(why);
        }
    };
}

fn closed(container: &Container) -> bool {
    container.bundle.rootfs("closed").exists()
}

fn a_tcp_connection_goes_on(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = connected(ctx, &[]);
    save_with_tcp!(ctx, &container, &["--tcp-established", "--leave-running"]);
    counts_on(ctx, &container, count(&container));
    let output = checkpoint(ctx, &container, &[]).refused("dump by CRIU: ");
    assert!(output.stderr.contains("tcp-established"), "{output}");
    counts_on(ctx, &container, count(&container));
    checkpoint(ctx, &container, &["--tcp-established"]).ok();
    let reached = count(&container);
    restore(ctx, &container, &["--detach", "--tcp-established"]).ok();
    counts_on(ctx, &container, reached + 5);
    assert!(!closed(&container));
    Pass
}

fn a_tcp_connection_is_closed(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = connected(ctx, &[]);
    save_with_tcp!(ctx, &container, &["--tcp-established"]);
    restore(ctx, &container, &["--detach", "--tcp-close"]).ok();
    ctx.wait_until("the connection is closed", || closed(&container));
    assert_eq!(container.status(), "running");
    Pass
}

fn connections_in_flight_are_skipped(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = connected(ctx, &["waiting"]);
    let output = checkpoint(ctx, &container, &["--tcp-established"]);
    if output.stderr.contains("Can't get 1:34 opt") {
        return Skip("this CRIU cannot save a TCP socket of this kernel".to_owned());
    }
    let output = output.refused("dump by CRIU: ");
    assert!(output.stderr.to_lowercase().contains("in-flight"), "{output}");
    counts_on(ctx, &container, count(&container));
    save_with_tcp!(ctx, &container, &["--tcp-established", "--tcp-skip-in-flight"]);
    let reached = count(&container);
    restore(ctx, &container, &["--detach", "--tcp-established"]).ok();
    counts_on(ctx, &container, reached);
    Pass
}

/// Only one way runs the programs of iptables; the others change the kernel's rules by themselves, or nothing.
fn the_network_is_locked_as_it_is_said(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let path = std::env::var("PATH").unwrap();
    let Some(real) = path.split(':').map(|dir| format!("{dir}/iptables-restore")).find(|file| Path::new(file).exists()) else {
        return Skip("no iptables-restore (package iptables)".to_owned());
    };
    for (method, runs) in [(None, true), (Some("iptables"), true), (Some("nftables"), false), (Some("skip"), false)] {
        let container = ctx.running(counting);
        counts_on(ctx, &container, 5);
        let (programs, log) = (ctx.path(&ctx.fresh("programs")), ctx.path(&ctx.fresh("ran")));
        fs::create_dir(&programs).unwrap();
        let program = format!("{programs}/iptables-restore");
        fs::write(
            &program,
            format!("#!/bin/sh\ncat > {programs}/rules\ncat {programs}/rules >> {log}\nexec {real} \"$@\" < {programs}/rules\n"),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let flags: Vec<&str> = method.iter().flat_map(|method| ["--network-lock", method]).collect();
        let (guard, images) = (alone(), images(ctx));
        let dump = [&["checkpoint", "--image-path", &images], &flags[..], &[&container.id]].concat();
        let output = ctx.rt_command(&dump).env("PATH", &format!("{programs}:{path}")).run();
        drop(guard);
        if output.stderr.contains("is too old for --network-lock") {
            output.exits(1);
            assert_eq!(container.status(), "running", "{method:?}");
            continue;
        }
        output.ok();
        assert_eq!(read(Path::new(&log)).contains(":CRIU "), runs, "{method:?}: {}", read(Path::new(&log)));
        let reached = count(&container);
        restore(ctx, &container, &[&["--detach"], &flags[..]].concat()).ok();
        counts_on(ctx, &container, reached);
    }
    Pass
}

/// A daemon of CRIU's, given some time to listen.
fn daemon(ctx: &Ctx, arguments: &[&str], ready: impl FnMut() -> bool) -> Running {
    let daemon = ctx.command(&[&["criu"], arguments].concat()).cwd(Path::new("/")).spawn();
    ctx.wait_until("CRIU's daemon listens", ready);
    daemon
}

/// A port that nobody listens on, most likely.
fn port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Something listens on a port of 127.0.0.1, by the kernel's table: a connection would be taken for the client's.
fn listens(port: &str) -> bool {
    let number: u16 = port.parse().unwrap();
    let line = format!("0100007F:{number:04X} 00000000:0000 0A");
    read(Path::new("/proc/net/tcp")).contains(&line)
}

fn has_pages(folder: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("pages-"))
}

fn pages_go_to_a_page_server(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = ctx.running(counting);
    counts_on(ctx, &container, 5);
    let (server, port) = (ctx.path("server"), port());
    fs::create_dir(&server).unwrap();
    let flags = ["page-server", "--images-dir", &server, "--address", "127.0.0.1", "--port", &port, "-o", "log"];
    let serving = daemon(ctx, &flags, || listens(&port));
    checkpoint(ctx, &container, &["--page-server", &format!("127.0.0.1:{port}")]).ok();
    serving.wait().ok();
    let reached = count(&container);
    assert!(has_pages(&server) && !has_pages(&images(ctx)));
    for entry in fs::read_dir(&server).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "log") {
        fs::copy(entry.path(), Path::new(&images(ctx)).join(entry.file_name())).unwrap();
    }
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    // Nobody listens.
    let output = checkpoint(ctx, &container, &["--page-server", &format!("127.0.0.1:{port}")]).refused("dump by CRIU: ");
    assert!(output.stderr.contains("Can't connect to server 127.0.0.1"), "{output}");
    assert_eq!(container.status(), "running");
    Pass
}

fn pages_come_when_they_are_used(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, reached) = saved(ctx, |_| {});
    let images = images(ctx);
    // The daemon names its socket in the work directory of both.
    let flags = ["lazy-pages", "--images-dir", &images, "--work-dir", &images, "-v4", "-o", "lazy.log"];
    let socket = Path::new(&images).join("lazy-pages.socket");
    let serving = daemon(ctx, &flags, || socket.exists());
    restore(ctx, &container, &["--detach", "--lazy-pages"]).ok();
    counts_on(ctx, &container, reached);
    serving.wait().ok();
    assert!(read(&Path::new(&images).join("lazy.log")).contains("UFFD transferred pages: ("));
    Pass
}

/// The number of processes whose working directory this is: CRIU's are in the one of its log.
fn workers(folder: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let at_work = processes.filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == Path::new(folder)));
    at_work.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn at_work(folder: &str) -> usize {
    workers(folder).len()
}

/// Nobody ever asks for the pages: whoever ends the command, in order or not, ends the waiting, and the container runs on.
fn pages_that_nobody_asks_for_hold_nobody(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others leave CRIU behind");
    needs_criu!(ctx);
    let container = ctx.running(counting);
    counts_on(ctx, &container, 5);
    let ends = [("TERM", 1, "interrupted by signal 15"), ("INT", 1, "interrupted by signal 2"), ("KILL", 137, "")];
    for (signal, code, text) in ends {
        let (images, status) = (ctx.path(&ctx.fresh("images")), ctx.path(&ctx.fresh("status")));
        let _alone = alone();
        let address = format!("127.0.0.1:{}", port());
        let mut arguments = vec!["checkpoint", "--image-path", &images, "--lazy-pages", "--page-server", &address];
        arguments.extend(["--status-fd", "7", &container.id]);
        let dumping = ctx.rt_command(&arguments).after(&format!("exec 7>{status}")).spawn();
        ctx.wait_until("the byte of --status-fd is written", || fs::read(&status).is_ok_and(|bytes| bytes == [0]));
        let reached = count(&container);
        let workers = workers(&images);
        assert_eq!(workers.len(), 1);
        let signal = format!("-{signal}");
        if signal == "-INT" {
            // A terminal would send it to both.
            ctx.host(&["kill", &signal, &workers[0]]).ok();
        }
        ctx.host(&["kill", &signal, &dumping.pid()]).ok();
        let output = dumping.wait().exits(code);
        assert!(output.stderr.contains(text), "{output}");
        ctx.wait_until("CRIU has ended", || at_work(&images) == 0);
        counts_on(ctx, &container, reached);
        assert_eq!(container.status(), "running");
    }
    Pass
}

/// A page server that hangs up on everybody. CRIU then waits for the processes that it has killed, and they for CRIU.
fn pages_that_never_come_end_the_restore(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others wait for ever");
    needs_criu!(ctx);
    let mut container = ctx.running(counting);
    counts_on(ctx, &container, 5);
    let (images, copy, status) = (ctx.path("lazy"), images(ctx), ctx.path("status"));
    let _alone = alone();
    let address = format!("127.0.0.1:{}", port());
    let mut arguments = vec!["checkpoint", "--image-path", &images, "--lazy-pages", "--page-server", &address];
    arguments.extend(["--status-fd", "7", &container.id]);
    let dumping = ctx.rt_command(&arguments).after(&format!("exec 7>{status}")).spawn();
    ctx.wait_until("the byte of --status-fd is written", || fs::read(&status).is_ok_and(|bytes| bytes == [0]));
    ctx.host(&["cp", "-r", &images, &copy]).ok();
    ctx.host(&["kill", &dumping.pid()]).ok();
    dumping.wait().exits(1);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        // Until something is asked for.
        let (mut caller, _) = server.accept().unwrap();
        let _ = std::io::Read::read(&mut caller, &mut [0; 1]);
    });
    let place = ["--images-dir", &copy, "--work-dir", &copy, "-o", "lazy.log"];
    let flags = [["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port].as_slice(), &place].concat();
    let _serving = daemon(ctx, &flags, || Path::new(&copy).join("lazy-pages.socket").exists());
    let old = std::mem::replace(&mut container.id, ctx.fresh("lazy"));
    let flags = restore_flags(ctx, &container, &["--detach", "--lazy-pages"]);
    ctx.rt(&flags.iter().map(String::as_str).collect::<Vec<_>>()).refused("restore by CRIU: ");
    assert_eq!(at_work(&copy), 0);
    container.verb("state").refused("container does not exist");
    container.id = old;
    assert_eq!(container.status(), "running");
    Pass
}

/// The old container holds the memory until the new one has got it.
fn pages_stay_until_they_are_asked_for(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let mut container = ctx.running(counting);
    counts_on(ctx, &container, 5);
    let output = checkpoint(ctx, &container, &["--lazy-pages", "--page-server", "nowhere"]).exits(1);
    if output.stderr.contains("which needs CAP_SYS_RESOURCE, or 3354624 in /proc/sys/fs/pipe-max-size") {
        return Skip("CRIU may not make the large pipe that its page server needs, and the warning says so".to_owned());
    }
    let (images, status, port) = (images(ctx), ctx.path("status"), port());
    let (guard, address) = (alone(), format!("127.0.0.1:{port}"));
    let dumping = ctx
        .rt_command(&[
            "checkpoint",
            "--image-path",
            &images,
            "--lazy-pages",
            "--page-server",
            &address,
            "--status-fd",
            "7",
            &container.id,
        ])
        .after(&format!("exec 7>{status}"))
        .spawn();
    ctx.wait_until("the byte of --status-fd is written", || fs::read(&status).is_ok_and(|bytes| bytes == [0]));
    let reached = count(&container);
    let flags = [
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        &port,
        "--images-dir",
        &images,
        "--work-dir",
        &images,
        "-o",
        "lazy.log",
    ];
    let serving = daemon(ctx, &flags, || Path::new(&images).join("lazy-pages.socket").exists());
    let old = std::mem::replace(&mut container.id, ctx.fresh("lazy"));
    let flags = restore_flags(ctx, &container, &["--detach", "--lazy-pages"]);
    let restored = ctx.rt(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let dumped = dumping.wait();
    drop(guard);
    restored.ok();
    dumped.ok();
    serving.wait().ok();
    counts_on(ctx, &container, reached);
    ctx.rt(&["state", &old]).refused("container does not exist");
    Pass
}

fn blocks(folder: &str) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let pages = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("pages-"));
    pages.map(|entry| entry.metadata().unwrap().blocks()).sum()
}

fn pages_that_were_restored_take_no_room(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, reached) = saved(ctx, |_| {});
    let before = blocks(&images(ctx));
    assert!(before > 0);
    restore(ctx, &container, &["--detach", "--auto-dedup"]).ok();
    counts_on(ctx, &container, reached);
    let after = blocks(&images(ctx));
    assert!(after < before, "{after} blocks of {before}");
    Pass
}

/// What is limited, and where: CRIU saves other settings of version 2 than of version 1.
fn limit_of(container: &Container) -> String {
    let groups = read(Path::new(&format!("/proc/{}/cgroup", container.pid())));
    let path = |is_it: fn(&str) -> bool| {
        groups.lines().find(|line| is_it(line)).map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned())
    };
    match path(|line| line.contains(":pids:")) {
        Some(path) => format!("/sys/fs/cgroup/pids{path}/pids.max"),
        None => format!("/sys/fs/cgroup{}/cgroup.max.descendants", path(|line| line.starts_with("0::")).unwrap()),
    }
}

/// The limit is 37 in the config and 44 when the container is saved.
fn settings_of_control_groups_are_the_config_s_or_the_images(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let unified = !Path::new("/sys/fs/cgroup/pids").exists();
    for (flags, limit) in [
        (&[][..], "37"),
        (&["--manage-cgroups-mode", "soft"], "37"),
        (&["--manage-cgroups-mode", "ignore"], "37"),
        (&["--manage-cgroups-mode", "full"], "44"),
        (&["--manage-cgroups-mode", "strict"], "44"),
    ] {
        let container = ctx.running(|c| {
            counting(c);
            c["linux"]["resources"] = match unified {
                true => json!({ "unified": { "cgroup.max.descendants": "37" } }),
                false => json!({ "pids": { "limit": 37 } }),
            };
        });
        counts_on(ctx, &container, 5);
        let file = limit_of(&container);
        assert_eq!(read(Path::new(&file)).trim(), "37");
        fs::write(&file, "44").unwrap();
        let dumped = checkpoint(ctx, &container, flags).ok();
        // CRIU before 3.18.
        let limit = if dumped.stderr.contains("has no effect on cgroup version 2") { "37" } else { limit };
        let reached = count(&container);
        let restored = restore(ctx, &container, &[&["--detach"], flags].concat()).ok();
        assert_eq!(dumped.stderr.contains("has no effect"), restored.stderr.contains("has no effect"), "{restored}");
        counts_on(ctx, &container, reached);
        assert_eq!(read(Path::new(&file)).trim(), limit, "{flags:?}");
        container.stop();
        container.delete().ok();
    }
    strict_means_new(ctx)
}

/// A group that is there is a reason to refuse, and stays.
fn strict_means_new(ctx: &Ctx) -> Outcome {
    let group = format!("/{}", ctx.fresh("strict"));
    let (container, _) = saved(ctx, |c| c["linux"]["cgroupsPath"] = json!(group));
    let mount = if Path::new("/sys/fs/cgroup/pids").exists() { "/sys/fs/cgroup/pids" } else { "/sys/fs/cgroup" };
    let directory = format!("{mount}{group}");
    fs::create_dir(&directory).unwrap();
    let output = restore(ctx, &container, &["--detach", "--manage-cgroups-mode", "strict"]);
    let still_there = fs::remove_dir(&directory);
    let output = output.refused("--manage-cgroups-mode strict: cgroup ");
    assert!(output.stderr.contains(&format!("{group} exists")), "{output}");
    still_there.unwrap();
    container.verb("state").refused("container does not exist");
    Pass
}

fn an_empty_network_namespace_stays_empty(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let address = "ip addr show lo | grep -c 10.11.12.13; true";
    for (flags, found) in [(&[][..], "1"), (&["--empty-ns", "network"], "0")] {
        let container = ctx.running(|c| {
            config::capabilities(c, &["CAP_NET_ADMIN", "CAP_DAC_OVERRIDE"]);
            counting(c);
        });
        counts_on(ctx, &container, 5);
        container.exec(&[], &["ip", "addr", "add", "10.11.12.13/32", "dev", "lo"]).ok();
        assert_eq!(container.sh(address), "1");
        checkpoint(ctx, &container, flags).ok();
        let reached = count(&container);
        restore(ctx, &container, &[&["--detach"], flags].concat()).ok();
        counts_on(ctx, &container, reached);
        assert_eq!(container.sh(address), found, "{flags:?}");
    }
    Pass
}

fn joined_namespaces_are_joined_again(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let kinds = [("ipc", "ipc"), ("uts", "uts"), ("network", "net")];
    let joined = |c: &mut Value, owner: &Container| {
        for (kind, file) in kinds {
            config::namespace(c, kind, Some(&format!("/proc/{}/ns/{file}", owner.pid())));
        }
        c.as_object_mut().unwrap().remove("hostname");
    };
    let owner = ctx.running(|_| {});
    let (container, _) = saved(ctx, |c| joined(c, &owner));
    let another = ctx.running(|c| c["hostname"] = json!("another"));
    container.bundle.edit(|c| joined(c, &another));
    restore_in_background(ctx, &container);
    for (_, file) in kinds {
        let number = |of: &Container| fs::read_link(format!("/proc/{}/ns/{file}", of.pid())).unwrap();
        assert_eq!(number(&container), number(&another), "{file}");
    }
    assert_eq!(container.sh("hostname"), "another", "CRIU has written the name of the images into it, and rt its own again");
    Pass
}

fn file_locks_are_held_again(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = ctx.running(|c| {
        config::shell(c, "exec 9>/lock; flock 9; i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; sleep 0.02; done");
    });
    counts_on(ctx, &container, 5);
    let taken = |container: &Container| container.sh("flock -n /lock true && echo free || echo taken");
    assert_eq!(taken(&container), "taken");
    checkpoint(ctx, &container, &["--file-locks"]).ok();
    let reached = count(&container);
    restore(ctx, &container, &["--detach", "--file-locks"]).ok();
    counts_on(ctx, &container, reached);
    assert_eq!(taken(&container), "taken");
    Pass
}

/// An open file whose name is gone, but which has another one elsewhere: CRIU gives it a name for the time being.
fn a_file_without_a_name_is_saved(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let container = ctx.running(|c| {
        config::shell(
            c,
            "echo kept > /a; ln /a /b; exec 8</a; rm /a; i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; sleep 0.02; done",
        );
    });
    counts_on(ctx, &container, 5);
    let output = checkpoint(ctx, &container, &[]).refused("dump by CRIU: ");
    assert!(output.stderr.contains("link-remap"), "{output}");
    checkpoint(ctx, &container, &["--link-remap"]).ok();
    let reached = count(&container);
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    assert_eq!(container.sh("cat /proc/1/fd/8"), "kept");
    Pass
}

/// With AppArmor the profile is seen on the process; elsewhere what is asked for in vain is said.
fn the_profile_of_a_security_module_is_another(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let (container, reached) = saved(ctx, |_| {});
    restore(ctx, &container, &["--detach", "--lsm-profile", "x"])
        .refused("--lsm-profile: \"x\"; expected apparmor:NAME or selinux:LABEL");
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        restore(ctx, &container, &["--detach", "--lsm-profile", "selinux:a:b:c:s0"]).refused("selinux not supported");
        let output = restore(ctx, &container, &["--detach", "--lsm-mount-context", "system_u:object_r:x:s0"]).ok();
        assert!(output.stderr.contains("--lsm-mount-context has no effect: SELinux is not active"), "{output}");
        counts_on(ctx, &container, reached);
        checkpoint(ctx, &container, &[]).ok();
    }
    if !read(Path::new("/sys/module/apparmor/parameters/enabled")).starts_with('Y') {
        restore(ctx, &container, &["--detach", "--lsm-profile", "apparmor:x"]).refused("apparmor not supported");
        return Pass;
    }
    another_profile(ctx)
}

/// A container that had a profile gets another one.
fn another_profile(ctx: &Ctx) -> Outcome {
    let (old, new, file) = (ctx.fresh("old"), ctx.fresh("new"), ctx.path("profiles"));
    let rules = "file, capability, network, signal, ptrace, mount, umount, pivot_root, unix,";
    let text = [&old, &new].map(|name| format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n"));
    fs::write(&file, text.concat()).unwrap();
    let parser = "/usr/sbin/apparmor_parser";
    if !Path::new(parser).exists() || ctx.command(&[parser, "--replace", "--skip-cache", &file]).run().code != 0 {
        return Skip("no profile can be loaded".to_owned());
    }
    let current = |container: &Container| read(Path::new(&format!("/proc/{}/attr/apparmor/current", container.pid())));
    let (container, reached) = saved(ctx, |c| c["process"]["apparmorProfile"] = json!(old));
    restore_in_background(ctx, &container);
    counts_on(ctx, &container, reached);
    let as_it_was = current(&container);
    checkpoint(ctx, &container, &[]).ok();
    let output = restore(ctx, &container, &["--detach", "--lsm-profile", &format!("apparmor:{new}")]);
    let another = if output.code == 0 { current(&container) } else { String::new() };
    ctx.rt(&["delete", "--force", &container.id]).ok();
    ctx.command(&[parser, "--remove", &file]).run();
    output.ok();
    assert!(as_it_was.starts_with(&old) && another.starts_with(&new), "{as_it_was} {another}");
    Pass
}

/// The file that the annotation names has options of CRIU's own.
fn the_configuration_file_of_criu_wins(ctx: &Ctx) -> Outcome {
    needs_criu!(ctx);
    let file = ctx.path("criu.conf");
    fs::write(&file, "log-file other.log\n").unwrap();
    let (container, reached) = saved(ctx, |c| c["annotations"] = json!({ "org.criu.config": file }));
    assert!(read(&Path::new(&images(ctx)).join("other.log")).contains("Dumping finished successfully"));
    restore_in_background(ctx, &container);
    std::thread::sleep(Duration::from_millis(50));
    counts_on(ctx, &container, reached);
    Pass
}
