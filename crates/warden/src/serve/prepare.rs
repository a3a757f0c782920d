use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_runtime::cgroup::{Hierarchies, Layout};
use bulkhead_runtime::plan::Host;
use bulkhead_sys::mount::{Depth, set_private};
use bulkhead_sys::{process, signal};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;

use super::Ready;
use super::spool::Spools;
use crate::client::USUAL_DESCRIPTORS;

/// Turns a process that has just been started into the warden.
pub(super) fn prepare(socket: &Path) -> std::io::Result<Ready> {
    process::close_from(3)?;
    // Nothing that is sent to a terminal's processes, or by a careless hand, ends the warden.
    signal::block_all()?;
    match rustix::process::setsid() {
        // already the leader of a group; then whoever started it has seen to that
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    process::new_session_keyring().or_else(|error| match error {
        Errno::NOSYS => Ok(()),
        error => Err(error),
    })?;
    // A child that has joined a container's namespaces has a copy of this memory until its execve;
    // nobody in there may look into it (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::thread::set_name(c"bulkhead-warden")?;
    // for the init of containers, which is a copy of this process
    process::remember_title_area(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default());

    let socket = std::path::absolute(socket)?;
    let invalid = || std::io::Error::from(Errno::INVAL);
    let name = socket.file_name().ok_or_else(invalid)?.to_owned();
    let parent = socket.parent().ok_or_else(invalid)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;

    let lock = OpenOptions::new().create(true).append(true).open(socket.with_extension("lock"))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        let text = format!("another warden serves {}: {error}", socket.display());
        std::io::Error::new(std::io::ErrorKind::AddrInUse, text)
    })?;
    // with the lock held, what lies there is left by a warden that is gone
    match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(&socket)?)?;
    rustix::net::listen(&listener, 128)?;

    // where none is mounted there is none to show; whoever makes containers says so
    let mut host = Hierarchies::detect().map(|it| Host::from(&it)).unwrap_or_default();
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let layout = Layout::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    host.cgroup2_flags = layout.v2_flags;
    // children that are root of their own user namespace only look through these directories
    rustix::process::umask(Mode::empty());
    enter_lean_mounts(parent)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let directory_of_processes = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", directory_of_processes, Mode::empty())?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // a container takes half a dozen
    let mut descriptors = getrlimit(Resource::Nofile);
    let most = Rlimit { current: descriptors.maximum, ..descriptors };
    setrlimit(Resource::Nofile, most)?;
    if let Some(usual) = usual_descriptors() {
        descriptors.current = Some(usual);
    }
    let lock = OwnedFd::from(lock);
    let spools = Spools::beside(&directory, &name)?;
    Ok(Ready { listener, directory, name, spools, _lock: lock, proc, null, host, descriptors })
}

/// The limit that the starter had before it raised its own, which this process has inherited.
#[expect(clippy::disallowed_methods, reason = "the starter, `client::launch`, has no other way")]
fn usual_descriptors() -> Option<u64> {
    std::env::var(USUAL_DESCRIPTORS).ok()?.parse().ok()
}

/// Tells the starter that connections are accepted, and lets go of its standard streams.
pub(super) fn announce() -> std::io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    // one who runs it by hand may have closed it
    let _ = rustix::io::write(rustix::stdio::stdout(), crate::client::READY.as_bytes());
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Leaves the host's mounts for a root with four: every clone copies the table of mounts, and every
/// file system of the host that is busy here could not be unmounted there.
///
/// The whole `/proc` and `/sys` are among them, since a user namespace may mount its own only where
/// it sees them in full (`mount_too_revealing` in the kernel's fs/namespace.c).
fn enter_lean_mounts(anywhere: &Path) -> Result<(), Errno> {
    bulkhead_sys::unshare(UnshareFlags::NEWNS)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open(c"/", flags, Mode::empty())?;
    set_private(old.as_fd(), Depth::Tree)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let null = open_tree(CWD, c"/dev/null", clone)?;

    let root = mount(c"tmpfs", &[(c"mode", c"755"), (c"size", c"64k")])?;
    let place = |name, mount: &OwnedFd| {
        move_mount(mount, c"", &root, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    move_mount(&root, c"", CWD, anywhere, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let mode = Mode::from_raw_mode(0o755);
    for name in [c"proc", c"sys", c"dev", c"root"] {
        rustix::fs::mkdirat(&root, name, mode)?;
    }
    let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&root, c"dev/null", file, Mode::from_raw_mode(0o600))?;
    place(c"proc", &mount(c"proc", &[])?)?;
    place(c"sys", &mount(c"sysfs", &[])?)?;
    place(c"dev/null", &null)?;

    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn mount(
    kind: &std::ffi::CStr,
    options: &[(&std::ffi::CStr, &std::ffi::CStr)],
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
