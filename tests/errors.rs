//! Broken bundles and what is said about them: tests/errors/NAME/config.json is run by the real binary, and standard error must be
//! tests/errors/NAME/expected to the letter. After a failure nothing may be left: no state, no control group, no mount. Beside a
//! config.json there may be a mounts.json, which `rt mounts add` gets for a container of it, or a file `user`: an ordinary user runs it.
//!
//! `UPDATE_GOLDEN=1 cargo test --test errors` writes the texts anew; read each as its user would. `RT` names another binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::exit, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Errors that the kernel finds when the container is made: they need root, and a root filesystem.
const BY_KERNEL: &[&str] = &[
    "bad-tmpfs-option",
    "deadline-without-policy",
    "device-is-a-folder",
    "impossible-cpuset",
    "missing-bind-source",
    "missing-hook",
    "missing-netns-path",
    "missing-program",
    "newer-version",
    "other-platforms",
    "paths-without-mount-namespace",
    "terminal-that-is-denied",
    "unknown-annotation",
    "unknown-capability",
    "unknown-filesystem",
];

/// What is a warning: the program runs.
const WARNINGS: &[&str] = &[
    "deadline-without-policy",
    "newer-version",
    "other-platforms",
    "paths-without-mount-namespace",
    "unknown-annotation",
    "unknown-capability",
];

const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox"];

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let entries = fs::read_dir(&directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.retain(|name| filters.is_empty() || filters.iter().any(|filter| name.contains(filter)));
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for name in names {
        let special = ["mounts.json", "user"].iter().any(|file| directory.join(&name).join(file).exists());
        if let Some(why) = (special || BY_KERNEL.contains(&name.as_str())).then(cannot_run).flatten() {
            println!("skipped: {why}: {name}");
            skipped += 1;
            continue;
        }
        match check(&directory.join(&name), &name) {
            Ok(()) => {
                println!("ok       {name}");
                passed += 1;
            }
            Err(why) => {
                println!("FAILED   {name}\n{why}");
                failed += 1;
            }
        }
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    std::process::exit(i32::from(failed > 0));
}

fn cannot_run() -> Option<&'static str> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("needs root");
    }
    BUSYBOX.iter().all(|path| !Path::new(path).exists()).then_some("no static busybox (package busybox-static)")
}

/// A folder that goes away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check(case: &Path, name: &str) -> Result<(), String> {
    let id = format!("errors-{}-{name}", std::process::id());
    let dir = Temporary(std::env::temp_dir().join(&id));
    let bundle = make_bundle(&dir.0.join("bundle"), &case.join("config.json"));
    let state = dir.0.join("state");
    if case.join("mounts.json").exists() {
        return check_mounts(case, &text(&bundle), &text(&state), &id, &dir.0);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let as_user = case.join("user").exists();
    if as_user {
        std::os::unix::fs::chown(&dir.0, Some(USER), Some(USER)).unwrap();
    }
    let who = if as_user { &SETPRIV[..] } else { &[] };
    let argv = who.iter().map(|word| (*word).to_owned());
    let argv = argv.chain([rt()]).chain(["--root", &text(&state), "run", "--bundle", &text(&bundle), &id].map(str::to_owned));
    let output = run_all(&argv.collect::<Vec<_>>());
    let said = neutral(&String::from_utf8_lossy(&output.stderr), &id, &dir.0);
    compare(&case.join("expected"), &said)?;
    let status = i32::from(!WARNINGS.contains(&name));
    equal("exit status", output.status.code(), Some(status))?;
    equal("standard output", String::from_utf8_lossy(&output.stdout).as_ref(), "")?;
    equal("state", fs::read_dir(&state).map_or(0, Iterator::count), 0)?;
    equal("control groups", groups_of(&id), Vec::<PathBuf>::new())?;
    equal("mounts", fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), mounts.lines().count())?;
    if !as_user && !BY_KERNEL.contains(&name) {
        // The same, without any effect: `rt plan` finds it, too.
        let planned = run(&["plan", "--id", &id, &text(&bundle)]);
        let planned = neutral(&String::from_utf8_lossy(&planned.stderr), &id, &dir.0).replace("rt: plan:", "rt: run ID:");
        equal("what rt plan says", planned.as_str(), said.as_str())?;
    }
    Ok(())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn equal<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(what: &str, found: T, expected: U) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn make_bundle(bundle: &Path, config: &Path) -> PathBuf {
    for directory in ["bin", "dev", "mnt", "proc", "tmp"] {
        fs::create_dir_all(bundle.join("rootfs").join(directory)).unwrap();
    }
    if let Some(busybox) = BUSYBOX.iter().find(|path| Path::new(path).exists()) {
        fs::copy(busybox, bundle.join("rootfs/bin/busybox")).unwrap();
        symlink("busybox", bundle.join("rootfs/bin/true")).unwrap();
    }
    fs::copy(config, bundle.join("config.json")).unwrap();
    bundle.to_owned()
}

