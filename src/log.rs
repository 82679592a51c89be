//! The log: what containerd's shim and conmon read, and what a person sees on standard error.
//!
//! One record of level `error` per failed command, the last one (docs/design.md, "Errors"). A warning goes to the log file where
//! there is one and to standard error otherwise, because engines show whatever a successful create prints there.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::sys::{CallError, errno};

/// The layout of the records in the log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time="..." level=... msg="..."`
    #[default]
    Text,
    /// One object per line with `level`, `msg`, `time`, and more keys for errors.
    Json,
}

/// Where records go.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
    warnings: AtomicUsize,
}

impl Log {
    /// Opens the log; the file is appended to.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<Self, Error> {
        let open = |path: &Path| {
            let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
            file.map_err(|error| {
                Error::from(CallError::from_io("open", format!("{path:?}"), &error)).during("open the log (--log)")
            })
        };
        Ok(Self { file: path.map(open).transpose()?, format, debug, warnings: AtomicUsize::new(0) })
    }

    /// Says something that only a developer wants to know (`--debug`).
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            let text = message();
            let text = printable(&text);
            self.record("debug", &text, Map::new());
            if self.file.is_none() {
                to_stderr(&format!("rt: debug: {text}"));
            }
        }
    }

    /// Says that something will not be as the user asked, although the command goes on.
    pub fn warning(&self, message: &str) {
        self.warnings.fetch_add(1, Ordering::Relaxed);
        let message = &printable(message);
        self.record("warning", message, Map::new());
        if self.file.is_none() {
            to_stderr(&format!("rt: warning: {message}"));
        }
    }

    /// How many warnings there were.
    pub fn warned(&self) -> usize {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Says why the command failed: in the log, and on standard error in any case.
    pub fn error(&self, error: &Error) {
        self.record("error", &whole_line(error), facts(error));
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

    fn record(&self, level: &str, message: &str, extra: Map<String, Value>) {
        let Some(mut file) = self.file.as_ref() else { return };
        let time = crate::time::now();
        let line = match self.format {
            Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
            Format::Json => {
                let mut object = Map::new();
                object.insert("level".to_owned(), json!(level));
                object.insert("msg".to_owned(), json!(message));
                object.insert("time".to_owned(), json!(time));
                object.extend(extra);
                format!("{}\n", Value::Object(object))
            }
        };
        // A log that cannot be written to (a full disk) must not end a container; the message also goes to stderr.
        let _ = file.write_all(line.as_bytes());
    }
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
