//! `rt state`.

use clap::Args as ClapArgs;

use crate::error::Error;
use crate::state::Container;

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
    let container = Container::load(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    print_json(&container.state())?;
    Ok(0)
}
