//! Random profiles.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rt::seccomp::Bpf;
use rt::seccomp::arch::X32_BIT;
use rt::seccomp::compile::{Policy, Rule};
use rt::seccomp::condition::{Condition, Op};
use rt::spec::Seccomp;
use serde_json::{Value, json};

use crate::machine::{Call, Program};
use crate::oracle::{Dice, Difference, calls, differences, export, holds, names, possible};
use crate::{ours, policy, profiles};

const NAMES: &[&str] = &["personality", "clone", "ioctl", "read", "socket", "semop", "socketcall", "accept", "_llseek"];
const ACTIONS: &[&str] = &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"];
const VALUES: &[u64] =
    &[0, 1, 5, 6, 8, 0xff, 0x7e02_0000, 0x8000_0000, 0xffff_ffff, 1 << 32, (1 << 32) + 5, (7 << 32) + 1, u64::MAX];
const EQUAL: &[&str] = &["EQ", "MASKED_EQ"];
const ANY: &[&str] = &["EQ", "MASKED_EQ", "NE", "LT", "LE", "GE", "GT"];
const ARCHES: &[&str] = &["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_PPC64LE"];

fn condition(index: u32, ops: &'static [&'static str]) -> impl Strategy<Value = Value> {
    (prop::sample::select(ops), prop::sample::select(VALUES), prop::sample::select(VALUES)).prop_map(
        move |(op, value, two)| json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two }),
    )
}

/// Conditions on ascending arguments; all but the last with these operators.
fn conditions(first: &'static [&'static str], last: &'static [&'static str]) -> impl Strategy<Value = Vec<Value>> {
    prop::sample::subsequence(vec![0u32, 1, 2, 3], 0..=3).prop_flat_map(move |indices| {
        let count = indices.len();
        let one = |(at, index): (usize, u32)| condition(index, if at + 1 == count { last } else { first }).boxed();
        indices.into_iter().enumerate().map(one).collect::<Vec<_>>()
    })
}

fn profile(first: &'static [&'static str], last: &'static [&'static str], actions: usize) -> impl Strategy<Value = Seccomp> {
    let rule =
        (prop::sample::subsequence(NAMES.to_vec(), 1..=3), prop::sample::select(&ACTIONS[1..=actions]), conditions(first, last));
    let rule = rule.prop_map(|(names, action, args)| json!({ "names": names, "action": action, "args": args }));
    let rules = prop::collection::vec(rule, 1..10);
    let arches = prop::sample::subsequence(ARCHES.to_vec(), 0..=ARCHES.len());
    (rules, arches).prop_map(|(rules, arches)| {
        profiles::parse(json!({ "defaultAction": ACTIONS[0], "architectures": arches, "syscalls": rules }))
    })
}

/// Cases for a debug build; a release build has time for more.
/// The same profiles in every run, so that a change of the code and not of the dice fails a test; `ORACLE_SEED=N` looks elsewhere.
fn config(cases: u32) -> ProptestConfig {
    let seed = std::env::var("ORACLE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let cases = if cfg!(debug_assertions) { cases } else { cases * 10 };
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() }
}

/// The argument and the upper half that a rule's inequality is about.
fn inequality(rule: &Rule<'_>) -> Option<(u32, u64)> {
    let is_one = |condition: &&Condition| matches!(condition.op, Op::Lt | Op::Le | Op::Ge | Op::Gt);
    rule.alternatives.iter().flatten().find(is_one).map(|condition| (condition.index, condition.value >> 32))
}

/// The comparison of a condition, and what its outcome has to be: two operators may make the same one.
fn comparison(condition: &Condition) -> ((u32, u8, u64, u64), bool) {
    let (op, outcome) = match condition.op {
        Op::Eq | Op::MaskedEq => (0, true),
        Op::Ne => (0, false),
        Op::Gt => (1, true),
        Op::Le => (1, false),
        Op::Ge => (2, true),
        Op::Lt => (2, false),
    };
    ((condition.index, op, condition.mask, condition.value), outcome)
}

