//! Reads a container's json-file log, rotated and compressed files included, and follows it, a piece at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bulkhead_logs::Segment;
use bulkhead_types::Timestamp;
use jiff::SignedDuration;
use serde::Deserialize;

use crate::{LogLine, LogQuery, Stream};

/// A position in the log.
///
/// What lies between the position and the end is held open, so a rotation takes nothing of it away:
/// as much as the log may have files, however slow the reader is.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    query: LogQuery,
    /// What is still to be read, oldest first; the last is written to, unless it was rotated since.
    files: VecDeque<BufReader<Cursor>>,
    /// The first of `files` was read to its end after it was known to have been rotated.
    first_is_final: bool,
    /// The part of a record that was read before its writer had finished the line.
    partial: Vec<u8>,
}

impl LogReader {
    /// Opens the log where what `query` wants begins.
    pub(crate) fn open(path: PathBuf, query: LogQuery) -> io::Result<Self> {
        let mut files = list(&path)?;
        if let Some(since) = query.since {
            while files.len() > 1 && since.duration_since(files[0].last_written()?) > TICK {
                files.pop_front();
            }
        }
        let mut start = Position { file: 0, offset: 0 };
        if let Some(count) = query.tail {
            start = tail(&query, &mut files, count)?;
        } else if let (Some(since), Some(first)) = (query.since, files.front_mut()) {
            start.offset = first.since(since)?;
        }
        files.drain(..start.file);
        let mut offset = start.offset;
        let cursor = |segment| Cursor { segment, offset: std::mem::take(&mut offset) };
        let files = files.into_iter().map(cursor).map(BufReader::new).collect();
        Ok(Self { path, query, files, first_is_final: false, partial: Vec::new() })
    }

    /// The next records, some `size` bytes of them; none when all that is there was read.
    pub(crate) fn more(&mut self, size: usize) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        let mut read = 0;
        while read < size {
            let Some(line) = self.next()? else { break };
            read += line.text.len() + RECORD;
            lines.push(line);
        }
        Ok(lines)
    }

    fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if let Some(first) = self.files.front_mut() {
                while let Some(line) = next_record(first, &mut self.partial)? {
                    if self.query.wants(&line) {
                        return Ok(Some(line));
                    }
                }
            }
            if self.files.len() > 1 {
                // The writer never writes to a file that it has rotated away, but it may have
                // written between our read and its rename: read it to its end once more.
                if self.first_is_final {
                    self.files.pop_front();
                    self.partial.clear();
                }
                self.first_is_final = !self.first_is_final;
                continue;
            }
            let (newer, gap) = self.newer()?;
            if newer.is_empty() {
                return Ok(None);
            }
            self.first_is_final = false;
            self.files.extend(newer.into_iter().map(Cursor::new).map(BufReader::new));
            if gap {
                return Ok(Some(self.query.gap()));
            }
        }
    }

    /// The files that were begun after the one that is read, and whether others may have come
    /// between and gone.
    fn newer(&self) -> io::Result<(VecDeque<Segment>, bool)> {
        let mut files = list(&self.path)?;
        let Some(own) = self.files.front() else { return Ok((files, false)) };
        let own = own.get_ref().segment.identity();
        for index in (0..files.len()).rev() {
            if files[index].identity() == own {
                files.drain(..=index);
                return Ok((files, false));
            }
        }
        let gap = !files.is_empty();
        Ok((files, gap))
    }
}

/// Where the last `count` records that are wanted start, looked for from the end.
fn tail(query: &LogQuery, files: &mut VecDeque<Segment>, count: usize) -> io::Result<Position> {
    // Every record is a line: nothing has to be understood of them unless some are unwanted.
    let filtered =
        !(query.stdout && query.stderr) || query.since.is_some() || query.until.is_some();
    let mut found = 0;
    for (index, file) in files.iter_mut().enumerate().rev() {
        let mut end = file.length()?;
        if !filtered {
            let (lines, start) = file.lines_from_end(count - found)?;
            (found, end) = (found + lines, start);
        }
        let mut lines = LinesFromEnd::before(file, end);
        let mut offset = lines.end()?;
        while found < count {
            let Some((start, line)) = lines.previous()? else { break };
            match filtered.then(|| parse(line)) {
                None => found += 1,
                // damaged
                Some(None) => {}
                Some(Some(line)) if query.wants(&line) => found += 1,
                Some(Some(line)) if query.is_before(&line) => {
                    return Ok(Position { file: index, offset });
                }
                Some(Some(_)) => {}
            }
            offset = start;
        }
        if found == count {
            return Ok(Position { file: index, offset });
        }
    }
    Ok(Position { file: 0, offset: 0 })
}

