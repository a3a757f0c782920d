//! What a container's mounts lead to: bind mounts, the content of new volumes and our own small files.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_runtime::{Mount, MountKind};
use bulkhead_sys::mount::{self, Depth};
use bulkhead_sys::path;
use bulkhead_types::IdMap;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::clone_mount::{Below, clone_mount, clone_shared, is_directory};
use crate::data_dir::DataDir;
use crate::descriptors::Descriptors;
use crate::error::io_error;
use crate::{BindOptions, EngineError, MissingSource, MountPoint, MountsBelow, Propagation, copy};

/// A bind mount with what its options say.
pub(crate) fn bind(
    point: &MountPoint,
    options: &BindOptions,
    source: OwnedFd,
    users: Option<BorrowedFd<'_>>,
    descriptors: &mut Descriptors,
) -> Result<MountKind, EngineError> {
    let failed = |errno: Errno| io_error(format!("bind {}", point.source))(errno.into());
    let is_directory = is_directory(&source).map_err(io_error(format!("bind {}", point.source)))?;
    let below = match options.below {
        MountsBelow::Leave => Below::Without,
        _ => Below::With,
    };
    let propagation = match options.propagation {
        Propagation::Private | Propagation::Rprivate => mount::Propagation::Private,
        // For all that is below too: a mount below that stayed a peer of the host's would show the
        // host what the container mounts.
        Propagation::Slave | Propagation::Rslave => mount::Propagation::Slave,
        Propagation::Shared | Propagation::Rshared => mount::Propagation::Shared,
    };
    let is_private = propagation == mount::Propagation::Private;
    let writable_below = point.readonly && options.below == MountsBelow::FollowWritable;
    if is_private && !writable_below {
        let clone = clone_mount(source.as_fd(), users, below).map_err(failed)?;
        return Ok(MountKind::Detached { fd: descriptors.add(clone), is_directory });
    }
    if !is_private && !is_shared(&source).map_err(io_error(&point.source))? {
        return Err(EngineError::invalid(format!(
            "path {} is not on a shared mount, as propagation {} needs; make it one with mount \
             --make-shared",
            point.source, options.propagation
        )));
    }
    let clone = clone_shared(source.as_fd(), users, below).map_err(failed)?;
    if is_directory {
        let nodev = mount::Attributes::NODEV;
        mount::set_attributes(clone.as_fd(), Depth::Tree, nodev).map_err(failed)?;
    }
    if point.readonly {
        let depth = if writable_below { Depth::One } else { Depth::Tree };
        mount::set_attributes(clone.as_fd(), depth, mount::Attributes::RDONLY).map_err(failed)?;
    }
    Ok(MountKind::Bound { fd: descriptors.add(clone), propagation })
}

/// Whether the mount that a descriptor is on passes mounts on (proc_pid_mountinfo(5): the optional
/// fields `shared:` and `master:`).
fn is_shared(fd: &OwnedFd) -> std::io::Result<bool> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let own = mounts.lines().find(|line| line.split(' ').next() == id);
    Ok(own.is_some_and(|line| {
        line.split(' ')
            .skip(6)
            .take_while(|word| *word != "-")
            .any(|word| word.starts_with("shared:") || word.starts_with("master:"))
    }))
}

/// Opens what a bind mount leads to; `-v` makes a directory where nothing is.
pub(crate) fn open_bind(
    point: &MountPoint,
    missing: MissingSource,
) -> Result<OwnedFd, EngineError> {
    let source = Path::new(&point.source);
    match path::open_host(source, OFlags::PATH) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if missing == MissingSource::Refuse {
                return Err(no_bind_source(&point.source));
            }
            std::fs::create_dir_all(source).map_err(io_error(&point.source))?;
            path::open_host(source, OFlags::PATH).map_err(io_error(&point.source))
        }
        other => other.map_err(io_error(&point.source)),
    }
}

/// The nodes right below `/dev` that a privileged container gets. Terminals are left out: a
/// container has its own, and there are more of them than descriptors fit into a message.
pub(crate) fn host_devices() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    let node = |entry: std::io::Result<std::fs::DirEntry>| {
        use std::os::unix::fs::FileTypeExt;
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        let name = entry.file_name().into_string().ok()?;
        let terminal =
            ["tty", "vcs", "pty", "ptmx", "console"].iter().any(|it| name.starts_with(it));
        ((kind.is_char_device() || kind.is_block_device()) && !terminal).then_some(name)
    };
    let mut names: Vec<String> = entries.filter_map(node).collect();
    names.sort();
    names.truncate(128);
    names
}

/// Copies what the image has at `target` into a volume that is still empty, owners as inside.
pub(crate) fn fill_volume(
    data: &OwnedFd,
    rootfs: BorrowedFd<'_>,
    target: &str,
    range: Option<IdMap>,
) -> std::io::Result<()> {
    let mut entries = rustix::fs::Dir::read_from(data)?;
    let is_empty = !entries.any(|entry| {
        entry.is_ok_and(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))
    });
    if !is_empty {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match path::open(rootfs, Path::new(target), flags, Mode::empty()) {
        Ok(source) => copy::copy_directory(source.as_fd(), data.as_fd(), range),
        // The image has nothing there, or no directory.
        Err(_) => Ok(()),
    }
}

pub(crate) fn is_device_node(fd: &OwnedFd) -> std::io::Result<bool> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    Ok(matches!(kind, FileType::CharacterDevice | FileType::BlockDevice))
}

/// One of the three files that tell a container who it is, as a mount.
pub(crate) fn file_mount(
    data_dir: &DataDir,
    owner: bulkhead_types::Id,
    name: &str,
    users: Option<BorrowedFd<'_>>,
    readonly: bool,
    descriptors: &mut Descriptors,
) -> Result<Mount, EngineError> {
    let directory = data_dir.container(owner)?;
    let open = || -> std::io::Result<OwnedFd> {
        let file = path::open(directory.as_fd(), Path::new(name), OFlags::PATH, Mode::empty())?;
        Ok(clone_mount(file.as_fd(), users, Below::Without)?)
    };
    let clone = open().map_err(io_error(format!("bind {name} of container {}", owner.short())))?;
    Ok(Mount {
        target: format!("/etc/{name}"),
        kind: MountKind::Detached { fd: descriptors.add(clone), is_directory: false },
        readonly,
        nosuid: true,
        nodev: true,
        noexec: true,
    })
}

pub(crate) fn no_bind_source(path: &str) -> EngineError {
    EngineError::invalid(format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {path}"
    ))
}
