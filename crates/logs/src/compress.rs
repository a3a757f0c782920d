//! Compresses files of a log that were rotated away, beside whoever writes and reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::FlockOperation;

use crate::record::Record;
use crate::segment::{Block, Index, Segment, encode_index};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressed {
    /// It has so many bytes less.
    Now(u64),
    Before,
    /// There is none.
    Missing,
    /// It was rotated or written to meanwhile: try again.
    Moved,
}

/// The compressed file while it is made, in the log's directory.
const NEW: &str = "compressing";
/// The least bytes of a block, and how many there are at most: an index has 64 KiB.
const BLOCK: u64 = 256 << 10;
const BLOCKS: u64 = 800;

/// Compresses `NAME.NUMBER` of a log in place, by another file of that name: its readers go on with the one that
/// they hold open. Killed at any moment it leaves the one or the other, and a file that the next call or
/// [`clear`] removes.
///
/// The warden holds the lock (flock(2)) on the directory while it renames files, and does not wait for it: it is
/// held here for one rename alone.
///
/// # Errors
/// The disk is full, or a file cannot be read: then the log is as it was.
pub fn compress(directory: &Path, name: &str, number: u32) -> io::Result<Compressed> {
    let path = directory.join(format!("{name}.{number}"));
    let Some(segment) = Segment::open(&path)? else { return Ok(Compressed::Missing) };
    if segment.is_compressed() {
        return Ok(Compressed::Before);
    }
    // Until there is a newer file this one may be written to.
    let newest = directory.join(name);
    if number == 0 || !newest.try_exists()? {
        return Ok(Compressed::Moved);
    }
    let new = directory.join(NEW);
    let made = make(&segment, &new).and_then(|size| {
        bulkhead_failpoint::hit("engine.log-compressed")?;
        let lock = File::open(directory)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Compressed::Moved),
            Err(errno) => return Err(errno.into()),
        }
        let now = Segment::open(&path)?;
        let is_same = now.is_some_and(|now| now.identity() == segment.identity());
        let length = segment.length()?;
        if !is_same || !newest.try_exists()? || length != size.0 {
            return Ok(Compressed::Moved);
        }
        std::fs::rename(&new, &path)?;
        bulkhead_failpoint::hit("engine.log-replaced")?;
        Ok(Compressed::Now(size.0.saturating_sub(size.1)))
    });
    if !matches!(made, Ok(Compressed::Now(_))) {
        clear(directory);
    }
    made
}

/// Removes what a [`compress`] that was killed has left.
pub fn clear(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(NEW));
}

