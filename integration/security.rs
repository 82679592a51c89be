//! Published attacks on container runtimes. A test is named by its number in the list of threats and by what must not happen.
//!
//! OUT is a folder of the host outside of the bundle: its snapshot must be the same before and after.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Bundle, Container, Ctx, Output, read, status};
use crate::runner::Outcome::{self, Pass, Skip};
use crate::terminal::in_foreground;

tests! {
    Both {
        a_waiting_init_is_no_way_to_the_host,
        t01_a_dev_link_touches_nothing_outside,
        t02_a_console_link_touches_nothing_outside,
        t05_a_link_as_proc_or_sys_is_no_place_for_it,
        t08_the_working_directory_is_no_way_out,
        t09_the_running_init_holds_only_standard_streams,
        t23_hostile_ids_are_refused,
        t28_exec_cannot_push_into_the_caller_s_terminal,
        t32_a_read_only_root_with_a_fake_proc,
        t33_bind_destinations_stay_inside,
        t34_the_working_directory_is_made_inside,
        t44_the_state_root_is_private,
    }
    Root {
        t03_a_fake_dev_null_masks_nothing,
        t04_a_fake_dev_null_is_no_standard_stream,
        t06_a_bind_over_proc_swallows_no_setting,
        t07_an_exchanged_path_leads_nowhere,
        t10_a_hostile_first_process_gets_neither_binary_nor_host,
        t11_exec_capabilities_are_not_inheritable,
        t12_numeric_users_are_numbers,
        t13_ids_that_do_not_fit,
        t16_a_fake_devpts_is_no_console,
        t17_a_tmpfs_over_proc_sys_swallows_no_setting,
        t18_a_read_only_cgroup_mount,
        t20_groups_are_exactly_the_configured_ones,
        t21_device_paths_stay_inside,
        t24_cgroup_paths_stay_inside,
        t25_sysctls_of_the_host_are_refused,
        t39_masked_and_read_only_paths_hold,
        t40_capability_sets_are_exact,
    }
}

/// A folder of the host with something in it, whose contents are compared at the end.
struct Out {
    path: String,
    before: Vec<String>,
}

impl Out {
    fn new(ctx: &Ctx) -> Self {
        let path = ctx.host_dir("out", "ptmx", "host data");
        let before = snapshot(&path);
        Self { path, before }
    }

    fn assert_unchanged(&self, after: &str) {
        assert_eq!(snapshot(&self.path), self.before, "the host was touched by: {after}");
    }
}

/// Names, kinds, owners, modes, link targets and contents below a folder.
fn snapshot(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let (meta, at) = (entry.metadata().unwrap(), entry.path());
        let link = fs::read_link(&at).unwrap_or_default();
        let text = if meta.is_file() { read(&at) } else { String::new() };
        found.push(format!("{} {:o} {}:{} {link:?} {text:?}", at.display(), meta.mode(), meta.uid(), meta.gid()));
        if meta.is_dir() {
            found.extend(snapshot(at.to_str().unwrap()));
        }
    }
    found.sort();
    found
}

/// Replaces a path of the image by a link.
fn plant(bundle: &Bundle, inside: &str, target: &str) {
    let at = bundle.rootfs(inside);
    let _ = fs::remove_dir_all(&at);
    let _ = fs::remove_file(&at);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    symlink(target, at).unwrap();
}

/// Runs a container whose image has been altered; whether it is refused or runs is the runtime's choice.
fn attack(ctx: &Ctx, edit: impl FnOnce(&mut Value), alter: impl FnOnce(&Bundle)) -> Output {
    let container = ctx.container(ctx.bundle(edit));
    alter(&container.bundle);
    container.run()
}

fn t01_a_dev_link_touches_nothing_outside(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 follows it (CVE-2026-41579)");
    let out = Out::new(ctx);
    let levels = "../".repeat(20);
    for target in [out.path.clone(), format!("{levels}{}", out.path.trim_start_matches('/'))] {
        for keep_mount in [false, true] {
            let edit = |c: &mut Value| {
                config::shell(c, "exit 0");
                if !keep_mount {
                    config::without_mount(c, "/dev");
                }
            };
            attack(ctx, edit, |bundle| plant(bundle, "/dev", &target));
            out.assert_unchanged(&target);
        }
    }
    Pass
}

