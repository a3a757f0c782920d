//! Docker's json-file log: one object for each line, rotated by size.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

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
}

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
    /// Opens `name` in `directory` for appending.
    pub fn open(
        directory: OwnedFd,
        name: &str,
        max_size: u64,
        max_files: u32,
    ) -> Result<Self, Errno> {
        if name.is_empty() || name.contains('/') {
            return Err(Errno::INVAL);
        }
        let mut log = Self {
            directory,
            name: name.to_owned(),
            file: None,
            size: 0,
            max_size,
            max_files,
            partial: Default::default(),
        };
        log.reopen()?;
        Ok(log)
    }

    /// What is on disk now.
    pub fn snapshot(&self) -> Result<LogSnapshot, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |name: &str| rustix::fs::openat(&self.directory, name, flags, Mode::empty());
        let newest = open(&self.name)?;
        let size = rustix::fs::fstat(&newest)?.st_size as u64;
        let mut files = vec![newest];
        for number in 1..MAX_SNAPSHOT {
            match open(&format!("{}.{number}", self.name)) {
                Ok(file) => files.push(file),
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error),
            }
        }
        files.reverse();
        Ok(LogSnapshot { files, size })
    }

    /// The beginning of a line that is not logged yet.
    pub fn unfinished(&self, stream: usize) -> &[u8] {
        &self.partial[stream]
    }

    /// What another warden needs of this, and the directory.
    pub fn handover(&self) -> Result<(LogHandover, OwnedFd), Errno> {
        let (name, max_size, max_files) = (self.name.clone(), self.max_size, self.max_files);
        let directory = rustix::io::fcntl_dupfd_cloexec(&self.directory, 3)?;
        Ok((LogHandover { name, max_size, max_files }, directory))
    }

    /// Logs what was read from a stream: 0 standard output, 1 standard error.
    pub fn take(&mut self, stream: usize, bytes: &[u8]) {
        let time = jiff::Timestamp::now().to_string();
        let mut lines = Vec::with_capacity(bytes.len() + 128);
        let mut partial = std::mem::take(&mut self.partial[stream]);
        let mut rest = bytes;
        while !rest.is_empty() {
            let newline = rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let room = LONGEST - partial.len();
            let piece = newline.unwrap_or(rest.len()).min(room);
            partial.extend_from_slice(&rest[..piece]);
            rest = &rest[piece..];
            if partial.ends_with(b"\n") || partial.len() == LONGEST {
                encode(&partial, stream, &time, &mut lines);
                partial.clear();
            }
        }
        self.partial[stream] = partial;
        self.write(&lines);
    }

    /// Logs lines that never got their end.
    pub fn end(&mut self) {
        let time = jiff::Timestamp::now().to_string();
        let mut lines = Vec::new();
        for stream in 0..2 {
            if !self.partial[stream].is_empty() {
                encode(&std::mem::take(&mut self.partial[stream]), stream, &time, &mut lines);
            }
        }
        self.write(&lines);
    }

    /// A log that cannot be written (a full disk) loses lines; the container goes on.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.max_size != 0 && self.size >= self.max_size {
                // when it fails, the old file grows on
                let _ = self.rotate();
            }
            // up to the end of the line with which the file is full
            let room = match self.max_size {
                0 => bytes.len(),
                most => (most.saturating_sub(self.size)).clamp(1, bytes.len() as u64) as usize,
            };
            let end = bytes[room - 1..].iter().position(|byte| *byte == b'\n');
            let (mut now, later) = bytes.split_at(end.map_or(bytes.len(), |at| room + at));
            bytes = later;
            let Some(file) = &self.file else { return };
            self.size += now.len() as u64;
            while !now.is_empty() {
                match rustix::io::write(file, now) {
                    Ok(count) => now = &now[count..],
                    Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// `name.1` becomes `name.2`, `name` becomes `name.1`; the oldest is overwritten.
    fn rotate(&mut self) -> Result<(), Errno> {
        let directory = &self.directory;
        if self.max_files < 2 {
            rustix::fs::unlinkat(directory, &self.name, AtFlags::empty())?;
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
        let last = (1..self.max_files).find(|number| !exists(*number));
        for number in (1..=last.unwrap_or(self.max_files - 1)).rev() {
            let moved =
                rustix::fs::renameat(directory, numbered(number - 1), directory, numbered(number));
            match moved {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), Errno> {
        let flags =
            OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        let file = rustix::fs::openat(&self.directory, &self.name, flags, mode)?;
        self.size = rustix::fs::fstat(&file)?.st_size as u64;
        self.file = Some(file);
        Ok(())
    }
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

    use super::*;

    fn log(max_size: u64, max_files: u32) -> (tempfile::TempDir, LogFile) {
        let directory = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(fs::File::open(directory.path()).unwrap());
        let log = LogFile::open(fd, "c-json.log", max_size, max_files).unwrap();
        (directory, log)
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
    }
}
