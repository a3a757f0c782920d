//! The build context: an archive in a request's body, unpacked into a directory of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bulkhead_sys::path as below;
use bulkhead_types::Id;
use rustix::fs::{Mode, OFlags};

/// What stands before the name of every context's directory.
const PREFIX: &str = "build-";

/// A context's directory could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[error("the build context cannot be kept in {directory}: {cause}")]
pub struct ContextError {
    directory: String,
    cause: io::Error,
}

/// A directory below the engine's own that is removed when this is dropped, on a thread that may block.
#[derive(Debug)]
pub struct ContextDirectory {
    holder: Arc<OwnedFd>,
    name: OsString,
}

impl ContextDirectory {
    pub(crate) fn make(temporary: &Path) -> Result<Self, ContextError> {
        let fault = |cause| ContextError { directory: temporary.display().to_string(), cause };
        let holder = open_holder(temporary).map_err(fault)?;
        let name = OsString::from(format!("{PREFIX}{}", Id::random().short()));
        let make = |path: &Path| {
            rustix::fs::mkdirat(&holder, path, Mode::RWXU).map_err(|errno| fault(errno.into()))
        };
        make(Path::new(&name))?;
        let path = Path::new(&name);
        let made = make(&path.join(CONTEXT)).and_then(|()| make(&path.join(SCRATCH)));
        // From here on its drop removes it.
        let directory = Self { holder: Arc::new(holder), name: name.clone() };
        made.map(|()| directory)
    }

    /// The context itself, to unpack into and to read from.
    pub fn open(&self) -> Result<OwnedFd, ContextError> {
        self.below(CONTEXT)
    }

    /// A directory beside the context for what the build itself fetches.
    pub(crate) fn scratch(&self) -> Result<OwnedFd, ContextError> {
        self.below(SCRATCH)
    }

    fn below(&self, name: &str) -> Result<OwnedFd, ContextError> {
        let path = Path::new(&self.name).join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        below::open(self.holder.as_fd(), &path, flags, Mode::empty())
            .map_err(|cause| ContextError { directory: path.display().to_string(), cause })
    }
}

const CONTEXT: &str = "context";
const SCRATCH: &str = "scratch";

impl Drop for ContextDirectory {
    fn drop(&mut self) {
        let (holder, name) = (Arc::clone(&self.holder), std::mem::take(&mut self.name));
        let remove = move || {
            if let Err(error) = below::remove_tree(holder.as_fd(), &name) {
                tracing::warn!("a build context is left over until the next start: {error}");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

fn open_holder(temporary: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(temporary)?;
    File::open(temporary).map(OwnedFd::from)
}

/// Removes what builds of an engine that was killed have left.
pub(crate) fn sweep(temporary: &Path) {
    let removed = open_holder(temporary).and_then(|holder| {
        for entry in std::fs::read_dir(temporary)? {
            let name = entry?.file_name();
            if name.as_bytes().starts_with(PREFIX.as_bytes()) {
                below::remove_tree(holder.as_fd(), &name)?;
            }
        }
        Ok(())
    });
    if let Err(error) = removed {
        tracing::warn!("old build contexts in {} remain: {error}", temporary.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_removed() {
        let place = tempfile::tempdir().expect("a directory");
        let context = ContextDirectory::make(place.path()).expect("a context");
        let path = place.path().join(&context.name);
        assert!(path.exists());
        drop(context);
        assert!(!path.exists());
        std::fs::create_dir_all(place.path().join("build-old/deep")).expect("a directory");
        sweep(place.path());
        assert_eq!(std::fs::read_dir(place.path()).expect("it is there").count(), 0);
    }
}
