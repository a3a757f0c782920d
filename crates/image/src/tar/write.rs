use std::io::{self, Write};

use super::{BLOCK, Entry, Kind, padding, pax};

/// The largest number in the octal fields of 8 and 12 bytes.
const OCTAL_8: u64 = 0o7_777_777;
const OCTAL_12: u64 = 0o77_777_777_777;

/// Writes members as POSIX.1-2001 archives; equal members give equal bytes.
#[derive(Debug)]
pub(crate) struct TarWriter<W> {
    inner: W,
    /// Content and padding that the current member still wants.
    content: u64,
    padding: u64,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, content: 0, padding: 0 }
    }

    /// Starts a member. The content of a file is then written to `self`, all of it.
    pub(crate) fn start(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_member()?;
        let (header, records) = headers(entry);
        if !records.is_empty() {
            let mut extension = tar::Header::new_ustar();
            put_name(&mut extension.as_old_mut().name, b"PaxHeaders/0");
            extension.set_entry_type(tar::EntryType::XHeader);
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(records.len() as u64);
            extension.set_cksum();
            self.inner.write_all(extension.as_bytes())?;
            self.inner.write_all(&records)?;
            self.zeros(padding(records.len() as u64))?;
        }
        self.inner.write_all(header.as_bytes())?;
        if let Kind::File { size } = entry.kind {
            (self.content, self.padding) = (size, padding(size));
        }
        Ok(())
    }

    /// Writes the end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
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
impl<W: Write> Write for TarWriter<W> {
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
fn headers(entry: &Entry) -> (tar::Header, Vec<u8>) {
    let mut header = tar::Header::new_ustar();
    let mut records = Vec::new();
    if !put_path(&mut header, &entry.path) {
        pax::write(&mut records, b"path", &entry.path);
    }
    let (kind, size) = match &entry.kind {
        Kind::BlockDevice { .. } => (tar::EntryType::Block, 0),
        Kind::CharDevice { .. } => (tar::EntryType::Char, 0),
        Kind::Directory => (tar::EntryType::Directory, 0),
        Kind::Fifo => (tar::EntryType::Fifo, 0),
        Kind::File { size } => (tar::EntryType::Regular, *size),
        Kind::HardLink { .. } => (tar::EntryType::Link, 0),
        Kind::Symlink { .. } => (tar::EntryType::Symlink, 0),
    };
    header.set_entry_type(kind);
    header.set_mode(entry.mode & 0o7777);
    header.set_device_major(0).expect("ustar headers have device numbers");
    header.set_device_minor(0).expect("ustar headers have device numbers");
    match &entry.kind {
        Kind::HardLink { target } | Kind::Symlink { target } => {
            if !put_name(&mut header.as_old_mut().linkname, target) {
                pax::write(&mut records, b"linkpath", target);
            }
        }
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
            header.set_device_major(*major).expect("ustar headers have device numbers");
            header.set_device_minor(*minor).expect("ustar headers have device numbers");
        }
        Kind::Directory | Kind::Fifo | Kind::File { .. } => {}
    }
    let mut number = |key: &[u8], value: u64, limit: u64| {
        if value > limit {
            pax::write(&mut records, key, value.to_string().as_bytes());
        }
        if value > limit { 0 } else { value }
    };
    header.set_size(number(b"size", size, OCTAL_12));
    header.set_uid(number(b"uid", entry.uid.into(), OCTAL_8));
    header.set_gid(number(b"gid", entry.gid.into(), OCTAL_8));
    let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|seconds| *seconds <= OCTAL_12);
    header.set_mtime(seconds.unwrap_or(0));
    if seconds.is_none() || entry.mtime.nanoseconds != 0 {
        pax::write(&mut records, b"mtime", pax::write_time(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        pax::write(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    header.set_cksum();
    (header, records)
}

/// Puts a path into the name field, or into prefix and name at one of its slashes.
fn put_path(header: &mut tar::Header, path: &[u8]) -> bool {
    let ustar = header.as_ustar_mut().expect("made as ustar by the caller");
    if put_name(&mut ustar.name, path) {
        return true;
    }
    let split = path.iter().enumerate().position(|(index, byte)| {
        // a slash at the very end belongs to the name
        *byte == b'/' && index > 0 && index < path.len() - 1 && path.len() - index - 1 <= 100
    });
    let fits = split.is_some_and(|slash| {
        slash <= 155
            && put_name(&mut ustar.prefix, &path[..slash])
            && put_name(&mut ustar.name, &path[slash + 1..])
    });
    if !fits {
        ustar.prefix.fill(0);
        // A reader without PAX shall at least find some name.
        let count = path.len().min(100);
        ustar.name[..count].copy_from_slice(&path[..count]);
    }
    fits
}

fn put_name(field: &mut [u8], name: &[u8]) -> bool {
    if name.len() > field.len() {
        return false;
    }
    field.fill(0);
    field[..name.len()].copy_from_slice(name);
    true
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::super::{TarReader, Time};
    use super::*;

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
            let mut writer = TarWriter::new(Vec::new());
            for entry in &entries {
                writer.start(entry).expect("a vector takes everything");
                if let Kind::File { size } = entry.kind {
                    writer.write_all(&vec![7; size as usize]).expect("the announced content");
                }
            }
            let bytes = writer.finish().expect("a vector takes everything");
            let mut reader = TarReader::new(&bytes[..]);
            for entry in &entries {
                let read = reader.next().expect("an own archive is well-formed").expect("an entry");
                prop_assert_eq!(&read, entry);
                if let Kind::File { size } = entry.kind {
                    let mut content = Vec::new();
                    reader.read_to_end(&mut content).expect("content");
                    prop_assert_eq!(content, vec![7; size as usize]);
                }
            }
            prop_assert_eq!(reader.next().expect("an end"), None);
        }

        #[test]
        fn damage_never_panics(
            entries in proptest::collection::vec(entry(), 1..4),
            damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
        ) {
            let mut writer = TarWriter::new(Vec::new());
            for entry in &entries {
                writer.start(entry).expect("a vector takes everything");
            }
            let mut bytes = writer.finish().expect("a vector takes everything");
            for (place, value) in damage {
                let place = place % bytes.len();
                bytes[place] = value;
                // a right checksum over the damage, so that the fields behind it are read
                let start = place / BLOCK * BLOCK;
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[start..start + BLOCK]);
                header.set_cksum();
                bytes[start..start + BLOCK].copy_from_slice(header.as_bytes());
            }
            let mut reader = TarReader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
