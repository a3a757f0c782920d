//! The writer that is reproducible.

use std::io::{self, Write};

use crate::header::{self, Header};
use crate::{BLOCK, Entry, Kind, padding, pax};

/// Writes members as POSIX.1-2001 archives; equal members give equal bytes.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    /// Content and padding that the current member still wants.
    content: u64,
    padding: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, content: 0, padding: 0 }
    }

    /// Starts a member. The content of a file is then written to `self`, all of it.
    pub fn start(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_member()?;
        let (header, records) = headers(entry);
        if !records.is_empty() {
            let mut extension = Header::new();
            extension.set_text(header::NAME, b"PaxHeaders/0");
            extension.set_flag(b'x');
            extension.set_number(header::MODE, 0o644);
            for field in [header::UID, header::GID, header::MTIME] {
                extension.set_number(field, 0);
            }
            if !extension.set_number(header::SIZE, records.len() as u64) {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            extension.set_checksum();
            self.inner.write_all(&extension.0)?;
            self.inner.write_all(&records)?;
            self.zeros(padding(records.len() as u64))?;
        }
        self.inner.write_all(&header.0)?;
        if let Kind::File { size } = entry.kind {
            (self.content, self.padding) = (size, padding(size));
        }
        Ok(())
    }

    /// Writes a whole file.
    pub fn file(&mut self, entry: &Entry, content: &[u8]) -> io::Result<()> {
        let kind = Kind::File { size: content.len() as u64 };
        self.start(&Entry { kind, ..entry.clone() })?;
        self.write_all(content)
    }

    /// Writes the end of the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_member()?;
        self.zeros(2 * BLOCK as u64)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// A file that shrank while it was read is filled with zeros, or the archive would be damaged.
    fn end_member(&mut self) -> io::Result<()> {
        let rest = self.content + self.padding;
        (self.content, self.padding) = (0, 0);
        self.zeros(rest)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        io::copy(&mut io::Read::take(io::repeat(0), count), &mut self.inner).map(drop)
    }
}

/// Takes as much content as the member was announced with; `Ok(0)` beyond it.
impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = bytes.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        let written = if wanted == 0 { 0 } else { self.inner.write(&bytes[..wanted])? };
        self.content -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The header block, and the PAX records for what it cannot say.
