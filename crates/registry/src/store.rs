use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bulkhead_image::{BlobWriter, Content, ImageError};
use bulkhead_types::Digest;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::route::Name;

/// The registry's directory: `content/` has the blobs, `repositories/NAME/` what each may show.
///
/// In a repository `blobs/HEX` is an empty file, `manifests/HEX` holds the media type,
/// `tags/TAG` the digest, and `referrers/SUBJECT-HEX` is empty again. The slashes of a name are
/// written as `%`, so repositories do not lie in one another.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) content: Content,
    repositories: OwnedFd,
    tmp: OwnedFd,
    /// Held while links and the blobs behind them are made or removed, so that no blob goes
    /// between being committed and being linked.
    links: Mutex<()>,
}

/// The kinds of links in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Blobs,
    Manifests,
    Referrers,
    Tags,
}

impl Kind {
    fn directory(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Manifests => "manifests",
            Self::Referrers => "referrers",
            Self::Tags => "tags",
        }
    }
}

impl Store {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let content = Content::open(&directory.join("content")).map_err(io::Error::other)?;
        content.sweep(&|_| true).map_err(io::Error::other)?;
        let root = File::open(directory)?;
        let tmp = make(root.as_fd(), "tmp")?;
        for name in names(tmp.as_fd())? {
            rustix::fs::unlinkat(&tmp, &name, AtFlags::empty())?;
        }
        let repositories = make(root.as_fd(), "repositories")?;
        Ok(Self { content, repositories, tmp, links: Mutex::default() })
    }

    /// Makes a blob that was written, under the digest it must have, part of a repository.
    pub(crate) fn add_blob(
        &self,
        name: &Name,
        writer: BlobWriter,
        digest: Digest,
    ) -> Result<(), ImageError> {
        let _guard = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        writer.commit(Some(digest))?;
        self.write(name, Kind::Blobs, &digest.hex(), b"").map_err(stored)
    }

    /// Makes a blob of one repository part of another. `false`: `from` has it not.
    pub(crate) fn mount(&self, from: &Name, to: &Name, digest: Digest) -> io::Result<bool> {
        let _guard = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has(from, Kind::Blobs, &digest.hex())? {
            return Ok(false);
        }
        self.write(to, Kind::Blobs, &digest.hex(), b"")?;
        Ok(true)
    }

    /// Stores a manifest with what points to it: tags, and its place below its subject.
    pub(crate) fn add_manifest(
        &self,
        name: &Name,
        bytes: &[u8],
        media_type: &str,
        tags: &[String],
        subject: Option<Digest>,
    ) -> Result<Digest, ImageError> {
        let _guard = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = self.content.write(bytes)?;
        let hex = digest.hex();
        self.write(name, Kind::Manifests, &hex, media_type.as_bytes()).map_err(stored)?;
        if let Some(subject) = subject {
            let link = format!("{}-{hex}", subject.hex());
            self.write(name, Kind::Referrers, &link, b"").map_err(stored)?;
        }
        for tag in tags {
            let digest = digest.to_string();
            self.write(name, Kind::Tags, tag, digest.as_bytes()).map_err(stored)?;
        }
        Ok(digest)
    }

    /// Takes a blob out of a repository. `false`: it was not in it.
    pub(crate) fn remove_blob(&self, name: &Name, digest: Digest) -> Result<bool, ImageError> {
        let _guard = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.remove(name, Kind::Blobs, &digest.hex()).map_err(stored)?;
        self.drop_unused(digest)?;
        Ok(removed)
    }

    /// Takes a manifest, and the tags that mean it, out of a repository.
    pub(crate) fn remove_manifest(&self, name: &Name, digest: Digest) -> Result<bool, ImageError> {
        let _guard = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let hex = digest.hex();
        // Tags first: one must never mean a manifest that is gone.
        for tag in self.list(name, Kind::Tags).map_err(stored)?.unwrap_or_default() {
            if self.tagged(name, &tag).map_err(stored)? == Some(digest) {
                self.remove(name, Kind::Tags, &tag).map_err(stored)?;
            }
        }
        for link in self.list(name, Kind::Referrers).map_err(stored)?.unwrap_or_default() {
            if link.ends_with(&format!("-{hex}")) {
                self.remove(name, Kind::Referrers, &link).map_err(stored)?;
            }
        }
        let removed = self.remove(name, Kind::Manifests, &hex).map_err(stored)?;
        self.drop_unused(digest)?;
        Ok(removed)
    }

    pub(crate) fn remove_tag(&self, name: &Name, tag: &str) -> io::Result<bool> {
        self.remove(name, Kind::Tags, tag)
    }

    pub(crate) fn has(&self, name: &Name, kind: Kind, link: &str) -> io::Result<bool> {
        Ok(self.read(name, kind, link)?.is_some())
    }

    pub(crate) fn tagged(&self, name: &Name, tag: &str) -> io::Result<Option<Digest>> {
        Ok(self.read(name, Kind::Tags, tag)?.and_then(|text| text.parse().ok()))
    }

    /// What a link holds; `None` if it or its repository is missing.
    pub(crate) fn read(&self, name: &Name, kind: Kind, link: &str) -> io::Result<Option<String>> {
        let Some(directory) = self.directory(name, kind)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&directory, link, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let mut text = String::new();
        File::from(file).take(1024).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// The links of a kind, sorted; `None` if there is no such repository.
    pub(crate) fn list(&self, name: &Name, kind: Kind) -> io::Result<Option<Vec<String>>> {
        if open(self.repositories.as_fd(), &name.directory())?.is_none() {
            return Ok(None);
        }
        match self.directory(name, kind)? {
            Some(directory) => names(directory.as_fd()).map(Some),
            None => Ok(Some(Vec::new())),
        }
    }

    /// The names of all repositories, sorted.
    pub(crate) fn repositories(&self) -> io::Result<Vec<Name>> {
        let mut found: Vec<_> = names(self.repositories.as_fd())?
            .iter()
            .filter_map(|directory| Name::of_directory(directory))
            .collect();
        found.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(found)
    }

    /// Removes content that no repository has any more.
    fn drop_unused(&self, digest: Digest) -> Result<(), ImageError> {
        for name in self.repositories().map_err(stored)? {
            for kind in [Kind::Blobs, Kind::Manifests] {
                if self.has(&name, kind, &digest.hex()).map_err(stored)? {
                    return Ok(());
                }
            }
        }
        self.content.delete_blob(digest)
    }

    fn write(&self, name: &Name, kind: Kind, link: &str, bytes: &[u8]) -> io::Result<()> {
        let repository = make(self.repositories.as_fd(), &name.directory())?;
        let directory = make(repository.as_fd(), kind.directory())?;
        let temporary = random_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.tmp, &temporary, flags, mode)?);
        file.write_all(bytes)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.tmp, &temporary, &directory, link)?;
        Ok(rustix::fs::fsync(&directory)?)
    }

    fn remove(&self, name: &Name, kind: Kind, link: &str) -> io::Result<bool> {
        let Some(directory) = self.directory(name, kind)? else { return Ok(false) };
        match rustix::fs::unlinkat(&directory, link, AtFlags::empty()) {
            Ok(()) => Ok(rustix::fs::fsync(&directory).map(|()| true)?),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn directory(&self, name: &Name, kind: Kind) -> io::Result<Option<OwnedFd>> {
        let Some(repository) = open(self.repositories.as_fd(), &name.directory())? else {
            return Ok(None);
        };
        open(repository.as_fd(), kind.directory())
    }
}

/// 32 hexadecimal digits that nobody guesses.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes after boot");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stored(cause: io::Error) -> ImageError {
    ImageError::Io { what: "use the registry's storage".to_owned(), cause }
}

fn make(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    open(parent, name)?.ok_or_else(|| Errno::NOENT.into())
}

fn open(parent: BorrowedFd<'_>, name: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
