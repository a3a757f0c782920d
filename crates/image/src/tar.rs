//! Tar streams, entry by entry: the reader that distrusts and the writer that is reproducible.
//!
//! The header block itself (checksum, octal and base-256 numbers) is the `tar` crate's; the order of
//! headers, the extensions and every limit are ours, because a reader that grants a name of
//! 8 GiB to the archive has lost already.
mod entry;
mod pax;
mod read;
mod write;

pub(crate) use {entry::Entry, entry::Kind, entry::Time, read::TarReader, write::TarWriter};

const BLOCK: usize = 512;

/// Bytes of zeros that fill the last block of `size` bytes.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
