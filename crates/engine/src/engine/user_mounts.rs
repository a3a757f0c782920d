//! The mounts and devices that a container was asked to have.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bulkhead_runtime::cgroup::DeviceRule;
use bulkhead_runtime::{Device, Mount, MountKind, defaults};
use bulkhead_sys::mount::{self, Attributes, Depth};
use bulkhead_sys::path;
use bulkhead_types::IdMap;
use rustix::fs::{FileType, OFlags};

use crate::clone_mount::{Below, clone_mount, is_directory, map_owners};
use crate::descriptors::Descriptors;
use crate::error::io_error;
use crate::mount_sources::{bind, fill_volume, host_devices, is_device_node, open_bind};
use crate::volume_mounts::{Root, open_subpath};
use crate::{
    Container, Engine, EngineError, Fill, MountOptions, MountPoint, MountType, device_nodes,
};

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
                    let (root, attributes) = self.volume_root(container, name)?;
                    let mount = match root {
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
                    mount::set_attributes(mount.as_fd(), Depth::Tree, attributes)
                        .map_err(|errno| io_error(told())(errno.into()))?;
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

    /// Opens what a volume is, and says what it may not be used for; one in memory is in one container
    /// at a time.
    fn volume_root(
        &self,
        container: &Container,
        name: &str,
    ) -> Result<(Root, Attributes), EngineError> {
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
        Ok((options.open(name, self.data_dir.volume(name)?)?, options.attributes()))
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
