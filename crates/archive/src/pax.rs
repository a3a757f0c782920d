//! PAX extended headers: what a header block cannot say (pax(1), "pax Header Block").

use crate::Time;

/// What one `x` header says about the member after it (pax(1), "pax Header Block").
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: bool,
}

impl Pax {
    /// Reads `LENGTH KEY=VALUE\n` records; `None` is a malformed one.
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = number(&bytes[..space])?.try_into().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            pax.record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        pax.xattrs.sort();
        Some(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return None;
                    }
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// Appends one record; its length counts its own digits.
pub(crate) fn write(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3; // space, equals, newline
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// An empty value takes the record back, as pax(1) has it; a NUL is nobody's file name.
fn name(value: &[u8]) -> Option<Option<Vec<u8>>> {
    if value.contains(&0) {
        return None;
    }
    Some((!value.is_empty()).then(|| value.to_vec()))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; digits after the ninth are cut off.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(number(parts.next()?)?).ok()?;
    let mut nanoseconds = 0;
    if let Some(fraction) = parts.next() {
        let mut unit = 100_000_000;
        for digit in fraction {
            if !digit.is_ascii_digit() {
                return None;
            }
            nanoseconds += u32::from(digit - b'0') * unit;
            unit /= 10;
        }
    }
    // -1.25 is one and a quarter second before 1970: two seconds before, and 0.75 after those
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// The spelling that [`time`] reads.
pub(crate) fn write_time(time: Time) -> String {
    let (sign, whole, fraction) = match (time.seconds < 0, time.nanoseconds) {
        (false, fraction) => ("", time.seconds.unsigned_abs(), fraction),
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, part) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - part),
    };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_records_are_refused() {
        for wrong in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"6 ab\n\n",
            b"11 path=a\0b\n",
            b"9 size=-\n",
            b"0 a=b\n",
            b"18446744073709551616 a=b\n",
            b"10 mtime=.\n",
            b"1 ",
        ] {
            assert_eq!(Pax::parse(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&bytes);
        }

        #[test]
        fn records_come_back(value in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut records = Vec::new();
            write(&mut records, b"SCHILY.xattr.user.a", &value);
            let pax = Pax::parse(&records).expect("own records are well-formed");
            prop_assert_eq!(pax.xattrs, vec![(b"user.a".to_vec(), value)]);
        }

        #[test]
        fn times_come_back(seconds in -1_000_000_000_000_i64..1_000_000_000_000, nanoseconds in 0..1_000_000_000_u32) {
            let moment = Time { seconds, nanoseconds };
            prop_assert_eq!(time(write_time(moment).as_bytes()), Some(moment));
        }
    }
}
