//! D-Bus values and their wire form (D-Bus specification, "Type System" and "Marshaling").

/// A value of the types that systemd's interface uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    /// An object's path.
    Path(String),
    Signature(String),
    Variant(Box<Value>),
    Struct(Vec<Value>),
    /// The signature of the elements, for an array that has none.
    Array(String, Vec<Value>),
}

impl Value {
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Variant(_) => "v".into(),
            Self::Struct(fields) => {
                let fields: String = fields.iter().map(Self::signature).collect();
                format!("({fields})")
            }
            Self::Array(of, _) => format!("a{of}"),
        }
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn bytes(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self::Array("y".into(), bytes.into_iter().map(Self::Byte).collect())
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(value) => value.as_text(),
            _ => None,
        }
    }

    /// Appends the little-endian form; `out` begins where alignment is counted from.
    pub fn write(&self, out: &mut Vec<u8>) {
        pad(out, alignment(&self.signature()));
        match self {
            Self::Byte(it) => out.push(*it),
            Self::Bool(it) => out.extend(u32::from(*it).to_le_bytes()),
            Self::I16(it) => out.extend(it.to_le_bytes()),
            Self::U16(it) => out.extend(it.to_le_bytes()),
            Self::I32(it) => out.extend(it.to_le_bytes()),
            Self::U32(it) => out.extend(it.to_le_bytes()),
            Self::I64(it) => out.extend(it.to_le_bytes()),
            Self::U64(it) => out.extend(it.to_le_bytes()),
            Self::F64(it) => out.extend(it.to_le_bytes()),
            Self::Text(text) | Self::Path(text) => {
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => {
                out.push(text.len() as u8);
                out.extend(text.as_bytes());
                out.push(0);
            }
            Self::Variant(value) => {
                Self::Signature(value.signature()).write(out);
                value.write(out);
            }
            Self::Struct(fields) => fields.iter().for_each(|field| field.write(out)),
            Self::Array(of, elements) => {
                let length_at = out.len();
                out.extend([0; 4]);
                // the length does not count what aligns the first element
                pad(out, alignment(of));
                let start = out.len();
                elements.iter().for_each(|element| element.write(out));
                let length = (out.len() - start) as u32;
                out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
        }
    }
}

/// Reads values; `None` is for bytes that are none.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads all values that a signature names.
    pub fn all(&mut self, mut signature: &str) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = split(signature, 0)?;
            values.push(self.value(first, 0)?);
            signature = rest;
        }
        Some(values)
    }

    fn value(&mut self, signature: &str, depth: usize) -> Option<Value> {
        if depth > DEPTH {
            return None;
        }
        self.align(alignment(signature))?;
        Some(match signature.as_bytes()[0] {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(self.u32()? != 0),
            b'n' => Value::I16(i16::from_le_bytes(self.take(2)?.try_into().ok()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.take(2)?.try_into().ok()?)),
            b'i' => Value::I32(self.u32()? as i32),
            // a descriptor's index is a number too
            b'u' | b'h' => Value::U32(self.u32()?),
            b'x' => Value::I64(i64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            b't' => Value::U64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            b'd' => Value::F64(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.string(length)?;
                if signature == "s" { Value::Text(text) } else { Value::Path(text) }
            }
            b'g' => {
                let length = self.take(1)?[0].into();
                Value::Signature(self.string(length)?)
            }
            b'v' => {
                let Value::Signature(inner) = self.value("g", depth + 1)? else { return None };
                let (first, rest) = split(&inner, 0)?;
                if !rest.is_empty() {
                    return None;
                }
                Value::Variant(Box::new(self.value(first, depth + 1)?))
            }
            b'a' => {
                let of = &signature[1..];
                let length = self.u32()? as usize;
                self.align(alignment(of))?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
                let mut elements = Vec::new();
                while self.at < end {
                    let before = self.at;
                    elements.push(self.value(of, depth + 1)?);
                    if self.at == before {
                        return None;
                    }
                }
                Value::Array(of.to_owned(), elements)
            }
            b'(' | b'{' => {
                let mut inner = &signature[1..signature.len() - 1];
                let mut fields = Vec::new();
                while !inner.is_empty() {
                    let (first, rest) = split(inner, 0)?;
                    fields.push(self.value(first, depth + 1)?);
                    inner = rest;
                }
                Value::Struct(fields)
            }
            _ => return None,
        })
    }

    fn align(&mut self, alignment: usize) -> Option<()> {
        self.at = self.at.next_multiple_of(alignment);
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.take(1)? == [0]).then_some(text)
    }
}

/// Splits the first complete type off a signature.
pub fn split(signature: &str, depth: usize) -> Option<(&str, &str)> {
    if depth > DEPTH {
        return None;
    }
    let length = match signature.as_bytes().first()? {
        b'a' => 1 + split(&signature[1..], depth + 1)?.0.len(),
        open @ (b'(' | b'{') => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut at = 1;
            while *signature.as_bytes().get(at)? != close {
                at += split(&signature[at..], depth + 1)?.0.len();
            }
            at + 1
        }
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'h' | b'x' | b't' | b'd' | b's' | b'o'
        | b'g' | b'v' => 1,
        _ => return None,
    };
    Some(signature.split_at(length))
}

pub fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b'h' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// How deep types may nest (the specification: 32 arrays, 32 structs, and variants).
const DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_the_specification() {
        let mut out = Vec::new();
        Value::U16(1).write(&mut out);
        Value::text("foo").write(&mut out);
        Value::Struct(vec![Value::Byte(5)]).write(&mut out);
        Value::Array("t".into(), vec![Value::U64(5)]).write(&mut out);
        Value::Variant(Box::new(Value::Bool(true))).write(&mut out);
        let want = [
            &[1, 0, 0, 0][..],
            &[3, 0, 0, 0, b'f', b'o', b'o', 0],
            &[0, 0, 0, 0, 5, 0, 0, 0],
            &[8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
            &[1, b'b', 0, 0, 1, 0, 0, 0],
        ];
        assert_eq!(out, want.concat());
        let mut empty = Vec::new();
        Value::Array("(ss)".into(), vec![]).write(&mut empty);
        assert_eq!(empty, [0; 8], "the padding is there without an element");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<u8>().prop_map(Value::Byte),
            any::<bool>().prop_map(Value::Bool),
            any::<i16>().prop_map(Value::I16),
            any::<u32>().prop_map(Value::U32),
            any::<u64>().prop_map(Value::U64),
            "[a-z]{0,9}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|it| Value::Variant(Box::new(it))),
                inner.clone().prop_map(|it| Value::Array(it.signature(), vec![it.clone(), it])),
                proptest::collection::vec(inner, 1..3).prop_map(Value::Struct),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(value(), 0..4)) {
            let mut out = Vec::new();
            values.iter().for_each(|value| value.write(&mut out));
            let signature: String = values.iter().map(Value::signature).collect();
            prop_assert_eq!(Reader::new(&out).all(&signature), Some(values));
        }

        #[test]
        fn any_bytes_are_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..48),
            signature in "[yubsogvax(){}]{0,8}",
        ) {
            let _ = Reader::new(&bytes).all(&signature);
        }
    }
}
