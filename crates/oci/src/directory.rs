//! The directory of a container below `--root`.

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bulkhead_types::oci::{Config, Status};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::control_group::Place;
use crate::error::{Error, Result};
use crate::record::{Identity, Record};

/// An open container directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    root: PathBuf,
    id: String,
    /// Whether the lock is ours.
    held: Cell<bool>,
}

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
const START: &str = "start";

/// Refuses what is no id: it names a directory (runc: libcontainer, `validateID`).
pub fn check_id(id: &str) -> Result<()> {
    if bulkhead_sys::weak::without("ids") {
        return Ok(());
    }
    let good = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
    if id.is_empty() {
        return Err(Error::Usage("container id cannot be empty".to_owned()));
    }
    if !id.chars().all(good) || id.starts_with('.') || id.len() > 255 {
        let text = format!(
            "invalid container ID format: {id:?} is too long or has an invalid character: a \
             container ID is up to 255 letters, digits and _+-. and does not begin with a dot"
        );
        return Err(Error::Usage(text));
    }
    Ok(())
}

impl Directory {
    /// Makes the directory of a new container and locks it until this value is dropped.
    pub fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let make = || mkdirat(CWD, root.join(id), Mode::from_raw_mode(0o711));
        let made = match make() {
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(root)
                    .map_err(Error::system(format!("make {}", root.display())))?;
                make()
            }
            other => other,
        };
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists),
            Err(errno) => {
                let hint = match errno {
                    Errno::ACCESS | Errno::PERM => " (--root DIR names another place)",
                    _ => "",
                };
                let what = format!("make {}{hint}", root.join(id).display());
                return Err(Error::system(what)(errno));
            }
        }
        let directory = Self::open_unlocked(root, id)?;
        directory.lock()?;
        Ok(directory)
    }

    /// Opens the directory of a container that is there.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        Self::open_unlocked(root, id)
    }

    fn open_unlocked(root: &Path, id: &str) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, root.join(id), flags, Mode::empty()) {
            Ok(fd) => {
                let (root, id) = (root.to_owned(), id.to_owned());
                Ok(Self { fd, root, id, held: Cell::new(false) })
            }
            Err(Errno::NOENT) => Err(Error::NoContainer),
            Err(errno) => Err(Error::system(format!("open {}", root.join(id).display()))(errno)),
        }
    }

    /// Lists the ids of all containers.
    pub fn ids(root: &Path) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::system(format!("read {}", root.display()))(error)),
        };
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Waits until no other command changes this container.
    pub fn lock(&self) -> Result<()> {
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => {
                    self.held.set(other.is_ok());
                    return other.map_err(Error::system(format!("lock container {}", self.id)));
                }
            }
        }
    }

    /// Lets others change this container.
    pub fn unlock(&self) {
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
        self.held.set(false);
    }

    /// Whether another command is changing this container now.
    fn is_locked(&self) -> bool {
        // to ask for it once more would be to let it go
        if self.held.get() {
            return false;
        }
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// The record; `None` if the command that made the directory was killed before it wrote one.
    pub fn record(&self) -> Result<Option<Record>> {
        let Some(text) = self.read(RECORD)? else { return Ok(None) };
        let what = format!("read {RECORD} of container {}", self.id);
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::System { what, cause: error.into() })
    }

    /// Replaces the record as a whole.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::Refused(error.to_string()))?;
        self.write(RECORD, &text)
    }

    pub fn write_config(&self, text: &[u8]) -> Result<()> {
        self.write(CONFIG, text)
    }

    /// The `config.json` that the container was made from, whatever became of the bundle's.
    pub fn config(&self) -> Result<Config> {
        let text = self.read(CONFIG)?.unwrap_or_else(|| b"{}".to_vec());
        serde_json::from_slice(&text).map_err(|error| Error::Config(error.to_string()))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let what = || format!("read {name} of container {}", self.id);
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::system(what())(errno)),
        };
        let mut text = Vec::new();
        File::from(file).read_to_end(&mut text).map_err(Error::system(what()))?;
        Ok(Some(text))
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let partial = format!("{name}.partial");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let written = openat(&self.fd, partial.as_str(), flags, Mode::from_raw_mode(0o600))
            .map_err(std::io::Error::from)
            .and_then(|file| File::from(file).write_all(text))
            .and_then(|()| {
                rustix::fs::renameat(&self.fd, partial.as_str(), &self.fd, name)
                    .map_err(std::io::Error::from)
            });
        written.map_err(Error::system(format!("write {name} of container {}", self.id)))
    }

    /// Makes the socket on which the created container waits for `start`.
    pub fn listen(&self) -> Result<OwnedFd> {
        let listener = || -> std::result::Result<OwnedFd, Errno> {
            let flags = SocketFlags::CLOEXEC;
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            rustix::net::bind(&socket, &self.address()?)?;
            rustix::net::listen(&socket, 1)?;
            Ok(socket)
        };
        listener().map_err(Error::system(format!("make the start socket of container {}", self.id)))
    }

    /// Calls the container that waits there; from then on nobody else can.
    ///
    /// # Errors
    /// `None` if nobody waits.
    pub fn call(&self) -> Result<Option<OwnedFd>> {
        let call = || -> std::result::Result<OwnedFd, Errno> {
            let flags = SocketFlags::CLOEXEC;
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            rustix::net::connect(&socket, &self.address()?)?;
            unlinkat(&self.fd, START, AtFlags::empty())?;
            Ok(socket)
        };
        match call() {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(errno) => Err(Error::system(format!("call container {}", self.id))(errno)),
        }
    }

    /// By way of the descriptor: an address holds 107 bytes, and roots of containerd are longer.
    fn address(&self) -> std::result::Result<SocketAddrUnix, Errno> {
        use std::os::fd::AsRawFd;
        SocketAddrUnix::new(format!("/proc/self/fd/{}/{START}", self.fd.as_raw_fd()))
    }

    fn waits_for_start(&self) -> bool {
        rustix::fs::statat(&self.fd, START, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The record, as [`Self::record`] has it, and what the container is doing.
    pub fn look(&self) -> Result<(Option<Record>, Status)> {
        let mut record = self.record()?;
        loop {
            if let Some(Record { process: Some(process), cgroup, .. }) = &record {
                let status = self.status(*process, cgroup)?;
                return Ok((record, status));
            }
            if self.is_locked() {
                return Ok((record, Status::Creating));
            }
            // who has let the lock go may have written more since that was read
            let again = self.record()?;
            if again == record {
                return Ok((record, Status::Stopped));
            }
            record = again;
        }
    }

    fn status(&self, process: Identity, cgroup: &Place) -> Result<Status> {
        if process.open().is_none() {
            return Ok(Status::Stopped);
        }
        if self.waits_for_start() {
            return Ok(Status::Created);
        }
        let frozen = match cgroup.open()? {
            Some(cgroup) if cgroup.exists() => cgroup.is_frozen().unwrap_or(false),
            _ => false,
        };
        Ok(if frozen { Status::Paused } else { Status::Running })
    }

    /// Removes the directory; what is in it goes first.
    pub fn remove(&self) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let removed = openat(CWD, &self.root, flags, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|root| bulkhead_sys::path::remove_tree(root.as_fd(), self.id.as_ref()));
        removed.map_err(Error::system(format!("remove {}", self.root.join(&self.id).display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_directory() {
        for id in ["a", "a.b-c_d+e", "0", &"a".repeat(255)] {
            check_id(id).unwrap();
        }
        for id in
            ["", ".", "..", "..a", ".a", "a/b", "../x", "a b", "a\0", "ä", "a\n", &"a".repeat(256)]
        {
            check_id(id).unwrap_err();
        }
    }

    #[test]
    fn one_who_was_killed_early_leaves_something_that_can_be_removed() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::create(root.path(), "box").unwrap();
        assert!(matches!(Directory::create(root.path(), "box"), Err(Error::Exists)));
        let other = Directory::open(root.path(), "box").unwrap();
        assert_eq!(other.look().unwrap(), (None, Status::Creating));
        // who holds the lock looks too, and keeps it
        assert_eq!(directory.look().unwrap(), (None, Status::Stopped));
        assert_eq!(other.look().unwrap(), (None, Status::Creating));
        drop(directory);
        assert_eq!(other.look().unwrap(), (None, Status::Stopped));
        other.remove().unwrap();
        assert!(matches!(Directory::open(root.path(), "box"), Err(Error::NoContainer)));
    }

    #[test]
    fn a_start_is_called_once() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a".repeat(200));
        let directory = Directory::create(&deep, "box").unwrap();
        assert!(directory.call().unwrap().is_none());
        let listener = directory.listen().unwrap();
        let called = directory.call().unwrap().unwrap();
        assert!(directory.call().unwrap().is_none());
        let accepted = rustix::net::accept(&listener).unwrap();
        rustix::io::write(&called, b"s").unwrap();
        assert_eq!(rustix::io::read(&accepted, &mut [0; 4]).unwrap(), 1);
    }
}
