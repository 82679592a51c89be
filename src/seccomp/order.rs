//! Which of several rules of one system call decides: libseccomp's order.
//!
//! libseccomp does not keep the order of a profile. It sorts comparisons into a tree, and profiles rely on what comes out
//! of that, so the order is the same here:
//! 1. the first rule without conditions takes the system call, and whatever else is said about it counts for nothing;
//! 2. rules with conditions come by the comparisons they make, argument after argument from the lowest: those on higher
//!    arguments first; then equalities before "less" before "greater"; then larger values first ("less": smaller first);
//!    of two rules of which one begins with all that the other asks, the shorter one;
//! 3. what is still equal, as written: in the order in which a rule first made that comparison, even if another one has taken its place
//!    since ([`prune`]);
//! 4. of several "less" (or several "not equal") on one argument whose upper halves are the same, the first one written decides where the
//!    upper half decides alone ([`Part`]).
//!
//! Two rules with the same conditions and different actions, or a later rule that is more general than an earlier one with
//! another action, are refused by libseccomp, and here too.

use std::cmp::Reverse;

use super::arch::Arch;
use super::condition::{Condition, Op, halves};

/// The conditions of a rule, sorted by argument, and something that belongs to it.
#[derive(Clone, Debug)]
pub struct Ranked<T> {
    /// The conditions on this architecture, one per argument at most.
    pub conditions: Vec<Condition>,
    /// What belongs to it.
    pub rule: T,
    /// Where the last condition counts.
    pub part: Part,
    /// It only shows where its comparisons come first: another rule says what it says.
    pub ghost: bool,
}

/// An inequality of 64 bits looks at the upper half first, and at the lower if both are equal. Rules with the same upper half have that
/// first look in common, which keeps the action of the first of them; they are told apart only where it is not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everywhere.
    Whole,
    /// Where the upper half decides alone.
    Upper,
    /// Where the upper halves are equal.
    Lower,
}

/// The position of a comparison; the greatest is the first.
type Rank = (u32, u8, u32);

/// One comparison of a word: where it stands, and what tells it from others.
type Step = (Rank, (bool, bool, u32, u32));

/// A rule with its comparisons.
type Stepped<T> = (Vec<Step>, Ranked<T>);

/// The rules in the order in which they are asked.
pub fn order<T: Clone>(rules: Vec<Ranked<T>>, arch: &Arch) -> Vec<Ranked<T>> {
    if rules.len() < 2 {
        return rules;
    }
    let steps = rules.into_iter().map(|rule| (steps(&rule.conditions, arch), rule)).collect();
    sorted(steps, 0)
}

fn sorted<T: Clone>(rules: Vec<Stepped<T>>, depth: usize) -> Vec<Ranked<T>> {
    let mut first = Vec::with_capacity(rules.len());
    let mut groups: Vec<(Step, Vec<Stepped<T>>)> = Vec::new();
    for (steps, rule) in rules {
        let Some(&step) = steps.get(depth) else {
            first.push(rule);
            continue;
        };
        match groups.iter_mut().find(|group| group.0 == step) {
            Some(group) => group.1.push((steps, rule)),
            None => groups.push((step, vec![(steps, rule)])),
        }
    }
    groups.sort_by_key(|group| Reverse(group.0.0));
    for (_, mut group) in groups {
        first.extend(upper_parts(&mut group, depth));
        first.extend(sorted(group, depth + 1));
    }
    first.retain(|rule| !rule.ghost);
    first
}

/// Of several "less" or "not equal" with the same upper half, which this group is about, the parts that it decides alone, as written.
fn upper_parts<T: Clone>(group: &mut [Stepped<T>], depth: usize) -> Vec<Ranked<T>> {
    let is_inequality = |(steps, rule): &&mut Stepped<T>| {
        let last = rule.conditions.last().filter(|_| steps.len() == depth + 2);
        let at_upper = steps.get(depth).is_some_and(|step| step.0.0 % 2 == 1);
        at_upper && last.is_some_and(|last| matches!(last.op, Op::Lt | Op::Le | Op::Ne)) && rule.part == Part::Whole
    };
    let together: Vec<&mut Stepped<T>> = group.iter_mut().filter(is_inequality).collect();
    if together.len() < 2 {
        return Vec::new();
    }
    let split = |(_, rule): &mut Stepped<T>| {
        rule.part = Part::Lower;
        Ranked { part: Part::Upper, ..rule.clone() }
    };
    together.into_iter().map(split).collect()
}

