//! `rt plan`: what each process would do, in order, and where each step comes from.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use crate::error::Error;
use crate::plan::request::Request;
use crate::plan::{StartSignal, print};

use super::{Globals, make};

/// Show what would be done for a bundle, and do nothing
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,
    /// The id of the container that would be made
    #[arg(long, default_value = "ID")]
    id: String,
    /// Text for people, or JSON for programs
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Plan what `rt run` would do instead of `rt create`
    #[arg(long)]
    run: bool,
}

/// What is looked at, and not made.
#[derive(Clone, Debug, ClapArgs)]
pub struct Subject {
    /// The bundle
    #[arg(default_value = ".")]
    bundle: PathBuf,
    /// Another file than config.json; a relative path starts in the bundle
    #[arg(long, value_name = "FILE", default_value = "config.json")]
    config: PathBuf,
}

impl Subject {
    /// What planning has to know.
    ///
    /// # Errors
    /// If the id is not one.
    pub fn request(&self, id: &str, globals: &Globals) -> Result<Request, Error> {
        Ok(Request { config: self.config.clone(), ..globals.request(id, &self.bundle)? })
    }
}

/// The forms of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Numbered lists.
    Text,
    /// An object.
    Json,
}

/// Runs the command.
///
/// # Errors
/// Every problem of the configuration at once.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let start = if args.run { StartSignal::Link } else { StartSignal::Fifo };
    let request = Request { start, ..args.subject.request(&args.id, globals)? };
    show(&request, globals, args.format).map_err(|error| error.during("plan"))
}

/// Prints the plan of a request.
///
/// # Errors
/// Every problem of the configuration at once.
pub fn show(request: &Request, globals: &Globals, format: Format) -> Result<i32, Error> {
    let prepared = make::prepare(request, globals)?;
    let text = match format {
        Format::Text => print::text(&prepared.plan),
        Format::Json => format!("{:#}\n", print::json(&prepared.plan)),
    };
    super::print(&text)?;
    Ok(0)
}
