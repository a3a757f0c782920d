//! Unfinished content: what gets its final name by a rename, and is removed if it does not.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

/// Of a file of content: its owner's alone.
pub(crate) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The directory of unfinished things, and which of them this process still works on.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) directory: OwnedFd,
    live: Mutex<HashSet<String>>,
}

impl Scratch {
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self { directory, live: Mutex::default() }
    }

    /// A new name; what has it is removed when the name is dropped.
    pub(crate) fn name(self: &Arc<Self>) -> ScratchName {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel has random bytes after boot");
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone());
        ScratchName { scratch: Arc::clone(self), text }
    }

    pub(crate) fn is_live(&self, name: &OsStr) -> bool {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        name.to_str().is_some_and(|name| live.contains(name))
    }
}

#[derive(Debug)]
pub(crate) struct ScratchName {
    scratch: Arc<Scratch>,
    pub(crate) text: String,
}

impl ScratchName {
    /// Moves what has the name to its place. `false`: somebody was faster with the same content.
    pub(crate) fn commit(&self, to: BorrowedFd<'_>, name: &str) -> rustix::io::Result<bool> {
        let from = &self.scratch.directory;
        bulkhead_failpoint::hit("content.rename").map_err(errno)?;
        match rustix::fs::renameat_with(from, &self.text, to, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                bulkhead_failpoint::pass("content.renamed");
                rustix::fs::fsync(to).map(|()| true)
            }
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for ScratchName {
    fn drop(&mut self) {
        let name = OsStr::new(&self.text);
        if let Err(error) = bulkhead_sys::path::remove_tree(self.scratch.directory.as_fd(), name) {
            tracing::warn!("remove {} from tmp: {error}", self.text);
        }
        self.scratch.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.text);
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
