//! The layers of docs/design.md, read off the sources: `sys` <- the areas' doing-files <- `launch` <- `commands` <- `main`, and plans that
//! perform no system call.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

/// A file below src/, without its comments and its unit tests.
struct Source {
    /// Its path below src/.
    path: String,
    code: String,
}

impl Source {
    fn is_below(&self, directories: &[&str]) -> bool {
        directories.iter().any(|directory| self.path == *directory || self.path.starts_with(&format!("{directory}/")))
    }

    fn is_plan(&self) -> bool {
        self.path.ends_with("/plan.rs") && !self.is_below(&["commands"]) || self.is_below(&["plan"])
    }

    /// The lines that contain one of the words.
    fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let lines = self.code.lines().filter(|line| words.iter().any(|word| line.contains(word)));
        lines.map(|line| format!("src/{}: {}", self.path, line.trim())).collect()
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    assert!(found.len() > 50, "only {} sources found", found.len());
    found
}

fn collect(directory: &Path, prefix: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), found);
        } else if path.ends_with(".rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(entry.path()).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap();
            let code: Vec<&str> = shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            found.push(Source { path, code: code.join("\n") });
        }
    }
}

fn nothing(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// The items of `crate::sys` that a file names, with their modules: `use` lists are spelled out.
fn sys_items(code: &str) -> Vec<String> {
    let mut items = Vec::new();
    for statement in code.split(';') {
        let Some((_, path)) = statement.split_once("crate::sys::") else { continue };
        match path.split_once('{') {
            Some((module, list)) => {
                let list = list.trim_end().trim_end_matches('}');
                items.extend(list.split(',').map(|item| format!("{module}{}", item.trim())).filter(|item| item != module));
            }
            None => items.push(path.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect()),
        }
    }
    items
}

/// Types and constants of `sys`, which are data.
const SYS_DATA: &[&str] = &["tty::Size", "mount::attr", "process::Limit", "process::SchedAttr"];

#[test]
fn plans_call_nothing() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.is_plan() || source.path.ends_with("/steps.rs")) {
        let calls = sys_items(&source.code).into_iter().filter(|item| !SYS_DATA.contains(&item.as_str()));
        found.extend(calls.map(|item| format!("src/{}: crate::sys::{item}", source.path)));
        found.extend(source.lines_with(&[
            "std::fs",
            "std::process",
            "std::env",
            "std::net",
            "std::io",
            "libc::syscall",
            "procfs::",
        ]));
    }
    nothing(&found, "a plan is made without a system call");
}

#[test]
fn the_search_sees_what_is_named() {
    let code = "use crate::sys::{fs, mount::attr};\nlet x = crate::sys::tty::open(3);";
    assert_eq!(sys_items(code), ["fs", "mount::attr", "tty::open"]);
}

/// The entry point is an exception: the C library finds it by its name, and what it is handed are the C library's arguments.
#[test]
fn unsafe_code_is_in_sys_only() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code", "extern \"C\""];
    for source in sources().iter().filter(|source| !source.is_below(&["sys", "start.rs"])) {
        let words = if source.is_below(&["main.rs"]) { &words[..3] } else { &words };
        nothing(&source.lines_with(words), "unsafe code outside of src/sys and what comes before main");
    }
}

/// The areas, and what all of them stand on.
const BELOW_LAUNCH: &[&str] = &[
    "cgroups",
    "child.rs",
    "criu",
    "error.rs",
    "hints.rs",
    "hooks.rs",
    "host",
    "id.rs",
    "log.rs",
    "lsm",
    "namespaces",
    "passwd.rs",
    "process",
    "procfs.rs",
    "rootfs",
    "seccomp",
    "spec",
    "state",
    "sys",
    "time.rs",
];

#[test]
fn areas_know_neither_launch_nor_commands() {
    for source in sources().iter().filter(|source| source.is_below(BELOW_LAUNCH)) {
        nothing(&source.lines_with(&["crate::launch", "crate::commands"]), "an area does not know who uses it");
    }
}

/// The messages are part of a plan: the conversation is planned.
#[test]
fn plans_know_only_the_messages_of_launch() {
    for source in sources().iter().filter(|source| source.is_below(&["plan"])) {
        let lines = source.lines_with(&["crate::launch", "crate::commands", "crate::log"]);
        let others: Vec<String> = lines.into_iter().filter(|line| !line.contains("crate::launch::protocol::")).collect();
        nothing(&others, "a plan knows of launch only what is said");
    }
}

#[test]
fn launch_and_state_do_not_know_commands() {
    for source in sources().iter().filter(|source| !source.is_below(&["commands", "main.rs"])) {
        nothing(&source.lines_with(&["crate::commands"]), "commands are for main only");
    }
}

#[test]
fn sys_knows_nothing_of_the_crate() {
    for source in sources().iter().filter(|source| source.is_below(&["sys"])) {
        let lines = source.lines_with(&["crate::"]);
        let others: Vec<String> = lines.into_iter().filter(|line| !line.contains("crate::sys")).collect();
        nothing(&others, "sys stands on nothing");
    }
}

/// Each way to print or to end has its place: the printer, the log, the terminal proxy, and the processes that become something else.
#[test]
fn printing_and_ending_have_their_places() {
    let rules: &[(&[&str], &[&str])] = &[
        (&["println!", "eprintln!", "print!(", "dbg!("], &[]),
        (&["std::process::exit", "process::abort"], &[]),
        (&["stderr()"], &["log.rs", "process/user.rs"]),
        (&["stdout()"], &["commands/mod.rs", "launch/supervise.rs", "process/user.rs"]),
        (
            &["exit_now("],
            &[
                "sys",
                "criu/client.rs",
                "hooks.rs",
                "launch/hot.rs",
                "launch/init.rs",
                "launch/bridge.rs",
                "launch/rehearsal.rs",
                "launch/wait.rs",
                "namespaces/idmap.rs",
                "seccomp/notify.rs",
            ],
        ),
        (&["panic!(", "todo!(", "unimplemented!(", ".unwrap()"], &[]),
    ];
    for (words, places) in rules {
        for source in sources().iter().filter(|source| !source.is_below(places)) {
            nothing(&source.lines_with(words), &format!("{words:?} belong to {places:?}"));
        }
    }
}

/// Every area has the same shape: who learned one folder knows all.
#[test]
fn areas_have_a_plan() {
    let sources = sources();
    for area in ["cgroups", "criu", "namespaces", "process", "rootfs", "seccomp"] {
        assert!(sources.iter().any(|source| source.path == format!("{area}/plan.rs")), "{area} has no plan.rs");
    }
}
