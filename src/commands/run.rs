//! `rt run`: create and start, and delete when the program has ended.

use clap::Args as ClapArgs;

use crate::error::Error;
use crate::launch::launcher::Launched;
use crate::launch::supervise;
use crate::notify;
use crate::plan::StartSignal;
use crate::process::seal;
use crate::sys::process;

use super::make::{self, Made, MakeArgs};
use super::{Globals, delete, start};

/// Make a container, run its program, and delete it when the program has ended
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    make: MakeArgs,
    /// Return as soon as the program runs
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container when the program has ended
    #[arg(long)]
    keep: bool,
    /// Do not become the parent of the container's orphans
    #[arg(long)]
    no_subreaper: bool,
}

/// Runs the command. Returns the program's exit status, or 128 plus the signal that killed it.
///
/// # Errors
/// If the program does not come to run; nothing is left then.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("run {}", args.make.id));
    let request = args.make.request(StartSignal::Link, args.detach, globals).map_err(during)?;
    if args.make.dry_run {
        return super::plan::show(&request, globals, super::plan::Format::Text).map_err(during);
    }
    seal::seal().map_err(|failure| during(failure.into()))?;
    let subreaper = !args.detach && !args.no_subreaper;
    if subreaper {
        process::set_child_subreaper().map_err(|call| during(call.into()))?;
    }
    let made = make::make(&request, globals).map_err(during)?;
    let stay = Stay { detach: args.detach, keep: args.keep, subreaper };
    stay.with(made, globals).map_err(during)
}

/// What a command does with a container that it has made and that runs.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// Leave it alone.
    pub detach: bool,
    /// Do not delete it when its program has ended.
    pub keep: bool,
    /// Its orphans become our children.
    pub subreaper: bool,
}

impl Stay {
    /// Runs the poststart hooks and waits for the program's end, unless detached. Returns its exit status, or 128 plus the signal that killed
    /// it.
    ///
    /// # Errors
    /// If a hook fails; nothing is left then.
    pub fn with(self, made: Made, globals: &Globals) -> Result<i32, Error> {
        let Made { store, directory, record, mut launched } = made;
        // Other commands may change the container while its hooks and its program run.
        directory.unlock()?;
        let outcome = match start::poststart(&record, Some(&launched.signals)) {
            Err(failure) => Err(failure.into()),
            Ok(()) if self.detach => detach(&mut launched),
            Ok(()) => Ok(()),
        };
        if let Err(error) = outcome {
            // "generate an error, stop the container": the container of a run is deleted, too.
            drop(launched);
            return Err(match delete::after_run(&store, &directory, globals) {
                Ok(()) => error,
                Err(second) => error.also(second),
            });
        }
        if self.detach {
            launched.init.release();
            return Ok(0);
        }
        let exit = supervise::foreground(launched, self.subreaper)?;
        if !self.keep {
            // What the program returned is the answer, whatever is left to be said.
            if let Err(error) = delete::after_end(&store, &directory, globals) {
                globals.log.warning(&error.during(format!("delete {}", record.id)).to_string());
            }
        }
        Ok(exit.status())
    }
}

/// A command that goes away stays until the program is ready, if somebody wants to know.
fn detach(launched: &mut Launched) -> Result<(), Error> {
    let Launched { init, notify, signals, .. } = launched;
    init.pidfd().map_or(Ok(()), |pidfd| notify::wait(notify.take(), init.pid, pidfd, Some(signals)))
}
