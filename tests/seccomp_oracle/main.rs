//! Our seccomp programs against libseccomp's: the same action for every call that is tried.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "tests"
)]

mod machine;
mod newer;
mod oracle;
mod profiles;
mod random;

use std::time::Instant;

use machine::{Call, Program};
use oracle::{Dice, calls, differences, export, possible};
use rt::plan::Findings;
use rt::seccomp::arch::{ARCHES, SUBCALLS, X32_BIT};
use rt::seccomp::compile::{Compiled, Options, Policy, Refusal, compile};
use rt::seccomp::{plan, table};
use rt::spec::{Field, Seccomp};
use rt::sys::libseccomp::{resolve_name, resolve_number, version};

/// The policy of a profile that has no problems.
pub fn policy(profile: &Seccomp) -> Policy<'_> {
    let mut findings = Findings::default();
    let policy = plan::policy(profile, &Field::new("linux.seccomp"), &mut findings);
    assert_eq!(findings, Findings::default());
    policy.unwrap()
}

/// The program without the `ENOSYS` for newer calls, which libseccomp does not do.
pub fn ours(policy: &Policy<'_>) -> Result<Compiled, Refusal> {
    compile(policy, Options { enosys: false })
}

/// A profile without the system calls that are newer than the library (and no more than those: names that nobody knows stay).
fn known_to_library(profile: &Seccomp) -> Seccomp {
    let _one = oracle::library();
    let mut profile = profile.clone();
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| resolve_name(0, name).is_some() || table::find(name).is_none());
    }
    profile
}

fn assert_same(name: &str, profile: &Seccomp) {
    let profile = known_to_library(profile);
    let policy = policy(&profile);
    let (ours, theirs) = (ours(&policy).unwrap().program, export(&policy).unwrap());
    let calls = calls(&policy, 400, &mut Dice(0x9e37_79b9));
    println!("{name}: {} instructions, libseccomp {}, {} calls", ours.len(), theirs.len(), calls.len());
    let differences = differences(&ours, &theirs, &calls);
    assert!(differences.is_empty(), "{name}: {:x?}", differences[0]);
    // And what both say is what the profile says.
    let ours = Program::new(&ours);
    for call in &calls {
        assert!(possible(&policy, call).contains(&ours.run(call).0), "{name}: {call:x?}");
    }
}

#[test]
fn docker_is_the_same() {
    if let Some(profile) = profiles::docker() {
        assert_same("docker", &profile);
    }
}

#[test]
fn written_profiles_are_the_same() {
    for (name, profile) in profiles::of_others().into_iter().chain(profiles::written()).chain(profiles::ordered()) {
        assert_same(name, &profile);
    }
}

/// What libseccomp 2.5 had wrong and 2.6 has not.
const CORRECTED: &[(&str, &str)] = &[("_llseek", "SCMP_ARCH_PARISC64")];

#[test]
fn table_agrees_with_libseccomp() {
    let _one = oracle::library();
    let mut compared = 0;
    for arch in ARCHES.iter().filter(|arch| resolve_name(arch.token, "read").is_some()) {
        for row in &table::TABLE {
            let subcall = arch.multiplexed && SUBCALLS.iter().any(|entry| entry.0 == row.name());
            let theirs = resolve_name(arch.token, row.name()).and_then(|number| u32::try_from(number).ok());
            match (theirs, arch.number(row)) {
                (Some(theirs), ours) => {
                    assert!(
                        Some(theirs) == ours || CORRECTED.contains(&(row.name(), arch.name)),
                        "{} on {}",
                        row.name(),
                        arch.name
                    );
                    compared += 1;
                }
                (None, Some(ours)) if subcall => {
                    // A direct call shows up only by its number.
                    let name = resolve_number(arch.token, i32::try_from(ours).unwrap());
                    assert!(name.is_none_or(|name| name == row.name()), "{} on {}", row.name(), arch.name);
                    compared += 1;
                }
                (None, _) => {} // newer than the library
            }
        }
        for number in (arch.base..arch.base + 700).chain(0xf_0000..0xf_0010) {
            let Some(name) = resolve_number(arch.token, i32::try_from(number).unwrap()) else { continue };
            let row = table::find(&name).unwrap_or_else(|| panic!("{name} is not in the table"));
            let same = arch.number(row) == Some(number);
            assert!(same || CORRECTED.contains(&(row.name(), arch.name)), "{name} on {}", arch.name);
        }
    }
    println!("{compared} entries compared with libseccomp {}", version());
    assert!(compared > 5000);
}

