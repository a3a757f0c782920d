use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bulkhead_types::Digest;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::blob::BlobWriter;
use crate::error::While;
use crate::scratch::{FILE_MODE, Scratch};
use crate::{ImageError, directory};

/// The largest manifest or configuration that is read into memory, in bytes.
pub const SMALL: u64 = 4 << 20;

/// The directory of blobs (`blobs/sha256/HEX`) and unpacked layers (`layers/HEX`, named by diff id).
///
/// Beside them `images/HEX` holds the manifest's digest of the image with that id, and `tmp` what
/// is not finished. Everything gets its final name by a rename after it was written out to disk,
/// so a name that is there stands for content that is whole. One process owns the directory.
#[derive(Debug)]
pub struct Content {
    blobs: OwnedFd,
    pub(crate) layers: OwnedFd,
    images: OwnedFd,
    pub(crate) scratch: Arc<Scratch>,
}

impl Content {
    /// Opens the directory, made with mode 700 if it is missing.
    pub fn open(directory: &Path) -> Result<Self, ImageError> {
        let what = || format!("open the image directory {}", directory.display());
        std::fs::DirBuilder::new().recursive(true).create(directory).doing(what)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, directory, flags, Mode::empty()).doing(what)?;
        rustix::fs::fchmod(&root, Mode::RWXU).doing(what)?;
        let blobs = directory::make(root.as_fd(), "blobs").doing(what)?;
        Ok(Self {
            blobs: directory::make(blobs.as_fd(), "sha256").doing(what)?,
            layers: directory::make(root.as_fd(), "layers").doing(what)?,
            images: directory::make(root.as_fd(), "images").doing(what)?,
            scratch: Arc::new(Scratch::new(directory::make(root.as_fd(), "tmp").doing(what)?)),
        })
    }

    pub fn contains(&self, digest: Digest) -> bool {
        rustix::fs::statat(&self.blobs, digest.hex(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Opens a blob for reading.
    pub fn blob(&self, digest: Digest) -> Result<File, ImageError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.blobs, digest.hex(), flags, Mode::empty()) {
            Ok(fd) => Ok(fd.into()),
            Err(Errno::NOENT) => Err(ImageError::Missing(digest)),
            Err(error) => Err(error).doing(|| format!("open {digest}")),
        }
    }

    /// Bytes of a blob.
    pub fn blob_size(&self, digest: Digest) -> Result<u64, ImageError> {
        let blob = self.blob(digest)?;
        Ok(blob.metadata().doing(|| format!("stat {digest}"))?.len())
    }

    /// Reads a small blob (at most 4 MiB: a manifest or a configuration).
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let blob = self.blob(digest)?;
        blob.take(SMALL + 1).read_to_end(&mut bytes).doing(|| format!("read {digest}"))?;
        if bytes.len() as u64 > SMALL {
            return Err(ImageError::BadImage(format!("{digest} is larger than 4 MiB")));
        }
        Ok(bytes)
    }

    /// Stores a blob.
    pub fn write(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        if self.contains(digest) {
            return Ok(digest);
        }
        let mut writer = self.writer()?;
        std::io::Write::write_all(&mut writer, bytes).doing(|| format!("write {digest}"))?;
        writer.commit(Some(digest))
    }

    /// A blob that is written in pieces and hashed as it goes.
    pub fn writer(&self) -> Result<BlobWriter, ImageError> {
        let blobs = self.blobs.try_clone().doing(|| "write a blob".to_owned())?;
        BlobWriter::new(&self.scratch, blobs)
    }

    /// Removes a blob; a missing one is fine.
    pub fn delete_blob(&self, digest: Digest) -> Result<(), ImageError> {
        unlink(self.blobs.as_fd(), &digest.hex()).doing(|| format!("delete {digest}"))
    }

    /// Removes temporary files that a crash left, and everything that `keep` does not name.
    ///
    /// `keep` is asked about blobs, diff ids of layers and image ids alike. Returns the bytes of
    /// blobs and layers that went. Must not run beside a pull, a build or a commit of this
    /// process: their content is not named by anything yet.
    pub fn sweep(&self, keep: &dyn Fn(Digest) -> bool) -> Result<u64, ImageError> {
        let what = || "sweep the image directory".to_owned();
        let mut freed = 0;
        let unwanted = |fd: BorrowedFd<'_>| -> Result<Vec<Digest>, ImageError> {
            let names = directory::names(fd).doing(what)?;
            let digests = names.iter().filter_map(|name| {
                format!("sha256:{}", name.to_str().ok()?).parse::<Digest>().ok()
            });
            Ok(digests.filter(|digest| !keep(*digest)).collect())
        };
        for digest in unwanted(self.images.as_fd())? {
            unlink(self.images.as_fd(), &digest.hex()).doing(what)?;
        }
        for digest in unwanted(self.layers.as_fd())? {
            freed += self.layer_size(digest).unwrap_or(0);
            self.delete_layer(digest)?;
        }
        for digest in unwanted(self.blobs.as_fd())? {
            freed += self.blob_size(digest)?;
            self.delete_blob(digest)?;
        }
        for name in directory::names(self.scratch.directory.as_fd()).doing(what)? {
            let name = OsStr::new(name.to_str().unwrap_or_default());
            if !self.scratch.is_live(name) {
                bulkhead_sys::path::remove_tree(self.scratch.directory.as_fd(), name)
                    .doing(what)?;
            }
        }
        Ok(freed)
    }

    /// Moves everything that `keep` does not name into `aside`, under the names `content-blob-HEX`,
    /// `content-layer-HEX` and `content-image-HEX`: for when it is not known whether somebody needs it.
    /// Returns how many things went. Under the same conditions as [`Self::sweep`].
    pub fn set_aside(
        &self,
        keep: &dyn Fn(Digest) -> bool,
        aside: BorrowedFd<'_>,
    ) -> Result<usize, ImageError> {
        let what = || "move content aside".to_owned();
        let mut count = 0;
        for (kind, place) in
            [("image", &self.images), ("layer", &self.layers), ("blob", &self.blobs)]
        {
            for name in directory::names(place.as_fd()).doing(what)? {
                let Ok(hex) = name.to_str() else { continue };
                let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else { continue };
                if keep(digest) {
                    continue;
                }
                let to = format!("content-{kind}-{hex}");
                match rustix::fs::renameat_with(place, hex, aside, &to, RenameFlags::NOREPLACE) {
                    // Named by its digest, so what lies there is the same.
                    Ok(()) | Err(Errno::EXIST) => count += 1,
                    Err(errno) => return Err(errno).doing(what),
                }
            }
        }
        Ok(count)
    }

    /// Says which manifest the image `id` came with.
    pub(crate) fn link_image(&self, id: Digest, manifest: Digest) -> Result<(), ImageError> {
        let what = || format!("store the image {id}");
        let name = self.scratch.name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let tmp = &self.scratch.directory;
        let file = rustix::fs::openat(tmp, &name.text, flags, FILE_MODE).doing(what)?;
        let mut file = File::from(file);
        std::io::Write::write_all(&mut file, manifest.to_string().as_bytes()).doing(what)?;
        file.sync_all().doing(what)?;
        rustix::fs::renameat(tmp, &name.text, &self.images, id.hex()).doing(what)?;
        rustix::fs::fsync(&self.images).doing(what)
    }

    /// The digest of the manifest that the image `id` came with.
    pub(crate) fn linked_manifest(&self, id: Digest) -> Result<Digest, ImageError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(&self.images, id.hex(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(ImageError::Missing(id)),
            other => other.doing(|| format!("open the image {id}"))?,
        };
        let mut text = String::new();
        let limit = File::from(file).take(100).read_to_string(&mut text);
        limit.doing(|| format!("read the image {id}"))?;
        text.parse().map_err(|_| ImageError::BadImage(format!("the entry of {id} is no digest")))
    }

    /// Forgets the image `id`; its blobs and layers stay until they are swept or deleted.
    pub fn unlink_image(&self, id: Digest) -> Result<(), ImageError> {
        unlink(self.images.as_fd(), &id.hex()).doing(|| format!("delete the image {id}"))
    }
}

fn unlink(directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
