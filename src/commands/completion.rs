//! `rt completion`: what a shell needs to know to complete a command line, written from the same table that reads one.

use clap::{Args as ClapArgs, Command, CommandFactory, ValueEnum};

use crate::error::Error;

use super::{Cli, print};

/// Print the completions for a shell
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The shell
    #[arg(value_enum, required_unless_present = "by_flag")]
    shell: Option<Shell>,
    /// The shell, as youki has it
    #[arg(short = 's', long = "shell", value_enum, value_name = "SHELL", conflicts_with = "shell")]
    by_flag: Option<Shell>,
}

/// The shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// For /usr/share/bash-completion/completions/rt.
    Bash,
    /// For _rt in a directory of fpath.
    Zsh,
    /// For /usr/share/fish/vendor_completions.d/rt.fish.
    Fish,
}

/// Runs the command.
///
/// # Errors
/// If nobody reads it.
pub fn run(args: &Args) -> Result<i32, Error> {
    let mut cli = Cli::command();
    cli.build();
    // The parser sees to it that there is one, in one of the two places.
    for shell in args.shell.iter().chain(&args.by_flag) {
        print(&match shell {
            Shell::Bash => bash(&cli),
            Shell::Zsh => zsh(&cli),
            Shell::Fish => fish(&cli),
        })?;
    }
    Ok(0)
}

/// The commands, with the program itself as the one without a name.
fn commands(cli: &Command) -> impl Iterator<Item = (&str, &Command)> {
    std::iter::once(("", cli))
        .chain(cli.get_subcommands().filter(|verb| verb.get_name() != "help").map(|verb| (verb.get_name(), verb)))
}

/// Every long option of a command, and whether a value follows.
fn options(command: &Command) -> impl Iterator<Item = (String, bool, String)> {
    let list = command.get_arguments().filter(|arg| !arg.is_hide_set());
    list.filter_map(|arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        Some((arg.get_long()?.to_owned(), arg.get_action().takes_values(), help))
    })
}

fn verbs(cli: &Command) -> Vec<&str> {
    commands(cli).map(|(name, _)| name).filter(|name| !name.is_empty()).collect()
}

/// An id is completed from `rt list`, with the same state root.
const TAKE_ID: [&str; 12] =
    ["checkpoint", "delete", "events", "exec", "kill", "mounts", "pause", "ps", "resume", "start", "state", "update"];

/// What else may stand where a command's first argument is.
const WORDS: [(&str, &str); 2] = [("completion", "bash zsh fish"), ("mounts", "add remove")];

fn words(name: &str) -> &'static str {
    WORDS.iter().find(|(command, _)| *command == name).map_or("", |(_, words)| words)
}

fn bash(cli: &Command) -> String {
    let mut cases = String::new();
    for (name, command) in commands(cli) {
        let flags: Vec<String> = options(command).map(|(long, ..)| format!("--{long}")).collect();
        cases.push_str(&format!("    \"{name}\") flags=\"{}\" words=\"{}\" ;;\n", flags.join(" "), words(name)));
    }
    let values: Vec<String> = options(cli).filter(|(_, takes, _)| *takes).map(|(long, ..)| format!("--{long}")).collect();
    format!(
        "# bash completion for rt\n_rt() {{\n  local cur=${{COMP_WORDS[COMP_CWORD]}} verb='' flags='' words='' root='' i\n  \
         for ((i = 1; i < COMP_CWORD; i++)); do\n    case ${{COMP_WORDS[i]}} in\n      --root) root=${{COMP_WORDS[++i]}} ;;\n      \
         {}) ((i++)) ;;\n      -*) ;;\n      *) verb=${{COMP_WORDS[i]}}; break ;;\n    esac\n  done\n  case $verb in\n{cases}  esac\n  \
         if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\")); return; fi\n  \
         case $verb in\n    '') COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n    \
         {}) COMPREPLY=($(compgen -W \"$words $(\"${{COMP_WORDS[0]}}\" ${{root:+--root \"$root\"}} list -q 2>/dev/null)\" -- \"$cur\") $(compgen -f -- \"$cur\")) ;;\n    \
         *) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\") $(compgen -f -- \"$cur\")) ;;\n  esac\n}}\ncomplete -o filenames -F _rt rt\n",
        values.into_iter().filter(|flag| flag != "--root").collect::<Vec<_>>().join("|"),
        verbs(cli).join(" "),
        TAKE_ID.join("|"),
    )
}

/// zsh has bash's way of completing on board.
fn zsh(cli: &Command) -> String {
    format!("#compdef rt\nautoload -U +X bashcompinit && bashcompinit\n{}", bash(cli))
}

fn fish(cli: &Command) -> String {
    let mut text = String::from("# fish completion for rt\n");
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    for (name, command) in commands(cli) {
        let condition = match name {
            "" => "__fish_use_subcommand".to_owned(),
            verb => format!("__fish_seen_subcommand_from {verb}"),
        };
        if !name.is_empty() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("complete -c rt -n __fish_use_subcommand -f -a {name} -d '{}'\n", quoted(&about)));
        }
        for (long, takes, help) in options(command) {
            let value = if takes { " -r" } else { "" };
            text.push_str(&format!("complete -c rt -n '{condition}' -l {long}{value} -d '{}'\n", quoted(&help)));
        }
    }
    let ids = TAKE_ID.join(" ");
    text.push_str(&format!("complete -c rt -n '__fish_seen_subcommand_from {ids}' -a '(rt list -q 2>/dev/null)'\n"));
    for (name, words) in WORDS {
        text.push_str(&format!("complete -c rt -n '__fish_seen_subcommand_from {name}' -a '{words}'\n"));
    }
    text
}