/// A place in a file of the log.
#[derive(Debug)]
struct Cursor {
    segment: Segment,
    offset: u64,
}

impl Cursor {
    fn new(segment: Segment) -> Self {
        Self { segment, offset: 0 }
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.segment.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The records that a log had at a moment.
#[derive(Debug)]
pub(crate) struct PastRecords {
    query: LogQuery,
    /// Oldest first.
    files: VecDeque<io::Take<BufReader<Cursor>>>,
    partial: Vec<u8>,
}

impl PastRecords {
    /// Of these files, oldest first, and of the last one only so many bytes.
    pub(crate) fn of_files(files: Vec<File>, size: u64, query: LogQuery) -> io::Result<Self> {
        let files: io::Result<VecDeque<_>> = files.into_iter().map(Segment::new).collect();
        Ok(Self::of_segments(files?, size, query))
    }

    fn of_segments(files: VecDeque<Segment>, size: u64, query: LogQuery) -> Self {
        let last = files.len().saturating_sub(1);
        let limited = |(index, file)| {
            BufReader::new(Cursor::new(file)).take(if index == last { size } else { u64::MAX })
        };
        let files = files.into_iter().enumerate().map(limited).collect();
        Self { query, files, partial: Vec::new() }
    }

    /// Of a log that nobody writes to.
    pub(crate) fn open(path: &Path, query: LogQuery) -> io::Result<Self> {
        Ok(Self::of_segments(list(path)?, u64::MAX, query))
    }

    /// As [`LogReader::more`].
    pub(crate) fn more(&mut self, size: usize) -> io::Result<Vec<LogLine>> {
        let (mut lines, mut read) = (Vec::new(), 0);
        while read < size {
            let Some(first) = self.files.front_mut() else { break };
            match next_record(first, &mut self.partial)? {
                None => {
                    self.files.pop_front();
                    self.partial.clear();
                }
                Some(line) if self.query.wants(&line) => {
                    read += line.text.len() + RECORD;
                    lines.push(line);
                }
                Some(_) => {}
            }
        }
        Ok(lines)
    }
}

/// Bytes that are read of a log at once, and so what a reader costs.
pub(crate) const BATCH: usize = 64 << 10;

/// A file's times go by a clock that stands still between two ticks of the kernel, 10 ms at most.
const TICK: SignedDuration = SignedDuration::from_millis(100);

/// A record's own bytes beside its text, roughly.
const RECORD: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Position {
    file: usize,
    offset: u64,
}

impl LogQuery {
    fn wants(&self, line: &LogLine) -> bool {
        let stream = match line.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        stream && !self.is_before(line) && self.until.is_none_or(|until| line.at <= until)
    }

    fn is_before(&self, line: &LogLine) -> bool {
        self.since.is_some_and(|since| line.at < since)
    }

    /// Stands where records are missing, on a stream that is wanted.
    fn gap(&self) -> LogLine {
        LogLine {
            stream: if self.stderr { Stream::Stderr } else { Stream::Stdout },
            at: Timestamp::now(),
            text: GAP.as_bytes().to_vec(),
        }
    }
}

pub(crate) const GAP: &str =
    "[lines may be missing here: the log was rotated faster than it was read]\n";

/// The log's files, oldest first, held open: `NAME.2`, `NAME.1`, `NAME`.
fn list(path: &Path) -> io::Result<VecDeque<Segment>> {
    let mut files = VecDeque::new();
    // A rotation meanwhile moves each file to the next number, and may show one twice or a newer
    // one after an older. Rotations are far rarer than looks, so another look sees none.
    for _ in 0..100 {
        files = list_once(path)?;
        let newest = files.back().map(Segment::identity);
        let now = Segment::open(path)?.as_ref().map(Segment::identity);
        if newest == now {
            break;
        }
    }
    Ok(files)
}

fn list_once(path: &Path) -> io::Result<VecDeque<Segment>> {
    let mut files: VecDeque<Segment> = VecDeque::new();
    let mut missing = 0;
    for number in 0.. {
        let name = match number {
            0 => path.to_owned(),
            _ => numbered(path, number),
        };
        // While files are being renamed, one number is free.
        match Segment::open(&name)? {
            Some(file) => {
                let same = files.front().map(Segment::identity) == Some(file.identity());
                if !same {
                    files.push_front(file);
                }
                missing = 0;
            }
            None if missing == 1 => break,
            None => missing += 1,
        }
    }
    Ok(files)
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

/// `None` for what is no record.
fn parse(line: &[u8]) -> Option<LogLine> {
    let record = serde_json::from_slice::<Record<'_>>(line).ok()?;
    Some(LogLine {
        stream: if record.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
        at: record.time.parse().ok()?,
        text: record.log.as_bytes().to_vec(),
    })
}

/// The next complete record; a damaged one (the machine lost power) is passed over.
fn next_record(reader: &mut impl BufRead, partial: &mut Vec<u8>) -> io::Result<Option<LogLine>> {
    loop {
        reader.read_until(b'\n', partial)?;
        if partial.last() != Some(&b'\n') {
            return Ok(None);
        }
        let parsed = parse(partial);
        partial.clear();
        if parsed.is_some() {
            return Ok(parsed);
        }
    }
}

/// The complete lines of a file, the last one first.
struct LinesFromEnd<'a> {
    file: &'a mut Segment,
    /// What was read and not given out: the bytes from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// The line that was given out last.
    given: Vec<u8>,
}

impl<'a> LinesFromEnd<'a> {
    /// Those that end at an offset or before.
    fn before(file: &'a mut Segment, start: u64) -> Self {
        Self { file, buffer: Vec::new(), start, given: Vec::new() }
    }

    /// Where the last complete line ends; what is behind is still being written.
    fn end(&mut self) -> io::Result<u64> {
        loop {
            if let Some(newline) = self.buffer.iter().rposition(|byte| *byte == b'\n') {
                self.buffer.truncate(newline + 1);
                return Ok(self.start + newline as u64 + 1);
            }
            if !self.fill()? {
                self.buffer.clear();
                return Ok(0);
            }
        }
    }

    /// Where the line before those that were given out starts, and its bytes; after
    /// [`Self::end`].
    fn previous(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        // Where the search for the newline before goes on: not at this line's own.
        loop {
            let Some(own) = self.buffer.len().checked_sub(1) else {
                if self.fill()? {
                    continue;
                }
                return Ok(None);
            };
            if let Some(newline) = self.buffer[..own].iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(self.give(newline + 1)));
            }
            if !self.fill()? {
                return Ok(Some(self.give(0)));
            }
        }
    }