fn t02_a_console_link_touches_nothing_outside(ctx: &Ctx) -> Outcome {
    let out = Out::new(ctx);
    let target = format!("{}/pwn", out.path);
    let edit = |c: &mut Value| {
        config::shell(c, "exit 0");
        config::without_mount(c, "/dev");
    };
    attack(ctx, edit, |bundle| plant(bundle, "/dev/console", &target));
    out.assert_unchanged("a plain run");

    let socket = ctx.socket_path();
    let _listener = ctx.command(&[ctx.probe(), "recvtty".to_owned(), socket.clone()]).spawn();
    ctx.wait_until("the socket is there", || Path::new(&socket).exists());
    let mut container = ctx.container(ctx.bundle(|c| {
        edit(c);
        c["process"]["terminal"] = json!(true);
    }));
    plant(&container.bundle, "/dev/console", &target);
    container.create_with(&["--console-socket", &socket]);
    out.assert_unchanged("create with a terminal");
    Pass
}

fn t03_a_fake_dev_null_masks_nothing(ctx: &Ctx) -> Outcome {
    let edit = |c: &mut Value| {
        config::without_mount(c, "/dev");
        c["linux"]["maskedPaths"] = json!(["/proc/interrupts"]);
        config::shell(c, "cat /proc/interrupts");
    };
    let output = attack(ctx, edit, |bundle| {
        fs::write(bundle.rootfs("/marker"), "planted").unwrap();
        plant(bundle, "/dev/null", "/marker");
    });
    assert!(!output.stdout.contains("planted") && (output.code != 0 || output.stdout.is_empty()), "{output}");
    Pass
}

fn t04_a_fake_dev_null_is_no_standard_stream(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 fails it");
    let out = Out::new(ctx);
    let file = format!("{}/ptmx", out.path);
    let edit = |c: &mut Value| {
        config::without_mount(c, "/dev");
        config::mount(c, "bind", &file, "/hf", &["bind", "rw"]);
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        config::shell(c, "echo written by the container");
    };
    let container = ctx.container(ctx.bundle(edit));
    plant(&container.bundle, "/dev/null", "/hf");
    container.run_command(&[]).after("exec > >(cat) 2> >(cat)").run();
    out.assert_unchanged("standard streams");
    Pass
}

fn t05_a_link_as_proc_or_sys_is_no_place_for_it(ctx: &Ctx) -> Outcome {
    for name in ["/proc", "/sys"] {
        let edit = |c: &mut Value| {
            c["linux"]["maskedPaths"] = json!([]);
            c["linux"]["readonlyPaths"] = json!([]);
            config::shell(c, "ls -A /evil");
        };
        let output = attack(ctx, edit, |bundle| {
            fs::create_dir(bundle.rootfs("/evil")).unwrap();
            plant(bundle, name, "/evil");
        });
        assert!(output.code != 0 || output.stdout.is_empty(), "{name} was mounted on its link's target: {output}");
    }
    Pass
}

/// The settings that an attacker would like to see written into a file of their own.
fn settings(c: &mut Value) {
    c["linux"]["sysctl"] = json!({ "kernel.domainname": "example.org" });
    c["process"]["oomScoreAdj"] = json!(321);
}

/// Either the container is refused, or both settings have reached the kernel.
fn assert_refused_or_applied(container: &mut Container, what: &str) {
    if container.create().code == 0 {
        let pid = container.pid().to_string();
        assert_eq!(read(format!("/proc/{pid}/oom_score_adj").as_ref()).trim(), "321", "{what}");
        let domain =
            std::process::Command::new("nsenter").args(["-t", &pid, "-u", "cat", "/proc/sys/kernel/domainname"]).output();
        assert_eq!(String::from_utf8_lossy(&domain.unwrap().stdout).trim(), "example.org", "{what}");
    }
}

fn t06_a_bind_over_proc_swallows_no_setting(ctx: &Ctx) -> Outcome {
    for target in ["/proc", "/proc/self", "/proc/sys", "/proc/self/attr", "/proc/1", "/proc/thread-self"] {
        let fake = ctx.host_dir("fake/sys/kernel", "domainname", "");
        let fake = fake.trim_end_matches("/sys/kernel");
        fs::write(format!("{fake}/oom_score_adj"), "").unwrap();
        let mut container = ctx.container(ctx.bundle(|c| {
            settings(c);
            config::mount(c, "bind", fake, target, &["bind"]);
        }));
        assert_refused_or_applied(&mut container, target);
    }
    Pass
}

