//! Reading config.json: one parse, with the path of what is wrong.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Failure, Problem};
use crate::sys::{At, CallError, fs};

use super::locate::locate;
use super::{Field, Spec};

/// The largest config.json that is read; real ones have some ten kilobytes.
const MAX_SIZE: usize = 16 << 20;
/// The largest document that is taken from standard input.
const MAX_STDIN: usize = 1 << 20;

/// Reads the configuration of a bundle: `config.json`, or a file of another name or place.
///
/// # Errors
/// If the file cannot be read or is not a runtime-spec configuration; the message names the config path.
pub fn load(bundle: &Path, config: &Path) -> Result<Spec, Error> {
    if !bundle.is_dir() {
        let errno = if bundle.exists() { libc::ENOTDIR } else { libc::ENOENT };
        let failure = Failure::from(CallError::new("open", format!("{bundle:?}"), errno)).doing("open the bundle");
        return Err(failure.hint("the bundle is the directory that holds config.json and the root filesystem").into());
    }
    let bytes = read(&bundle.join(config))?;
    let name = config.display().to_string();
    let spec = parse(&bytes, &name)?;
    without_nul(&bytes, &spec, &name)?;
    Ok(spec)
}

/// Reads a file that the command line names, `-` for standard input. Returns it with what it is called in messages.
///
/// # Errors
/// See [`read`].
pub fn read_named(path: &Path) -> Result<(Vec<u8>, String), Error> {
    if path.as_os_str() == "-" {
        return Ok((fs::read_to_end(std::io::stdin(), MAX_STDIN)?, "standard input".to_owned()));
    }
    Ok((read_given(path)?, path.display().to_string()))
}

/// Reads a file that the command line names. It may be a pipe (/dev/stdin, a shell's `<(...)`), which is waited for: the caller has put it
/// there, as nobody can a fifo in a bundle.
///
/// # Errors
/// See [`read`].
pub fn read_given(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: &std::io::Error| Error::from(CallError::from_io("open", format!("{path:?}"), error));
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_fifo() => {
            Ok(fs::read_to_end(std::fs::File::open(path).map_err(|error| failed(&error))?, MAX_STDIN)?)
        }
        _ => read(path),
    }
}

/// Reads a file of bounded size. Only an ordinary file is believed: opening a fifo or a device could wait for ever, or have an effect.
///
/// # Errors
/// If it cannot be read, is something else, or is too large.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |call: CallError| Error::from(CallError::new("open", format!("{path:?}"), call.errno));
    let expected =
        |what: &str, found: String| Error::new("invalid-config", format!("{}: expected {what}, found {found}", path.display()));
    let file = fs::openat(At::Cwd, path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0).map_err(failed)?;
    let stat = fs::fstat(&file).map_err(failed)?;
    if !stat.is(libc::S_IFREG) {
        return Err(expected("a regular file", kind(stat.kind).to_owned()));
    }
    fs::read_file(&file, stat.size, MAX_SIZE).map_err(|call| match call.is(libc::EFBIG) {
        true => expected(&format!("at most {MAX_SIZE} bytes"), "more".to_owned()),
        false => failed(call),
    })
}

/// What a file is that is not a regular one.
fn kind(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => "a directory",
        libc::S_IFIFO => "a fifo",
        libc::S_IFSOCK => "a socket",
        libc::S_IFCHR | libc::S_IFBLK => "a device",
        _ => "something else",
    }
}

/// Texts that are not handed to the kernel or a program: there a NUL is a character like any other.
const NOT_C_STRINGS: [&str; 2] = ["annotations", "linux.seccomp.listenerMetadata"];

/// No text may contain a NUL, because it ends where that is when the kernel gets it: a check would see another path than the kernel does.
///
/// # Errors
/// Every text that has one.
pub fn without_nul<T: serde::Serialize>(bytes: &[u8], value: &T, name: &str) -> Result<(), Error> {
    // JSON has one way to write it; almost no document does, and few have a backslash at all.
    if !bytes.contains(&b'\\') || !bytes.windows(6).any(|window| window == b"\\u0000") {
        return Ok(());
    }
    let mut problems = Vec::new();
    if let Ok(tree) = serde_json::to_value(value) {
        find_nul(&tree, &Field::default(), &mut problems);
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::config(name, &problems)) }
}

