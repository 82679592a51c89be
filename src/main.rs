//! The command line: arguments to a command, its error to a message and an exit status. Nothing else.
//!
//! The program starts at the C library's `main` (`start`: how it comes there), not at the standard library's, which would read /proc/self/maps for a guard page and
//! install handlers for stack overflows: a dozen system calls that no container needs. What it does about closed stdio and about SIGPIPE
//! is done here.

#![no_main]

#[cfg(target_arch = "x86_64")]
mod start;

use std::ffi::OsString;

use rt::commands::{self, Globals, arguments, usage};
use rt::error::Error;
use rt::log::Log;
use rt::sys::heap;

#[global_allocator]
static ALLOCATOR: heap::Global = heap::Global;

/// What the C library calls.
#[allow(unsafe_code, reason = "the symbol is the program's entry point, of which there is one")]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    rt::sys::fs::ensure_stdio();
    rt::sys::signal::ignore_pipe();
    rt::sys::process::set_name(c"rt");
    rt::sys::stack::exchange_if_small(status);
    status()
}

/// Runs, and says how: a status is that of a process, 0 to 255. Not inlined: its frame is not for a stack that may be small.
#[inline(never)]
fn status() -> i32 {
    i32::from(u8::try_from(run()).unwrap_or(255))
}

fn run() -> i32 {
    let given: Vec<OsString> = std::env::args_os().collect();
    // Asked often, by engines and monitors: not worth the tree of all commands.
    if let [_, only] = given.as_slice()
        && commands::VERSION_FLAGS.iter().any(|flag| only == flag)
    {
        return commands::version().map_or_else(|error| error.status, |()| 0);
    }
    let cli = match usage::parse(&arguments::normal(given)) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let globals = match Globals::new(&cli) {
        Ok(globals) => globals,
        Err(error) => {
            Log::default().error(&error);
            return error.status;
        }
    };
    match cli.run(&globals) {
        Ok(0) if globals.strict && globals.log.warned() > 0 => {
            globals.log.error(&Error::new("warned", "done, but with warnings, which are errors (--strict)"));
            1
        }
        Ok(status) => status,
        Err(error) => {
            globals.log.error(&error);
            error.status
        }
    }
}
