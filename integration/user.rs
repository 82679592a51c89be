//! Running the suite once more as an ordinary user, for root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const USER: &str = "rttest";

/// Starts this binary again as `rttest`, with an environment of its own, and returns its exit status.
pub fn rerun_as_user(arguments: &[String]) -> i32 {
    ensure_user();
    let (uid, gid) = ids();
    let home = std::env::temp_dir().join(format!("rt-integration-user-{}", std::process::id()));
    make_private(&home.join("run"), uid, gid);
    let itself = copy(&std::env::current_exe().unwrap(), &home.join("integration"));
    let runtime = copy(&crate::ctx::runtime_path(), &home.join("runtime"));
    let status = Command::new(itself)
        .args(arguments.iter().filter(|a| *a != "--user"))
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", &home)
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("RT", runtime)
        .envs(
            ["RT_NO_EXCUSES", "RT_CASES", "RT_SEED", "RT_SLOWNESS"]
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .current_dir("/")
        .uid(uid)
        .gid(gid)
        .status()
        .unwrap();
    fs::remove_dir_all(&home).unwrap();
    status.code().unwrap_or(1)
}

/// Creates the user, and gives it a range of subordinate ids, where they are missing.
fn ensure_user() {
    if !fs::read_to_string("/etc/passwd").unwrap().contains(&format!("{USER}:")) {
        run("useradd", &["--create-home", "--shell", "/bin/sh", USER]);
    }
    for (file, flag) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        if !fs::read_to_string(file).unwrap_or_default().contains(&format!("{USER}:")) {
            run("usermod", &[flag, "500000-565535", USER]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

fn ids() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with(&format!("{USER}:"))).unwrap();
    let mut numbers = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn make_private(dir: &Path, uid: u32, gid: u32) {
    fs::create_dir_all(dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    chown(dir, Some(uid), Some(gid)).unwrap();
}

/// A copy that the user can reach, wherever the original lies.
fn copy(from: &Path, to: &Path) -> std::path::PathBuf {
    fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    to.to_path_buf()
}
