//! The manual pages in contrib/man, written from the table that reads the command line. `UPDATE_MAN=1 cargo test --test man` writes them anew;
//! without it they are compared with what would be written.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use clap::{Arg, Command, CommandFactory};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/man")
}

/// Text for roff: what it would take for its own is escaped (groff_char(7)).
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    text.lines()
        .map(|line| if line.starts_with('.') { format!("\\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', ':', ')', ']']) { "" } else { "." };
    format!("{}{end}", roff(text))
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default().trim_end_matches('.').to_owned()
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set())
}

fn value_of(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The line that names an option, and what it takes.
fn option_line(arg: &Arg) -> String {
    let short = arg.get_short().map(|letter| format!("\\fB\\-{letter}\\fR"));
    let long = arg.get_long().map(|name| format!("\\fB{}\\fR", roff(&format!("--{name}"))));
    let names = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    if !arg.get_action().takes_values() {
        return names;
    }
    let value = format!("\\fI{}\\fR", roff(&value_of(arg)));
    match (arg.is_require_equals_set(), arg.get_num_args().is_some_and(|range| range.min_values() == 0)) {
        (true, true) => format!("{names}[=\\fI{value}]"),
        (true, false) => format!("{names}={value}"),
        _ => format!("{names} {value}"),
    }
}

fn option_text(arg: &Arg) -> String {
    let mut text = arg.get_help().map(|help| sentence(&help.to_string())).unwrap_or_default();
    if !arg.get_action().takes_values() {
        return text;
    }
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("\\fB{}\\fR", roff(value.get_name())))
        .collect();
    if !values.is_empty() {
        write!(text, "\nOne of {}.", values.join(", ")).unwrap();
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| roff(&value.to_string_lossy())).collect();
    if !defaults.is_empty() {
        write!(text, "\nDefault: {}.", defaults.join(" ")).unwrap();
    }
    text
}

fn synopsis(command: &Command, name: &str) -> String {
    let mut text = format!(".B {}", roff(name));
    if shown(command).any(|arg| !arg.is_positional()) {
        text.push_str("\n.RI [ OPTIONS ]");
    }
    for arg in shown(command).filter(|arg| arg.is_positional()) {
        let dots = if arg.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
        let value = roff(&value_of(arg));
        let line = if arg.is_required_set() { format!("\n.IR {value} {dots}") } else { format!("\n.RI [ {value} ]{dots}") };
        text.push_str(line.trim_end());
    }
    text
}

fn arguments(command: &Command, text: &mut String) {
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) = shown(command).partition(|arg| arg.is_positional());
    if !positional.is_empty() {
        text.push_str(".SH ARGUMENTS\n");
    }
    for arg in positional {
        write!(text, ".TP\n.I {}\n{}\n", roff(&value_of(arg)), option_text(arg)).unwrap();
    }
    text.push_str(".SH OPTIONS\n");
    for arg in options {
        write!(text, ".TP\n{}\n{}\n", option_line(arg), option_text(arg)).unwrap();
    }
}

fn header(name: &str, about: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let title = name.to_uppercase();
    format!(
        ".\\\" Written by UPDATE_MAN=1 cargo test --test man.\n.TH {} 1 \"\" \"rt {version}\" \"User Commands\"\n.SH NAME\n{} \\- {}\n",
        roff(&title),
        roff(name),
        roff(about)
    )
}

/// What the command's own page cannot know from the table.
const MORE: &[(&str, &str)] = &[
    (
        "create",
        ".SH STDIO\nStandard input, output and error of the caller become those of the container's program. Descriptors above them are closed, but for those of\n.B \\-\\-preserve\\-fds\nand of socket activation\n.RB ( LISTEN_FDS ).\n",
    ),
    (
        "events",
        ".SH OUTPUT\nEvery line is an object with the members\n.BR type ,\n.B id\nand, with most types,\n.BR data .\nThat of the last one, of type\n.BR exit ,\nhas the\n.B code\nof the program or the\n.B signal\nthat ended it. Before Linux 6.15 it has neither if the program\\(aqs parent, such as an engine\\(aqs monitor, has waited for it already.\n",
    ),
    (
        "run",
        ".SH EXIT STATUS\nThat of the program, 128 + N if signal N killed it, 1 if the container could not be made or started.\n",
    ),
    ("exec", ".SH EXIT STATUS\nThat of the program, 128 + N if signal N killed it, 255 if it could not be started.\n"),
    ("check", ".SH EXIT STATUS\n0 if nothing stands in the way, 1 if something does.\n"),
    ("delete", ".SH EXIT STATUS\n0, also with\n.B \\-\\-force\nfor an id that nobody has; else 1.\n"),
];

