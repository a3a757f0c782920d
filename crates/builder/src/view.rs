//! Reads the files of several layers as one tree, the way a mounted overlay would show them.
//!
//! A path is walked one component at a time from directory descriptors; symbolic links are
//! followed by this code and never by the kernel, so nothing leads out of the layers. A build
//! context is read the same way: it is a tree of one layer.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bulkhead_archive::attributes;
use bulkhead_sys::path;
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Layers, highest first.
#[derive(Debug, Clone)]
pub(crate) struct View {
    layers: Arc<Vec<OwnedFd>>,
}

/// Names and values, sorted.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Something in the tree, not followed if it is a link.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) stat: Stat,
    kind: NodeKind,
}

#[derive(Debug)]
enum NodeKind {
    Directory(Directory),
    Link(PathBuf),
    /// Opened with `O_PATH`.
    Other(OwnedFd),
}

/// One directory as the layers have it, highest first; those below an opaque one are left out.
#[derive(Debug)]
struct Directory(Vec<OwnedFd>);

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Without links, `.` and `..`, relative to the root.
    pub(crate) path: PathBuf,
    /// `None`: the last component, or one before it, is not there.
    pub(crate) node: Option<Node>,
}

impl View {
    /// `layers` are directories as overlayfs takes them, lowest first.
    pub(crate) fn new(mut layers: Vec<OwnedFd>) -> Self {
        layers.reverse();
        Self { layers: Arc::new(layers) }
    }

    /// Follows all links, also a last one. Components that are not there are kept as they are,
    /// but `..` behind them is resolved.
    pub(crate) fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        let mut found = PathBuf::new();
        let mut at = Some(self.root()?);
        let mut links = 0;
        // What is still to be walked, next component last.
        let mut open: Vec<OsString> = components(path);
        while let Some(name) = open.pop() {
            if name == ".." {
                found.pop();
                at = self.exact(&found)?;
                continue;
            }
            let next = match &at {
                Some(Node { kind: NodeKind::Directory(directory), .. }) => {
                    directory.entry(&name)?
                }
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => None,
            };
            if let Some(Node { kind: NodeKind::Link(target), .. }) = &next {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP.into());
                }
                if target.is_absolute() {
                    found = PathBuf::new();
                    at = Some(self.root()?);
                }
                open.extend(components(target));
                continue;
            }
            found.push(&name);
            at = next;
        }
        Ok(Resolved { path: found, node: at })
    }

    /// The node at a path without links before its last component; not followed.
    pub(crate) fn exact(&self, path: &Path) -> io::Result<Option<Node>> {
        let mut at = self.root()?;
        for name in path {
            let NodeKind::Directory(directory) = &at.kind else { return Ok(None) };
            match directory.entry(name)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Reads a small file such as `/etc/passwd`; `None` if it is not there or not a file.
    pub(crate) fn read_small(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(node) = self.resolve(path)?.node else { return Ok(None) };
        let Some(file) = node.open_file()? else { return Ok(None) };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes)?;
        Ok(Some(bytes))
    }

    fn root(&self) -> io::Result<Node> {
        let mut directories = Vec::new();
        let mut first = None;
        for layer in self.layers.iter() {
            let directory = path::open(layer.as_fd(), Path::new("."), DIRECTORY, Mode::empty())?;
            if first.is_none() {
                first = Some(rustix::fs::fstat(&directory)?);
            }
            let opaque = is_opaque(&directory)?;
            directories.push(directory);
            if opaque {
                break;
            }
        }
        // Without layers (FROM scratch) the root is an empty directory of nobody in particular.
        let stat = match first {
            Some(stat) => stat,
            None => {
                return Ok(Node {
                    stat: empty_root()?,
                    kind: NodeKind::Directory(Directory(Vec::new())),
                });
            }
        };
        Ok(Node { stat, kind: NodeKind::Directory(Directory(directories)) })
    }
}

impl Node {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory(_))
    }

    pub(crate) fn link_target(&self) -> Option<&Path> {
        match &self.kind {
            NodeKind::Link(target) => Some(target),
            _ => None,
        }
    }

    /// What it has beside its content, as any namespace's root sees it: layers and contexts are
    /// stored so. None of a link.
    pub(crate) fn attributes(&self) -> io::Result<Attributes> {
        match &self.kind {
            // As in an overlay: those of the highest layer that has the directory.
            NodeKind::Directory(Directory(layers)) => match layers.first() {
                Some(highest) => attributes(highest.as_fd(), None),
                None => Ok(Vec::new()),
            },
            NodeKind::Other(file) => attributes(file.as_fd(), None),
            NodeKind::Link(_) => Ok(Vec::new()),
        }
    }

    /// Opens a regular file for reading; `None` if it is something else.
    pub(crate) fn open_file(&self) -> io::Result<Option<std::fs::File>> {
        let NodeKind::Other(file) = &self.kind else { return Ok(None) };
        if self.file_type() != FileType::RegularFile {
            return Ok(None);
        }
        // A descriptor opened with O_PATH is reopened by its number; no path of ours is in it.
        let number = std::os::fd::AsRawFd::as_raw_fd(file);
        std::fs::File::open(format!("/proc/self/fd/{number}")).map(Some)
    }

    /// The names in a directory, sorted; empty for anything else.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let NodeKind::Directory(directory) = &self.kind else { return Ok(Vec::new()) };
        // name → hidden by a whiteout
        let mut names: BTreeMap<OsString, bool> = BTreeMap::new();
        for layer in &directory.0 {
            for entry in Dir::read_from(layer)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let whiteout = entry.file_type() == FileType::CharacterDevice
                    && is_whiteout(&rustix::fs::statat(
                        layer,
                        entry.file_name(),
                        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
                    )?);
                names.entry(OsStr::from_bytes(name).to_owned()).or_insert(whiteout);
            }
        }
        Ok(names.into_iter().filter(|(_, hidden)| !hidden).map(|(name, _)| name).collect())
    }

    /// One entry of a directory, not followed.
    pub(crate) fn entry(&self, name: &OsStr) -> io::Result<Option<Node>> {
        match &self.kind {
            NodeKind::Directory(directory) => directory.entry(name),
            _ => Ok(None),
        }
    }
}

