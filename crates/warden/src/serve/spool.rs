//! Where what a full disk has kept out of a log survives the warden that holds it.
//!
//! One file for each such log, beside the warden's socket: that is in `/run`, a file system in memory,
//! and not the one that is full. It is there only while something waits. Another warden reads it when
//! it takes the container over, or when the engine hands it the log of one that has ended.
//!
//! A file is the steps that lead to what waits now, each behind its length; what a killed writer has
//! left of a step at the end counts as nothing.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use bulkhead_types::Id;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The directory of all of them; made with the first.
#[derive(Debug, Clone)]
pub(super) struct Spools {
    /// Where the socket lies.
    run: Rc<OwnedFd>,
    name: String,
}

/// That of one log.
#[derive(Debug)]
pub(super) struct Spool {
    all: Spools,
    name: String,
    file: Option<OwnedFd>,
    size: u64,
}

/// What happened to the backlog of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// A line waits.
    Line { stream: u8, time: String, text: Vec<u8> },
    /// So many bytes were let go.
    Missing { stream: u8, time: String, bytes: u64 },
    /// The oldest entry is being written, to this file and from this length on.
    Writing(Place),
    /// It is in the log.
    Written,
}

/// An end of a log's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub inode: u64,
    pub length: u64,
}

/// When a file is written anew, with what waits alone: several times what can wait.
const LARGEST: u64 = 512 << 10;
/// Behind the name of a file that is being made.
const UNFINISHED: &str = ".new";

impl Spools {
    /// `socket` is the socket's name in `run`.
    pub fn beside(run: &OwnedFd, socket: &std::ffi::OsStr) -> Result<Self, Errno> {
        let run = Rc::new(rustix::io::fcntl_dupfd_cloexec(run, 3)?);
        let socket = socket.to_string_lossy();
        let stem = socket.rsplit_once('.').map_or(&*socket, |(stem, _)| stem);
        Ok(Self { run, name: format!("{stem}.logs") })
    }

    pub fn of(&self, id: Id) -> Spool {
        Spool { all: self.clone(), name: id.to_string(), file: None, size: 0 }
    }

    /// Of which containers there are any. Removes what a warden that was killed has left half made.
    pub fn ids(&self) -> Result<Vec<Id>, Errno> {
        let directory = match self.open() {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        };
        let mut ids = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            ids.extend(name.parse::<Id>().ok());
            if name.ends_with(UNFINISHED) {
                let _ = rustix::fs::unlinkat(&directory, entry.file_name(), AtFlags::empty());
            }
        }
        Ok(ids)
    }

    /// For a warden that ends and leaves nothing.
    pub fn remove(&self) {
        let _ = rustix::fs::unlinkat(&self.run, &self.name, AtFlags::REMOVEDIR);
    }

    fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&*self.run, &self.name, flags, Mode::empty())
    }

    fn make(&self) -> Result<OwnedFd, Errno> {
        match rustix::fs::mkdirat(&*self.run, &self.name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.open(),
            Err(errno) => Err(errno),
        }
    }
}

impl Spool {
    /// What another warden has left; this one goes on behind it.
    pub fn read(&mut self) -> Result<Vec<Step>, Errno> {
        let open = || {
            let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(self.all.open()?, &self.name, flags, Mode::empty())
        };
        let file = match open() {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        };
        let mut bytes = vec![0; rustix::fs::fstat(&file)?.st_size as usize];
        let mut read = 0;
        while read < bytes.len() {
            match rustix::io::pread(&file, &mut bytes[read..], read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let (steps, whole) = decode(&bytes[..read]);
        rustix::fs::ftruncate(&file, whole as u64)?;
        (self.file, self.size) = (Some(file), whole as u64);
        Ok(steps)
    }

    /// Adds steps; `all` are those that lead to what waits now in the shortest way, for a file that
    /// has become too long.
    pub fn write(&mut self, steps: &[Step], all: impl FnOnce() -> Vec<Step>) -> Result<(), Errno> {
        let bytes = encode(steps);
        let is_long = self.size + bytes.len() as u64 > LARGEST;
        if is_long || self.file.is_none() {
            let bytes = if is_long { encode(&all()) } else { bytes };
            let directory = self.all.make()?;
            let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::APPEND;
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let new = format!("{}{UNFINISHED}", self.name);
            let file = rustix::fs::openat(&directory, &new, flags, Mode::RUSR | Mode::WUSR)?;
            write_whole(&file, &bytes)?;
            rustix::fs::renameat(&directory, &new, &directory, &self.name)?;
            (self.file, self.size) = (Some(file), bytes.len() as u64);
            return Ok(());
        }
        if let Some(file) = &self.file {
            write_whole(file, &bytes)?;
            self.size += bytes.len() as u64;
        }
        Ok(())
    }

    /// Nothing waits any more.
    pub fn remove(&mut self) {
        if self.file.take().is_some()
            && let Ok(directory) = self.all.open()
        {
            let _ = rustix::fs::unlinkat(&directory, &self.name, AtFlags::empty());
        }
    }
}

fn write_whole(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn encode(steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in steps {
        let step = postcard::to_extend(step, Vec::new()).expect("bytes and numbers can be encoded");
        bytes.extend_from_slice(&(step.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&step);
    }
    bytes
}

/// The steps, and how many bytes whole ones take.
fn decode(bytes: &[u8]) -> (Vec<Step>, usize) {
    let (mut steps, mut at) = (Vec::new(), 0);
    while let Some((length, rest)) = bytes[at..].split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let step = rest.get(..length).and_then(|step| postcard::from_bytes(step).ok());
        let Some(step) = step else { break };
        steps.push(step);
        at += 4 + length;
    }
    (steps, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_not_written_to_its_end_counts_as_nothing() {
        let line = |text: &str| Step::Line { stream: 1, time: "t".into(), text: text.into() };
        let steps = [line("one\n"), Step::Writing(Place { inode: 7, length: 300 }), Step::Written];
        let bytes = encode(&steps);
        assert_eq!(decode(&bytes), (steps.to_vec(), bytes.len()));
        let first = encode(&steps[..1]).len();
        for cut in first..encode(&steps[..2]).len() {
            assert_eq!(decode(&bytes[..cut]), (steps[..1].to_vec(), first));
        }
    }

    #[test]
    fn a_file_that_has_become_long_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let run = OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
        let spools = Spools::beside(&run, "warden.sock".as_ref()).unwrap();
        assert_eq!(spools.ids().unwrap(), []);
        let id = Id::random();
        let (mut spool, rest) = (spools.of(id), vec![Step::Written]);
        let step = Step::Line { stream: 0, time: String::new(), text: vec![b'x'; 16 << 10] };
        for _ in 0..LARGEST / (16 << 10) + 1 {
            spool.write(std::slice::from_ref(&step), || rest.clone()).unwrap();
        }
        assert_eq!(spools.ids().unwrap(), [id]);
        let path = directory.path().join("warden.logs");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
        let found = spools.of(id).read().unwrap();
        assert!(found[0] == Step::Written && found.len() < 4, "{}", found.len());
        spool.remove();
        spools.remove();
        assert!(!path.exists());
    }
}
