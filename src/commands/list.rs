//! `rt list`.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use crate::error::Error;
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
    let containers = globals.store().and_then(|store| all(&store)).map_err(|error| error.during("list"))?;
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

/// Every container that can be read: one that is deleted at this moment, or has no record, is left out.
fn all(store: &Store) -> Result<Vec<Container>, Error> {
    Ok(store.ids()?.iter().filter_map(|id| Container::load(store, id).ok().map(Container::closed)).collect())
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