/// Lists of mounts for a container that exists: it stays as it was.
fn check_mounts(case: &Path, bundle: &str, state: &str, id: &str, dir: &Path) -> Result<(), String> {
    // The container has standard output for as long as it lives: it is not ours.
    let mut create = Command::new(rt());
    create
        .args(["--root", state, "create", "--bundle", bundle, id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let made = create.status().unwrap();
    let list = text(&case.join("mounts.json"));
    let output = run(&["--root", state, "mounts", "add", id, &list]);
    let unchanged = run(&["--root", state, "state", id]);
    run(&["--root", state, "delete", "--force", id]);
    equal("the container is made", made.success(), true)?;
    compare(&case.join("expected"), &neutral(&String::from_utf8_lossy(&output.stderr), id, dir).replace(&list, "LIST"))?;
    equal("exit status", output.status.code(), Some(1))?;
    equal("the container is as it was", String::from_utf8_lossy(&unchanged.stdout).contains("\"created\""), true)?;
    equal("control groups", groups_of(id), Vec::<PathBuf>::new())
}

/// An ordinary user without subordinate ids, and the command that makes one of root.
const USER: u32 = 23456;
const SETPRIV: [&str; 5] = ["setpriv", "--reuid=23456", "--regid=23456", "--clear-groups", "--inh-caps=-all"];

fn rt() -> String {
    std::env::var("RT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_rt").to_owned())
}

/// Runs the binary, for at most ten seconds.
fn run(arguments: &[&str]) -> Output {
    run_all(&std::iter::once(rt()).chain(arguments.iter().map(|word| (*word).to_owned())).collect::<Vec<_>>())
}

fn run_all(arguments: &[String]) -> Output {
    Command::new("timeout").arg("10").args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The text without what differs from run to run and from machine to machine.
fn neutral(said: &str, id: &str, dir: &Path) -> String {
    let said = said.replace(&text(dir), "DIR");
    // Every feature moves the numbers of the steps; the golden plans show them.
    let said = replace_between(&said, ", step ", " (see", "N of M");
    let said = replace_between(&said, "fsconfig(", ",", "FD");
    let said = replace_between(&said, "write(\"/sys/fs/cgroup/", "/cpuset.cpus", "GROUP");
    said.replace(id, "ID")
}

/// Replaces what stands between two texts.
fn replace_between(said: &str, before: &str, after: &str, by: &str) -> String {
    let Some((start, rest)) = said.split_once(before) else { return said.to_owned() };
    let Some((_, end)) = rest.split_once(after) else { return said.to_owned() };
    format!("{start}{before}{by}{after}{end}")
}

fn compare(file: &Path, said: &str) -> Result<(), String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(file, said).unwrap();
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected == said { Ok(()) } else { Err(format!("expected: {expected}\nfound:    {said}")) }
}

/// Directories below the control group hierarchies with this name.
fn groups_of(id: &str) -> Vec<PathBuf> {
    let find = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", id]).output().unwrap();
    String::from_utf8_lossy(&find.stdout).lines().map(PathBuf::from).collect()
}
