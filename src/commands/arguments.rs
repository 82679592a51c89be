//! Arguments as engines write them: Go's flag parser takes `-force` for `--force` and `--debug=false` for nothing, and so do we.

use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// Doubles the dash of long options that are written with one, and resolves `--flag=true` and `--flag=false`. What follows the id of exec
/// is the program's and stays as it is.
pub fn normal(arguments: Vec<OsString>) -> Vec<OsString> {
    let written_in_go =
        |argument: &OsString| single_dash(argument).is_some() || truth(argument).is_some() || argument == "--rootless";
    if arguments.iter().any(written_in_go) { in_clap(arguments) } else { arguments }
}

/// The value of `--flag=true` and the like, in the spellings of Go's strconv.ParseBool, and crun's `--tty=no`.
fn truth(argument: &OsString) -> Option<bool> {
    let (option, value) = argument.to_str()?.split_once('=')?;
    if !option.starts_with('-') {
        return None;
    }
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "yes" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "no" => Some(false),
        _ => None,
    }
}

/// Clap's form of a flag with a value: without it, or nothing at all. `None` for options that take values, and for what is unknown.
fn flag_with_value(command: &Command, argument: &OsString) -> Option<Option<OsString>> {
    let truth = truth(argument)?;
    let (dashed, _) = argument.to_str()?.split_once('=')?;
    let arg = match dashed.strip_prefix("--") {
        Some(name) => option(command, name)?,
        None => command.get_arguments().find(|arg| arg.get_short().is_some_and(|letter| dashed == format!("-{letter}")))?,
    };
    (!arg.get_action().takes_values()).then(|| truth.then(|| OsString::from(dashed)))
}

/// The name in `-name` or `-name=value`; one letter is a short option.
fn single_dash(argument: &OsString) -> Option<&str> {
    let name = argument.to_str()?.strip_prefix('-')?;
    let name = name.split('=').next()?;
    (name.len() > 1 && !name.starts_with('-')).then_some(name)
}

fn in_clap(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut cli = Cli::command();
    // The flags of the commands, too.
    cli.build();
    let mut command: &Command = &cli;
    let mut result = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter().peekable();
    result.extend(rest.next());
    while let Some(argument) = rest.next() {
        let long = single_dash(&argument).and_then(|name| option(command, name).map(|_| name.to_owned()));
        let argument = if long.is_some() { OsString::from(format!("-{}", argument.to_string_lossy())) } else { argument };
        if let Some(flag) = flag_with_value(command, &argument) {
            result.extend(flag);
            continue;
        }
        let text = argument.to_string_lossy().into_owned();
        if let Some(value) = rest.next_if(|value| is_apart(command, &text, value)) {
            result.push(OsString::from(format!("{text}={}", value.to_string_lossy())));
            continue;
        }
        result.push(argument);
        match text.strip_prefix("--") {
            Some("") => break,
            Some(name) if !name.contains('=') => {
                if option(command, name).is_some_and(takes_value) {
                    result.extend(rest.next());
                }
            }
            Some(_) => {}
            None if text.starts_with('-') => {
                let letter = text.chars().nth(1).filter(|_| text.len() == 2);
                if command.get_arguments().any(|arg| arg.get_short() == letter && letter.is_some() && takes_value(arg)) {
                    result.extend(rest.next());
                }
            }
            None => match command.find_subcommand(&text) {
                Some(verb) => command = verb,
                // The container's id, or what follows it.
                None if command.get_arguments().any(Arg::is_trailing_var_arg_set) => break,
                None => {}
            },
        }
    }
    result.extend(rest);
    result
}

/// True for the value of an option that may go without one, where the two are written apart: `--rootless true`.
fn is_apart(command: &Command, text: &str, value: &OsString) -> bool {
    let named = text.strip_prefix("--").and_then(|name| option(command, name)).filter(|arg| arg.is_require_equals_set());
    named.is_some_and(|arg| {
        arg.get_possible_values().iter().any(|possible| value.to_str().is_some_and(|v| possible.matches(v, false)))
    })
}

fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal_of(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        normal(words).iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_with_values() {
        assert_eq!(normal_of("rt --debug=false --systemd-cgroup=true run x"), "rt --systemd-cgroup run x");
        assert_eq!(normal_of("rt -debug=0 delete -force=1 x"), "rt delete --force x");
        assert_eq!(normal_of("rt --rootless=false run --bundle=true x"), "rt --rootless=false run --bundle=true x");
        assert_eq!(normal_of("rt exec --tty=true x ls --all=false"), "rt exec --tty x ls --all=false");
        assert_eq!(normal_of("rt exec --tty=no x ls --all=no"), "rt exec x ls --all=no");
        assert_eq!(normal_of("rt exec -t=false -d=true -e=1 x"), "rt exec -d -e=1 x");
    }

    #[test]
    fn a_value_that_may_be_left_out() {
        assert_eq!(normal_of("rt --rootless true run x"), "rt --rootless=true run x");
        assert_eq!(normal_of("rt -rootless auto list"), "rt --rootless=auto list");
        assert_eq!(normal_of("rt --rootless list"), "rt --rootless list");
        assert_eq!(normal_of("rt spec --rootless -b x"), "rt spec --rootless -b x");
    }

    #[test]
    fn long_options_with_one_dash() {
        assert_eq!(normal_of("rt delete -force x"), "rt delete --force x");
        assert_eq!(normal_of("rt -root /r create -bundle /b -pid-file=/p x"), "rt --root /r create --bundle /b --pid-file=/p x");
        assert_eq!(normal_of("rt delete -f x"), "rt delete -f x");
        assert_eq!(normal_of("rt exec -env A=b x ls -cwd"), "rt exec --env A=b x ls -cwd");
        assert_eq!(normal_of("rt exec -e -tty x ls"), "rt exec -e -tty x ls");
    }
}