fn page_of_command(command: &Command) -> String {
    let name = command.get_name();
    let mut text = header(&format!("rt-{name}"), &about(command));
    write!(text, ".SH SYNOPSIS\n{}\n", synopsis(command, &format!("rt {name}"))).unwrap();
    arguments(command, &mut text);
    for (_, more) in MORE.iter().filter(|(verb, _)| *verb == name) {
        text.push_str(more);
    }
    text.push_str(".SH SEE ALSO\n.BR rt (1)\n");
    text
}

const FILES_AND_VARIABLES: &str = ".SH FILES
.TP
.IR /run/rt ,\\ $XDG_RUNTIME_DIR/rt
The state of containers, of root and of an ordinary user, if
.B \\-\\-root
names no other folder. It can be removed when there is no container.
.TP
.I config.json
The bundle's configuration, as the OCI runtime specification has it.
.SH ENVIRONMENT
.TP
.B XDG_RUNTIME_DIR
See above.
.TP
.B NOTIFY_SOCKET
The service manager's socket: the container gets one of its own, and what it says there is passed on.
.TP
.BR LISTEN_FDS ,\\ LISTEN_PID ,\\ LISTEN_FDNAMES
Sockets of a service manager, which are handed on to the program.
.SH EXIT STATUS
0, or 1 if something failed or was not understood.
.BR rt\\-run (1)
and
.BR rt\\-exec (1)
end with the status of the program.
";

fn page_of_program(cli: &Command, verbs: &[&Command]) -> String {
    let mut text = header("rt", &about(cli));
    text.push_str(".SH SYNOPSIS\n.B rt\n.RI [ OPTIONS ]\n.I COMMAND\n.RI [ ARGUMENTS ]\n.SH DESCRIPTION\n");
    text.push_str(
        "Makes containers from bundles, as the OCI runtime specification says, and leaves nothing of itself running.\n",
    );
    text.push_str("Long options may be written with one dash or two. Those below stand before the command.\n");
    text.push_str(".SH COMMANDS\n");
    for verb in verbs {
        write!(text, ".TP\n.BR rt\\-{} (1)\n{}\n", verb.get_name(), sentence(&about(verb))).unwrap();
    }
    arguments(cli, &mut text);
    text.push_str(FILES_AND_VARIABLES);
    let see: Vec<String> = verbs.iter().map(|verb| format!(".BR rt\\-{} (1)", verb.get_name())).collect();
    write!(text, ".SH SEE ALSO\n{}\n", see.join(",\n")).unwrap();
    text
}

fn pages() -> BTreeMap<String, String> {
    let mut cli = rt::commands::Cli::command();
    cli.build();
    let verbs: Vec<&Command> = cli.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()).collect();
    let mut pages: BTreeMap<String, String> =
        verbs.iter().map(|verb| (format!("rt-{}.1", verb.get_name()), page_of_command(verb))).collect();
    pages.insert("rt.1".to_owned(), page_of_program(&cli, &verbs));
    pages
}

#[test]
fn the_pages_are_up_to_date() {
    let pages = pages();
    if std::env::var_os("UPDATE_MAN").is_some() {
        let _ = fs::remove_dir_all(folder());
        fs::create_dir_all(folder()).unwrap();
        pages.iter().for_each(|(name, text)| fs::write(folder().join(name), text).unwrap());
    }
    let found: BTreeMap<String, String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), pages.keys().collect::<Vec<_>>(), "UPDATE_MAN=1 writes them anew");
    for (name, text) in pages {
        assert!(found[&name] == text, "contrib/man/{name} is not what the command line says; UPDATE_MAN=1 writes it anew");
    }
}

/// Every long option of the help is on the page, and the page is roff without a complaint where a formatter is installed.
#[test]
fn the_pages_can_be_read() {
    for (name, text) in pages() {
        let verb = name.trim_start_matches("rt").trim_start_matches('-').trim_end_matches(".1").trim_end_matches('.');
        let help =
            Process::new(env!("CARGO_BIN_EXE_rt")).args((!verb.is_empty() && verb != "1").then_some(verb)).arg("--help").output();
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        let flags = help
            .split_whitespace()
            .map(|word| word.trim_end_matches(','))
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for flag in flags.filter(|flag| flag[2..].chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')) {
            assert!(text.contains(&roff(flag)), "{flag} is not on {name}");
        }
    }
    let formatted = Process::new("groff")
        .args(["-man", "-ww", "-z", "-Tutf8"])
        .args(pages().keys().map(|name| folder().join(name)))
        .stdin(Stdio::null())
        .output();
    match formatted {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stderr), "", "groff"),
        Err(_) => println!("skipped: groff is not installed"),
    }
}
