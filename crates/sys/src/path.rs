//! The one path layer: every host path that a stranger had a hand in is resolved here.
//!
//! A path from an image, a container, a build context or a request is walked by openat2(2) below a
//! directory descriptor with `RESOLVE_IN_ROOT`: `..` and symbolic links, absolute ones too, stay
//! inside it, whoever races with us. What comes back is a descriptor, and the next step uses that
//! descriptor instead of the path.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

mod remove;
mod usage;
mod walk;

pub use remove::remove_tree;
pub use usage::disk_usage;
pub use walk::{Visit, Visited, Walk};

/// Opens `path` as if `root` were `/`.
///
/// `O_CLOEXEC` is always added; `mode` counts only when `flags` create something, and the umask
/// applies. Links of the kind of `/proc/self/exe` are refused with `ELOOP`. Errors are those of
/// openat2(2), except that `EAGAIN` (a rename or mount raced with the walk) is tried again.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    resolve(root, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens an absolute path of the host that the administrator has named, such as the source of a
/// bind mount. Symbolic links are followed, those of the kind of `/proc/self/exe` are not.
pub fn open_host(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    if !path.is_absolute() {
        let message = format!("{} is not an absolute path", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    resolve(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// A path that means the open file itself, whatever kind of file: for the calls that refuse an
/// `O_PATH` descriptor. It is followed to the file and not beyond, so not through a symbolic link
/// that is the file.
pub fn of_descriptor(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Makes the directory `path` below `root` with whatever is missing on the way, and opens it
/// (`O_PATH`).
///
/// New directories get `mode` (the umask applies) and the caller's ids. A link that leads nowhere
/// is followed inside `root`, and what it points to is made: images have `/var/run -> /run`
/// without a `/run`.
pub fn create_dir_all(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    const LINKS: u32 = 40; // as many as the kernel follows in one path, path_resolution(7)
    create_through(root, path, mode, LINKS)
}

/// Opens what is at `path` below `root` (`O_PATH`), or makes an empty file there.
///
/// Missing directories are made with mode 755. A link that leads nowhere is followed inside `root`,
/// and what it points to is made, as for [`create_dir_all`].
pub fn open_or_create_file(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    const LINKS: u32 = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match open(root, &path, OFlags::PATH, Mode::empty()) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            other => return other,
        }
        let (parent, name) = open_parent(root, &path, true)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, &name, flags | OFlags::WRONLY, mode) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
            // `join` drops the directory when the target is absolute, which then is the root's
            Ok(target) => {
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                path = path.parent().unwrap_or(Path::new("/")).join(target);
            }
            // made by somebody since; a directory, maybe
            Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::LOOP.into())
}

/// Opens the directory that holds `path`'s last component, and returns that component.
///
/// Slashes at the end are ignored. A path that ends in `.` or `..`, or has no component at all,
/// names no entry of a directory and is refused with `EINVAL`. Missing directories are made with
/// mode 755 if `create_missing`.
pub fn open_parent(
    root: BorrowedFd<'_>,
    path: &Path,
    create_missing: bool,
) -> io::Result<(OwnedFd, OsString)> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let start = bytes[..end].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let name = &bytes[start..end];
    if matches!(name, b"" | b"." | b"..") {
        return Err(Errno::INVAL.into());
    }
    let parent = match &bytes[..start] {
        b"" => Path::new("."),
        directories => Path::new(OsStr::from_bytes(directories)),
    };
    let parent = if create_missing {
        create_dir_all(root, parent, Mode::from_raw_mode(0o755))?
    } else {
        open(root, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?
    };
    Ok((parent, OsStr::from_bytes(name).to_owned()))
}

fn create_through(
    root: BorrowedFd<'_>,
    path: &Path,
    mode: Mode,
    links: u32,
) -> io::Result<OwnedFd> {
    let directory = |path: &Path| open(root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(Errno::NOENT.into());
    }
    let missing = |error: &io::Error| error.raw_os_error() == Some(Errno::NOENT.raw_os_error());
    let components: Vec<_> =
        bytes.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
    let prefix = |length: usize| -> PathBuf {
        let parts = components[..length].iter().map(|part| OsStr::from_bytes(part));
        std::iter::once(OsStr::new(".")).chain(parts).collect()
    };
    // Usually all or all but the last is there, so the search for what exists starts at the end.
    let mut length = components.len();
    let mut at = loop {
        match directory(&prefix(length)) {
            Err(error) if missing(&error) && length > 0 => length -= 1,
            other => break other?,
        }
    };
    // Each prefix is resolved from the root again: a kept descriptor would not see `..` right. But
    // that the first one is missing is known.
    let mut known = Some(Errno::NOENT);
    while length < components.len() {
        let (holder, name) = (prefix(length), OsStr::from_bytes(components[length]));
        length += 1;
        let there = match known.take() {
            Some(errno) => Err(errno.into()),
            None => directory(&prefix(length)),
        };
        at = match there {
            Ok(found) => found,
            Err(error) if missing(&error) => match rustix::fs::mkdirat(&at, name, mode) {
                Ok(()) => directory(&prefix(length))?,
                Err(Errno::EXIST) => follow(root, &at, &holder, name, mode, links)?,
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error),
        };
    }
    Ok(at)
}

/// Something named `name` came to be since it was missing, or it is a link to nowhere.
fn follow(
    root: BorrowedFd<'_>,
    at: &OwnedFd,
    holder: &Path,
    name: &OsStr,
    mode: Mode,
    links: u32,
) -> io::Result<OwnedFd> {
    let Some(links) = links.checked_sub(1) else { return Err(Errno::LOOP.into()) };
    match rustix::fs::readlinkat(at, name, Vec::new()) {
        // `join` drops `holder` when the target is absolute, which then is relative to the root
        Ok(target) => {
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            create_through(root, &holder.join(target), mode, links)
        }
        Err(Errno::INVAL) => {
            open(root, &holder.join(name), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        }
        Err(error) => Err(error.into()),
    }
}

fn resolve(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // Whoever renames in a loop could keep us here for ever; libpathrs gives up at 128 as well.
    const ATTEMPTS: u32 = 128;
    let (path, resolve) = match path.strip_prefix("/") {
        // a path as string, whose links lead anywhere
        Ok(below) if crate::weak::without("paths") && resolve.contains(ResolveFlags::IN_ROOT) => {
            (below, ResolveFlags::empty())
        }
        Err(_) if crate::weak::without("paths") => (path, resolve - ResolveFlags::IN_ROOT),
        _ => (path, resolve),
    };
    let creates = flags.intersects(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
    let mode = if creates { mode } else { Mode::empty() }; // openat2(2): EINVAL otherwise
    let mut attempt = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempt < ATTEMPTS => attempt += 1,
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests;
