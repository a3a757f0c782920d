//! Network namespaces with names, in `/var/run/netns`, shared with iproute2's `ip netns`.
//!
//! A name is a file onto which the namespace is bind-mounted, ip-netns(8); so either program sees,
//! enters and deletes what the other made. A name is one path component, resolved below the
//! directory's descriptor and never through a symbolic link.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bulkhead_sys::unshare;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock, openat2,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_bind,
    mount_bind_recursive, mount_change, move_mount, open_tree, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::rtnetlink::Rtnetlink;
use crate::{NetworkError, link, netns};

/// Makes an empty network namespace called `name`, its loopback down.
pub fn add(name: &str) -> Result<(), NetworkError> {
    check(name)?;
    let failed = NetworkError::kernel("make a network namespace");
    let unshared = || {
        unshare(UnshareFlags::NEWNET)?;
        netns::own()
    };
    let fresh = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .spawn_scoped(scope, unshared)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .map_err(failed)?;
    attach(name, fresh.as_fd())
}

/// Removes the name; the namespace lives on while a process or a descriptor holds it.
pub fn delete(name: &str) -> Result<(), NetworkError> {
    check(name)?;
    let directory = match directory() {
        Err(error) if error == Errno::NOENT => return Err(missing(name)),
        other => other.map_err(kernel("open", name))?,
    };
    // EINVAL: a file without a mount, which `ip netns add` leaves if it is killed half-way
    match unmount(below(name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(Errno::NOENT) => return Err(missing(name)),
        Err(error) => return Err(kernel("unmount", name)(error)),
    }
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(kernel("remove the file of", name)(error)),
    }
}

/// Brings the loopback of the namespace called `name` up.
pub fn bring_up(name: &str) -> Result<(), NetworkError> {
    let netns = open(name)?;
    netns::inside(netns.as_fd(), || {
        Rtnetlink::open()?.change_all(vec![link::up(link::indexed(link::LOOPBACK))])
    })
    .map_err(kernel("bring up the loopback of", name))
}

/// Gives the namespace called `name` a number in the calling thread's, as `ip netns set` does; without
/// one the kernel chooses.
///
/// # Errors
/// It has a number already, or another one has this.
pub fn set(name: &str, number: Option<i32>) -> Result<(), NetworkError> {
    use std::os::fd::AsRawFd;
    let netns = open(name)?;
    let mut message = NsidMessage::default();
    message.attributes = vec![
        NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned()),
        NsidAttribute::Id(number.unwrap_or(-1)),
    ];
    Rtnetlink::open()
        .and_then(|mut route| route.change_all(vec![(RouteNetlinkMessage::NewNsId(message), 0)]))
        .map_err(kernel("give a number to", name))
}

/// The names of a process's network namespace.
pub fn identify(pid: u32) -> Result<Vec<String>, NetworkError> {
    let wanted = std::fs::metadata(format!("/proc/{pid}/ns/net"))
        .map_err(NetworkError::kernel(format!("look at the network namespace of process {pid}")))?;
    let same = |name: &String| {
        open(name)
            .and_then(|netns| rustix::fs::fstat(&netns).map_err(kernel("look at", name)))
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (wanted.dev(), wanted.ino()))
    };
    Ok(names()?.into_iter().filter(same).collect())
}

/// The processes that are in the namespace called `name`, and may be seen.
pub fn pids(name: &str) -> Result<Vec<u32>, NetworkError> {
    let netns = open(name)?;
    let wanted = rustix::fs::fstat(&netns).map_err(kernel("look at", name))?;
    let entries = std::fs::read_dir("/proc").map_err(kernel("look for processes in", name))?;
    let pid = |entry: io::Result<std::fs::DirEntry>| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let found = std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
        ((found.dev(), found.ino()) == (wanted.st_dev, wanted.st_ino)).then_some(pid)
    };
    let mut pids: Vec<u32> = entries.filter_map(pid).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// A name that has come or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Added(String),
    Deleted(String),
}

/// Hands every name over that comes or goes, until `each` says that it is enough. The directory is made if
/// it is not there.
pub fn monitor(mut each: impl FnMut(Change) -> bool) -> Result<(), NetworkError> {
    use rustix::fs::inotify;
    let failed = || NetworkError::kernel(format!("watch {DIRECTORY}"));
    share_directory().map_err(failed())?;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(|it| failed()(it.into()))?;
    let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE;
    inotify::add_watch(&watch, DIRECTORY, flags).map_err(|it| failed()(it.into()))?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    loop {
        let event = match events.next() {
            Err(Errno::INTR) => continue,
            event => event.map_err(|error| failed()(error.into()))?,
        };
        let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
        let name = name.to_owned();
        let change = match event.events().contains(inotify::ReadFlags::DELETE) {
            true => Change::Deleted(name),
            false => Change::Added(name),
        };
        if !each(change) {
            return Ok(());
        }
    }
}

