//! Overlay, mounts and exec in namespaces that exist, in plain code: what nobody can do without.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_runtime::MountKind;
use bulkhead_runtime::cgroup::Layout;
use bulkhead_runtime::defaults;
use bulkhead_runtime::plan::AHEAD;
use bulkhead_sys::mount::{Attributes, Depth, set_attributes, set_private};
use bulkhead_sys::process::{Arguments, clone3, close_all_but, execve, set_identity};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::Result;
use crate::place::{RANGE, Upper, clone_of, overlay};

/// Measures once for every line of the input.
pub fn serve(place: &Path) -> Result<()> {
    // what is in /dev, from before this process leaves it
    let nodes = defaults::DEVICES.map(|device| device.path);
    let layout = Layout::parse(
        &std::fs::read_to_string("/proc/self/mountinfo")?,
        &std::fs::read_to_string("/proc/self/cgroup")?,
    );
    for line in std::io::stdin().lines() {
        line?;
        let taken = run(place, &nodes, &layout)?;
        println!("{}", taken.as_nanos());
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn run(place: &Path, nodes: &[&str], layout: &Layout) -> Result<Duration> {
    let upper = Upper::make(place, "floor")?;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let program = CString::from(c"/bin/true");
    let (arguments, environment) =
        (Arguments::new(vec![program.clone()]), Arguments::new(vec![c"PATH=/bin".into()]));
    let masked = (defaults::masked_paths(false), defaults::readonly_paths(false));
    let child = clone3(AHEAD, None, || {
        let ready = close_all_but(&[0, 1, 2, theirs.as_raw_fd() as u32])
            .and_then(|()| rustix::io::read(&theirs, &mut [0; 1]).map(drop))
            .and_then(|()| set_identity(0, 0, &[]))
            .and_then(|()| {
                bulkhead_sys::unshare(rustix::thread::UnshareFlags::NEWCGROUP)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })
            .and_then(|()| lean(place))
            .and_then(|()| rustix::io::write(&theirs, b"r").map(drop))
            .and_then(|()| receive(&theirs));
        let done = ready.and_then(|fds| mounts(&fds, nodes, layout, &masked.0, &masked.1));
        if let Err(errno) = done {
            eprintln!("the floor: {errno}");
            return 1;
        }
        execve(&program, &arguments, &environment).raw_os_error()
    })?;
    drop(theirs);
    for name in ["uid_map", "gid_map"] {
        let line = RANGE.lines();
        std::fs::write(format!("/proc/{}/{name}", child.pid), line)?;
    }
    rustix::io::write(&ours, b"g")?;
    rustix::io::read(&ours, &mut [0; 1])?;
    crate::pause();

    let before = Instant::now();
    let mut fds = vec![overlay(place, &upper)?];
    for node in nodes {
        fds.push(clone_of(node)?);
    }
    send(&ours, &fds)?;
    drop(fds);
    // the end of the socket is the exec
    while rustix::io::read(&ours, &mut [0; 1])? != 0 {}
    let taken = before.elapsed();

    let ended = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    if ended.and_then(|it| it.exit_status()) != Some(0) {
        return Err("the program of the floor failed".into());
    }
    Ok(taken)
}

fn send(socket: &OwnedFd, fds: &[OwnedFd]) -> std::result::Result<(), Errno> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let parts = [std::io::IoSlice::new(b"g")];
    rustix::net::sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

fn receive(socket: &OwnedFd) -> std::result::Result<Vec<OwnedFd>, Errno> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 1];
    let parts = &mut [std::io::IoSliceMut::new(&mut bytes)];
    rustix::net::recvmsg(socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(list) => Some(list),
        _ => None,
    });
    Ok(fds.flatten().collect())
}

