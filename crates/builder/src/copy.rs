//! COPY and ADD: which files go where, as the members of a new layer.

mod archive;
mod write;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bulkhead_archive::attributes;
use bulkhead_types::glob::{Dialect, Glob};
use bulkhead_types::{Digest, Hasher};
use rustix::fs::FileType;

use crate::ignore::Ignore;
use crate::owner::{ModeChange, Owner};
use crate::view::{Node, View};

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
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
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
                    let entry = self.directory(&found.node, found.path.as_os_str().is_empty());
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

    fn open(&self, path: &Path) -> Result<std::fs::File, CopyError> {
        let what = || format!("open {}", path.display());
        let node = self.source.exact(path).while_doing(what)?;
        match node.map(|node| node.open_file()).transpose().while_doing(what)?.flatten() {
            Some(file) => Ok(file),
            None => Err(self.refused(&format!("{} is gone", path.display()))),
        }
    }

    /// All that one source, maybe a pattern, names.
    fn find(&self, source: &str) -> Result<Vec<Found>, CopyError> {
        let what = || format!("look up {source}");
        let mut parts: Vec<&str> = Vec::new();
        for part in source.split('/') {
            match part {
                "" | "." => {}
                // Above the top there is nothing: `../x` is `x`, as BuildKit has it.
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        if !source.contains(['*', '?', '[']) {
            // A backslash before an ordinary character means the character.
            let path: PathBuf = parts.iter().map(|part| unescaped(part)).collect();
            return match self.found(&path, &path).while_doing(what)? {
                Some(found) => Ok(vec![found]),
                None => Err(self.refused(&self.missing(source))),
            };
        }
        let mut paths = vec![PathBuf::new()];
        for part in parts {
            let glob = Glob::parse(part, Dialect::Match)
                .ok_or_else(|| self.refused(&format!("syntax error in pattern {source}")))?;
            let mut next = Vec::new();
            for path in paths {
                let Some(node) = self.source.resolve(&path).while_doing(what)?.node else {
                    continue;
                };
                for name in node.names().while_doing(what)? {
                    if name.to_str().is_some_and(|name| glob.matches(name)) {
                        next.push(path.join(name));
                    }
                }
            }
            paths = next;
        }
        let found = paths.iter().map(|path| self.found(path, path));
        Ok(found.collect::<io::Result<Vec<_>>>().while_doing(what)?.into_iter().flatten().collect())
    }

    fn found(&self, asked: &Path, path: &Path) -> io::Result<Option<Found>> {
        let resolved = match self.source.resolve(path) {
            Ok(resolved) => resolved,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(node) = resolved.node else { return Ok(None) };
        let hidden = |path: &Path| !path.as_os_str().is_empty() && self.excludes(path);
        let kept_below = node.is_directory() && self.may_keep_below_excluded();
        if (hidden(&resolved.path) || hidden(asked)) && !kept_below {
            return Ok(None);
        }
        let name = asked.file_name().unwrap_or_default().to_owned();
        Ok(Some(Found { name, path: resolved.path, node }))
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
                let entry = self.directory(&child, false);
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
            let file = self.open(path)?;
            // A layer and a context are stored as any namespace's root sees them.
            entry.xattrs = attributes(file.as_fd(), None)
                .while_doing(|| format!("read the attributes of {}", path.display()))?;
        }
        self.insert(collected, target, entry)
    }

    fn directory(&self, node: &Node, context_root: bool) -> Entry {
        let mut entry = self.entry(node, EntryKind::Directory);
        if context_root {
            // The context's own directory is this machine's business.
            entry.mode = self.mode.as_ref().map_or(0o755, |change| change.apply(0o755, true));
            entry.owner = self.owner.unwrap_or(ROOT);
        }
        entry
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

    fn excludes(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        self.ignores.iter().any(|ignore| ignore.excludes(&path))
    }

    fn may_keep_below_excluded(&self) -> bool {
        self.ignores.iter().any(|ignore| ignore.may_keep_below_excluded())
    }

    fn missing(&self, source: &str) -> String {
        let place = if self.from_context {
            "file not found in build context or excluded by .dockerignore: "
        } else {
            ""
        };
        format!("{place}stat {source}: file does not exist")
    }

    fn refused(&self, message: &str) -> CopyError {
        CopyError::Refused(format!("{} failed: {message}", self.keyword))
    }
}

/// One thing that a source names.
#[derive(Debug)]
struct Found {
    /// The name it was asked by, which the copy gets.
    name: std::ffi::OsString,
    /// Where it is, without links.
    path: PathBuf,
    node: Node,
}

impl Found {
    fn is_directory(&self) -> bool {
        self.node.is_directory()
    }
}

/// One directory's contents merge into the destination, whatever its name ends with.
fn all_directories(found: &[Found]) -> bool {
    found.len() == 1 && found.iter().all(Found::is_directory)
}

fn unescaped(part: &str) -> String {
    let mut rest = part.chars();
    let mut text = String::new();
    while let Some(next) = rest.next() {
        match next {
            '\\' => text.extend(rest.next()),
            other => text.push(other),
        }
    }
    text
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
