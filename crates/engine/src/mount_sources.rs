//! What a container's mounts lead to: bind mounts, volumes and our own small files, cloned from the
//! host and id-mapped into the container's user namespace.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
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

use crate::create::no_bind_source;
use crate::data_dir::DataDir;
use crate::descriptors::Descriptors;
use crate::error::io_error;
use crate::volume_mounts::{Root, open_subpath};
use crate::{
    BindOptions, Container, Engine, EngineError, Fill, MissingSource, MountOptions, MountPoint,
    MountType, MountsBelow, Propagation, copy, device_nodes,
};

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
    let clone = clone_shared(source, users, below)?;
    // Neither side sees what the other mounts later.
    mount::set_private(clone.as_fd(), Depth::Tree)?;
    Ok(clone)
}

/// The same, but what is mounted later on either side may show up on the other, as the source's
/// mount has it.
fn clone_shared(
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
    map_owners(clone.as_fd(), users, below)?;
    Ok(clone)
}

fn map_owners(
    clone: BorrowedFd<'_>,
    users: Option<BorrowedFd<'_>>,
    below: Below,
) -> Result<(), Errno> {
    let Some(users) = users else { return Ok(()) };
    let mapped = match mount::set_id_mapping(clone, Depth::Tree, users) {
        // One of the mounts below cannot be: map at least the one that was asked for.
        Err(Errno::INVAL) if below == Below::With => {
            mount::set_id_mapping(clone, Depth::One, users)
        }
        other => other,
    };
    match mapped {
        // EINVAL: the file system has no id-mapped mounts; EPERM: it is id-mapped already.
        Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

impl Engine {
    /// The mounts of volumes, binds and tmpfs that the user and the image asked for.
    pub(crate) fn user_mounts(
        &self,
        container: &Container,
        users: Option<BorrowedFd<'_>>,
        descriptors: &mut Descriptors,
    ) -> Result<Vec<Mount>, EngineError> {
        let mut mounts = Vec::new();
        for point in &container.mounts {
            let mut is_device = false;
            let kind = match &point.options {
                MountOptions::Tmpfs(options) => {
                    MountKind::Tmpfs { options: options.words().to_vec() }
                }
                MountOptions::Bind(options) => {
                    let source = open_bind(point, options.missing)?;
                    is_device = is_device_node(&source).map_err(io_error(&point.source))?;
                    bind(point, options, source, users, descriptors)?
                }
                MountOptions::Volume(options) => {
                    let name = point.name.as_deref().unwrap_or_default();
                    let told = || format!("volume {name}");
                    let mount = match self.volume_root(container, name)? {
                        Root::Mount(mount) if options.subpath.is_empty() => {
                            map_owners(mount.as_fd(), users, Below::Without)
                                .map_err(|errno| io_error(told())(errno.into()))?;
                            mount
                        }
                        Root::Mount(root) => {
                            let part = open_subpath(name, root, &options.subpath)?;
                            clone_mount(part.as_fd(), users, Below::Without)
                                .map_err(|errno| io_error(told())(errno.into()))?
                        }
                        Root::Directory(root, below) => {
                            let part = open_subpath(name, root, &options.subpath)?;
                            clone_mount(part.as_fd(), users, below)
                                .map_err(|errno| io_error(told())(errno.into()))?
                        }
                    };
                    let is_directory = is_directory(&mount).map_err(io_error(told()))?;
                    MountKind::Detached { fd: descriptors.add(mount), is_directory }
                }
            };
            let tmpfs = point.kind() == MountType::Tmpfs;
            mounts.push(Mount {
                target: point.target.clone(),
                kind,
                readonly: point.readonly,
                nosuid: tmpfs,
                // A node that was named is meant; the device cgroup says whether it may be used.
                nodev: !is_device,
                noexec: tmpfs,
            });
        }
        Ok(mounts)
    }

    /// Opens what a volume is; one in memory is in one container at a time.
    fn volume_root(&self, container: &Container, name: &str) -> Result<Root, EngineError> {
        let options = {
            let options = self.volumes.get(name).map(|volume| volume.options).unwrap_or_default();
            let state = self.containers.lock();
            let has_it = |other: &Container| {
                other.id != container.id
                    && other.mounts.iter().any(|mount| mount.name.as_deref() == Some(name))
            };
            let mut running = state.entries.values().filter(|entry| entry.record.is_running());
            if options.is_memory()
                && let Some(other) = running.find(|entry| has_it(&entry.record.container))
            {
                return Err(EngineError::conflict(format!(
                    "volume {name} is a tmpfs, and container {} has it: it cannot be in two \
                     containers at once",
                    other.record.container.name
                )));
            }
            options
        };
        options.open(name, self.data_dir.volume(name)?)
    }

    /// Whether a mount is a volume that is to have what the image has in its place. Only plain
    /// directories are filled: the others are somebody's own.
    pub(crate) fn is_to_be_filled(&self, mount: &MountPoint) -> bool {
        let MountOptions::Volume(options) = &mount.options else { return false };
        let name = mount.name.as_deref().unwrap_or_default();
        let is_plain = self.volumes.get(name).is_none_or(|volume| volume.options.is_directory());
        options.fill == Fill::FromImage && options.subpath.is_empty() && is_plain
    }

    /// Fills a volume that is still empty.
    pub(crate) fn fill(
        &self,
        mount: &MountPoint,
        root: BorrowedFd<'_>,
        range: Option<IdMap>,
    ) -> Result<(), EngineError> {
        let name = mount.name.as_deref().unwrap_or_default();
        let data = self.data_dir.volume(name)?;
        fill_volume(&data, root, &mount.target, range)
            .map_err(io_error(format!("fill volume {name} from the image")))
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
        let mut nodes = Vec::new();
        for request in &container.host.devices {
            nodes.extend(device_nodes::wanted(request)?);
        }
        rules.extend(nodes.iter().map(|node| node.rule));
        for (node, fd) in device_nodes::provide(nodes, container.id_range)? {
            devices.push(Device { path: node.target, fd: descriptors.add(fd) });
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

/// A bind mount with what its options say.
fn bind(
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
fn open_bind(point: &MountPoint, missing: MissingSource) -> Result<OwnedFd, EngineError> {
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

fn is_device_node(fd: &OwnedFd) -> std::io::Result<bool> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    Ok(matches!(kind, FileType::CharacterDevice | FileType::BlockDevice))
}

pub(crate) fn is_directory(fd: &OwnedFd) -> std::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
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