/// A small root, as the warden's: to leave the host's many mounts takes time.
fn lean(place: &Path) -> std::result::Result<(), Errno> {
    let root = make("tmpfs", &[("mode", Some("755"))], 0)?;
    for name in ["proc", "sys", "dev", "root"] {
        rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755))?;
    }
    let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&root, "dev/null", file, Mode::from_raw_mode(0o600))?;
    let null = tree("/dev/null")?;
    move_mount(&root, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    set_private(root.as_fd(), Depth::Tree)?;
    let put = |name, mount: &OwnedFd| {
        move_mount(mount, "", &root, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    put("proc", &make("proc", &[], 0)?)?;
    put("sys", &make("sysfs", &[], 0)?)?;
    put("dev/null", &null)?;
    enter(&root)
}

fn enter(root: &OwnedFd) -> std::result::Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// The mounts of a container with all the defaults; those that a kernel refuses are left out.
fn mounts(
    fds: &[OwnedFd],
    nodes: &[&str],
    layout: &Layout,
    masked: &[String],
    readonly: &[String],
) -> std::result::Result<(), Errno> {
    let [root, devices @ ..] = fds else { return Err(Errno::BADF) };
    move_mount(root, "", CWD, "/root", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    set_private(root.as_fd(), Depth::Tree)?;
    let put = |mount: &OwnedFd, at: &str| {
        let at = at.trim_start_matches('/');
        move_mount(mount, "", root, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    let directory = |at: &str| match rustix::fs::mkdirat(
        root,
        at.trim_start_matches('/'),
        Mode::from_raw_mode(0o755),
    ) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    };
    for mount in defaults::mounts(false, defaults::SHM_SIZE) {
        let mut attributes = 0;
        for (wanted, bit) in [
            (mount.readonly, Attributes::RDONLY),
            (mount.nosuid, Attributes::NOSUID),
            (mount.nodev, Attributes::NODEV),
            (mount.noexec, Attributes::NOEXEC),
        ] {
            attributes |= if wanted { bit.0 } else { 0 };
        }
        let at = mount.target.as_str();
        directory(at)?;
        let made = match &mount.kind {
            MountKind::Proc => make("proc", &[], attributes)?,
            MountKind::Sysfs => make("sysfs", &[], attributes)?,
            MountKind::Mqueue => make("mqueue", &[], attributes)?,
            MountKind::Devpts => {
                let options =
                    [("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
                make("devpts", &options, attributes)?
            }
            MountKind::Tmpfs { options } => {
                let options: Vec<_> = options
                    .iter()
                    .map(|it| it.split_once('=').map_or((it.as_str(), None), |(k, v)| (k, Some(v))))
                    .collect();
                make("tmpfs", &options, attributes)?
            }
            MountKind::Cgroup if layout.v1.is_empty() => make("cgroup2", &[], attributes)?,
            MountKind::Cgroup => {
                put(&make("tmpfs", &[("mode", Some("755"))], attributes & !1)?, at)?;
                for hierarchy in &layout.v1 {
                    let name = hierarchy.controllers.join(",");
                    let (name, options) = match name.strip_prefix("name=") {
                        Some(name) => (name.to_owned(), vec![("name", Some(name))]),
                        None => {
                            let all = hierarchy.controllers.iter();
                            (name.clone(), all.map(|it| (it.as_str(), None)).collect())
                        }
                    };
                    let at = format!("{at}/{name}");
                    directory(&at)?;
                    if let Ok(made) = make("cgroup", &options, attributes) {
                        put(&made, &at)?;
                    }
                }
                if layout.v2.is_some() {
                    let at = format!("{at}/unified");
                    directory(&at)?;
                    put(&make("cgroup2", &[], attributes)?, &at)?;
                }
                continue;
            }
            MountKind::Detached { .. } | MountKind::Bound { .. } => continue,
        };
        put(&made, at)?;
    }
    for (device, path) in devices.iter().zip(nodes) {
        let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let at = path.trim_start_matches('/');
        drop(rustix::fs::openat(root, at, file, Mode::from_raw_mode(0o600))?);
        put(device, path)?;
        set_private(device.as_fd(), Depth::Tree)?;
    }
    for (path, to) in defaults::DEVICE_LINKS {
        rustix::fs::symlinkat(to, root, path.trim_start_matches('/'))?;
    }
    for path in readonly {
        let Some(target) = existing(root, path)? else { continue };
        let tree = tree_at(&target)?;
        set_attributes(tree.as_fd(), Depth::Tree, Attributes::RDONLY)?;
        put_on(&tree, &target)?;
    }
    let blank = make("tmpfs", &[("nr_blocks", Some("1")), ("nr_inodes", Some("1"))], 0xf)?;
    for path in masked {
        let Some(target) = existing(root, path)? else { continue };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode);
        let cover = if kind == FileType::Directory { tree_at(&blank)? } else { tree("/dev/null")? };
        put_on(&cover, &target)?;
    }
    enter(root)
}

fn existing(root: &OwnedFd, path: &str) -> std::result::Result<Option<OwnedFd>, Errno> {
    let path = path.trim_start_matches('/');
    match rustix::fs::openat(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn put_on(mount: &OwnedFd, target: &OwnedFd) -> std::result::Result<(), Errno> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", empty)
}

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

fn tree(path: &str) -> std::result::Result<OwnedFd, Errno> {
    open_tree(CWD, path, CLONE)
}

fn tree_at(at: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    open_tree(at, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE)
}

fn make(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: u64,
) -> std::result::Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