/// Makes a pair of links: `here` in the calling thread's namespace, and `there` in the one called `name`,
/// each with its addresses, and both up.
pub fn pair(
    here: &str,
    there: &str,
    name: &str,
    addresses: &PairAddresses,
) -> Result<(), NetworkError> {
    link::check_name(here)?;
    link::check_name(there)?;
    let netns = open(name)?;
    let failed = || NetworkError::kernel(format!("make the pair of {here} and {there}"));
    let mut route = Rtnetlink::open().map_err(failed())?;
    let mut inside = netns::inside(netns.as_fd(), Rtnetlink::open).map_err(failed())?;
    if let Err(error) = route.change_all(vec![link::plain_pair(here, there, netns.as_fd())]) {
        return Err(match error.raw_os_error() {
            Some(code) if code == Errno::EXIST.raw_os_error() => {
                let taken = link::index_of(&mut route, here).ok().flatten().is_some();
                NetworkError::LinkExists(if taken { here } else { there }.to_owned())
            }
            _ => failed()(error),
        });
    }
    let mut set_up = || -> io::Result<()> {
        let ends = [(&mut route, here, &addresses.here), (&mut inside, there, &addresses.there)];
        for (socket, end, addresses) in ends {
            let index = link::index_of(socket, end)?
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let mut changes: Vec<_> = addresses
                .iter()
                .map(|(address, prefix)| link::new_address(index, *address, *prefix))
                .collect();
            changes.push(link::up(link::indexed(index)));
            socket.change_all(changes)?;
        }
        Ok(())
    };
    set_up().map_err(|error| {
        // half a pair is none; the first error is the one to tell
        let _ = route.change_all(vec![link::delete(here)]);
        failed()(error)
    })
}

/// The addresses of both ends, each with the length of its prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairAddresses {
    pub here: Vec<(IpAddr, u8)>,
    pub there: Vec<(IpAddr, u8)>,
}

/// Names, sorted, with the nsid that `ip netns list` shows, if there is one.
pub fn list() -> Result<Vec<(String, Option<i32>)>, NetworkError> {
    let failed = NetworkError::kernel(format!("list {DIRECTORY}"));
    let names = names()?;
    let mut route = Rtnetlink::open().map_err(failed)?;
    Ok(names
        .into_iter()
        .map(|name| {
            let nsid = open(&name).ok().and_then(|netns| nsid(&mut route, netns.as_fd()));
            (name, nsid)
        })
        .collect())
}

fn names() -> Result<Vec<String>, NetworkError> {
    let failed = || NetworkError::kernel(format!("list {DIRECTORY}"));
    let directory = match directory() {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other.map_err(|error| failed()(error.into()))?,
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).map_err(|error| failed()(error.into()))? {
        let entry = entry.map_err(|error| failed()(error.into()))?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    names.sort();
    Ok(names)
}

/// The namespace called `name`.
pub fn open(name: &str) -> Result<OwnedFd, NetworkError> {
    check(name)?;
    let opened = directory().and_then(|directory| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat2(&directory, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    });
    match opened {
        Err(Errno::NOENT) => Err(missing(name)),
        other => other.map_err(kernel("open", name)),
    }
}

/// The namespace called `name`, for a container to be in.
///
/// # Errors
/// There is none of that name, or it is that of the calling thread: sharing the host's network is
/// something else, and said otherwise.
pub fn open_for_container(name: &str) -> Result<OwnedFd, NetworkError> {
    let netns = open(name)?;
    let failed = || NetworkError::kernel(format!("look at network namespace {name}"));
    // A file without a mount, which whoever is killed half-way leaves, is one of another file system.
    let stat = rustix::fs::fstatfs(&netns).map_err(|error| failed()(error.into()))?;
    if stat.f_type != NSFS {
        return Err(NetworkError::NotANamespace(name.to_owned()));
    }
    let identity =
        |netns: &OwnedFd| rustix::fs::fstat(netns).map(|stat| (stat.st_dev, stat.st_ino));
    let own = netns::own().map_err(failed())?;
    let both = identity(&netns).and_then(|named| Ok((named, identity(&own)?)));
    match both.map_err(|error| failed()(error.into()))? {
        (named, own) if named == own => Err(NetworkError::OwnNamespace(name.to_owned())),
        _ => Ok(netns),
    }
}

/// A detached mount of sysfs that shows the links of this namespace, for a container that has no power
/// over it and so may not mount one itself.
pub fn sysfs(netns: BorrowedFd<'_>) -> Result<OwnedFd, NetworkError> {
    let mounted = || {
        let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    netns::inside(netns, || mounted().map_err(io::Error::from))
        .map_err(NetworkError::kernel("mount sysfs of a named network namespace"))
}

/// Gives the namespace `netns` (a container's) a name, as `ip netns attach` does. A file without a
/// mount, which whoever is killed half-way leaves, is no name yet.
pub fn attach(name: &str, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
    check(name)?;
    let directory = share_directory().map_err(kernel("prepare the directory of", name))?;
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
        Err(Errno::EXIST) => unmounted(&directory, name)
            .ok_or_else(|| NetworkError::NamespaceExists(name.to_owned()))?,
        other => other.map_err(kernel("create the file of", name))?,
    };
    bulkhead_failpoint::pass("netns.attach");
    let mounted = open_tree(
        netns,
        "",
        OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .and_then(|tree| {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &file, "", flags)
    });
    mounted.map_err(|error| {
        // the first error is the one to tell
        let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
        kernel("mount", name)(error)
    })
}

/// The file of a name, if nothing is mounted there.
fn unmounted(directory: &OwnedFd, name: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat2(directory, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).ok()?;
    let (there, here) = (rustix::fs::fstat(&file).ok()?, rustix::fs::fstat(directory).ok()?);
    // a namespace's file is one of nsfs
    let is_plain = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile;
    (is_plain && there.st_dev == here.st_dev).then_some(file)
}

/// Moves the calling thread into the namespace with its own `/sys`, as `ip netns exec` does
/// (and `/etc/netns/NAME` files bound over `/etc`). Only for a process about to exec.
pub fn enter(name: &str) -> Result<(), NetworkError> {
    let netns = open(name)?;
    let failed = || NetworkError::kernel(format!("enter network namespace {name:?}"));
    let entered = || -> io::Result<()> {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        unshare(UnshareFlags::NEWNS)?;
        // slave: what the host mounts later is still seen, what is mounted here stays here
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        // /sys/class/net shows the namespace of whoever mounted it
        let flags = match unmount("/sys", UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL) => MountFlags::empty(),
            Err(error) => return Err(error.into()),
        };
        mount(name, "/sys", "sysfs", flags, None)?;
        bind_etc(name)
    };
    entered().map_err(failed())
}

