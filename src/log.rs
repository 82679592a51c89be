//! The log: what containerd's shim and conmon read, and what a person sees on standard error.
//!
//! One record of level `error` per failed command, the last one (docs/design.md, "Errors"). A warning goes to the log file where
//! there is one and to standard error otherwise, because engines show whatever a successful create prints there. `--log-format json` is
//! obeyed without a file, too: then standard error is the log, as it is by default for runc, whose scripts read it there.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::sys::{CallError, errno, socket};

/// The layout of the records in the log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time="..." level=... msg="..."`
    #[default]
    Text,
    /// One object per line with `level`, `msg`, `time`, and more keys for errors.
    Json,
}

/// What is worth a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    /// Why a command failed.
    Error,
    /// And what will not be as the user asked.
    #[default]
    Warning,
    /// The same: nothing is said that is neither.
    Info,
    /// And what a developer wants to know.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The priority of syslog(3).
    fn priority(self) -> i32 {
        match self {
            Self::Error => libc::LOG_ERR,
            Self::Warning => libc::LOG_WARNING,
            Self::Info => libc::LOG_INFO,
            Self::Debug => libc::LOG_DEBUG,
        }
    }
}

/// Where records go.
#[derive(Debug)]
enum Sink {
    File(File),
    /// The journal's socket, and the identifier of our records.
    Journal(OwnedFd, String),
    /// The socket of syslog, and the identifier of our records.
    Syslog(OwnedFd, String),
}

/// The journal's socket for clients of its own protocol, and that of syslog (systemd-journald.service(8), syslog(3)).
const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
/// For how long a record waits for room in such a socket: whoever reads may hang, and no container waits for that.
const PATIENCE: Duration = Duration::from_millis(100);

/// The log.
#[derive(Debug, Default)]
pub struct Log {
    /// None: warnings are for standard error then.
    sinks: Vec<Sink>,
    format: Format,
    level: Level,
    warnings: AtomicUsize,
}

impl Log {
    /// Opens the log: targets of the form `PATH` or `file:PATH`, which is appended to, `journald:ID` or `syslog:ID`.
    ///
    /// # Errors
    /// If a file cannot be opened, or nobody listens.
    pub fn open<'a>(targets: impl IntoIterator<Item = &'a OsStr>, format: Format, level: Level) -> Result<Self, Error> {
        let sinks = targets.into_iter().map(open_sink).collect::<Result<_, _>>()?;
        Ok(Self { sinks, format, level, warnings: AtomicUsize::new(0) })
    }

    /// Says something that only a developer wants to know (`--debug`).
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.level >= Level::Debug {
            let text = message();
            let text = printable(&text);
            if !self.record(Level::Debug, &text, &Map::new()) {
                to_stderr(self.line(Level::Debug, &text, &Map::new()).trim_end());
            }
        }
    }

    /// Says that something will not be as the user asked, although the command goes on.
    pub fn warning(&self, message: &str) {
        self.warnings.fetch_add(1, Ordering::Relaxed);
        if self.level < Level::Warning {
            return;
        }
        let message = &printable(message);
        if !self.record(Level::Warning, message, &Map::new()) {
            to_stderr(&match self.is_stderr() {
                true => self.line(Level::Warning, message, &Map::new()).trim_end().to_owned(),
                false => format!("rt: warning: {message}"),
            });
        }
    }

    /// How many warnings there were.
    pub fn warned(&self) -> usize {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Says why the command failed: in the log, and on standard error in any case.
    pub fn error(&self, error: &Error) {
        self.record(Level::Error, &whole_line(error), &facts(error));
        if self.is_stderr() {
            return to_stderr(self.line(Level::Error, &whole_line(error), &facts(error)).trim_end());
        }
        let mut text = format!("rt: {}", printable(&error.message));
        if let Some(place) = error.failure.as_ref().and_then(|failure| failure.place) {
            text.push_str(&format!("\n   in: {place}"));
        }
        for also in &error.also {
            text.push_str(&format!("\n   also: {}", printable(also)));
        }
        if let Some(hint) = error.hint() {
            text.push_str(&format!("\n   hint: {hint}"));
        }
        to_stderr(&text);
    }

    /// Records were asked for that only programs read, and nowhere else to write them to.
    fn is_stderr(&self) -> bool {
        self.sinks.is_empty() && self.format == Format::Json
    }

    /// Writes a record to every target. Returns whether one has taken it: a log that cannot be written to (a full disk, a reader that
    /// hangs) must not end a container, and what nobody has taken goes to standard error.
    fn record(&self, level: Level, message: &str, extra: &Map<String, Value>) -> bool {
        let taken = self.sinks.iter().map(|sink| match sink {
            Sink::File(file) => {
                let mut file = file;
                file.write_all(self.line(level, message, extra).as_bytes()).is_ok()
            }
            Sink::Journal(socket, identifier) => {
                socket::send(socket, journal_entry(level, message, identifier, extra).as_bytes(), None).is_ok()
            }
            Sink::Syslog(socket, identifier) => {
                let priority = libc::LOG_USER | level.priority();
                let text = format!("<{priority}>{identifier}[{}]: {message}", std::process::id());
                socket::send(socket, text.as_bytes(), None).is_ok()
            }
        });
        taken.fold(false, |any, one| any | one)
    }

    fn line(&self, level: Level, message: &str, extra: &Map<String, Value>) -> String {
        let (time, level) = (crate::time::now(), level.name());
        match self.format {
            Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
            Format::Json => {
                let mut object = Map::new();
                object.insert("level".to_owned(), json!(level));
                object.insert("msg".to_owned(), json!(message));
                object.insert("time".to_owned(), json!(time));
                object.extend(extra.iter().map(|(key, value)| (key.clone(), value.clone())));
                format!("{}\n", Value::Object(object))
            }
        }
    }
}