    fn give(&mut self, at: usize) -> (u64, &[u8]) {
        let start = self.start + at as u64;
        self.given = self.buffer.split_off(at);
        (start, &self.given)
    }

    /// Reads what is before the buffer; false at the file's start.
    fn fill(&mut self) -> io::Result<bool> {
        const CHUNK: u64 = 64 << 10;
        let start = self.start.saturating_sub(CHUNK);
        if start == self.start {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::try_from(self.start - start).expect("at most 64 KiB")];
        self.file.read_exact_at(&mut bytes, start)?;
        bytes.extend_from_slice(&self.buffer);
        (self.buffer, self.start) = (bytes, start);
        Ok(true)
    }
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

    /// In small pieces, as a slow reader does.
    fn read_all(reader: &mut LogReader) -> Vec<LogLine> {
        let mut lines = Vec::new();
        loop {
            let more = reader.more(1).unwrap();
            if more.is_empty() {
                return lines;
            }
            lines.extend(more);
        }
    }

    fn rotate(path: &Path, files: u32) {
        for number in (1..files).rev() {
            let from = if number == 1 { path.to_owned() } else { numbered(path, number - 1) };
            let _ = std::fs::rename(from, numbered(path, number));
        }
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
        let read = |query| numbers(&read_all(&mut LogReader::open(path.clone(), query).unwrap()));
        for compressed in [None, Some(2), Some(1)] {
            if let Some(number) = compressed {
                compress(&path, number);
            }
            let past = PastRecords::open(&path, all()).unwrap().more(usize::MAX).unwrap();
            assert_eq!(numbers(&past), (0..12).collect::<Vec<_>>());
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
    }

    fn compress(path: &Path, number: u32) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let done = bulkhead_logs::compress(path.parent().unwrap(), name, number).unwrap();
        assert!(matches!(done, bulkhead_logs::Compressed::Now(_)), "{done:?}");
    }

