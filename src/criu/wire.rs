//! The few fields of CRIU's messages in the encoding of Protocol Buffers (proto2): a key of field number and type, then a varint or
//! bytes with their length. CRIU's `images/rpc.proto` names the fields.

/// The wire types that CRIU's messages use.
const VARINT: u64 = 0;
const BYTES: u64 = 2;

/// A message being put together.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A number, a truth value, or a member of an enumeration. Negative numbers are those of 64 bits, as the encoding wants it.
    pub fn number(&mut self, field: u32, value: i64) {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value.cast_unsigned());
    }

    /// A string or a message.
    pub fn bytes(&mut self, field: u32, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    /// The bytes of the message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a truth value, or a member of an enumeration.
    Number(i64),
    /// A string or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A number as one of 32 bits, which all of CRIU's are; 0 if it is none.
    pub fn int(self) -> i32 {
        match self {
            Self::Number(value) => i32::try_from(value).unwrap_or(0),
            Self::Bytes(_) => 0,
        }
    }

    /// A string, or the bytes of a message; empty if it is a number.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Number(_) => &[],
            Self::Bytes(bytes) => bytes,
        }
    }

    /// A string.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// The fields of a message in their order. `None` if it is damaged.
pub fn fields(message: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut rest = message;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let field = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            VARINT => Value::Number(take_varint(&mut rest)?.cast_signed()),
            BYTES => {
                let len = usize::try_from(take_varint(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, len)?)
            }
            // Fixed width: CRIU has none today; a newer one may.
            1 => take(&mut rest, 8).map(Value::Bytes)?,
            5 => take(&mut rest, 4).map(Value::Bytes)?,
            _ => return None,
        };
        found.push((field, value));
    }
    Some(found)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_and_strings_as_protoc_writes_them() {
        let mut writer = Writer::default();
        writer.number(1, 150);
        writer.bytes(2, "testing");
        writer.number(3, -1);
        writer.number(68, 1);
        let bytes = writer.finish();
        let expected = b"\x08\x96\x01\x12\x07testing\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xa0\x04\x01";
        assert_eq!(bytes, expected);
        let read = fields(&bytes).unwrap();
        let wanted = [(1, Value::Number(150)), (2, Value::Bytes(b"testing")), (3, Value::Number(-1)), (68, Value::Number(1))];
        assert_eq!(read, wanted);
    }

    #[test]
    fn damaged_messages_are_none() {
        for damaged in [&b"\x08"[..], b"\x12\x05abc", b"\x0b", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(fields(damaged), None, "{damaged:x?}");
        }
        assert_eq!(fields(b"").unwrap(), []);
    }
}
