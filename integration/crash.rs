//! Death and faults in the middle of `create`: whatever has been done by then is found and taken back by `delete --force`.
//!
//! strace kills the launcher on its way into one of its system calls, or makes that call fail. The calls are spread evenly over the
//! whole command, from a random offset that a failure prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::config;
use crate::ctx::{Container, Ctx, Output, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        a_killed_create_can_be_deleted,
        a_killed_create_with_a_cgroup_path_can_be_deleted,
        a_killed_start_can_be_deleted,
        a_killed_delete_can_be_repeated,
        a_failing_call_is_reported_and_leaves_nothing,
        a_signal_at_any_call_leaves_nothing,
    }
}

/// How many deaths a test tries, beside the calls where something begins or ends.
const DEATHS: usize = 40;
const FAULTS: usize = 60;
/// The exit status of strace when its command was killed.
const KILLED: i32 = 128 + libc::SIGKILL;

/// Calls of the C library's and of Rust's start, whose failure is theirs to handle; and two that cannot fail usefully.
const NOT_OURS: &[&str] = &[
    "arch_prctl",
    "brk",
    "close",
    "execve",
    "exit_group",
    "fcntl",
    "getrandom",
    "gettid",
    "mmap",
    "mprotect",
    "munmap",
    "rseq",
    "rt_sigaction",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
];

pub(crate) fn has_strace() -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join("strace").exists())
}

macro_rules! needs_strace {
    ($ctx:expr) => {
        needs_rt!($ctx, "no promise about a death in the middle");
        if !has_strace() {
            return Skip("strace is not installed".to_owned());
        }
    };
}
pub(crate) use needs_strace;

/// A verb with the launcher under strace.
fn traced(container: &Container, ctx: &Ctx, strace: &[&str], verb: &[&str]) -> Output {
    let root = ctx.path("state");
    let mut argv = vec!["strace"];
    argv.extend(strace);
    argv.extend([ctx.runtime().to_str().unwrap(), "--root", &root]);
    argv.extend(verb);
    argv.push(&container.id);
    ctx.command(&argv).run()
}

