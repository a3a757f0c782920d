//! Layers: archives on one side, directories for overlayfs on the other.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;

use bulkhead_archive::{CopyError, copy};
use bulkhead_sys::path::Visited;
use bulkhead_types::image::{Descriptor, OCI_LAYER_GZIP};
use bulkhead_types::{Digest, IdMap};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::compression::Plain;
use crate::content::Content;
use crate::error::{ImageError, While};
use crate::scratch::{FILE_MODE, ScratchName};
use crate::unpack::{self, Unpacked};
use crate::{directory, upper};

/// One layer of an image: its blob, and the digest of the archive inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: Digest,
}

impl Content {
    /// Unpacks a layer blob (tar, compressed or not) into `layers/DIFF_ID` unless it is there; checks
    /// the diff id.
    ///
    /// `parents` (lowest first) are where a hard link may point, and what directories look like
    /// that the archive has only by implication. The result is found by the diff id alone, so a
    /// layer that leans on its parents is kept as its first image had it.
    pub fn unpack(
        &self,
        blob: &Descriptor,
        diff_id: Digest,
        parents: &[Digest],
    ) -> Result<(), ImageError> {
        if self.has_layer(diff_id) {
            return Ok(());
        }
        let parents: Vec<_> =
            parents.iter().map(|parent| self.layer(*parent)).collect::<Result<_, _>>()?;
        let file = self.blob(blob.digest)?;
        let (name, root) = self.new_tree()?;
        let unpacked = unpack::unpack(file, root, &parents)?;
        if unpacked.diff_id != diff_id {
            return Err(ImageError::WrongDigest { expected: diff_id, found: unpacked.diff_id });
        }
        self.commit_tree(&name, unpacked)
    }

    /// Whether the layer is unpacked here.
    pub fn has_layer(&self, diff_id: Digest) -> bool {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::statat(&self.layers, diff_id.hex(), flags).is_ok()
    }

    /// Opens the unpacked layer's root directory.
    pub fn layer(&self, diff_id: Digest) -> Result<OwnedFd, ImageError> {
        self.layer_file(diff_id).and_then(|holder| {
            directory::open(holder.as_fd(), TREE).doing(|| format!("open layer {diff_id}"))
        })
    }

