//! From the rules of one system call to a graph of decisions.
//!
//! A rule is a list of clauses that must all hold; the first rule that holds decides. The graph is grown by asking one test
//! and working out what each answer leaves of all the rules: a test is never made twice on one way through, what an answer
//! settles is not asked any more, and equal rests are equal nodes. For the profiles that exist this comes out at fewer
//! instructions than any fixed order of the rules. It could grow exponentially for one made for that purpose, so that
//! beyond a budget the rules are simply chained.

use super::condition::{Clause, Known, Test};
use super::graph::{FastMap, Graph, Jump, Node, Word};

/// A rule of one system call on one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// What must hold.
    pub clauses: Vec<Clause>,
    /// What happens then.
    pub action: u32,
}

/// How many rules may be looked at, in all the rests of one system call's rules, before they are chained instead.
const BUDGET: usize = 40_000;

/// From how many values on one word is compared with these are searched by halves.
const MANY: usize = 4;

/// The node that decides about one system call: the first case that holds, or else the default.
pub fn decide(graph: &mut Graph, cases: Vec<Case>, default: u32) -> Node {
    let default = graph.action(default);
    let mut grown = Grown { graph, default, seen: FastMap::default(), looked_at: 0 };
    grown.node(cases.clone()).unwrap_or_else(|| chain(graph, &cases, default))
}

struct Grown<'graph> {
    graph: &'graph mut Graph,
    default: Node,
    seen: FastMap<Vec<Case>, Node>,
    looked_at: usize,
}

impl Grown<'_> {
    /// The node of what is left of the rules; `None` beyond the budget.
    fn node(&mut self, cases: Vec<Case>) -> Option<Node> {
        let Some(first) = cases.first() else { return Some(self.default) };
        let Some(next) = first.clauses.first().and_then(Clause::next) else { return Some(self.graph.action(first.action)) };
        // What is left of one condition leads to different rests only.
        let may_recur = cases.len() > 1 || first.clauses.len() > 1;
        if may_recur && let Some(&node) = self.seen.get(&cases) {
            return Some(node);
        }
        self.looked_at += cases.len();
        if self.looked_at > BUDGET {
            return None;
        }
        let test = halving(&cases, &next).unwrap_or(next);
        let yes = self.node(given(&cases, &test, true))?;
        let no = self.node(given(&cases, &test, false))?;
        let node = branch(self.graph, &test, yes, no);
        if may_recur {
            self.seen.insert(cases, node);
        }
        Some(node)
    }
}

/// The test that halves the values which a word is compared with, if they are many and the next test is for one of them.
fn halving(cases: &[Case], next: &Test) -> Option<Test> {
    if next.greater || next.word.mask != u32::MAX {
        return None;
    }
    let tests = cases.iter().filter_map(|case| case.clauses.first().and_then(Clause::next));
    let mut values: Vec<u32> = tests.filter(|test| !test.greater && test.word == next.word).map(|test| test.k).collect();
    values.sort_unstable();
    values.dedup();
    (values.len() >= MANY).then(|| Test { greater: true, k: values[values.len() / 2 - 1], ..*next })
}

/// What the outcome of a test leaves of the cases.
fn given(cases: &[Case], test: &Test, outcome: bool) -> Vec<Case> {
    let mut left = Vec::with_capacity(cases.len());
    for case in cases {
        let Some(clauses) = case_given(&case.clauses, test, outcome) else { continue };
        let certain = clauses.is_empty();
        left.push(Case { clauses, action: case.action });
        if certain {
            break;
        }
    }
    left
}

/// The clauses that are still open, or `None` if one does not hold.
fn case_given(clauses: &[Clause], test: &Test, outcome: bool) -> Option<Vec<Clause>> {
    let mut open = Vec::with_capacity(clauses.len());
    for clause in clauses {
        match clause.given(test, outcome) {
            Known::Decided(true) => {}
            Known::Decided(false) => return None,
            Known::Open(clause) => open.push(clause),
        }
    }
    Some(open)
}

/// One case after the other, each with all its tests.
fn chain(graph: &mut Graph, cases: &[Case], default: Node) -> Node {
    cases.iter().rev().fold(default, |next, case| {
        let action = graph.action(case.action);
        case.clauses.iter().rev().fold(action, |holds, clause| whole(graph, clause, holds, next))
    })
}

fn whole(graph: &mut Graph, clause: &Clause, holds: Node, fails: Node) -> Node {
    let (yes, no) = if clause.negated { (fails, holds) } else { (holds, fails) };
    let low = clause.low.map_or(yes, |test| branch(graph, &test, yes, no));
    let high = clause.high.map_or(low, |test| branch(graph, &test, low, no));
    clause.over.map_or(high, |test| branch(graph, &test, yes, high))
}

/// The node of one test. Comparing bits with zero, or one bit with itself, needs no mask.
fn branch(graph: &mut Graph, test: &Test, yes: Node, no: Node) -> Node {
    let Word { offset, mask } = test.word;
    let single = mask.is_power_of_two() && test.k == mask;
    match (test.greater, mask) {
        (true, _) => graph.branch(test.word, Jump::Gt, test.k, yes, no),
        (false, u32::MAX) => graph.branch(test.word, Jump::Eq, test.k, yes, no),
        (false, _) if test.k == 0 => graph.branch(Word::at(offset), Jump::Set, mask, no, yes),
        (false, _) if single => graph.branch(Word::at(offset), Jump::Set, mask, yes, no),
        (false, _) => graph.branch(test.word, Jump::Eq, test.k, yes, no),
    }
}
