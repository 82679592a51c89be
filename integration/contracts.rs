//! What service managers and engines rely on beside the lifecycle: readiness, pidfds, pid files, and commands that can be ended.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::config;
use crate::ctx::{Container, Ctx, Running, read, slowness};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        run_forwards_readiness_and_the_main_process,
        start_waits_until_the_program_is_ready,
        a_barrier_is_forwarded,
        only_what_is_known_is_forwarded,
        without_a_manager_nothing_is_said,
        create_sends_a_pidfd_of_init,
        exec_sends_a_pidfd_of_its_process,
        an_annotation_names_the_receiver_of_the_pidfd,
        a_pid_file_that_is_a_directory_leaves_nothing,
        the_temporary_pid_file_follows_no_link,
        a_create_stuck_in_a_hook_is_ended_by_delete_force,
        a_create_stuck_in_a_hook_is_ended_by_a_signal,
        a_start_stuck_in_a_hook_is_ended_by_delete_force,
        a_manager_that_does_not_read_stops_nothing,
        a_waiting_init_shows_no_environment,
        a_config_of_another_name,
        several_containers_are_killed_and_deleted_by_a_pattern,
    }
    Root {
        delete_unmounts_nothing_outside_of_the_rootfs,
        a_caller_that_may_not_set_groups_is_warned,
    }
}

/// A service manager: a socket, and what was said there.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(ctx: &Ctx) -> Self {
        let path = ctx.socket_path();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, path }
    }

    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    fn hears_nothing_more(&self) {
        self.socket.set_nonblocking(true).unwrap();
        assert!(self.socket.recv(&mut [0; 64]).is_err());
    }
}

fn run_forwards_readiness_and_the_main_process(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the order of the messages is ours");
    let manager = Manager::new(ctx);
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "echo $NOTIFY_SOCKET; probe sdnotify STATUS=warming; probe sdnotify READY=1; sleep 1000");
    }));
    let run = container.run_command(&[]).env("NOTIFY_SOCKET", &manager.path).spawn();
    assert_eq!(manager.hears(), "STATUS=warming");
    assert_eq!(manager.hears(), format!("READY=1\nMAINPID={}", container.pid()));
    assert_eq!(run.stdout_so_far(), "/run/notify/notify.sock\n");
    container.kill("KILL").ok();
    run.wait().exits(137);
    Pass
}

fn start_waits_until_the_program_is_ready(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the order of the messages is ours");
    let manager = Manager::new(ctx);
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "until test -e /tmp/go; do sleep 0.01; done; probe sdnotify READY=1; sleep 1000");
    }));
    let notified = |verb: &[&str]| ctx.rt_command(verb).env("NOTIFY_SOCKET", &manager.path);
    notified(&["create", "--bundle", container.bundle.path(), &container.id]).run().ok();
    let start = notified(&["start", &container.id]).spawn();
    container.wait_for("running");
    assert!(Path::new(&format!("/proc/{}", start.pid())).exists(), "start waits");
    std::fs::write(container.bundle.rootfs("/tmp/go"), "").unwrap();
    assert_eq!(manager.hears(), format!("READY=1\nMAINPID={}", container.pid()));
    assert_eq!(manager.hears(), "BARRIER=1");
    start.wait().ok();
    // A program that ends before it is ready is not waited for.
    let short = ctx.container(ctx.bundle(|c| config::shell(c, "exit 0")));
    short.run_command(&["--detach"]).env("NOTIFY_SOCKET", &manager.path).run().ok();
    manager.hears_nothing_more();
    Pass
}

fn a_barrier_is_forwarded(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others do not forward it");
    let manager = Manager::new(ctx);
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "probe sdnotify STATUS=x barrier && echo read")));
    let run = container.run_command(&[]).env("NOTIFY_SOCKET", &manager.path).spawn();
    assert_eq!((manager.hears().as_str(), manager.hears().as_str()), ("STATUS=x", "BARRIER=1"));
    assert_eq!(run.wait().ok().text(), "read");
    Pass
}

fn only_what_is_known_is_forwarded(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the list is ours");
    let manager = Manager::new(ctx);
    let script = "probe sdnotify FDSTORE=1; probe sdnotify NOTIFYACCESS=all; touch /run/notify/x; probe sdnotify STOPPING=1";
    let container = ctx.container(ctx.bundle(|c| config::shell(c, script)));
    let ended = container.run_command(&[]).env("NOTIFY_SOCKET", &manager.path).run().ok();
    assert!(ended.stderr.contains("Read-only file system"), "{ended}");
    assert_eq!(manager.hears(), "STOPPING=1");
    manager.hears_nothing_more();
    Pass
}

