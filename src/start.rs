//! How the program begins: what the C library does before `main`, but for asking the processor what it is.
//!
//! A static program of glibc's executes `cpuid` about seventy times before `main` (features, then the sizes of the caches, piece by piece),
//! to choose among versions of `memcpy` and its like. In a virtual machine every one of them leaves the guest: 0.1 to 0.6 ms
//! together, more than all else that `rt state` does. What a runtime copies is small; the versions that every x86-64 processor runs will do.
//! They are what the resolvers of glibc choose while nothing is known of the processor.
//!
//! So this is `__libc_start_main` (csu/libc-start.c) with the same steps in the same order, but for that one, and for what serves only
//! programs that load others (`dlopen`), that run in secure execution mode or that end their first thread by `pthread_exit`. It
//! depends on the inside of the library, so `build.rs` lets it take the library's place only where it knows the version; elsewhere the
//! library's own is linked, and nothing else changes. `docs/bench/README.md` has the numbers.

#![allow(unsafe_code, reason = "before main there is nothing that is safe: no relocations, no thread, no allocator")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "one order of steps, each of which relies on those before it")]
#![cfg_attr(not(own_start), allow(dead_code, reason = "compiled, so that it is checked, but not in the library's place"))]

use std::ffi::{c_char, c_int, c_long};
use std::ptr;

type Main = extern "C" fn(c_int, *const *const c_char, *const *const c_char) -> c_int;
type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Where copies begin to go around the caches, in bytes: three quarters of the 1 MiB that glibc takes for granted of a shared cache.
const AROUND_CACHES: c_long = 0x000c_0000;

/// glibc's own values of an unknown processor, in bytes (sysdeps/x86/cacheinfo.h).
#[rustfmt::skip]
#[allow(non_upper_case_globals, reason = "the names are the library's")]
mod caches {
    use super::{AROUND_CACHES, c_int, c_long};

    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_data_cache_size_half: c_long = 32 * 1024 / 2;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_data_cache_size: c_long = 32 * 1024;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_shared_cache_size_half: c_long = 1024 * 1024 / 2;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_shared_cache_size: c_long = 1024 * 1024;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_shared_non_temporal_threshold: c_long = AROUND_CACHES;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_rep_movsb_threshold: c_long = 2048;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_rep_movsb_stop_threshold: c_long = AROUND_CACHES;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_rep_stosb_threshold: c_long = 2048;
    #[cfg_attr(own_start, unsafe(no_mangle))] static __x86_string_control: c_int = 0;
}

unsafe extern "C" {
    static mut __environ: *const *const c_char;
    static mut __libc_stack_end: *const c_char;
    static _dl_random: *const [usize; 2];
    static __preinit_array_start: [Constructor; 0];
    static __preinit_array_end: [Constructor; 0];
    static __init_array_start: [Constructor; 0];
    static __init_array_end: [Constructor; 0];

    fn _dl_aux_init(auxiliary_vector: *const usize);
    fn __tunables_init(environment: *const *const c_char);
    fn _dl_relocate_static_pie();
    fn __libc_setup_tls();
    fn __libc_early_init(initial: bool);
    fn __libc_init_first(argc: c_int, argv: *const *const c_char, environment: *const *const c_char);
    fn _init();
}

/// Calls a function of one argument by its distance: addresses in tables are not right before the relocations.
macro_rules! call_unrelocated {
    ($function:path, $argument:expr) => {
        std::arch::asm!("call {}", sym $function, in("rdi") $argument, clobber_abi("C"))
    };
}

/// What `_start` of crt1.o calls, with the arguments' count and vector as the kernel has put them on the stack.
///
/// # Safety
/// It is the first thing that the program does.
#[cfg_attr(own_start, unsafe(no_mangle))]
unsafe extern "C" fn __libc_start_main(
    main: Main,
    argc: c_int,
    argv: *const *const c_char,
    _init_of_old: usize,
    _fini_of_old: usize,
    _end_of_loader: usize,
    stack_end: *const c_char,
) -> ! {
    // SAFETY: the order is the library's.
    unsafe {
        let environment = argv.offset(argc as isize + 1);
        let mut end = environment;
        while !(*end).is_null() {
            end = end.add(1);
        }
        call_unrelocated!(_dl_aux_init, end.add(1));
        call_unrelocated!(__tunables_init, environment);
        // Here the library asks the processor. The relocations also choose the versions of functions (IRELATIVE).
        call_unrelocated!(_dl_relocate_static_pie, ptr::null::<u8>());
        __environ = environment;
        __libc_stack_end = stack_end;
        __libc_setup_tls();
        let [canary, guard] = *_dl_random;
        // The lowest byte is zero, to end strings that overflow. The places are those of the x86-64 ABI's and of glibc's tcbhead_t.
        std::arch::asm!("mov fs:[0x28], {}", "mov fs:[0x30], {}", in(reg) canary & !0xff, in(reg) guard);
        __libc_early_init(true);
        __libc_init_first(argc, argv, environment);
        let each = |from: *const Constructor, to: *const Constructor| {
            let mut next = from;
            while !ptr::eq(next, to) {
                (*next)(argc, argv, environment);
                next = next.add(1);
            }
        };
        each((&raw const __preinit_array_start).cast(), (&raw const __preinit_array_end).cast());
        _init();
        each((&raw const __init_array_start).cast(), (&raw const __init_array_end).cast());
        libc::exit(main(argc, argv, environment))
    }
}
