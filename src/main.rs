//! The command line: arguments to a command, its error to a message and an exit status. Nothing else.

use std::process::ExitCode;

use clap::Parser;
use rt::commands::{Cli, Globals, arguments};
use rt::log::Log;

fn main() -> ExitCode {
    rt::sys::process::set_name(c"rt");
    let cli = Cli::parse_from(arguments::normal(std::env::args_os().collect()));
    let globals = match Globals::new(&cli) {
        Ok(globals) => globals,
        Err(error) => {
            Log::default().error(&error);
            return exit_code(error.status);
        }
    };
    match cli.run(&globals) {
        Ok(status) => exit_code(status),
        Err(error) => {
            globals.log.error(&error);
            exit_code(error.status)
        }
    }
}

/// Statuses are those of processes, 0 to 255.
fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(255))
}
