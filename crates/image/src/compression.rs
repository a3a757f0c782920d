//! Layer streams as they come: plain, gzip or zstd, told apart by their first bytes.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_types::{Digest, Hasher};

/// What one layer may unpack to, in bytes.
pub(crate) const LAYER_LIMIT: u64 = 20 << 30;
/// From this size on a layer that is more than [`RATIO`] times its blob is taken for a bomb.
const SUSPICIOUS: u64 = 1 << 30;
/// Text compresses 5 to 20 times; gzip reaches 1,032, zstd over 3,000, with nothing but zeros.
const RATIO: u64 = 200;

/// The uncompressed bytes of a layer, hashed and counted as they pass, within the limits.
pub(crate) struct Plain<'a> {
    inner: Box<dyn Read + 'a>,
    read: Arc<AtomicU64>,
    hasher: Hasher,
    size: u64,
}

impl std::fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<'a> Plain<'a> {
    pub(crate) fn new(stream: impl Read + 'a) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let mut counted = Counted { inner: stream, read: Arc::clone(&read) };
        let mut start = Vec::with_capacity(4);
        counted.by_ref().take(4).read_to_end(&mut start)?; // a pipe may give them one by one
        let whole = io::Cursor::new(start.clone()).chain(counted);
        let buffered = BufReader::with_capacity(128 << 10, whole);
        let inner: Box<dyn Read + 'a> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
            || (start.len() == 4 && start[0] & 0xf0 == 0x50 && start[1..] == [0x2a, 0x4d, 0x18])
        {
            // the second one is a skippable frame, which zstd:chunked puts first
            Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?)
        } else {
            Box::new(buffered)
        };
        Ok(Self { inner, read, hasher: Hasher::new(), size: 0 })
    }

    /// Reads to the end, so that the digest covers what follows the archive.
    ///
    /// Damage out here is no error: padding after a gzip member is common, and the digest tells
    /// whether something that counts is missing.
    pub(crate) fn drain(mut self) -> io::Result<(Digest, u64)> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.get_ref().is_some_and(|e| e.is::<TooLarge>()) => {
                    return Err(error);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Ok((self.hasher.finish(), self.size))
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        let read = self.read.load(Ordering::Relaxed);
        if self.size > LAYER_LIMIT {
            return Err(io::Error::other(TooLarge("a layer may unpack to 20 GiB at most")));
        }
        if self.size > SUSPICIOUS && self.size / RATIO > read {
            return Err(io::Error::other(TooLarge(
                "it unpacks to more than 1 GiB and 200 times its size",
            )));
        }
        Ok(count)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TooLarge(&'static str);

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