    #[test]
    fn following_crosses_a_rotation_and_waits_for_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let mut reader = LogReader::open(path.clone(), all()).unwrap();
        assert!(read_all(&mut reader).is_empty(), "no file yet");
        let mut file = File::create(&path).unwrap();
        record(&mut file, 0);
        assert_eq!(numbers(&read_all(&mut reader)), [0]);
        file.write_all(br#"{"log":"line 1\n","str"#).unwrap();
        assert!(read_all(&mut reader).is_empty());
        file.write_all(b"eam\":\"stdout\",\"time\":\"2026-01-01T00:00:01Z\"}\n").unwrap();
        record(&mut file, 2);
        std::fs::rename(&path, directory.path().join("x-json.log.1")).unwrap();
        let mut file = File::create(&path).unwrap();
        record(&mut file, 3);
        assert_eq!(numbers(&read_all(&mut reader)), [1, 2, 3]);
        assert!(read_all(&mut reader).is_empty());
    }

    #[test]
    fn a_slow_reader_misses_nothing_that_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let mut file = File::create(&path).unwrap();
        (0..3).for_each(|number| record(&mut file, number));
        let mut reader = LogReader::open(path.clone(), all()).unwrap();
        assert_eq!(numbers(&reader.more(1).unwrap()), [0]);
        // The file that it reads is the oldest now, the next is complete, one more is begun.
        for first in [3, 6] {
            rotate(&path, 3);
            let mut file = File::create(&path).unwrap();
            (first..first + 3).for_each(|number| record(&mut file, number));
        }
        // Those that it does not hold open are compressed meanwhile.
        compress(&path, 1);
        compress(&path, 2);
        assert_eq!(numbers(&read_all(&mut reader)), (1..9).collect::<Vec<_>>());
        // Faster than it reads: what is gone is marked once, and what is there is read.
        for first in [9, 12, 15, 18, 21] {
            rotate(&path, 3);
            let mut file = File::create(&path).unwrap();
            (first..first + 3).for_each(|number| record(&mut file, number));
        }
        let mut lines = read_all(&mut reader);
        let gap = lines.remove(0);
        assert_eq!((&*gap.text, gap.stream), (GAP.as_bytes(), Stream::Stderr));
        assert_eq!(numbers(&lines), (15..24).collect::<Vec<_>>());
    }

    #[test]
    fn a_tail_of_long_lines_is_found_from_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let mut file = File::create(&path).unwrap();
        for number in 0..10_000 {
            let padding = " ".repeat(number as usize * 37 % 400);
            writeln!(
                file,
                r#"{{"log":"line {number}\n",{padding}"stream":"stdout","time":"2026-01-01T00:00:00Z"}}"#,
            )
            .unwrap();
        }
        std::fs::rename(&path, numbered(&path, 1)).unwrap();
        File::create(&path).unwrap();
        for tail in [0, 1, 2, 99, 5_000, 9_999, 10_000, 10_001, 1, 4_000, 8_000, 10_000] {
            if tail == 10_001 {
                compress(&path, 1);
            }
            let query = LogQuery { tail: Some(tail), ..all() };
            let mut reader = LogReader::open(path.clone(), query).unwrap();
            let from = 10_000_u32.saturating_sub(tail as u32);
            assert_eq!(numbers(&read_all(&mut reader)), (from..10_000).collect::<Vec<_>>());
            // one stream only: every line is looked at
            let query = LogQuery { tail: Some(tail), stderr: false, ..all() };
            let mut reader = LogReader::open(path.clone(), query).unwrap();
            assert_eq!(numbers(&read_all(&mut reader)), (from..10_000).collect::<Vec<_>>());
        }
    }
}
