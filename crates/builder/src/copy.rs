//! COPY and ADD: which files go where, as the members of a new layer.

mod archive;
mod digest;
mod source;
mod write;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use crate::ignore::Ignore;
use crate::owner::{self, ModeChange, Owner};
use crate::view::{Attributes, Node, View};
use source::Found;

/// One COPY or ADD with everything expanded and resolved.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// `COPY` or `ADD`, for messages.
    pub(crate) keyword: &'static str,
    pub(crate) source: View,
    /// The build context: its files belong to root and `.dockerignore` holds.
    pub(crate) from_context: bool,
    pub(crate) ignores: Vec<Arc<Ignore>>,
    /// The tree that the layer is laid on.
    pub(crate) lower: View,
    pub(crate) sources: Vec<String>,
    /// Here-documents: name and content.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) working_directory: String,
    pub(crate) destination: String,
    pub(crate) owner: Option<Owner>,
    pub(crate) mode: Option<ModeChange>,
    pub(crate) unpack: bool,
    /// Seconds since 1970, for what has no time of its own.
    pub(crate) now: i64,
}

/// What a transfer came to, ready to be written.
#[derive(Debug)]
pub(crate) struct Collected {
    entries: BTreeMap<PathBuf, Entry>,
    /// Archives to unpack: where they are in the source, and the directory they go to.
    archives: Vec<(PathBuf, PathBuf)>,
}

#[derive(Debug)]
struct Entry {
    kind: EntryKind,
    mode: u32,
    owner: Owner,
    /// Seconds since 1970.
    mtime: i64,
    xattrs: Attributes,
}

#[derive(Debug)]
enum EntryKind {
    Directory,
    Link(PathBuf),
    Fifo,
    /// A file of the source tree with its size.
    Source(PathBuf, u64),
    Inline(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("{0}")]
    Refused(String),
    #[error("{what}: {cause}")]
    Io { what: String, cause: io::Error },
}

impl Transfer {
    /// Copies nothing, but has what [`Transfer::write_directory`] needs.
    pub(crate) fn of_directory(lower: View, owner: Option<Owner>, now: i64) -> Self {
        Self {
            keyword: "WORKDIR",
            source: View::new(Vec::new()),
            from_context: false,
            ignores: Vec::new(),
            lower,
            sources: Vec::new(),
            files: Vec::new(),
            working_directory: String::new(),
            destination: String::new(),
            owner,
            mode: None,
            unpack: false,
            now,
        }
    }

    /// Finds the files and decides where they go.
    pub(crate) fn collect(&self) -> Result<Collected, CopyError> {
        let mut collected = Collected { entries: BTreeMap::new(), archives: Vec::new() };
        let destination = Path::new("/").join(&self.working_directory).join(&self.destination);
        let lower = self
            .lower
            .resolve(&destination)
            .while_doing(|| format!("look up {} in the image", self.destination))?;
        let mut found = Vec::new();
        for source in &self.sources {
            found.extend(self.find(source)?);
        }
        let count = found.len() + self.files.len();
        if count == 0 {
            return Err(self.refused("no source files were specified"));
        }
        let named = self.sources.len() + self.files.len();
        let wants_directory = self.destination.ends_with('/')
            || matches!(self.destination.as_str(), "." | "..")
            || self.destination.ends_with("/.");
        if !wants_directory && (named > 1 || count > 1) && !all_directories(&found) {
            return Err(CopyError::Refused(format!(
                "When using {} with more than one source file, the destination must be a \
                 directory and end with a /",
                self.keyword
            )));
        }
        let exists = lower.node.as_ref().is_some_and(Node::is_directory);
        if lower.node.is_some()
            && !exists
            && (wants_directory || found.iter().any(Found::is_directory))
        {
            return Err(
                self.refused(&format!("cannot copy to non-directory: {}", self.destination))
            );
        }
        let inside = exists || wants_directory;
        for found in found {
            if found.is_directory() {
                if !exists && !lower.path.as_os_str().is_empty() {
                    let entry = self.directory(
                        &found.node,
                        &found.path,
                        found.path.as_os_str().is_empty(),
                    )?;
                    collected.entries.insert(lower.path.clone(), entry);
                }
                self.directory_contents(
                    &mut collected,
                    &found.path,
                    &found.node,
                    &lower.path,
                    lower.node.as_ref(),
                )?;
                continue;
            }
            if self.unpack && self.is_archive(&found)? {
                collected.archives.push((found.path, lower.path.clone()));
                continue;
            }
            let target = if inside { lower.path.join(&found.name) } else { lower.path.clone() };
            let below = match (&lower.node, inside) {
                (Some(node), true) => node
                    .entry(OsStr::new(&found.name))
                    .while_doing(|| format!("look up {} in the image", target.display()))?,
                _ => None,
            };
            self.add(&mut collected, target, found.path, &found.node, below.as_ref())?;
        }
        for (name, content) in &self.files {
            let target = if inside { lower.path.join(name) } else { lower.path.clone() };
            let entry = Entry {
                kind: EntryKind::Inline(content.clone().into_bytes()),
                mode: self.mode.as_ref().map_or(0o644, |change| change.apply(0o644, false)),
                owner: self.owner.unwrap_or(ROOT),
                mtime: self.now,
                xattrs: Vec::new(),
            };
            self.insert(&mut collected, target, entry)?;
        }
        Ok(collected)
    }

