//! libseccomp's program for a policy, and the calls on which two programs are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rt::seccomp::Bpf;
use rt::seccomp::arch::{AUDIT_X86_64, Arch, SUBCALLS, X32_BIT};
use rt::seccomp::compile::{Policy, Rule};
use rt::seccomp::condition::{Condition, Op};
use rt::seccomp::table;
use rt::sys::CallResult;
use rt::sys::libseccomp::{Compare, Context, resolve_name};

use crate::machine::{Call, Program};

/// The multiplexer of a call and the value that selects it.
fn subcall(name: &str) -> Option<(&'static str, u32)> {
    SUBCALLS.iter().find(|entry| entry.0 == name).map(|entry| (entry.1, entry.2))
}

/// libseccomp keeps global state; tests run in threads.
pub fn library() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn compare(condition: &Condition) -> Compare {
    let op = match condition.op {
        Op::Ne => 1,
        Op::Lt => 2,
        Op::Le => 3,
        Op::Eq => 4,
        Op::Ge => 5,
        Op::Gt => 6,
        Op::MaskedEq => 7,
    };
    let (a, b) = if op == 7 { (condition.mask, condition.value) } else { (condition.value, 0) };
    Compare { index: condition.index, op, a, b }
}

/// The program that libseccomp makes of a policy.
pub fn export(policy: &Policy<'_>) -> CallResult<Bpf> {
    let _one = library();
    let mut context = Context::new(policy.default)?;
    context.optimize(2)?;
    for arch in &policy.arches[1..] {
        context.arch_add(arch.token)?;
    }
    for rule in policy.rules.iter().filter(|rule| rule.action != policy.default) {
        for number in rule.names.iter().filter_map(|name| resolve_name(0, name)) {
            for alternative in &rule.alternatives {
                let conditions: Vec<Compare> = alternative.iter().map(compare).collect();
                context.rule_add(rule.action, number, &conditions)?;
            }
        }
    }
    Ok(Bpf::from_bytes(context.export_bpf()?).unwrap())
}

/// A small generator of numbers: the same ones in each run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll() % from.len() as u64).unwrap()]
    }
}

/// Values at, below and above every constant that is compared with an argument, for each argument.
fn candidates(policy: &Policy<'_>) -> [Vec<u64>; 6] {
    let mut values: [BTreeSet<u64>; 6] = std::array::from_fn(|_| BTreeSet::from([0, 1, u64::MAX, 0xffff_ffff, 1 << 32]));
    values[0].extend(0..26);
    for condition in policy.rules.iter().flat_map(|rule| rule.alternatives.iter().flatten()) {
        let v = condition.value;
        let near =
            [v, v.wrapping_sub(1), v.wrapping_add(1), v ^ (1 << 32), v ^ (1 << 63), v & 0xffff_ffff, v | !condition.mask, !v];
        values[condition.index as usize].extend(near);
        values[condition.index as usize].insert(v.wrapping_add(1 << 32));
        values[condition.index as usize].insert(v.wrapping_sub(1 << 32));
        values[condition.index as usize].insert(condition.mask);
    }
    values.map(|set| set.into_iter().collect())
}

/// Numbers whose treatment depends on arguments, by architecture.
fn conditional(policy: &Policy<'_>, arch: &Arch) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    for rule in &policy.rules {
        let plain = rule.alternatives.iter().any(Vec::is_empty);
        for name in rule.names {
            if !plain {
                numbers.extend(table::find(name).and_then(|row| arch.number(row)));
            }
            if let Some((multiplexer, _)) = subcall(name).filter(|_| arch.multiplexed) {
                numbers.extend(table::find(multiplexer).and_then(|row| arch.number(row)));
            }
        }
    }
    numbers
}

/// The calls to try: all numbers of all architectures and their edges; of each that depends on arguments, `samples`.
pub fn calls(policy: &Policy<'_>, samples: usize, dice: &mut Dice) -> Vec<Call> {
    let values = candidates(policy);
    let mut audits: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::from([(0xdead_beef, BTreeSet::new())]);
    for arch in &policy.arches {
        audits.entry(arch.audit).or_default().extend(conditional(policy, arch));
    }
    let edges = [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xffff_fffe, 0xffff_ffff];
    let bases = [0, 4000, 5000, 6000, 0xf_0000, X32_BIT, 2 * X32_BIT];
    let mut calls = Vec::new();
    for (audit, conditional) in audits {
        for number in bases.iter().flat_map(|base| *base..*base + 620).chain(edges) {
            let count = if conditional.contains(&number) { samples } else { 1 };
            calls.extend((0..count).map(|_| Call { number, audit, args: std::array::from_fn(|i| *dice.pick(&values[i])) }));
        }
        for &number in &conditional {
            // Each argument through all its values, the others at random.
            for (index, values_of) in values.iter().enumerate() {
                for &value in values_of {
                    let mut args: [u64; 6] = std::array::from_fn(|i| *dice.pick(&values[i]));
                    args[index] = value;
                    calls.push(Call { number, audit, args });
                }
            }
        }
    }
    calls
}

