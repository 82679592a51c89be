//! Conditions on the arguments of a system call, and what they are for a machine that compares 32-bit words.

use super::arch::Arch;
use super::graph::Word;

/// An operator of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `SCMP_CMP_NE`
    Ne,
    /// `SCMP_CMP_LT`
    Lt,
    /// `SCMP_CMP_LE`
    Le,
    /// `SCMP_CMP_EQ`
    Eq,
    /// `SCMP_CMP_GE`
    Ge,
    /// `SCMP_CMP_GT`
    Gt,
    /// `SCMP_CMP_MASKED_EQ`
    MaskedEq,
}

/// A condition on one argument; comparisons are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// How it is compared.
    pub op: Op,
    /// With what; masked already.
    pub value: u64,
    /// The bits that are compared: all but for [`Op::MaskedEq`].
    pub mask: u64,
}

impl Condition {
    /// The condition as an architecture sees it: where arguments have 32 bits, the upper halves do not count.
    #[must_use]
    pub fn on(mut self, arch: &Arch) -> Self {
        if !arch.wide {
            self.value &= u64::from(u32::MAX);
            self.mask &= u64::from(u32::MAX);
        }
        self
    }

    /// True if it holds for every value.
    pub fn is_void(&self) -> bool {
        self.mask == 0
    }

    /// True if it holds for this value: the meaning of a condition, for tests.
    pub fn holds(&self, argument: u64, arch: &Arch) -> bool {
        let argument = if arch.wide { argument } else { argument & u64::from(u32::MAX) };
        match self.op {
            Op::Ne => argument != self.value,
            Op::Lt => argument < self.value,
            Op::Le => argument <= self.value,
            Op::Eq => argument == self.value,
            Op::Ge => argument >= self.value,
            Op::Gt => argument > self.value,
            Op::MaskedEq => argument & self.mask == self.value,
        }
    }
}

/// A comparison of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    /// What is looked at.
    pub word: Word,
    /// Greater than `k`, or else equal to it.
    pub greater: bool,
    /// With what it is compared.
    pub k: u32,
}

impl Test {
    /// What the outcome of this test says about another one.
    pub fn implies(&self, outcome: bool, other: &Self) -> Option<bool> {
        if self.word.offset != other.word.offset {
            return None;
        }
        match (self.greater, outcome) {
            (false, true) => self.equal(other),
            (false, false) => self.unequal(other),
            (true, true) if other.greater => (other.k <= self.k).then_some(true),
            (true, true) => (other.k | !other.word.mask <= self.k).then_some(false),
            (true, false) if self.k == 0 => Self { greater: false, ..*self }.equal(other),
            (true, false) if other.greater => (other.k >= self.k).then_some(false),
            (true, false) => (other.k > self.k).then_some(false),
        }
    }

    fn equal(&self, other: &Self) -> Option<bool> {
        let (least, most) = (self.k, self.k | !self.word.mask);
        if other.greater {
            return if least > other.k { Some(true) } else { (most <= other.k).then_some(false) };
        }
        let common = self.word.mask & other.word.mask;
        if self.k & common != other.k & common {
            return Some(false);
        }
        (common == other.word.mask).then_some(true)
    }

    fn unequal(&self, other: &Self) -> Option<bool> {
        let narrower = !other.greater && self.word.mask & !other.word.mask == 0;
        (narrower && other.k & self.word.mask == self.k).then_some(false)
    }
}

/// A condition in words: `over or (high and low)`, negated or not. What is known to hold is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clause {
    /// The upper half is greater: the lower does not matter.
    pub over: Option<Test>,
    /// The upper half is equal.
    pub high: Option<Test>,
    /// The comparison of the lower half.
    pub low: Option<Test>,
    /// True if all this must not hold.
    pub negated: bool,
}

/// What became of a [`Clause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is decided.
    Decided(bool),
    /// There is something left to test.
    Open(Clause),
}

impl Clause {
    /// The words of a condition.
    pub fn of(condition: &Condition, arch: &Arch) -> Known {
        let (upper, lower) = words(condition.index, arch);
        let (value_high, value_low) = halves(condition.value);
        let (mask_high, mask_low) = halves(condition.mask);
        let equal = |offset, mask, k| (mask != 0).then_some(Test { word: Word { offset, mask }, greater: false, k });
        let greater = |offset, k| Test { word: Word::at(offset), greater: true, k };
        let high = if arch.wide { equal(upper, mask_high, value_high) } else { None };
        let over = arch.wide.then(|| greater(upper, value_high));
        let clause = match condition.op {
            Op::Eq | Op::Ne | Op::MaskedEq => Self { over: None, high, low: equal(lower, mask_low, value_low), negated: false },
            Op::Gt | Op::Le => Self { over, high, low: Some(greater(lower, value_low)), negated: false },
            Op::Ge | Op::Lt => {
                Self { over, high, low: value_low.checked_sub(1).map(|below| greater(lower, below)), negated: false }
            }
        };
        Self { negated: matches!(condition.op, Op::Ne | Op::Lt | Op::Le), ..clause }.settle(None)
    }

