//! Extended attributes of files: those that belong to an archive, and whose root a file capability
//! speaks of.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use bulkhead_sys::path::of_descriptor;
use bulkhead_types::IdMap;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

const CAPABILITY: &[u8] = b"security.capability";

/// Reads the attributes that an archive carries, sorted by name.
///
/// `file` may be an `O_PATH` descriptor, but not of a symbolic link. File capabilities of the root
/// of `range` come as any namespace's root has them, which is the form that archives and layers
/// hold (capabilities(7), "File capability extended attribute versioning").
pub fn attributes(
    file: BorrowedFd<'_>,
    range: Option<IdMap>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in names(file)?.into_iter().filter(|name| is_kept(name)) {
        let Some(value) = attribute(file, &name)? else { continue };
        let value = if name == CAPABILITY { capability_inside(value, range) } else { Some(value) };
        found.extend(value.map(|value| (name, value)));
    }
    found.sort();
    Ok(found)
}

/// Sets attributes that an archive gave, less those that no archive may give.
///
/// `file` may be an `O_PATH` descriptor, but not of a symbolic link. It comes after a change of
/// owner, which takes file capabilities away (chown(2)).
pub fn set_attributes(
    file: BorrowedFd<'_>,
    attributes: &[(Vec<u8>, Vec<u8>)],
    range: Option<IdMap>,
) -> io::Result<()> {
    let path = of_descriptor(file);
    for (name, value) in attributes.iter().filter(|(name, _)| is_kept(name)) {
        let capability = (name == CAPABILITY).then(|| capability_outside(value, range));
        let value = capability.transpose()?.unwrap_or_else(|| value.clone());
        match rustix::fs::setxattr(&path, OsStr::from_bytes(name), &value, XattrFlags::empty()) {
            // As Docker: `user.` is refused on devices, and not every file system has ACLs.
            Err(Errno::NOTSUP | Errno::PERM) if !name.starts_with(b"security.") => {}
            other => other?,
        }
    }
    Ok(())
}

/// One attribute's value; `None` if the file has no such attribute.
pub fn attribute(file: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let path = of_descriptor(file);
    let mut buffer = vec![0; 256];
    loop {
        match rustix::fs::getxattr(&path, OsStr::from_bytes(name), &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0), // ends at 64 KiB: xattr(7)
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn names(file: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let path = of_descriptor(file);
    let mut buffer = vec![0; 1024];
    loop {
        match rustix::fs::listxattr(&path, &mut buffer[..]) {
            Ok(length) => {
                let names = buffer[..length].split(|byte| *byte == 0);
                return Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect());
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Which attributes belong to an image. `trusted.` ones, and overlayfs's under `user.`, would be
/// commands to overlay mounts, and labels (`security.selinux`, `security.ima`) are the host's.
fn is_kept(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
        || name == CAPABILITY
}

/// Revision 2, which means the root of any namespace that the file is seen from, and revision 3,
/// which names one by its host id (Linux: include/uapi/linux/capability.h, vfs_ns_cap_data).
const REVISION_2: u8 = 2;
const REVISION_3: u8 = 3;
const LENGTH_2: usize = 20;
const LENGTH_3: usize = 24;

/// The capability as it is seen inside; `None`: it is of a root outside, and means nothing there.
fn capability_inside(mut value: Vec<u8>, range: Option<IdMap>) -> Option<Vec<u8>> {
    let Some(root) = named_root(&value) else { return Some(value) };
    match range.map_or(Some(root), |range| range.inside(root))? {
        0 => {
            value[3] = REVISION_2;
            value.truncate(LENGTH_2);
        }
        root => value[LENGTH_2..].copy_from_slice(&root.to_le_bytes()),
    }
    Some(value)
}

/// The capability as the host has to store it, so that it counts inside and nowhere else.
fn capability_outside(value: &[u8], range: Option<IdMap>) -> io::Result<Vec<u8>> {
    let Some(range) = range else { return Ok(value.to_vec()) };
    let root = match named_root(value) {
        Some(root) => root,
        None if value.len() == LENGTH_2 && value[3] == REVISION_2 => 0,
        None => return Ok(value.to_vec()),
    };
    let Some(root) = range.outside(root) else {
        let message = format!("its file capability is of root {root}, which the container has not");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    let mut value = [&value[..LENGTH_2], &root.to_le_bytes()].concat();
    value[3] = REVISION_3;
    Ok(value)
}

fn named_root(value: &[u8]) -> Option<u32> {
    let is_3 = value.len() == LENGTH_3 && value[3] == REVISION_3;
    is_3.then(|| u32::from_le_bytes(*value.last_chunk().expect("24 bytes")))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const RANGE: IdMap = IdMap::new(700_000, 65_536);

    fn capability(revision: u8, root: Option<u32>) -> Vec<u8> {
        let mut value = vec![1, 0, 0, revision];
        value.extend([0, 32, 0, 0].iter().chain(&[0; 12]));
        value.extend(root.map(u32::to_le_bytes).into_iter().flatten());
        value
    }

    #[test]
    fn capabilities_mean_the_containers_root() {
        let (two, three) = (|| capability(2, None), |root| capability(3, Some(root)));
        for (host, range, inside) in [
            (two(), Some(RANGE), Some(two())),
            (two(), None, Some(two())),
            (three(700_000), Some(RANGE), Some(two())),
            (three(700_005), Some(RANGE), Some(three(5))),
            (three(5), Some(RANGE), None),
            (three(700_000), None, Some(three(700_000))),
            (three(0), None, Some(two())),
        ] {
            assert_eq!(capability_inside(host.clone(), range), inside, "{host:?} {range:?}");
        }
        for (inside, range, host) in [
            (two(), Some(RANGE), Some(three(700_000))),
            (two(), None, Some(two())),
            (three(5), Some(RANGE), Some(three(700_005))),
            (three(70_000), Some(RANGE), None),
        ] {
            assert_eq!(capability_outside(&inside, range).ok(), host, "{inside:?} {range:?}");
        }
    }

    #[test]
    fn only_what_belongs_to_an_archive_is_set_and_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let given: Vec<(Vec<u8>, Vec<u8>)> = [
            ("security.capability", capability(2, None)),
            ("security.selinux", b"system_u:object_r:x".to_vec()),
            ("trusted.overlay.opaque", b"y".to_vec()),
            ("user.note", vec![7; 3000]),
            ("user.overlay.opaque", b"y".to_vec()),
        ]
        .map(|(name, value)| (name.as_bytes().to_vec(), value))
        .into();
        set_attributes(file.as_file().as_fd(), &given, Some(RANGE)).expect("attributes");
        let read = attributes(file.as_file().as_fd(), Some(RANGE)).expect("attributes");
        let mut names = read.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        let names: Vec<String> = names.by_ref().collect();
        // a file system without user attributes keeps the capability alone
        assert!(names.iter().all(|name| name == "security.capability" || name == "user.note"));
        assert_eq!(read[0], given[0]);
        let stored = attribute(file.as_file().as_fd(), CAPABILITY).expect("read").expect("there");
        assert_eq!(named_root(&stored), Some(RANGE.first));
    }
}
