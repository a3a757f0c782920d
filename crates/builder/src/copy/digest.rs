//! What a transfer's layer will hold, as a number: the key of a COPY in the cache.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bulkhead_types::{Digest, Hasher};

use super::{Collected, CopyError, EntryKind, Transfer, WhileDoing};

impl Transfer {
    /// Names everything that decides what the layer holds, except times and what is below it.
    pub(crate) fn digest(&self, collected: &Collected) -> Result<Digest, CopyError> {
        let mut hasher = Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (target, entry) in &collected.entries {
            field(target.as_os_str().as_bytes());
            field(format!("{:o} {} {}", entry.mode, entry.owner.uid, entry.owner.gid).as_bytes());
            for (name, value) in &entry.xattrs {
                field(name);
                field(value);
            }
            match &entry.kind {
                EntryKind::Directory => field(b"directory"),
                EntryKind::Fifo => field(b"fifo"),
                EntryKind::Link(target) => {
                    field(b"link");
                    field(target.as_os_str().as_bytes());
                }
                EntryKind::Inline(content) => {
                    field(b"file");
                    field(Digest::of(content).hex().as_bytes());
                }
                EntryKind::Source(path, _) => {
                    field(b"file");
                    field(self.content_digest(path)?.hex().as_bytes());
                }
            }
        }
        for (archive, target) in &collected.archives {
            field(b"archive");
            field(target.as_os_str().as_bytes());
            field(self.content_digest(archive)?.hex().as_bytes());
            field(format!("{:?} {:?}", self.owner, self.mode).as_bytes());
        }
        Ok(hasher.finish())
    }

    fn content_digest(&self, path: &Path) -> Result<Digest, CopyError> {
        let mut file = self.open(path)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = io::Read::read(&mut file, &mut buffer)
                .while_doing(|| format!("read {}", path.display()))?;
            if read == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buffer[..read]);
        }
    }
}
