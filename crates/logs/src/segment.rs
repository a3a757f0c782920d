//! A file of a log: as it is written, or compressed after it was rotated away.
//!
//! A compressed one is gzip (RFC 1952) in many members, each a block of whole lines, so that `zcat` shows what
//! it holds and a reader inflates only the block it wants. What the blocks are stands in a last, empty
//! member's extra field, which is found from the file's end.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use bulkhead_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Which file it is: a number is given to another file once its own is gone, and then it was made at
/// another time. A compressed file is the one that it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    inode: u64,
    /// Nanoseconds since the epoch (statx(2), `stx_btime`); `None` where the file system does not know.
    born: Option<u64>,
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Ok(Self { inode: metadata.ino(), born })
    }
}

/// What a compressed file holds, in the order in which it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    pub(crate) of: Identity,
    pub(crate) blocks: Vec<Block>,
}

/// Compressed bytes, bytes, lines that are whole, and when the last record was written in nanoseconds since
/// the epoch. As few letters as may be: an extra field has 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Block(pub(crate) u64, pub(crate) u64, pub(crate) u64, pub(crate) i128);

/// A file of a log that is held open.
#[derive(Debug)]
pub struct Segment {
    file: File,
    identity: Identity,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Plain,
    /// With the block that was inflated last, by its number.
    Compressed(Index, Option<(usize, Vec<u8>)>),
}

/// A block's place among all bytes and all lines.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: usize,
    compressed: u64,
    start: u64,
    block: Block,
}

/// The empty member's end: no data, and the checksum and length of none.
const EMPTY: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Before it the index's length, in bytes.
const END: u64 = EMPTY.len() as u64 + 2;
/// Bytes that are looked at for a record while a place in a plain file is searched.
const LOOK: u64 = 128 << 10;

impl Segment {
    /// # Errors
    /// A compressed file whose index is damaged is an error.
    pub fn new(file: File) -> io::Result<Self> {
        let own = Identity::of(&file)?;
        let mut magic = [0; 2];
        if file.read_at(&mut magic, 0)? < 2 || magic != [0x1f, 0x8b] {
            return Ok(Self { file, identity: own, form: Form::Plain });
        }
        let index = read_index(&file)?;
        Ok(Self { file, identity: index.of, form: Form::Compressed(index, None) })
    }

