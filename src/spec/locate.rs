//! Where in a JSON document an error is: the path of the value that ends, or else begins, at a place in the text.
//!
//! serde_json says line and column; people want `mounts[2].options`. Keeping the path while parsing costs more than parsing, so it is
//! worked out afterwards, from a text that has been read as JSON up to that place.

use super::Field;

/// The path of the value at this line and column (bytes, as serde_json counts them); empty for the whole document.
pub fn locate(text: &[u8], line: usize, column: usize) -> Field {
    let starts = std::iter::once(0).chain(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    let start = starts.take(line.max(1)).last().unwrap_or(0);
    let mut walk = Walk { text, at: 0, place: start + column, levels: Vec::new(), found: None };
    walk.value();
    walk.found.unwrap_or_default()
}

/// serde_json refuses what is deeper, but passes over it where nothing is wanted from it.
const DEEPEST: usize = 128;

/// One level of the path: the name of a property, or the number of an element.
#[derive(Clone)]
enum Level {
    Key(String),
    Index(usize),
}

struct Walk<'text> {
    text: &'text [u8],
    at: usize,
    place: usize,
    levels: Vec<Level>,
    /// Set once; after that the walk only ends.
    found: Option<Field>,
}

impl Walk<'_> {
    fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied().filter(|_| self.found.is_none())
    }

    fn skip_while(&mut self, part: impl Fn(u8) -> bool) {
        while self.byte().is_some_and(&part) {
            self.at += 1;
        }
    }

    fn skip_space(&mut self) {
        self.skip_while(|byte| byte.is_ascii_whitespace());
    }

    fn find(&mut self) {
        let path = self.levels.iter().fold(Field::default(), |path, level| match level {
            Level::Key(key) => path.key(key),
            Level::Index(index) => path.index(*index),
        });
        self.found.get_or_insert(path);
    }

    /// A value; an error behind its beginning and not behind its end is in it.
    fn value(&mut self) {
        self.skip_space();
        if self.at >= self.place {
            return self.find();
        }
        if self.levels.len() > DEEPEST {
            self.found.get_or_insert_default();
        }
        match self.byte() {
            Some(b'{') => self.members(b'}', true),
            Some(b'[') => self.members(b']', false),
            Some(b'"') => drop(self.string()),
            _ => self.skip_while(|byte| !matches!(byte, b',' | b'}' | b']') && !byte.is_ascii_whitespace()),
        }
        if self.at >= self.place {
            self.find();
        }
    }

    fn members(&mut self, end: u8, named: bool) {
        self.at += 1;
        for index in 0.. {
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == b',');
            if self.byte().is_none_or(|byte| byte == end) {
                break;
            }
            let level = if named { Level::Key(self.string()) } else { Level::Index(index) };
            if named && self.at >= self.place {
                // The name itself is the matter: its object is where to look.
                return self.find();
            }
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == b':');
            self.levels.push(level);
            self.value();
            self.levels.pop();
        }
        self.at += 1;
    }

    /// A string, from its quote to the one that ends it.
    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.byte().filter(|byte| *byte != b'"') {
            self.at += if byte == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        let text = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::locate;

    #[test]
    fn values_are_found_by_their_ends_and_beginnings() {
        let text = "{\n  \"a\": [1, {\"b\\\"c\": \"x\"},\n    [2]],\n  \"d\": {\"e\": null}\n}";
        let at = |line, column| locate(text.as_bytes(), line, column).as_str().to_owned();
        for (line, column, path) in [
            (2, 9, "a[0]"),
            (2, 23, "a[1].b\"c"),
            (2, 24, "a[1]"),
            (3, 4, "a[2]"),
            (3, 6, "a[2][0]"),
            (3, 8, "a"),
            (4, 11, "d"),
            (4, 17, "d.e"),
            (4, 18, "d"),
            (5, 1, ""),
        ] {
            assert_eq!(at(line, column), path, "{line}:{column}");
        }
    }
}
