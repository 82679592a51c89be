//! A stack of our own for callers that leave us too little of one (`ulimit -s 64`).
//!
//! The limit is the payload's business as well, so it is not raised: it may be a hard one, and it is inherited. What is executed later
//! gets its stack from the kernel, by the limit, as if nothing had been here.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::process::exit_now;

/// A limit from which on the stack that the kernel gives is enough, in bytes: several times what a debug build was seen to need.
const ENOUGH: u64 = 1 << 20;
/// The size of our own, in bytes. What is not used costs address space only.
const OWN: usize = 8 << 20;

/// What is called on the other stack, whose first function takes no pointers.
static WORK: OnceLock<fn() -> i32> = OnceLock::new();

extern "C" fn work_and_end() {
    exit_now(WORK.get().map_or(1, |work| work()))
}

/// Calls `work` on a stack of our own and ends the process with the status that it returns. Returns if the stack at hand is large enough, or
/// if there is no memory for another one: then it is worth a try as things are.
pub fn exchange_if_small(work: fn() -> i32) {
    if limit() >= ENOUGH || WORK.set(work).is_err() {
        return;
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping at a place that the kernel chooses.
    let stack = unsafe { libc::mmap(null_mut(), OWN, protection, flags, -1, 0) };
    if stack == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the first page, which nobody uses; whoever needs more than all of the rest is ended there as on any stack.
    unsafe { libc::mprotect(stack, 4096, libc::PROT_NONE) };
    let mut context = MaybeUninit::<libc::ucontext_t>::zeroed();
    // SAFETY: the structure is large enough, and outlives the call.
    if unsafe { libc::getcontext(context.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: it is all zeroes or what the call has written, and there is no bit pattern that it must not have.
    let mut context = unsafe { context.assume_init() };
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = OWN;
    context.uc_link = null_mut();
    // SAFETY: the context was filled in by getcontext, the stack is ours for the life of the process, and the function takes no arguments.
    unsafe { libc::makecontext(&raw mut context, work_and_end, 0) };
    // SAFETY: the context is complete. On success this never returns, so that nothing of this frame is used again.
    unsafe { libc::setcontext(&raw const context) };
}

/// How large the stack may become, in bytes (getrlimit(2)); `u64::MAX` for no limit.
fn limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) } == 0 { limit.rlim_cur } else { u64::MAX }
}
