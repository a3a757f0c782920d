//! Device nodes for containers that may not make any: those of a user namespace.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_sys::process::{CLONE_NEWNS, clone3};
use bulkhead_types::oci::{self, Config};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::caller;
use crate::error::{Error, Result};
use crate::handshake::reap;

/// Makes the nodes of `linux.devices` that the container's user namespace cannot make, each as a
/// mount of its own, on a file system that is mounted nowhere. Those that the host has at the same
/// path are left out: they can be bound.
///
/// Who may make none, as a user in a namespace where they are root, gets the host's node of the same
/// number, under whatever name the host has it.
pub fn make(config: &Config) -> Result<Vec<(String, OwnedFd)>> {
    let Some(linux) = &config.linux else { return Ok(Vec::new()) };
    let own = linux.namespaces.iter().any(|namespace| namespace.kind == oci::NamespaceKind::User);
    let wanted: Vec<_> = linux.devices.iter().filter(|device| !is_on_host(device)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    if !caller::is_host_root() {
        let found = |device: &&oci::Device| Some((device.path.clone(), host_node(device)?));
        return Ok(wanted.iter().filter_map(found).collect());
    }
    if !own {
        return Ok(Vec::new());
    }
    let failed = |path: &str| {
        let what = format!("make the device {path} for a user namespace");
        move |errno: Errno| Error::System { what, cause: errno.into() }
    };
    let place = new_tmpfs().map_err(failed("directory"))?;
    for (index, device) in wanted.iter().enumerate() {
        make_node(&place, &index.to_string(), device, linux).map_err(failed(&device.path))?;
    }
    let trees = match open(&place, wanted.len()) {
        Err(Errno::INVAL) => open_attached(&place, wanted.len()),
        other => other,
    };
    let trees = trees.map_err(failed(&wanted[0].path))?;
    Ok(wanted.iter().map(|device| device.path.clone()).zip(trees).collect())
}

/// Whether the host has the very node, which can then be bound.
fn is_on_host(device: &oci::Device) -> bool {
    let Ok(stat) = rustix::fs::lstat(device.path.as_str()) else { return false };
    let as_wanted = device.uid.is_none_or(|uid| uid == stat.st_uid)
        && device.gid.is_none_or(|gid| gid == stat.st_gid)
        && device.file_mode.is_none_or(|file_mode| file_mode & 0o7777 == stat.st_mode & 0o7777);
    is_node_of(device, &stat) && as_wanted
}

fn is_node_of(device: &oci::Device, stat: &rustix::fs::Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let same_kind = match device.kind.as_str() {
        "b" => kind == FileType::BlockDevice,
        "c" | "u" => kind == FileType::CharacterDevice,
        _ => false,
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    same_kind && (major.into(), minor.into()) == (device.major, device.minor)
}

/// A detached mount of the host's node, by the name that the kernel has for the number (sysfs(5),
/// `/sys/dev`).
fn host_node(device: &oci::Device) -> Option<OwnedFd> {
    let kind = if device.kind == "b" { "block" } else { "char" };
    let file = format!("/sys/dev/{kind}/{}:{}/uevent", device.major, device.minor);
    let text = std::fs::read_to_string(file).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let node = open_tree(rustix::fs::CWD, format!("/dev/{name}"), flags).ok()?;
    is_node_of(device, &rustix::fs::fstat(&node).ok()?).then_some(node)
}

fn new_tmpfs() -> std::result::Result<OwnedFd, Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"mode", c"755")?;
    fsconfig_create(&context)?;
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, closed)
}