    /// `None` where there is no such file.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Self::new(file).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn inode(&self) -> u64 {
        self.identity.inode
    }

    pub fn is_compressed(&self) -> bool {
        matches!(self.form, Form::Compressed(..))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Bytes, were it not compressed.
    pub fn length(&self) -> io::Result<u64> {
        match &self.form {
            Form::Plain => Ok(self.file.metadata()?.len()),
            Form::Compressed(index, _) => Ok(index.blocks.iter().map(|block| block.1).sum()),
        }
    }

    /// When it was written to last.
    pub fn last_written(&self) -> io::Result<Timestamp> {
        let metadata = self.file.metadata()?;
        let nanoseconds = i32::try_from(metadata.mtime_nsec()).unwrap_or(0);
        Ok(Timestamp::new(metadata.mtime(), nanoseconds).unwrap_or(Timestamp::MAX))
    }

    /// Some bytes from an offset on; none at the end.
    pub fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Form::Compressed(index, inflated) = &mut self.form else {
            return self.file.read_at(buffer, offset);
        };
        let place = places(index).find(|place| offset < place.start + place.block.1);
        let Some(place) = place else { return Ok(0) };
        if inflated.as_ref().is_none_or(|(number, _)| *number != place.number) {
            *inflated = Some((place.number, inflate(&self.file, &place)?));
        }
        let bytes = inflated.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let from = usize::try_from(offset - place.start).map_err(|_| damaged())?;
        let rest = bytes.get(from..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    /// # Errors
    /// There are fewer bytes: [`ErrorKind::UnexpectedEof`].
    pub fn read_exact_at(&mut self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }

    /// An offset where a line begins, before which nothing was written since then. Records are in the order of
    /// their times, but where the clock was set back.
    pub fn since(&mut self, since: Timestamp) -> io::Result<u64> {
        if let Form::Compressed(index, _) = &self.form {
            let found = places(index).find(|place| place.block.3 >= since.as_nanosecond());
            return found.map_or_else(|| self.length(), |place| Ok(place.start));
        }
        let (mut low, mut high) = (0, self.length()?);
        let mut buffer = Vec::new();
        while high - low > LOOK {
            let middle = low + (high - low) / 2;
            buffer.resize(LOOK.min(high - middle) as usize, 0);
            let count = self.file.read_at(&mut buffer, middle)?;
            match first_record(&buffer[..count]) {
                Some((at, time)) if time < since => low = middle + at as u64,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The last blocks that have at most so many lines: how many those are, and where they begin. A file that
    /// is not compressed has no blocks.
    pub fn lines_from_end(&self, most: usize) -> io::Result<(usize, u64)> {
        let mut start = self.length()?;
        let mut lines = 0;
        if let Form::Compressed(index, _) = &self.form {
            for block in index.blocks.iter().rev() {
                let more = usize::try_from(block.2).map_err(|_| damaged())?;
                if more > most - lines {
                    break;
                }
                lines += more;
                start -= block.1;
            }
        }
        Ok((lines, start))
    }
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a compressed file of the log is damaged")
}

fn places(index: &Index) -> impl Iterator<Item = Place> {
    let begin = (0, 0);
    index.blocks.iter().enumerate().scan(begin, |(compressed, start), (number, block)| {
        let place = Place { number, compressed: *compressed, start: *start, block: *block };
        (*compressed, *start) = (*compressed + block.0, *start + block.1);
        Some(place)
    })
}

fn read_index(file: &File) -> io::Result<Index> {
    let length = file.metadata()?.len();
    let end = length.checked_sub(END).ok_or_else(damaged)?;
    let mut found = [0; END as usize];
    file.read_exact_at(&mut found, end)?;
    let size = u64::from(u16::from_le_bytes([found[0], found[1]]));
    if found[2..] != EMPTY || size > end {
        return Err(damaged());
    }
    let mut text = vec![0; size as usize];
    file.read_exact_at(&mut text, end - size)?;
    let index: Index = serde_json::from_slice(&text).map_err(|_| damaged())?;
    // Sums are right from here on.
    let sum = |part: fn(&Block) -> u64| {
        index.blocks.iter().try_fold(0_u64, |sum, block| sum.checked_add(part(block)))
    };
    match (sum(|block| block.0), sum(|block| block.1), sum(|block| block.2)) {
        (Some(compressed), Some(_), Some(_)) if compressed <= end => Ok(index),
        _ => Err(damaged()),
    }
}

fn inflate(file: &File, place: &Place) -> io::Result<Vec<u8>> {
    let Block(compressed, length, ..) = place.block;
    let mut packed = vec![0; usize::try_from(compressed).map_err(|_| damaged())?];
    file.read_exact_at(&mut packed, place.compressed)?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&*packed).take(length + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(damaged()) }
}

/// The last member's bytes.
pub(crate) fn encode_index(index: &Index) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(index).map_err(io::Error::other)?;
    let size = |length: usize| u16::try_from(length).map_err(|_| io::Error::other("a long index"));
    // magic, deflate, FEXTRA, no time, no extra flags, Unix
    let mut member = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 3];
    member.extend(size(text.len() + 2 + 4)?.to_le_bytes());
    member.extend(b"bh");
    member.extend(size(text.len() + 2)?.to_le_bytes());
    member.extend(&text);
    member.extend(size(text.len())?.to_le_bytes());
    member.extend(EMPTY);
    Ok(member)
}

/// Where in these bytes, which begin anywhere, the first whole record is, and when it was written.
fn first_record(bytes: &[u8]) -> Option<(usize, Timestamp)> {
    let mut at = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    for line in bytes[at..].split_inclusive(|byte| *byte == b'\n') {
        if let Some(record) = Record::parse(line).filter(|_| line.ends_with(b"\n")) {
            return Some((at, record.at));
        }
        at += line.len();
    }
    None
}
