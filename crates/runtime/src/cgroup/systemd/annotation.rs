//! Properties of a unit from annotations `org.systemd.property.NAME`, whose values are in GVariant's
//! text format (runc: docs/systemd.md; GLib: "GVariant Text Format").

use std::collections::BTreeMap;

use super::value::{Value, split};
use super::{Property, SystemdError};

const PREFIX: &str = "org.systemd.property.";

/// Reads the properties. A name that ends in `Sec` is given to systemd in microseconds, `USec`, as
/// its D-Bus interface has it.
///
/// # Errors
/// [`SystemdError::Annotation`] for a name that has other characters than letters or less than
/// three, and for a value that cannot be read.
pub fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, SystemdError> {
    let named = annotations.iter().filter_map(|it| Some((it.0.strip_prefix(PREFIX)?, it.1)));
    named
        .map(|(name, text)| {
            let wrong = |fault: &'static str| SystemdError::Annotation {
                name: name.to_owned(),
                text: text.clone(),
                fault,
            };
            if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return Err(wrong("the name is of three or more letters"));
            }
            let value = parse(text).ok_or_else(|| wrong("write it in GVariant's text format"))?;
            match name.strip_suffix("Sec") {
                Some(start) if start.ends_with(|last: char| last.is_ascii_lowercase()) => {
                    let value = microseconds(&value)
                        .ok_or_else(|| wrong("a property of seconds is a number"))?;
                    Ok((format!("{start}USec"), Value::U64(value)))
                }
                _ => Ok((name.to_owned(), value)),
            }
        })
        .collect()
}

fn microseconds(value: &Value) -> Option<u64> {
    let seconds = match *value {
        Value::Byte(it) => it.into(),
        Value::I16(it) => it.try_into().ok()?,
        Value::U16(it) => it.into(),
        Value::I32(it) => it.try_into().ok()?,
        Value::U32(it) => it.into(),
        Value::I64(it) => it.try_into().ok()?,
        Value::U64(it) => it,
        Value::F64(it) if it >= 0.0 => return Some((it * 1e6) as u64),
        _ => return None,
    };
    seconds.checked_mul(1_000_000)
}

/// Reads booleans, numbers, strings and arrays of them, with a type (`uint64 5`, `@t 5`) or without.
fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value(None, 0)?;
    parser.rest.trim().is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn value(&mut self, signature: Option<&str>, depth: usize) -> Option<Value> {
        self.rest = self.rest.trim_start();
        if depth > 8 {
            return None;
        }
        let first = self.rest.chars().next()?;
        match first {
            '@' if signature.is_none() => {
                let (of, rest) = split(&self.rest[1..], 0)?;
                self.rest = rest;
                self.value(Some(of), depth + 1)
            }
            '\'' | '"' => self.string(first, signature),
            '[' => self.array(signature, depth),
            _ => self.word(signature, depth),
        }
    }

    fn string(&mut self, quote: char, signature: Option<&str>) -> Option<Value> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        loop {
            let (at, character) = characters.next()?;
            match character {
                end if end == quote => {
                    self.rest = &self.rest[at + 1..];
                    break;
                }
                '\\' => match characters.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        match signature {
            None | Some("s") => Some(Value::Text(text)),
            Some("o") => Some(Value::Path(text)),
            Some("g") => Some(Value::Signature(text)),
            Some(_) => None,
        }
    }

    fn array(&mut self, signature: Option<&str>, depth: usize) -> Option<Value> {
        let mut of = match signature {
            None => None,
            Some(signature) => Some(signature.strip_prefix('a')?.to_owned()),
        };
        self.rest = &self.rest[1..];
        let mut elements = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return Some(Value::Array(of?, elements));
            }
            if !elements.is_empty() {
                self.rest = self.rest.strip_prefix(',')?;
            }
            let element = self.value(of.as_deref(), depth + 1)?;
            of.get_or_insert_with(|| element.signature());
            elements.push(element);
        }
    }

    fn word(&mut self, signature: Option<&str>, depth: usize) -> Option<Value> {
        let end = self.rest.find([' ', ',', ']', '[']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let named = match word {
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            _ => {
                self.rest = rest;
                return plain(word, signature);
            }
        };
        // the elements of an array may each say what the first has said
        if signature.is_some_and(|it| it != named) {
            return None;
        }
        self.rest = rest;
        self.value(Some(named), depth + 1)
    }
}

