//! The header block of a member: fields, numbers and checksum (pax(1), "ustar Interchange Format").

use crate::BLOCK;

/// One block of 512 bytes that says what follows it.
#[derive(Clone)]
pub(crate) struct Header(pub(crate) [u8; BLOCK]);

/// A part of the block.
pub(crate) type Field = std::ops::Range<usize>;

pub(crate) const NAME: Field = 0..100;
pub(crate) const MODE: Field = 100..108;
pub(crate) const UID: Field = 108..116;
pub(crate) const GID: Field = 116..124;
pub(crate) const SIZE: Field = 124..136;
pub(crate) const MTIME: Field = 136..148;
const CHECKSUM: Field = 148..156;
const FLAG: usize = 156;
pub(crate) const LINK: Field = 157..257;
/// Magic and version: POSIX's own, which alone has the field [`PREFIX`].
const MAGIC: Field = 257..265;
const USTAR: &[u8; 8] = b"ustar\x0000";
pub(crate) const MAJOR: Field = 329..337;
pub(crate) const MINOR: Field = 337..345;
pub(crate) const PREFIX: Field = 345..500;

impl Header {
    /// An empty one of POSIX's form.
    pub(crate) fn new() -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[MAGIC].copy_from_slice(USTAR);
        header
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    pub(crate) fn flag(&self) -> u8 {
        self.0[FLAG]
    }

    pub(crate) fn set_flag(&mut self, flag: u8) {
        self.0[FLAG] = flag;
    }

    /// A field's text, which ends at its first NUL.
    pub(crate) fn text(&self, field: Field) -> &[u8] {
        let bytes = &self.0[field];
        &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
    }

    /// Puts a text into a field; `false` if it is too long.
    pub(crate) fn set_text(&mut self, field: Field, text: &[u8]) -> bool {
        let bytes = &mut self.0[field];
        if text.len() > bytes.len() {
            return false;
        }
        bytes.fill(0);
        bytes[..text.len()].copy_from_slice(text);
        true
    }

    /// The name, with the prefix that POSIX's form has for long ones.
    pub(crate) fn path(&self) -> Vec<u8> {
        let (name, prefix) = (self.text(NAME), self.text(PREFIX));
        if &self.0[MAGIC] != USTAR || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// A number: octal digits, or GNU's base 256, whose first bit is set and which may be
    /// negative. An empty field is 0, as Go has it (Go: src/archive/tar/strconv.go). `None`: it is
    /// no number, or does not fit.
    pub(crate) fn number(&self, field: Field) -> Option<i64> {
        let bytes = &self.0[field];
        if bytes[0] & 0x80 == 0 {
            let digits = bytes.split(|byte| *byte == 0).find(|part| !part.is_empty());
            let text = std::str::from_utf8(digits.unwrap_or_default()).ok()?.trim_matches(' ');
            if text.is_empty() {
                return Some(0);
            }
            if !text.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            return i64::from_str_radix(text, 8).ok();
        }
        let negative = bytes[0] & 0x40 != 0;
        // The sign goes on to the left; the marking bit does not count.
        let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
        let mut value: i128 = if negative { -1 } else { 0 };
        for byte in std::iter::once(first).chain(bytes[1..].iter().copied()) {
            value = value << 8 | i128::from(byte);
        }
        i64::try_from(value).ok()
    }

    /// Puts octal digits and a NUL into a field; `false` if there are too many.
    pub(crate) fn set_number(&mut self, field: Field, value: u64) -> bool {
        let width = field.len() - 1;
        let digits = format!("{value:0width$o}");
        if digits.len() > width {
            return false;
        }
        let bytes = &mut self.0[field];
        bytes[..width].copy_from_slice(digits.as_bytes());
        bytes[width] = 0;
        true
    }

    /// Old writers summed signed bytes; both sums are accepted, as in GNU tar.
    pub(crate) fn checksum_is_right(&self) -> bool {
        let Some(stored) = self.number(CHECKSUM) else { return false };
        let signed: i64 = self.summed().map(|byte| i64::from(byte.cast_signed())).sum();
        stored == self.sum() || stored == signed
    }

    /// Comes last: it covers all other fields.
    pub(crate) fn set_checksum(&mut self) {
        let sum = u64::try_from(self.sum()).expect("a sum of unsigned bytes is positive");
        // six digits, a NUL and a blank, as every tar writes it
        let digits = format!("{sum:06o}\0 ");
        self.0[CHECKSUM].copy_from_slice(digits.as_bytes());
    }

    fn sum(&self) -> i64 {
        self.summed().map(i64::from).sum()
    }

    /// The block's bytes, with blanks for the sum itself.
    fn summed(&self) -> impl Iterator<Item = u8> {
        let blanked = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { b' ' } else { *byte };
        self.0.iter().enumerate().map(blanked)
    }
}

/// Whether an archive begins with this: its first header names something and has a right sum.
pub fn starts_like_tar(start: &[u8]) -> bool {
    let Some(block) = start.first_chunk::<BLOCK>() else { return false };
    let header = Header(*block);
    header.0[0] != 0 && header.checksum_is_right()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (bytes, number) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b" 644\0   ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"+000001\0", None),
            (&[0x80, 0, 0, 0, 0, 1, 0, 0], Some(65_536)),
            (&[0xff; 8], Some(-1)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00], Some(-256)),
            (&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(0x3fff_ffff_ffff_ffff)),
        ] {
            let mut header = Header::new();
            header.0[UID].copy_from_slice(bytes);
            assert_eq!(header.number(UID), number, "{bytes:?}");
        }
        let mut header = Header::new();
        header.0[SIZE].copy_from_slice(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header.number(SIZE), None, "2^63 is too large for an offset");
    }

    proptest! {
        /// The `tar` crate as an oracle.
        #[test]
        fn headers_are_what_others_read(
            name in proptest::collection::vec(1..=255_u8, 1..=100),
            uid in 0..=0o7_777_777_u64,
            size in 0..=0o77_777_777_777_u64,
        ) {
            let mut header = Header::new();
            prop_assert!(header.set_text(NAME, &name));
            prop_assert!(header.set_number(UID, uid) && header.set_number(SIZE, size));
            header.set_checksum();
            prop_assert!(header.checksum_is_right());
            let theirs = tar::Header::from_byte_slice(&header.0);
            prop_assert_eq!(theirs.uid().ok(), Some(uid));
            prop_assert_eq!(theirs.entry_size().ok(), Some(size));
            let mut again = theirs.clone();
            again.set_cksum();
            prop_assert_eq!(again.cksum().ok(), theirs.cksum().ok());
        }
    }
}