fn without_a_manager_nothing_is_said(ctx: &Ctx) -> Outcome {
    let container =
        ctx.container(ctx.bundle(|c| config::shell(c, "echo \"<$NOTIFY_SOCKET>\"; test -e /run/notify || echo none")));
    assert_eq!(container.run().ok().stdout, "<>\nnone\n");
    Pass
}

fn receiver<'c>(ctx: &'c Ctx<'c>) -> (Running, String) {
    let path = ctx.socket_path();
    let listener = ctx.command(&[&ctx.probe(), "recvpidfd", &path]).spawn();
    ctx.wait_until("somebody listens", || Path::new(&path).exists());
    (listener, path)
}

fn create_sends_a_pidfd_of_init(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "older ones do not know the flag");
    let (listener, socket) = receiver(ctx);
    let mut container = ctx.container(ctx.bundle(|_| {}));
    container.create_with(&["--pidfd-socket", &socket]).ok();
    let pid = container.pid();
    container.delete().ok();
    assert_eq!(listener.wait().ok().stdout, format!("standard {pid}\nended\n"));
    container.create_with(&["--pidfd-socket", "/nowhere"]).exits(1).refused("connect to pidfd socket /nowhere (--pidfd-socket)");
    Pass
}

fn exec_sends_a_pidfd_of_its_process(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "older ones do not know the flag");
    let (listener, socket) = receiver(ctx);
    let container = ctx.running(|_| {});
    let pid_file = ctx.path("pid");
    container.exec(&["--pidfd-socket", &socket, "--pid-file", &pid_file], &["sleep", "1"]).ok();
    assert_eq!(listener.wait().ok().stdout, format!("setns {}\nended\n", read(pid_file.as_ref())));
    Pass
}

fn an_annotation_names_the_receiver_of_the_pidfd(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let (listener, socket) = receiver(ctx);
    ctx.run(|c| {
        config::shell(c, "exit 0");
        c["annotations"] = json!({ "run.oci.pidfd_receiver": socket });
    })
    .ok();
    let said = listener.wait().ok().stdout;
    assert!(said.starts_with("standard ") && said.ends_with("\nended\n"), "{said}");
    Pass
}

fn names(directory: &str) -> Vec<String> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn a_pid_file_that_is_a_directory_leaves_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others leave theirs");
    let here = ctx.path("here");
    std::fs::create_dir_all(format!("{here}/pid")).unwrap();
    let mut container = ctx.container(ctx.bundle(|_| {}));
    container.create_with(&["--pid-file", &format!("{here}/pid")]).exits(1).refused("is a directory");
    assert_eq!(names(&here), ["pid"]);
    assert_eq!(ctx.rt(&["list", "-q"]).ok().stdout, "");
    Pass
}

fn the_temporary_pid_file_follows_no_link(ctx: &Ctx) -> Outcome {
    let here = ctx.path("here");
    std::fs::create_dir_all(&here).unwrap();
    std::fs::write(ctx.path("victim"), "precious").unwrap();
    std::os::unix::fs::symlink(ctx.path("victim"), format!("{here}/pid")).unwrap();
    let mut container = ctx.container(ctx.bundle(|_| {}));
    container.create_with(&["--pid-file", &format!("{here}/pid")]).ok();
    if ctx.is_rt() {
        assert_eq!(read(ctx.path("victim").as_ref()), "precious");
    }
    assert_eq!(read(format!("{here}/pid").as_ref()), container.pid().to_string());
    assert_eq!(names(&here), ["pid"]);
    Pass
}

/// A create whose hook never ends.
fn stuck<'c>(ctx: &'c Ctx<'c>, kind: &str) -> (Container<'c>, Running) {
    let began = ctx.path(&ctx.fresh("began"));
    let container = ctx.container(ctx.bundle(|c| {
        let script = if kind == "createContainer" { "sleep 1000".to_owned() } else { format!("touch {began}; sleep 1000") };
        let shell = if kind == "startContainer" { "/bin/sh" } else { "/bin/bash" };
        c["hooks"] = json!({ kind: [{ "path": shell, "args": ["sh", "-c", script] }] });
    }));
    let create = ctx.rt_command(&["create", "--bundle", container.bundle.path(), &container.id]).spawn();
    if kind == "createRuntime" {
        ctx.wait_until("the hook runs", || Path::new(&began).exists());
    } else {
        ctx.wait_until("it is being made", || ctx.rt(&["state", &container.id]).code == 0);
    }
    (container, create)
}

