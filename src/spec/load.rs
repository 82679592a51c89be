//! Reading config.json: one parse, with the path of what is wrong.

use std::path::Path;

use crate::error::{Error, Failure, Problem};
use crate::sys::CallError;

use super::{Field, Spec};

/// The largest config.json that is read; real ones have some ten kilobytes.
const MAX_SIZE: u64 = 16 << 20;

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
    parse(&read(&bundle.join(config))?, &config.display().to_string())
}

/// Reads a file of bounded size.
///
/// # Errors
/// If it cannot be read or is too large.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: &std::io::Error| Error::from(CallError::from_io("open", format!("{path:?}"), error));
    let size = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if size > MAX_SIZE {
        return Err(Error::new("invalid-config", format!("{}: expected at most {MAX_SIZE} bytes, found {size}", path.display())));
    }
    std::fs::read(path).map_err(|error| failed(&error))
}

/// Parses a document; `name` is how messages call it.
///
/// # Errors
/// With the config path of the first value that has a wrong type, or the line of a syntax error.
pub fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        (path, error.into_inner())
    });
    let value = parsed.and_then(|value| deserializer.end().map(|()| value).map_err(|error| (".".to_owned(), error)));
    value.map_err(|(path, error)| {
        let field = if path == "." { Field::default() } else { Field::new(path) };
        let text = error.to_string();
        if error.is_syntax() || error.is_eof() || field == Field::default() {
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
    use super::plain;

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
