//! The table of tests and the loop over it: two at a time, one line each, details of failures at the end.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ctx::{Ctx, Suite};

/// Two containers at a time: enough to uncover shared state, gentle to a small machine.
const WORKERS: usize = 2;

/// Who may run a test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Root,
    User,
    Both,
}

/// How a test ended, unless it panicked.
pub enum Outcome {
    Pass,
    Skip(String),
}

/// One row of the table.
pub struct Test {
    pub module: &'static str,
    pub name: &'static str,
    pub who: Who,
    pub body: fn(&Ctx) -> Outcome,
}

impl Test {
    /// The name with its file, as printed and as matched by filters.
    pub fn title(&self) -> String {
        format!("{}::{}", self.module.rsplit("::").next().unwrap_or_default(), self.name)
    }
}

/// The tests whose title contains one of the filters (all, without a filter).
pub fn select<'a>(files: &[&'a [Test]], filters: &[&String]) -> Vec<&'a Test> {
    let wanted = |test: &&Test| filters.is_empty() || filters.iter().any(|f| test.title().contains(f.as_str()));
    files.iter().flat_map(|file| file.iter()).filter(wanted).collect()
}

#[derive(Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failures: Vec<(String, String)>,
}

/// Runs the tests that this user may run and returns the exit status of the suite.
pub fn run(tests: &[&Test]) -> i32 {
    let suite = match Suite::prepare() {
        Ok(suite) => suite,
        Err(why) => return nothing_to_run(&why, tests.len()),
    };
    remember_panics();
    let tests: Vec<&&Test> = tests.iter().filter(|test| suite.may_run(test.who)).collect();
    let tally = Mutex::new(Tally::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = run_one(&suite, test);
                    record(&mut tally.lock().unwrap(), test.title(), result);
                }
            });
        }
    });
    report(&tally.into_inner().unwrap())
}

/// Without a runtime the suite fails; without busybox or a compiler it has nothing to say.
fn nothing_to_run(why: &crate::ctx::Unprepared, tests: usize) -> i32 {
    match why {
        crate::ctx::Unprepared::NoRuntime(path) => {
            println!("no runtime at {path}: build it, or name one with RT=PATH\n\n0 passed, {tests} failed, 0 skipped");
            1
        }
        crate::ctx::Unprepared::Missing(what) => {
            println!("skipped: {what}\n\n0 passed, 0 failed, {tests} skipped");
            0
        }
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn remember_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.with(|slot| *slot.borrow_mut() = info.to_string())));
}

fn run_one(suite: &Suite, test: &Test) -> Result<Outcome, String> {
    let ctx = suite.ctx(&test.title());
    let result = catch_unwind(AssertUnwindSafe(|| (test.body)(&ctx)));
    result.map_err(|_| PANIC.with(|slot| slot.take()))
}

fn record(tally: &mut Tally, title: String, result: Result<Outcome, String>) {
    match result {
        Ok(Outcome::Pass) => {
            println!("ok       {title}");
            tally.passed += 1;
        }
        Ok(Outcome::Skip(why)) => {
            println!("skipped: {why}: {title}");
            tally.skipped += 1;
        }
        Err(panic) => {
            println!("FAILED   {title}");
            tally.failures.push((title, panic));
        }
    }
}

fn report(tally: &Tally) -> i32 {
    for (title, panic) in &tally.failures {
        println!("\n---- {title}\n{panic}");
    }
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failures.len(), tally.skipped);
    i32::from(!tally.failures.is_empty())
}