/// Binds each `/etc/netns/NAME/FILE` over `/etc/FILE`, where there is one. The names come from the
/// administrator's own directory.
fn bind_etc(name: &str) -> io::Result<()> {
    let entries = match std::fs::read_dir(Path::new("/etc/netns").join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let target = Path::new("/etc").join(entry.file_name());
        if target.exists() {
            mount_bind(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn directory() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(DIRECTORY, flags, Mode::empty())
}

/// Makes the directory, and makes it a shared mount, as iproute2 does: a name that is deleted goes
/// in every mount namespace that has copied it, which otherwise would keep the network namespace
/// alive. Under the lock that iproute2 takes on the directory for the same purpose.
fn share_directory() -> io::Result<OwnedFd> {
    match std::fs::create_dir(DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let lock = directory()?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match mount_change(DIRECTORY, shared) {
        Ok(()) => {}
        // not a mount point yet
        Err(Errno::INVAL) => {
            mount_bind_recursive(DIRECTORY, DIRECTORY)?;
            mount_change(DIRECTORY, shared)?;
        }
        Err(error) => return Err(error.into()),
    }
    // opened again: the first descriptor may be of the directory below the mount
    Ok(directory()?)
}

/// The number by which the calling thread's network namespace knows `netns`, RTM_GETNSID.
pub(crate) fn nsid(route: &mut Rtnetlink, netns: BorrowedFd<'_>) -> Option<i32> {
    use std::os::fd::AsRawFd;
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned()));
    match route.one(RouteNetlinkMessage::GetNsId(request)) {
        Ok(RouteNetlinkMessage::NewNsId(answer)) => {
            answer.attributes.into_iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if id >= 0 => Some(id),
                _ => None,
            })
        }
        _ => None,
    }
}

/// Refuses what is no name.
pub fn check(name: &str) -> Result<(), NetworkError> {
    let valid = (1..=255).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.bytes().any(|byte| byte == b'/' || byte == 0);
    if valid { Ok(()) } else { Err(NetworkError::InvalidNamespaceName(name.to_owned())) }
}

/// `NSFS_MAGIC` (linux/magic.h), where the files of namespaces are.
const NSFS: rustix::fs::FsWord = 0x6e73_6673;

/// umount2(2) has no form that takes a descriptor; `name` was checked to be one component.
fn below(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

fn missing(name: &str) -> NetworkError {
    NetworkError::NoSuchNamespace(name.to_owned())
}

fn kernel<E: Into<io::Error>>(act: &str, name: &str) -> impl FnOnce(E) -> NetworkError {
    let what = format!("{act} network namespace {name:?}");
    move |error: E| NetworkError::Kernel { what, cause: error.into() }
}

const DIRECTORY: &str = "/var/run/netns";
