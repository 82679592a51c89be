//! Values as text, in the form of GVariant that annotations have: `true`, `'text'`, `uint64 5`, `['a', 'b']`, `@as []`.

use super::wire::Value;

/// Arrays and tuples may be nested this deep.
const DEPTH: usize = 8;

/// Reads a value.
///
/// # Errors
/// What was expected.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value(None, 0)?;
    if parser.rest.trim_start().is_empty() {
        Ok(value)
    } else {
        Err(format!("expected the end of the value, found {:?}", parser.rest))
    }
}

/// The names of types in values, and their signatures (the text format of GVariant).
const TYPES: [(&str, &str); 9] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("string", "s"),
];

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: char) -> bool {
        self.skip();
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn word(&mut self) -> &'a str {
        self.skip();
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-_.".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A value, of a type that is asked for or the one that its form implies.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("expected a value that is nested less deep".to_owned());
        }
        if self.eat('@') {
            let end = self.rest.find(' ').unwrap_or(self.rest.len());
            let (signature, rest) = self.rest.split_at(end);
            self.rest = rest;
            return self.value(Some(signature), depth + 1);
        }
        if self.eat('[') {
            return self.array(wanted, depth);
        }
        if self.eat('(') {
            return self.tuple(depth);
        }
        self.skip();
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            return match wanted {
                None | Some("s") => self.string(quote).map(Value::Str),
                Some("o") => self.string(quote).map(Value::Path),
                Some(other) => Err(format!("expected a value of type {other}, found a string")),
            };
        }
        let word = self.word();
        if let Some((_, signature)) = TYPES.iter().find(|(name, _)| *name == word) {
            return self.value(Some(signature), depth + 1);
        }
        scalar(word, wanted)
    }

    fn string(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((index, letter)) = chars.next() {
            match letter {
                '\\' => text.extend(chars.next().map(|(_, escaped)| match escaped {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                })),
                '\0' => return Err("expected text without a NUL".to_owned()),
                _ if letter == quote => {
                    self.rest = &self.rest[index + quote.len_utf8()..];
                    return Ok(text);
                }
                _ => text.push(letter),
            }
        }
        Err(format!("expected a closing {quote} in {:?}", self.rest))
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let mut element = match wanted.map(|signature| signature.strip_prefix('a')) {
            Some(None) => return Err("expected a value that is no list".to_owned()),
            Some(Some(element)) => Some(element.to_owned()),
            None => None,
        };
        let mut values = Vec::new();
        while !self.eat(']') {
            let value = self.value(element.as_deref(), depth + 1)?;
            let signature = value.signature();
            if element.get_or_insert_with(|| signature.clone()) != &signature {
                return Err(format!("expected values of one type in a list, found {signature}"));
            }
            values.push(value);
            if !self.eat(',') && !self.rest.trim_start().starts_with(']') {
                return Err(format!("expected `,` or `]`, found {:?}", self.rest));
            }
        }
        let element = element.ok_or("expected the type of an empty list, such as `@as []`")?;
        Ok(Value::Array(element, values))
    }

    fn tuple(&mut self, depth: usize) -> Result<Value, String> {
        let mut values = Vec::new();
        while !self.eat(')') {
            values.push(self.value(None, depth + 1)?);
            if !self.eat(',') && !self.rest.trim_start().starts_with(')') {
                return Err(format!("expected `,` or `)`, found {:?}", self.rest));
            }
        }
        if values.is_empty() { Err("expected a tuple that is not empty".to_owned()) } else { Ok(Value::Struct(values)) }
    }
}

fn scalar(word: &str, wanted: Option<&str>) -> Result<Value, String> {
    let bad = |kind: &str| format!("expected {kind}, found {word:?}");
    if let ("true" | "false", None | Some("b")) = (word, wanted) {
        return Ok(Value::Bool(word == "true"));
    }
    let (digits, radix) = word.strip_prefix("0x").map_or((word, 10), |digits| (digits, 16));
    macro_rules! number {
        ($kind:ident, $type:ty, $name:literal) => {
            <$type>::from_str_radix(digits, radix).map(Value::$kind).map_err(|_| bad($name))
        };
    }
    match wanted {
        None | Some("i") => number!(I32, i32, "a number of 32 bits, a string in quotes, true or false, or a type and a value"),
        Some("y") => number!(Byte, u8, "a byte"),
        Some("n") => number!(I16, i16, "a number of 16 bits"),
        Some("q") => number!(U16, u16, "a number of 16 bits without a sign"),
        Some("u") => number!(U32, u32, "a number of 32 bits without a sign"),
        Some("x") => number!(I64, i64, "a number of 64 bits"),
        Some("t") => number!(U64, u64, "a number of 64 bits without a sign"),
        Some(other) => Err(bad(&format!("a value of type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let strings = |list: &[&str]| Value::Array("s".into(), list.iter().map(|text| Value::text(*text)).collect());
        let good = [
            ("true", Value::Bool(true)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            ("\"a'\\\"b\"", Value::text("a'\"b")),
            ("uint64 123456789", Value::U64(123_456_789)),
            ("-5", Value::I32(-5)),
            ("byte 0x1f", Value::Byte(31)),
            ("['a.service', 'b.service']", strings(&["a.service", "b.service"])),
            ("@as []", strings(&[])),
            ("@t 5", Value::U64(5)),
            ("('a', uint64 1)", Value::Struct(vec![Value::text("a"), Value::U64(1)])),
            ("[byte 1, 2]", Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)])),
        ];
        for (text, value) in good {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in ["", "x", "'", "[1, 'a']", "[]", "uint64 -1", "int32 99999999999", "true false", "(", "()", "[1", "@s 5"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"[".repeat(100)).is_err());
    }
}
