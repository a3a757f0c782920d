//! Turning a process that has just been started into the resolver, which may do next to nothing.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::path::Path;

use bulkhead_runtime::seccomp::{CompileOptions, compile_oci};
use bulkhead_sys::mount::{Depth, set_private};
use bulkhead_sys::{process, seccomp, signal};
use bulkhead_types::oci::{Seccomp, SeccompArgument, SeccompRule};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::Ready;

/// Makes the socket, and then gives up the file system, every capability, and all system calls but
/// those that waiting, receiving and sending need: this process reads what any container and any
/// server says.
pub(super) fn prepare(socket: &Path) -> std::io::Result<Ready> {
    process::close_from(3)?;
    // Nothing that is sent to a terminal's processes, or by a careless hand, ends the resolver.
    signal::block_all()?;
    match rustix::process::setsid() {
        // already the leader of a group; then whoever started it has seen to that
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::thread::set_name(c"bulkhead-dns")?;

    let socket = std::path::absolute(socket)?;
    let invalid = || std::io::Error::from(Errno::INVAL);
    let name = socket.file_name().ok_or_else(invalid)?;
    let parent = socket.parent().ok_or_else(invalid)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let lock = OpenOptions::new().create(true).append(true).open(socket.with_extension("lock"))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        let text = format!("another resolver serves {}: {error}", socket.display());
        std::io::Error::new(std::io::ErrorKind::AddrInUse, text)
    })?;
    // with the lock held, what lies there is left by a resolver that is gone
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(&socket)?)?;
    rustix::net::listen(&listener, 128)?;

    // a container has two sockets, and some more where it has servers of its own
    let descriptors = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, ..descriptors })?;
    enter_empty_root(parent)?;
    Ok(Ready { listener, _lock: lock.into() })
}

/// Tells the starter that connections are accepted, and lets go of its standard streams and of the
/// last privileges.
pub(super) fn announce() -> std::io::Result<()> {
    // standard input is `/dev/null` already
    // one who runs it by hand may have closed it
    let _ = rustix::io::write(rustix::stdio::stdout(), crate::client::READY.as_bytes());
    rustix::stdio::dup2_stdout(rustix::stdio::stdin())?;
    drop_privileges()
}

/// A file system with nothing in it, which nobody can write to.
fn enter_empty_root(anywhere: &Path) -> Result<(), Errno> {
    bulkhead_sys::unshare(UnshareFlags::NEWNS)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open(c"/", flags, Mode::empty())?;
    set_private(old.as_fd(), Depth::Tree)?;
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [(c"mode", c"555"), (c"size", c"4k")] as [(&CStr, &CStr); 2] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&root, c"", CWD, anywhere, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// The user stays root, so that nobody but root may send signals; without capabilities, and with
/// nothing to open, it is nobody.
fn drop_privileges() -> std::io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    let filter = compile_oci(&filter(), CompileOptions::default())
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    if let Some(filter) = filter {
        seccomp::install(&filter.instructions, filter.flags)?;
    }
    Ok(())
}

/// What the process may ask of the kernel; everything else is refused with EPERM.
fn filter() -> Seccomp {
    let allow = |names: &[&str], args: Vec<SeccompArgument>| SeccompRule {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: "SCMP_ACT_ALLOW".to_owned(),
        args,
        ..SeccompRule::default()
    };
    let family = |family: AddressFamily| SeccompArgument {
        index: 0,
        value: family.as_raw().into(),
        value_two: 0,
        op: "SCMP_CMP_EQ".to_owned(),
    };
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno_ret: Some(Errno::PERM.raw_os_error().unsigned_abs()),
        syscalls: vec![
            allow(CALLS, Vec::new()),
            allow(&["socket"], vec![family(AddressFamily::INET)]),
            allow(&["socket"], vec![family(AddressFamily::INET6)]),
        ],
        ..Seccomp::default()
    }
}

const CALLS: &[&str] = &[
    // waiting, receiving, sending
    "accept4",
    "close",
    "connect",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "fcntl",
    "getsockname",
    "getsockopt",
    "ioctl",
    "read",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "sendto",
    "write",
    // messages of the engine that are longer than a packet
    "fstat",
    "ftruncate",
    "lseek",
    "memfd_create",
    "newfstatat",
    "statx",
    "writev",
    // memory, time, random numbers
    "brk",
    "clock_gettime",
    "futex",
    "getrandom",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    // the end
    "exit",
    "exit_group",
    "gettid",
    "getpid",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "tgkill",
];