/// A record in the journal's own protocol: a line for each field. The message is one line, as every value is.
fn journal_entry(level: Level, message: &str, identifier: &str, extra: &Map<String, Value>) -> String {
    let mut text = format!("MESSAGE={message}\nPRIORITY={}\nSYSLOG_IDENTIFIER={identifier}\n", level.priority());
    for (key, value) in extra {
        let value = value.as_str().map_or_else(|| value.to_string(), printable);
        text.push_str(&format!("RT_{}={value}\n", key.to_ascii_uppercase()));
    }
    text
}

fn open_sink(target: &OsStr) -> Result<Sink, Error> {
    let during = |error: Error| error.during("open the log (--log)");
    let text = target.to_str().unwrap_or_default();
    let dial = |path: &str| {
        let connected = socket::connect(Path::new(path), libc::SOCK_DGRAM)
            .and_then(|socket| socket::give_up_sending_after(&socket, PATIENCE).map(|()| socket));
        connected.map_err(|call| during(call.into()))
    };
    let named = |identifier: &str| {
        let plain = !identifier.is_empty() && !identifier.contains(|c: char| c.is_control());
        let wrong = || during(Error::new("usage", format!("{text:?}: expected an identifier after the colon")));
        plain.then(|| identifier.to_owned()).ok_or_else(wrong)
    };
    if let Some(identifier) = text.strip_prefix("journald:") {
        return Ok(Sink::Journal(dial(JOURNAL)?, named(identifier)?));
    }
    if let Some(identifier) = text.strip_prefix("syslog:") {
        return Ok(Sink::Syslog(dial(SYSLOG)?, named(identifier)?));
    }
    let bytes = target.as_bytes();
    let path = Path::new(OsStr::from_bytes(bytes.strip_prefix(b"file:").unwrap_or(bytes)));
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
    file.map(Sink::File).map_err(|error| during(CallError::from_io("open", format!("{path:?}"), &error).into()))
}

fn whole_line(error: &Error) -> String {
    let also = error.also.iter().map(|also| format!("; also: {also}"));
    printable(&std::iter::once(error.message.clone()).chain(also).collect::<String>())
}

/// A message is one line, and what a container or a hook says in it does not steer the caller's terminal.
fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// The machine-readable keys of an error record.
fn facts(error: &Error) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("code".to_owned(), json!(error.code));
    if let Some(failure) = &error.failure {
        if let Some(place) = failure.place {
            map.insert("step".to_owned(), json!(format!("{}/{}", place.role, place.step)));
        }
        if let Some(call) = &failure.call {
            map.insert("syscall".to_owned(), json!(call.call));
            map.insert("errno".to_owned(), json!(errno::name(call.errno)));
        }
        if let Some(origin) = &failure.origin {
            map.insert("field".to_owned(), json!(origin));
        }
    }
    if let Some(hint) = error.hint() {
        map.insert("hint".to_owned(), json!(hint));
    }
    map
}

/// One write, so that lines of parallel commands do not mix. A closed standard error is nobody's loss.
fn to_stderr(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