fn t07_an_exchanged_path_leads_nowhere(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 mounts on the host's side of the link now and then");
    let out = Out::new(ctx);
    fs::create_dir(format!("{}/host", out.path)).unwrap();
    let before = snapshot(&out.path);
    let container = ctx.container(ctx.bundle(|c| {
        config::mount(c, "tmpfs", "tmpfs", "/vol/a/b/c", &[]);
        config::shell(c, "grep -c '/b/c ' /proc/self/mountinfo; true");
    }));
    let volume = container.bundle.rootfs("/vol");
    fs::create_dir_all(volume.join("a/b")).unwrap();
    symlink(format!("{}/host", out.path), volume.join("link")).unwrap();
    let (a, b) = (volume.join("a"), volume.join("link"));
    let _racer = ctx.command(&[ctx.probe().as_str(), "swap", a.to_str().unwrap(), b.to_str().unwrap()]).spawn();
    for _ in 0..40 {
        let output = container.run();
        assert!(output.code != 0 || output.text() == "1", "{output}");
    }
    assert_eq!(snapshot(&out.path), before);
    Pass
}

/// A descriptor that the runtime forgot would make /proc/self/fd/N a folder of the host.
fn t08_the_working_directory_is_no_way_out(ctx: &Ctx) -> Outcome {
    let out = Out::new(ctx);
    let canary = format!("{}/ptmx", out.path);
    let script = format!("for up in . .. ../.. ../../.. ../../../.. ../../../../..; do cat $up{canary}; done 2>/dev/null; true");
    for fd in 3..16 {
        let output = ctx.run(|c| {
            config::shell(c, &script);
            c["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        });
        assert!(!output.stdout.contains("host data"), "cwd /proc/self/fd/{fd}: {output}");
    }
    let container = ctx.running(|_| {});
    for fd in 3..13 {
        let output = container.exec(&["--cwd", &format!("/proc/self/fd/{fd}")], &["sh", "-c", &script]);
        assert!(!output.stdout.contains("host data"), "exec --cwd /proc/self/fd/{fd}: {output}");
    }
    Pass
}

fn t09_the_running_init_holds_only_standard_streams(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    container.run_command(&["--detach"]).after("exec 9</etc 11</etc/passwd").run().ok();
    let fds: Vec<String> = container.sh("ls /proc/1/fd").lines().map(str::to_owned).collect();
    assert_eq!(fds, ["0", "1", "2"]);
    Pass
}

fn t11_exec_capabilities_are_not_inheritable(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let output = container.exec(&["--cap", "CAP_NET_RAW"], &["cat", "/proc/self/status"]).ok().stdout;
    assert_eq!((status(&output, "CapInh"), status(&output, "CapAmb")), ("0".repeat(16), "0".repeat(16)));
    Pass
}

fn t12_numeric_users_are_numbers(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    fs::write(container.bundle.rootfs("/etc/passwd"), "root:x:0:0::/:\n1000:x:0:0::/:\n").unwrap();
    container.run_command(&["--detach"]).run().ok();
    for (user, uid, gid) in [("1", "1", "0"), ("1000", "1000", "0"), ("1:2", "1", "2"), ("65534:65534", "65534", "65534")] {
        let output = container.exec(&["--user", user], &["sh", "-c", "id -u; id -g"]).ok();
        assert_eq!(output.lines(), [uid, gid], "{user}");
    }
    Pass
}

/// 4294967295 is (uid_t) -1: setresuid takes it as "leave it as it is", and the process would stay root.
fn t13_ids_that_do_not_fit(ctx: &Ctx) -> Outcome {
    for id in [4_294_967_295_i64, 4_294_967_294, 2_147_483_648, 4_294_967_296, -1] {
        for key in ["uid", "gid"] {
            let output = ctx.run(|c| {
                config::shell(c, &format!("id -{}", &key[..1]));
                c["process"]["user"][key] = json!(id);
            });
            assert!(output.code != 0 || output.text() == id.to_string(), "{key} {id}: {output}");
        }
    }
    Pass
}

fn t16_a_fake_devpts_is_no_console(ctx: &Ctx) -> Outcome {
    let fake = ctx.host_dir("fake", "unused", "");
    for name in ["ptmx", "0", "1", "2", "3", "4", "5", "6", "7", "8"] {
        symlink("/marker", format!("{fake}/{name}")).unwrap();
    }
    let container = ctx.container(ctx.bundle(|c| {
        config::mount(c, "bind", &fake, "/dev/pts", &["bind"]);
        config::shell(c, "cat /dev/console; true");
        c["process"]["terminal"] = json!(true);
    }));
    fs::write(container.bundle.rootfs("/marker"), "planted").unwrap();
    let run = in_foreground(ctx, &container).spawn();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!run.stdout_so_far().contains("planted"));
    Pass
}

fn t17_a_tmpfs_over_proc_sys_swallows_no_setting(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 loses the sysctl");
    for target in ["/proc/sys", "/proc/sys/kernel", "/proc/self"] {
        let mut container = ctx.container(ctx.bundle(|c| {
            settings(c);
            config::mount(c, "tmpfs", "tmpfs", target, &[]);
        }));
        assert_refused_or_applied(&mut container, target);
    }
    Pass
}

fn t18_a_read_only_cgroup_mount(ctx: &Ctx) -> Outcome {
    for namespace in [false, true] {
        let output = ctx.run(|c| {
            config::shell(c, "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/x 2>/dev/null && echo $d; done; true");
            config::capabilities(c, &["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
            if namespace {
                config::namespace(c, "cgroup", None);
            }
        });
        // The tmpfs that holds the mount points of version 1 is not a hierarchy.
        let made: Vec<&str> = output.lines().into_iter().filter(|d| *d != "/sys/fs/cgroup").collect();
        assert_eq!(made, Vec::<&str>::new());
    }
    Pass
}

fn t20_groups_are_exactly_the_configured_ones(ctx: &Ctx) -> Outcome {
    for (groups, expected) in [(json!([5, 7]), "5 7"), (json!([]), "")] {
        let output = ctx.sh_with("cat /proc/self/status", |c| {
            c["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": groups });
        });
        assert_eq!(status(&output, "Groups"), expected);
    }
    Pass
}

fn t21_device_paths_stay_inside(ctx: &Ctx) -> Outcome {
    let out = Out::new(ctx);
    let up = "../".repeat(20);
    let paths = [format!("/dev/{up}{}/d", &out.path[1..]), format!("{up}{}/d", &out.path[1..]), "/link/d".to_owned()];
    for path in paths {
        let edit = |c: &mut Value| {
            config::shell(c, "exit 0");
            c["linux"]["devices"] = json!([{ "path": path, "type": "c", "major": 1, "minor": 3 }]);
        };
        attack(ctx, edit, |bundle| plant(bundle, "/link", &out.path));
        out.assert_unchanged(&path);
    }
    Pass
}

fn t23_hostile_ids_are_refused(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    let bundle = container.bundle.path();
    let long = "x".repeat(1100);
    for id in ["../../x", "a/b", ".", "..", "", "a b", &long, "a\nb", "../root2/y"] {
        assert_ne!(ctx.rt(&["create", "--bundle", bundle, id]).code, 0, "{id:?}");
        assert_ne!(ctx.rt(&["state", id]).code, 0, "{id:?}");
    }
    let names: Vec<_> = fs::read_dir(&ctx.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name == "x" || name == "root2"), "{names:?}");
    Pass
}

fn t24_cgroup_paths_stay_inside(ctx: &Ctx) -> Outcome {
    let name = ctx.fresh("rt-escaped");
    let controllers = || fs::read_dir("/sys/fs/cgroup").unwrap().map(|e| e.unwrap().path());
    for path in [format!("../../{name}"), format!("/../../{name}")] {
        let container = ctx.container(ctx.bundle(|c| {
            config::shell(c, "exit 0");
            c["linux"]["cgroupsPath"] = json!(path);
        }));
        container.run();
        // ".." never gets above the root of a hierarchy.
        assert!(!Path::new("/sys/fs").join(&name).exists() && !Path::new("/sys").join(&name).exists());
    }
    assert!(controllers().all(|c| !c.join(&name).exists()), "nothing is left");
    Pass
}

fn t25_sysctls_of_the_host_are_refused(ctx: &Ctx) -> Outcome {
    let files = ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory"];
    let values = || files.map(|file| read(file.as_ref()));
    let before = values();
    let keys =
        ["kernel.core_pattern", "vm.overcommit_memory", "net/../kernel/core_pattern", "net.ipv4/../../../kernel/core_pattern"];
    for key in keys {
        ctx.run(|c| c["linux"]["sysctl"] = json!({ key: "1" })).exits(1);
        assert_eq!(values(), before, "{key}");
    }
    ctx.run(|c| {
        config::without_namespace(c, "network");
        c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    })
    .exits(1);
    Pass
}

/// Not dumpable and without a terminal of its own, an exec'd process has no way into the caller's input.
fn t28_exec_cannot_push_into_the_caller_s_terminal(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let root = ctx.path("state");
    let argv = [&ctx.probe(), "pty", ctx.runtime().to_str().unwrap(), "--root", &root, "exec", &container.id, "probe", "tiocsti"];
    let output = ctx.command(&argv).run();
    assert!(output.stdout.contains("refused") && !output.stdout.contains("pushed"), "{output}");
    Pass
}

fn t32_a_read_only_root_with_a_fake_proc(ctx: &Ctx) -> Outcome {
    let edit = |c: &mut Value| {
        config::without_mount(c, "/proc");
        config::mount(c, "tmpfs", "tmpfs", "/vol", &[]);
        c["root"]["readonly"] = json!(true);
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
        config::shell(c, "echo x > /tmp/written && echo writable");
    };
    let output = attack(ctx, edit, |bundle| {
        for fd in 0..60 {
            plant(bundle, &format!("/proc/self/fd/{fd}"), "/vol");
        }
    });
    assert!(!output.stdout.contains("writable"), "{output}");
    Pass
}

fn t33_bind_destinations_stay_inside(ctx: &Ctx) -> Outcome {
    let out = Out::new(ctx);
    let source = ctx.host_dir("source", "file", "source");
    let file = format!("{source}/file");
    let up = format!("/../../../../../../..{}/new", out.path);
    for (destination, link, target) in [
        ("/etc/hosts", "/etc/hosts", format!("{}/new", out.path)),
        ("/vol/new", "/vol", out.path.clone()),
        (&up, "/unused", out.path.clone()),
    ] {
        let edit = |c: &mut Value| {
            config::shell(c, "exit 0");
            config::mount(c, "bind", &file, destination, &["bind"]);
        };
        attack(ctx, edit, |bundle| plant(bundle, link, &target));
        out.assert_unchanged(destination);
    }
    let edit = |c: &mut Value| config::mount(c, "tmpfs", "tmpfs", "/vol", &[]);
    attack(
        ctx,
        |c| {
            config::shell(c, "exit 0");
            edit(c)
        },
        |bundle| plant(bundle, "/vol", &out.path),
    );
    out.assert_unchanged("a tmpfs");
    Pass
}

fn t34_the_working_directory_is_made_inside(ctx: &Ctx) -> Outcome {
    let out = Out::new(ctx);
    let edit = |c: &mut Value| {
        config::shell(c, "exit 0");
        c["process"]["cwd"] = json!("/work/new");
    };
    attack(ctx, edit, |bundle| plant(bundle, "/work", &out.path));
    out.assert_unchanged("process.cwd");
    Pass
}

const MASKED: [&str; 6] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/proc/interrupts", "/sys/firmware"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn t39_masked_and_read_only_paths_hold(ctx: &Ctx) -> Outcome {
    let list = |paths: &[&str]| paths.join(" ");
    let script = format!(
        "for p in {}; do test -e $p || continue; if test -d $p; then test -z \"$(ls -A $p)\"; else test -z \"$(cat $p)\"; fi || echo $p; done
         for p in {}; do test -e $p || continue; if test -d $p; then mkdir $p/x; else echo h > $p; fi 2>/dev/null && echo $p; done
         for p in {}; do test -e $p && grep -q \" $p ro\" /proc/self/mountinfo || test ! -e $p || echo $p; done; true",
        list(&MASKED),
        list(&READ_ONLY),
        list(&READ_ONLY)
    );
    let output = ctx.sh_with(&script, |c| {
        c["linux"]["maskedPaths"] = json!(MASKED);
        c["linux"]["readonlyPaths"] = json!(READ_ONLY);
    });
    assert_eq!(output, "");
    Pass
}

fn t40_capability_sets_are_exact(ctx: &Ctx) -> Outcome {
    for (uid, nnp) in [(0, true), (0, false), (1000, true), (1000, false)] {
        let output = ctx.sh_with("cat /proc/self/status", |c| {
            config::capabilities(c, &["CAP_CHOWN", "CAP_NET_RAW"]);
            c["process"]["user"] = json!({ "uid": uid, "gid": uid });
            c["process"]["noNewPrivileges"] = json!(nnp);
        });
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(&output, set), "0000000000002001", "{set} of uid {uid}, noNewPrivileges {nnp}");
        }
    }
    Pass
}

