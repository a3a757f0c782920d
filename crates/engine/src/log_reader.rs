//! Reads a container's json-file log, rotated files included, and follows it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{LogLine, LogQuery, Stream};

/// A position in the log: the file that is being written, and how far it was read.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    query: LogQuery,
    current: Option<BufReader<File>>,
    /// The part of a record that was read before its writer had finished the line.
    partial: Vec<u8>,
}

impl LogReader {
    pub(crate) fn new(path: PathBuf, query: LogQuery) -> Self {
        Self { path, query, current: None, partial: Vec::new() }
    }

    /// What is in the log already: the last `tail` records that match, oldest first.
    pub(crate) fn backlog(&mut self) -> io::Result<Vec<LogLine>> {
        // Newest first: the file itself, then `.1`, `.2`, ….
        let mut files = Vec::new();
        for number in 0.. {
            let path = match number {
                0 => self.path.clone(),
                _ => numbered(&self.path, number),
            };
            match File::open(&path) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        let mut lines = VecDeque::new();
        let tail = self.query.tail.unwrap_or(usize::MAX);
        for (number, mut file) in files.into_iter().enumerate() {
            if lines.len() >= tail {
                if number == 0 {
                    file.seek(SeekFrom::End(0))?;
                    self.current = Some(BufReader::new(file));
                }
                break;
            }
            // Every record is a line, so the last N records start after the last N newlines; a
            // filter may drop some of them, and then the whole file is read.
            let filtered = !(self.query.stdout && self.query.stderr)
                || self.query.since.is_some()
                || self.query.until.is_some();
            if !filtered && tail != usize::MAX {
                let start = tail_offset(&file, tail - lines.len())?;
                file.seek(SeekFrom::Start(start))?;
            }
            let mut reader = BufReader::new(file);
            let mut partial = Vec::new();
            let mut own = Vec::new();
            while let Some(line) = next_record(&mut reader, &mut partial)? {
                own.extend(self.wanted(line));
            }
            let excess = own.len().saturating_sub(tail - lines.len());
            for line in own.into_iter().skip(excess).rev() {
                lines.push_front(line);
            }
            if number == 0 {
                self.current = Some(reader);
                self.partial = partial;
            }
        }
        Ok(lines.into())
    }

    /// What has come since; goes over to the new file when the old one was rotated away.
    pub(crate) fn more(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        loop {
            if let Some(current) = &mut self.current {
                while let Some(line) = next_record(current, &mut self.partial)? {
                    lines.push(line);
                }
            }
            let on_disk = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let same = match &self.current {
                Some(current) => {
                    let (old, new) = (current.get_ref().metadata()?, on_disk.metadata()?);
                    (old.dev(), old.ino()) == (new.dev(), new.ino())
                }
                None => false,
            };
            if same {
                break;
            }
            // The writer never writes to a file that it has rotated away, but it may have written
            // between our read and its rename: read the old one to its end first.
            if let Some(current) = &mut self.current {
                while let Some(line) = next_record(current, &mut self.partial)? {
                    lines.push(line);
                }
            }
            self.partial.clear();
            self.current = Some(BufReader::new(on_disk));
        }
        Ok(lines.into_iter().filter_map(|line| self.wanted(line)).collect())
    }

    fn wanted(&self, line: LogLine) -> Option<LogLine> {
        let stream = match line.stream {
            Stream::Stdout => self.query.stdout,
            Stream::Stderr => self.query.stderr,
        };
        let since = self.query.since.is_none_or(|since| line.at >= since);
        let until = self.query.until.is_none_or(|until| line.at <= until);
        (stream && since && until).then_some(line)
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    log: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
}

/// The next complete record; a damaged one (the machine lost power) is passed over.
fn next_record(reader: &mut impl BufRead, partial: &mut Vec<u8>) -> io::Result<Option<LogLine>> {
    loop {
        reader.read_until(b'\n', partial)?;
        if partial.last() != Some(&b'\n') {
            return Ok(None);
        }
        let parsed = serde_json::from_slice::<Record<'_>>(partial).ok().and_then(|record| {
            Some(LogLine {
                stream: if record.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
                at: record.time.parse().ok()?,
                text: record.log.as_bytes().to_vec(),
            })
        });
        partial.clear();
        if parsed.is_some() {
            return Ok(parsed);
        }
    }
}

