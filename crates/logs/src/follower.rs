//! Reads a json-file log from where it was read to, over rotations and restarts.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_types::{Stream, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record::Record;
use crate::segment::{Identity, Segment};

/// How far a log was read, by whoever needs every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file that the last record is in.
    file: Identity,
    /// Bytes of it.
    pub offset: u64,
    /// When the last record was written.
    pub last: Timestamp,
}

/// Some records, and where each ends.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    positions: Vec<Position>,
}

impl Batch {
    /// Where the first `count` records end.
    pub fn position(&self, count: usize) -> Option<Position> {
        self.positions.get(count.checked_sub(1)?).copied()
    }
}

/// A log that is followed.
///
/// Nothing is held open between two looks, so that what is rotated away is gone from the disk as well.
#[derive(Debug)]
pub struct Follower {
    /// The log is in the first of these that exists.
    places: Vec<PathBuf>,
    name: String,
    position: Option<Position>,
}

/// Bytes that are read at once; a record is shorter (16 KiB of text, escaped).
const CHUNK: usize = 256 << 10;
/// The file beside the log that says how far it was read.
const POSITION: &str = "sent.json";

impl Follower {
    /// Goes on where the file beside the log says, or at the log's beginning.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(places: Vec<PathBuf>, name: String) -> io::Result<Self> {
        let mut follower = Self { places, name, position: None };
        follower.position = match std::fs::read(follower.place().join(POSITION)) {
            // Half a file: from the beginning, since twice is better than never.
            Ok(text) => serde_json::from_slice(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(follower)
    }

    /// The records behind the position; none when there are none yet. Where some are gone for good, a
    /// record stands that says so.
    pub fn batch(&mut self) -> io::Result<Batch> {
        let mut files = self.files()?;
        let mut batch = Batch::default();
        let mut at = match self.position {
            None => 0,
            Some(position) => match files.iter_mut().position(|file| has(file, &position)) {
                Some(at) => at,
                None => {
                    let Some(first) = files.first() else { return Ok(batch) };
                    batch.push(gap(position.last), first.identity(), 0);
                    0
                }
            },
        };
        while let Some(file) = files.get_mut(at) {
            let from = match (batch.positions.last(), self.position) {
                (Some(last), _) if last.file == file.identity() => last.offset,
                (None, Some(own)) if own.file == file.identity() => own.offset,
                _ => 0,
            };
            read(file, from, &mut batch)?;
            if !batch.records.is_empty() {
                break;
            }
            // One that was rotated away has been read to its end, for it was so before it was read.
            at += 1;
        }
        Ok(batch)
    }

    /// Records up to here are where they were to go.
    pub fn commit(&mut self, position: Position) -> io::Result<()> {
        self.position = Some(position);
        let place = self.place();
        let new = place.join(format!("{POSITION}.new"));
        let text = serde_json::to_vec(&position).map_err(io::Error::other)?;
        std::fs::write(&new, text)?;
        std::fs::rename(new, place.join(POSITION))
    }

    fn files(&self) -> io::Result<Vec<Segment>> {
        loop {
            let place = self.place();
            let files = list(&place.join(&self.name))?;
            // A log that goes on elsewhere does so before it goes here.
            if self.place() == place {
                return Ok(files);
            }
        }
    }

    fn place(&self) -> &Path {
        let found = self.places.iter().find(|place| place.exists());
        found.or(self.places.last()).map_or(Path::new("/"), PathBuf::as_path)
    }
}

/// Gives the files of a log, and how far it was read, a second name in another directory, where they
/// stay when the first is removed.
pub fn link_log(from: &Path, name: &str, to: &Path) -> io::Result<()> {
    for file in list_paths(&from.join(name))? {
        let own = file.file_name().unwrap_or_default();
        link(&file, &to.join(own))?;
    }
    // A copy: the one here is replaced while somebody goes on reading.
    match std::fs::copy(from.join(POSITION), to.join(POSITION)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(to)?;
            std::fs::hard_link(from, to)
        }
        other => other,
    }
}

