//! What containers and volumes take on disk.

use std::os::fd::AsFd;
use std::sync::Arc;

use bulkhead_sys::path::disk_usage;
use bulkhead_types::Id;
use rustix::fs::{Mode, OFlags};

use crate::blocking::blocking;
use crate::error::io_error;
use crate::{Engine, EngineError, marks};

/// Bytes of a container's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerSize {
    /// What it has written itself; 0 when it has never started.
    pub written: u64,
    /// All that it sees: its image's layers and what it has written.
    pub root: u64,
}

impl Engine {
    /// Walks the container's upper directory: as slow as it has files.
    pub async fn container_size(self: &Arc<Self>, id: Id) -> Result<ContainerSize, EngineError> {
        let engine = Arc::clone(self);
        blocking(move |_| {
            let record = engine.containers.record(id)?;
            let mut layers = 0;
            for layer in &record.layers {
                layers += engine.content.layer_size(*layer)?;
            }
            let written = match engine.data_dir.container(id) {
                Ok(directory) => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    match rustix::fs::openat(&directory, "upper", flags, Mode::empty()) {
                        Ok(upper) => {
                            let all = disk_usage(upper.as_fd())
                                .map_err(io_error(format!("measure container {}", id.short())))?;
                            all.saturating_sub(marks::size(upper.as_fd()))
                        }
                        Err(_) => 0,
                    }
                }
                // made by the first start
                Err(_) => 0,
            };
            Ok(ContainerSize { written, root: layers + written })
        })
        .await
    }

    /// Bytes of a volume's files.
    pub async fn volume_size(self: &Arc<Self>, name: &str) -> Result<u64, EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |_| {
            // Not made anew: it may have been removed since its name was listed.
            let directory = engine.data_dir.existing_volume(&name)?;
            disk_usage(directory.as_fd()).map_err(io_error(format!("measure volume {name}")))
        })
        .await
    }
}