/// Writes the compressed file; its bytes before and after.
fn make(segment: &Segment, new: &PathBuf) -> io::Result<(u64, u64)> {
    match std::fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(new)?;
    let length = segment.length()?;
    let least = BLOCK.max(length / BLOCKS);
    let mut lines = BufReader::with_capacity(64 << 10, segment.file().try_clone()?);
    // The descriptor's position is shared with nobody: it was opened for this.
    let mut out = BufWriter::new(&file);
    let mut index = Index { of: segment.identity(), blocks: Vec::new() };
    let (mut read, mut written) = (0, 0);
    let mut last = i128::MIN;
    loop {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        let (mut size, mut count) = (0, 0);
        let mut line = Vec::new();
        while size < least {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            size += line.len() as u64;
            count += u64::from(line.ends_with(b"\n"));
            if let Some(record) = Record::parse(&line) {
                last = last.max(record.at.as_nanosecond());
            }
            packed.write_all(&line)?;
        }
        if size == 0 {
            break;
        }
        let packed = packed.finish()?;
        out.write_all(&packed)?;
        index.blocks.push(Block(packed.len() as u64, size, count, last));
        read += size;
        written += packed.len() as u64;
    }
    let end = encode_index(&index)?;
    out.write_all(&end)?;
    out.flush()?;
    drop(out);
    // `since` goes by it
    file.set_modified(segment.file().metadata()?.modified()?)?;
    // What it replaces may be on the disk already.
    file.sync_all()?;
    Ok((read, written + end.len() as u64))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Read as _;

    use super::*;

    fn text(from: u32, to: u32) -> String {
        let mut text = String::new();
        for number in from..to {
            writeln!(
                text,
                r#"{{"log":"line {number} {}\n","stream":"stdout","time":"2026-01-01T{:02}:{:02}:{:02}Z"}}"#,
                "x".repeat(number as usize % 90),
                number / 3600,
                number / 60 % 60,
                number % 60
            )
            .unwrap();
        }
        text
    }

    fn whole(segment: &mut Segment) -> Vec<u8> {
        let mut bytes = vec![0; segment.length().unwrap() as usize];
        segment.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_compressed_file_is_what_it_was_and_is_gzip() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.1");
        let written = text(0, 20_000);
        std::fs::write(&path, &written).unwrap();
        let compress = || compress(directory.path(), "log", 1).unwrap();
        assert_eq!(compress(), Compressed::Moved, "somebody may write to it");
        std::fs::write(directory.path().join("log"), "").unwrap();
        let mut plain = Segment::open(&path).unwrap().unwrap();
        let Compressed::Now(saved) = compress() else { panic!("it is there") };
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(saved + size, written.len() as u64);
        assert!(size * 5 < written.len() as u64, "{size} bytes of {}", written.len());
        assert_eq!(compress(), Compressed::Before);
        let mut packed = Segment::open(&path).unwrap().unwrap();
        assert!(packed.is_compressed() && packed.identity() == plain.identity());
        assert_eq!(packed.last_written().unwrap(), plain.last_written().unwrap());
        assert_eq!(whole(&mut packed), written.as_bytes());
        let mut unpacked = String::new();
        let mut gzip = flate2::read::MultiGzDecoder::new(File::open(&path).unwrap());
        gzip.read_to_string(&mut unpacked).unwrap();
        assert!(unpacked == written, "any gzip reads it");
        for second in [0, 1, 7_000, 19_999, 20_000, 30_000] {
            let since = "2026-01-01T00:00:00Z".parse::<bulkhead_types::Timestamp>().unwrap();
            let since = since + std::time::Duration::from_secs(second);
            for segment in [&mut plain, &mut packed] {
                let at = segment.since(since).unwrap() as usize;
                let wanted = written.find(&format!("line {second} ")).unwrap_or(written.len());
                assert!(at <= wanted && (at == 0 || written.as_bytes()[at - 1] == b'\n'));
                assert!(wanted.saturating_sub(at) < 400 << 10, "{second}: {wanted} - {at}");
            }
        }
        for most in [0, 1, 3_000, 19_999, 20_000] {
            let (lines, start) = packed.lines_from_end(most).unwrap();
            let rest = &written[start as usize..];
            assert!(lines <= most && rest.lines().count() == lines, "{most}: {lines}");
            assert!(most - lines < 5_000, "{most}: {lines}");
        }
    }

    #[test]
    fn a_rotation_meanwhile_and_a_held_lock_leave_all_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("log"), "").unwrap();
        std::fs::write(at("log.1"), text(0, 10)).unwrap();
        std::fs::write(at(NEW), "half").unwrap();
        let lock = File::open(directory.path()).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert_eq!(compress(directory.path(), "log", 1).unwrap(), Compressed::Moved);
        assert!(!at(NEW).exists());
        assert_eq!(std::fs::read_to_string(at("log.1")).unwrap(), text(0, 10));
        drop(lock);
        assert!(matches!(compress(directory.path(), "log", 1).unwrap(), Compressed::Now(_)));
        assert_eq!(compress(directory.path(), "log", 2).unwrap(), Compressed::Missing);
    }

    #[test]
    fn what_is_damaged_is_an_error_and_nothing_worse() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.1");
        std::fs::write(directory.path().join("log"), "").unwrap();
        std::fs::write(&path, text(0, 3_000)).unwrap();
        compress(directory.path(), "log", 1).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in (2..whole.len()).step_by(997).chain(whole.len() - 40..whole.len()) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Segment::open(&path).is_err(), "{length} bytes");
        }
    }
}
