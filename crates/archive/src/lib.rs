//! Tar archives: the one reader that distrusts, and the one writer that is reproducible.
//!
//! Layers, build contexts, `docker cp`, `export`, `save` and `load` all pass here. [`Plain`] takes a
//! stream as it comes and undoes its compression, [`Reader`] gives its members, [`Unpack`] puts
//! them below a directory, [`pack`] and [`Writer`] go the other way. [`Limits`] hold for whatever
//! is read: a name, a list of attributes or a stream is as long as we say, not as the archive says.
#![forbid(unsafe_code)]

mod attributes;
mod copy;
mod entry;
mod header;
mod limits;
mod pack;
mod pax;
mod plain;
mod read;
mod unpack;
mod write;

pub use {
    attributes::{attribute, attributes, set_attributes},
    copy::{CopyError, copy},
    entry::{Entry, Kind, Time},
    header::starts_like_tar,
    limits::{Limits, is_too_large},
    pack::{Packer, pack, pack_contents},
    plain::{Compression, Plain},
    read::Reader,
    unpack::{Owners, Unpack, UnpackError},
    write::Writer,
};

const BLOCK: usize = 512;

/// Bytes of zeros that fill the last block of `size` bytes.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
