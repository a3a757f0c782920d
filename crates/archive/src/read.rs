//! The reader that distrusts.

use std::io::{self, Read};

use crate::header::{self, Header};
use crate::pax::Pax;
use crate::{BLOCK, Entry, Kind, Limits, Plain, Time, padding};

/// The longest extension header: names, links and attributes of one member together.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// Reads members of an archive in order; skips what the caller leaves of a file's content.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Content and padding of the current member that are not read yet.
    content: u64,
    padding: u64,
    limits: Limits,
    /// Members so far.
    count: u64,
}

impl<'a> Reader<Plain<'a>> {
    /// Reads an archive as it comes, compressed or not.
    pub fn open(stream: impl Read + 'a, limits: Limits) -> io::Result<Self> {
        Ok(Self::new(Plain::new(stream, limits)?))
    }

    fn new(plain: Plain<'a>) -> Self {
        let limits = plain.limits();
        Self { inner: plain, content: 0, padding: 0, limits, count: 0 }
    }

    /// Reads what follows the archive, so that the sender is not cut off.
    pub fn finish(mut self) -> io::Result<()> {
        self.inner.drain()
    }
}

impl<R: Read> Reader<R> {
    /// Reads an archive that is not compressed.
    pub fn plain(inner: R, limits: Limits) -> Self {
        Self { inner, content: 0, padding: 0, limits, count: 0 }
    }

    /// What is left of the stream: for the bytes after the archive's end.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next member, or `None` at the end of the archive.
    ///
    /// That is a block of zeros, or the end of the stream between two members, where even the
    /// padding of the last may be missing: GNU tar and Go accept both, and the classic docker
    /// client sends such contexts (moby#27393). An end inside a member is an error.
    ///
    /// An error with an operating system's code is the stream's; any other is the archive's fault.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        self.skip_rest()?;
        self.count += 1;
        self.limits.check_members(self.count)?;
        let mut pax = Pax::default();
        let (mut long_path, mut long_link) = (None, None);
        let mut extended = false;
        loop {
            let mut header = Header([0; BLOCK]);
            if !self.read_block(&mut header.0)? || header.is_zero() {
                if extended {
                    return Err(damaged("the archive ends after an extended header"));
                }
                return Ok(None);
            }
            if !header.checksum_is_right() {
                return Err(match (self.count, extended) {
                    (1, false) => damaged("it does not begin as a tar archive does"),
                    _ => damaged("a header has a wrong checksum"),
                });
            }
            let size = size(&header)?;
            match header.flag() {
                b'x' => {
                    let bytes = self.read_extension(size)?;
                    pax = Pax::parse(&bytes).ok_or_else(|| damaged("a PAX header is malformed"))?;
                    extended = true;
                }
                b'g' => drop(self.read_extension(size)?), // as Go: comments of git-archive(1)
                b'L' => {
                    long_path = Some(self.read_long_name(size)?);
                    extended = true;
                }
                b'K' => {
                    long_link = Some(self.read_long_name(size)?);
                    extended = true;
                }
                b'V' => self.skip(size + padding(size))?, // GNU's volume label
                _ => return self.member(&header, pax, long_path, long_link).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path());
        let flag = header.flag();
        if pax.sparse || flag == b'S' {
            return Err(damaged(&format!(
                "{} is stored as a sparse file; make the archive without --sparse",
                String::from_utf8_lossy(&path)
            )));
        }
        let size = match pax.size {
            Some(size) => size,
            None => size(header)?,
        };
        if size > i64::MAX as u64 {
            return Err(damaged("a member has an impossible size"));
        }
        let target = || {
            pax.link
                .clone()
                .or(long_link.clone())
                .unwrap_or_else(|| header.text(header::LINK).to_vec())
        };
        let device = || -> io::Result<(u32, u32)> {
            // Linux's numbers have 12 and 20 bits (include/linux/kdev_t.h).
            let part = |field, bits: u32| {
                let number = header.number(field).and_then(|number| u32::try_from(number).ok());
                number.filter(|number| *number < 1 << bits)
            };
            let parts = part(header::MAJOR, 12).zip(part(header::MINOR, 20));
            parts.ok_or_else(|| damaged("a device has an impossible number"))
        };
        let kind = match flag {
            // Before POSIX a slash at the end was what said directory.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File { size },
            b'1' => Kind::HardLink { target: target() },
            b'2' => Kind::Symlink { target: target() },
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(damaged(&format!(
                    "{} is of an unknown kind {:?}",
                    String::from_utf8_lossy(&path),
                    char::from(other)
                )));
            }
        };
        // What is no file carries no content, whatever its size field says: as Go, GNU tar.
        (self.content, self.padding) = match kind {
            Kind::File { size } => (size, padding(size)),
            _ => (0, 0),
        };
        let id = |pax: Option<u64>, field| -> io::Result<u32> {
            let id = match pax {
                Some(id) => i64::try_from(id).ok(),
                None => header.number(field),
            };
            id.and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| damaged("an owner is no user or group id"))
        };
        let mode = header.number(header::MODE).ok_or_else(|| damaged("a mode is no number"))?;
        let mtime = match pax.mtime {
            Some(time) => time,
            None => {
                let seconds = header.number(header::MTIME);
                Time {
                    seconds: seconds.ok_or_else(|| damaged("a time is no number"))?,
                    nanoseconds: 0,
                }
            }
        };
        if path.contains(&0) {
            return Err(damaged("a name holds a NUL"));
        }
        Ok(Entry {
            path,
            kind,
            mode: (mode & 0o7777) as u32,
            uid: id(pax.uid, header::UID)?,
            gid: id(pax.gid, header::GID)?,
            mtime,
            xattrs: pax.xattrs,
        })
    }

    fn read_long_name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.read_extension(size)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn read_extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_LIMIT {
            return Err(damaged("an extended header is longer than 1 MiB"));
        }
        let mut bytes = Vec::new();
        self.inner.by_ref().take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(truncated());
        }
        self.skip(padding(size))?;
        Ok(bytes)
    }

    /// `false`: the stream ended before the block began.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(truncated()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let (content, padding) = (self.content, self.padding);
        (self.content, self.padding) = (0, 0);
        self.skip(content)?;
        io::copy(&mut self.inner.by_ref().take(padding), &mut io::sink()).map(drop)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(truncated()) }
    }
}