/// Average and worst number of instructions over the calls of an architecture.
fn cost(program: &Program, calls: &[Call]) -> (f64, usize) {
    let steps: Vec<usize> = calls.iter().map(|call| program.run(call).1).collect();
    (steps.iter().sum::<usize>() as f64 / steps.len() as f64, steps.into_iter().max().unwrap())
}

#[test]
fn no_more_instructions_than_libseccomp() {
    let docker = profiles::docker().map(|profile| ("packaged", profile));
    let in_use: Vec<_> = docker.into_iter().chain(profiles::of_others()).collect();
    let count = in_use.len();
    for (place, (name, profile)) in in_use.into_iter().chain(profiles::written()).enumerate() {
        let policy = policy(&profile);
        let (ours, theirs) = (Program::new(&ours(&policy).unwrap().program), Program::new(&export(&policy).unwrap()));
        for arch in &policy.arches {
            let base = if arch.base == X32_BIT { X32_BIT } else { arch.base };
            let calls: Vec<Call> =
                calls(&policy, 50, &mut Dice(77)).into_iter().filter(|call| call.audit == arch.audit).collect();
            let calls: Vec<Call> = calls.into_iter().filter(|call| (base..base + 460).contains(&call.number)).collect();
            let (ours, theirs) = (cost(&ours, &calls), cost(&theirs, &calls));
            println!(
                "{name}, {}: {:.1} on average, worst {}; libseccomp {:.1}, {}",
                arch.name, ours.0, ours.1, theirs.0, theirs.1
            );
            // Elsewhere than in the profiles that are in use, one more in the worst case may be the price of a better average.
            let spare = usize::from(place >= count);
            assert!(ours.0 <= theirs.0 && ours.1 <= theirs.1 + spare, "{name}, {}", arch.name);
        }
    }
}

/// Three of libseccomp's flaws (see the text of the module `seccomp`): ours have to be right; what it does is printed.
#[test]
fn flaws_are_not_copied() {
    let condition = |index: u32, op: &str, value: u64| serde_json::json!({ "index": index, "op": op, "value": value });
    let shared = [
        vec![condition(0, "SCMP_CMP_GT", 5), condition(1, "SCMP_CMP_EQ", 1)],
        vec![condition(0, "SCMP_CMP_GT", 10), condition(1, "SCMP_CMP_EQ", 2)],
    ];
    let accumulator = [vec![condition(2, "SCMP_CMP_LT", 1 << 32)], vec![condition(2, "SCMP_CMP_LT", 0)]];
    let opposite = [vec![condition(2, "SCMP_CMP_EQ", 0)], vec![condition(0, "SCMP_CMP_EQ", 1), condition(2, "SCMP_CMP_NE", 0)]];
    let (allow, eperm) = (0x7fff_0000, 0x0005_0001);
    let cases = [
        ("shared", shared, [7, 2, 0, 0, 0, 0], allow),
        ("accumulator", accumulator, [0, 0, 1, 0, 0, 0], eperm),
        ("opposite", opposite, [1, 0, 1, 0, 0, 0], eperm),
    ];
    for (name, rules, args, right) in cases {
        let rules = rules.map(|args| serde_json::json!({ "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": args }));
        let profile = profiles::parse(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
        let policy = policy(&profile);
        let number = policy.arches[0].number(table::find("ioctl").unwrap()).unwrap();
        let call = Call { number, audit: policy.arches[0].audit, args };
        let theirs = export(&policy).map(|theirs| Program::new(&theirs).run(&call).0);
        println!("{name}: {right:#x} is right, libseccomp {}: {theirs:x?}", version());
        assert_eq!(Program::new(&ours(&policy).unwrap().program).run(&call).0, right, "{name}");
    }
}

#[test]
#[ignore = "prints a time: run it with --release --ignored --nocapture"]
fn time() {
    let Some(profile) = profiles::docker() else { return };
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..200 {
        let start = Instant::now();
        let mut findings = Findings::default();
        let filter = plan::plan(&profile, &Field::new("linux.seccomp"), &mut findings).unwrap();
        let us = start.elapsed().as_secs_f64() * 1e6;
        best.0 = best.0.min(us);
        std::hint::black_box(filter);
    }
    for _ in 0..5 {
        let start = Instant::now();
        std::hint::black_box(export(&policy(&profile)).unwrap());
        best.1 = best.1.min(start.elapsed().as_secs_f64() * 1e6);
    }
    println!("best of 200: {:.0} us; libseccomp, best of 5: {:.0} us", best.0, best.1);
}
