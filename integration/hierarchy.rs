//! Where the controllers are on this machine, in version 1 or version 2, and a view in which there is version 2 only.

use std::path::{Path, PathBuf};

use rt::sys::{CallResult, mount, ns};

use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Skip};

/// The interface that a controller has here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    V1,
    V2,
}

/// True if version 2 is all there is.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The mount point of version 2, of a hybrid machine too.
pub fn unified_mount() -> Option<&'static Path> {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists())
}

/// Which version has the controller; `cgroup` is the core of version 2.
pub fn version(controller: &str) -> Option<Version> {
    if !unified() && Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists() {
        return Some(Version::V1);
    }
    let controllers = read(&unified_mount()?.join("cgroup.controllers"));
    // Version 1 has names of its own for two of them, and devices are a program in version 2.
    let name = match controller {
        "blkio" => "io",
        "cpuacct" => "cpu",
        other => other,
    };
    let there = matches!(name, "cgroup" | "devices" | "freezer") || controllers.split_whitespace().any(|word| word == name);
    there.then_some(Version::V2)
}

/// The folder of a cgroup where this controller is.
pub fn folder(controller: &str, path: &str) -> PathBuf {
    let mount = match version(controller) {
        Some(Version::V1) => Path::new("/sys/fs/cgroup").join(controller),
        _ => unified_mount().unwrap_or(Path::new("/sys/fs/cgroup")).to_path_buf(),
    };
    mount.join(path.trim_start_matches('/'))
}

/// The value of a file where this controller is, which may have another name in each version.
pub fn value(controller: &str, path: &str, v1: &str, v2: &str) -> String {
    let file = if version(controller) == Some(Version::V1) { v1 } else { v2 };
    read(&folder(controller, path).join(file)).trim().to_owned()
}

/// Runs a test where the unified tree is all that there is to be seen: on a machine that mixes the versions in a mount namespace of
/// its own. Freezing, killing, device programs and delegation work there; memory, cpu and the like do not exist.
pub fn in_pure_view(ctx: &Ctx, body: fn(&Ctx) -> Outcome) -> Outcome {
    if unified() {
        return body(ctx);
    }
    if unified_mount().is_none() {
        return Skip("no unified hierarchy".to_owned());
    }
    let bind = libc::MS_BIND;
    apart(ctx, || mount::mount("/sys/fs/cgroup/unified", Path::new("/sys/fs/cgroup"), "none", bind, ""), body)
}

/// Runs a test where the unified tree of a machine that mixes the versions is not to be seen.
pub fn in_version_1_view(ctx: &Ctx, body: fn(&Ctx) -> Outcome) -> Outcome {
    if unified() {
        return Skip("version 2 is all there is".to_owned());
    }
    if unified_mount().is_none() {
        return body(ctx);
    }
    apart(ctx, || mount::mount("tmpfs", Path::new("/sys/fs/cgroup/unified"), "tmpfs", 0, ""), body)
}

/// A hierarchy of version 1 that a test has mounted is gone when its last mount goes and no cgroup is below it. The end of one takes the kernel a
/// moment longer than rmdir(2), and a mount that goes before that leaves the hierarchy to everybody: then a mount that comes and goes takes it along,
/// after another moment.
pub fn forget_network_classes(ctx: &Ctx) {
    let place = ctx.path("forgotten");
    std::fs::create_dir(&place).unwrap();
    let script = format!("mount -t cgroup -o net_cls,net_prio none {place} && umount {place}");
    ctx.wait_until("the hierarchy is gone", || {
        let is_gone = !read(Path::new("/proc/self/cgroup")).contains("net_cls");
        if !is_gone {
            ctx.command(&["unshare", "-m", "sh", "-c", &script]).run();
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        is_gone
    });
}

/// Runs a test in a thread, which can have a mount namespace of its own; what it starts inherits that.
pub fn apart(ctx: &Ctx, prepare: impl FnOnce() -> CallResult<()> + Send, body: fn(&Ctx) -> Outcome) -> Outcome {
    let inside = || {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let alone = ns::unshare(libc::CLONE_NEWNS).and_then(|()| mount::mount("none", Path::new("/"), "none", private, ""));
        alone.and_then(|()| prepare()).unwrap_or_else(|error| panic!("{error}"));
        body(ctx)
    };
    let result = std::thread::scope(|scope| scope.spawn(inside).join());
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        panic!("{}", text.or(payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}
