//! Lists of processors and memory nodes, the NUMA memory policy (set_mempolicy(2)) and the affinity of exec.

use serde::Serialize;

use crate::plan::Findings;
use crate::spec::{Field, MemoryPolicy};

/// More than any machine has: MAX_NUMNODES is at most 1024 and NR_CPUS at most 8192.
const MAX: u32 = 8192;

/// A set of processors or nodes, 64 to a word, as the kernel takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BitSet(pub Vec<u64>);

impl BitSet {
    fn insert(&mut self, number: u32) {
        let word = usize::try_from(number / 64).unwrap_or(0);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    /// Reads a list such as `0-3,7`; blanks around numbers and empty elements are passed over. `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < MAX);
        for element in text.split(',').filter(|element| !element.trim().is_empty()) {
            let (first, last) = element.split_once('-').unwrap_or((element, element));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            (first..=last).for_each(|number| set.insert(number));
        }
        Some(set)
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What set_mempolicy(2) is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyStep {
    /// `MPOL_*`.
    pub mode: i32,
    /// `MPOL_F_*`, which go into the mode.
    pub flags: i32,
    /// The nodes.
    pub nodes: BitSet,
    /// The name of the mode.
    pub name: &'static str,
}

/// What a mode wants of the list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nodes {
    None,
    Some,
    Any,
}

/// Modes by number (linux/mempolicy.h).
const MODES: [(&str, i32, Nodes); 7] = [
    ("MPOL_DEFAULT", 0, Nodes::None),
    ("MPOL_PREFERRED", 1, Nodes::Any),
    ("MPOL_BIND", 2, Nodes::Some),
    ("MPOL_INTERLEAVE", 3, Nodes::Some),
    ("MPOL_LOCAL", 4, Nodes::None),
    ("MPOL_PREFERRED_MANY", 5, Nodes::Some),
    ("MPOL_WEIGHTED_INTERLEAVE", 6, Nodes::Some),
];

/// Flags by bit (linux/mempolicy.h).
const FLAGS: [(&str, i32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// The names of the modes, for `features`.
pub fn mode_names() -> impl Iterator<Item = &'static str> {
    MODES.iter().map(|(name, ..)| *name)
}

/// The names of the flags, for `features`.
pub fn flag_names() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|(name, _)| *name)
}

/// Reads `linux.memoryPolicy`.
pub fn policy(config: &MemoryPolicy, field: &Field, findings: &mut Findings) -> Option<PolicyStep> {
    let Some((name, mode, wants)) = MODES.iter().find(|(name, ..)| *name == config.mode) else {
        let known: Vec<&str> = MODES.iter().map(|(name, ..)| *name).collect();
        findings.problem(field.key("mode"), format!("unknown mode {:?}; expected {}", config.mode, known.join(", ")));
        return None;
    };
    let text = config.nodes.as_deref().unwrap_or_default();
    let Some(nodes) = BitSet::parse(text) else {
        findings.problem(field.key("nodes"), format!("{text:?}: expected a list of nodes such as 0-3,7"));
        return None;
    };
    match wants {
        Nodes::None if !nodes.is_empty() => findings.problem(field.key("nodes"), format!("{text:?} with {name}; expected none")),
        Nodes::Some if nodes.is_empty() => {
            findings.problem(field.key("nodes"), format!("missing; {name} needs a list of nodes such as 0-3,7"));
        }
        Nodes::None | Nodes::Some | Nodes::Any => {}
    }
    let mut flags = 0;
    for (index, flag) in config.flags.iter().enumerate() {
        match FLAGS.iter().find(|(name, _)| name == flag) {
            Some((_, bit)) => flags |= bit,
            None => {
                let known = FLAGS.map(|(name, _)| name).join(", ");
                findings.problem(field.key("flags").index(index), format!("unknown flag {flag:?}; expected {known}"));
            }
        }
    }
    if flags & (1 << 14) != 0 && flags & (1 << 15) != 0 {
        findings.problem(field.key("flags"), "both MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES; expected one of them");
    }
    Some(PolicyStep { mode: *mode, flags, nodes, name })
}

/// Reads one list of `process.execCPUAffinity`; `None` if it is absent or empty.
pub fn affinity(text: Option<&String>, field: &Field, findings: &mut Findings) -> Option<BitSet> {
    let text = text?;
    match BitSet::parse(text) {
        Some(set) => Some(set).filter(|set| !set.is_empty()),
        None => {
            findings.problem(field.clone(), format!("{text:?}: expected a list of processors such as 0-3,7"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let set = |text| BitSet::parse(text).map(|set| set.0);
        assert_eq!(set("0-3,7"), Some(vec![0x8f]));
        assert_eq!(set(" 1 , 64 - 65 ,"), Some(vec![2, 3]));
        assert_eq!(set(""), Some(vec![]));
        for bad in ["a", "3-1", "-1", "1-", "8192", "1-2-3", "0x1", "4294967296"] {
            assert_eq!(set(bad), None, "{bad}");
        }
    }

    fn problems(mode: &str, nodes: Option<&str>, flags: &[&str]) -> Vec<String> {
        let config = MemoryPolicy {
            mode: mode.to_owned(),
            nodes: nodes.map(str::to_owned),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        let mut findings = Findings::default();
        let _ = policy(&config, &Field::new("linux.memoryPolicy"), &mut findings);
        findings.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn modes_say_whether_they_want_nodes() {
        let none: [String; 0] = [];
        for (mode, nodes) in
            [("MPOL_DEFAULT", None), ("MPOL_LOCAL", Some("")), ("MPOL_PREFERRED", None), ("MPOL_BIND", Some("0"))]
        {
            assert_eq!(problems(mode, nodes, &["MPOL_F_STATIC_NODES"]), none, "{mode}");
        }
        let missing = "linux.memoryPolicy.nodes: missing; MPOL_BIND needs a list of nodes such as 0-3,7";
        assert_eq!(problems("MPOL_BIND", None, &[]), [missing]);
        assert_eq!(problems("MPOL_LOCAL", Some("1"), &[]), ["linux.memoryPolicy.nodes: \"1\" with MPOL_LOCAL; expected none"]);
        assert_eq!(problems("MPOL_X", None, &[]).len(), 1);
        assert_eq!(problems("MPOL_BIND", Some("x"), &[]).len(), 1);
        assert_eq!(problems("MPOL_BIND", Some("0"), &["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]).len(), 1);
        assert_eq!(problems("MPOL_BIND", Some("0"), &["MPOL_F_X"]).len(), 1);
    }
}