fn a_create_stuck_in_a_hook_is_ended_by_delete_force(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others know no such container");
    for kind in ["createRuntime", "createContainer"] {
        let (container, create) = stuck(ctx, kind);
        let began = Instant::now();
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert!(began.elapsed() < Duration::from_secs(4), "{kind}: {:?}", began.elapsed());
        create.wait().exits(1).refused("signal 15");
        assert_eq!(names(&ctx.path("state")), Vec::<String>::new(), "{kind}");
    }
    Pass
}

fn a_create_stuck_in_a_hook_is_ended_by_a_signal(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others leave the container");
    let (_container, create) = stuck(ctx, "createRuntime");
    ctx.host(&["kill", "-TERM", &create.pid()]).ok();
    create.wait().exits(1).refused("hooks.createRuntime[0]");
    assert_eq!(names(&ctx.path("state")), Vec::<String>::new());
    Pass
}

fn a_start_stuck_in_a_hook_is_ended_by_delete_force(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others wait for ever");
    for verb in ["start", "run"] {
        let container = ctx.container(ctx.bundle(|c| {
            c["hooks"] =
                json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "touch /tmp/began; sleep 1000"] }] });
        }));
        let began = container.bundle.rootfs("/tmp/began");
        let bundle = ["--bundle", container.bundle.path(), &container.id];
        let stuck = if verb == "start" {
            ctx.rt(&[&["create"], &bundle[..]].concat()).ok();
            ctx.rt_command(&["start", &container.id]).spawn()
        } else {
            ctx.rt_command(&[&["run"], &bundle[..]].concat()).spawn()
        };
        ctx.wait_until("the hook runs", || began.exists());
        let since = Instant::now();
        ctx.rt(&["delete", "--force", &container.id]).ok();
        assert!(since.elapsed() < Duration::from_secs(4) * slowness(), "{verb}: {:?}", since.elapsed());
        let ended = stuck.wait().exits(1);
        assert!(verb == "run" || ended.stderr.contains("killed while its hooks ran"), "{ended:?}");
        assert_eq!(names(&ctx.path("state")), Vec::<String>::new(), "{verb}");
    }
    Pass
}

/// More messages than the manager's queue holds (`net.unix.max_dgram_qlen`), and nobody reads them.
fn a_manager_that_does_not_read_stops_nothing(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others forward nothing to the end");
    let manager = Manager::new(ctx);
    let full: u32 = read("/proc/sys/net/unix/max_dgram_qlen".as_ref()).trim().parse().unwrap();
    let messages = vec!["STATUS=x"; full as usize + 20].join(" ");
    let container =
        ctx.container(ctx.bundle(|c| config::shell(c, &format!("for m in {messages}; do probe sdnotify $m; done; exit 5"))));
    container.run_command(&[]).env("NOTIFY_SOCKET", &manager.path).run().exits(5);
    assert_eq!(manager.hears(), "STATUS=x");
    Pass
}

/// proc_pid_environ(5): init is a copy of the launcher until it executes the program.
fn a_waiting_init_shows_no_environment(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the others execute themselves in between");
    let sets = ["bounding", "effective", "permitted"];
    let container = ctx.container(ctx.bundle(|c| {
        // With it root may look into a process that is not dumpable.
        for set in sets {
            c["process"]["capabilities"][set] = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
        }
    }));
    let create = ["create", "--bundle", container.bundle.path(), &container.id];
    ctx.rt_command(&create).env("SECRET", "of the caller").run().ok();
    let seen = container.exec(&[], &["sh", "-c", "tr '\\0' ' ' < /proc/1/environ"]);
    assert!(!seen.stdout.contains("SECRET") && !seen.stdout.contains("of the caller"), "{seen}");
    assert_eq!(seen.stdout.trim(), "", "{seen}");
    Pass
}

fn a_config_of_another_name(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let container = ctx.container(ctx.bundle(|c| config::shell(c, "echo other")));
    std::fs::rename(container.bundle.dir.join("config.json"), container.bundle.dir.join("other.json")).unwrap();
    assert_eq!(container.run_command(&["--config", "other.json"]).run().ok().stdout, "other\n");
    assert_eq!(
        container.run_command(&["-f", container.bundle.dir.join("other.json").to_str().unwrap()]).run().ok().stdout,
        "other\n"
    );
    // Whatever is wrong in it is said with its name.
    let broken = container.bundle.dir.join("broken.json");
    let mut config: serde_json::Value = serde_json::from_str(&read(&container.bundle.dir.join("other.json"))).unwrap();
    config["process"]["cwd"] = json!("relative");
    std::fs::write(&broken, config.to_string()).unwrap();
    let expected = ": broken.json: process.cwd: \"relative\": expected an absolute path";
    ctx.rt(&["run", "-f", "broken.json", "--bundle", container.bundle.path(), "x"]).exits(1).refused(expected);
    ctx.rt(&["plan", "--config", "broken.json", container.bundle.path()]).exits(1).refused(expected);
    ctx.rt(&["plan", "--config", "other.json", container.bundle.path()]).ok();
    let checked = ctx.rt(&["check", "--config", "broken.json", container.bundle.path()]).exits(1);
    assert!(checked.stdout.contains("process.cwd: \"relative\""), "{checked}");
    container.run_command(&["-f", "third.json"]).run().refused("third.json\"): no such file or directory");
    let written = ctx.path("written.json");
    ctx.rt(&["spec", "-f", &written]).ok();
    assert!(read(written.as_ref()).contains("ociVersion"));
    Pass
}

