//! What a container's mounts lead to: bind mounts, volumes and our own small files, cloned from the
//! host and id-mapped into the container's user namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_runtime::cgroup::DeviceRule;
use bulkhead_runtime::defaults;
use bulkhead_runtime::{Device, Mount, MountKind};
use bulkhead_sys::mount::{self, Depth};
use bulkhead_sys::path;
use bulkhead_types::IdMap;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::data_dir::DataDir;
use crate::descriptors::Descriptors;
use crate::error::io_error;
use crate::mount_requests::tmpfs_options;
use crate::{Container, DeviceRequest, Engine, EngineError, MountPoint, MountType, copy};

/// Whether what is bound from the host is seen with its mounts below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    With,
    Without,
}

/// Clones the mount at `source` and maps its owners through `users`. A file system that cannot be
/// id-mapped (such as most network and FUSE ones) is bound as it is: its files then belong to
/// nobody inside, which fails closed.
pub(crate) fn clone_mount(
    source: BorrowedFd<'_>,
    users: Option<BorrowedFd<'_>>,
    below: Below,
) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if below == Below::With {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let clone = rustix::mount::open_tree(source, "", flags)?;
    // Neither side sees what the other mounts later.
    mount::set_private(clone.as_fd(), Depth::Tree)?;
    if let Some(users) = users {
        let mapped = match mount::set_id_mapping(clone.as_fd(), Depth::Tree, users) {
            // One of the mounts below cannot be: map at least the one that was asked for.
            Err(Errno::INVAL) if below == Below::With => {
                mount::set_id_mapping(clone.as_fd(), Depth::One, users)
            }
            other => other,
        };
        match mapped {
            // EINVAL: the file system has no id-mapped mounts; EPERM: it is id-mapped already.
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(clone)
}

impl Engine {
    /// The mounts of volumes, binds and tmpfs that the user and the image asked for.
    pub(crate) fn user_mounts(
        &self,
        container: &Container,
        rootfs: BorrowedFd<'_>,
        users: Option<BorrowedFd<'_>>,
        descriptors: &mut Descriptors,
    ) -> Result<Vec<Mount>, EngineError> {
        let mut mounts = Vec::new();
        for point in &container.mounts {
            let kind = match point.kind {
                MountType::Tmpfs => {
                    MountKind::Tmpfs { options: tmpfs_options(&container.host, point) }
                }
                MountType::Bind => {
                    let source = open_bind(container, point)?;
                    let is_directory = is_directory(&source)
                        .map_err(io_error(format!("bind {}", point.source)))?;
                    let clone =
                        clone_mount(source.as_fd(), users, Below::With).map_err(|errno| {
                            io_error(format!("bind {}", point.source))(errno.into())
                        })?;
                    MountKind::Detached { fd: descriptors.add(clone), is_directory }
                }
                MountType::Volume => {
                    let name = point.name.as_deref().unwrap_or_default();
                    let data = self.data_dir.volume(name)?;
                    fill_volume(&data, rootfs, &point.target, container.id_range)
                        .map_err(io_error(format!("fill volume {name} from the image")))?;
                    let clone = clone_mount(data.as_fd(), users, Below::Without)
                        .map_err(|errno| io_error(format!("volume {name}"))(errno.into()))?;
                    MountKind::Detached { fd: descriptors.add(clone), is_directory: true }
                }
            };
            let tmpfs = point.kind == MountType::Tmpfs;
            mounts.push(Mount {
                target: point.target.clone(),
                kind,
                readonly: point.readonly,
                nosuid: tmpfs,
                nodev: true,
                noexec: tmpfs,
            });
        }
        Ok(mounts)
    }

    /// The usual devices and those of `--device`; with `--privileged` every node of the host's
    /// `/dev` itself.
    pub(crate) fn devices(
        &self,
        container: &Container,
        descriptors: &mut Descriptors,
    ) -> Result<(Vec<Device>, Vec<DeviceRule>), EngineError> {
        let mut devices = Vec::new();
        for default in defaults::DEVICES {
            let fd = path::open_host(Path::new(default.path), OFlags::PATH)
                .map_err(io_error(default.path))?;
            let stat =
                rustix::fs::fstat(&fd).map_err(|errno| io_error(default.path)(errno.into()))?;
            let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
                || number != (default.major, default.minor)
            {
                return Err(EngineError::internal(format!(
                    "{} of this host is not the device {}:{}; restore it",
                    default.path, default.major, default.minor
                )));
            }
            devices.push(Device { path: default.path.to_owned(), fd: descriptors.add(fd) });
        }
        let mut rules = Vec::new();
        for request in &container.host.devices {
            let (fd, rule) = open_device(request)?;
            rules.push(rule);
            devices.push(Device { path: request.container.clone(), fd: descriptors.add(fd) });
        }
        if container.host.privileged {
            for name in host_devices() {
                let path = format!("/dev/{name}");
                if devices.iter().any(|device| device.path == path) {
                    continue;
                }
                if let Ok(fd) = path::open_host(Path::new(&path), OFlags::PATH) {
                    devices.push(Device { path, fd: descriptors.add(fd) });
                }
            }
        }
        Ok((devices, rules))
    }
}

/// Opens what a bind mount leads to; `-v` makes a directory where nothing is.
fn open_bind(container: &Container, point: &MountPoint) -> Result<OwnedFd, EngineError> {
    let source = Path::new(&point.source);
    match path::open_host(source, OFlags::PATH) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let of_mount = container.host.mounts.iter().any(|request| {
                request.kind == MountType::Bind
                    && request.source == point.source
                    && !container.host.binds.iter().any(|bind| bind.starts_with(&point.source))
            });
            if of_mount {
                return Err(EngineError::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    point.source
                )));
            }
            std::fs::create_dir_all(source).map_err(io_error(&point.source))?;
            path::open_host(source, OFlags::PATH).map_err(io_error(&point.source))
        }
        other => other.map_err(io_error(&point.source)),
    }
}

fn open_device(request: &DeviceRequest) -> Result<(OwnedFd, DeviceRule), EngineError> {
    let gathering = format!(
        "error gathering device information while adding custom device \"{}\"",
        request.host
    );
    let fd = path::open_host(Path::new(&request.host), OFlags::PATH)
        .map_err(|error| EngineError::invalid(format!("{gathering}: {error}")))?;
    let stat = rustix::fs::fstat(&fd)
        .map_err(|errno| EngineError::invalid(format!("{gathering}: {errno}")))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return Err(EngineError::invalid(format!("{gathering}: not a device node"))),
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let permissions = if request.permissions.is_empty() { "rwm" } else { &request.permissions };
    let rule = format!("{kind} {major}:{minor} {permissions}")
        .parse()
        .map_err(|_| EngineError::invalid(format!("invalid device mode: {permissions}")))?;
    Ok((fd, rule))
}

/// The nodes right below `/dev` that a privileged container gets. Terminals are left out: a
/// container has its own, and there are more of them than descriptors fit into a message.
fn host_devices() -> Vec<String> {
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
fn fill_volume(
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

fn is_directory(fd: &OwnedFd) -> std::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// One of the three files that tell a container who it is, as a mount.
pub(crate) fn file_mount(
    data_dir: &DataDir,
    owner: bulkhead_types::Id,
    name: &str,
    users: Option<BorrowedFd<'_>>,
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
        readonly: false,
        nosuid: true,
        nodev: true,
        noexec: true,
    })
}
