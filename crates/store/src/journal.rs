//! Transactions that the database does not have yet: kept beside it for whoever opens it after a
//! `kill -9`, and not waited for on the way to the disk.
//!
//! `PATH.journal` is of one length, allocated when it is made: a record takes one write(2), no block
//! and no change of the file's size, also on a full disk. Records follow each other from the start,
//! each with its length, a checksum, and a revision that is one more than the last one's. Once the
//! database has them the next one is written at the start again; what it leaves behind itself has
//! lower revisions, or a checksum that is wrong. So nothing has to be cut off, and a crash between
//! the database's transaction and the next record repeats nothing.
//!
//! After a power cut the kernel's pages are gone: the file holds some of what was written since the
//! database's last flush. What is whole and in order is taken, the rest is dropped and told.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::{Change, Revision};

/// Bytes of the file. What is in it goes to the database with the next transaction that waits for
/// the disk, or when it is full: a hundred containers that came and went.
const LENGTH: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"bhjrnl\0\x01";
/// The magic number, and the identity of the store that it belongs to.
const HEADER: u64 = 16;
/// Of a record: its length without this (4 bytes), its checksum (8 bytes).
const PREFIX: usize = 12;
/// Stands behind the last record, where the next one's length will be.
const END: [u8; 4] = [0; 4];

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Where the next record goes.
    end: u64,
}

/// One transaction: the revision that it makes, and what it changes.
pub(crate) type Record = (Revision, Vec<Change>);

impl Journal {
    /// Opens the journal of the store at `store`, making it if there is none, and returns what
    /// follows the revision `recorded`, which the database has.
    pub(crate) fn open(
        store: &Path,
        identity: u64,
        recorded: Revision,
    ) -> io::Result<(Self, Vec<Record>)> {
        let path = path(store);
        bulkhead_failpoint::hit("store.journal-open")?;
        let mut options = File::options();
        // as secret as the store itself
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(&path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut &file, &mut bytes)?;
        let header = header(identity);
        if !bytes.is_empty() && !bytes.starts_with(&header) {
            if bytes.starts_with(MAGIC) {
                // It follows another database: what it says means nothing for this one.
                let aside = aside(&path);
                std::fs::rename(&path, &aside)?;
                tracing::warn!(
                    "{} belongs to another store than the one beside it: moved to {}",
                    path.display(),
                    aside.display()
                );
                return Self::open(store, identity, recorded);
            }
            // Made, and the power failed before its first page was on disk.
            if bytes.iter().any(|byte| *byte != 0) {
                tracing::warn!("{} is damaged, nothing of it can be used", path.display());
            }
            bytes.clear();
        }
        let allocated = if bytes.len() as u64 == LENGTH { Ok(()) } else { allocate(&file) };
        if bytes.is_empty() {
            allocated?;
            let empty = [header.as_slice(), &END].concat();
            file.write_all_at(&empty, 0)?;
            return Ok((Self { file, end: HEADER }, Vec::new()));
        }
        let read = read(bytes.get(usize::try_from(HEADER).unwrap_or(0)..).unwrap_or(&[]), recorded);
        if read.is_torn {
            tracing::warn!(
                "the end of {} is torn, as after a power cut: changes that were not waited for, from \
                 revision {} on, are dropped",
                path.display(),
                recorded + 1 + read.records.len() as u64
            );
        }
        let end = HEADER + read.length as u64;
        if let Err(error) = allocated.and_then(|()| file.write_all_at(&END, end)) {
            // What it holds counts all the same; a record that cannot be added goes to the database.
            tracing::warn!("{}: {error}", path.display());
        }
        Ok((Self { file, end }, read.records))
    }

