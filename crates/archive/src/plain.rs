//! Streams as they come: plain, gzip, bzip2, xz or zstd, told apart by their first bytes.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{Limits, is_too_large};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Bzip2,
    Gzip,
    None,
    Xz,
    Zstd,
}

impl Compression {
    /// How many bytes [`Compression::of`] looks at.
    pub const START: usize = 6;

    /// Tells by a stream's first bytes; a name does not count, as Docker has it
    /// (moby: pkg/archive, DetectCompression).
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // a skippable frame, which zstd:chunked puts first
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The bytes of a stream without its compression, counted as they pass, within the limits.
///
/// Memory is bounded whatever the stream says: 8 MiB for gzip, bzip2 and plain ones, and a window of
/// 128 MiB for xz and zstd, which no level of either tool goes beyond on its own.
pub struct Plain<'a> {
    inner: Box<dyn Read + 'a>,
    compression: Compression,
    read: Arc<AtomicU64>,
    size: u64,
    limits: Limits,
}

impl std::fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain")
            .field("compression", &self.compression)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl<'a> Plain<'a> {
    pub fn new(stream: impl Read + 'a, limits: Limits) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let mut counted = Counted { inner: stream, read: Arc::clone(&read) };
        let mut start = Vec::with_capacity(Compression::START);
        // a pipe may give them one by one
        counted.by_ref().take(Compression::START as u64).read_to_end(&mut start)?;
        let compression = Compression::of(&start);
        let whole = io::Cursor::new(start).chain(counted);
        let buffered = BufReader::with_capacity(128 << 10, whole);
        let inner: Box<dyn Read + 'a> = match compression {
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
            Compression::None => Box::new(buffered),
            Compression::Xz => {
                Box::new(lzma_rust2::XzReader::new_mem_limit(buffered, true, XZ_MEMORY))
            }
            // its own limit for a window is 128 MiB as well (zstd: ZSTD_WINDOWLOG_LIMIT_DEFAULT)
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?),
        };
        Ok(Self { inner, compression, read, size: 0, limits })
    }

    pub fn compression(&self) -> Compression {
        self.compression
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Reads what follows the archive, which is padding.
    ///
    /// Damage out here is no error: padding after a gzip member is common. What is too large is.
    pub fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_too_large(&error) => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(()),
            }
        }
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.size += count as u64;
        self.limits.check(self.size, self.read.load(Ordering::Relaxed))?;
        Ok(count)
    }
}

/// KiB that a dictionary of xz may take, with the decoder's own tables: `xz -9` asks for 64 MiB.
const XZ_MEMORY: u32 = (128 << 10) + 1024;

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Bzip2 => {
                let mut to = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                to.write_all(bytes).expect("memory");
                to.finish().expect("memory")
            }
            Compression::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                to.write_all(bytes).expect("memory");
                to.finish().expect("memory")
            }
            Compression::None => bytes.to_vec(),
            Compression::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(1);
                let mut to = lzma_rust2::XzWriter::new(Vec::new(), options).expect("options");
                to.write_all(bytes).expect("memory");
                to.finish().expect("memory")
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).expect("memory"),
        }
    }

    const ALL: [Compression; 5] = [
        Compression::Bzip2,
        Compression::Gzip,
        Compression::None,
        Compression::Xz,
        Compression::Zstd,
    ];

    /// Gives one byte at a time, as a slow pipe may.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn every_compression_is_undone() {
        let text = b"what was said\n".repeat(1000);
        for compression in ALL {
            let once = compressed(compression, &text);
            // Tools that work on several cores write members one after the other.
            let twice = [once.clone(), once.clone()].concat();
            for (bytes, times) in [(once, 1), (twice, 2)] {
                let mut plain = Plain::new(Drops(&bytes), Limits::COPY).expect("a stream");
                assert_eq!(plain.compression(), compression);
                let mut read = Vec::new();
                plain.read_to_end(&mut read).unwrap_or_else(|e| panic!("{compression:?}: {e}"));
                assert_eq!(read, text.repeat(times), "{compression:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let text = b"what was said\n".repeat(1000);
        for compression in ALL.into_iter().filter(|other| *other != Compression::None) {
            let bytes = compressed(compression, &text);
            let mut plain = Plain::new(&bytes[..bytes.len() / 2], Limits::COPY).expect("a stream");
            assert!(plain.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn bombs_are_given_up() {
        let limits = Limits { bytes: 1 << 20, ..Limits::LAYER };
        let zeros = vec![0; 2 << 20];
        for compression in ALL {
            let bytes = compressed(compression, &zeros);
            let mut plain = Plain::new(&bytes[..], limits).expect("a stream");
            let error = plain.drain().expect_err("too large");
            assert!(is_too_large(&error), "{compression:?}: {error}");
        }
        let check = |size: u64, read: u64| Limits::COPY.check(size, read).is_ok();
        assert!(check(1 << 30, 1) && check(40 << 30, 1 << 30));
        assert!(!check((1 << 30) + 1, 1 << 20) && !check((1 << 40) + 1, 1 << 40));
    }

    #[test]
    fn an_xz_with_a_huge_dictionary_is_refused() {
        // The block header after the stream's: size, flags, LZMA2's id and the length of its
        // properties, the dictionary's size, padding, CRC-32 (xz: doc/xz-file-format.txt, 3.1).
        let mut bytes = compressed(Compression::Xz, b"text");
        assert_eq!(bytes[14..16], [0x21, 1]);
        bytes[16] = 40; // 4 GiB - 1
        let end = 12 + usize::from(bytes[12]) * 4;
        let sum = crc32(&bytes[12..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        let mut plain = Plain::new(&bytes[..], Limits::COPY).expect("a stream");
        let error = plain.read_to_end(&mut Vec::new()).expect_err("4 GiB of memory");
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut sum = !0_u32;
        for byte in bytes {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
            }
        }
        !sum
    }
}
