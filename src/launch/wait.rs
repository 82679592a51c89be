//! The wait for `start`, with next to nothing in memory.
//!
//! Between `create` and `start` may lie days, and init is a copy of the launcher: with config.json, the plan, and all that was needed to
//! come that far. So it writes down what is left to be done, gives its memory back, and goes on from what it wrote.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure, Place, Role};
use crate::lsm::{self, LsmStep};
use crate::plan::{InitStep, Plan};
use crate::process::rlimits::{self, RlimitStep};
use crate::process::{ProcessStep, program};
use crate::procfs::ProcFs;
use crate::seccomp::{self, Bpf};
use crate::sys::process::{self, Image, Limit};
use crate::sys::{fs, heap, signal};

use super::init::clean_signals;

/// What `start` reads when hooks of init begin. If it is the last that it reads, init was killed meanwhile: nothing else says so once it has
/// been reaped. For JSON this is space, as is [`HOOKS_DONE`].
pub const HOOKS_RUN: u8 = b'\t';
/// What `start` reads when all hooks have succeeded.
pub const HOOKS_DONE: u8 = b'\n';

/// What is left to be done after the wait. The bytes of the filter follow it.
#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    steps: Vec<Todo>,
    /// The number of the first of them, and of all of init's steps.
    first: usize,
    of: usize,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    /// Of the filter.
    flags: u64,
}

/// A step, with the words for its failure.
#[derive(Debug, Serialize, Deserialize)]
struct Todo {
    step: Step,
    doing: String,
    origin: String,
}

/// The steps that come after the wait in nearly all plans.
#[derive(Debug, Serialize, Deserialize)]
enum Step {
    Lsm(LsmStep),
    SetLimit { resource: u32, limit: Limit },
    CleanSignals,
    Seccomp,
    Execute,
}

impl Step {
    fn of(step: &InitStep, plan: &Plan) -> Option<Self> {
        let listens = plan.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some());
        match step {
            InitStep::Process(ProcessStep::Lsm(step)) => Some(Self::Lsm(step.clone())),
            InitStep::Process(ProcessStep::SetLimit(step)) => Some(Self::SetLimit { resource: step.resource, limit: step.limit }),
            InitStep::Process(ProcessStep::CleanSignals) => Some(Self::CleanSignals),
            InitStep::Process(ProcessStep::Seccomp) if !listens => Some(Self::Seccomp),
            InitStep::Execute => Some(Self::Execute),
            _ => None,
        }
    }
}

/// Writes down what comes after the step of this index. `None` where that is more than this file knows (hooks, an agent that listens);
/// then init waits with what it has.
pub fn written_down(plan: &Plan, index: usize, program: &std::path::Path, env: &[String]) -> Option<Vec<u8>> {
    let left = &plan.init[index + 1..];
    let todo = |planned: &crate::plan::Planned<InitStep>| {
        let step = Step::of(&planned.step, plan)?;
        Some(Todo { step, doing: planned.step.to_string(), origin: planned.origin.to_string() })
    };
    let rest = Rest {
        steps: left.iter().map(todo).collect::<Option<_>>()?,
        first: index + 2,
        of: plan.init.len(),
        program: program.to_owned(),
        args: plan.process.as_ref()?.args.clone(),
        env: env.to_vec(),
        flags: plan.seccomp.as_ref().map_or(0, |filter| filter.flags),
    };
    let text = serde_json::to_vec(&rest).ok()?;
    let mut written = u32::try_from(text.len()).ok()?.to_ne_bytes().to_vec();
    written.extend(text);
    written.extend(plan.seccomp.iter().flat_map(|filter| filter.program.as_bytes()));
    Some(written)
}

/// Up to this size, in bytes, what was written down is read before the wait: it costs two pages, and `start` does not have to wait for it.
const SMALL: usize = 16 * 1024;

/// Waits, does what was written down, and becomes the program. The descriptors are those of the fifo and of procfs.
pub fn go_on(written: &[u8], [fifo, procfs]: [OwnedFd; 2]) -> ! {
    let procfs = ProcFs::from(procfs);
    let ready = (written.len() <= SMALL).then(|| Ready::read(written));
    heap::give_stack_back();
    if let Ok(fifo) = await_start(&fifo, &procfs) {
        let failure = match ready.unwrap_or_else(|| Ready::read(written)).and_then(|ready| ready.finish(&procfs)) {
            Ok(never) => match never {},
            Err(failure) => failure.shortened(),
        };
        // As in init: if nobody listens, nobody is left to be told.
        let _ = serde_json::to_vec(&failure).is_ok_and(|bytes| fs::write_all(&fifo, &bytes).is_ok());
    }
    process::exit_now(1)
}

/// Opening the fifo for writing waits until `start` opens it for reading.
///
/// # Errors
/// The kernel's.
pub fn await_start(fifo: &OwnedFd, procfs: &ProcFs) -> Result<OwnedFd, Failure> {
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        signal::exit_on(number)?;
    }
    signal::unblock_all()?;
    // Of two megabytes the wait needs a few pages.
    let opened = procfs.reopen_and_wait(fifo, libc::O_WRONLY).doing(|| "wait for start")?;
    signal::block_all()?;
    Ok(opened)
}

/// What was written down, as it is needed.
struct Ready {
    rest: Rest,
    filter: Bpf,
    image: Image,
}

impl Ready {
    fn read(written: &[u8]) -> Result<Self, Failure> {
        let unreadable = || Failure::because("what init wrote down for itself cannot be read");
        let (length, written) = written.split_first_chunk().ok_or_else(unreadable)?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let (text, filter) = written.split_at_checked(length).ok_or_else(unreadable)?;
        let rest: Rest = serde_json::from_slice(text).map_err(|_| unreadable())?;
        let filter = Bpf::from_bytes(filter.to_vec()).ok_or_else(unreadable)?;
        // Before a filter is loaded: it may be too late for memory then.
        let image = program::prepare(&rest.program, &rest.args, &rest.env)?;
        Ok(Self { rest, filter, image })
    }

    fn finish(&self, procfs: &ProcFs) -> Result<Infallible, Failure> {
        let Self { rest, filter, image } = self;
        for (at, todo) in rest.steps.iter().enumerate() {
            let done = match &todo.step {
                Step::Lsm(step) => lsm::attr::write(step, procfs),
                Step::SetLimit { resource, limit } => {
                    rlimits::apply(&RlimitStep { name: "a limit", resource: *resource, limit: *limit })
                }
                Step::CleanSignals => clean_signals(),
                Step::Seccomp => seccomp::load(filter, rest.flags, false).map(drop).map_err(Failure::from),
                Step::Execute => program::execute(image).map(|never| match never {}),
            };
            let place = Place { role: Role::Init, step: rest.first + at, of: rest.of };
            done.map_err(|failure| failure.doing(&todo.doing).origin(&todo.origin).at(place))?;
        }
        Err(Failure::because("the list of steps ends without a program"))
    }
}
