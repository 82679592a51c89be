//! Lays a [`Graph`] out as a classic BPF program.
//!
//! Jumps of classic BPF only go forward, and conditional ones at most 255 instructions far. So the program is written from
//! its end: whatever a decision leads to has its place already, and the distance is known. What is too far away is
//! brought near: an action is repeated, a decision gets a long jump (`ja`), and both serve all who come later.
//!
//! A decision is up to three instructions (load, mask, jump), and those who come with the right word in the accumulator
//! enter behind the load. A load that nobody needs is not written.

use super::Bpf;
use super::graph::{Graph, Jump, Kind, Node, Word};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JA: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The longest conditional jump, less two for what may be put in between.
const REACH: u32 = 253;

/// Where a decision is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    /// At its load.
    Load,
    /// Behind its load: the word is there, whole.
    Mask,
    /// At its jump: the word is there, masked as needed.
    Jump,
}

/// The program of a graph.
pub fn emit(graph: &Graph, root: Node) -> Bpf {
    let mut writer = Writer { graph, code: Vec::with_capacity(1024), nodes: vec![Place::default(); graph.len()] };
    writer.enter(None, root);
    // Each node comes after those that it leads to: backwards, whoever leads to a node is met before it.
    for node in (0..=root).rev() {
        if let Kind::Branch { word, yes, no, .. } = graph.kind(node)
            && writer.nodes[node as usize].reached
        {
            writer.enter(Some(word), yes);
            writer.enter(Some(word), no);
        }
    }
    writer.node(root);
    writer.finish()
}

fn code(jump: Jump) -> u16 {
    match jump {
        Jump::Eq => 0x15,
        Jump::Gt => 0x25,
        Jump::Ge => 0x35,
        Jump::Set => 0x45,
    }
}

/// How a node is entered with this in the accumulator.
fn entry(graph: &Graph, accumulator: Option<Word>, node: Node) -> Entry {
    let Kind::Branch { word, .. } = graph.kind(node) else { return Entry::Jump };
    match accumulator {
        Some(held) if held == word => Entry::Jump,
        Some(held) if held == Word::at(word.offset) => Entry::Mask,
        _ => Entry::Load,
    }
}

/// What is known of a node.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Where its entries are, in the order of [`Entry`]; what is nearest if there are several.
    entries: [u32; 3],
    reached: bool,
    /// Entered at its load.
    load: bool,
    /// Entered behind its load.
    mask: bool,
    written: bool,
}

/// The program from its end: positions count from the last instruction.
struct Writer<'graph> {
    graph: &'graph Graph,
    code: Vec<[u8; 8]>,
    nodes: Vec<Place>,
}

impl Writer<'_> {
    /// Notes that a node is entered with this in the accumulator.
    fn enter(&mut self, accumulator: Option<Word>, node: Node) {
        let entry = entry(self.graph, accumulator, node);
        let place = &mut self.nodes[node as usize];
        place.reached = true;
        place.load |= entry == Entry::Load;
        place.mask |= entry == Entry::Mask;
    }

    /// Puts what a node leads to before the node, and close to it; `no` closest.
    fn node(&mut self, node: Node) {
        if std::mem::replace(&mut self.nodes[node as usize].written, true) {
            return;
        }
        match self.graph.kind(node) {
            Kind::Return(action) => self.action(node, action),
            Kind::Branch { word, jump, k, yes, no } => {
                self.node(yes);
                self.node(no);
                let yes = self.near(yes, entry(self.graph, Some(word), yes));
                let no = self.near(no, entry(self.graph, Some(word), no));
                self.branch(node, code(jump), k, yes, no);
                self.prologue(node, word);
            }
        }
    }

    fn push(&mut self, code: u16, yes: u8, no: u8, k: u32) {
        let (code, k) = (code.to_ne_bytes(), k.to_ne_bytes());
        self.code.push([code[0], code[1], yes, no, k[0], k[1], k[2], k[3]]);
    }

    /// The place of the next instruction.
    fn here(&self) -> u32 {
        u32::try_from(self.code.len()).unwrap_or(u32::MAX)
    }

    fn action(&mut self, node: Node, action: u32) {
        self.nodes[node as usize].entries[Entry::Jump as usize] = self.here();
        self.push(RETURN, 0, 0, action);
    }

    /// The position of an entry, near enough for a conditional jump that is written next.
    fn near(&mut self, node: Node, entry: Entry) -> u32 {
        let place = self.nodes[node as usize].entries[entry as usize];
        let distance = self.here() - 1 - place;
        if distance <= REACH {
            return place;
        }
        match self.graph.kind(node) {
            Kind::Return(action) => self.action(node, action),
            Kind::Branch { .. } => {
                self.nodes[node as usize].entries[entry as usize] = self.here();
                self.push(JA, 0, 0, distance);
            }
        }
        self.here() - 1
    }

    fn branch(&mut self, node: Node, code: u16, k: u32, yes: u32, no: u32) {
        let here = self.here();
        let distance = |place: u32| u8::try_from(here - 1 - place).unwrap_or(u8::MAX);
        self.nodes[node as usize].entries[Entry::Jump as usize] = here;
        self.push(code, distance(yes), distance(no), k);
    }

    /// What stands before the jump of a decision.
    fn prologue(&mut self, node: Node, word: Word) {
        let Place { load, mask, .. } = self.nodes[node as usize];
        if word.mask != u32::MAX && (mask || load) {
            self.nodes[node as usize].entries[Entry::Mask as usize] = self.here();
            self.push(AND, 0, 0, word.mask);
        }
        if load {
            self.nodes[node as usize].entries[Entry::Load as usize] = self.here();
            self.push(LOAD, 0, 0, word.offset);
        }
    }

    fn finish(self) -> Bpf {
        Bpf(self.code.into_iter().rev().flatten().collect())
    }
}
