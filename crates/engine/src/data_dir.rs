//! The engine's directories on disk: containers and volumes.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bulkhead_store::Durability;
use bulkhead_sys::path;
use bulkhead_types::{Id, IdMap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid, renameat_with};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::io_error;
use crate::{Class, EngineError};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Mounts of what lies below need no way through the directories above it.
const PRIVATE: Mode = Mode::RWXU;

/// The log of a container, in its directory.
pub(crate) fn log_name(id: Id) -> String {
    format!("{id}-json.log")
}

/// What a directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Container,
    Volume,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Volume => "volume",
        }
    }
}

/// The bit of a container's directory that says that it goes with its record. The sticky bit: it is
/// there from the moment of mkdir(2), and means nothing else where only root may write.
const MARK: u32 = 0o1000;

/// Where what no record knows is moved to, below the data directory.
const LOST: &str = "lost+found";

/// The data directory, locked for this engine as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub data: PathBuf,
    containers: OwnedFd,
    volumes: OwnedFd,
    /// Only held: closing it gives the lock back.
    _lock: File,
}

impl DataDir {
    pub(crate) fn open(data: &Path) -> Result<Self, EngineError> {
        let what = |name: &str| format!("{}/{name}", data.display());
        std::fs::create_dir_all(data).map_err(io_error(data.display()))?;
        // Files below belong to whom the container made them for, set-user-ID bits and all: in a
        // volume root's are the host's root's. So nobody else may come here (CVE-2021-41091).
        rustix::fs::chmod(data, PRIVATE).map_err(|errno| io_error(data.display())(errno.into()))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(data.join("lock"))
            .map_err(io_error(what("lock")))?;
        if !take(&lock) {
            return Err(EngineError::new(
                Class::Conflict,
                format!(
                    "another Bulkhead engine uses {}; stop it first or choose another data directory",
                    data.display()
                ),
            ));
        }
        let directory = |name: &str| {
            match rustix::fs::mkdir(data.join(name), PRIVATE) {
                Ok(()) => {}
                // made by an earlier version, which let others pass
                Err(Errno::EXIST) => rustix::fs::chmod(data.join(name), PRIVATE)
                    .map_err(|errno| io_error(what(name))(errno.into()))?,
                Err(errno) => return Err(io_error(what(name))(errno.into())),
            }
            rustix::fs::open(data.join(name), DIRECTORY, Mode::empty())
                .map_err(|errno| io_error(what(name))(errno.into()))
        };
        Ok(Self {
            containers: directory("containers")?,
            volumes: directory("volumes")?,
            data: data.to_owned(),
            _lock: lock,
        })
    }