fn several_containers_are_killed_and_deleted_by_a_pattern(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "crun's alone");
    let (one, two) = (ctx.running(|_| {}), ctx.running(|_| {}));
    let other = ctx.container(ctx.bundle(|_| {}));
    ctx.rt(&["create", "--bundle", other.bundle.path(), "unconcerned"]).ok();
    let stem = one.id.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
    ctx.rt(&["kill", "--regex", &format!("^{stem}-[0-9]+-[0-9]+$"), "KILL"]).ok();
    one.wait_for("stopped");
    two.wait_for("stopped");
    assert_eq!(ctx.rt(&["state", "unconcerned"]).ok().json()["status"], "created");
    ctx.rt(&["delete", "--regex", &format!("^{stem}")]).ok();
    assert_eq!(ctx.rt(&["list", "-q"]).ok().stdout, "unconcerned\n");
    ctx.rt(&["delete", "--regex", "un(con"]).exits(1).refused("un(con");
    ctx.rt(&["kill", "--regex", "nothing"]).exits(1).refused("no container matches");
    ctx.rt(&["delete", "--force", "--regex", "nothing|unconcerned"]).ok();
    assert_eq!(ctx.rt(&["list", "-q"]).ok().stdout, "");
    Pass
}

fn delete_unmounts_nothing_outside_of_the_rootfs(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others need a mount namespace");
    // In a mount namespace of the test's own, where a mount stands for one of the host's.
    let container = ctx.container(ctx.bundle(|c| {
        config::without_namespace(c, "mount");
        for list in ["maskedPaths", "readonlyPaths"] {
            c["linux"].as_object_mut().unwrap().remove(list);
        }
        c["mounts"] = json!([]);
        config::mount(c, "tmpfs", "tmpfs", "/data/inner", &[]);
        config::shell(c, "exit 0");
    }));
    let (precious, rootfs) = (ctx.host_dir("precious", "file", ""), container.bundle.rootfs("/"));
    let script = format!(
        "mkdir -p {precious}/inner && mount -t tmpfs precious {precious}/inner && {rt} --root {root} create -b {bundle} {id} && \
         mv {rootfs}/data {rootfs}/moved && ln -s {precious} {rootfs}/data && {rt} --root {root} delete --force {id}; \
         grep -c {precious}/inner /proc/self/mounts",
        rt = ctx.runtime().display(),
        root = ctx.path("state"),
        bundle = container.bundle.path(),
        id = container.id,
        rootfs = rootfs.display(),
    );
    let output = ctx.command(&["unshare", "-m", "sh", "-c", &script]).run();
    assert_eq!(output.text(), "1", "{output}");
    Pass
}

fn a_caller_that_may_not_set_groups_is_warned(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others fail without a hint");
    let container = ctx.container(ctx.bundle(|c| {
        config::shell(c, "id -u");
        config::without_mount(c, "/sys");
        for entry in c["mounts"].as_array_mut().unwrap() {
            if entry["destination"] == "/dev/pts" {
                entry["options"] = json!(["newinstance"]);
            }
        }
    }));
    let argv = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "unshare", "-Ur"];
    if ctx.command(&[&argv[..], &["true"]].concat()).run().code != 0 {
        return Skip("an ordinary user may not make user namespaces here".to_owned());
    }
    let root = ctx.path("user-state");
    std::fs::create_dir(&root).unwrap();
    std::os::unix::fs::chown(&root, Some(1000), Some(1000)).unwrap();
    let runtime = ctx.runtime().to_str().unwrap();
    let run = [runtime, "--root", &root, "run", "-b", container.bundle.path(), &container.id];
    let output = ctx.command(&[&argv[..], &run[..]].concat()).run();
    assert!(output.stderr.contains("setgroups is denied in its user namespace"), "{output}");
    assert!(output.stdout.contains("0"), "{output}");
    container.bundle.edit(|c| c["process"]["user"]["additionalGids"] = json!([0]));
    ctx.command(&[&argv[..], &run[..]].concat()).run().refused("process.user.additionalGids: cannot be set: setgroups is denied");
    Pass
}
