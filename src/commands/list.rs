//! `rt list`.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use crate::error::Error;
use crate::id::ContainerId;
use crate::log::Log;
use crate::passwd;
use crate::state::{Glance, Store};

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
    let glances = globals.store().and_then(|store| all(&store, &globals.log)).map_err(|error| error.during("list"))?;
    let text = match args.format {
        _ if args.quiet => glances.iter().map(|glance| format!("{}\n", glance.id())).collect(),
        Format::Table => table(&glances, &mut Owners::default()),
        // An empty list is null, as engines have it from runc.
        Format::Json if glances.is_empty() => "null\n".to_owned(),
        Format::Json => {
            let mut owners = Owners::default();
            format!("{}\n", Value::Array(glances.iter().map(|glance| entry(glance, &mut owners)).collect()))
        }
    };
    print(&text)?;
    Ok(0)
}

/// Every container that can be read. One that is made or deleted at this moment is left out; of what is damaged there is a warning.
fn all(store: &Store, log: &Log) -> Result<Vec<Glance>, Error> {
    let mut procfs = None;
    let load = |id: &ContainerId| match Glance::load(store, id, &mut procfs) {
        Ok(glance) => Some(glance),
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

fn entry(glance: &Glance, owners: &mut Owners) -> Value {
    let mut state = glance.state();
    state["owner"] = json!(owners.name(glance.owner()));
    state
}

/// The names of the users that made containers, from the host's passwd, or their numbers: each is looked for once.
#[derive(Default)]
struct Owners {
    passwd: Option<String>,
    known: Vec<(u32, String)>,
}

impl Owners {
    fn name(&mut self, uid: u32) -> &str {
        let at = self.known.iter().position(|known| known.0 == uid).unwrap_or_else(|| {
            // Without the file there are only numbers.
            let passwd = self.passwd.get_or_insert_with(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default());
            let name = passwd::entries(passwd, uid).next().map_or_else(|| format!("#{uid}"), |entry| entry.name.to_owned());
            self.known.push((uid, name));
            self.known.len() - 1
        });
        &self.known[at].1
    }
}

fn table(glances: &[Glance], owners: &mut Owners) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |glance: &Glance| {
        let bundle = glance.bundle().display().to_string();
        let owner = owners.name(glance.owner()).to_owned();
        [glance.id().to_string(), glance.pid().to_string(), glance.status.to_string(), bundle, glance.created().to_owned(), owner]
    };
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(glances.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(11);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join(" ").trim_end())
    };
    rows.iter().map(line).collect()
}
