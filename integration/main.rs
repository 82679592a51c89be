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

mod annotations;
mod cgroups;
mod check;
mod checkpoint;
mod compared;
mod config;
mod contracts;
mod crash;
mod criu;
mod ctx;
mod delegation;
mod effects;
mod events;
mod exec;
mod features;
mod fields;
mod frozen;
mod generate;
mod hierarchy;
mod hooks;
mod hostile;
mod hot;
mod idmap;
mod init;
mod joining;
mod kernel;
mod leftovers;
mod lenient;
mod lifecycle;
mod limits;
mod list;
mod log;
mod lsm;
mod namespaces;
mod netdev;
mod numa;
mod options;
mod process;
mod resources;
mod rootfs;
mod rootless;
mod run;
mod runner;
mod seccomp;
mod security;
mod stress;
mod subgroups;
mod subtree;
mod supersets;
mod systemd;
mod terminal;
mod texts;
mod unified;
mod update;
mod user;
mod words;

const ALL: &[&[runner::Test]] = &[
    lifecycle::TESTS,
    run::TESTS,
    exec::TESTS,
    events::TESTS,
    namespaces::TESTS,
    netdev::TESTS,
    rootfs::TESTS,
    compared::TESTS,
    idmap::TESTS,
    init::TESTS,
    options::TESTS,
    process::TESTS,
    fields::TESTS,
    frozen::TESTS,
    lenient::TESTS,
    numa::TESTS,
    seccomp::TESTS,
    words::TESTS,
    terminal::TESTS,
    hooks::TESTS,
    annotations::TESTS,
    hot::TESTS,
    cgroups::TESTS,
    resources::TESTS,
    effects::TESTS,
    update::TESTS,
    leftovers::TESTS,
    limits::TESTS,
    checkpoint::TESTS,
    criu::TESTS,
    rootless::TESTS,
    delegation::TESTS,
    list::TESTS,
    log::TESTS,
    check::TESTS,
    features::TESTS,
    contracts::TESTS,
    texts::TESTS,
    supersets::TESTS,
    security::TESTS,
    hostile::TESTS,
    crash::TESTS,
    stress::TESTS,
    subgroups::TESTS,
    systemd::TESTS,
    subtree::TESTS,
    unified::TESTS,
    lsm::TESTS,
    joining::TESTS,
    kernel::TESTS,
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