    /// Adds a transaction; survives the end of this process when it returns. After an error it is as
    /// if it had not been called. [`io::ErrorKind::StorageFull`] where it does not fit.
    pub(crate) fn append(&mut self, revision: Revision, changes: &[Change]) -> io::Result<()> {
        bulkhead_failpoint::hit("store.journal")?;
        let rows: Vec<(&str, Option<&[u8]>)> =
            changes.iter().map(|change| (change.key.as_str(), change.value.as_deref())).collect();
        let payload = postcard::to_stdvec(&(revision, rows)).map_err(io::Error::other)?;
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity(PREFIX + payload.len() + END.len());
        record.extend(length.to_le_bytes());
        record.extend(checksum(&payload));
        record.extend(&payload);
        let next = self.end + record.len() as u64;
        if next + END.len() as u64 > LENGTH {
            return Err(Errno::NOSPC.into());
        }
        record.extend(END);
        if let Err(error) = self.file.write_all_at(&record, self.end) {
            // Whoever opens it must not find the record in it: its revision will be another's.
            let _ = self.file.write_all_at(&END, self.end);
            return Err(error);
        }
        self.end = next;
        Ok(())
    }

    /// The database has all that was added: the next record is the first one.
    pub(crate) fn begin_again(&mut self) {
        self.end = HEADER;
    }
}

fn path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".of-another-store");
    name.into()
}

fn header(identity: u64) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..].copy_from_slice(&identity.to_le_bytes());
    header
}

fn allocate(file: &File) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, LENGTH) {
        Ok(()) => Ok(()),
        // Where blocks cannot be allocated ahead, a full disk is met when a record is written.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(LENGTH),
        Err(errno) => Err(errno.into()),
    }
}

/// A key with its value, or without any.
type Row = (String, Option<Vec<u8>>);

/// What is in a journal's bytes behind its header.
struct Read {
    records: Vec<Record>,
    /// Where the next record goes, counted from the header's end.
    length: usize,
    is_torn: bool,
}

fn read(bytes: &[u8], recorded: Revision) -> Read {
    let mut read = Read { records: Vec::new(), length: 0, is_torn: false };
    let (mut rest, mut at, mut next) = (bytes, 0, None);
    loop {
        let whole = match take(rest) {
            Taken::End => return read,
            Taken::Damaged => {
                // Behind records that the database has, it is only what newer ones were written over.
                read.is_torn = next.is_none() || !read.records.is_empty();
                return read;
            }
            Taken::Record(record, length) => {
                let in_order = next.is_none_or(|next| next == record.0);
                at += length;
                rest = &rest[length..];
                in_order.then_some(record)
            }
        };
        // What was written before the journal last began again.
        let Some(record) = whole else { return read };
        next = Some(record.0 + 1);
        if record.0 <= recorded {
            continue;
        }
        // The database was put back to an earlier moment: what lies between is not known.
        if record.0 != recorded + 1 + read.records.len() as u64 {
            read.is_torn = true;
            return read;
        }
        read.records.push(record);
        read.length = at;
    }
}

enum Taken {
    /// A record and its length with the prefix.
    Record(Record, usize),
    End,
    Damaged,
}

fn take(bytes: &[u8]) -> Taken {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Taken::End };
    if *length == END {
        return Taken::End;
    }
    let length = u32::from_le_bytes(*length) as usize;
    let Some((sum, rest)) = rest.split_first_chunk::<8>() else { return Taken::Damaged };
    match rest.get(..length) {
        Some(payload) if checksum(payload) == *sum => match decode(payload) {
            Ok(record) => Taken::Record(record, PREFIX + length),
            Err(_) => Taken::Damaged,
        },
        _ => Taken::Damaged,
    }
}

fn decode(payload: &[u8]) -> postcard::Result<Record> {
    let (revision, rows): (Revision, Vec<Row>) = postcard::from_bytes(payload)?;
    let change = |(key, value)| Change { revision, key, value };
    Ok((revision, rows.into_iter().map(change).collect()))
}

/// The first eight bytes of SHA-256, which processors compute as fast as any.
fn checksum(payload: &[u8]) -> [u8; 8] {
    let hash = Sha256::digest(payload);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hash[..8]);
    sum
}