/// True if all that `general` compares is compared by `rule`, and one of it with the opposite outcome.
fn is_opposite(general: &Rule<'_>, rule: &Rule<'_>) -> bool {
    let all = |rule: &Rule<'_>| rule.alternatives.iter().flatten().map(comparison).collect::<Vec<_>>();
    let (general_all, rule_all) = (all(general), all(rule));
    let found = |(made, _): &((u32, u8, u64, u64), bool)| rule_all.iter().any(|other| other.0 == *made);
    let turned = |(made, outcome): &((u32, u8, u64, u64), bool)| rule_all.contains(&(*made, !outcome));
    general_all.iter().all(found) && general_all.iter().any(turned)
}

/// Libseccomp's two flaws by which it passes a rule over that holds (see the module's text): that of two inequalities on one argument
/// with different upper halves, on an architecture with arguments of 64 bits, and that of a comparison that two rules make with
/// opposite outcomes. True if one of the rules that hold is such a rule, and without it the answer is libseccomp's.
fn passed_over(policy: &Policy<'_>, difference: &Difference) -> bool {
    const WIDE: u32 = 0x8000_0000; // __AUDIT_ARCH_64BIT
    let call = &difference.call;
    let wide = call.audit & WIDE != 0 && call.number & X32_BIT == 0;
    let about: Vec<(usize, &Rule<'_>)> = policy.rules.iter().enumerate().filter(|(_, rule)| names(policy, rule, call)).collect();
    let has_other = |(index, upper): (u32, u64)| {
        about.iter().filter_map(|(_, rule)| inequality(rule)).any(|other| other.0 == index && other.1 != upper)
    };
    let answers = |at: usize| {
        let mut without = policy.clone();
        without.rules.remove(at);
        let answer = ours(&without).map(|compiled| Program::new(&compiled.program).run(call).0);
        answer == Ok(difference.theirs) && possible(&without, call).contains(&difference.theirs)
    };
    let is_suspect = |rule: &Rule<'_>| {
        wide && inequality(rule).is_some_and(has_other) || about.iter().any(|(_, other)| is_opposite(other, rule))
    };
    about.iter().any(|(at, rule)| holds(policy, rule, call) && is_suspect(rule) && answers(*at))
}

fn assert_like_libseccomp(profile: &Seccomp) -> Result<(), TestCaseError> {
    let policy = policy(profile);
    // What libseccomp refuses has no meaning to compare with.
    let Ok(theirs) = export(&policy) else { return Ok(()) };
    let ours = match ours(&policy) {
        Ok(compiled) => compiled.program,
        Err(refusal) => return Err(TestCaseError::fail(format!("refused only by us: {refusal}"))),
    };
    let calls = calls(&policy, 60, &mut Dice(0x1234_5678));
    assert_possible(&policy, &ours, &calls)?;
    for difference in differences(&ours, &theirs, &calls) {
        let possible = possible(&policy, &difference.call);
        // An answer that no rule gives is a flaw of libseccomp (see the module's text): ours, as was just seen, is one that a rule gives.
        let invented = !possible.contains(&difference.theirs);
        prop_assert!(invented || passed_over(&policy, &difference), "{difference:x?}, possible {possible:x?}");
    }
    Ok(())
}

/// Whatever libseccomp says: what our program answers is what a rule says that holds, and the default if none does.
fn assert_possible(policy: &Policy<'_>, program: &Bpf, calls: &[Call]) -> Result<(), TestCaseError> {
    let program = Program::new(program);
    for call in calls {
        let (action, possible) = (program.run(call).0, possible(policy, call));
        prop_assert!(possible.contains(&action), "{action:#x}, not of {possible:x?}, for {call:x?}");
    }
    Ok(())
}

fn assert_meaning(profile: &Seccomp) -> Result<(), TestCaseError> {
    let policy = policy(profile);
    let Ok(compiled) = ours(&policy) else { return Ok(()) };
    assert_possible(&policy, &compiled.program, &calls(&policy, 60, &mut Dice(0x1234_5678)))
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn equalities(profile in profile(EQUAL, EQUAL, 4)) {
        assert_like_libseccomp(&profile)?;
    }

    #[test]
    fn one_action_per_profile(profile in profile(EQUAL, ANY, 1)) {
        assert_like_libseccomp(&profile)?;
    }

    #[test]
    fn several_actions(profile in profile(EQUAL, ANY, 3)) {
        assert_like_libseccomp(&profile)?;
    }

    #[test]
    fn anything_means_what_it_says(profile in profile(ANY, ANY, 4)) {
        assert_meaning(&profile)?;
    }
}
