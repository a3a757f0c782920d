//! Reading and writing the kernel's files below a cgroup's directory descriptor.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

use super::CgroupError;

/// An open directory, and the path by which a person knows it (for messages only).
#[derive(Debug)]
pub(super) struct Directory {
    pub fd: OwnedFd,
    pub path: String,
}

impl Directory {
    /// Opens a directory below this one; `path` is relative. Links and `..` never lead out.
    pub fn open(&self, path: &str) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = openat2(&self.fd, path, flags, Mode::empty(), resolve)?;
        Ok(Self { fd, path: self.file(path) })
    }

    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

pub(super) fn mkdir(root: &Directory, relative: &str) -> Result<(), Errno> {
    mkdirat(&root.fd, relative, Mode::from_raw_mode(0o755))
}

pub(super) fn open(root: &Directory, relative: &str) -> Result<Directory, CgroupError> {
    root.open(relative)
        .map_err(|errno| CgroupError::Open { file: root.file(relative), cause: errno.into() })
}

pub(super) fn write(directory: &Directory, name: &str, value: &str) -> Result<(), CgroupError> {
    write_each(directory, name, [value.to_owned()])
}

/// Writes several settings to one file, one after the other.
pub(super) fn write_each(
    directory: &Directory,
    name: &str,
    values: impl IntoIterator<Item = String>,
) -> Result<(), CgroupError> {
    let file = open_for_writing(directory, name);
    for value in values {
        let written = file.as_ref().map_err(|errno| *errno).and_then(|file| set(file, &value));
        written.map_err(|errno| CgroupError::Write {
            value,
            file: directory.file(name),
            cause: errno.into(),
        })?;
    }
    Ok(())
}

pub(super) fn try_write(directory: &Directory, name: &str, value: &str) -> Result<(), Errno> {
    set(&open_for_writing(directory, name)?, value)
}

fn open_for_writing(directory: &Directory, name: &str) -> Result<OwnedFd, Errno> {
    // some names are put together from what a config says
    if name.contains('/') {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&directory.fd, name, flags, Mode::empty())
}

/// One write is one setting: the kernel takes it whole or refuses it.
fn set(file: &OwnedFd, value: &str) -> Result<(), Errno> {
    rustix::io::write(file, value.as_bytes()).map(|_| ())
}

pub(super) fn read(directory: &Directory, name: &str) -> Result<String, CgroupError> {
    try_read(directory, name)
        .map_err(|cause| CgroupError::Read { file: directory.file(name), cause })
}

pub(super) fn try_read(directory: &Directory, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&directory.fd, name, flags, Mode::empty())?;
    // one read serves all but the longest; std would ask for size and position first
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        match rustix::io::read(&file, &mut bytes[length..])? {
            0 => break,
            read => length += read,
        }
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a file of one number; `max` is `None`.
pub(super) fn read_number(directory: &Directory, name: &str) -> Result<Option<u64>, CgroupError> {
    let text = read(directory, name)?;
    match text.trim() {
        "max" => Ok(None),
        number => number.parse().map(Some).map_err(|_| CgroupError::Unexpected {
            file: directory.file(name),
            text: number.to_owned(),
        }),
    }
}

/// Finds `key VALUE` in a file of such lines.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
