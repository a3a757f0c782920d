//! Layer streams as they come: the archive's bytes, hashed as they pass.

use std::io::{self, Read};

use bulkhead_archive::{Limits, Plain as Decompressed, is_too_large};
use bulkhead_types::{Digest, Hasher};

/// The uncompressed bytes of a layer, hashed, within the limits.
#[derive(Debug)]
pub(crate) struct Plain<'a> {
    inner: Decompressed<'a>,
    hasher: Hasher,
}

impl<'a> Plain<'a> {
    pub(crate) fn new(stream: impl Read + 'a) -> io::Result<Self> {
        let inner = Decompressed::new(stream, Limits::LAYER)?;
        Ok(Self { inner, hasher: Hasher::new() })
    }

    /// Reads to the end, so that the digest covers what follows the archive.
    ///
    /// Damage out here is no error: padding after a gzip member is common, and the digest tells
    /// whether something that counts is missing.
    pub(crate) fn drain(mut self) -> io::Result<Digest> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_too_large(&error) => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Ok(self.hasher.finish())
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
