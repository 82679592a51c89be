//! `rt create`.

use clap::Args as ClapArgs;

use crate::error::Error;
use crate::plan::StartSignal;
use crate::process::seal;

use super::Globals;
use super::make::{self, MakeArgs};

/// Make a container: everything but the program, which start runs
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    make: MakeArgs,
    /// Adopt no orphans of the container; create never does
    #[arg(long)]
    no_subreaper: bool,
}

/// Runs the command.
///
/// # Errors
/// If the container cannot be made; nothing is left then.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("create {}", args.make.id));
    let request = args.make.request(StartSignal::Fifo, true, globals).map_err(during)?;
    if args.make.dry_run {
        return super::plan::show(&request, globals, super::plan::Format::Text).map_err(during);
    }
    seal::seal().map_err(|failure| during(failure.into()))?;
    let made = make::make(&request, globals).map_err(during)?;
    made.launched.init.release();
    Ok(0)
}
