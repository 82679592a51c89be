//! `rt check`: what stands in the way of a bundle on this host.

use clap::Args as ClapArgs;
use serde_json::json;

use crate::check::{self, Finding, Severity, Subject};
use crate::error::Error;
use crate::plan::request::Request;

use super::plan::{self, Format};
use super::{Globals, make};

/// Find everything that stands in the way of a bundle on this host, and do nothing
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    subject: plan::Subject,
    /// The id of the container that would be made
    #[arg(long, default_value = "check")]
    id: String,
    /// Text for people, or JSON for programs
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command. Returns 1 if something is fatal.
///
/// # Errors
/// If the check itself cannot be carried out.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during("check");
    let request = args.subject.request(&args.id, globals).map_err(during)?;
    let mut found = look(&request, globals).map_err(during)?;
    if globals.strict {
        found.iter_mut().filter(|f| f.severity == Severity::Warning).for_each(|f| f.severity = Severity::Fatal);
    }
    super::print(&match args.format {
        Format::Text => text(&found),
        Format::Json => json(&request, &found),
    })?;
    Ok(i32::from(found.iter().any(|finding| finding.severity == Severity::Fatal)))
}

fn look(request: &Request, globals: &Globals) -> Result<Vec<Finding>, Error> {
    let (prepared, host, findings) = match make::interpret(request, globals) {
        Ok(interpreted) => interpreted,
        Err(error) => return Ok(vec![Finding::of_unreadable(&error)]),
    };
    let mut record = make::record(&prepared, request, &crate::cgroups::CgroupRecord::default());
    let subject = Subject { spec: &prepared.spec, host: &host, plan: &prepared.plan, findings: &findings };
    Ok(check::check(&subject, &mut record, &globals.log)?)
}

/// One line for each, with its hint below, and the sum.
fn text(found: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { code, severity, path, text, hint } in found {
        // A refusal names its origin itself.
        let place = if path.is_empty() || text.contains(path.as_str()) { String::new() } else { format!("{path}: ") };
        let line: String = format!("{}: {place}{text} [{code}]", severity.name()).chars().map(printable).collect();
        out.push_str(&line);
        out.push('\n');
        if let Some(hint) = hint {
            out.push_str(&format!("   hint: {hint}\n"));
        }
    }
    let count = |severity| found.iter().filter(|finding| finding.severity == severity).count();
    let [fatal, warnings, notes] = Severity::ALL.map(count);
    out.push_str(&format!("{fatal} fatal, {warnings} warnings, {notes} notes\n"));
    out
}

/// What a bundle says does not steer the caller's terminal.
fn printable(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

fn json(request: &Request, found: &[Finding]) -> String {
    let ok = !found.iter().any(|finding| finding.severity == Severity::Fatal);
    format!("{:#}\n", json!({ "bundle": request.bundle, "ok": ok, "findings": found }))
}
