use std::io::{self, Read};

use super::pax::Pax;
use super::{BLOCK, Entry, Kind, Time, padding};

/// The longest extension header: names, links and attributes of one member together.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// Reads members of an archive in order; skips what the caller leaves of a file's content.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    inner: R,
    /// Content and padding of the current member that are not read yet.
    content: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, content: 0, padding: 0 }
    }

    /// What is left of the stream: for the bytes after the archive's end.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next member, or `None` at the end of the archive (a block of zeros, or of the stream
    /// between two members: GNU tar and Go accept both).
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        self.skip_rest()?;
        let mut pax = Pax::default();
        let (mut long_path, mut long_link) = (None, None);
        let mut extended = false;
        loop {
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? || block.iter().all(|byte| *byte == 0) {
                if extended {
                    return Err(damaged("the archive ends after an extended header"));
                }
                return Ok(None);
            }
            let header = tar::Header::from_byte_slice(&block);
            if !checksum_is_right(&block) {
                return Err(damaged("a header has a wrong checksum"));
            }
            let size = header
                .entry_size()
                .ok()
                .filter(|size| *size <= i64::MAX as u64)
                .ok_or_else(|| damaged("a member has an impossible size"))?;
            match block[156] {
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
                _ => return self.member(header, pax, long_path, long_link).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &tar::Header,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let flag = header.as_bytes()[156];
        if pax.sparse || flag == b'S' {
            return Err(damaged(&format!(
                "{} is stored as a sparse file; make the archive without --sparse",
                String::from_utf8_lossy(&path)
            )));
        }
        let size = match pax.size {
            Some(size) => size,
            None => header.entry_size()?,
        };
        if size > i64::MAX as u64 {
            return Err(damaged("a member has an impossible size"));
        }
        let target = || {
            pax.link
                .clone()
                .or(long_link.clone())
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default()
        };
        let device = || -> io::Result<(u32, u32)> {
            Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
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
        let id = |pax: Option<u64>, header: io::Result<u64>| -> io::Result<u32> {
            let id = match pax {
                Some(id) => id,
                None => header?,
            };
            u32::try_from(id).map_err(|_| damaged(&format!("{id} is no user or group id")))
        };
        let mtime = match pax.mtime {
            Some(time) => time,
            // A negative number in base 256 comes as a huge one.
            None => Time { seconds: header.mtime()? as i64, nanoseconds: 0 },
        };
        if path.contains(&0) {
            return Err(damaged("a name holds a NUL"));
        }
        Ok(Entry {
            path,
            kind,
            mode: header.mode()? & 0o7777,
            uid: id(pax.uid, header.uid())?,
            gid: id(pax.gid, header.gid())?,
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
        let rest = self.content + self.padding;
        (self.content, self.padding) = (0, 0);
        self.skip(rest)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(truncated()) }
    }
}

/// Reads the content of the current member.
impl<R: Read> Read for TarReader<R> {
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

/// Old writers summed signed bytes; both sums are accepted, as in GNU tar.
fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let Ok(stored) = tar::Header::from_byte_slice(block).cksum() else { return false };
    let counted = |index: usize| if (148..156).contains(&index) { b' ' } else { block[index] };
    let unsigned: u32 = (0..BLOCK).map(|index| u32::from(counted(index))).sum();
    let signed: i32 = (0..BLOCK).map(|index| i32::from(counted(index).cast_signed())).sum();
    stored == unsigned || i64::from(stored) == i64::from(signed)
}

fn damaged(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}