fn t44_the_state_root_is_private(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let open = |path: &Path, allowed: u32| {
        let mode = fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !allowed, 0, "{} has mode {mode:o}", path.display());
    };
    open(&ctx.state_root(), 0o711);
    open(&ctx.state_root().join(&container.id), 0o711);
    for entry in fs::read_dir(ctx.state_root().join(&container.id)).unwrap() {
        open(&entry.unwrap().path(), 0o700);
    }
    Pass
}

/// The attacker's program. `RT_ATTACKER` names one that was compiled before, for machines without a compiler.
fn attacker(ctx: &Ctx) -> String {
    if let Ok(path) = std::env::var("RT_ATTACKER") {
        return path;
    }
    let (source, attacker) = (ctx.path("attacker.c"), ctx.path("attacker"));
    fs::write(&source, include_str!("attacker.c")).unwrap();
    ctx.command(&["cc", "-static", "-Os", "-Wall", "-o", &attacker, &source]).run().ok();
    attacker
}

/// T10 and T10fd: the attacker (attacker.c) watches while processes are executed beside it, among them the runtime's own binary.
fn t10_a_hostile_first_process_gets_neither_binary_nor_host(ctx: &Ctx) -> Outcome {
    let attacker = attacker(ctx);
    let runtime = ctx.path("runtime");
    fs::copy(ctx.runtime(), &runtime).unwrap();
    let before = fs::read(&runtime).unwrap();
    let canary = ctx.host_dir("out", "canary", "host data") + "/canary";

    let container = ctx.container(ctx.bundle(|c| c["process"]["args"] = json!(["/attacker", canary.trim_start_matches('/')])));
    fs::copy(&attacker, container.bundle.rootfs("/attacker")).unwrap();
    let script = container.bundle.rootfs("/script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let root = ctx.path("state");
    let rt = |arguments: &[&str]| {
        let mut argv = vec![runtime.as_str(), "--root", &root];
        argv.extend(arguments);
        ctx.command(&argv).run()
    };
    let printed = ctx.dir.join("printed");
    let create = format!("exec >{}", printed.display());
    let argv = [&runtime, "--root", &root, "create", "--bundle", container.bundle.path(), &container.id];
    ctx.command(&argv).after(&create).run().ok();
    container.start().ok();
    ctx.wait_until("the attacker is ready", || read(&printed).starts_with("ready\n"));
    for _ in 0..6 {
        for program in [&["/script"][..], &["/proc/self/exe"], &["/proc/self/exe", "list"], &["true"], &["sleep", "0.02"]] {
            let mut arguments = vec!["exec", container.id.as_str()];
            arguments.extend(program);
            // The runtime may refuse, or its binary complain: the attacker has been given its chance.
            rt(&arguments);
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    let log = read(&printed);
    assert!(fs::read(&runtime).unwrap() == before, "the runtime's binary was changed: {log}");
    assert!(!log.contains("WRITTEN") && !log.contains("HOST"), "{log}");
    let got = |what: &str| log.lines().filter(|line| line.starts_with(what)).count();
    if got("exe of") == 0 || got("directory") == 0 {
        let why = format!("the attacker got {} binaries and {} directories", got("exe of"), got("directory"));
        return Skip(why);
    }
    Pass
}

/// Programs of the container that run beside an init that still waits (exec in a created container, startContainer hooks) go through its
/// descriptors: none leads out, not even for one that may trace.
fn a_waiting_init_is_no_way_to_the_host(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "not looked at");
    let canary = ctx.path("canary");
    fs::write(&canary, "canary").unwrap();
    let script = format!("for f in /proc/1/fd/*; do cat $f/..{canary} $f/../..{canary} 2>/dev/null; done; echo looked");
    let may_trace = |c: &mut Value| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_PTRACE"));
        }
    };
    let container = ctx.create(may_trace);
    assert_eq!(container.exec(&[], &["sh", "-c", &script]).ok().stdout, "looked\n");
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("({script}) > /seen")], "env": ["PATH=/bin"] }]);
    let output = ctx.sh_with("cat /seen", |c| {
        may_trace(c);
        c["hooks"] = json!({ "startContainer": hook });
    });
    assert_eq!(output, "looked\n");
    Pass
}
