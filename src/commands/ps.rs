//! `rt ps`.

use std::process::{Command, Stdio};

use clap::Args as ClapArgs;
use serde_json::json;

use crate::error::Error;
use crate::state::Container;
use crate::sys::CallError;

use super::list::Format;
use super::{Globals, parse_id, print};

/// List the processes of a container
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// A table for people, or JSON for programs
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The container's id
    id: String,
    /// Arguments for the host's ps(1) [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    ps_args: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If there is no such container, or the host has no ps(1) for the table.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("ps {}", args.id));
    let container = Container::load(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    let mut pids = container.cgroup()?.processes().map_err(|failure| during(failure.into()))?;
    if pids.is_empty() {
        // A container without control groups: the first process is what is known.
        pids.extend(container.init().map(|(init, _)| init.pid));
    }
    let text = match args.format {
        Format::Json => format!("{}\n", json!(pids)),
        Format::Table => table(&pids, &args.ps_args).map_err(during)?,
    };
    print(&text)?;
    Ok(0)
}

/// The lines of ps(1) that are about these processes.
fn table(pids: &[i32], ps_args: &[String]) -> Result<String, Error> {
    let default = ["-ef".to_owned()];
    let ps_args = if ps_args.is_empty() { &default } else { ps_args };
    let output = Command::new("ps").args(ps_args).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| CallError::from_io("execve", "\"ps\"", &error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|title| title == "PID") else {
        return Err(Error::new("no-pid-column", format!("ps {}: expected a column PID in its output", ps_args.join(" "))));
    };
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|cell| cell.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let rows = lines.filter(is_ours).map(|line| format!("{line}\n"));
    Ok(std::iter::once(format!("{header}\n")).chain(rows).collect())
}