impl Directory {
    fn entry(&self, name: &OsStr) -> io::Result<Option<Node>> {
        let mut merged: Option<(Stat, Vec<OwnedFd>)> = None;
        for layer in &self.0 {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let file = match path::open(layer.as_fd(), Path::new(name), flags, Mode::empty()) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let stat = rustix::fs::fstat(&file)?;
            if is_whiteout(&stat) {
                break;
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let directory =
                        path::open(file.as_fd(), Path::new("."), DIRECTORY, Mode::empty())?;
                    let opaque = is_opaque(&directory)?;
                    merged.get_or_insert_with(|| (stat, Vec::new())).1.push(directory);
                    if opaque {
                        break;
                    }
                }
                // A directory above hides a file below, and that ends the merging.
                _ if merged.is_some() => break,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&file, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    return Ok(Some(Node { stat, kind: NodeKind::Link(target) }));
                }
                _ => return Ok(Some(Node { stat, kind: NodeKind::Other(file) })),
            }
        }
        Ok(merged.map(|(stat, layers)| Node { stat, kind: NodeKind::Directory(Directory(layers)) }))
    }
}

/// The components to walk, last first; `.` and slashes are dropped.
fn components(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    parts.collect()
}

/// Linux: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What stat(2) says of a directory that any host has: only its type and mode are used.
fn empty_root() -> io::Result<Stat> {
    let root = path::open_host(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY)?;
    let mut stat = rustix::fs::fstat(&root)?;
    (stat.st_mode, stat.st_uid, stat.st_gid) = (0o040_755, 0, 0);
    Ok(stat)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// As many links as the kernel follows in one path, path_resolution(7).
const LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, XattrFlags};

    use super::*;

    /// Directories named from the lowest layer up.
    fn view(directories: &[&Path]) -> View {
        let open = |path: &&Path| path::open_host(path, OFlags::PATH | OFlags::DIRECTORY);
        View::new(directories.iter().map(|path| open(path).expect("a layer")).collect())
    }

    fn put(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes it");
        std::fs::write(path, text).expect("writes it");
    }

    fn text(view: &View, path: &str) -> Option<String> {
        let bytes = view.read_small(Path::new(path), 100).expect(path)?;
        Some(String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn layers_are_one_tree() {
        let directory = tempfile::tempdir().expect("a directory");
        let (low, high) = (directory.path().join("low"), directory.path().join("high"));
        put(low.join("both/low"), "low");
        put(low.join("same"), "old");
        put(low.join("gone/x"), "x");
        put(low.join("fresh/old"), "old");
        put(low.join("run/x"), "x");
        std::fs::create_dir_all(low.join("var")).expect("makes it");
        symlink("/run", low.join("var/run")).expect("links");
        symlink("../../../../etc/hostname", low.join("out")).expect("links");
        symlink("loop", low.join("loop")).expect("links");
        put(high.join("both/high"), "high");
        put(high.join("same"), "new");
        put(high.join("fresh/new"), "new");
        let opaque = rustix::fs::setxattr(
            high.join("fresh"),
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        );
        if opaque.is_err() {
            return bulkhead_sys::testing::skip("no trusted extended attributes in TMPDIR");
        }
        rustix::fs::mknodat(CWD, high.join("gone"), FileType::CharacterDevice, Mode::empty(), 0)
            .expect("root may make a whiteout");

        let view = view(&[&low, &high]);
        for (path, want) in [
            ("both/low", Some("low")),
            ("/both/high", Some("high")),
            ("same", Some("new")),
            ("gone/x", None),
            ("fresh/old", None),
            ("fresh/new", Some("new")),
            ("var/run/x", Some("x")),
            ("var/run/../same", Some("new")),
            ("both/../../../same", Some("new")),
            ("out", None),
        ] {
            assert_eq!(text(&view, path).as_deref(), want, "{path}");
        }
        let names = |path| {
            view.resolve(Path::new(path)).expect(path).node.expect(path).names().expect("names")
        };
        assert_eq!(names("/"), ["both", "fresh", "loop", "out", "run", "same", "var"]);
        assert_eq!(names("both"), ["high", "low"]);
        assert_eq!(names("fresh"), ["new"]);
        assert_eq!(view.resolve(Path::new("loop")).expect_err("a loop").raw_os_error(), Some(40));
        let missing = view.resolve(Path::new("/var/run/new/../a/b")).expect("resolves");
        assert_eq!((missing.path.as_path(), missing.node.is_none()), (Path::new("run/a/b"), true));
        let absent = view.resolve(Path::new("out")).expect("resolves");
        assert_eq!(absent.path, Path::new("etc/hostname"));
    }

    #[test]
    fn no_layers_are_an_empty_root() {
        let view = View::new(Vec::new());
        let root = view.resolve(Path::new("/")).expect("resolves").node.expect("a root");
        assert!(root.is_directory() && root.names().expect("names").is_empty());
    }
}
