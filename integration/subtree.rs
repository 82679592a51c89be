//! Limits for an ordinary user on a real machine with version 2 only: beside its own cgroup, by its systemd, and by what the warning
//! says where there is no place for them. Each command that a warning names is carried out, and then there is no warning.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config;
use crate::ctx::{Container, Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    User {
        limits_work_beside_the_caller_s_own_cgroup,
        without_a_place_for_limits_the_warning_repairs_it,
    }
    Root {
        a_user_to_whom_nothing_was_given_is_told_the_command,
    }
}

macro_rules! needs_v2 {
    () => {
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return Skip("needs a machine with cgroup v2 only".to_owned());
        }
    };
}

/// The cgroup of a process, whole.
fn folder(pid: &str) -> PathBuf {
    let groups = read(format!("/proc/{pid}/cgroup").as_ref());
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    Path::new("/sys/fs/cgroup").join(path)
}

fn writable(path: &Path) -> bool {
    std::fs::OpenOptions::new().write(true).open(path.join("cgroup.subtree_control")).is_ok()
}

/// The directory above the caller's own, if it was given to the caller, too, and is not systemd's.
fn above() -> Option<PathBuf> {
    let own = folder("self");
    let is_unit = own.extension().is_some_and(|extension| extension == "scope" || extension == "service");
    own.parent().filter(|above| !is_unit && writable(above)).map(Path::to_path_buf)
}

fn limits(c: &mut serde_json::Value) {
    c["linux"]["resources"] = json!({
        "memory": { "limit": 67_108_864 }, "pids": { "limit": 50 }, "cpu": { "quota": 20_000, "period": 100_000 }
    });
}

fn assert_limited(container: &Container) {
    let folder = folder(&container.pid().to_string());
    let of = |name: &str| read(&folder.join(name)).trim().to_owned();
    assert_eq!(["memory.max", "pids.max", "cpu.max"].map(of), ["67108864", "50", "20000 100000"], "{}", folder.display());
}

fn limits_work_beside_the_caller_s_own_cgroup(ctx: &Ctx) -> Outcome {
    needs_v2!();
    let Some(above) = above() else { return Skip("the cgroup above the own one was not given to this user".to_owned()) };
    let mut container = ctx.container(ctx.bundle(limits));
    let output = container.create().ok();
    assert_eq!(output.stderr, "");
    assert_limited(&container);
    let group = above.join(format!("rt-{}", container.id));
    assert_eq!(folder(&container.pid().to_string()), group);
    container.start().ok();
    container.sh("exit 0");
    container.stop();
    container.delete().ok();
    assert!(!group.exists());
    Pass
}

/// The command in the warning.
fn command(stderr: &str) -> String {
    let parts: Vec<&str> = stderr.split('`').collect();
    let found = parts.iter().find(|part| part.starts_with("mkdir ") || part.starts_with("d=/") || part.starts_with("rt --"));
    (*found.unwrap_or_else(|| panic!("no command in {stderr}"))).to_owned()
}

/// In a cgroup of a name as systemd's have, nothing above is used: the caller itself is in the way.
fn without_a_place_for_limits_the_warning_repairs_it(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "runc refuses limits that it cannot set");
    if Path::new("/run/systemd/system").exists() {
        return by_systemd(ctx);
    }
    let Some(above) = above() else { return Skip("no cgroup was given to this user".to_owned()) };
    let group = above.join(format!("{}.scope", ctx.fresh("only")));
    std::fs::create_dir(&group).unwrap();
    let script = format!(
        "echo $$ > {0}/cgroup.procs || exit 9; {1} create -b {2} first 2> {3} || exit 8; \
         cd {0} && eval \"$(sed -n 's/.*`\\(mkdir[^`]*\\)`.*/\\1/p' {3} | head -n 1)\"; \
         {1} create -b {2} second 2> {3}.2 || exit 6; cat {0}/rt-second/memory.max {0}/rt-second/pids.max",
        group.display(),
        format_args!("{} --root {}", ctx.runtime().display(), ctx.path("state")),
        ctx.bundle(limits).path(),
        ctx.path("warnings"),
    );
    let output = ctx.command(&["sh", "-c", &script]).run();
    let warnings = read(ctx.path("warnings").as_ref());
    ctx.rt(&["delete", "--force", "first"]).ok();
    ctx.rt(&["delete", "--force", "second"]).ok();
    let _ = std::fs::remove_dir(group.join("rest"));
    let _ = std::fs::remove_dir(&group);
    assert!(warnings.contains("processes of its own"), "{warnings}");
    assert_eq!(output.ok().lines(), ["67108864", "50"], "{warnings}");
    assert_eq!(read(format!("{}.2", ctx.path("warnings")).as_ref()), "");
    Pass
}

