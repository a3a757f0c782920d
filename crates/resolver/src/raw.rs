//! Messages of other servers, as bytes (RFC 1035, section 4). They are passed on as they came but for
//! their id, their question's case and their times to live: taking them apart and putting them
//! together again would lose what this program does not know.

use std::ops::Range;

/// A record of a message: where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub section: Section,
    pub kind: u16,
    ttl_at: usize,
    pub data: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

pub(crate) const HEADER: usize = 12;

/// Kinds of records (RFC 1035, 3.2.2; RFC 6891).
pub(crate) const SOA: u16 = 6;
pub(crate) const OPT: u16 = 41;

/// Answers' codes (RFC 1035, 4.1.1).
pub(crate) const NO_ERROR: u8 = 0;
pub(crate) const FORMAT_ERROR: u8 = 1;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NO_SUCH_NAME: u8 = 3;
pub(crate) const NOT_IMPLEMENTED: u8 = 4;
pub(crate) const REFUSED: u8 = 5;

pub(crate) fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

pub(crate) fn id(message: &[u8]) -> Option<u16> {
    number(message, 0)
}

pub(crate) fn is_response(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

pub(crate) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// The lower four bits of it, which are all that this program looks at.
pub(crate) fn code(message: &[u8]) -> u8 {
    message.get(3).map_or(SERVER_FAILURE, |flags| flags & 0x0f)
}

/// How many questions, answers, authorities and additional records there are to be.
pub(crate) fn counts(message: &[u8]) -> Option<[u16; 4]> {
    Some([number(message, 4)?, number(message, 6)?, number(message, 8)?, number(message, 10)?])
}

/// Where the first question's bytes are; `None` where its name is not spelt out.
pub(crate) fn question(message: &[u8]) -> Option<Range<usize>> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let end = at + 5;
    // a name has 255 bytes at most
    (end <= message.len() && at - HEADER < 255).then_some(HEADER..end)
}

/// Skips a name; a pointer ends it and is not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => {
                message.get(at + 1)?;
                return Some(at + 2);
            }
            _ => return None,
        }
    }
}

/// All records; `None` where the message is not what its counts say.
pub(crate) fn records(message: &[u8]) -> Option<Vec<Record>> {
    let [questions, answers, authorities, additional] = counts(message)?;
    let mut at = HEADER;
    for _ in 0..questions {
        at = skip_name(message, at)? + 4;
    }
    let sections = [
        (Section::Answer, answers),
        (Section::Authority, authorities),
        (Section::Additional, additional),
    ];
    let mut records = Vec::new();
    for (section, count) in sections {
        for _ in 0..count {
            let fixed = skip_name(message, at)?;
            let data = fixed + 10..fixed + 10 + usize::from(number(message, fixed + 8)?);
            message.get(data.clone())?;
            at = data.end;
            let kind = number(message, fixed)?;
            records.push(Record { section, kind, ttl_at: fixed + 4, data });
        }
    }
    (at <= message.len()).then_some(records)
}

/// Seconds; RFC 2181, section 8: what has the highest bit set is 0.
pub(crate) fn ttl(message: &[u8], record: &Record) -> u32 {
    let bytes = message.get(record.ttl_at..record.ttl_at + 4);
    let ttl = bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    if ttl > i32::MAX.cast_unsigned() { 0 } else { ttl }
}

/// Takes `seconds` off every time to live. That of OPT is none.
pub(crate) fn age(message: &mut [u8], seconds: u32) {
    for record in records(message).unwrap_or_default() {
        if record.kind != OPT {
            let left = ttl(message, &record).saturating_sub(seconds);
            message[record.ttl_at..record.ttl_at + 4].copy_from_slice(&left.to_be_bytes());
        }
    }
}

