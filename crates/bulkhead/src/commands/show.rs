//! The engine's values in the words of Docker's tables.

use bulkhead_types::{TimeZone, Timestamp};
use serde_json::Value;

use crate::table;

/// A string without its quotes; anything else as JSON, null as nothing.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The first 12 digits of an id, without `sha256:`.
pub fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// An id whole or short.
pub fn id(id: &str, no_trunc: bool) -> String {
    if no_trunc { id.to_owned() } else { short(id).to_owned() }
}

/// At most `width` letters, the last an ellipsis if some were left out.
pub fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// `2 hours ago`, of a moment in seconds since 1970.
pub fn since(created: i64, now: Timestamp) -> String {
    format!("{} ago", table::ago(now.as_second() - created))
}

/// A moment as Go prints it: `2026-11-30 15:04:05 +0000 UTC`.
pub fn moment(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// A text in quotes, with what Go's `strconv.Quote` escapes.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            ..' ' | '\u{7f}' => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            _ if letter.is_control() || (letter.is_whitespace() && letter != ' ') => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Bytes in powers of 1000 with four digits (go-units' `HumanSize`).
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    let digits = match value {
        v if v >= 999.95 => 0,
        v if v >= 99.995 => 1,
        v if v >= 9.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Labels as `NAME=VALUE`, by name.
pub fn labels(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// Objects of a list.
pub fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1234, "1.234kB"),
            (12_345, "12.35kB"),
            (123_456, "123.5kB"),
            (4_200_000, "4.2MB"),
            (999_999, "1000kB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn quoting_is_gos() {
        for (text, expected) in [
            ("sleep 1", r#""sleep 1""#),
            ("a\"b\\c\n\u{1b}[2J…", r#""a\"b\\c\n\x1b[2J…""#),
            ("it's \u{85}\u{2028}", "\"it's \\u0085\\u2028\""),
        ] {
            assert_eq!(quote(text), expected);
        }
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!((short("sha256:0123456789abcdef"), short("ab")), ("0123456789ab", "ab"));
    }
}
