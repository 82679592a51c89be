//! From a [`Policy`] to a program: one search tree per architecture over the numbers, and decisions below it.

use std::fmt;

use super::Bpf;
use super::arch::{AUDIT_X86_64, Arch, X32_BIT};
use super::condition::{Clause, Condition, Known, Op};
use super::decide::{Case, decide};
use super::emit::emit;
use super::graph::{Graph, Jump, Node, Word};
use super::order::{Part, Ranked, conflict, decided_before, order, prune};
use super::table::{self, Row};

/// `BPF_MAXINSNS` (linux/bpf_common.h): the longest program that seccomp(2) takes.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// What a call of an unknown architecture gets: libseccomp's `SCMP_ACT_KILL`.
const BAD_ARCH: u32 = libc::SECCOMP_RET_KILL_THREAD;

/// Beyond this many nodes no program can be short enough; it also bounds the depth of what follows.
const MAX_NODES: usize = 4 * MAX_INSTRUCTIONS;

/// `offsetof(struct seccomp_data, nr)`
const NUMBER: Word = Word::at(0);
/// `offsetof(struct seccomp_data, arch)`
const AUDIT: Word = Word::at(4);

/// A profile, understood: actions are `SECCOMP_RET_*` values with their data.
#[derive(Clone, Debug, Default)]
pub struct Policy<'spec> {
    /// What happens where no rule holds.
    pub default: u32,
    /// The architectures, without repetitions.
    pub arches: Vec<&'static Arch>,
    /// The rules, in the order of the profile.
    pub rules: Vec<Rule<'spec>>,
}

/// One entry of `linux.seccomp.syscalls`.
#[derive(Clone, Debug)]
pub struct Rule<'spec> {
    /// The names of the system calls.
    pub names: &'spec [String],
    /// What happens if one of the alternatives holds.
    pub action: u32,
    /// Lists of conditions that must all hold, sorted by argument, at most one on each; an empty list always holds.
    pub alternatives: Vec<Vec<Condition>>,
    /// Its position in the profile.
    pub position: usize,
}

/// What may be left out, so that the rest can be compared with libseccomp's programs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Answer `ENOSYS` to system calls that are newer than the profile (see the module's text).
    pub enosys: bool,
}

/// A program, and the names that no table knows.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program.
    pub program: Bpf,
    /// Names of the profile that are not known on any architecture: they have no effect.
    pub unknown: Vec<String>,
}

/// Why there is no program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Two rules (positions in the profile) contradict each other on a system call.
    Conflict {
        /// The position of the earlier rule.
        earlier: usize,
        /// The position of the later rule.
        later: usize,
        /// The system call.
        name: String,
    },
    /// It would have more than [`MAX_INSTRUCTIONS`].
    TooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { earlier, name, .. } => {
                write!(
                    f,
                    "contradicts syscalls[{earlier}], which has another action for {name} under the same conditions or narrower ones"
                )
            }
            Self::TooLong => {
                write!(f, "the program would have more than the {MAX_INSTRUCTIONS} instructions that the kernel takes")
            }
        }
    }
}

/// The program of a policy.
///
/// # Errors
/// A [`Refusal`] if two rules contradict each other or the program is too long for the kernel.
pub fn compile(policy: &Policy<'_>, options: Options) -> Result<Compiled, Refusal> {
    let mut graph = Graph::default();
    let (known, unknown) = resolve(policy);
    let actions = policy.rules.iter().map(|rule| graph.action(rule.action)).collect();
    let profile = Profile { policy, known, actions, options };
    let mut trees = Vec::with_capacity(policy.arches.len());
    for audit in dispatch(&policy.arches) {
        let numbers = numbers(&mut graph, &profile, audit)?;
        let sums = sums(&graph, &numbers);
        trees.push((audit, tree(&mut graph, &numbers, &sums)));
        if graph.len() > MAX_NODES {
            return Err(Refusal::TooLong);
        }
    }
    // One after the other: there are three at most in practice, and nearly all calls are of the first.
    let bad = graph.action(BAD_ARCH);
    let root = trees.into_iter().rev().fold(bad, |next, (audit, tree)| graph.branch(AUDIT, Jump::Eq, audit, tree, next));
    // Each decision on a way is an instruction; this also bounds how deep the writing goes.
    if graph.depth(root) as usize > MAX_INSTRUCTIONS {
        return Err(Refusal::TooLong);
    }
    let program = emit(&graph, root);
    if program.len() > MAX_INSTRUCTIONS { Err(Refusal::TooLong) } else { Ok(Compiled { program, unknown }) }
}

