//! A filter as a graph of decisions, before it is laid out: equal parts exist once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are numbers of our own making: the hash of the standard library, which resists chosen keys, took half of
/// the time of compiling. Colliding keys would only make it slow, and a profile may ask for worse things than that.
pub type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Multiplies and rotates.
#[derive(Default)]
pub struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        // An odd number without a pattern: 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_usize(value.cast_unsigned());
    }
}

/// A node of a [`Graph`].
pub type Node = u32;

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

impl Kind {
    /// For [`Graph::find`]: every node is looked for once, most of them in vain, so that this is short.
    fn hash(&self) -> u64 {
        let mut mixer = Mixer::default();
        match *self {
            Self::Return(action) => mixer.write_u32(action),
            Self::Branch { word, jump, k, yes, no } => {
                mixer.write_u64(u64::from(yes) << 32 | u64::from(no));
                mixer.write_u64(u64::from(k) << 32 | u64::from(word.offset << 2 | jump as u32));
            }
        }
        mixer.finish()
    }
}

/// An acyclic graph; nodes are numbered so that each comes after those it leads to.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Kind>,
    depths: Vec<u32>,
    /// Nodes by the hash of their kind; one that is taken is followed by the next. Its length is a power of two, and half of it is free.
    known: Vec<Node>,
}

/// A free place of [`Graph::known`].
const FREE: Node = Node::MAX;

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

    /// What a node does.
    #[inline]
    pub fn kind(&self, node: Node) -> Kind {
        self.nodes[node as usize]
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many decisions are made from here at most.
    #[inline]
    pub fn depth(&self, node: Node) -> u32 {
        self.depths[node as usize]
    }

    /// The place of a node of this kind, or the free one that it would have.
    fn find(&self, kind: &Kind) -> usize {
        let last = self.known.len() - 1;
        #[allow(clippy::cast_possible_truncation, reason = "the lower bits are what is wanted")]
        let mut place = kind.hash() as usize & last;
        while self.known[place] != FREE && self.nodes[self.known[place] as usize] != *kind {
            place = (place + 1) & last;
        }
        place
    }

    fn intern(&mut self, kind: Kind) -> Node {
        if self.known.len() < 2 * (self.nodes.len() + 1) {
            self.grow();
        }
        let place = self.find(&kind);
        if self.known[place] != FREE {
            return self.known[place];
        }
        let node = Node::try_from(self.nodes.len()).unwrap_or(FREE);
        self.known[place] = node;
        self.nodes.push(kind);
        self.depths.push(match kind {
            Kind::Return(_) => 0,
            Kind::Branch { yes, no, .. } => 1 + self.depth(yes).max(self.depth(no)),
        });
        node
    }

    /// Doubles the places.
    fn grow(&mut self) {
        self.known = vec![FREE; (2 * self.known.len()).max(FEW)];
        for (node, kind) in (0..).zip(&self.nodes) {
            let place = self.find(kind);
            self.known[place] = node;
        }
    }
}

/// Places to begin with: as many as the profiles that exist need.
const FEW: usize = 2048;
