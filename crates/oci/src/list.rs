//! The containers of a root, for other parts of Bulkhead.

use std::path::Path;

use bulkhead_types::oci::Status;

use crate::directory::Directory;
use crate::error::Result;

/// A container below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub status: Status,
    /// Its first process as this pid namespace has it; `None` where it has ended.
    pub pid: Option<u32>,
}

/// Lists the containers of `root`, sorted by id; none where it does not exist. What cannot be read
/// of one, because it is being made or removed, leaves it out.
pub fn containers(root: &Path) -> Result<Vec<Listed>> {
    let listed = |id: String| {
        let directory = Directory::open(root, &id).ok()?;
        let (record, status) = directory.look().ok()?;
        let alive = matches!(status, Status::Created | Status::Running | Status::Paused);
        let process = record.and_then(|record| record.process).filter(|_| alive);
        Some(Listed { id, status, pid: process.map(|process| process.pid) })
    };
    Ok(Directory::ids(root)?.into_iter().filter_map(listed).collect())
}
