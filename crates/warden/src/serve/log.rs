//! Docker's json-file log: one object for each line, rotated by size.
//!
//! A record is in the file as a whole or not at all: where a write stops in the middle (a full disk),
//! its part is taken back. What cannot be written waits in the [`Backlog`], which another warden goes
//! on with.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::backlog::Backlog;
use super::clock::monotonic;
use super::spool::{Place, Spool};
use crate::wire::LogHandover;

/// The log of one container.
pub(super) struct LogFile {
    directory: OwnedFd,
    name: String,
    file: Option<OwnedFd>,
    size: u64,
    max_size: u64,
    max_files: u32,
    /// The last, unfinished line of each stream.
    partial: [Vec<u8>; 2],
    /// What comes before that and could not be written.
    backlog: Backlog,
    /// The file ends within a record that nobody will finish.
    torn: bool,
    /// When writing is tried again, nanoseconds of the monotonic clock.
    retry: Option<i64>,
}

/// How long after a failure writing is tried again, in nanoseconds.
const PAUSE: i64 = 500_000_000;

/// Stands behind a record that was never finished.
const TORN: &[u8] =
    b"[output is missing here: the log was being written when the machine or the warden stopped]\n";

/// What a log has at a moment.
#[derive(Debug, Default)]
pub(super) struct LogSnapshot {
    /// Oldest first.
    pub files: Vec<OwnedFd>,
    /// How much of the newest file was written; it may grow.
    pub size: u64,
}

/// As many files as fit into one message, for sure.
const MAX_SNAPSHOT: u32 = 250;

/// A longer line is logged in pieces (moby: daemon/logger/copier.go, `defaultBufSize`).
const LONGEST: usize = 16 << 10;

impl LogFile {
    /// Opens a log in `directory` for appending, with what another warden has left to be written.
    pub fn open(directory: OwnedFd, log: &LogHandover, spool: Spool) -> Result<Self, Errno> {
        let mut log = Self::open_alone(directory, log, Backlog::open(spool))?;
        log.finish_interrupted();
        log.mend();
        log.flush();
        Ok(log)
    }

    /// As [`Self::open`], going on with what another one of the same container has not written yet.
    pub fn open_after(directory: OwnedFd, log: &LogHandover, other: Self) -> Result<Self, Errno> {
        let mut log = Self::open_alone(directory, log, other.backlog)?;
        log.torn |= other.torn;
        log.mend();
        log.flush();
        Ok(log)
    }

    fn open_alone(
        directory: OwnedFd,
        LogHandover { name, max_size, max_files }: &LogHandover,
        backlog: Backlog,
    ) -> Result<Self, Errno> {
        if name.is_empty() || name.contains('/') {
            return Err(Errno::INVAL);
        }
        let mut log = Self {
            directory,
            name: name.to_owned(),
            file: None,
            size: 0,
            max_size: *max_size,
            max_files: *max_files,
            partial: Default::default(),
            backlog,
            torn: false,
            retry: None,
        };
        log.reopen()?;
        Ok(log)
    }

    /// What a killed writer has left in the middle of a record is told behind it.
    fn mend(&mut self) {
        if !self.torn && self.ends_torn() {
            self.torn = true;
            self.backlog.push(1, &jiff::Timestamp::now().to_string(), TORN);
            self.backlog.save();
        }
    }

    /// Whether the record that another warden was writing when it died is in the log; a part of it
    /// is taken back.
    fn finish_interrupted(&mut self) {
        let (Some(place), Some(entry)) = (self.backlog.interrupted(), self.backlog.first()) else {
            return;
        };
        let mut record = Vec::new();
        encode(&entry.text(), entry.stream, &entry.time, &mut record);
        let Some(file) = &self.file else { return };
        let is_there = rustix::fs::fstat(file)
            .is_ok_and(|stat| stat.st_ino == place.inode && stat.st_size as u64 == self.size);
        if !is_there || self.size <= place.length {
            return;
        }
        // a record behind a torn one stands on a line of its own
        let mut found = vec![0; record.len() + 1];
        let Ok(length) = rustix::io::pread(file, &mut found, place.length) else { return };
        let found = found[..length].strip_prefix(b"\n").unwrap_or(&found[..length]);
        if found.starts_with(&record) {
            self.backlog.pop();
            self.backlog.save();
        } else if record.starts_with(found) && rustix::fs::ftruncate(file, place.length).is_ok() {
            self.size = place.length;
        }
    }

