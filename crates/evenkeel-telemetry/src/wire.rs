//! Protobuf as it is written while a span goes on. A message of OTLP's own types has an allocation
//! for each name and each text in it, some fifty for a span, and is copied to be sent; this is one
//! list of bytes, which goes out as it is.

use std::fmt::{self, Display, Write as _};

/// What follows a field's number.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// The bytes of one message so far. Fields that have their default are left out by the caller, or
/// written: who reads it can't tell.
#[derive(Default)]
pub(crate) struct Wire(Vec<u8>);

impl Wire {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn int(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, FIXED64);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn fixed32(&mut self, field: u32, value: u32) {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    pub(crate) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A message or a text whose length is known when it is written.
    pub(crate) fn inside(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, BYTES);
        let begin = self.0.len();
        // Room for the length of most; a longer one is moved.
        self.0.push(0);
        write(self);
        let len = self.0.len() - begin - 1;
        match u8::try_from(len) {
            Ok(short @ ..0x80) => self.0[begin] = short,
            _ => {
                let mut head = Self::default();
                head.varint(len as u64);
                self.0.splice(begin..=begin, head.0);
            }
        }
    }

    /// An attribute, as OTLP has it (`KeyValue` of its common.proto).
    pub(crate) fn attribute(&mut self, field: u32, key: &str, value: &Value<'_>) {
        self.inside(field, |pair| {
            pair.text(1, key);
            pair.inside(2, |any| match value {
                Value::Text(text) => any.text(1, text),
                Value::Shown(shown) => any.inside(1, |text| {
                    // Writing into memory does not fail.
                    let _ = write!(text, "{shown}");
                }),
                Value::Bool(bool) => any.int(2, (*bool).into()),
                // Negative ones as two's complement, says Protobuf.
                Value::Int(int) => any.int(3, *int as u64),
                Value::Double(double) => any.fixed64(4, double.to_bits()),
            });
        });
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint((u64::from(field) << 3) | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// An attribute's value.
pub(crate) enum Value<'a> {
    Text(&'a str),
    /// A text that is written where it is needed.
    Shown(&'a dyn Display),
    Bool(bool),
    Int(i64),
    Double(f64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

/// Text within [`Wire::inside`].
impl fmt::Write for Wire {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::otlp::{Event, Value as Otlp, attribute, text};

    #[test]
    fn prost_reads_what_was_written_whatever_its_length() {
        for len in [0, 1, 60, 126, 127, 128, 129, 300, 20_000] {
            let long = "x".repeat(len);
            let mut wire = Wire::default();
            wire.fixed64(1, u64::MAX);
            wire.text(2, &long);
            wire.attribute(3, "text", &Value::Text(&long));
            wire.attribute(3, "shown", &Value::Shown(&long));
            wire.int(4, 300);
            let read = Event::decode(&*wire.into_bytes()).expect("a message");
            let attributes = ["text", "shown"].map(|key| attribute(key, text(&*long))).to_vec();
            let (time_unix_nano, dropped_attributes_count) = (u64::MAX, 300);
            let name = long;
            let event = Event { time_unix_nano, name, attributes, dropped_attributes_count };
            assert_eq!(read, event, "{len}");
        }
    }

    #[test]
    fn values_are_as_prost_has_them() {
        let int = |int| (Value::Int(int), Otlp::IntValue(int));
        let cases = [0, 1, 127, 128, 16_383, 16_384, i64::MAX, -1, i64::MIN].map(int);
        let bools = [true, false].map(|bool| (Value::Bool(bool), Otlp::BoolValue(bool)));
        let double = |double| (Value::Double(double), Otlp::DoubleValue(double));
        for (value, expected) in cases.into_iter().chain(bools).chain([0.0, -2.5].map(double)) {
            let mut wire = Wire::default();
            wire.attribute(3, "key", &value);
            let read = Event::decode(&*wire.into_bytes()).expect("a message");
            assert_eq!(read.attributes, [attribute("key", expected)]);
        }
    }
}