fn make_node(
    place: &OwnedFd,
    name: &str,
    device: &oci::Device,
    linux: &oci::Linux,
) -> std::result::Result<(), Errno> {
    let kind = match device.kind.as_str() {
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let number = rustix::fs::makedev(device.major as u32, device.minor as u32);
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    rustix::fs::mknodat(place, name, kind, mode, number)?;
    rustix::fs::chmodat(place, name, mode, AtFlags::empty())?;
    let outside = |maps: &[oci::IdMapping], id: u32| {
        maps.iter().find_map(|map| {
            let at = id.checked_sub(map.container_id).filter(|at| *at < map.size)?;
            map.host_id.checked_add(at)
        })
    };
    let uid = outside(&linux.uid_mappings, device.uid.unwrap_or(0)).ok_or(Errno::INVAL)?;
    let gid = outside(&linux.gid_mappings, device.gid.unwrap_or(0)).ok_or(Errno::INVAL)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(place, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Each node as a mount of its own. From a mount that is itself detached this takes Linux 6.15; older
/// kernels say EINVAL.
fn open(place: &OwnedFd, count: usize) -> std::result::Result<Vec<OwnedFd>, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    (0..count).map(|index| open_tree(place, index.to_string(), flags)).collect()
}

/// The same by a child with a mount namespace of its own, where it attaches `place` for as long as it
/// lives: nobody else sees it.
fn open_attached(place: &OwnedFd, count: usize) -> std::result::Result<Vec<OwnedFd>, Errno> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let child = clone3(CLONE_NEWNS, None, || {
        let attached = attach(place).and_then(|()| open(place, count));
        let sent = attached.and_then(|trees| trees.iter().try_for_each(|tree| send(&theirs, tree)));
        i32::from(sent.is_err())
    })?;
    drop(theirs);
    let trees: std::result::Result<Vec<_>, _> = (0..count).map(|_| receive(&ours)).collect();
    reap(&child.pidfd);
    trees
}

fn attach(place: &OwnedFd) -> std::result::Result<(), Errno> {
    let closed = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", closed)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(place, c"", rustix::fs::CWD, c"/", flags)
}

fn send(socket: &OwnedFd, tree: &OwnedFd) -> std::result::Result<(), Errno> {
    let descriptors = [tree.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let text = [IoSlice::new(b"d")];
    rustix::net::sendmsg(socket, &text, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// EINVAL where the child has ended without.
fn receive(socket: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    while let Err(errno) = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags) {
        if errno != Errno::INTR {
            return Err(errno);
        }
    }
    let tree = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut list) => list.next(),
        _ => None,
    });
    tree.ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_nodes_under_names_of_its_own() {
        let device = |text| serde_json::from_str::<oci::Device>(text).unwrap();
        let null = device(r#"{"path":"/dev/x","type":"c","major":1,"minor":3}"#);
        assert!(!is_on_host(&null));
        if rustix::process::geteuid().is_root() {
            let node = host_node(&null).unwrap();
            assert!(is_node_of(&null, &rustix::fs::fstat(&node).unwrap()));
        }
        assert!(
            host_node(&device(r#"{"path":"/dev/x","type":"c","major":1,"minor":999999}"#))
                .is_none()
        );
    }

    #[test]
    fn old_kernels_get_nodes_from_an_attached_place() {
        if !rustix::process::geteuid().is_root() {
            return bulkhead_sys::testing::skip("only root makes devices");
        }
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let linux: oci::Linux = serde_json::from_str(
            r#"{"uidMappings":[{"containerID":0,"hostID":70000,"size":9}],
                "gidMappings":[{"containerID":0,"hostID":80000,"size":9}]}"#,
        )
        .unwrap();
        let device: oci::Device =
            serde_json::from_str(r#"{"path":"/dev/x","type":"c","major":1,"minor":3,"gid":5}"#)
                .unwrap();
        let place = new_tmpfs().unwrap();
        for name in ["0", "1"] {
            make_node(&place, name, &device, &linux).unwrap();
        }
        let trees = open_attached(&place, 2).unwrap();
        for tree in &trees {
            let stat = rustix::fs::fstat(tree).unwrap();
            assert_eq!(stat.st_rdev, rustix::fs::makedev(1, 3));
            assert_eq!((stat.st_uid, stat.st_gid), (70000, 80005));
        }
        assert_eq!(trees.len(), 2);
        assert_eq!(open_attached(&new_tmpfs().unwrap(), 1).unwrap_err(), Errno::INVAL);
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }
}