/// A name that the table knows, and the rule (an index) it stands in.
type Resolved = (&'static Row, usize);

/// A policy with what is worked out once for all architectures.
struct Profile<'a, 'spec> {
    policy: &'a Policy<'spec>,
    known: Vec<Resolved>,
    /// Of each rule, the end of the way on which it holds.
    actions: Vec<Node>,
    options: Options,
}

fn resolve(policy: &Policy<'_>) -> (Vec<Resolved>, Vec<String>) {
    let mut known = Vec::with_capacity(policy.rules.iter().map(|rule| rule.names.len()).sum());
    let mut unknown = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        for name in rule.names {
            match table::find(name) {
                Some(row) => known.push((row, index)),
                None => unknown.push(name.clone()),
            }
        }
    }
    (known, unknown)
}

/// The audit tokens, in the order of the architectures: the native one comes first.
fn dispatch(arches: &[&'static Arch]) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(arches.len());
    for arch in arches {
        if !tokens.contains(&arch.audit) {
            tokens.push(arch.audit);
        }
    }
    tokens
}

/// Where runs of numbers with the same treatment begin, and that treatment; the first begins at 0.
type Runs = Vec<(u32, Node)>;

/// The numbers of all architectures with this audit token.
fn numbers(graph: &mut Graph, profile: &Profile<'_, '_>, audit: u32) -> Result<Runs, Refusal> {
    let policy = profile.policy;
    let mut runs = Runs::with_capacity(2 * profile.known.len());
    let with = |base: u32| policy.arches.iter().find(|arch| arch.audit == audit && (arch.base == X32_BIT) == (base == X32_BIT));
    match with(0) {
        Some(arch) => numbers_of(graph, &mut runs, profile, arch)?,
        None => add(&mut runs, 0, graph.action(BAD_ARCH)),
    }
    match with(X32_BIT) {
        Some(arch) => numbers_of(graph, &mut runs, profile, arch)?,
        None if audit == AUDIT_X86_64 => {
            // A tracer skips a call by setting its number to -1 (seccomp(2)): that is not one of x32.
            add(&mut runs, X32_BIT, graph.action(BAD_ARCH));
            add(&mut runs, u32::MAX, graph.action(policy.default));
        }
        None => {}
    }
    Ok(runs)
}

fn add(runs: &mut Runs, start: u32, node: Node) {
    if runs.last().is_none_or(|last| last.1 != node) {
        runs.push((start, node));
    }
}

/// One rule for one number. For a multiplexer, `selected` is the subcall that the rule is about.
#[derive(Clone, Copy)]
struct Use {
    number: u32,
    row: &'static Row,
    rule: usize,
    selected: Option<u32>,
}

fn numbers_of(graph: &mut Graph, runs: &mut Runs, profile: &Profile<'_, '_>, arch: &Arch) -> Result<(), Refusal> {
    let Profile { policy, known, options, .. } = profile;
    let default = graph.action(policy.default);
    let newest = newest(known, arch).filter(|_| options.enosys && hides_newer(policy.default));
    let newer = if newest.is_some() { graph.action(errno(libc::ENOSYS)) } else { default };
    let newest = newest.unwrap_or(u32::MAX);
    let uses = uses(profile, arch);
    // What comes next; where the calls of the profile leave a gap, the default or what is newer has its place.
    let mut next = if arch.base == X32_BIT { X32_BIT } else { 0 };
    let gap = |runs: &mut Runs, next: u32, end: u32| {
        if next <= newest && next < end {
            add(runs, next, default);
        }
        if newest < end - 1 {
            add(runs, next.max(newest + 1), newer);
        }
    };
    for rules in uses.chunk_by(|a, b| a.number == b.number) {
        let number = rules[0].number;
        if next < number {
            gap(runs, next, number);
        }
        add(runs, number, call(graph, profile, rules, arch)?);
        next = number + 1;
    }
    gap(runs, next, u32::MAX);
    Ok(())
}

/// The highest number that the profile speaks of, whatever it says. The private calls of ARM stand apart and do not count.
fn newest(known: &[Resolved], arch: &Arch) -> Option<u32> {
    const ARM_PRIVATE: u32 = 0xf_0000;
    known.iter().filter_map(|(row, _)| arch.number(row)).filter(|number| number - arch.base < ARM_PRIVATE).max()
}

/// What the rules say that is not the default, by number, and in the order of the profile.
fn uses(profile: &Profile<'_, '_>, arch: &Arch) -> Vec<Use> {
    let Profile { policy, known, .. } = profile;
    let mut uses = Vec::with_capacity(known.len());
    for &(row, rule) in known {
        if policy.rules[rule].action == policy.default {
            continue;
        }
        if let Some(number) = arch.number(row) {
            uses.push(Use { number, row, rule, selected: None });
        }
        if arch.multiplexed
            && let Some((multiplexer, selected)) = row.subcall()
            && let Some(row) = table::find(multiplexer)
            && let Some(number) = arch.number(row)
        {
            uses.push(Use { number, row, rule, selected: Some(selected) });
        }
    }
    in_order(uses, arch.base)
}

/// Numbers, counted from an architecture's base, that all but a few calls of ARM are below.
const BUCKETS: usize = 1024;

/// Sorted by number, and of one number as they were.
fn in_order(mut uses: Vec<Use>, base: u32) -> Vec<Use> {
    // How many have a lower number: where those of this number begin.
    let mut starts = [0_u32; BUCKETS + 1];
    for entry in &uses {
        let Some(count) = starts.get_mut((entry.number - base) as usize + 1) else {
            uses.sort_by_key(|entry| entry.number);
            return uses;
        };
        *count += 1;
    }
    for at in 1..BUCKETS {
        starts[at] += starts[at - 1];
    }
    let mut sorted = uses.clone();
    for entry in uses {
        let place = &mut starts[(entry.number - base) as usize];
        sorted[*place as usize] = entry;
        *place += 1;
    }
    sorted
}

/// The treatment of one system call.
fn call(graph: &mut Graph, profile: &Profile<'_, '_>, uses: &[Use], arch: &Arch) -> Result<Node, Refusal> {
    let policy = profile.policy;
    // Nearly all rules are without conditions: nothing is to be worked out for the first one of a call.
    let first = &policy.rules[uses[0].rule];
    if uses[0].selected.is_none() && first.alternatives.first().is_some_and(Vec::is_empty) {
        return Ok(profile.actions[uses[0].rule]);
    }
    let mut cases = Vec::new();
    for entry in uses {
        let rule = &policy.rules[entry.rule];
        for alternative in &rule.alternatives {
            let conditions = conditions(alternative, entry.selected, arch);
            if conditions.is_empty() {
                return Ok(profile.actions[entry.rule]);
            }
            cases.push(Ranked { conditions, rule: entry.rule, part: Part::Whole, ghost: false });
        }
    }
    if cases.len() > MAX_INSTRUCTIONS {
        return Err(Refusal::TooLong);
    }
    decided_before(&mut cases);
    prune(&mut cases, |rule| policy.rules[*rule].action);
    if let Some((earlier, later)) = conflict(&cases, |rule| policy.rules[*rule].action) {
        let position = |index: usize| policy.rules[index].position;
        return Err(Refusal::Conflict {
            earlier: position(earlier),
            later: position(later),
            name: uses[0].row.name().to_owned(),
        });
    }
    let cases = order(cases, arch).into_iter().filter_map(|case| words(&case, policy.rules[case.rule].action, arch));
    Ok(decide(graph, cases.collect(), policy.default))
}

/// The conditions as this architecture sees them. The first argument of a multiplexer selects; it takes the place of any
/// condition on the first argument of the call itself, as in libseccomp.
fn conditions(alternative: &[Condition], selected: Option<u32>, arch: &Arch) -> Vec<Condition> {
    let selector = selected.map(|value| Condition { index: 0, op: Op::Eq, value: value.into(), mask: u64::MAX });
    let own = alternative.iter().filter(|condition| selected.is_none() || condition.index != 0);
    selector.iter().chain(own).map(|condition| condition.on(arch)).filter(|condition| !condition.is_void()).collect()
}

/// The rule in words, or `None` if it can never hold.
fn words(case: &Ranked<usize>, action: u32, arch: &Arch) -> Option<Case> {
    let mut clauses = Vec::with_capacity(case.conditions.len());
    let (last, others) = case.conditions.split_last()?;
    let of_last = match case.part {
        Part::Whole => vec![Clause::of(last, arch)],
        Part::Upper => vec![Clause::upper(last, arch)],
        Part::Lower => Clause::lower(last, arch).to_vec(),
    };
    for known in others.iter().map(|condition| Clause::of(condition, arch)).chain(of_last) {
        match known {
            Known::Decided(true) => {}
            Known::Decided(false) => return None,
            Known::Open(clause) => clauses.push(clause),
        }
    }
    Some(Case { clauses, action })
}

/// A search for the run that the number is in. It is balanced by what is still to be done in the end: runs whose treatment
/// takes more decisions lie less deep.
fn tree(graph: &mut Graph, runs: &[(u32, Node)], sums: &[u32]) -> Node {
    match runs {
        [] => graph.action(BAD_ARCH),
        [(_, only)] => *only,
        [(_, around), (single, node), (end, after)] if around == after && *end == *single + 1 => {
            graph.branch(NUMBER, Jump::Eq, *single, *node, *around)
        }
        runs => {
            let at = middle(sums);
            let (below, above) = runs.split_at(at);
            let (no, yes) = (tree(graph, below, &sums[..=at]), tree(graph, above, &sums[at..]));
            graph.branch(NUMBER, Jump::Ge, above[0].0, yes, no)
        }
    }
}

/// What is still to be done in the end, summed up: before the first run, before the second, ..., behind the last.
fn sums(graph: &Graph, runs: &[(u32, Node)]) -> Vec<u32> {
    let (mut sums, mut sum) = (Vec::with_capacity(runs.len() + 1), 0);
    sums.push(sum);
    for run in runs {
        sum += 1 + graph.depth(run.1);
        sums.push(sum);
    }
    sums
}

/// Where to divide at least two runs, so that neither part is empty.
fn middle(sums: &[u32]) -> usize {
    let runs = sums.len() - 1;
    let total = sums[0] + sums[runs];
    // The run in which the half is reached: before it or behind it, where the parts are more alike.
    let at = sums[1..].partition_point(|sum| 2 * sum < total).min(runs - 1);
    let behind = usize::from(sums[at] + sums[at + 1] < total);
    (at + behind).clamp(1, runs - 1)
}

/// `SECCOMP_RET_ERRNO` with an error number.
pub fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | (number.unsigned_abs() & libc::SECCOMP_RET_DATA)
}

/// True if newer system calls get `ENOSYS` under this default.
fn hides_newer(default: u32) -> bool {
    match default & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ERRNO => default != errno(libc::ENOSYS),
        libc::SECCOMP_RET_KILL_PROCESS | libc::SECCOMP_RET_KILL_THREAD | libc::SECCOMP_RET_TRAP => true,
        _ => false,
    }
}
