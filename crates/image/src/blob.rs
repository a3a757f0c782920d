use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bulkhead_types::{Digest, Hasher};
use rustix::fs::OFlags;

use crate::ImageError;
use crate::error::While;
use crate::scratch::{FILE_MODE, Scratch, ScratchName};

/// A blob that is being written; dropped before [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    name: ScratchName,
    blobs: OwnedFd,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    pub(crate) fn new(scratch: &Arc<Scratch>, blobs: OwnedFd) -> Result<Self, ImageError> {
        let name = scratch.name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&scratch.directory, &name.text, flags, FILE_MODE)
            .doing(|| "create a temporary file for a blob".to_owned())?;
        Ok(Self { file: file.into(), name, blobs, hasher: Hasher::new(), size: 0 })
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the blob visible under its digest, which must be `expected` if that is given.
    pub fn commit(self, expected: Option<Digest>) -> Result<Digest, ImageError> {
        let found = self.hasher.finish();
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(ImageError::WrongDigest { expected, found });
        }
        let what = || format!("store {found}");
        self.file.sync_all().doing(what)?;
        self.name.commit(self.blobs.as_fd(), &found.hex()).doing(what)?;
        Ok(found)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
