//! D-Bus messages as bytes: as much of the D-Bus specification ("Type system", "Message Protocol") as systemd's interface needs.

use std::fmt;

use serde::Serialize;

/// A value of a D-Bus type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names are those of the specification")]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Str(String),
    Path(String),
    Signature(String),
    /// The signature of the elements, and the elements.
    Array(String, Vec<Value>),
    /// A structure, or an entry of a dictionary.
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// The signature of the value's type.
    pub fn signature(&self) -> String {
        let code = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Str(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => {
                return format!("({})", fields.iter().map(Self::signature).collect::<String>());
            }
        };
        code.to_owned()
    }

    /// The text of a string or object path.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Path(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[Value]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Byte(value) => write!(f, "{value:#04x}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::I16(value) => write!(f, "{value}"),
            Self::U16(value) => write!(f, "{value}"),
            Self::I32(value) => write!(f, "{value}"),
            Self::U32(value) => write!(f, "{value}"),
            Self::I64(value) => write!(f, "{value}"),
            Self::U64(u64::MAX) => write!(f, "infinity"),
            Self::U64(value) => write!(f, "{value}"),
            Self::Str(text) | Self::Path(text) | Self::Signature(text) => write!(f, "{text:?}"),
            Self::Array(_, values) => write!(f, "[{}]", list(values)),
            Self::Struct(values) => write!(f, "({})", list(values)),
            Self::Variant(value) => write!(f, "{value}"),
        }
    }
}

/// The alignment of a type by the first letter of its signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// Writes values, little-endian.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn length(&mut self, length: usize) {
        // What does not fit is refused by the receiver: our messages are a few kilobytes long.
        self.number(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn short_text(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn array(&mut self, element: &str, values: &[Value]) {
        self.length(0);
        let length_at = self.0.len() - 4;
        self.align(alignment(element));
        let start = self.0.len();
        values.iter().for_each(|value| self.put(value));
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Writes a value.
    pub fn put(&mut self, value: &Value) {
        match value {
            Value::Byte(value) => self.0.push(*value),
            Value::Bool(value) => self.number(&u32::from(*value).to_le_bytes()),
            Value::I16(value) => self.number(&value.to_le_bytes()),
            Value::U16(value) => self.number(&value.to_le_bytes()),
            Value::I32(value) => self.number(&value.to_le_bytes()),
            Value::U32(value) => self.number(&value.to_le_bytes()),
            Value::I64(value) => self.number(&value.to_le_bytes()),
            Value::U64(value) => self.number(&value.to_le_bytes()),
            Value::Str(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.short_text(text),
            Value::Array(element, values) => self.array(element, values),
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.put(field));
            }
            Value::Variant(inner) => {
                self.short_text(&inner.signature());
                self.put(inner);
            }
        }
    }
}

/// Reads values. Whatever is not well-formed gives nothing.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Arrays, structures and variants may be nested this deep (the specification allows 64).
const DEPTH: usize = 16;

/// The first complete type of a signature, and the rest.
fn split_type(signature: &str) -> Option<(&str, &str)> {
    let (mut open, mut end) = (0i32, 0);
    for (index, letter) in signature.char_indices() {
        end = index + letter.len_utf8();
        match letter {
            '(' | '{' => open += 1,
            ')' | '}' => open -= 1,
            'a' => continue,
            _ => {}
        }
        if open <= 0 {
            return Some(signature.split_at(end));
        }
    }
    (open == 0 && end > 0 && !signature.ends_with('a')).then(|| signature.split_at(end))
}

impl<'a> Reader<'a> {
    /// Reads from the start of a message or of a body.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N);
        self.take(N)?.try_into().ok()
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        self.take(1)?;
        Some(text)
    }

    fn long_text(&mut self) -> Option<String> {
        let length = usize::try_from(u32::from_le_bytes(self.number()?)).ok()?;
        self.text(length)
    }

    fn short_text(&mut self) -> Option<String> {
        let length = usize::from(*self.take(1)?.first()?);
        self.text(length)
    }

    /// All values of a signature.
    pub fn values(&mut self, signature: &str) -> Option<Vec<Value>> {
        self.sequence(signature, 0)
    }

    fn sequence(&mut self, mut signature: &str, depth: usize) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = split_type(signature)?;
            values.push(self.value(first, depth)?);
            signature = rest;
        }
        Some(values)
    }

    fn value(&mut self, signature: &str, depth: usize) -> Option<Value> {
        if depth > DEPTH {
            return None;
        }
        Some(match signature.as_bytes().first()? {
            b'y' => Value::Byte(*self.take(1)?.first()?),
            b'b' => Value::Bool(u32::from_le_bytes(self.number()?) != 0),
            b'n' => Value::I16(i16::from_le_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.number()?)),
            b'u' => Value::U32(u32::from_le_bytes(self.number()?)),
            b'x' => Value::I64(i64::from_le_bytes(self.number()?)),
            b't' => Value::U64(u64::from_le_bytes(self.number()?)),
            b's' => Value::Str(self.long_text()?),
            b'o' => Value::Path(self.long_text()?),
            b'g' => Value::Signature(self.short_text()?),
            b'v' => {
                let inner = self.short_text()?;
                Value::Variant(Box::new(self.value(&inner, depth + 1)?))
            }
            b'a' => {
                let element = signature.get(1..)?;
                let length = usize::try_from(u32::from_le_bytes(self.number()?)).ok()?;
                self.align(alignment(element));
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(element, depth + 1)?);
                }
                Value::Array(element.to_owned(), values)
            }
            b'(' | b'{' => {
                self.align(8);
                Value::Struct(self.sequence(signature.get(1..signature.len() - 1)?, depth + 1)?)
            }
            _ => return None,
        })
    }
}

