//! A filter as a graph of decisions, before it is laid out: equal parts exist once.

use std::collections::HashMap;

/// A node of a [`Graph`].
pub type Node = usize;

/// What is compared with the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Jump {
    /// `A == k`
    Eq,
    /// `A > k`
    Gt,
    /// `A >= k`
    Ge,
    /// `A & k != 0`
    Set,
}

/// What the accumulator holds: a word of `struct seccomp_data`, masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    /// Offset of the word in bytes.
    pub offset: u32,
    /// The bits that are kept.
    pub mask: u32,
}

impl Word {
    /// A whole word.
    pub const fn at(offset: u32) -> Self {
        Self { offset, mask: u32::MAX }
    }
}

/// A decision or an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Ends with this action.
    Return(u32),
    /// Goes one way or the other.
    Branch {
        /// What is looked at.
        word: Word,
        /// How it is compared.
        jump: Jump,
        /// With what.
        k: u32,
        /// Where to go if so.
        yes: Node,
        /// Where to go if not.
        no: Node,
    },
}

/// An acyclic graph; nodes are numbered so that each comes after those it leads to.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Kind>,
    known: HashMap<Kind, Node>,
}

impl Graph {
    /// The node that ends with an action.
    pub fn action(&mut self, action: u32) -> Node {
        self.intern(Kind::Return(action))
    }

    /// The node that decides; no decision is made where both ways are the same.
    pub fn branch(&mut self, word: Word, jump: Jump, k: u32, yes: Node, no: Node) -> Node {
        if yes == no {
            return yes;
        }
        self.intern(Kind::Branch { word, jump, k, yes, no })
    }

    /// All nodes, each after those it leads to.
    pub fn nodes(&self) -> &[Kind] {
        &self.nodes
    }

    fn intern(&mut self, kind: Kind) -> Node {
        let next = self.nodes.len();
        let node = *self.known.entry(kind).or_insert(next);
        if node == next {
            self.nodes.push(kind);
        }
        node
    }
}
