//! The command line: one file per verb with its arguments and a short `run`.

pub mod arguments;
pub mod check;
pub mod checkpoint;
pub mod completion;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod info;
pub mod kill;
pub mod list;
pub mod make;
pub mod matching;
pub mod mounts;
pub mod pause;
pub mod plan;
pub mod ps;
pub mod restore;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;
pub mod usage;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{ArgMatches, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Problem};
use crate::log::{Format, Level, Log};
use crate::plan::request::{self, Request};
use crate::state::{Store, store};

/// The version in the form that Docker parses: name and version, commit, specification.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\ncommit: ", env!("RT_COMMIT"), "\nspec: 1.3.0");

/// The ways to ask for it.
pub const VERSION_FLAGS: [&str; 4] = ["--version", "-version", "-v", "-V"];

/// Prints the version.
///
/// # Errors
/// See [`print()`].
pub fn version() -> Result<(), Error> {
    print(&format!("rt version {VERSION}\n"))
}

/// A daemonless, rootless-first OCI container runtime.
#[derive(Debug, Parser)]
#[command(name = "rt", args_override_self = true, disable_version_flag = true)]
pub struct Cli {
    /// Where the state of containers is kept [default: /run/rt, or $XDG_RUNTIME_DIR/rt for an ordinary user]
    #[arg(short, long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append log records to a file, or send them: PATH, file:PATH, journald:ID or syslog:ID; errors go to standard error as well
    #[arg(long, value_name = "TARGET")]
    pub log: Option<OsString>,
    /// Send log records to the journal, too: as --log journald:rt, which may stand beside another --log
    #[arg(long)]
    pub systemd_log: bool,
    /// The layout of the log records
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
    /// What is logged
    #[arg(long, value_enum, default_value_t = Level::Warning)]
    pub log_level: Level,
    /// Log what a developer wants to know: --log-level debug
    #[arg(long)]
    pub debug: bool,
    /// Let systemd manage control groups: linux.cgroupsPath is slice:prefix:name
    #[arg(short, long)]
    pub systemd_cgroup: bool,
    /// Who manages control groups: rt, systemd (as --systemd-cgroup), or nobody, and then the container stays in the caller's
    #[arg(long, value_enum)]
    pub cgroup_manager: Option<CgroupManager>,
    /// Whether control groups that cannot be changed are only a warning [auto: for an ordinary user]
    #[arg(long, value_enum, default_value_t = Rootless::Auto, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rootless: Rootless,
    /// The criu to be used: a path, or a name that is looked for in $PATH
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<String>,
    /// Turn every warning about the configuration into an error
    #[arg(long)]
    pub strict: bool,
    /// Print version, commit and the version of the specification
    #[arg(short = 'v', short_alias = 'V', long)]
    pub version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// See [`Cli::rootless`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// For an ordinary user.
    Auto,
    /// Always.
    True,
    /// Never.
    False,
}

/// See [`Cli::cgroup_manager`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// rt, through the cgroup filesystems.
    Cgroupfs,
    /// systemd.
    Systemd,
    /// Nobody.
    Disabled,
}