fn create(container: &Container) -> Vec<String> {
    ["create", "--bundle", container.bundle.path()].map(str::to_owned).to_vec()
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// The calls of a command that succeeds: one line each.
fn calls(container: &Container, ctx: &Ctx, verb: &[&str]) -> Vec<String> {
    let log = ctx.path(&ctx.fresh("strace"));
    traced(container, ctx, &["-o", &log], verb).ok();
    read(log.as_ref()).lines().filter(|line| line.contains('(') && !line.starts_with(['+', '-'])).map(str::to_owned).collect()
}

/// Numbers from 1 to `count`, evenly, with a random offset.
fn spread(count: usize, samples: usize) -> BTreeSet<usize> {
    let step = (count / samples).max(1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    (1 + now as usize % step..=count).step_by(step).collect()
}

/// The evenly spread numbers, and those of the calls where something begins to exist, with the one after.
fn deaths(calls: &[String]) -> BTreeSet<usize> {
    let begins = ["clone3(", "execveat(", "renameat(", "mknodat(", "open_tree(", "sendmsg("];
    let special = calls.iter().enumerate().filter(|(_, line)| begins.iter().any(|call| line.starts_with(call)));
    let mut numbers: BTreeSet<usize> = special.flat_map(|(index, _)| [index + 1, index + 2]).collect();
    numbers.extend(spread(calls.len(), DEATHS));
    numbers.retain(|number| (2..=calls.len()).contains(number));
    numbers
}

/// A call as strace counts it: its name, and which one of this name it is.
fn counted(calls: &[String], number: usize) -> (String, usize) {
    let name = |line: &String| line.split('(').next().unwrap_or_default().to_owned();
    let of = name(&calls[number - 1]);
    let nth = calls[..number].iter().filter(|line| name(line) == of).count();
    (of, nth)
}

/// Kills on the way into a call: it is not carried out any more.
fn kill_at(calls: &[String], number: usize) -> [String; 4] {
    let (name, nth) = counted(calls, number);
    ["-o", "/dev/null", "-e", &format!("inject={name}:signal=KILL:when={nth}")].map(str::to_owned)
}

/// What the container has on the machine, but for its processes that are just dying of their launcher's death.
fn left_over(ctx: &Ctx, id: &str, bundle: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if ctx.state_root().join(id).exists() {
        found.push(format!("state of {id}"));
    }
    found.extend(groups(Path::new("/sys/fs/cgroup"), id, 5).into_iter().map(|path| path.display().to_string()));
    let mounts = read("/proc/self/mountinfo".as_ref());
    found.extend(mounts.lines().filter(|line| line.contains(id) || line.contains(bundle.to_str().unwrap())).map(str::to_owned));
    found.extend(processes("cgroup", id));
    found
}

/// Directories of this name.
fn groups(directory: &Path, name: &str, depth: usize) -> Vec<PathBuf> {
    let Some(depth) = depth.checked_sub(1) else { return Vec::new() };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    let below =
        |path: PathBuf| if path.file_name().is_some_and(|found| found == name) { vec![path] } else { groups(&path, name, depth) };
    directories.flat_map(below).collect()
}

/// Living processes with the id in this file: their groups, or their arguments, which init has from the launcher. A dead init is for
/// the machine's first process to reap, which some take their time for.
fn processes(file: &str, id: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let alive =
        |path: &PathBuf| read(&path.join("status")).lines().any(|line| line.starts_with("State:") && !line.contains(['Z', 'X']));
    pids.filter(|path| read(&path.join(file)).contains(id))
        .filter(alive)
        .map(|path| format!("{} ({file})", path.display()))
        .collect()
}

/// `delete --force` leaves nothing, and the id is as good as new.
fn assert_deletable(ctx: &Ctx, container: &mut Container, when: &str) {
    let deleted = ctx.rt(&["delete", "--force", &container.id]);
    assert!(deleted.code == 0, "{when}: {deleted}");
    assert_eq!(left_over(ctx, &container.id, &container.bundle.dir), [""; 0], "{when}");
    let deadline = Instant::now() + Duration::from_secs(2);
    while !processes("cmdline", &container.id).is_empty() {
        assert!(Instant::now() < deadline, "{when}: {:?}", processes("cmdline", &container.id));
        std::thread::sleep(Duration::from_millis(2));
    }
    let again = container.create();
    assert!(again.code == 0, "create after it, {when}: {again}");
    ctx.rt(&["delete", "--force", &container.id]).ok();
}

fn killed_creates(ctx: &Ctx, mut container: Container) -> Outcome {
    let verb = create(&container);
    let calls = calls(&container, ctx, &words(&verb));
    ctx.rt(&["delete", "--force", &container.id]).ok();
    let numbers = deaths(&calls);
    let mut died = 0;
    for number in &numbers {
        let output = traced(&container, ctx, &words(&kill_at(&calls, *number)), &words(&verb));
        died += usize::from(output.code == KILLED);
        let call = &calls[number - 1];
        assert_deletable(ctx, &mut container, &format!("killed at call {number} of {}: {call}", calls.len()));
    }
    // The number of calls differs a little from time to time.
    assert!(died + 3 >= numbers.len(), "only {died} of {} were killed", numbers.len());
    Pass
}

fn a_killed_create_can_be_deleted(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    killed_creates(ctx, ctx.container(ctx.bundle(|_| {})))
}

fn a_killed_create_with_a_cgroup_path_can_be_deleted(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    let parent = ctx.fresh("rt-crash");
    let bundle = ctx.bundle(|c| c["linux"]["resources"]["pids"]["limit"] = json!(100));
    let container = ctx.container(bundle);
    container.bundle.edit(|c| c["linux"]["cgroupsPath"] = json!(format!("/{parent}/{}", container.id)));
    killed_creates(ctx, container);
    assert_eq!(groups(Path::new("/sys/fs/cgroup"), &parent, 3), Vec::<PathBuf>::new(), "the parent was made with it");
    Pass
}

fn a_killed_start_can_be_deleted(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    let mut container = ctx.create(|_| {});
    let calls = calls(&container, ctx, &["start"]);
    ctx.rt(&["delete", "--force", &container.id]).ok();
    for number in spread(calls.len(), 15) {
        container.create().ok();
        traced(&container, ctx, &words(&kill_at(&calls, number)), &["start"]);
        assert_deletable(ctx, &mut container, &format!("start was killed at call {number}: {}", calls[number - 1]));
    }
    Pass
}

fn a_killed_delete_can_be_repeated(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    let mut container = ctx.running(|_| {});
    let calls = calls(&container, ctx, &["delete", "--force"]);
    for number in spread(calls.len(), 30) {
        container.create().ok();
        traced(&container, ctx, &words(&kill_at(&calls, number)), &["delete", "--force"]);
        assert_deletable(ctx, &mut container, &format!("delete was killed at call {number}: {}", calls[number - 1]));
    }
    Pass
}

/// Calls to be made to fail: the number, the name, and which one of this name it is.
fn faults(calls: &[String]) -> Vec<(usize, String, usize)> {
    let ours = |(_, of, _): &(usize, String, usize)| !NOT_OURS.contains(&of.as_str());
    let all = (1..=calls.len()).map(|number| {
        let (name, nth) = counted(calls, number);
        (number, name, nth)
    });
    let numbers: Vec<_> = all.filter(ours).collect();
    spread(numbers.len(), FAULTS).into_iter().map(|index| numbers[index - 1].clone()).collect()
}

fn a_failing_call_is_reported_and_leaves_nothing(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    let mut container = ctx.container(ctx.bundle(|c| config::capabilities(c, &["CAP_CHOWN"])));
    let verb = create(&container);
    let calls = calls(&container, ctx, &words(&verb));
    ctx.rt(&["delete", "--force", &container.id]).ok();
    let faults = faults(&calls);
    ctx.may_take(u32::try_from(faults.len()).unwrap(), Duration::from_millis(500));
    let mut failed = 0;
    for (index, (number, name, nth)) in faults.iter().enumerate() {
        let errno = ["EIO", "ENOMEM"][index % 2];
        let inject = format!("inject={name}:error={errno}:when={nth}");
        let output = traced(&container, ctx, &["-o", "/dev/null", "-e", &inject], &words(&verb));
        let when = format!("{inject}, call {number}: {}", calls[number - 1]);
        // A fault that does not matter is fine; what is not fine is a bad end without a word, or with something left.
        if output.code != 0 {
            failed += 1;
            assert!(output.code == 1 && output.stderr.starts_with("rt: "), "{when}: {output}");
            // A fault in taking back is said, and delete can try again.
            let left = left_over(ctx, &container.id, &container.bundle.dir);
            assert!(left.is_empty() || output.stderr.contains("   also: "), "{when}: {left:?}: {output}");
        }
        assert_deletable(ctx, &mut container, &when);
    }
    assert!(failed * 2 > faults.len(), "only {failed} of {} faults had an effect", faults.len());
    Pass
}

/// Somebody interrupts create: there is a container, or nothing of one.
fn a_signal_at_any_call_leaves_nothing(ctx: &Ctx) -> Outcome {
    needs_strace!(ctx);
    let container = ctx.container(ctx.bundle(|_| {}));
    let verb = create(&container);
    let calls = calls(&container, ctx, &words(&verb));
    ctx.rt(&["delete", "--force", &container.id]).ok();
    // Where the state begins to exist, and everywhere.
    let mut numbers = spread(calls.len(), DEATHS);
    let begins = calls.iter().position(|line| line.starts_with("mkdirat(") && line.contains(&container.id)).unwrap();
    numbers.extend(begins..begins + 8);
    for number in numbers {
        let (name, nth) = counted(&calls, number);
        let inject = format!("inject={name}:signal=TERM:when={nth}");
        let output = traced(&container, ctx, &["-o", "/dev/null", "-e", &inject], &words(&verb));
        let left = left_over(ctx, &container.id, &container.bundle.dir);
        // At its very end create may have done its work already.
        assert!(left.is_empty() || output.code == 0, "{inject}, call {number}: {}: {left:?}: {output}", calls[number - 1]);
        ctx.rt(&["delete", "--force", &container.id]).ok();
    }
    Pass
}