    /// Whether files below the data directory can be shown with the owners of a user namespace.
    pub(crate) fn supports_idmapped_layers(&self, users: &OwnedFd) -> Result<bool, EngineError> {
        match self.probe_idmapped_layers(users) {
            // The engine must start all the same, so that something can be removed. The stricter
            // answer: where it is wrong, containers do not start.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                tracing::warn!("the file system of {} is full", self.data.display());
                Ok(true)
            }
            answer => answer.map_err(io_error(self.data.join("probe").display())),
        }
    }

    fn probe_idmapped_layers(&self, users: &OwnedFd) -> std::io::Result<bool> {
        let path = self.data.join("probe");
        bulkhead_failpoint::hit("probe")?;
        // an engine that died here has left it
        match std::fs::remove_dir_all(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
            _ => std::fs::create_dir(&path)?,
        }
        let scratch = rustix::fs::open(&path, DIRECTORY, Mode::empty())?;
        let can = bulkhead_image::can_map_owners(scratch.as_fd(), users.as_fd());
        let can = can.map_err(|error| match error {
            bulkhead_image::ImageError::Io { cause, .. } => cause,
            other => std::io::Error::other(other),
        });
        std::fs::remove_dir_all(&path)?;
        can
    }

    /// Makes a container's directory with the upper and work directory of its overlay; what is
    /// there already stays. `durability` is that of its record: see [`Self::goes_with_its_record`].
    pub(crate) fn make_container(
        &self,
        id: Id,
        range: Option<IdMap>,
        durability: Durability,
    ) -> Result<OwnedFd, EngineError> {
        let what = || format!("make the directory of container {}", id.short());
        let make = || -> std::io::Result<OwnedFd> {
            let name = id.to_string();
            bulkhead_failpoint::hit("directory.make")?;
            let mark = if durability == Durability::Process { MARK } else { 0 };
            make_directory(&self.containers, &name, 0o700 | mark, None)?;
            let own = rustix::fs::openat(&self.containers, &name, DIRECTORY, Mode::empty())?;
            // The upper directory is the root's own entry: it shows as the container's root user.
            make_directory(&own, "upper", 0o755, range)?;
            make_directory(&own, "work", 0o700, range)?;
            Ok(own)
        };
        make().map_err(io_error(what()))
    }

    /// Whether a directory without a record is that of a container which goes with its end: after a
    /// power cut it may be on disk where the record is not. Nobody comes back for it.
    pub(crate) fn goes_with_its_record(&self, kind: Kind, name: &str) -> bool {
        let found = rustix::fs::statat(self.directory(kind), name, AtFlags::SYMLINK_NOFOLLOW);
        kind == Kind::Container && found.is_ok_and(|found| found.st_mode & MARK == MARK)
    }

    pub(crate) fn container(&self, id: Id) -> Result<OwnedFd, EngineError> {
        rustix::fs::openat(&self.containers, id.to_string(), DIRECTORY, Mode::empty())
            .map_err(|errno| io_error(format!("container {}", id.short()))(errno.into()))
    }

    pub(crate) fn remove_container(&self, id: Id) -> Result<(), EngineError> {
        self.remove(Kind::Container, &id.to_string())
    }

    pub(crate) fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.remove(Kind::Volume, name)
    }

    /// Removes a directory; one that is not there is fine.
    pub(crate) fn remove(&self, kind: Kind, name: &str) -> Result<(), EngineError> {
        let failed = |cause| io_error(format!("remove the {} {name}", kind.name()))(cause);
        bulkhead_failpoint::hit("directory.remove").map_err(failed)?;
        match path::remove_tree(self.directory(kind).as_fd(), name.as_ref()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// The names of all directories of a kind, known or not.
    pub(crate) fn list(&self, kind: Kind) -> Result<Vec<String>, EngineError> {
        list(&self.data.join(Self::place(kind)))
    }

    /// Moves a directory that nobody knows to `lost+found`, where the user finds it under its kind
    /// and name, and says where it is.
    pub(crate) fn set_aside(&self, kind: Kind, name: &str) -> Result<PathBuf, EngineError> {
        let aside = self.lost_and_found()?;
        let failed = |errno: Errno| {
            io_error(format!("move the {} {name} to {LOST}", kind.name()))(errno.into())
        };
        for number in 0_u32.. {
            let mut target = format!("{}-{name}", kind.name());
            if number > 0 {
                target.push_str(&format!(".{number}"));
            }
            let from = self.directory(kind);
            match renameat_with(from, name, &aside, &target, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(self.data.join(LOST).join(target)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err(failed(Errno::EXIST))
    }

    /// The directory of what was moved aside, made if it is missing.
    pub(crate) fn lost_and_found(&self) -> Result<OwnedFd, EngineError> {
        let open = || {
            match rustix::fs::mkdir(self.data.join(LOST), PRIVATE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            rustix::fs::open(self.data.join(LOST), DIRECTORY, Mode::empty())
        };
        open().map_err(|errno| io_error(self.data.join(LOST).display())(errno.into()))
    }

    pub(crate) fn drop_empty_lost_and_found(&self) {
        let _ = rustix::fs::rmdir(self.data.join(LOST));
    }

    /// Says that something was moved aside, as long as it is there.
    pub(crate) fn lost_and_found_warning(&self) -> Option<String> {
        let ours = ["container-", "volume-", "content-"];
        let names = list(&self.data.join(LOST)).unwrap_or_default();
        let count = names.iter().filter(|name| ours.iter().any(|it| name.starts_with(it))).count();
        (count > 0).then(|| {
            format!(
                "WARNING: {count} directories that no record knew were moved to {}: take from them \
                 what you need, and remove them",
                self.data.join(LOST).display()
            )
        })
    }

    fn directory(&self, kind: Kind) -> &OwnedFd {
        match kind {
            Kind::Container => &self.containers,
            Kind::Volume => &self.volumes,
        }
    }

    fn place(kind: Kind) -> &'static str {
        match kind {
            Kind::Container => "containers",
            Kind::Volume => "volumes",
        }
    }

    /// Where a container's log is.
    pub(crate) fn log_path(&self, id: Id) -> PathBuf {
        self.data.join(format!("containers/{id}")).join(log_name(id))
    }

    pub(crate) fn volume_path(&self, name: &str) -> PathBuf {
        self.data.join("volumes").join(name).join("_data")
    }

    /// Opens the directory of a volume that is there; one that is not is never made by a look.
    pub(crate) fn existing_volume(&self, name: &str) -> Result<OwnedFd, EngineError> {
        let open = || -> std::io::Result<OwnedFd> {
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let own = rustix::fs::openat(&self.volumes, name, flags, Mode::empty())?;
            Ok(rustix::fs::openat(&own, "_data", flags, Mode::empty())?)
        };
        open().map_err(io_error(format!("volume {name}")))
    }

    /// Makes a volume's directory, or opens the one that is there.
    pub(crate) fn volume(&self, name: &str) -> Result<OwnedFd, EngineError> {
        let make = || -> std::io::Result<OwnedFd> {
            make_directory(&self.volumes, name, 0o700, None)?;
            let own = rustix::fs::openat(&self.volumes, name, DIRECTORY, Mode::empty())?;
            make_directory(&own, "_data", 0o755, None)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(rustix::fs::openat(&own, "_data", flags, Mode::empty())?)
        };
        make().map_err(io_error(format!("volume {name}")))
    }
}

/// Writes a small file of ours into a container's directory. In place, not by rename: the file may
/// be bind-mounted into a running container that shares it.
pub(crate) fn write_file(directory: &OwnedFd, name: &str, text: &str) -> Result<(), EngineError> {
    let write = || -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file =
            path::open(directory.as_fd(), Path::new(name), flags, Mode::from_raw_mode(0o644))?;
        File::from(file).write_all(text.as_bytes())
    };
    write().map_err(io_error(format!("write {name}")))
}

fn make_directory(
    parent: impl AsFd,
    name: &str,
    mode: u32,
    range: Option<IdMap>,
) -> std::io::Result<()> {
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    if let Some(range) = range {
        let (user, group) = (Uid::from_raw(range.first), Gid::from_raw(range.first));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&parent, name, Some(user), Some(group), flags)?;
    }
    Ok(())
}

/// Takes the lock, and says in its file by whom. An engine that was killed a moment ago holds it until
/// the kernel has closed all that it had open, which its end is waited for.
fn take(lock: &File) -> bool {
    let taken = lock.try_lock().is_ok() || (holder_ends(lock) && lock.try_lock().is_ok());
    if taken {
        // Without it the next one does not wait. In place: a full disk has no block for a file that
        // was emptied.
        let _ = lock.write_all_at(format!("{:<15}\n", std::process::id()).as_bytes(), 0);
    }
    taken
}

/// Waits a second for the end of whoever the lock's file names.
fn holder_ends(lock: &File) -> bool {
    let mut text = [0; 16];
    let length = lock.read_at(&mut text, 0).unwrap_or(0);
    let pid = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
    pid.is_some_and(ends)
}

/// Waits a second for the end of the process with this number, as text.
pub(crate) fn process_ends(pid: &str) -> bool {
    pid.trim().parse().is_ok_and(ends)
}

fn ends(pid: i32) -> bool {
    // Itself, in another place.
    if u32::try_from(pid) == Ok(std::process::id()) {
        return false;
    }
    let Some(pid) = Pid::from_raw(pid) else { return false };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&second));
            ended.is_ok_and(|count| count > 0)
        }
        // it has ended meanwhile
        Err(errno) => errno == Errno::SRCH,
    }
}

