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
const REACH: usize = 253;

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
    let mut writer = Writer { code: Vec::with_capacity(512), places: vec![[0; 3]; graph.nodes().len()] };
    let plan = entries(graph, root);
    let mut order = Vec::new();
    place(graph, root, &mut vec![false; graph.nodes().len()], &mut order);
    for node in order {
        match graph.nodes()[node] {
            Kind::Return(action) => writer.action(node, action),
            Kind::Branch { word, jump, k, yes, no } => {
                let yes = writer.near(graph, yes, entry(graph, Some(word), yes));
                let no = writer.near(graph, no, entry(graph, Some(word), no));
                writer.branch(node, code(jump), k, yes, no);
                writer.prologue(node, word, plan.mask[node], plan.load[node]);
            }
        }
    }
    writer.finish()
}

/// Puts what a node leads to before the node, and close to it; `no` closest.
fn place(graph: &Graph, node: Node, placed: &mut [bool], order: &mut Vec<Node>) {
    if std::mem::replace(&mut placed[node], true) {
        return;
    }
    if let Kind::Branch { yes, no, .. } = graph.nodes()[node] {
        place(graph, yes, placed, order);
        place(graph, no, placed, order);
    }
    order.push(node);
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
    let Kind::Branch { word, .. } = graph.nodes()[node] else { return Entry::Jump };
    match accumulator {
        Some(held) if held == word => Entry::Jump,
        Some(held) if held == Word::at(word.offset) => Entry::Mask,
        _ => Entry::Load,
    }
}

/// Which nodes are reached, and by which entries.
struct Entries {
    reached: Vec<bool>,
    load: Vec<bool>,
    mask: Vec<bool>,
}

fn entries(graph: &Graph, root: Node) -> Entries {
    let count = graph.nodes().len();
    let mut plan = Entries { reached: vec![false; count], load: vec![false; count], mask: vec![false; count] };
    let mark = |from: Option<Word>, node: Node, plan: &mut Entries| {
        plan.reached[node] = true;
        match entry(graph, from, node) {
            Entry::Load => plan.load[node] = true,
            Entry::Mask => plan.mask[node] = true,
            Entry::Jump => {}
        }
    };
    mark(None, root, &mut plan);
    for (node, kind) in graph.nodes().iter().enumerate().rev() {
        if let Kind::Branch { word, yes, no, .. } = *kind
            && plan.reached[node]
        {
            mark(Some(word), yes, &mut plan);
            mark(Some(word), no, &mut plan);
        }
    }
    plan
}

/// The program from its end: positions count from the last instruction.
struct Writer {
    code: Vec<[u8; 8]>,
    /// Of each node, where its entries are; what is nearest if there are several.
    places: Vec<[usize; 3]>,
}

impl Writer {
    fn push(&mut self, code: u16, yes: u8, no: u8, k: u32) {
        let (code, k) = (code.to_ne_bytes(), k.to_ne_bytes());
        self.code.push([code[0], code[1], yes, no, k[0], k[1], k[2], k[3]]);
    }

    fn action(&mut self, node: Node, action: u32) {
        self.places[node][Entry::Jump as usize] = self.code.len();
        self.push(RETURN, 0, 0, action);
    }

    /// The position of an entry, near enough for a conditional jump that is written next.
    fn near(&mut self, graph: &Graph, node: Node, entry: Entry) -> usize {
        let place = self.places[node][entry as usize];
        let distance = self.code.len() - 1 - place;
        if distance <= REACH {
            return place;
        }
        match graph.nodes()[node] {
            Kind::Return(action) => self.action(node, action),
            Kind::Branch { .. } => {
                self.places[node][entry as usize] = self.code.len();
                self.push(JA, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX));
            }
        }
        self.code.len() - 1
    }

    fn branch(&mut self, node: Node, code: u16, k: u32, yes: usize, no: usize) {
        let here = self.code.len();
        let distance = |place: usize| u8::try_from(here - 1 - place).unwrap_or(u8::MAX);
        self.places[node][Entry::Jump as usize] = here;
        self.push(code, distance(yes), distance(no), k);
    }

    /// What stands before the jump of a decision.
    fn prologue(&mut self, node: Node, word: Word, by_mask: bool, by_load: bool) {
        if word.mask != u32::MAX && (by_mask || by_load) {
            self.places[node][Entry::Mask as usize] = self.code.len();
            self.push(AND, 0, 0, word.mask);
        }
        if by_load {
            self.places[node][Entry::Load as usize] = self.code.len();
            self.push(LOAD, 0, 0, word.offset);
        }
    }

    fn finish(self) -> Bpf {
        Bpf(self.code.into_iter().rev().flatten().collect())
    }
}
