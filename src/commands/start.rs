//! `rt start`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::error::{Doing, Error, Failure};
use crate::hooks::{self, Moment};
use crate::launch::beginning::{BEGINNING, confirm_execution, let_begin};
use crate::launch::wait::{HOOKS_DONE, HOOKS_RUN};
use crate::notify::{self, Proxy};
use crate::procfs::ProcFs;
use crate::state::store::FIFO;
use crate::state::{Container, Record, Status, lifecycle};
use crate::sys::{At, fs, process};

use super::{Globals, delete, parse_id};

/// Run the program of a created container
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The container's id
    id: String,
}

/// Runs the command.
///
/// # Errors
/// If the container is not in the state created, or its program cannot be executed.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("start {}", args.id));
    let container = Container::load_locked(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    match container.status {
        Status::Created => {}
        Status::Stopped => return Err(container.wrong_status("start", "cannot start a container that has stopped")),
        Status::Paused => return Err(container.wrong_status("start", "cannot start a container in the paused state")),
        _ => return Err(container.wrong_status("start", "cannot start an already running container")),
    }
    if container.record.process.is_none() {
        return Err(during(Error::new("no-process", crate::check::NO_PROCESS)));
    }
    let hooked = |failure: &Failure| matches!(&failure.origin, Some(origin) if origin.starts_with("hooks."));
    let listener = Proxy::listen(&container.directory, &globals.log).map_err(|failure| during(failure.into()))?;
    let released = release(&container);
    // It runs. Hooks and readiness may take their time, and nobody has to wait for them to kill or delete it.
    container.directory.unlock().map_err(|failure| during(failure.into()))?;
    match released.and_then(|()| poststart(&container.record, None)) {
        Ok(()) => {}
        // runtime.md, "Lifecycle", steps 7 and 9: generate an error, stop the container, destroy it, run the poststop hooks.
        Err(failure) if hooked(&failure) => {
            let error = during(failure.into());
            let destroyed = globals.store().and_then(|store| delete::after_run(&store, &container.directory, globals));
            return Err(destroyed.err().map_or(error.clone(), |second| error.also(second)));
        }
        Err(failure) => return Err(during(failure.into())),
    }
    if let Some((process, pidfd)) = container.init() {
        notify::wait(listener, process.pid, pidfd, None).map_err(during)?;
    }
    Ok(0)
}

/// Opens the fifo, which is what init waits for, and listens there until the program has been executed or init says why not.
fn release(container: &Container) -> Result<(), Failure> {
    let (init, pidfd) = container.init().ok_or_else(|| Failure::because("container not running"))?;
    let directory = &container.directory;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let fifo = fs::openat(At::from(directory.fd()), Path::new(FIFO), flags, 0).doing(|| "open the start fifo")?;
    directory.remove_file(FIFO)?;
    let procfs = container.procfs()?;
    let has_executed = || procfs.has_executed(init.pid).is_ok_and(|(_, executed)| executed);
    let said = listen(&fifo, pidfd, has_executed)?;
    // Whatever was said besides, it was not said by init.
    if has_executed() {
        return Ok(());
    }
    if said.is_empty() || said.ends_with(&[HOOKS_DONE]) {
        return confirm_execution(init.pid, procfs);
    }
    if said.ends_with(&[HOOKS_RUN]) {
        return Err(Failure::because("init was killed while its hooks ran"));
    }
    let told: Failure =
        serde_json::from_slice(&said).unwrap_or_else(|_| Failure::because(String::from_utf8_lossy(&said).into_owned()));
    Err(told)
}

/// How often it is looked whether init has become the program, if the fifo does not say so.
const LOOK: Duration = Duration::from_millis(200);

/// Longer than anything that init says, in bytes.
const LONGEST: usize = 64 * 1024;

/// Reads what init says, until it has closed its end: by executing the program, or by dying. A program that was in the container before
/// (exec) may have got hold of the fifo, where an ordinary user made it or with the right to trace, and keep it open or write to it
/// without end: then it is enough that init has executed or is dead.
fn listen(fifo: &OwnedFd, pidfd: &OwnedFd, has_executed: impl Fn() -> bool) -> Result<Vec<u8>, Failure> {
    let mut said = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let ready = process::poll(&[(fifo.as_fd(), false), (pidfd.as_fd(), false)], Some(LOOK))?;
        if ready[0].readable {
            let len = fs::read_available(fifo, &mut buffer)?;
            let room = LONGEST.saturating_sub(said.len());
            said.extend_from_slice(&buffer[..len.min(room)]);
            if len == 0 || has_executed() || (room == 0 && ready[1].readable) {
                return Ok(said);
            }
        } else if ready[0].hangup {
            return Ok(said);
        } else if ready[1].readable {
            // Init is gone. If it never opened its end, nobody will.
            let late = process::poll(&[(fifo.as_fd(), false)], Some(Duration::ZERO))?;
            if !late[0].readable && !late[0].hangup {
                return Err(Failure::because("init was killed before it could execute the program"));
            }
        } else if has_executed() {
            return Ok(said);
        }
    }
}

/// Runs the poststart hooks. Where signals are blocked, one of `signals` ends them.
///
/// # Errors
/// Of the first one that fails.
pub fn poststart(record: &Record, signals: Option<&OwnedFd>) -> Result<(), Failure> {
    if record.poststart.is_empty() {
        return Ok(());
    }
    if let Some(init) = &record.init {
        let_begin(*init, BEGINNING, &ProcFs::open()?);
    }
    let state = lifecycle::state_document(record, Status::Running).to_string();
    let bundle = fs::openat(At::Cwd, &record.bundle, libc::O_PATH | libc::O_DIRECTORY, 0).ok();
    let output = hooks::Output::open(&record.annotations)?;
    let around = hooks::Around { cwd: bundle.as_ref(), signals, output: Some(&output) };
    hooks::run_all(&hooks::steps(&record.poststart, Moment::Poststart), &state, &around)
}