/// Reads the content of the current member.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(truncated());
        }
        self.content -= count as u64;
        Ok(count)
    }
}

fn size(header: &Header) -> io::Result<u64> {
    let size = header.number(header::SIZE).and_then(|size| u64::try_from(size).ok());
    size.ok_or_else(|| damaged("a member has an impossible size"))
}

fn damaged(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two files of 5 and 600 bytes by the `tar` crate, with all padding and end blocks.
    fn example() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, size) in [("first", 5), ("second", 600)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &vec![7; size][..]).expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    fn members(bytes: &[u8]) -> io::Result<usize> {
        let mut reader = Reader::open(bytes, Limits::CONTEXT)?;
        let mut count = 0;
        while reader.next_entry()?.is_some() {
            count += 1;
        }
        reader.finish().map(|()| count)
    }

    #[test]
    fn an_end_between_members_is_one_and_within_is_not() {
        let bytes = example();
        let content = 512_usize + 512 + 512 + 600;
        for (length, count) in [
            (0, Some(0)),
            (300, None),
            (512, None),
            (512 + 4, None),
            (512 + 5, Some(1)),
            (512 + 300, Some(1)),
            (1024, Some(1)),
            (1024 + 1, None),
            (content - 1, None),
            (content, Some(2)),
            (content + 1, Some(2)),
            (content.next_multiple_of(512), Some(2)),
            (content.next_multiple_of(512) + 512, Some(2)),
            (bytes.len(), Some(2)),
        ] {
            assert_eq!(members(&bytes[..length]).ok(), count, "{length} bytes");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let sparse = |name: &str, flag: u8| {
            let mut header = Header::new();
            header.set_text(header::NAME, name.as_bytes());
            header.set_flag(flag);
            header.set_checksum();
            header.0.to_vec()
        };
        let mut negative = Header::new();
        negative.0[header::SIZE].fill(0xff);
        negative.set_checksum();
        for (bytes, part) in [
            (vec![b'x'; 2048], "does not begin as a tar archive"),
            (vec![b'x'; 100], "cut off"),
            (sparse("holes", b'S'), "holes is stored as a sparse file"),
            (sparse("odd", b'M'), "odd is of an unknown kind 'M'"),
            (negative.0.to_vec(), "impossible size"),
        ] {
            let error = members(&bytes).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        let limits = Limits { members: 1, ..Limits::CONTEXT };
        let mut reader = Reader::plain(&example()[..], limits).count_members();
        assert!(crate::is_too_large(&reader.expect_err("two")), "two members");
        reader = Reader::plain(&example()[..], Limits::CONTEXT).count_members();
        assert_eq!(reader.expect("two"), 2);
    }

    impl<R: Read> Reader<R> {
        fn count_members(mut self) -> io::Result<usize> {
            let mut count = 0;
            while self.next_entry()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }

    proptest! {
        /// The `tar` crate as an oracle, by GNU's long names and by numbers in base 256.
        #[test]
        fn what_others_write_is_read(
            name in "[a-z]{1,60}(/[a-z ]{1,60}){0,6}",
            target in "[a-z]{1,60}(/[a-z]{1,60}){0,3}",
            uid in prop_oneof![0..70_000_u64, 2_097_152..4_294_967_294_u64],
            mtime in 0..100_000_000_000_u64,
            size in 0..1500_usize,
        ) {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_uid(uid);
            header.set_gid(3);
            header.set_mode(0o4755);
            header.set_mtime(mtime);
            header.set_size(size as u64);
            builder.append_data(&mut header, &name, &vec![9; size][..]).expect("memory");
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, "link", &target).expect("memory");
            let bytes = builder.into_inner().expect("memory");

            let mut reader = Reader::plain(&bytes[..], Limits::CONTEXT);
            let file = reader.next_entry().expect("well-formed").expect("a file");
            prop_assert_eq!(&file.path[..], name.as_bytes());
            prop_assert_eq!(&file.kind, &Kind::File { size: size as u64 });
            prop_assert_eq!((u64::from(file.uid), file.gid, file.mode), (uid, 3, 0o4755));
            prop_assert_eq!(file.mtime, Time { seconds: mtime as i64, nanoseconds: 0 });
            let mut content = Vec::new();
            reader.read_to_end(&mut content).expect("content");
            prop_assert_eq!(content, vec![9; size]);
            let link = reader.next_entry().expect("well-formed").expect("a link");
            prop_assert_eq!(link.kind, Kind::Symlink { target: target.into_bytes() });
            prop_assert_eq!(reader.next_entry().expect("an end"), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = members(&bytes);
        }
    }
}