/// Where the last `count` lines of `file` start.
fn tail_offset(file: &File, count: usize) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    if count == 0 {
        return Ok(end);
    }
    let mut newlines = 0;
    let mut chunk = vec![0; 64 * 1024];
    let last = end.saturating_sub(1);
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..usize::try_from(end - start).expect("at most 64 KiB")];
        file.read_exact_at(part, start)?;
        for (offset, byte) in part.iter().enumerate().rev() {
            let position = start + offset as u64;
            if *byte == b'\n' && position != last {
                newlines += 1;
                if newlines == count {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn record(file: &mut File, number: u32) {
        let stream = if number.is_multiple_of(2) { "stdout" } else { "stderr" };
        writeln!(
            file,
            r#"{{"log":"line {number}\n","stream":"{stream}","time":"2026-01-01T00:00:{:02}.5Z"}}"#,
            number % 60
        )
        .unwrap();
    }

    fn numbers(lines: &[LogLine]) -> Vec<u32> {
        lines
            .iter()
            .map(|line| {
                let text = std::str::from_utf8(&line.text).unwrap();
                text.trim().trim_start_matches("line ").parse().unwrap()
            })
            .collect()
    }

    fn all() -> LogQuery {
        LogQuery { stdout: true, stderr: true, ..LogQuery::default() }
    }

    #[test]
    fn rotated_files_tails_and_filters() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        for (name, range) in [(".2", 0..5), (".1", 5..8), ("", 8..12)] {
            let mut file =
                File::create(directory.path().join(format!("x-json.log{name}"))).unwrap();
            range.for_each(|number| record(&mut file, number));
        }
        let read = |query| numbers(&LogReader::new(path.clone(), query).backlog().unwrap());
        assert_eq!(read(all()), (0..12).collect::<Vec<_>>());
        for tail in 0..14 {
            let from = 12_u32.saturating_sub(tail);
            let query = LogQuery { tail: Some(tail as usize), ..all() };
            assert_eq!(read(query), (from..12).collect::<Vec<_>>(), "tail {tail}");
        }
        let query = LogQuery { stdout: false, tail: Some(3), ..all() };
        assert_eq!(read(query), [7, 9, 11]);
        let query = LogQuery {
            since: Some("2026-01-01T00:00:03Z".parse().unwrap()),
            until: Some("2026-01-01T00:00:06Z".parse().unwrap()),
            ..all()
        };
        assert_eq!(read(query), [3, 4, 5]);
    }

    #[test]
    fn following_crosses_a_rotation_and_waits_for_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let mut reader = LogReader::new(path.clone(), all());
        assert!(reader.backlog().unwrap().is_empty(), "no file yet");
        let mut file = File::create(&path).unwrap();
        record(&mut file, 0);
        assert_eq!(numbers(&reader.more().unwrap()), [0]);
        file.write_all(br#"{"log":"line 1\n","str"#).unwrap();
        assert!(reader.more().unwrap().is_empty());
        file.write_all(b"eam\":\"stdout\",\"time\":\"2026-01-01T00:00:01Z\"}\n").unwrap();
        record(&mut file, 2);
        std::fs::rename(&path, directory.path().join("x-json.log.1")).unwrap();
        let mut file = File::create(&path).unwrap();
        record(&mut file, 3);
        assert_eq!(numbers(&reader.more().unwrap()), [1, 2, 3]);
        assert!(reader.more().unwrap().is_empty());
    }
}