/// The kinds of messages.
pub mod kind {
    /// A call.
    pub const CALL: u8 = 1;
    /// Its answer.
    pub const REPLY: u8 = 2;
    /// A signal.
    pub const SIGNAL: u8 = 4;
}

/// A call to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whom it is for; nobody on a connection without a bus.
    pub destination: Option<&'a str>,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// The arguments.
    pub body: &'a [Value],
}

impl Call<'_> {
    /// The bytes of the message.
    pub fn bytes(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.put(value));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let field = |code, value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut fields = vec![
            field(1, Value::Path(self.path.to_owned())),
            field(2, Value::text(self.interface)),
            field(3, Value::text(self.member)),
        ];
        fields.extend(self.destination.map(|name| field(6, Value::text(name))));
        if !signature.is_empty() {
            fields.push(field(8, Value::Signature(signature)));
        }
        let mut message = Writer(vec![b'l', kind::CALL, 0, 1]);
        message.length(body.0.len());
        message.put(&Value::U32(serial));
        message.put(&Value::Array("(yv)".to_owned(), fields));
        message.align(8);
        message.0.extend(body.0);
        message.0
    }
}

/// A message that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// See [`kind`].
    pub kind: u8,
    /// The call that this answers.
    pub reply_to: Option<u32>,
    /// The method or signal.
    pub member: String,
    /// The name of the error.
    pub error: String,
    /// The arguments.
    pub body: Vec<Value>,
}

/// The fixed part of a message.
pub const HEADER: usize = 16;
/// The longest message that is read; the specification allows 128 MiB.
const LONGEST: usize = 16 << 20;

impl Message {
    /// The length of a message by its fixed part. Nothing if it is no little-endian message, or too long.
    pub fn length(header: &[u8; HEADER]) -> Option<usize> {
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (body, fields) = (usize::try_from(number(4)).ok()?, usize::try_from(number(12)).ok()?);
        let length = (HEADER + fields).next_multiple_of(8) + body;
        (header[0] == b'l' && fields <= LONGEST && body <= LONGEST && length <= LONGEST).then_some(length)
    }

    /// Reads a message. Nothing if it is malformed.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut message = Self { kind: *bytes.get(1)?, ..Self::default() };
        let mut reader = Reader { bytes, at: 12 };
        let Value::Array(_, fields) = reader.value("a(yv)", 0)? else { return None };
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(parts) = field else { return None };
            match parts.as_slice() {
                [Value::Byte(code), Value::Variant(value)] => match (code, value.as_ref()) {
                    (3, Value::Str(member)) => message.member.clone_from(member),
                    (4, Value::Str(error)) => message.error.clone_from(error),
                    (5, Value::U32(serial)) => message.reply_to = Some(*serial),
                    (8, Value::Signature(text)) => signature.clone_from(text),
                    _ => {}
                },
                _ => return None,
            }
        }
        reader.align(8);
        message.body = Reader::new(bytes.get(reader.at..)?).values(&signature).or_else(|| {
            // A signal of another kind may have types that we do not know (double, descriptor).
            (message.kind == kind::SIGNAL).then(Vec::new)
        })?;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn roundtrip(value: &Value) {
        let mut writer = Writer::default();
        writer.put(&Value::Byte(7));
        writer.put(value);
        let read = Reader::new(&writer.0).values(&format!("y{}", value.signature())).unwrap();
        assert_eq!(read[1], *value);
    }

    #[test]
    fn values_come_back() {
        let property = |name: &str, value| Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))]);
        roundtrip(&Value::U64(u64::MAX));
        roundtrip(&Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]));
        roundtrip(&Value::Array("t".into(), Vec::new()));
        let properties = vec![
            property("PIDs", Value::Array("u".into(), vec![Value::U32(7)])),
            property("Delegate", Value::Bool(true)),
            property("AllowedCPUs", Value::Array("y".into(), vec![Value::Byte(5)])),
        ];
        roundtrip(&Value::Array("(sv)".into(), properties));
    }

    #[test]
    fn signatures_are_split() {
        assert_eq!(split_type("a(sv)a(sa(sv))"), Some(("a(sv)", "a(sa(sv))")));
        assert_eq!(split_type("uoss"), Some(("u", "oss")));
        assert_eq!(split_type("aas"), Some(("aas", "")));
        for bad in ["a", "(", "a(s", ""] {
            assert_eq!(split_type(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_call_reads_as_what_it_was() {
        let call = Call { destination: Some("a.b"), path: "/x", interface: "a.b.C", member: "Do", body: &[Value::text("é")] };
        let bytes = call.bytes(3);
        let header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
        assert_eq!(Message::length(&header), Some(bytes.len()));
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.member.as_str(), message.body), ("Do", vec![Value::text("é")]));
        for end in 0..bytes.len() {
            assert_eq!(Message::parse(&bytes[..end]), None, "cut at {end}");
        }
    }
}