fn headers(entry: &Entry) -> (Header, Vec<u8>) {
    let mut header = Header::new();
    let mut records = Vec::new();
    if !put_path(&mut header, &entry.path) {
        pax::write(&mut records, b"path", &entry.path);
    }
    let (flag, size) = match &entry.kind {
        Kind::BlockDevice { .. } => (b'4', 0),
        Kind::CharDevice { .. } => (b'3', 0),
        Kind::Directory => (b'5', 0),
        Kind::Fifo => (b'6', 0),
        Kind::File { size } => (b'0', *size),
        Kind::HardLink { .. } => (b'1', 0),
        Kind::Symlink { .. } => (b'2', 0),
    };
    header.set_flag(flag);
    header.set_number(header::MODE, u64::from(entry.mode & 0o7777));
    let (major, minor) = match &entry.kind {
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => (*major, *minor),
        _ => (0, 0),
    };
    for (field, number) in [(header::MAJOR, major), (header::MINOR, minor)] {
        // Linux's numbers have 12 and 20 bits, which fit into seven digits.
        header.set_number(field, u64::from(number));
    }
    if let Kind::HardLink { target } | Kind::Symlink { target } = &entry.kind
        && !header.set_text(header::LINK, target)
    {
        pax::write(&mut records, b"linkpath", target);
    }
    let mut number = |field: header::Field, key: &[u8], value: u64| {
        if !header.set_number(field.clone(), value) {
            header.set_number(field, 0);
            pax::write(&mut records, key, value.to_string().as_bytes());
        }
    };
    number(header::SIZE, b"size", size);
    number(header::UID, b"uid", entry.uid.into());
    number(header::GID, b"gid", entry.gid.into());
    let seconds = u64::try_from(entry.mtime.seconds).ok();
    let fits = seconds.is_some_and(|seconds| header.set_number(header::MTIME, seconds));
    if !fits {
        header.set_number(header::MTIME, 0);
    }
    if !fits || entry.mtime.nanoseconds != 0 {
        pax::write(&mut records, b"mtime", pax::write_time(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        pax::write(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    header.set_checksum();
    (header, records)
}

/// Puts a path into the name field, or into prefix and name at one of its slashes.
fn put_path(header: &mut Header, path: &[u8]) -> bool {
    if header.set_text(header::NAME, path) {
        return true;
    }
    let split = path.iter().enumerate().position(|(index, byte)| {
        // a slash at the very end belongs to the name
        *byte == b'/' && index > 0 && index < path.len() - 1 && path.len() - index - 1 <= 100
    });
    let fits = split.is_some_and(|slash| {
        header.set_text(header::PREFIX, &path[..slash])
            && header.set_text(header::NAME, &path[slash + 1..])
    });
    if !fits {
        header.set_text(header::PREFIX, b"");
        // A reader without PAX shall at least find some name.
        header.set_text(header::NAME, &path[..path.len().min(100)]);
    }
    fits
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::{Limits, Reader, Time};

    fn kind() -> impl Strategy<Value = Kind> {
        let name = proptest::collection::vec(1..=255_u8, 1..300);
        prop_oneof![
            (0..2000_u64).prop_map(|size| Kind::File { size }),
            Just(Kind::Directory),
            Just(Kind::Fifo),
            name.clone().prop_map(|target| Kind::Symlink { target }),
            name.prop_map(|target| Kind::HardLink { target }),
            (0..4096_u32, 0..1_000_000_u32)
                .prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        ]
    }

    prop_compose! {
        fn entry()(
            path in proptest::collection::vec(prop_oneof![Just(b'/'), 1..=255_u8], 1..400),
            kind in kind(),
            mode in 0..0o10000_u32,
            uid in any::<u32>(),
            gid in 0..70_000_u32,
            seconds in -100_000_000_000_i64..100_000_000_000,
            nanoseconds in prop_oneof![Just(0), 0..1_000_000_000_u32],
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) -> Entry {
            let xattrs = if value.is_empty() { Vec::new() } else { vec![(b"user.x".to_vec(), value)] };
            Entry { path, kind, mode, uid, gid, mtime: Time { seconds, nanoseconds }, xattrs }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in proptest::collection::vec(entry(), 1..8)) {
            let mut writer = Writer::new(Vec::new());
            for entry in &entries {
                writer.start(entry).expect("a vector takes everything");
                if let Kind::File { size } = entry.kind {
                    writer.write_all(&vec![7; size as usize]).expect("the announced content");
                }
            }
            let bytes = writer.finish().expect("a vector takes everything");
            let mut reader = Reader::plain(&bytes[..], Limits::LAYER);
            for entry in &entries {
                let read = reader.next_entry().expect("an own archive is well-formed").expect("an entry");
                prop_assert_eq!(&read, entry);
                if let Kind::File { size } = entry.kind {
                    let mut content = Vec::new();
                    reader.read_to_end(&mut content).expect("content");
                    prop_assert_eq!(content, vec![7; size as usize]);
                }
            }
            prop_assert_eq!(reader.next_entry().expect("an end"), None);
        }

        /// The `tar` crate as an oracle.
        #[test]
        fn what_is_written_is_what_others_read(
            mut entries in proptest::collection::vec(entry(), 1..8),
        ) {
            // It cuts records at a newline, wherever that is.
            let plain = |bytes: &mut Vec<u8>| {
                bytes.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
            };
            for entry in &mut entries {
                plain(&mut entry.path);
                entry.xattrs.iter_mut().for_each(|(_, value)| plain(value));
                if let Kind::Symlink { target } | Kind::HardLink { target } = &mut entry.kind {
                    plain(target);
                }
                if let Kind::File { size } = &mut entry.kind {
                    *size = 0;
                }
            }
            let mut writer = Writer::new(Vec::new());
            for entry in &entries {
                writer.start(entry).expect("a vector takes everything");
            }
            let bytes = writer.finish().expect("a vector takes everything");
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut theirs = archive.entries().expect("an archive");
            for entry in &entries {
                let mut read = theirs.next().expect("an entry").expect("well-formed");
                prop_assert_eq!(&read.path_bytes()[..], &entry.path[..]);
                prop_assert_eq!(read.header().mode().ok(), Some(entry.mode));
                prop_assert_eq!(read.header().gid().ok(), Some(entry.gid.into()));
                if let Kind::Symlink { target } | Kind::HardLink { target } = &entry.kind {
                    let link = read.link_name_bytes();
                    prop_assert_eq!(link.as_deref(), Some(&target[..]));
                }
                let records: Vec<_> = read
                    .pax_extensions()
                    .expect("well-formed")
                    .into_iter()
                    .flatten()
                    .map(|record| record.expect("well-formed").key_bytes().to_vec())
                    .collect();
                let has = |key: &[u8]| records.iter().any(|record| record == key);
                prop_assert_eq!(has(b"SCHILY.xattr.user.x"), !entry.xattrs.is_empty());
            }
            prop_assert!(theirs.next().is_none());
        }

        #[test]
        fn damage_never_panics(
            entries in proptest::collection::vec(entry(), 1..4),
            damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
        ) {
            let mut writer = Writer::new(Vec::new());
            for entry in &entries {
                writer.start(entry).expect("a vector takes everything");
            }
            let mut bytes = writer.finish().expect("a vector takes everything");
            for (place, value) in damage {
                let place = place % bytes.len();
                bytes[place] = value;
                // a right checksum over the damage, so that the fields behind it are read
                let start = place / BLOCK * BLOCK;
                let mut header = Header(*bytes[start..].first_chunk().expect("whole blocks"));
                header.set_checksum();
                bytes[start..start + BLOCK].copy_from_slice(&header.0);
            }
            let mut reader = Reader::plain(&bytes[..], Limits::LAYER);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