/// Where the user's systemd runs, that is the way.
fn by_systemd(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(limits));
    let output = container.create().ok();
    assert!(output.stderr.contains("`rt --systemd-cgroup ...`"), "{output}");
    let mut container = ctx.container(ctx.bundle(limits));
    assert_eq!(container.create_by_systemd().ok().stderr, "");
    assert_limited(&container);
    Pass
}

/// The user runs a container, which works; root does what the warning says; then its limits work, too.
fn a_user_to_whom_nothing_was_given_is_told_the_command(ctx: &Ctx) -> Outcome {
    needs_v2!();
    needs_rt!(ctx, "runc refuses limits that it cannot set");
    const UID: u32 = 4711;
    let bundle = ctx.bundle(|c| {
        *c = config::default(UID, UID);
        limits(c);
    });
    for name in ["state", "shared"] {
        std::fs::create_dir(ctx.path(name)).unwrap();
        std::os::unix::fs::chown(ctx.path(name), Some(UID), Some(UID)).unwrap();
    }
    let script = format!(
        "cd {shared}; {rt} create -b {bundle} first 2> warnings; echo $? > first; \
         while [ ! -e repaired ]; do sleep 0.05; done; {rt} create -b {bundle} second 2> warnings.2; echo $? > second; \
         cat /sys/fs/cgroup/rt-4711/rt-second/memory.max > limit; {rt} delete -f first; {rt} delete -f second",
        shared = ctx.path("shared"),
        rt = format_args!("{} --root {}", ctx.runtime().display(), ctx.path("state")),
        bundle = bundle.path(),
    );
    let id = UID.to_string();
    let user =
        ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "env", "XDG_RUNTIME_DIR=/nowhere", "sh", "-c", &script];
    let shell = ctx.command(&user).spawn();
    let of = |name: &str| read(Path::new(&ctx.path("shared")).join(name).as_ref());
    ctx.wait_until("the first one was made", || !of("first").is_empty());
    let warnings = of("warnings");
    assert_eq!(of("first"), "0\n", "{warnings}");
    if Path::new("/run/systemd/system").exists() {
        // The command makes a systemd for the user, who has to log in anew for it.
        std::fs::write(Path::new(&ctx.path("shared")).join("repaired"), "").unwrap();
        shell.wait();
        assert!(warnings.contains(&format!("`loginctl enable-linger {UID}`")), "{warnings}");
        return Pass;
    }
    let repair = command(&warnings);
    assert!(repair.starts_with("d=/sys/fs/cgroup/rt-4711;"), "{warnings}");
    ctx.command(&["sh", "-c", &repair]).run().ok();
    std::fs::write(Path::new(&ctx.path("shared")).join("repaired"), "").unwrap();
    shell.wait().ok();
    assert_eq!((of("second").as_str(), of("warnings.2").as_str()), ("0\n", ""));
    assert_eq!(of("limit"), "67108864\n");
    for group in ["rt-4711/rest", "rt-4711"] {
        let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(group));
    }
    Pass
}
