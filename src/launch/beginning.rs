//! How a program is seen to begin, from outside.

use std::time::{Duration, Instant};

use crate::error::Failure;
use crate::procfs::ProcFs;
use crate::state::record::ProcessRef;

/// Waits until init has become the program, or is known to have died before.
///
/// The end of the link says that one of both has happened or is about to; the kernel keeps for each process whether it has executed
/// anything, which nothing in the container can change.
///
/// # Errors
/// If it died.
pub fn confirm_execution(pid: i32, procfs: &ProcFs) -> Result<(), Failure> {
    loop {
        match procfs.has_executed(pid) {
            Ok(('Z' | 'X', false)) => {
                let hint = "a seccomp profile that kills on execve(2) has this effect";
                return Err(Failure::because("init was killed before it could execute the program").hint(hint));
            }
            Ok((_, false)) => std::thread::sleep(Duration::from_micros(50)),
            // It has, or it has ended and was reaped: a short program.
            _ => return Ok(()),
        }
    }
}

/// How long a program may take to begin before others go on all the same.
pub const BEGINNING: Duration = Duration::from_millis(100);
/// The pause between two looks at it.
const PAUSE: Duration = Duration::from_micros(200);

/// Waits until the program waits for something itself, or has ended; a program that does neither gets a bounded time.
///
/// At the end of execve(2) not one instruction of the program has run. What it does first without waiting for anybody (setting its
/// signal handlers, a line of output) is done when it sleeps or has ended; runnable, or waiting for its own pages to be read (R and D
/// in proc_pid_stat(5)), it is still on its way there.
pub fn let_begin(init: ProcessRef, within: Duration, procfs: &ProcFs) {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        match procfs.process_stat(init.pid) {
            Ok(('R' | 'D', start_time)) if start_time == init.start_time => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}
