//! `rt list`.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use crate::error::Error;
use crate::id::ContainerId;
use crate::log::Log;
use crate::state::{Container, Store};

use super::{Globals, print};

/// List the containers
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// A table for people, or JSON for programs
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

/// The forms of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    Table,
    /// An array.
    Json,
}

/// Runs the command.
///
/// # Errors
/// If the state root cannot be read.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let containers = globals.store().and_then(|store| all(&store, &globals.log)).map_err(|error| error.during("list"))?;
    let text = match args.format {
        _ if args.quiet => containers.iter().map(|container| format!("{}\n", container.id())).collect(),
        Format::Table => table(&containers, &passwd()),
        // An empty list is null, as engines have it from runc.
        Format::Json if containers.is_empty() => "null\n".to_owned(),
        Format::Json => {
            let passwd = passwd();
            format!("{}\n", Value::Array(containers.iter().map(|container| entry(container, &passwd)).collect()))
        }
    };
    print(&text)?;
    Ok(0)
}

/// Every container that can be read. One that is made or deleted at this moment is left out; of what is damaged there is a warning.
fn all(store: &Store, log: &Log) -> Result<Vec<Container>, Error> {
    let load = |id: &ContainerId| match Container::load(store, id) {
        Ok(container) => Some(container.closed()),
        Err(error) => {
            let nobody_is_at_it = || store.find(id).ok()??.is_locked().ok().map(|locked| !locked);
            if nobody_is_at_it() == Some(true) {
                let hint = error.hint().map_or(String::new(), |hint| format!("; {hint}"));
                log.warning(&format!("{error}{hint}"));
            }
            None
        }
    };
    Ok(store.ids()?.iter().filter_map(load).collect())
}

fn entry(container: &Container, passwd: &str) -> Value {
    let mut state = container.state();
    state["owner"] = json!(owner(container, passwd));
    state
}

/// The host's users; without the file there are only numbers.
fn passwd() -> String {
    std::fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// The name of the user that made it, from the host's passwd, or its number.
fn owner(container: &Container, passwd: &str) -> String {
    let uid = container.record.owner;
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.to_string().as_str())).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("#{uid}"))
}

fn table(containers: &[Container], passwd: &str) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |container: &Container| {
        let pid = container.state()["pid"].to_string();
        let bundle = container.record.bundle.display().to_string();
        [
            container.id().to_string(),
            pid,
            container.status.to_string(),
            bundle,
            container.record.created.clone(),
            owner(container, passwd),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(containers.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(11);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join(" ").trim_end())
    };
    rows.iter().map(line).collect()
}
