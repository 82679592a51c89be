//! Seccomp: from `linux.seccomp` of config.json to a classic BPF program, without a library in between.
//!
//! ```text
//! spec::Seccomp --plan--> Policy --compile--> Graph --emit--> Bpf --load--> kernel
//!                 strings           numbers, order    layout
//! ```
//!
//! [`mod@plan`] understands the strings, [`compile`] turns the rules into a graph of decisions (`decide`: one system call;
//! `order`: which rule goes first; [`condition`]: 64-bit arguments in 32-bit words), `emit` lays it out, [`mod@load`] is all that
//! happens in the process to be confined. [`table`] and [`arch`] hold what there is to know about system calls.
//!
//! # What a profile means
//!
//! The specification leaves the meaning to libseccomp, and so do the profiles that exist. Where the actions of our program
//! and that of libseccomp are compared (tests/seccomp_oracle.rs), they are the same:
//! - The native architecture is always part of the filter; `architectures` adds to it. Calls of any other architecture kill
//!   the thread. x32 is an architecture of its own.
//! - A rule whose action is the default one does nothing, not even in front of another rule of the same system call.
//! - Several conditions on one argument in one rule: each condition of that rule is a rule of its own, as in runc.
//! - `order` tells which of several rules of one system call decides.
//! - Arguments are compared unsigned. On 32-bit architectures only the lower halves of argument and value count.
//! - Calls that x86 and others can also make through `socketcall` and `ipc` are filtered there too, by their selector.
//! - Names that an architecture does not have are skipped there; names that no table knows are listed in
//!   [`Filter::unknown`](plan::Filter::unknown) and cause no warning, because profiles are written for newer kernels, too.
//!
//! libseccomp has flaws that we do not copy; random profiles bring them out, those in use hardly do. Rules with a condition
//! other than an equality on one argument, and conditions on further ones, share parts of its tree, so that a condition of one
//! rule comes to hold for another. And some profiles get answers that no rule gives: with 2.5.4, `arg < 0x100000000` and
//! `arg < 0` on one argument let 1 through: having looked at the lower half for one inequality, it takes that for the upper half for the
//! next, and passes a rule over that holds. It passes one over, too, that makes the comparison of another rule with the opposite outcome,
//! as if that one were the more general: of `a2 == 0` and `a0 == 1 && a2 != 0` the second. (A test shows all three.) It also refuses some profiles that are clear. The random tests let
//! libseccomp's answer go unheeded only if no rule of the profile gives it, or if it is the answer of the profile without a rule that holds and is
//! passed over like this; ours is in any case one that a rule gives, by a third reading that knows no halves. What to expect: of rules that
//! contradict each other on such a call, ours obeys the first in
//! `order`; libseccomp's filter may obey a later one.
//!
//! # System calls that are newer than the profile
//!
//! A C library that finds a new system call tries it and falls back to an old one if the answer is `ENOSYS`. Profiles answer
//! `EPERM` to what they do not know, and then nothing falls back: that broke containers with each new `glibc`. Therefore, as in
//! runc, numbers above the highest one that the profile speaks of (on that architecture, whatever it says about it) get
//! `ENOSYS`: its author cannot have meant them. The call is denied either way, and what the author did know keeps its answer.
//! This is done where the default is `SCMP_ACT_ERRNO` (with anything but `ENOSYS`, where there is nothing to do), or kills or
//! traps: to die from a probe that would have fallen back serves nobody. A default that lets calls through, logs them, or
//! asks a tracer stays as it is, because there the default was meant to see everything.

pub mod arch;
pub mod compile;
pub mod condition;
mod decide;
mod emit;
mod graph;
pub mod load;
pub mod notify;
mod order;
pub mod plan;
pub mod table;

pub use load::load;
pub use plan::{Filter, Listener, plan};

/// A classic BPF program: `struct sock_filter`s of 8 bytes in the byte order of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bpf(Vec<u8>);

impl Bpf {
    /// The program as the kernel takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A program from its bytes; `None` if these are not whole instructions.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        bytes.len().is_multiple_of(8).then_some(Self(bytes))
    }

    /// The number of instructions.
    pub fn len(&self) -> usize {
        self.0.len() / 8
    }

    /// True if there is no instruction.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