    /// What is on disk now.
    pub fn snapshot(&self) -> Result<LogSnapshot, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |name: &str| rustix::fs::openat(&self.directory, name, flags, Mode::empty());
        let mut files = match open(&self.name) {
            Ok(newest) => vec![newest],
            // rotated away, and the next one could not be made yet
            Err(Errno::NOENT) => Vec::new(),
            Err(error) => return Err(error),
        };
        for number in 1..MAX_SNAPSHOT {
            match open(&format!("{}.{number}", self.name)) {
                Ok(file) => files.push(file),
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error),
            }
        }
        let size = match files.first() {
            Some(newest) => rustix::fs::fstat(newest)?.st_size as u64,
            None => 0,
        };
        files.reverse();
        Ok(LogSnapshot { files, size })
    }

    /// What is not in the log yet: what waits for the disk, and the beginning of a line.
    pub fn unwritten(&self, stream: usize) -> Vec<u8> {
        let mut text = self.backlog.of(stream);
        text.extend_from_slice(&self.partial[stream]);
        text
    }

    /// Nobody will read it.
    pub fn discard(&mut self) {
        self.backlog.discard();
    }

    /// Whether something waits for the disk.
    pub fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// When [`Self::flush`] is to be called, nanoseconds of the monotonic clock.
    pub fn retry_at(&self) -> Option<i64> {
        self.retry
    }

    /// Nobody will read it: its container was removed.
    pub fn is_removed(&self) -> bool {
        let is_gone = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_nlink == 0);
        is_gone(&self.directory) || self.file.as_ref().is_some_and(is_gone)
    }

    /// What another warden needs of this, and the directory.
    pub fn handover(&self) -> Result<(LogHandover, OwnedFd), Errno> {
        let (name, max_size, max_files) = (self.name.clone(), self.max_size, self.max_files);
        let directory = rustix::io::fcntl_dupfd_cloexec(&self.directory, 3)?;
        Ok((LogHandover { name, max_size, max_files }, directory))
    }

    /// Logs what was read from a stream: 0 standard output, 1 standard error.
    pub fn take(&mut self, stream: usize, bytes: &[u8]) {
        let mut text = std::mem::take(&mut self.partial[stream]);
        text.extend_from_slice(bytes);
        let (lines, rest) = cut(&text);
        self.write(stream, &lines);
        self.partial[stream] = rest.to_owned();
    }

    /// Logs lines that never got their end.
    pub fn end(&mut self) {
        for stream in 0..2 {
            let partial = std::mem::take(&mut self.partial[stream]);
            if !partial.is_empty() {
                self.write(stream, &[&partial]);
            }
        }
        self.flush();
    }

    fn write(&mut self, stream: usize, lines: &[&[u8]]) {
        if lines.is_empty() {
            return;
        }
        let time = jiff::Timestamp::now().to_string();
        self.flush();
        let mut written = 0;
        if !self.is_behind() {
            let mut records = Vec::with_capacity(lines.iter().map(|line| line.len() + 128).sum());
            lines.iter().for_each(|line| encode(line, stream, &time, &mut records));
            written = self.append(&records);
        }
        if written < lines.len() {
            lines[written..].iter().for_each(|line| self.backlog.push(stream, &time, line));
            self.backlog.save();
            bulkhead_failpoint::pass("warden.log-waits");
        }
    }

    /// Writes what waits for the disk, as far as this takes it.
    pub fn flush(&mut self) {
        let mut has_written = false;
        while let Some(entry) = self.backlog.first() {
            let mut record = Vec::new();
            encode(&entry.text(), entry.stream, &entry.time, &mut record);
            if !self.append_waiting(&record) {
                return;
            }
            self.backlog.pop();
            has_written = true;
        }
        if has_written {
            self.backlog.save();
        }
        if self.retry.take().is_some() {
            eprintln!("the log {} is written again", self.name);
        }
    }

    /// Appends the record of what waits longest; a warden that comes after this one finds out whether
    /// that was done.
    fn append_waiting(&mut self, record: &[u8]) -> bool {
        self.make_room();
        let opened = if self.file.is_none() { self.reopen() } else { Ok(()) };
        let stat =
            opened.and_then(|()| self.file.as_ref().map_or(Err(Errno::BADF), rustix::fs::fstat));
        match stat {
            Ok(stat) => {
                let place = Place { inode: stat.st_ino, length: stat.st_size as u64 };
                self.backlog.writing(place);
                let (whole, failure) = self.append_to_file(record);
                self.size += whole as u64;
                self.note(failure);
                whole > 0
            }
            Err(errno) => {
                self.note(Some(errno));
                false
            }
        }
    }

    /// A file that is full makes room for the next; when that fails, it grows on.
    fn make_room(&mut self) {
        if self.max_size != 0 && self.size >= self.max_size {
            let _ = self.rotate();
        }
    }

    /// After a failure writing is tried again, in a while.
    fn note(&mut self, failure: Option<Errno>) {
        let Some(errno) = failure else { return };
        if self.retry.is_none() {
            eprintln!("the log {} cannot be written: {errno}", self.name);
        }
        self.retry = Some(monotonic() + PAUSE);
    }

    /// Appends records; returns how many of them are in the file, which is all unless it cannot be
    /// written.
    fn append(&mut self, mut bytes: &[u8]) -> usize {
        let mut count = 0;
        while !bytes.is_empty() {
            self.make_room();
            // up to the end of the line with which the file is full
            let room = match self.max_size {
                0 => bytes.len(),
                most => (most.saturating_sub(self.size)).clamp(1, bytes.len() as u64) as usize,
            };
            let end = bytes[room - 1..].iter().position(|byte| *byte == b'\n');
            let (now, later) = bytes.split_at(end.map_or(bytes.len(), |at| room + at));
            let (whole, failure) = self.append_to_file(now);
            self.size += whole as u64;
            count += now[..whole].iter().filter(|byte| **byte == b'\n').count();
            if failure.is_some() {
                self.note(failure);
                return count;
            }
            bytes = later;
        }
        count
    }

    /// Writes as many whole records as the file takes: their length, and why not all.
    fn append_to_file(&mut self, bytes: &[u8]) -> (usize, Option<Errno>) {
        if self.file.is_none()
            && let Err(errno) = self.reopen()
        {
            return (0, Some(errno));
        }
        let Some(file) = &self.file else { return (0, Some(Errno::BADF)) };
        if self.torn {
            if let (_, Some(errno)) = write_all(file, b"\n") {
                return (0, Some(errno));
            }
            self.torn = false;
        }
        if let Err(error) = bulkhead_failpoint::hit("warden.log-write") {
            return (0, Errno::from_io_error(&error).or(Some(Errno::IO)));
        }
        let (written, failure) = write_all(file, bytes);
        bulkhead_failpoint::pass("warden.log-written");
        let newline = bytes[..written].iter().rposition(|byte| *byte == b'\n');
        let whole = newline.map_or(0, |at| at + 1);
        if whole < written {
            // By the file's own length: others may have emptied it (`truncate -s 0`). The same bytes
            // come there later, so whoever has read them is not misled.
            let cut = rustix::fs::fstat(file).and_then(|stat| {
                let end = (stat.st_size as u64).saturating_sub((written - whole) as u64);
                rustix::fs::ftruncate(file, end)
            });
            self.torn = cut.is_err();
        }
        (whole, failure)
    }

    /// `name.1` becomes `name.2`, `name` becomes `name.1`; the oldest is overwritten.
    ///
    /// The engine puts a compressed file in the place of one that was rotated, under the same lock
    /// (flock(2)): nobody waits for it here, the file grows on for that moment. It is taken on a
    /// descriptor of its own, since the engine has copies of the other, with which a lock would outlive
    /// this process.
    fn rotate(&mut self) -> Result<(), Errno> {
        let directory = &self.directory;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        if self.max_files < 2 {
            rustix::fs::unlinkat(directory, &self.name, AtFlags::empty())?;
            self.file = None;
            return self.reopen();
        }
        let numbered = |number: u32| match number {
            0 => self.name.clone(),
            number => format!("{}.{number}", self.name),
        };
        // Only as far as there are files: what a user writes as the most may be any number, and
        // every container waits for this.
        let exists = |number: u32| {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::statat(directory, numbered(number), flags).is_ok()
        };
        if !exists(0) {
            // The last rotation came so far, and the disk was full: another would lose a file more.
            return self.reopen();
        }
        let last = (1..self.max_files).find(|number| !exists(*number));
        for number in (1..=last.unwrap_or(self.max_files - 1)).rev() {
            let moved =
                rustix::fs::renameat(directory, numbered(number - 1), directory, numbered(number));
            match moved {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        bulkhead_failpoint::hit("warden.log-rotated")
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), Errno> {
        let flags =
            OFlags::CREATE | OFlags::APPEND | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        let file = rustix::fs::openat(&self.directory, &self.name, flags, mode)?;
        self.size = rustix::fs::fstat(&file)?.st_size as u64;
        self.file = Some(file);
        Ok(())
    }

    fn ends_torn(&self) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| self.size > 0) else { return false };
        let mut last = [0];
        rustix::io::pread(file, &mut last, self.size - 1) == Ok(1) && last != *b"\n"
    }
}

