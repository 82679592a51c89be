//! The device filter of version 2: an eBPF program made from a list of rules.
//!
//! The program walks the list from its end and keeps the kinds of access that no rule has decided yet. A denial of one of
//! them ends it with a no, a permission takes its kinds away, and a yes follows when none is left:
//!
//! ```text
//! r2 = kind, r3 = undecided access, r4 = major, r5 = minor
//! if r3 == 0 return 1
//! for each rule, last one first:
//!     if r2 != kind or r4 != major or r5 != minor: next rule
//!     deny:  if r3 & access: return 0
//!     allow: r3 &= ~access; if r3 == 0 return 1
//! return 0
//! ```

use super::devices::{Access, Kind, Rule};

// Opcodes: class, source and operation of linux/bpf_common.h and linux/bpf.h. The jumps and the arithmetic are the 32-bit
// ones, since all values are.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV32_REG: u8 = 0xbc;
const MOV64: u8 = 0xb7;
const AND32: u8 = 0x54;
const RSH32: u8 = 0x74;
const JUMP: u8 = 0x05;
const JNE32: u8 = 0x56;
const JSET32: u8 = 0x46;
const EXIT: u8 = 0x95;

const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `struct bpf_insn`: opcode, destination and source register (4 bits each), jump offset, immediate value.
fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> u64 {
    // The two registers are bit fields, whose order is that of the bytes.
    let registers = if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    u64::from_ne_bytes([opcode, registers, o0, o1, i0, i1, i2, i3])
}

fn return_value(value: u32) -> [u64; 2] {
    [instruction(MOV64, 0, 0, 0, value), instruction(EXIT, 0, 0, 0, 0)]
}

/// The program for a list of rules in which the last match decides; what no rule is about is denied.
pub(super) fn program(rules: &[Rule]) -> Vec<u64> {
    // struct bpf_cgroup_dev_ctx: kind in the lower and access in the upper half of the first word, then major and minor.
    let mut program = vec![
        instruction(LOAD_WORD, KIND, 1, 0, 0),
        instruction(MOV32_REG, UNDECIDED, KIND, 0, 0),
        instruction(AND32, KIND, 0, 0, 0xffff),
        instruction(RSH32, UNDECIDED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, 1, 4, 0),
        instruction(LOAD_WORD, MINOR, 1, 8, 0),
        instruction(JNE32, UNDECIDED, 0, 2, 0),
    ];
    program.extend(return_value(1));
    for rule in rules.iter().rev() {
        program.extend(one_rule(rule));
        if rule.is_about_all() && rule.access == Access::ALL {
            // Whatever comes before does not matter.
            break;
        }
    }
    program.extend(return_value(0));
    program
}

fn one_rule(rule: &Rule) -> Vec<u64> {
    let kind = rule.kind.map(|kind| match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    });
    let tests: Vec<(u8, u32)> = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)]
        .into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect();
    let action = if rule.allow { allow(rule.access) } else { deny(rule.access) };
    let length = tests.len() + action.len();
    let jump = |(position, (register, value)): (usize, &(u8, u32))| {
        // To behind the action; the longest rule has 7 instructions.
        let offset = i16::try_from(length - position - 1).unwrap_or(i16::MAX);
        instruction(JNE32, *register, 0, offset, *value)
    };
    tests.iter().enumerate().map(jump).chain(action.iter().copied()).collect()
}

fn allow(access: Access) -> Vec<u64> {
    let [value, exit] = return_value(1);
    vec![instruction(AND32, UNDECIDED, 0, 0, Access::ALL.0 & !access.0), instruction(JNE32, UNDECIDED, 0, 2, 0), value, exit]
}