/// Without a type a whole number is an `int32`, and one with a point a `double`.
fn plain(word: &str, signature: Option<&str>) -> Option<Value> {
    if matches!(word, "true" | "false") {
        return matches!(signature, None | Some("b")).then(|| Value::Bool(word == "true"));
    }
    let digits = word.strip_prefix('-').unwrap_or(word);
    let hexadecimal = digits.strip_prefix("0x");
    let signature = match signature {
        Some(signature) => signature,
        None if hexadecimal.is_none() && digits.contains(['.', 'e']) => "d",
        None => "i",
    };
    if signature == "d" {
        let finite = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        return word.parse().ok().filter(|_| finite).map(Value::F64);
    }
    let size: i128 = match hexadecimal {
        Some(digits) => i128::from_str_radix(digits, 16).ok()?,
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None => return None,
    };
    let number = if word.starts_with('-') { -size } else { size };
    Some(match signature {
        "y" => Value::Byte(number.try_into().ok()?),
        "n" => Value::I16(number.try_into().ok()?),
        "q" => Value::U16(number.try_into().ok()?),
        "i" => Value::I32(number.try_into().ok()?),
        "u" => Value::U32(number.try_into().ok()?),
        "x" => Value::I64(number.try_into().ok()?),
        "t" => Value::U64(number.try_into().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_gvariants_text_format() {
        for (text, want) in [
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x1f", Value::I32(31)),
            ("1.5", Value::F64(1.5)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 5", Value::U64(5)),
            (" byte 7 ", Value::Byte(7)),
            ("'a b'", Value::text("a b")),
            (r#""a\"b""#, Value::text("a\"b")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', \"b\"]", Value::Array("s".into(), vec![Value::text("a"), Value::text("b")])),
            ("@as []", Value::Array("s".into(), vec![])),
            ("[uint32 1, uint32 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
        ] {
            assert_eq!(parse(text), Some(want), "{text}");
        }
        for text in [
            "",
            "x",
            "5 5",
            "'a",
            "[",
            "[]",
            "[1,'a']",
            "uint64 -1",
            "byte 256",
            "@t 'a'",
            "@",
            "@z 1",
            "2147483648",
            "1.x",
            "nan",
            "inf",
            "true false",
            "-",
            "0x",
            "[uint32 1, byte 2]",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_and_seconds_are_those_of_the_interface() {
        let annotations = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let read = properties(&annotations(&[
            ("org.systemd.property.TimeoutStopSec", "30"),
            ("org.systemd.property.RuntimeMaxSec", "1.5"),
            ("org.systemd.property.TimeoutStopUSec", "uint64 123"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("other", "?"),
        ]))
        .unwrap();
        let want = [
            ("CollectMode", Value::text("inactive-or-failed")),
            ("RuntimeMaxUSec", Value::U64(1_500_000)),
            ("TimeoutStopUSec", Value::U64(30_000_000)),
            ("TimeoutStopUSec", Value::U64(123)),
        ];
        assert_eq!(read, want.map(|(name, value)| (name.to_owned(), value)));
        for (name, text) in [("ab", "1"), ("a.b.c", "1"), ("Good", "?"), ("StopSec", "'x'")] {
            let key = format!("{PREFIX}{name}");
            let error = properties(&annotations(&[(&key, text)])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("annotation {key}={text}: ")), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[@\\[\\]'\"a-z0-9 ,.x-]{0,16}|\\PC{0,8}") {
            let _ = parse(&text);
        }
    }
}