impl Batch {
    fn push(&mut self, record: Record, file: Identity, offset: u64) {
        self.positions.push(Position { file, offset, last: record.at });
        self.records.push(record);
    }
}

fn gap(last: Timestamp) -> Record {
    Record {
        at: Timestamp::now(),
        stream: Stream::Stderr,
        text: format!(
            "[output since {last} is missing here: it was rotated away before it could be sent]"
        ),
        goes_on: false,
    }
}

/// Whether it is the file of a position: a number that was given again may have been so within one
/// tick of the clock, and then another record ends there, if any.
fn has(segment: &mut Segment, position: &Position) -> bool {
    if segment.identity() != position.file {
        return false;
    }
    let end = format!("\"time\":\"{}\"}}\n", position.last);
    let Some(start) = position.offset.checked_sub(end.len() as u64) else {
        return position.offset == 0;
    };
    let mut found = vec![0; end.len()];
    match segment.read_exact_at(&mut found, start) {
        Ok(()) => found == end.as_bytes(),
        // Somebody has emptied it (`truncate -s 0`).
        Err(_) => true,
    }
}

/// Reads the whole records from an offset on; what is no record (the machine lost power) is passed
/// over.
fn read(segment: &mut Segment, from: u64, batch: &mut Batch) -> io::Result<()> {
    let length = segment.length()?;
    // Somebody has emptied it (`truncate -s 0`).
    let mut offset = if from > length { 0 } else { from };
    let mut buffer = vec![0; CHUNK.min(usize::try_from(length - offset).unwrap_or(CHUNK))];
    while batch.records.is_empty() && offset < length {
        let read = fill(segment, &mut buffer, offset)?;
        let bytes = &buffer[..read];
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            if read < CHUNK {
                return Ok(());
            }
            offset += read as u64;
            continue;
        };
        for line in bytes[..=end].split_inclusive(|byte| *byte == b'\n') {
            offset += line.len() as u64;
            if let Some(record) = Record::parse(line) {
                batch.push(record, segment.identity(), offset);
            }
        }
    }
    Ok(())
}

/// Reads as much as there is and has room: a compressed file gives a block at a time.
fn fill(segment: &mut Segment, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match segment.read_at(&mut buffer[read..], offset + read as u64)? {
            0 => break,
            count => read += count,
        }
    }
    Ok(read)
}