fn deny(access: Access) -> Vec<u64> {
    let [value, exit] = return_value(0);
    vec![instruction(JSET32, UNDECIDED, 0, 1, access.0), instruction(JUMP, 0, 0, 2, 0), value, exit]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::super::devices::allowed;
    use super::*;
    use proptest::prelude::*;

    /// Runs a program on a context as the kernel would; panics where the verifier would refuse it.
    fn run(program: &[u64], context: [u32; 3]) -> u32 {
        let mut registers: [Option<u32>; 11] = [None; 11];
        let mut at: isize = 0;
        for _ in 0..=program.len() {
            let bytes = program[usize::try_from(at).unwrap()].to_ne_bytes();
            let (destination, source) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
            let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let value = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            at += 1;
            let jump = isize::from(offset);
            match bytes[0] {
                LOAD_WORD => {
                    assert_eq!(source, 1);
                    registers[destination] = Some(context[usize::try_from(offset).unwrap() / 4]);
                }
                MOV32_REG => registers[destination] = Some(registers[source].unwrap()),
                MOV64 => registers[destination] = Some(value),
                AND32 => registers[destination] = Some(registers[destination].unwrap() & value),
                RSH32 => registers[destination] = Some(registers[destination].unwrap() >> value),
                JUMP => at += jump,
                JNE32 => at += if registers[destination].unwrap() == value { 0 } else { jump },
                JSET32 => at += if registers[destination].unwrap() & value == 0 { 0 } else { jump },
                EXIT => return registers[0].unwrap(),
                other => panic!("unknown instruction {other:#x}"),
            }
        }
        panic!("no end");
    }

    /// Numbers that rules and devices share, so that they meet; among them those whose upper bit is set.
    const NUMBERS: [u32; 5] = [0, 1, 254, 0x7fff_ffff, 0xffff_fffe];

    /// One in five is about everything: lists that allow or deny all in their middle are what engines write.
    fn rule() -> impl Strategy<Value = Rule> {
        let kind = prop_oneof![Just(None), Just(Some(Kind::Block)), Just(Some(Kind::Char))];
        let number = || prop_oneof![2 => Just(None), 3 => prop::sample::select(&NUMBERS[..]).prop_map(Some)];
        let some = (any::<bool>(), kind, number(), number(), 0u32..8).prop_map(|(allow, kind, major, minor, access)| Rule {
            allow,
            kind,
            major,
            minor,
            access: Access(access),
        });
        let all = (any::<bool>(), 1u32..8).prop_map(|(allow, access)| Rule {
            allow,
            kind: None,
            major: None,
            minor: None,
            access: Access(if access > 4 { 7 } else { access }),
        });
        prop_oneof![4 => some, 1 => all]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
        #[test]
        fn the_program_means_the_list(rules in prop::collection::vec(rule(), 0..24)) {
            let program = program(&rules);
            for (kind, number) in [(Kind::Block, 1u32), (Kind::Char, 2)] {
                for device in 0..36usize {
                    // One more than the rules know.
                    let of = |index: usize| NUMBERS.get(index).copied().unwrap_or(77);
                    let (major, minor) = (of(device / 6), of(device % 6));
                    for access in 0..8u32 {
                        let answer = run(&program, [access << 16 | number, major, minor]);
                        prop_assert_eq!(answer == 1, allowed(&rules, kind, major, minor, Access(access)));
                    }
                }
            }
        }
    }

    proptest! {
        /// What the config says about a device decides, as if there were no defaults: for one that is not among them, and no new node.
        #[test]
        fn defaults_change_nothing_else(rules in prop::collection::vec(rule(), 0..12)) {
            let configured: Vec<_> = rules.iter().map(|rule| (crate::spec::Field::from("d"), *rule)).collect();
            let whole = super::super::devices::list(&configured, &[]);
            let nothing = Rule { allow: false, kind: None, major: None, minor: None, access: Access::ALL };
            let plain: Vec<Rule> = [nothing].into_iter().chain(rules).collect();
            for kind in [Kind::Block, Kind::Char] {
                for (major, minor) in NUMBERS.iter().flat_map(|major| NUMBERS.map(|minor| (*major, minor))) {
                    for access in [Access(2), Access(4), Access(6)] {
                        let (ours, theirs) = (allowed(&whole, kind, major, minor, access), allowed(&plain, kind, major, minor, access));
                        prop_assert_eq!(ours, theirs, "{:?} {}:{} {:?}", kind, major, minor, access);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_behind_a_rule_about_everything() {
        let all = Rule { allow: true, kind: None, major: None, minor: None, access: Access::ALL };
        assert_eq!(program(&[all, all, all]).len(), 9 + 4 + 2);
    }
}