    /// An inequality where the upper half decides alone.
    pub fn upper(condition: &Condition, arch: &Arch) -> Known {
        let upper = Word::at(words(condition.index, arch).0);
        let value = halves(condition.value).0;
        let above = |k| Self { over: None, high: None, low: Some(Test { word: upper, greater: true, k }), negated: false };
        match (condition.op, value.checked_sub(1)) {
            (Op::Ne, _) => {
                let equal = Test { word: upper, greater: false, k: value };
                Self { over: None, high: None, low: Some(equal), negated: true }.settle(None)
            }
            (Op::Gt | Op::Ge, _) => above(value).settle(None),
            // Less, and nothing is less than 0.
            (_, None) => Known::Decided(false),
            (_, Some(below)) => Self { negated: true, ..above(below) }.settle(None),
        }
    }

    /// An inequality where the upper halves are equal: that they are, and what the lower half says.
    pub fn lower(condition: &Condition, arch: &Arch) -> [Known; 2] {
        let (upper, lower) = words(condition.index, arch);
        let value = halves(condition.value);
        let equal = Test { word: Word::at(upper), greater: false, k: value.0 };
        let equal = Self { over: None, high: Some(equal), low: None, negated: false };
        let negated = matches!(condition.op, Op::Ne | Op::Lt | Op::Le);
        if condition.op == Op::Ne {
            let low = Some(Test { word: Word::at(lower), greater: false, k: value.1 });
            return [equal.settle(None), Self { over: None, high: None, low, negated }.settle(None)];
        }
        let k = if matches!(condition.op, Op::Gt | Op::Le) { Some(value.1) } else { value.1.checked_sub(1) };
        let low = k.map(|k| Test { word: Word::at(lower), greater: true, k });
        [equal.settle(None), Self { over: None, high: None, low, negated }.settle(None)]
    }

    /// What is left of it once the outcome of a test is known.
    pub fn given(&self, test: &Test, outcome: bool) -> Known {
        self.settle(Some((test, outcome)))
    }

    /// The next test to make.
    pub fn next(&self) -> Option<Test> {
        self.over.or(self.high).or(self.low)
    }

    fn settle(&self, fact: Option<(&Test, bool)>) -> Known {
        let look = |test: Option<Test>, absent: bool| match test {
            None => Part::Decided(absent),
            Some(test) if test.greater && test.k == u32::MAX => Part::Decided(false),
            Some(test) => match fact.and_then(|(known, outcome)| known.implies(outcome, &test)) {
                Some(holds) => Part::Decided(holds),
                None => Part::Open(test),
            },
        };
        let (over, high, low) = (look(self.over, false), look(self.high, true), look(self.low, true));
        let equal = !matches!(high, Part::Decided(false)) && !matches!(low, Part::Decided(false));
        let certain = matches!(high, Part::Decided(true)) && matches!(low, Part::Decided(true));
        match (over, equal) {
            (Part::Decided(true), _) => Known::Decided(!self.negated),
            (_, true) if certain => Known::Decided(!self.negated),
            (Part::Decided(false), false) => Known::Decided(self.negated),
            (Part::Open(over), false) => Known::Open(Self { over: None, high: None, low: Some(over), ..*self }),
            (over, true) => Known::Open(Self { over: over.open(), high: high.open(), low: low.open(), ..*self }),
        }
    }
}

enum Part {
    Decided(bool),
    Open(Test),
}

impl Part {
    fn open(self) -> Option<Test> {
        match self {
            Self::Decided(_) => None,
            Self::Open(test) => Some(test),
        }
    }
}

/// The upper and the lower 32 bits.
pub fn halves(value: u64) -> (u32, u32) {
    let bytes = value.to_be_bytes();
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (word(0), word(4))
}

/// The offsets of the upper and the lower half of an argument in `struct seccomp_data` (linux/seccomp.h).
fn words(index: u32, arch: &Arch) -> (u32, u32) {
    let offset = 16 + 8 * index;
    if arch.big_endian { (offset, offset + 4) } else { (offset + 4, offset) }
}
