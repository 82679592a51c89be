//! What the command line parser cannot make sense of, as an [`Error`] like any other: one line, in the log as well, exit status 1.
//!
//! Engines probe a runtime by wrong use: Podman looks for `flag needs an argument` in the answer to an option without its value. The
//! wording of such texts, and the exit status, are therefore those that engines know from runc; guesses at what was meant are left out.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use crate::error::Error;
use crate::log::{Format, Level, Log};

use super::{Cli, print, targets};

/// Reads the command line. `Err` has the exit status: of help, which was printed, or of an error, which was reported.
///
/// # Errors
/// See above.
pub fn parse(arguments: &[OsString]) -> Result<Cli, i32> {
    let wrong = match Cli::command().try_get_matches_from(arguments).and_then(|mut found| Cli::from_arg_matches_mut(&mut found)) {
        Ok(cli) => return Ok(cli),
        Err(wrong) => wrong,
    };
    if wrong.kind() == ErrorKind::DisplayHelp {
        return Err(match print(&wrong.render().to_string()) {
            // A reader that has seen enough closes the pipe.
            Err(error) if error.code != "EPIPE" => {
                log_of(arguments).error(&error);
                error.status
            }
            _ => 0,
        });
    }
    let error = translate(&wrong, arguments);
    log_of(arguments).error(&error);
    Err(error.status)
}

/// The log that the flags before the command ask for, as far as they can be read.
fn log_of(arguments: &[OsString]) -> Log {
    let Ok(found) = Cli::command().ignore_errors(true).try_get_matches_from(arguments) else { return Log::default() };
    let format = found.try_get_one::<Format>("log_format").ok().flatten().copied().unwrap_or_default();
    let target = found.try_get_one::<OsString>("log").ok().flatten();
    let systemd_log = found.try_get_one::<bool>("systemd_log").ok().flatten().copied().unwrap_or_default();
    Log::open(targets(target.map(OsString::as_os_str), systemd_log), format, Level::default()).unwrap_or_default()
}

fn translate(wrong: &clap::Error, arguments: &[OsString]) -> Error {
    let verb = verb(arguments);
    let error = Error::new("usage", message(wrong)).hint_text(match &verb {
        Some(verb) => format!("`rt {verb} --help` lists what is understood"),
        // The words of runc come first, for whoever looks for them.
        None if wrong.kind() == ErrorKind::InvalidSubcommand => {
            format!(
                "No help topic for '{}': `rt --help` lists what is understood",
                text_of(wrong, ContextKind::InvalidSubcommand)
            )
        }
        None => "`rt --help` lists what is understood".to_owned(),
    });
    match verb {
        Some(verb) => error.during(verb),
        None => error,
    }
}

/// The command's name, if one was recognized.
fn verb(arguments: &[OsString]) -> Option<String> {
    let lenient = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok()?;
    lenient.subcommand_name().map(str::to_owned)
}

fn text_of(wrong: &clap::Error, kind: ContextKind) -> String {
    match wrong.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(list)) => list.join(", "),
        _ => String::new(),
    }
}

fn message(wrong: &clap::Error) -> String {
    let text = |kind| text_of(wrong, kind);
    let (argument, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    // What may be left out is named like what may not.
    let argument = match argument.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(name) => format!("<{name}>"),
        None => argument,
    };
    // `--bundle <DIR>`: what is in front of the blank is the option.
    let option = argument.split([' ', '=', '[']).next().unwrap_or("").to_owned();
    match wrong.kind() {
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues | ErrorKind::NoEquals
            if value.is_empty() && option.starts_with('-') =>
        {
            format!("flag needs an argument: {option}")
        }
        ErrorKind::UnknownArgument if option.starts_with('-') => format!("flag provided but not defined: {option}"),
        ErrorKind::UnknownArgument => format!("too many arguments: {argument:?}"),
        ErrorKind::MissingRequiredArgument => format!("missing: {argument}"),
        ErrorKind::InvalidSubcommand => format!("no such command: {:?}", text(ContextKind::InvalidSubcommand)),
        ErrorKind::InvalidValue => {
            format!("invalid value {value:?} for {option}; expected {}", text(ContextKind::ValidValue).replace(", ", " or "))
        }
        ErrorKind::ValueValidation => {
            let source = std::error::Error::source(wrong);
            let why = match source {
                Some(number) if number.is::<std::num::ParseIntError>() => "; expected a whole number in range".to_owned(),
                other => other.map(|source| format!(": {source}")).unwrap_or_default(),
            };
            format!("invalid value {value:?} for {option}{why}")
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        other => format!("{argument}: {other}"),
    }
}
