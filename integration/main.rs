//! The integration suite: real containers, observed from inside and from the kernel's side.
//!
//! It is a black box test of any OCI runtime binary. `RT` names the binary (default: `bin/rt`). Arguments are
//! substrings of the tests to run; `--list` names them; `--user`, as root, runs the suite as an ordinary user.
//! Helpers: `ctx` (bundles, containers, commands), `config` (the default config.json), `runner` (the table and its loop).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "tests fail by panicking and speak on stdout"
)]

/// Declares the tests of a file: who may run them, then their names. `Both` means root as well as an ordinary user.
macro_rules! tests {
    ($($who:ident { $($name:ident),* $(,)? })*) => {
        pub const TESTS: &[crate::runner::Test] = &[$($(
            crate::runner::Test { module: module_path!(), name: stringify!($name), who: crate::runner::Who::$who, body: $name },
        )*)*];
    };
}

/// Leaves the test as skipped when the runtime under test is another one, whose known deviation is the reason.
macro_rules! needs_rt {
    ($ctx:expr, $why:expr) => {
        if !$ctx.is_rt() {
            return crate::runner::Outcome::Skip(format!("peer: {}", $why));
        }
    };
}

mod cgroups;
mod config;
mod contracts;
mod crash;
mod ctx;
mod events;
mod exec;
mod hooks;
mod idmap;
mod lifecycle;
mod list;
mod namespaces;
mod netdev;
mod numa;
mod options;
mod process;
mod rootfs;
mod rootless;
mod run;
mod runner;
mod seccomp;
mod security;
mod stress;
mod systemd;
mod terminal;
mod user;

const ALL: &[&[runner::Test]] = &[
    lifecycle::TESTS,
    run::TESTS,
    exec::TESTS,
    events::TESTS,
    namespaces::TESTS,
    netdev::TESTS,
    rootfs::TESTS,
    idmap::TESTS,
    options::TESTS,
    process::TESTS,
    numa::TESTS,
    seccomp::TESTS,
    terminal::TESTS,
    hooks::TESTS,
    cgroups::TESTS,
    rootless::TESTS,
    list::TESTS,
    contracts::TESTS,
    security::TESTS,
    crash::TESTS,
    stress::TESTS,
    systemd::TESTS,
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--user") {
        std::process::exit(user::rerun_as_user(&arguments));
    }
    let (flags, filters): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|a| a.starts_with("--"));
    let tests = runner::select(ALL, &filters);
    if flags.iter().any(|f| *f == "--list") {
        tests.iter().for_each(|test| println!("{}", test.title()));
        return;
    }
    std::process::exit(runner::run(&tests));
}
