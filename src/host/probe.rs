//! What this host can do now, for `rt features --host`: tried where that has no effect, looked up where it would have one.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cgroups::{self, Facts};
use crate::error::Failure;
use crate::namespaces::{Kind, idmap};
use crate::procfs::ProcFs;
use crate::rootfs::mounts;
use crate::rootfs::steps::MountKind;
use crate::spec::IdMapping;
use crate::sys::{At, CallResult, fs, mount, process};

use super::Host;

/// The object under `host`. Docs: docs/features.md. What cannot be found out by this caller is `null`.
pub fn now() -> Value {
    let Ok(host) = Host::probe_caller() else { return Value::Null };
    json!({
        "kernel": text("/proc/sys/kernel/osrelease"),
        "architecture": std::env::consts::ARCH,
        "caller": { "uid": host.uid, "privileged": host.privileged(), "initialUserNamespace": host.initial_user_namespace },
        "namespaces": namespaces(),
        "userNamespaces": user_namespaces(),
        "cgroup": cgroup(&host),
        "seccomp": { "actions": words("/proc/sys/kernel/seccomp/actions_avail") },
        "securityModules": security_modules(),
        "calls": calls(),
        "idmappedMounts": mapped_mounts(&host),
        "filesystems": filesystems(),
        "resctrl": super::resctrl_mount(),
        "memoryPolicy": exists(process::set_mempolicy(0, &[])),
        "programs": { "newuidmap": program("newuidmap"), "newgidmap": program("newgidmap"), "criu": program("criu") },
        // sd_booted(3)
        "systemd": Path::new("/run/systemd/system").is_dir(),
    })
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}

fn words(path: &str) -> Option<Vec<String>> {
    Some(text(path)?.split([' ', ',']).map(str::to_owned).collect())
}

/// A call exists unless the kernel, or a filter that hides it, says otherwise.
fn exists<T>(result: CallResult<T>) -> bool {
    !result.is_err_and(|error| error.is(libc::ENOSYS))
}

/// Each kind: whether the kernel has it, and how many there may be (namespaces(7), user.max_*_namespaces).
fn namespaces() -> Value {
    let limit = |kind: Kind| {
        let name = match kind {
            Kind::Mount => "mnt",
            Kind::Network => "net",
            other => other.spec_name(),
        };
        number(&format!("/proc/sys/user/max_{name}_namespaces"))
    };
    let one = |kind: Kind| {
        let there = Path::new(&format!("/proc/self/ns/{}", kind.proc_name())).exists();
        (kind.spec_name().to_owned(), json!({ "available": there, "limit": limit(kind) }))
    };
    Value::Object(Kind::all().map(one).collect())
}

/// Whether this caller can make one, and the switches that forbid it on some distributions.
fn user_namespaces() -> Value {
    json!({
        "available": idmap::try_namespace().is_ok(),
        "unprivilegedUsernsClone": number("/proc/sys/kernel/unprivileged_userns_clone"),
        "apparmorRestrictUnprivilegedUserns": number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    })
}

fn cgroup(host: &Host) -> Value {
    let Ok(facts) = cgroups::probe("features", None, host.cgroups_required) else { return Value::Null };
    let controllers = |writable: bool| {
        let v1 = facts.v1.iter().filter(|hierarchy| !writable || hierarchy.writable).flat_map(|hierarchy| &hierarchy.controllers);
        let v2 = facts.v2.iter().filter(|unified| !writable || unified.writable).flat_map(|unified| &unified.controllers);
        v1.filter(|name| !name.starts_with("name=")).chain(v2).cloned().collect::<Vec<_>>()
    };
    json!({ "mode": mode(&facts), "controllers": controllers(false), "writable": controllers(true) })
}

fn mode(facts: &Facts) -> &'static str {
    match (facts.v1.is_empty(), facts.v2.is_some()) {
        (true, true) => "v2",
        (false, true) => "hybrid",
        (false, false) => "v1",
        (true, false) => "none",
    }
}

fn security_modules() -> Value {
    json!({
        "active": words("/sys/kernel/security/lsm"),
        "apparmor": super::apparmor_enabled(),
        "selinux": Path::new("/sys/fs/selinux/enforce").exists(),
    })
}

fn calls() -> Value {
    json!({
        "clone3": exists(idmap::try_namespace()),
        "openat2": exists(fs::openat2(At::Cwd, Path::new("/"), libc::O_PATH, 0, fs::Resolve::default())),
        "fsopen": exists(mount::fsopen("tmpfs")),
        "open_tree": exists(mount::open_tree_clone(At::Cwd, Path::new("/"), false, true)),
        "pidfd_open": exists(process::pidfd_open(1)),
    })
}

/// Tried on a detached mount that nobody sees; only who has rights over the filesystem can.
fn mapped_mounts(host: &Host) -> Value {
    if !host.privileged() {
        return Value::Null;
    }
    let whole = |path: &str| mounts::open_source(Path::new(path), false, true);
    let tmpfs = MountKind::Filesystem { fstype: "tmpfs".to_owned(), source: None, superblock: Vec::new(), data: Vec::new() };
    let tried = |mount: Result<OwnedFd, Failure>| mount.ok().and_then(|mount| mappable(&mount));
    json!({ "/": tried(whole("/")), "tmpfs": tried(mounts::detached(&tmpfs, 0)) })
}

fn mappable(detached: &OwnedFd) -> Option<bool> {
    let map = [IdMapping { container_id: 0, host_id: 1, size: 1 }];
    let procfs = ProcFs::open().ok()?;
    let namespace = idmap::namespace_for(&map, &map, &procfs).ok()?;
    Some(mounts::map_ids(detached, &namespace, false).is_ok())
}

/// The types that the kernel has now; more may come with modules.
fn filesystems() -> Option<Vec<String>> {
    let list = text("/proc/filesystems")?;
    Some(list.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect())
}

/// Where a program is that would be run.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let runs =
        |file: &PathBuf| std::fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(runs)
}