    /// Bytes of the content of the layer's files.
    pub fn layer_size(&self, diff_id: Digest) -> Result<u64, ImageError> {
        let what = || format!("read the size of layer {diff_id}");
        let holder = self.layer_file(diff_id)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&holder, SIZE, flags, Mode::empty()).doing(what)?;
        let mut text = String::new();
        std::fs::File::from(file).take(32).read_to_string(&mut text).doing(what)?;
        text.parse().map_err(|_| ImageError::BadImage(format!("layer {diff_id} has no size")))
    }

    /// Ids that own files of the layer and that no container has without being asked, one of each
    /// window; a layer that was unpacked before they were noted has none.
    pub fn layer_owners(&self, diff_id: Digest) -> Result<Vec<u32>, ImageError> {
        let what = || format!("read the owners of layer {diff_id}");
        let holder = self.layer_file(diff_id)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&holder, OWNERS, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            other => other.doing(what)?,
        };
        let mut text = String::new();
        std::fs::File::from(file).take(4096).read_to_string(&mut text).doing(what)?;
        let id = |word: &str| word.parse().ok();
        text.split_whitespace().map(id).collect::<Option<_>>().ok_or_else(|| {
            ImageError::BadImage(format!("the owners of layer {diff_id} are no numbers"))
        })
    }

    /// Removes an unpacked layer; a missing one is fine. It must not be mounted.
    pub fn delete_layer(&self, diff_id: Digest) -> Result<(), ImageError> {
        let name = self.scratch.name();
        let to = &self.scratch.directory;
        match rustix::fs::renameat(&self.layers, diff_id.hex(), to, &name.text) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error).doing(|| format!("delete layer {diff_id}")),
        }
        bulkhead_sys::path::remove_tree(to.as_fd(), OsStr::new(&name.text))
            .doing(|| format!("delete layer {diff_id}"))
    }

    /// Turns the upper directory of an overlay into a layer: gzip blob, unpacked copy and diff id.
    ///
    /// Owners are translated from `range` to what the container saw; an owner outside it is shown
    /// inside as nobody, and becomes that (65534). `None`: nothing was changed. The caller makes
    /// sure that nothing writes meanwhile, by a pause or because the container has ended.
    pub fn commit_upper(
        &self,
        upper: BorrowedFd<'_>,
        range: Option<IdMap>,
    ) -> Result<Option<Layer>, ImageError> {
        self.commit_changes(upper, range, &|_| false)
    }

    /// The same without some of the files: those that an engine put there by itself.
    pub fn commit_changes(
        &self,
        upper: BorrowedFd<'_>,
        range: Option<IdMap>,
        left_out: &dyn Fn(&Visited) -> bool,
    ) -> Result<Option<Layer>, ImageError> {
        let upper =
            directory::open(upper, ".").doing(|| "open the container's files".to_owned())?;
        let names = directory::names(upper.as_fd());
        if names.doing(|| "list the container's files".to_owned())?.is_empty() {
            return Ok(None);
        }
        self.store_layer(&mut |sink| upper::archive(upper.as_fd(), range, left_out, sink)).map(Some)
    }

    /// Stores a tar stream (plain, gzip, bzip2, xz, zstd) as a layer.
    ///
    /// The blob is compressed anew: what comes by `docker import` and builds is mostly plain.
    pub fn import_layer(&self, tar: &mut dyn Read) -> Result<Layer, ImageError> {
        let mut plain = Plain::new(tar).doing(|| "read the archive".to_owned())?;
        self.store_layer(&mut |sink| {
            copy(&mut plain, sink).map(drop).map_err(|error| match error {
                CopyError::Read(cause) if cause.raw_os_error().is_none() => {
                    ImageError::BadLayer(cause.to_string())
                }
                CopyError::Read(cause) => {
                    ImageError::Io { what: "read the archive".to_owned(), cause }
                }
                CopyError::Write(cause) => {
                    ImageError::Io { what: "store the compressed layer".to_owned(), cause }
                }
            })
        })
    }

    /// Compresses and unpacks what `produce` writes, each on its own thread.
    fn store_layer(
        &self,
        produce: &mut dyn FnMut(&mut dyn Write) -> Result<(), ImageError>,
    ) -> Result<Layer, ImageError> {
        let (name, root) = self.new_tree()?;
        let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(CHUNKS_AHEAD);
        let (unpacked, blob) = std::thread::scope(|scope| {
            let unpacking = scope.spawn(move || {
                unpack::unpack(Chunks { receiver, chunk: io::Cursor::default() }, root, &[])
            });
            let blob = (|| {
                let fast = flate2::Compression::fast();
                let mut sink = Split {
                    gzip: flate2::GzBuilder::new().write(self.writer()?, fast),
                    sender: Some(sender),
                    chunk: Vec::with_capacity(CHUNK),
                };
                produce(&mut sink)?;
                sink.send().doing(|| "compress the layer".to_owned())?;
                sink.sender = None; // the end of the stream for the other thread
                sink.gzip.finish().doing(|| "compress the layer".to_owned())
            })();
            let unpacked =
                unpacking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (unpacked, blob)
        });
        let (blob, unpacked) = match (blob, unpacked) {
            // A full disk stops both, and this one names the file that did not fit.
            (_, Err(error @ ImageError::Io { .. })) => return Err(error),
            // The producer's error comes first: it is why the archive ended early.
            (blob, unpacked) => (blob?, unpacked?),
        };
        let size = blob.size();
        let digest = blob.commit(None)?;
        let diff_id = unpacked.diff_id;
        if !self.has_layer(diff_id) {
            self.commit_tree(&name, unpacked)?;
        }
        let descriptor = Descriptor {
            media_type: OCI_LAYER_GZIP.to_owned(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        };
        Ok(Layer { descriptor, diff_id })
    }

    /// A directory in `tmp` with an empty tree to unpack into.
    fn new_tree(&self) -> Result<(ScratchName, OwnedFd), ImageError> {
        let what = || "make a directory for the layer".to_owned();
        let name = self.scratch.name();
        let holder = directory::make(self.scratch.directory.as_fd(), &name.text).doing(what)?;
        let root = directory::make(holder.as_fd(), TREE).doing(what)?;
        Ok((name, root))
    }

    fn commit_tree(&self, name: &ScratchName, unpacked: Unpacked) -> Result<(), ImageError> {
        let what = || format!("store layer {}", unpacked.diff_id);
        let holder = directory::open(self.scratch.directory.as_fd(), &name.text).doing(what)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let size = rustix::fs::openat(&holder, SIZE, flags, FILE_MODE).doing(what)?;
        let text = unpacked.size.to_string();
        std::fs::File::from(size).write_all(text.as_bytes()).doing(what)?;
        if !unpacked.owners.is_empty() {
            let owners = rustix::fs::openat(&holder, OWNERS, flags, FILE_MODE).doing(what)?;
            let words: Vec<String> = unpacked.owners.iter().map(u32::to_string).collect();
            std::fs::File::from(owners).write_all(words.join(" ").as_bytes()).doing(what)?;
        }
        // One flush for all the files: an fsync for each takes minutes for a large image.
        rustix::fs::syncfs(&holder).doing(what)?;
        name.commit(self.layers.as_fd(), &unpacked.diff_id.hex()).doing(what).map(drop)
    }

    fn layer_file(&self, diff_id: Digest) -> Result<OwnedFd, ImageError> {
        match directory::open(self.layers.as_fd(), diff_id.hex()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ImageError::Missing(diff_id))
            }
            other => other.doing(|| format!("open layer {diff_id}")),
        }
    }
}

/// What a layer's directory holds: the files, how many bytes they are, and whose ids they have.
const TREE: &str = "fs";
const SIZE: &str = "size";
const OWNERS: &str = "owners";

const CHUNK: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 8;

/// Writes to the compressor and to the unpacking thread, in chunks of one size: what a compressor
/// makes of a stream depends on how it is cut.
struct Split<W: Write> {
    gzip: flate2::write::GzEncoder<W>,
    sender: Option<mpsc::SyncSender<Vec<u8>>>,
    chunk: Vec<u8>,
}

impl<W: Write> Split<W> {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.gzip.write_all(&chunk)?;
        // An unpacker that gave up says why when it is joined; nothing more is sent to it.
        if self.sender.as_ref().is_some_and(|sender| sender.send(chunk).is_err()) {
            self.sender = None;
        }
        Ok(())
    }
}

impl<W: Write> Write for Split<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what [`Split`] sends.
struct Chunks {
    receiver: mpsc::Receiver<Vec<u8>>,
    chunk: io::Cursor<Vec<u8>>,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.receiver.recv() {
                Ok(chunk) => self.chunk = io::Cursor::new(chunk),
                Err(mpsc::RecvError) => return Ok(0),
            }
        }
    }
}
