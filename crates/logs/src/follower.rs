//! Reads a json-file log from where it was read to, over rotations and restarts.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bulkhead_types::{Stream, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record::Record;

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

/// Which file it is: a number is given to another file once its own is gone, and then it was made at
/// another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
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
        let files = self.files()?;
        let mut batch = Batch::default();
        let mut at = match self.position {
            None => 0,
            Some(position) => match files.iter().position(|file| file.has(&position)) {
                Some(at) => at,
                None => {
                    let Some(first) = files.first() else { return Ok(batch) };
                    batch.push(gap(position.last), first.identity, 0);
                    0
                }
            },
        };
        while let Some(file) = files.get(at) {
            let from = match (batch.positions.last(), self.position) {
                (Some(last), _) if last.file == file.identity => last.offset,
                (None, Some(own)) if own.file == file.identity => own.offset,
                _ => 0,
            };
            file.read(from, &mut batch)?;
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

    fn files(&self) -> io::Result<Vec<Part>> {
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

struct Part {
    file: File,
    identity: Identity,
}

impl Part {
    /// Whether it is the file of a position: a number that was given again may have been so within one
    /// tick of the clock, and then another record ends there, if any.
    fn has(&self, position: &Position) -> bool {
        if self.identity != position.file {
            return false;
        }
        let end = format!("\"time\":\"{}\"}}\n", position.last);
        let Some(start) = position.offset.checked_sub(end.len() as u64) else {
            return position.offset == 0;
        };
        let mut found = vec![0; end.len()];
        match self.file.read_exact_at(&mut found, start) {
            Ok(()) => found == end.as_bytes(),
            // Somebody has emptied it (`truncate -s 0`).
            Err(_) => true,
        }
    }

    /// Reads the whole records from an offset on; what is no record (the machine lost power) is passed
    /// over.
    fn read(&self, from: u64, batch: &mut Batch) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        // Somebody has emptied it (`truncate -s 0`).
        let mut offset = if from > length { 0 } else { from };
        let mut buffer = vec![0; CHUNK.min(usize::try_from(length - offset).unwrap_or(CHUNK))];
        while batch.records.is_empty() && offset < length {
            let read = self.file.read_at(&mut buffer, offset)?;
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
                    batch.push(record, self.identity, offset);
                }
            }
        }
        Ok(())
    }
}

/// The log's files, oldest first.
fn list(path: &Path) -> io::Result<Vec<Part>> {
    // A rotation meanwhile moves each file on by a number: another look sees none.
    for _ in 0..100 {
        let mut files: Vec<Part> = Vec::new();
        for path in list_paths(path)? {
            match File::open(&path) {
                Ok(file) => {
                    let identity = Identity::of(&file)?;
                    files.retain(|known| known.identity != identity);
                    files.push(Part { file, identity });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let newest = std::fs::metadata(path).ok().map(|metadata| metadata.ino());
        if files.last().map(|file| file.identity.inode) == newest {
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
    use std::io::Write;

    use super::*;

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