/// A call that two programs treat differently, and how.
#[derive(Debug)]
pub struct Difference {
    pub call: Call,
    pub ours: u32,
    pub theirs: u32,
}

/// Compares two programs on these calls.
pub fn differences(ours: &Bpf, theirs: &Bpf, calls: &[Call]) -> Vec<Difference> {
    let (ours, theirs) = (Program::new(ours), Program::new(theirs));
    let both = calls.iter().map(|call| Difference { call: *call, ours: ours.run(call).0, theirs: theirs.run(call).0 });
    both.filter(|both| both.ours != both.theirs).collect()
}

/// The architecture of a call, if the profile has it.
fn arch_of<'a>(policy: &'a Policy<'_>, call: &Call) -> Option<&'a &'static Arch> {
    let x32 = call.audit == AUDIT_X86_64 && call.number >= X32_BIT && call.number != u32::MAX;
    policy.arches.iter().find(|arch| arch.audit == call.audit && (arch.base == X32_BIT) == x32)
}

/// What a call asks for, by name.
struct Asked<'a> {
    arch: &'a Arch,
    /// By its number.
    direct: Vec<&'static str>,
    /// By the number of a multiplexer: name and selector.
    through: Vec<(&'static str, u32)>,
}

impl Asked<'_> {
    fn of<'a>(policy: &'a Policy<'_>, call: &Call) -> Option<Asked<'a>> {
        let arch = arch_of(policy, call)?;
        let rows = table::TABLE.iter().filter(|row| arch.number(row) == Some(call.number));
        let direct: Vec<&'static str> = rows.map(|row| row.name()).collect();
        let through = SUBCALLS.iter().filter(|entry| arch.multiplexed && direct.contains(&entry.1));
        let through = through.map(|entry| (entry.0, entry.2)).collect();
        Some(Asked { arch, direct, through })
    }

    fn argument(&self, call: &Call, index: u32) -> u64 {
        let argument = call.args[index as usize];
        if self.arch.wide { argument } else { argument & 0xffff_ffff }
    }

    /// True if a rule holds: its conditions, evaluated on the values of the arguments as they are. Nothing of the compiler has a part in it, no
    /// halves, no order. A multiplexer's first argument is the selector, and no condition is about it.
    fn holds(&self, rule: &Rule<'_>, call: &Call) -> bool {
        let all = |conditions: &[Condition], from: u32| {
            let mut conditions = conditions.iter().filter(|condition| condition.index >= from);
            conditions.all(|condition| is_met(condition, self.argument(call, condition.index), self.arch))
        };
        let named = |name: &str| rule.names.iter().any(|other| other == name);
        let direct = self.direct.iter().any(|name| named(name));
        let selects = |entry: &&(&str, u32)| self.argument(call, 0) == u64::from(entry.1);
        let selected = self.through.iter().filter(selects).any(|entry| named(entry.0));
        rule.alternatives.iter().any(|conditions| direct && all(conditions, 0) || selected && all(conditions, 1))
    }
}

/// True if a rule is about the system call of this call, under whatever conditions.
pub fn names(policy: &Policy<'_>, rule: &Rule<'_>, call: &Call) -> bool {
    let Some(asked) = Asked::of(policy, call) else { return false };
    let mut all = asked.direct.iter().chain(asked.through.iter().map(|entry| &entry.0));
    all.any(|name| rule.names.iter().any(|other| other == name))
}

/// True if a rule holds for a call.
pub fn holds(policy: &Policy<'_>, rule: &Rule<'_>, call: &Call) -> bool {
    Asked::of(policy, call).is_some_and(|asked| asked.holds(rule, call))
}

/// What an operator of the specification says about an argument.
fn is_met(condition: &Condition, argument: u64, arch: &Arch) -> bool {
    let width = if arch.wide { u64::MAX } else { 0xffff_ffff };
    let (value, mask) = (condition.value & width, condition.mask & width);
    match condition.op {
        Op::Eq => argument == value,
        Op::Ne => argument != value,
        Op::Lt => argument < value,
        Op::Le => argument <= value,
        Op::Ge => argument >= value,
        Op::Gt => argument > value,
        Op::MaskedEq => argument & mask == value,
    }
}

/// The actions of all rules that hold for a call, or the default: an independent reading of the profile, without any order. Where it is one
/// action there is nothing that an order could decide, and every program has to give it.
pub fn possible(policy: &Policy<'_>, call: &Call) -> BTreeSet<u32> {
    let Some(asked) = Asked::of(policy, call) else { return BTreeSet::from([libc::SECCOMP_RET_KILL_THREAD]) };
    let rules = policy.rules.iter().filter(|rule| rule.action != policy.default && asked.holds(rule, call));
    let mut actions: BTreeSet<u32> = rules.map(|rule| rule.action).collect();
    if actions.is_empty() {
        actions.insert(policy.default);
    }
    actions
}