/// How long an answer may be kept, in seconds (RFC 2308): as long as its records, and where it has none
/// as long as the zone's own record says. `None`: not at all.
pub(crate) fn lifetime(message: &[u8]) -> Option<u32> {
    let records = records(message)?;
    let answered = records.iter().any(|record| record.section == Section::Answer);
    let lives = || records.iter().filter(|record| record.kind != OPT);
    match code(message) {
        NO_ERROR if answered => lives().map(|record| ttl(message, record)).min(),
        NO_ERROR | NO_SUCH_NAME => {
            let soa = lives()
                .find(|record| record.section == Section::Authority && record.kind == SOA)?;
            // its last field, `MINIMUM`, after two names and four numbers
            let minimum = message.get(soa.data.clone())?.last_chunk().copied()?;
            Some(ttl(message, soa).min(u32::from_be_bytes(minimum)))
        }
        _ => None,
    }
}

/// Whether a question's bytes are those of another, but for the case of letters in the name.
pub(crate) fn same_question(one: &[u8], other: &[u8]) -> bool {
    let (Some((name, kind)), Some((other_name, other_kind))) =
        (one.split_last_chunk::<4>(), other.split_last_chunk::<4>())
    else {
        return false;
    };
    kind == other_kind && name.eq_ignore_ascii_case(other_name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer to `www.example.com A`, in which everything is compressed as servers do.
    pub(crate) fn sample() -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 1, 0, 1];
        message.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
        message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
        // SOA: two names and five numbers, of which the last is 60
        message.extend(b"\xc0\x10\0\x06\0\x01\0\0\x0e\x10\0\x18\xc0\x10\xc0\x10");
        message.extend([0; 16]);
        message.extend(60_u32.to_be_bytes());
        message.extend(b"\0\0\x29\x04\xd0\0\0\x80\0\0\0");
        message
    }

    #[test]
    fn records_are_found_and_aged() {
        let mut message = sample();
        let found = records(&message).unwrap();
        let kinds: Vec<_> = found.iter().map(|record| (record.section, record.kind)).collect();
        let wanted = [(Section::Answer, 1), (Section::Authority, SOA), (Section::Additional, OPT)];
        assert_eq!(kinds, wanted);
        assert_eq!(ttl(&message, &found[0]), 300);
        assert_eq!(lifetime(&message), Some(300));
        age(&mut message, 100);
        assert_eq!(ttl(&message, &found[0]), 200);
        age(&mut message, 1000);
        assert_eq!(ttl(&message, &found[0]), 0);
        // the flags of OPT lie where others have their time
        assert_eq!(message[message.len() - 6..message.len() - 2], [0, 0, 0x80, 0]);
    }

    #[test]
    fn what_does_not_exist_is_kept_as_long_as_the_zone_says() {
        let mut message = sample();
        message[3] = 0x80 | NO_SUCH_NAME;
        assert_eq!(lifetime(&message), Some(60));
        message[3] = 0x80 | SERVER_FAILURE;
        assert_eq!(lifetime(&message), None);
    }

    #[test]
    fn no_message_is_read_past_its_end() {
        let message = sample();
        for length in 0..message.len() {
            assert_eq!(records(&message[..length]), None, "{length}");
            age(&mut message[..length].to_vec(), 1);
        }
        // names that point at themselves are skipped, and never followed
        let mut looping = sample();
        looping[HEADER + 21..HEADER + 23].copy_from_slice(b"\xc0\x21");
        assert!(records(&looping).is_some());
        let mut many = sample();
        many[6..12].fill(0xff);
        assert_eq!(records(&many), None);
        assert_eq!(question(b"\0\0\0\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"), None);
        let long = [&[0; HEADER][..], &[0x3f; 64 * 64], &[0; 4000]].concat();
        assert_eq!(question(&long), None);
    }

    #[test]
    fn questions_are_compared_without_case() {
        let one = b"\x03www\0\0\x41\0\x01";
        assert!(same_question(one, b"\x03WwW\0\0\x41\0\x01"));
        // 0x61 is another kind of record than 0x41, not the same letter
        assert!(!same_question(one, b"\x03www\0\0\x61\0\x01"));
        assert!(!same_question(one, b"\x03wwx\0\0\x41\0\x01") && !same_question(b"", b""));
    }
}
