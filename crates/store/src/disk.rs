//! The store's file, with room that belongs to it: a full disk must not keep anybody from removing.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Bytes that stay allocated behind the end of the file. A transaction writes its pages anew before
/// it gives the old ones back, so even a removal needs room: some ten pages of 4 KiB each.
const RESERVE: u64 = 4 << 20;

/// One opening of the file, as redb sees it.
#[derive(Debug)]
pub(crate) struct Disk {
    backend: FileBackend,
    room: Arc<Room>,
}

/// The file's blocks: all that it has are allocated, and [`RESERVE`] more.
#[derive(Debug)]
pub(crate) struct Room {
    file: File,
    /// The length that the blocks were allocated for last.
    length: AtomicU64,
}

impl Disk {
    /// Opens the file, making it if there is none.
    pub(crate) fn create(path: &Path) -> io::Result<(Self, Arc<Room>)> {
        // Records hold what containers and tasks were given as their environment: secrets, often.
        // Made here for root alone; one that an earlier version made is closed to others.
        let mut options = File::options();
        let file =
            options.create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        Self::of(file)
    }

    /// Opens the file, which must be there.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Arc<Room>)> {
        Self::of(File::options().read(true).write(true).open(path)?)
    }

    fn of(file: File) -> io::Result<(Self, Arc<Room>)> {
        let room = Arc::new(Room { file: file.try_clone()?, length: AtomicU64::new(u64::MAX) });
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        Ok((Self { backend, room: Arc::clone(&room) }, room))
    }
}

impl Room {
    /// Makes sure of the reserve; fails with ENOSPC where the disk has none to give.
    pub(crate) fn reserve(&self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if self.length.load(Ordering::Relaxed) == length {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length + RESERVE) {
            // Where blocks cannot be allocated ahead, a full disk is met when it is written to.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.length.store(length, Ordering::Relaxed);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let before = self.backend.len()?;
        self.backend.set_len(length)?;
        if length < before {
            // Cut off with the file's end; taken again before somebody else takes it. Without it the
            // next transaction that needs more says so.
            let _ = self.room.reserve();
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        bulkhead_failpoint::hit("store.sync")?;
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        bulkhead_failpoint::hit("store.write")?;
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