fn find_nul(value: &Value, field: &Field, problems: &mut Vec<Problem>) {
    let contains = |text: &str| Problem::new(field.clone(), format!("{text:?} contains a NUL; expected none"));
    match value {
        _ if NOT_C_STRINGS.contains(&field.as_str()) => {}
        Value::String(text) if text.contains('\0') => problems.push(contains(text)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, item)| find_nul(item, &field.index(index), problems)),
        Value::Object(map) => {
            for (key, item) in map {
                if key.contains('\0') {
                    problems.push(contains(key));
                }
                find_nul(item, &field.key(key), problems);
            }
        }
        _ => {}
    }
}

/// Parses a document; `name` is how messages call it.
///
/// # Errors
/// With the config path of the first value that has a wrong type, or the line of a syntax error.
pub fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, Error> {
    // Texts are validated once, not each again.
    let parsed = match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(bytes),
    };
    parsed.map_err(|error| {
        let text = error.to_string();
        let field = if error.is_data() { locate(bytes, error.line(), error.column()) } else { Field::default() };
        if field == Field::default() {
            return Error::new("invalid-config", format!("{name}: {text}"));
        }
        Error::config(name, &[Problem::new(field, plain(&text))])
    })
}

/// What serde says about a value, without the words of the language that this program happens to be written in.
fn plain(text: &str) -> String {
    let (what, place) = match text.rsplit_once(" at line ") {
        Some((what, place)) => (what, format!(" (line {place})")),
        None => (text, String::new()),
    };
    let found =
        |what: &str| ["invalid type: ", "invalid value: "].iter().find_map(|kind| Some(what.strip_prefix(kind)?.to_owned()));
    match what.rsplit_once(", expected ").and_then(|(what, expected)| Some((found(what)?, expected))) {
        Some((found, expected)) => format!("expected {}, there is {found}{place}", in_words(expected)),
        None => format!("{what}{place}"),
    }
}

/// The name of a type for people who write JSON.
fn in_words(expected: &str) -> &str {
    match expected {
        "i64" | "i32" | "i16" => "a whole number",
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number, 0 or more, that is not too large",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Spec, parse, plain, without_nul};

    #[test]
    fn a_nul_is_found_wherever_it_is() {
        let text = r#"{"hostname": "a\u0000b", "annotations": {"a": "\u0000"}, "linux": {"sysctl": {"k\u0000": "v"},
            "seccomp": {"defaultAction": "\u0000", "listenerMetadata": "\u0000"}}, "mounts": [{"destination": "/\u0000"}]}"#;
        let spec: Spec = parse(text.as_bytes(), "config.json").unwrap();
        let said = without_nul(text.as_bytes(), &spec, "config.json").unwrap_err().message;
        let fields: Vec<&str> = said.split("; config.json: ").map(|part| part.split(": ").next().unwrap()).collect();
        assert_eq!(said.matches("contains a NUL").count(), 4, "{said}");
        for field in ["hostname", "mounts[0].destination", "linux.sysctl", "linux.seccomp.defaultAction"] {
            assert!(said.contains(&format!("config.json: {field}: ")), "{field} in {fields:?}");
        }
    }

    #[test]
    fn types_in_words() {
        for (serde, words) in [
            (
                r#"invalid type: string "64m", expected i64 at line 37 column 22"#,
                r#"expected a whole number, there is string "64m" (line 37 column 22)"#,
            ),
            ("invalid type: map, expected a sequence at line 1 column 2", "expected a list, there is map (line 1 column 2)"),
            ("missing field `path` at line 3 column 4", "missing field `path` (line 3 column 4)"),
            ("invalid type: null, expected struct Process", "expected an object, there is null"),
        ] {
            assert_eq!(plain(serde), words);
        }
    }
}