    fn directory_contents(
        &self,
        collected: &mut Collected,
        source: &Path,
        node: &Node,
        target: &Path,
        lower: Option<&Node>,
    ) -> Result<(), CopyError> {
        for name in node.names().while_doing(|| format!("list {}", source.display()))? {
            let path = source.join(&name);
            let what = || format!("look up {}", path.display());
            let excluded = self.excludes(&path);
            if excluded && !self.may_keep_below_excluded() {
                continue;
            }
            let Some(child) = node.entry(&name).while_doing(what)? else { continue };
            let mut target = target.join(&name);
            let mut below =
                lower.map(|lower| lower.entry(&name)).transpose().while_doing(what)?.flatten();
            if !child.is_directory() {
                if !excluded {
                    self.add(collected, target, path, &child, below.as_ref())?;
                }
                continue;
            }
            if below.as_ref().is_some_and(|below| below.link_target().is_some()) {
                // A directory copied onto a link goes where the link leads: /var/run is /run.
                let resolved = self.lower.resolve(&target).while_doing(what)?;
                (target, below) = (resolved.path, resolved.node);
            }
            if below.as_ref().is_some_and(|below| !below.is_directory()) {
                let target = target.display();
                return Err(self.refused(&format!("cannot copy to non-directory: /{target}")));
            }
            let before = collected.entries.len();
            self.directory_contents(collected, &path, &child, &target, below.as_ref())?;
            if !excluded || collected.entries.len() > before {
                let entry = self.directory(&child, &path, false)?;
                self.insert(collected, target, entry)?;
            }
        }
        Ok(())
    }

    /// Adds anything but a directory.
    fn add(
        &self,
        collected: &mut Collected,
        target: PathBuf,
        path: PathBuf,
        node: &Node,
        lower: Option<&Node>,
    ) -> Result<(), CopyError> {
        if lower.is_some_and(Node::is_directory) {
            return Err(self.refused(&format!(
                "cannot overwrite the directory /{} with a file",
                target.display()
            )));
        }
        let kind = match node.file_type() {
            FileType::RegularFile => EntryKind::Source(path, node.stat.st_size.max(0) as u64),
            FileType::Symlink => {
                EntryKind::Link(node.link_target().unwrap_or(Path::new("")).into())
            }
            FileType::Fifo => EntryKind::Fifo,
            // A socket means nothing without the process that listens.
            FileType::Socket => return Ok(()),
            _ => {
                return Err(self.refused(&format!("{} is a device file", path.display())));
            }
        };
        let mut entry = self.entry(node, kind);
        if let EntryKind::Source(path, _) = &entry.kind {
            entry.xattrs = attributes(node, path)?;
        }
        self.insert(collected, target, entry)
    }

    fn directory(&self, node: &Node, path: &Path, context_root: bool) -> Result<Entry, CopyError> {
        let mut entry = self.entry(node, EntryKind::Directory);
        if context_root {
            // The context's own directory is this machine's business.
            entry.mode = self.mode.as_ref().map_or(0o755, |change| change.apply(0o755, true));
            entry.owner = self.owner.unwrap_or(ROOT);
        } else {
            entry.xattrs = attributes(node, path)?;
        }
        Ok(entry)
    }

    fn entry(&self, node: &Node, kind: EntryKind) -> Entry {
        let mode = node.stat.st_mode & 0o7777;
        let own = Owner { uid: node.stat.st_uid, gid: node.stat.st_gid };
        let default = if self.from_context { ROOT } else { own };
        let is_link = matches!(kind, EntryKind::Link(_));
        Entry {
            mode: match &self.mode {
                Some(change) if !is_link => change.apply(mode, node.is_directory()),
                _ => mode,
            },
            owner: self.owner.unwrap_or(default),
            mtime: node.stat.st_mtime,
            xattrs: Vec::new(),
            kind,
        }
    }

    fn insert(
        &self,
        collected: &mut Collected,
        target: PathBuf,
        entry: Entry,
    ) -> Result<(), CopyError> {
        if target.iter().any(|name| name.as_bytes().starts_with(b".wh.")) {
            return Err(self.refused(&format!(
                "/{} cannot be stored: in a layer, names that start with .wh. mean deleted files",
                target.display()
            )));
        }
        collected.entries.insert(target, entry);
        Ok(())
    }

    fn is_archive(&self, found: &Found) -> Result<bool, CopyError> {
        if found.node.file_type() != FileType::RegularFile {
            return Ok(false);
        }
        let name = found.path.display();
        archive::is_archive(self.open(&found.path)?).while_doing(|| format!("read {name}"))
    }

    fn refused(&self, message: &str) -> CopyError {
        CopyError::Refused(format!("{} failed: {message}", self.keyword))
    }
}

/// Whose a file shall be that is `text` to the users of the image.
pub(crate) fn resolve_owner(text: &str, image: &View) -> Result<Owner, CopyError> {
    owner::resolve(text, image)
        .while_doing(|| "read the image's users".to_owned())?
        .map_err(CopyError::Refused)
}

/// One directory's contents merge into the destination, whatever its name ends with.
fn attributes(node: &Node, path: &Path) -> Result<Attributes, CopyError> {
    node.attributes().while_doing(|| format!("read the attributes of {}", path.display()))
}

fn all_directories(found: &[Found]) -> bool {
    found.len() == 1 && found.iter().all(Found::is_directory)
}

/// A clean relative path out of one that an archive gives; `None` if it leads upwards.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(clean)
}

trait WhileDoing<T> {
    fn while_doing(self, what: impl FnOnce() -> String) -> Result<T, CopyError>;
}

impl<T> WhileDoing<T> for io::Result<T> {
    fn while_doing(self, what: impl FnOnce() -> String) -> Result<T, CopyError> {
        self.map_err(|cause| CopyError::Io { what: what(), cause })
    }
}

const ROOT: Owner = Owner { uid: 0, gid: 0 };
