//! `rt pause` and `rt resume`.

use clap::Args as ClapArgs;

use crate::error::Error;
use crate::state::{Container, Status};
use crate::sys::process;

use super::{Globals, parse_id};

/// Freeze all processes of a container
#[derive(Clone, Debug, ClapArgs)]
pub struct PauseArgs {
    /// The container's id
    id: String,
}

/// Thaw all processes of a container
#[derive(Clone, Debug, ClapArgs)]
pub struct ResumeArgs {
    /// The container's id
    id: String,
}

/// Runs `rt pause`.
///
/// # Errors
/// If the container does not run, or cannot be frozen.
pub fn pause(args: &PauseArgs, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("pause {}", args.id));
    let container = Container::load_locked(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    match container.status {
        Status::Created | Status::Running => {}
        Status::Paused => return Err(container.wrong_status("pause", "container paused already")),
        _ => return Err(container.wrong_status("pause", "container not running")),
    }
    container.cgroup()?.freeze().map_err(|failure| during(failure.into()))?;
    // Nobody waits for the lock in order to kill it.
    match container.init() {
        Some((_, pidfd)) if process::pidfd_is_dead(pidfd) => {
            Err(during(Error::new("wrong-status", "container not running (it has ended meanwhile)")))
        }
        _ => Ok(0),
    }
}

/// Runs `rt resume`.
///
/// # Errors
/// If the container is not paused.
pub fn resume(args: &ResumeArgs, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("resume {}", args.id));
    let container = Container::load_locked(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    if container.status != Status::Paused {
        return Err(container.wrong_status("resume", "container not paused"));
    }
    container.cgroup()?.thaw().map_err(|failure| during(failure.into()))?;
    Ok(0)
}
