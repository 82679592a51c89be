//! `rt state`.

use clap::Args as ClapArgs;

use crate::error::Error;
use crate::state::Glance;

use super::{Globals, parse_id, print_json};

/// Print the state of a container as JSON
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The container's id
    id: String,
}

/// Runs the command.
///
/// # Errors
/// If there is no such container.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("state {}", args.id));
    let glance = Glance::load(&globals.store()?, &parse_id(&args.id).map_err(during)?, &mut None).map_err(during)?;
    print_json(&glance.state())?;
    Ok(0)
}
