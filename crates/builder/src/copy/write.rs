//! What was collected, as a layer's archive.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bulkhead_archive::{
    CopyError as Failed, Entry as Member, Kind, Limits, Reader, Time, Writer, copy,
};

use super::{Collected, CopyError, Entry, EntryKind, ROOT, Transfer, WhileDoing, clean};
use crate::owner::Owner;

impl Transfer {
    /// Writes the layer's archive. Directories on the way are members too, as they are below, so
    /// that the layer does not change them.
    pub(crate) fn write(&self, collected: &Collected, to: impl Write) -> Result<(), CopyError> {
        let mut output = Output { transfer: self, writer: Writer::new(to), made: HashSet::new() };
        for (target, entry) in &collected.entries {
            output.parents(target, collected)?;
            output.entry(target, entry)?;
        }
        for (source, target) in &collected.archives {
            output.archive(source, target, collected)?;
        }
        output.finish()
    }

    /// A layer with one new directory, for WORKDIR.
    pub(crate) fn write_directory(&self, path: &Path, to: impl Write) -> Result<(), CopyError> {
        let mut output = Output { transfer: self, writer: Writer::new(to), made: HashSet::new() };
        let nothing = Collected { entries: Default::default(), archives: Vec::new() };
        // The directory is the last parent of anything in it.
        output.parents(&path.join("x"), &nothing)?;
        output.finish()
    }
}

struct Output<'a, W: Write> {
    transfer: &'a Transfer,
    writer: Writer<W>,
    /// Directories that are in the archive already.
    made: HashSet<PathBuf>,
}

impl<W: Write> Output<'_, W> {
    fn finish(self) -> Result<(), CopyError> {
        self.writer.finish().map(drop).while_doing(|| "write the layer".to_owned())
    }

    fn parents(&mut self, target: &Path, collected: &Collected) -> Result<(), CopyError> {
        let mut ancestors: Vec<_> = target.ancestors().skip(1).collect();
        ancestors.reverse();
        for path in ancestors {
            if path.as_os_str().is_empty()
                || self.made.contains(path)
                || collected.entries.contains_key(path)
            {
                continue;
            }
            let what = || format!("look up /{} in the image", path.display());
            let entry = match self.transfer.lower.exact(path).while_doing(what)? {
                Some(node) if node.is_directory() => Entry {
                    kind: EntryKind::Directory,
                    mode: node.stat.st_mode & 0o7777,
                    owner: Owner { uid: node.stat.st_uid, gid: node.stat.st_gid },
                    mtime: node.stat.st_mtime,
                    xattrs: node.attributes().while_doing(what)?,
                },
                _ => Entry {
                    kind: EntryKind::Directory,
                    mode: 0o755,
                    owner: self.transfer.owner.unwrap_or(ROOT),
                    mtime: self.transfer.now,
                    xattrs: Vec::new(),
                },
            };
            self.entry(path, &entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, target: &Path, entry: &Entry) -> Result<(), CopyError> {
        let what = || format!("write /{} into the layer", target.display());
        let kind = match &entry.kind {
            EntryKind::Directory => Kind::Directory,
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Link(link) => Kind::Symlink { target: link.as_os_str().as_bytes().to_vec() },
            EntryKind::Inline(content) => Kind::File { size: content.len() as u64 },
            EntryKind::Source(_, size) => Kind::File { size: *size },
        };
        let member = Member {
            path: member_path(target, &kind),
            kind,
            mode: entry.mode,
            uid: entry.owner.uid,
            gid: entry.owner.gid,
            // Seconds, as the classic client sends them: one context gives one layer, whoever
            // sent it.
            mtime: Time { seconds: entry.mtime, nanoseconds: 0 },
            xattrs: entry.xattrs.clone(),
        };
        match &entry.kind {
            EntryKind::Directory => drop(self.made.insert(target.to_owned())),
            EntryKind::Inline(content) => {
                return self.writer.file(&member, content).while_doing(what);
            }
            EntryKind::Source(path, size) => {
                let content = self.transfer.open(path)?;
                self.writer.start(&member).while_doing(what)?;
                // The writer fills a file up that got shorter meanwhile.
                let copied = io::copy(&mut content.take(*size), &mut self.writer);
                return copied.map(drop).while_doing(what);
            }
            EntryKind::Fifo | EntryKind::Link(_) => {}
        }
        self.writer.start(&member).while_doing(what)
    }

    /// Moves an archive's members below `target`.
    fn archive(
        &mut self,
        source: &Path,
        target: &Path,
        collected: &Collected,
    ) -> Result<(), CopyError> {
        let what = || format!("unpack {}", source.display());
        let file = self.transfer.open(source)?;
        let mut archive = Reader::open(file, Limits::LAYER).while_doing(what)?;
        self.parents(&target.join("x"), collected)?;
        while let Some(mut member) = archive.next_entry().while_doing(what)? {
            let name = Path::new(std::ffi::OsStr::from_bytes(&member.path)).to_owned();
            let refused = |why: &str| {
                self.transfer.refused(&format!("{}: {} {why}", source.display(), name.display()))
            };
            let path =
                target.join(clean(&name).ok_or_else(|| refused("leads out of the archive"))?);
            if path == target {
                continue;
            }
            if path.iter().any(|name| name.as_bytes().starts_with(b".wh.")) {
                return Err(refused("cannot be stored: in a layer, .wh. means a deleted file"));
            }
            match &mut member.kind {
                Kind::Symlink { target } if target.is_empty() => {
                    return Err(refused("is a link to nothing"));
                }
                Kind::HardLink { target: link } => {
                    let inside = clean(Path::new(std::ffi::OsStr::from_bytes(link)));
                    let inside = inside.ok_or_else(|| refused("links out of the archive"))?;
                    *link = target.join(inside).into_os_string().as_bytes().to_vec();
                }
                Kind::BlockDevice { .. } | Kind::CharDevice { .. } => {
                    return Err(refused("is a device file"));
                }
                _ => {}
            }
            let is_directory = member.kind == Kind::Directory;
            if let Some(change) = &self.transfer.mode {
                member.mode = change.apply(member.mode, is_directory);
            }
            if let Some(owner) = self.transfer.owner {
                (member.uid, member.gid) = (owner.uid, owner.gid);
            }
            member.path = member_path(&path, &member.kind);
            self.parents(&path, collected)?;
            if is_directory {
                self.made.insert(path);
            }
            self.writer.start(&member).while_doing(what)?;
            copy(&mut archive, &mut self.writer)
                .map_err(|(Failed::Read(error) | Failed::Write(error))| error)
                .while_doing(what)?;
        }
        Ok(())
    }
}

/// A directory's name ends with a slash, as tar(1) writes it.
fn member_path(path: &Path, kind: &Kind) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if *kind == Kind::Directory {
        bytes.push(b'/');
    }
    bytes
}
