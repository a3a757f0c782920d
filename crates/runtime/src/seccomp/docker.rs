//! Docker's default profile (moby/profiles: seccomp/default_linux.go, July 2026), as a table of our
//! own: what is listed is allowed, the rest is EPERM.
//!
//! For containers that keep NET_RAW for ping alone ([`PACKETS_CLOSED`]) there is a variant of it that
//! has no packet sockets, which read and write whole frames and are a larger part of the kernel.
//!
//! Two differences. 32-bit x86 `socketcall(SYS_SOCKET)` is ENOSYS: its arguments lie in memory that
//! a filter cannot see, so it is a way around the rule against AF_VSOCK and AF_ALG; the direct
//! call, there since Linux 4.3, remains. And the family is compared as the `int` it is.
//!
//! The build script compiles this module too (see build.rs): it uses the standard library only.

use super::profile::{Action, Comparison, Condition, ENOSYS, EPERM, Profile, Rule};
use super::table::{Architecture, Call};

/// The profile on a machine with these architectures, the native one first, of a process with these
/// capabilities (see [`relevant`]), with or without [`PACKETS_CLOSED`].
pub(super) fn profile(machine: &[Architecture], capabilities: u32) -> Profile {
    let has = |name: &str| relevant(|known| known == name) & capabilities != 0;
    let mut rules = vec![allow(ALWAYS, Vec::new())];
    for (capability, names) in WITH_CAPABILITY {
        if has(capability) {
            rules.push(allow(names, Vec::new()));
        }
    }
    if machine.contains(&Architecture::X86_64) {
        rules.push(allow("arch_prctl modify_ldt", Vec::new()));
    }
    if machine.contains(&Architecture::Arm) {
        rules.push(allow(ON_ARM, Vec::new()));
    }
    if !has("SYS_ADMIN") {
        let no_namespaces = Comparison::MaskedEqual { mask: CLONE_NAMESPACES, value: 0 };
        rules.push(allow("clone", first(no_namespaces)));
        // glibc falls back to clone on ENOSYS and on nothing else (nodejs/node#48444)
        rules.push(Rule { action: Action::Errno(ENOSYS), ..allow("clone3", Vec::new()) });
    }
    let few = if capabilities & PACKETS_CLOSED == 0 {
        rules.push(allow("socket", first(Comparison::Less(AF_ALG))));
        &[][..]
    } else {
        socket_without_packets(&mut rules);
        &[Comparison::Less(AF_INET)][..]
    };
    let others = [Comparison::Equal(AF_ALG + 1), Comparison::Greater(AF_VSOCK)];
    for families in few.iter().copied().chain(others) {
        rules.push(allow("socket", first(families)));
    }
    for persona in PERSONALITIES {
        rules.push(allow("personality", first(Comparison::Equal(persona))));
    }
    Profile {
        default: Action::Errno(EPERM),
        architectures: machine.to_vec(),
        rules,
        close_socketcall: true,
    }
}

/// Allows the families between AF_INET and AF_ALG but AF_PACKET, and AF_INET but for SOCK_PACKET,
/// which the kernel takes for AF_PACKET (linux: net/socket.c, `__sock_create`).
fn socket_without_packets(rules: &mut Vec<Rule>) {
    let condition = |argument, comparison| Condition { argument, comparison };
    for (above, below) in [(AF_INET, AF_PACKET), (AF_PACKET, AF_ALG)] {
        let between = [Comparison::Greater(above), Comparison::Less(below)];
        rules.push(allow("socket", between.map(|families| condition(0, families)).into()));
    }
    // The low four bits are the type, the rest flags: every type differs from SOCK_PACKET in a bit.
    for bit in [1, 2, 4, 8] {
        let differs = Comparison::MaskedEqual { mask: bit, value: !SOCK_PACKET & bit };
        let family = condition(0, Comparison::Equal(AF_INET));
        rules.push(allow("socket", vec![family, condition(1, differs)]));
    }
}

/// Beside the bits of [`relevant`]: no packet sockets, whatever the capabilities are.
pub(super) const PACKETS_CLOSED: u32 = 1 << 31;

/// The capabilities that make a difference to [`profile`], as a bit for each line of
/// [`WITH_CAPABILITY`]. Names are without `CAP_`.
pub(super) fn relevant(mut has: impl FnMut(&str) -> bool) -> u32 {
    let lines = WITH_CAPABILITY.iter().enumerate();
    lines.fold(0, |set, (bit, (name, _))| set | u32::from(has(name)) << bit)
}

fn allow(names: &str, conditions: Vec<Condition>) -> Rule {
    let calls = names.split_whitespace().filter_map(Call::named).collect();
    Rule { calls, action: Action::Allow, conditions }
}

fn first(comparison: Comparison) -> Vec<Condition> {
    vec![Condition { argument: 0, comparison }]
}

const AF_INET: u64 = 2;
const AF_PACKET: u64 = 17;
const SOCK_PACKET: u64 = 10;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. (NEWTIME's bit is one of the
/// exit signal's here; only clone3 and unshare take it.)
const CLONE_NAMESPACES: u64 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// PER_LINUX, PER_LINUX32 and both with UNAME26; the last asks for the present one.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
         umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

const ON_ARM: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls \
                      sync_file_range2";

/// ptrace and its like are among these since the kernel floor is above the 4.8 that Docker asks
/// for: from there on a tracer cannot change what a filter has seen.
const ALWAYS: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir
    chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod
    fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage
    getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek
    lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore
    mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at
    nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2
    prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr
    setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
    sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit
    umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice
    wait4 waitid waitpid write writev
";