/// The enum of the commands, whose flags are added to the parser when a command is the one that is called or asked about: most of the
/// tree would be built for nothing. The line that `rt --help` shows has therefore to stand here, too; a test compares it.
macro_rules! commands {
    ($($variant:ident($args:ty) = $name:literal, $about:literal;)*) => {
        #[derive(Debug)]
        enum Command {
            $($variant(Box<$args>),)*
        }

        impl Subcommand for Command {
            fn augment_subcommands(parent: clap::Command) -> clap::Command {
                parent$(.subcommand(clap::Command::new($name).about($about).defer(<$args as clap::Args>::augment_args)))*
            }

            fn augment_subcommands_for_update(parent: clap::Command) -> clap::Command {
                Self::augment_subcommands(parent)
            }

            fn has_subcommand(name: &str) -> bool {
                [$($name),*].contains(&name)
            }
        }

        impl FromArgMatches for Command {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Self::from_arg_matches_mut(&mut matches.clone())
            }

            fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
                let (name, mut found) = matches.remove_subcommand().ok_or(clap::error::ErrorKind::MissingSubcommand).map_err(clap::Error::new)?;
                match name.as_str() {
                    $($name => <$args>::from_arg_matches_mut(&mut found).map(|args| Self::$variant(Box::new(args))),)*
                    _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

commands! {
    Create(create::Args) = "create", "Make a container: everything but the program, which start runs";
    Start(start::Args) = "start", "Run the program of a created container";
    State(state::Args) = "state", "Print the state of a container as JSON";
    Update(update::Args) = "update", "Change the limits of a container";
    Kill(kill::Args) = "kill", "Send a signal to the first process of a container";
    Delete(delete::Args) = "delete", "Delete a container whose program has ended, or was never started";
    Run(run::Args) = "run", "Make a container, run its program, and delete it when the program has ended";
    Exec(exec::Args) = "exec", "Run another process in a running container";
    List(list::Args) = "list", "List the containers";
    Ps(ps::Args) = "ps", "List the processes of a container";
    Events(events::Args) = "events", "Show what happens to a container: lines of JSON, until it ends";
    Checkpoint(checkpoint::Args) = "checkpoint", "Save a running container's processes to files, and delete it";
    Restore(restore::Args) = "restore", "Make a container with the processes of a checkpoint, and delete it when its program has ended";
    Mounts(mounts::Args) = "mounts", "Add mounts to a container that exists, or take them away again";
    Pause(pause::PauseArgs) = "pause", "Freeze all processes of a container";
    Resume(pause::ResumeArgs) = "resume", "Thaw all processes of a container";
    Spec(spec::Args) = "spec", "Write a config.json to start from";
    Features(features::Args) = "features", "Print what this runtime supports, as JSON";
    Plan(plan::Args) = "plan", "Show what would be done for a bundle, and do nothing";
    Check(check::Args) = "check", "Find everything that stands in the way of a bundle on this host, and do nothing";
    Info(info::Args) = "info", "Print what is known about this program, the machine and the caller";
    Completion(completion::Args) = "completion", "Print the completions for a shell";
}

/// What the flags before the command say.
#[derive(Debug)]
pub struct Globals {
    /// The state root.
    pub root: PathBuf,
    /// The log.
    pub log: Log,
    /// See [`Cli::rootless`].
    pub rootless: Rootless,
    /// See [`Cli::criu`].
    pub criu: Option<String>,
    /// See [`Cli::strict`].
    pub strict: bool,
    /// See [`Cli::cgroup_manager`]; `--systemd-cgroup` is its older name.
    pub cgroup_manager: CgroupManager,
}

impl Globals {
    /// Opens the log and finds the state root.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn new(cli: &Cli) -> Result<Self, Error> {
        let level = if cli.debug { Level::Debug } else { cli.log_level };
        let log = Log::open(targets(cli.log.as_deref(), cli.systemd_log), cli.log_format, level)?;
        let root = cli.root.clone().unwrap_or_else(store::default_root);
        let by_flag = if cli.systemd_cgroup { CgroupManager::Systemd } else { CgroupManager::Cgroupfs };
        let cgroup_manager = cli.cgroup_manager.unwrap_or(by_flag);
        log.debug(|| format!("state root {}, control groups: {cgroup_manager:?}, rootless: {:?}", root.display(), cli.rootless));
        Ok(Self { root, log, rootless: cli.rootless, criu: cli.criu.clone(), strict: cli.strict, cgroup_manager })
    }

    /// What the flags before the command and a bundle, relative to the working directory, ask for; the rest is as [`Request::plain`] has it.
    ///
    /// # Errors
    /// If the id is none, or the working directory is gone.
    pub fn request(&self, id: &str, bundle: &Path) -> Result<Request, Error> {
        Ok(Request {
            systemd_cgroup: self.cgroup_manager == CgroupManager::Systemd,
            no_cgroup: self.cgroup_manager == CgroupManager::Disabled,
            ..Request::plain(parse_id(id)?, request::absolute(bundle, &working_directory()?))
        })
    }

    /// Problems are errors, and so are warnings with `--strict`. `file` is what the configuration is called; empty if it is in no file.
    ///
    /// # Errors
    /// All of them.
    pub fn judge(&self, problems: &[Problem], warnings: &[Problem], file: &str) -> Result<(), Error> {
        let strict = if self.strict { warnings } else { &[] };
        let found = [problems, strict].concat();
        if found.is_empty() { Ok(()) } else { Err(Error::config(file, &found)) }
    }

    /// Shows warnings about the configuration.
    pub fn warn<'a>(&self, warnings: impl IntoIterator<Item = &'a Problem>) {
        warnings.into_iter().for_each(|warning| self.log.warning(&warning.to_string()));
    }

    /// The state root, which need not exist.
    ///
    /// # Errors
    /// If it is not a directory of the caller's.
    pub fn store(&self) -> Result<Store, Error> {
        Store::open(&self.root)
    }
}

impl Cli {
    /// Carries the command out. Returns the exit status.
    ///
    /// # Errors
    /// With the exit status inside.
    pub fn run(self, globals: &Globals) -> Result<i32, Error> {
        if self.version {
            return version().map(|()| 0);
        }
        let missing = || Error::new("usage", "no command given").hint_text("`rt --help` lists the commands");
        match self.command.ok_or_else(missing)? {
            Command::Create(args) => create::run(&args, globals),
            Command::Start(args) => start::run(&args, globals),
            Command::State(args) => state::run(&args, globals),
            Command::Update(args) => update::run(&args, globals),
            Command::Kill(args) => kill::run(&args, globals),
            Command::Delete(args) => delete::run(&args, globals),
            Command::Run(args) => run::run(&args, globals),
            Command::Exec(args) => exec::run(&args, globals).map_err(|error| error.status(255)),
            Command::List(args) => list::run(&args, globals),
            Command::Ps(args) => ps::run(&args, globals),
            Command::Events(args) => events::run(&args, globals),
            Command::Checkpoint(args) => checkpoint::run(&args, globals),
            Command::Restore(args) => restore::run(&args, globals),
            Command::Mounts(args) => mounts::run(&args, globals),
            Command::Pause(args) => pause::pause(&args, globals),
            Command::Resume(args) => pause::resume(&args, globals),
            Command::Spec(args) => spec::run(&args),
            Command::Features(args) => features::run(&args),
            Command::Plan(args) => plan::run(&args, globals),
            Command::Check(args) => check::run(&args, globals),
            Command::Info(args) => info::run(&args, globals),
            Command::Completion(args) => completion::run(&args),
        }
    }
}

/// Where log records go: `--log`, and `--systemd-log`, which is youki's.
pub fn targets(log: Option<&OsStr>, systemd_log: bool) -> impl Iterator<Item = &OsStr> {
    log.into_iter().chain(systemd_log.then_some(OsStr::new("journald:rt")))
}

/// What relative paths of the command line start from.
///
/// # Errors
/// The kernel's: it was removed, or cannot be reached.
pub fn working_directory() -> Result<PathBuf, Error> {
    Ok(std::env::current_dir().map_err(|error| crate::sys::CallError::from_io("getcwd", "", &error))?)
}

/// Parses an id given on the command line.
///
/// # Errors
/// If it is not one.
pub fn parse_id(text: &str) -> Result<crate::id::ContainerId, Error> {
    text.parse().map_err(|text: String| Error::new("invalid-id", text))
}

/// Prints to standard output: the one place that does.
///
/// # Errors
/// If nobody reads it.
pub fn print(text: &str) -> Result<(), Error> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| crate::sys::CallError::from_io("write", "1", &error).into())
}

/// Prints a value as JSON.
///
/// # Errors
/// See [`print()`].
pub fn print_json(value: &serde_json::Value) -> Result<(), Error> {
    print(&format!("{value:#}\n"))
}
