//! The log of `up --detach`: bounded, since it lies where a reboot empties it, in memory that is.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of one file; there are two, `bulkhead.log` and the one before it, `bulkhead.log.1`.
const LIMIT: u64 = 8 << 20;

/// Opens the log at `path` for appending.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Writes to the log at a path and begins a new one when it is full.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    limit: u64,
    file: Mutex<Open>,
    /// What else writes to the file is told of a new one: a panic goes to standard error.
    adopt: fn(&File),
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl LogFile {
    /// The log that standard error is already.
    pub fn of_process(path: PathBuf) -> io::Result<Self> {
        // Fails only without a descriptor left, and then the old file goes on.
        Self::new(path, LIMIT, |file| {
            let _ = rustix::stdio::dup2_stderr(file);
        })
    }

    fn new(path: PathBuf, limit: u64, adopt: fn(&File)) -> io::Result<Self> {
        let file = open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, limit, file: Mutex::new(Open { file, length }), adopt })
    }
}

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open_file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if open_file.length > 0 && open_file.length + line.len() as u64 > self.limit {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *open_file = Open { file: open(&self.path)?, length: 0 };
            (self.adopt)(&open_file.file);
        }
        open_file.file.write_all(line)?;
        open_file.length += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_bounded_size_hold_the_end_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bulkhead.log");
        for _ in 0..2 {
            // An engine that starts again goes on with the file that is there.
            let log = LogFile::new(path.clone(), 100, |_| {}).unwrap();
            for number in 0..30 {
                (&log).write_all(format!("line {number:02}\n").as_bytes()).unwrap();
            }
        }
        let old = std::fs::read_to_string(path.with_extension("log.1")).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(old.len() <= 100 && new.len() <= 100, "{} {}", old.len(), new.len());
        assert!((old + &new).ends_with("line 27\nline 28\nline 29\n"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