fn list(directory: &Path) -> Result<Vec<String>, EngineError> {
    let entries = std::fs::read_dir(directory).map_err(io_error(directory.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn one_engine_per_data_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDir::open(directory.path()).unwrap();
        let error = DataDir::open(directory.path()).unwrap_err();
        assert!(error.message.starts_with("another Bulkhead engine uses"), "{error}");
        drop(first);
        DataDir::open(directory.path()).unwrap();
    }

    #[test]
    fn nobody_else_comes_to_what_containers_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        for name in ["volumes", "containers"] {
            std::fs::create_dir_all(data.join(name)).unwrap();
        }
        let data_dir = DataDir::open(&data).unwrap();
        assert!(data_dir.existing_volume("v").is_err());
        assert!(!data.join("volumes/v").exists(), "a look has made nothing");
        data_dir.volume("v").unwrap();
        data_dir.existing_volume("v").unwrap();
        let id = Id::random().to_string();
        data_dir.make_container(id.parse().unwrap(), None, Durability::Process).unwrap();
        assert!(data_dir.goes_with_its_record(Kind::Container, &id));
        for path in ["", "volumes", "containers", "volumes/v", &format!("containers/{id}")] {
            let mode = std::fs::metadata(data.join(path)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o700, "{path}");
        }
        assert_eq!(std::fs::metadata(data.join("lock")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn container_directories_belong_to_the_containers_root() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(directory.path()).unwrap();
        let id = Id::random();
        let range = IdMap::new(1_234_560, IdMap::SIZE);
        let make = || data_dir.make_container(id, Some(range), Durability::Disk).unwrap();
        let own = make();
        make();
        assert!(!data_dir.goes_with_its_record(Kind::Container, &id.to_string()));
        write_file(&own, "hostname", "first\n").unwrap();
        write_file(&own, "hostname", "x\n").unwrap();
        let path = directory.path().join("containers").join(id.to_string());
        assert_eq!(std::fs::metadata(path.join("upper")).unwrap().uid(), range.first);
        assert_eq!(std::fs::read_to_string(path.join("hostname")).unwrap(), "x\n");
        assert_eq!(data_dir.list(Kind::Container).unwrap(), [id.to_string()]);
        data_dir.remove_container(id).unwrap();
        data_dir.remove_container(id).unwrap();
        assert!(!path.exists());
    }
}
