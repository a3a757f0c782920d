//! `--device`: nodes of the host that a container may use, with the owners that it sees.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_runtime::cgroup::DeviceRule;
use bulkhead_sys::mount::{Depth, set_private};
use bulkhead_sys::path;
use bulkhead_types::IdMap;
use rustix::fs::{AtFlags, CWD, Dev, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use crate::error::io_error;
use crate::{DeviceRequest, EngineError};

/// One node that was asked for, by name or as part of its directory.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where the container has it.
    pub target: String,
    pub rule: DeviceRule,
    /// The host's node, `O_PATH`.
    fd: OwnedFd,
    kind: FileType,
    device: Dev,
    mode: Mode,
    uid: u32,
    gid: u32,
}

/// Opens what a request names: a node, or all that are in a directory and below it, such as
/// `/dev/snd` (moby: daemon/pkg/oci, `DevicesFromPath`).
pub(crate) fn wanted(request: &DeviceRequest) -> Result<Vec<Node>, EngineError> {
    let gathering = |cause: &dyn std::fmt::Display| {
        EngineError::invalid(format!(
            "error gathering device information while adding custom device \"{}\": {cause}",
            request.host
        ))
    };
    let fd = path::open_host(Path::new(&request.host), OFlags::PATH)
        .map_err(|error| gathering(&error))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| gathering(&errno))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let mut nodes = Vec::new();
        collect(&fd, &request.container, &request.permissions, MOST_LEVELS, &mut nodes)
            .map_err(|error| gathering(&error))?;
        return if nodes.is_empty() { Err(gathering(&"no device nodes in it")) } else { Ok(nodes) };
    }
    match node(fd, request.container.clone(), &request.permissions) {
        Ok(Some(node)) => Ok(vec![node]),
        Ok(None) => Err(gathering(&"not a device node")),
        Err(error) => Err(gathering(&error)),
    }
}

/// Directories in directories; `/dev` itself has three.
const MOST_LEVELS: u32 = 8;

fn collect(
    directory: &OwnedFd,
    target: &str,
    permissions: &str,
    levels: u32,
    nodes: &mut Vec<Node>,
) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&listed)? {
        let name = entry?.file_name().to_owned();
        // terminals, shared memory and queues are a container's own
        let own = [&b"."[..], b"..", b"pts", b"shm", b"mqueue", b"console", b".udev", b".lxc"];
        if !own.contains(&name.to_bytes()) {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(&listed, &name, flags, Mode::empty()) else { continue };
        let Ok(text) = name.to_str() else { continue };
        let target = format!("{}/{text}", target.trim_end_matches('/'));
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        match kind {
            FileType::Directory if levels > 0 => {
                collect(&fd, &target, permissions, levels - 1, nodes)?;
            }
            FileType::Directory => {}
            _ => nodes.extend(node(fd, target, permissions)?),
        }
    }
    Ok(())
}

/// `None`: it is no device node.
fn node(fd: OwnedFd, target: String, permissions: &str) -> std::io::Result<Option<Node>> {
    let stat = rustix::fs::fstat(&fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let letter = match kind {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return Ok(None),
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let permissions = if permissions.is_empty() { "rwm" } else { permissions };
    let rule = format!("{letter} {major}:{minor} {permissions}")
        .parse()
        .map_err(|_| std::io::Error::other(format!("invalid device mode: {permissions}")))?;
    Ok(Some(Node {
        target,
        rule,
        fd,
        kind,
        device: stat.st_rdev,
        mode: Mode::from_raw_mode(stat.st_mode),
        uid: stat.st_uid,
        gid: stat.st_gid,
    }))
}

/// What is to be mounted for each node: the host's own where ids are the host's, else one of the same
/// device, mode and owners as the container sees them.
///
/// The host's nodes are in a devtmpfs, which has no id-mapped mounts: their owners would be nobody
/// inside, whom not even the container's root may read for. So there are others on a tmpfs of their own,
/// which is mounted in no namespace that anybody sees and goes with the last of them.
pub(crate) fn provide(
    nodes: Vec<Node>,
    ids: Option<IdMap>,
) -> Result<Vec<(Node, OwnedFd)>, EngineError> {
    let Some(ids) = ids.filter(|_| !nodes.is_empty()) else {
        let own = |node: Node| Ok((rustix::io::fcntl_dupfd_cloexec(&node.fd, 3)?, node));
        let own: std::io::Result<Vec<(OwnedFd, Node)>> = nodes.into_iter().map(own).collect();
        let own = own.map_err(io_error("a device"))?;
        return Ok(own.into_iter().map(|(fd, node)| (node, fd)).collect());
    };
    // open_tree(2) clones only what is mounted in its caller's namespace before Linux 6.15
    let made = std::thread::scope(|scope| {
        let making = std::thread::Builder::new().name("device-nodes".to_owned());
        let making = making.spawn_scoped(scope, || make(&nodes, ids))?;
        making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let made = made.map_err(io_error("make device nodes"))?;
    Ok(nodes.into_iter().zip(made).collect())
}

/// On a thread that ends right after: its mount namespace does so with it.
fn make(nodes: &[Node], ids: IdMap) -> std::io::Result<Vec<OwnedFd>> {
    bulkhead_sys::unshare(UnshareFlags::NEWNS | UnshareFlags::FS)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    set_private(root.as_fd(), Depth::Tree)?;
    rustix::process::umask(Mode::empty());
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("source", "devices"), ("mode", "755"), ("size", "64k")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let place = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, closed)?;
    move_mount(&place, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let mut made = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let name = index.to_string();
        rustix::fs::mknodat(&place, &name, node.kind, node.mode, node.device)?;
        let outside = |id| ids.outside(id).unwrap_or(ids.first);
        let (user, group) = (Uid::from_raw(outside(node.uid)), Gid::from_raw(outside(node.gid)));
        rustix::fs::chownat(&place, &name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        made.push(open_tree(&place, name.as_str(), clone)?);
    }
    Ok(made)
}