/// The comparisons of a rule: of each argument the upper word, where there is one, and the lower.
fn steps(conditions: &[Condition], arch: &Arch) -> Vec<Step> {
    let mut steps = Vec::with_capacity(conditions.len() * 2);
    for condition in conditions {
        let (value, mask) = (halves(condition.value), halves(condition.mask));
        if arch.wide {
            steps.push(step(condition, 1, value.0, mask.0));
        }
        steps.push(step(condition, 0, value.1, mask.1));
    }
    steps
}

fn step(condition: &Condition, upper: u32, value: u32, mask: u32) -> Step {
    let (class, place) = match condition.op {
        Op::Eq | Op::Ne | Op::MaskedEq => (3, value),
        Op::Lt | Op::Le => (2, !value),
        Op::Ge | Op::Gt => (1, value),
    };
    let with_equal = upper == 0 && matches!(condition.op, Op::Ge | Op::Lt);
    ((condition.index * 2 + upper, class, place), (condition.op == Op::MaskedEq, with_equal, mask, value))
}

/// Leaves out what an earlier rule has decided that asks for a beginning of its conditions, whatever it says: libseccomp finds the tree's end
/// where this one would go on. So a later, more general rule does not contradict it.
pub fn decided_before<T>(rules: &mut Vec<Ranked<T>>) {
    let mut at = 1;
    while at < rules.len() {
        let (earlier, rest) = rules.split_at(at);
        let begins = |other: &Ranked<T>| {
            other.conditions.len() < rest[0].conditions.len() && rest[0].conditions.starts_with(&other.conditions)
        };
        if earlier.iter().any(begins) {
            rules.remove(at);
        } else {
            at += 1;
        }
    }
}

/// Leaves out what another rule with the same action and no other conditions says already. Where that one came later and asks for the first
/// of its conditions, the comparisons that it made keep their place.
pub fn prune<T>(rules: &mut Vec<Ranked<T>>, action: impl Fn(&T) -> u32) {
    let covers = |general: &Ranked<T>, rule: &Ranked<T>| {
        action(&general.rule) == action(&rule.rule)
            && general.conditions.iter().all(|condition| rule.conditions.contains(condition))
    };
    let mut at = 0;
    while at < rules.len() {
        // Of two equal ones the first stays.
        let earlier = rules[..at].iter().any(|other| covers(other, &rules[at]));
        let later = rules[at + 1..].iter().any(|other| covers(other, &rules[at]) && !covers(&rules[at], other));
        let beginning = |other: &Ranked<T>| covers(other, &rules[at]) && rules[at].conditions.starts_with(&other.conditions);
        if later && !earlier && rules[at + 1..].iter().any(beginning) {
            rules[at].ghost = true;
            at += 1;
        } else if earlier || later {
            rules.remove(at);
        } else {
            at += 1;
        }
    }
}

/// The first rule that contradicts an earlier one, and that one: the same conditions, or fewer of them, and another action.
pub fn conflict<T: Clone + PartialEq>(rules: &[Ranked<T>], action: impl Fn(&T) -> u32) -> Option<(T, T)> {
    for (at, later) in rules.iter().enumerate().filter(|(_, rule)| !rule.ghost) {
        let general = |earlier: &&Ranked<T>| {
            !earlier.ghost && action(&earlier.rule) != action(&later.rule) && earlier.conditions.starts_with(&later.conditions)
        };
        if let Some(earlier) = rules[..at].iter().find(general) {
            return Some((earlier.rule.clone(), later.rule.clone()));
        }
    }
    None
}