/// The log's files, oldest first.
fn list(path: &Path) -> io::Result<Vec<Segment>> {
    // A rotation meanwhile moves each file on by a number: another look sees none.
    for _ in 0..100 {
        let mut files: Vec<Segment> = Vec::new();
        for path in list_paths(path)? {
            match Segment::open(&path) {
                Ok(Some(segment)) => {
                    files.retain(|known| known.identity() != segment.identity());
                    files.push(segment);
                }
                Ok(None) => {}
                // What is damaged is as what was rotated away: it is told where its records are missed.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            }
        }
        let newest = std::fs::metadata(path).ok().map(|metadata| metadata.ino());
        if files.last().map(Segment::inode) == newest {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

/// `NAME.2`, `NAME.1`, `NAME`, as far as there are.
fn list_paths(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut missing = 0;
    for number in 0.. {
        let mut name = path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let name = PathBuf::from(name);
        match name.try_exists()? {
            true => {
                paths.push(name);
                missing = 0;
            }
            // While files are being renamed, one number is free.
            false if missing == 1 => break,
            false => missing += 1,
        }
    }
    paths.reverse();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::compress::{Compressed, compress};

    fn write(path: &Path, numbers: std::ops::Range<u32>) {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        for number in numbers {
            writeln!(
                file,
                r#"{{"log":"{number}\n","stream":"stdout","time":"2026-01-01T00:00:{number:02}Z"}}"#
            )
            .unwrap();
        }
    }

    fn texts(batch: &Batch) -> Vec<&str> {
        batch.records.iter().map(|record| record.text.as_str()).collect()
    }

    #[test]
    fn every_record_comes_once_over_rotations_and_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let open = || Follower::open(vec![directory.path().to_owned()], "log".to_owned()).unwrap();
        assert!(open().batch().unwrap().records.is_empty());
        write(&at("log"), 0..3);
        let mut follower = open();
        let batch = follower.batch().unwrap();
        assert_eq!(texts(&batch), ["0", "1", "2"]);
        // Some were taken, and then the engine was killed.
        follower.commit(batch.position(2).unwrap()).unwrap();
        let mut follower = open();
        assert_eq!(texts(&follower.batch().unwrap()), ["2"]);
        std::fs::rename(at("log"), at("log.1")).unwrap();
        write(&at("log"), 3..4);
        let batch = follower.batch().unwrap();
        assert_eq!(texts(&batch), ["2"], "the rotated file comes first");
        follower.commit(batch.position(1).unwrap()).unwrap();
        let batch = follower.batch().unwrap();
        assert_eq!(texts(&batch), ["3"]);
        follower.commit(batch.position(1).unwrap()).unwrap();
        // What was read is found again in the file that it was compressed into.
        assert!(matches!(compress(directory.path(), "log", 1).unwrap(), Compressed::Now(_)));
        assert!(open().batch().unwrap().records.is_empty());
        let begin = Follower::open(vec![directory.path().to_owned()], "log".to_owned()).unwrap();
        let batch = Follower { position: None, ..begin }.batch().unwrap();
        assert_eq!(texts(&batch), ["0", "1", "2"]);
        // A record that is still being written is no record.
        std::fs::OpenOptions::new().append(true).open(at("log")).unwrap().write_all(b"{").unwrap();
        assert!(follower.batch().unwrap().records.is_empty());
    }

    #[test]
    fn what_was_rotated_away_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut follower =
            Follower::open(vec![directory.path().to_owned()], "log".to_owned()).unwrap();
        write(&at("log"), 0..2);
        let batch = follower.batch().unwrap();
        follower.commit(batch.position(1).unwrap()).unwrap();
        // The next file may well get its number.
        std::fs::remove_file(at("log")).unwrap();
        write(&at("log"), 5..6);
        let batch = follower.batch().unwrap();
        assert!(texts(&batch)[0].contains("missing here"), "{batch:?}");
        follower.commit(batch.position(1).unwrap()).unwrap();
        let batch = follower.batch().unwrap();
        assert_eq!(texts(&batch), ["5"]);
        follower.commit(batch.position(1).unwrap()).unwrap();
        assert!(follower.batch().unwrap().records.is_empty());
    }

    #[test]
    fn a_log_goes_on_where_it_was_moved_to() {
        let directory = tempfile::tempdir().unwrap();
        let (own, kept) = (directory.path().join("own"), directory.path().join("kept"));
        std::fs::create_dir(&own).unwrap();
        std::fs::create_dir(directory.path().join("held")).unwrap();
        let mut follower =
            Follower::open(vec![kept.clone(), own.clone()], "log".to_owned()).unwrap();
        write(&own.join("log"), 0..2);
        let batch = follower.batch().unwrap();
        follower.commit(batch.position(1).unwrap()).unwrap();
        let held = directory.path().join("held");
        link_log(&own, "log", &held).unwrap();
        link_log(&own, "log", &held).unwrap();
        std::fs::rename(held, &kept).unwrap();
        std::fs::remove_dir_all(&own).unwrap();
        assert_eq!(texts(&follower.batch().unwrap()), ["1"]);
        let again = Follower::open(vec![kept, own], "log".to_owned()).unwrap().batch().unwrap();
        assert_eq!(texts(&again), ["1"]);
    }
}
