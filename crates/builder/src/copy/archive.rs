//! Files that ADD may unpack.

use std::fs::File;
use std::io::{self, Read};

use bulkhead_archive::{Limits, Plain, starts_like_tar};

/// Whether a file is an archive, maybe compressed: by its first bytes, its name does not count
/// (moby: builder/dockerfile/copy.go). What only looks compressed is no archive.
pub(super) fn is_archive(file: File) -> io::Result<bool> {
    let mut start = Vec::new();
    let plain = Plain::new(file, Limits::LAYER)?;
    let read = plain.take(512).read_to_end(&mut start);
    Ok(read.is_ok() && starts_like_tar(&start))
}