/// The lines of a text, long ones in pieces, and the rest that has no end yet.
fn cut(mut text: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut lines = Vec::new();
    loop {
        let most = text.len().min(LONGEST);
        let newline = text[..most].iter().position(|byte| *byte == b'\n');
        let end = match newline {
            Some(at) => at + 1,
            None if most == LONGEST => LONGEST,
            None => return (lines, text),
        };
        lines.push(&text[..end]);
        text = &text[end..];
    }
}

/// Writes as much as can be: how much that is, and why not more.
fn write_all(file: &OwnedFd, bytes: &[u8]) -> (usize, Option<Errno>) {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(file, &bytes[written..]) {
            Ok(0) => return (written, Some(Errno::NOSPC)),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(errno) => return (written, Some(errno)),
        }
    }
    (written, None)
}

/// Writes `{"log":"…","stream":"stdout","time":"…"}`, with the escapes of Go's encoding/json, which
/// hides `<`, `>` and `&` too (moby: daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go).
fn encode(line: &[u8], stream: usize, time: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => into.extend_from_slice(b"\\\""),
                '\\' => into.extend_from_slice(b"\\\\"),
                '\n' => into.extend_from_slice(b"\\n"),
                '\r' => into.extend_from_slice(b"\\r"),
                '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(into, "\\u{:04x}", u32::from(letter));
                }
                letter => into.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        // one for each byte, as in Go
        for _ in chunk.invalid() {
            into.extend_from_slice(b"\\ufffd");
        }
    }
    let stream = ["stdout", "stderr"][stream];
    into.extend_from_slice(
        format!("\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n").as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::spool::Spools;
    use super::*;

    fn log(max_size: u64, max_files: u32) -> (tempfile::TempDir, LogFile) {
        let directory = tempfile::tempdir().unwrap();
        let log = open(&directory, max_size, max_files);
        (directory, log)
    }

    fn open(directory: &tempfile::TempDir, max_size: u64, max_files: u32) -> LogFile {
        let fd = OwnedFd::from(fs::File::open(directory.path()).unwrap());
        let spool = Spools::beside(&fd, "warden.sock".as_ref())
            .unwrap()
            .of("07".repeat(32).parse().unwrap());
        let log = LogHandover { name: "c-json.log".to_owned(), max_size, max_files };
        LogFile::open(fd, &log, spool).unwrap()
    }

    fn lines(text: &str) -> Vec<(String, String)> {
        let line = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let time = value["time"].as_str().unwrap();
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
            let text = |key: &str| value[key].as_str().unwrap().to_owned();
            (text("stream"), text("log"))
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn lines_are_cut_at_newlines_and_at_16_kibibytes() {
        let (directory, mut log) = log(0, 1);
        log.take(0, b"one\ntw");
        log.take(1, b"error\n");
        log.take(0, b"o\n\xff<&>\"\\\t\r\n");
        log.take(0, &[b'x'; 20 << 10]);
        log.end();
        let text = fs::read_to_string(directory.path().join("c-json.log")).unwrap();
        assert!(text.contains(r#"{"log":"\ufffd\u003c\u0026\u003e\"\\\u0009\r\n","#), "{text}");
        let stdout = |text: &str| ("stdout".to_owned(), text.to_owned());
        assert_eq!(
            lines(&text),
            [
                stdout("one\n"),
                ("stderr".to_owned(), "error\n".to_owned()),
                stdout("two\n"),
                stdout("\u{fffd}<&>\"\\\t\r\n"),
                stdout(&"x".repeat(16 << 10)),
                stdout(&"x".repeat(4 << 10)),
            ]
        );
    }

    /// What is dropped without a word is what a killed warden had in its memory.
    #[test]
    fn what_waits_is_written_once_by_the_next_warden() {
        let full = |log: &mut LogFile| {
            log.file = Some(OwnedFd::from(fs::File::open("/dev/full").unwrap()));
        };
        let (directory, mut log) = log(0, 1);
        let text = || fs::read_to_string(directory.path().join("c-json.log")).unwrap();
        log.take(0, b"logged\n");
        full(&mut log);
        log.take(0, b"same\nsame\n");
        log.take(1, b"last\npart");
        drop(log);
        assert_eq!(lines(&text()).len(), 1);
        let all = ["logged\n", "same\n", "same\n", "last\n"];
        // Killed after the record that is the oldest was written, and before that was noted; in the
        // middle of it; and before.
        let mut log = open(&directory, 0, 1);
        assert!(!log.is_behind());
        let found: Vec<_> = lines(&text()).into_iter().map(|(_, line)| line).collect();
        assert_eq!(found, all);
        for written in [0, 1, 40, usize::MAX] {
            let before = text();
            full(&mut log);
            log.take(0, b"same\nsame\n");
            let entry = log.backlog.first().unwrap();
            let mut record = Vec::new();
            encode(&entry.text(), entry.stream, &entry.time, &mut record);
            log.reopen().unwrap();
            let stat = rustix::fs::fstat(log.file.as_ref().unwrap()).unwrap();
            log.backlog.writing(Place { inode: stat.st_ino, length: stat.st_size as u64 });
            let most = written.min(record.len());
            write_all(log.file.as_ref().unwrap(), &record[..most]);
            drop(log);
            log = open(&directory, 0, 1);
            let after = text();
            let new = lines(after.strip_prefix(&before).unwrap());
            assert_eq!(new.len(), 2, "{written}: {new:?}");
            assert!(new.iter().all(|(_, line)| line == "same\n"), "{written}: {new:?}");
        }
        // Nothing is there when nothing waits.
        assert_eq!(fs::read_dir(directory.path().join("warden.logs")).unwrap().count(), 0);
    }

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let (directory, mut log) = log(200, 3);
        for number in 0..12 {
            log.take(0, format!("line {number}\n").as_bytes());
        }
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["c-json.log", "c-json.log.1", "c-json.log.2"]);
        let read =
            |name: &str| lines(&fs::read_to_string(directory.path().join(name)).unwrap()).len();
        assert!((1..=3).contains(&read("c-json.log")));
        assert_eq!(read("c-json.log.1"), 3, "each is full by the line that passes the limit");
        // While the engine replaces a file the log grows on.
        let lock = fs::File::open(directory.path()).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        (0..9).for_each(|_| log.take(0, b"more\n"));
        assert!(read("c-json.log") >= 9);
        assert_eq!(read("c-json.log.1"), 3);
        drop(lock);
        log.take(0, b"last\n");
        assert!(read("c-json.log") == 1 && read("c-json.log.1") >= 9);
    }
}
