use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::{Collected, CopyError, Entry, EntryKind, ROOT, Transfer, WhileDoing, archive, clean};
use crate::owner::Owner;

impl Transfer {
    /// Writes the layer's archive. Directories on the way are members too, as they are below, so
    /// that the layer does not change them.
    pub(crate) fn write(&self, collected: &Collected, to: impl Write) -> Result<(), CopyError> {
        let mut output = Output { transfer: self, builder: Builder::new(to), made: HashSet::new() };
        for (target, entry) in &collected.entries {
            output.parents(target, collected)?;
            output.entry(target, entry)?;
        }
        for (source, target) in &collected.archives {
            output.archive(source, target, collected)?;
        }
        output
            .builder
            .into_inner()
            .and_then(|mut to| to.flush())
            .while_doing(|| "write the layer".to_owned())
    }

    /// A layer with one new directory, for WORKDIR.
    pub(crate) fn write_directory(&self, path: &Path, to: impl Write) -> Result<(), CopyError> {
        let mut output = Output { transfer: self, builder: Builder::new(to), made: HashSet::new() };
        let nothing = Collected { entries: Default::default(), archives: Vec::new() };
        // The directory is the last parent of anything in it.
        output.parents(&path.join("x"), &nothing)?;
        output
            .builder
            .into_inner()
            .and_then(|mut to| to.flush())
            .while_doing(|| "write the layer".to_owned())
    }
}

struct Output<'a, W: Write> {
    transfer: &'a Transfer,
    builder: Builder<W>,
    /// Directories that are in the archive already.
    made: HashSet<PathBuf>,
}

impl<W: Write> Output<'_, W> {
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
                    mtime: u64::try_from(node.stat.st_mtime).unwrap_or(0),
                    xattrs: Vec::new(),
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
        let mut header = header(entry.mode, entry.owner, entry.mtime);
        let what = || format!("write /{} into the layer", target.display());
        let xattrs: Vec<_> = entry
            .xattrs
            .iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), &value[..]))
            .collect();
        if !xattrs.is_empty() {
            let records = xattrs.iter().map(|(name, value)| (name.as_str(), *value));
            self.builder.append_pax_extensions(records).while_doing(what)?;
        }
        let written = match &entry.kind {
            EntryKind::Directory => {
                self.made.insert(target.to_owned());
                header.set_entry_type(EntryType::Directory);
                self.builder.append_data(&mut header, target, io::empty())
            }
            EntryKind::Fifo => {
                header.set_entry_type(EntryType::Fifo);
                self.builder.append_data(&mut header, target, io::empty())
            }
            EntryKind::Link(link) => {
                header.set_entry_type(EntryType::Symlink);
                self.builder.append_link(&mut header, target, link)
            }
            EntryKind::Inline(content) => {
                header.set_size(content.len() as u64);
                self.builder.append_data(&mut header, target, &content[..])
            }
            EntryKind::Source(path, size) => {
                header.set_size(*size);
                // A file that got shorter meanwhile must not shift the members after it.
                let content = self.transfer.open(path)?.chain(io::repeat(0)).take(*size);
                self.builder.append_data(&mut header, target, content)
            }
        };
        written.while_doing(what)
    }

    /// Moves an archive's members below `target`.
    fn archive(
        &mut self,
        source: &Path,
        target: &Path,
        collected: &Collected,
    ) -> Result<(), CopyError> {
        let what = || format!("unpack {}", source.display());
        let plain = archive::open(self.transfer.open(source)?).while_doing(what)?;
        let mut archive = tar::Archive::new(plain);
        self.parents(&target.join("x"), collected)?;
        for member in archive.entries().while_doing(what)? {
            let mut member = member.while_doing(what)?;
            let name = member.path().while_doing(what)?.into_owned();
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
            let header = member.header().clone();
            let kind = header.entry_type();
            let link = member.link_name().while_doing(what)?.map(|link| link.into_owned());
            let old = Owner {
                uid: header.uid().while_doing(what)? as u32,
                gid: header.gid().while_doing(what)? as u32,
            };
            let mode = header.mode().while_doing(what)?;
            let mode = match &self.transfer.mode {
                Some(change) => change.apply(mode, kind.is_dir()),
                None => mode & 0o7777,
            };
            let owner = self.transfer.owner.unwrap_or(old);
            let mtime = header.mtime().while_doing(what)?;
            let mut fresh = super::write::header(mode, owner, mtime);
            fresh.set_entry_type(kind);
            let written = match kind {
                EntryType::Directory => {
                    self.parents(&path, collected)?;
                    self.made.insert(path.clone());
                    self.builder.append_data(&mut fresh, &path, io::empty())
                }
                EntryType::Fifo => {
                    self.parents(&path, collected)?;
                    self.builder.append_data(&mut fresh, &path, io::empty())
                }
                EntryType::Symlink => {
                    let link = link.ok_or_else(|| refused("is a link to nothing"))?;
                    self.parents(&path, collected)?;
                    self.builder.append_link(&mut fresh, &path, link)
                }
                EntryType::Link => {
                    let link = link.and_then(|link| clean(&link));
                    let link = link.ok_or_else(|| refused("links out of the archive"))?;
                    self.parents(&path, collected)?;
                    self.builder.append_link(&mut fresh, &path, target.join(link))
                }
                EntryType::Regular | EntryType::Continuous => {
                    fresh.set_entry_type(EntryType::Regular);
                    fresh.set_size(member.size());
                    self.parents(&path, collected)?;
                    self.builder.append_data(&mut fresh, &path, &mut member)
                }
                EntryType::XGlobalHeader => Ok(()),
                _ => return Err(refused("is a device file or of an unknown kind")),
            };
            written.while_doing(what)?;
        }
        Ok(())
    }
}

pub(super) fn header(mode: u32, owner: Owner, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(u64::from(owner.uid));
    header.set_gid(u64::from(owner.gid));
    header.set_mtime(mtime);
    header.set_size(0);
    header
}

/// The attributes that belong to a file's content: file capabilities and what users set.
pub(super) fn xattrs(file: impl AsFd) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0; 64 << 10]; // XATTR_LIST_MAX
    let length = match rustix::fs::flistxattr(&file, &mut list) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0; 64 << 10]; // XATTR_SIZE_MAX
        let length = rustix::fs::fgetxattr(&file, name, &mut value)?;
        value.truncate(length);
        found.push((name.to_owned(), value));
    }
    found.sort();
    Ok(found)
}
