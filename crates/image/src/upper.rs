//! Writes the upper directory of an overlay as a layer's archive.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bulkhead_archive::{Entry, Kind, Packer};
use bulkhead_sys::path::{Visit, Visited, Walk};
use bulkhead_types::IdMap;

use crate::error::{ImageError, While};
use crate::metadata::{self, is_whiteout};

/// Which files are no part of what was changed; of a directory, all that is in it.
pub(crate) type LeftOut<'a> = &'a dyn Fn(&Visited) -> bool;

/// Writes everything below `upper` but what is left out, in the order of names, so that equal trees give equal bytes.
///
/// Whiteouts and opaque marks become the image specification's `.wh.` files, hard links are kept,
/// sockets are left out (nobody listens on them in an image), and ids are translated by `range`.
pub(crate) fn archive(
    upper: BorrowedFd<'_>,
    range: Option<IdMap>,
    left_out: LeftOut<'_>,
    sink: &mut dyn Write,
) -> Result<(), ImageError> {
    let what = || "read the container's files".to_owned();
    let mut archive = Packer::new(io::BufWriter::with_capacity(64 << 10, sink), range);
    let stat = rustix::fs::fstat(upper).doing(what)?;
    // The merged `/` has the owner of the topmost layer's root.
    archive.member(upper, &stat, b"./").doing(what)?;
    mark_opaque(&mut archive, upper, Path::new("")).doing(what)?;
    let mut walk = Walk::new(upper).doing(what)?;
    loop {
        let visit = walk.visit();
        match visit.doing(|| format!("read {} of the container", walk.at().display()))? {
            None => break,
            Some(Visit::Leave) => {}
            Some(Visit::Enter(visited) | Visit::File(visited)) if left_out(&visited) => walk.skip(),
            Some(Visit::Enter(visited)) => {
                member(&mut archive, &visited)?;
                mark_opaque(&mut archive, visited.file.as_fd(), &visited.path)
                    .doing(|| format!("store {}", visited.path.display()))?;
            }
            Some(Visit::File(visited)) => member(&mut archive, &visited)?,
        }
    }
    archive.finish().map(drop).doing(|| "write the layer".to_owned())
}

fn member<W: Write>(archive: &mut Packer<W>, visited: &Visited) -> Result<(), ImageError> {
    let shown = visited.path.display();
    let name = visited.name().as_bytes();
    if is_whiteout(&visited.stat) {
        let mut path = visited.path.clone();
        path.set_file_name(std::ffi::OsStr::from_bytes(&[b".wh.", name].concat()));
        return mark(archive, &path).doing(|| format!("store {shown}"));
    }
    if name.starts_with(b".wh.") {
        return Err(ImageError::BadLayer(format!(
            "{shown} cannot be stored, because names that start with .wh. mean deleted files \
             in an image; remove or rename it"
        )));
    }
    archive
        .member(visited.file.as_fd(), &visited.stat, visited.path.as_os_str().as_bytes())
        .doing(|| format!("store {shown}"))
}

fn mark_opaque<W: Write>(
    archive: &mut Packer<W>,
    directory: BorrowedFd<'_>,
    path: &Path,
) -> io::Result<()> {
    match metadata::is_opaque(directory)? {
        true => mark(archive, &path.join(".wh..wh..opq")),
        false => Ok(()),
    }
}

/// An empty file whose name says what is gone.
fn mark<W: Write>(archive: &mut Packer<W>, path: &Path) -> io::Result<()> {
    let entry = Entry::new(path.as_os_str().as_bytes(), Kind::File { size: 0 });
    archive.file(&Entry { mode: 0, ..entry }, b"")
}
