//! A clone that borrows its caller's memory instead of copying it, as vfork(2) does.

use std::arch::naked_asm;
use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::{arguments, exit_now};

/// Enough for whatever runs before an execve(2); only what is touched costs memory.
const STACK: usize = 1 << 20;

/// As [`clone3`](super::clone3), but the caller waits until the child has executed a program or has
/// ended, and until then the child works in the caller's memory (`CLONE_VM`, `CLONE_VFORK`). That
/// saves copying it, and the faults of both on what the other has.
///
/// `child` is given its own pid as the caller sees it. What it leaves in memory its caller finds, so
/// it is for a caller that has one thread and only ends afterwards: locks that `child` held stay
/// held, and what it closed is still open here. There is no pidfd: the pid is the parent's to wait
/// for, and so is not another's before it has. Errors are those of clone3(2) and of mmap(2) for the
/// child's stack.
pub fn clone3_borrowing<F: FnOnce(u32) -> i32>(
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    child: F,
) -> Result<u32, Errno> {
    let stack = Stack::make()?;
    let mut task = Task { child: Some(child), pid: 0 };
    let mut arguments = arguments(flags, cgroup)?;
    arguments.flags |= (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID) as u64;
    arguments.parent_tid = &raw mut task.pid as u64;
    arguments.stack = stack.base as u64;
    arguments.stack_size = STACK as u64;
    // SAFETY: the child has a stack of its own, `task` and `arguments` outlive it as a user of this
    // memory (the kernel resumes the caller only then), and `begin` takes a `Task<F>`.
    let pid = unsafe {
        let size = size_of::<libc::clone_args>();
        call(&raw const arguments, size, begin::<F>, (&raw mut task).cast())
    };
    u32::try_from(pid).map_err(|_| Errno::from_raw_os_error(-pid as i32))
}

struct Task<F> {
    child: Option<F>,
    /// The kernel stores it before the child runs.
    pid: libc::pid_t,
}

/// The child's first function, on its own stack.
extern "C" fn begin<F: FnOnce(u32) -> i32>(task: *mut c_void) -> ! {
    // SAFETY: `clone3_borrowing` passes a `Task<F>` that lives on its stack, where it waits, and
    // which nothing else refers to meanwhile.
    let task = unsafe { &mut *task.cast::<Task<F>>() };
    let pid = task.pid as u32;
    // caught here, for there is nothing above that could be unwound
    let run = AssertUnwindSafe(|| task.child.take().map(|child| child(pid)));
    exit_now(catch_unwind(run).ok().flatten().unwrap_or(70)) // EX_SOFTWARE of sysexits.h
}

/// clone3(2); in the child it calls `entry` with `data` instead of returning. The result is the
/// kernel's: a pid, or an error's negative number.
///
/// It has no unwinding information, so that a backtrace of the child ends here, where its stack does.
///
/// # Safety
/// `arguments` names a stack that is the child's alone. With `CLONE_VM` whatever `entry` uses must
/// stay as long as the child does.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn call(
    arguments: *const libc::clone_args,
    size: usize,
    entry: extern "C" fn(*mut c_void) -> !,
    data: *mut c_void,
) -> isize {
    // the call takes rcx and r11; the child has the registers of its caller, but for rax and rsp
    naked_asm!(
        "mov r8, rcx",
        "mov eax, {clone3}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rdi, r8",
        "call rdx",
        "ud2",
        clone3 = const libc::SYS_clone3,
    )
}

/// See the other one.
///
/// # Safety
/// As there.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn call(
    arguments: *const libc::clone_args,
    size: usize,
    entry: extern "C" fn(*mut c_void) -> !,
    data: *mut c_void,
) -> isize {
    naked_asm!(
        "mov x8, {clone3}",
        "svc 0",
        "cbz x0, 2f",
        "ret",
        "2:",
        "mov x29, xzr",
        "mov x0, x3",
        "blr x2",
        "brk 1",
        clone3 = const libc::SYS_clone3,
    )
}

/// Memory for a stack, with a page at its lower end that nobody may touch.
struct Stack {
    base: *mut c_void,
}

impl Stack {
    fn make() -> Result<Self, Errno> {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                STACK,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK,
            )
        }?;
        let stack = Self { base };
        // SAFETY: the lowest page of the mapping, which nothing uses yet.
        unsafe { mprotect(base, rustix::param::page_size(), MprotectFlags::empty()) }?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping; who ran on it has another memory by now, or has ended.
        let _ = unsafe { munmap(self.base, STACK) };
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, WaitOptions, getpid, getppid, waitpid};

    use super::*;

    fn status(pid: u32) -> i32 {
        let (_, status) =
            waitpid(Pid::from_raw(pid as i32), WaitOptions::empty()).unwrap().unwrap();
        status.exit_status().unwrap()
    }

    #[test]
    fn the_caller_finds_what_the_child_has_left() {
        let caller = getpid();
        let mut seen = None;
        let pid = clone3_borrowing(0, None, |pid| {
            seen = Some((pid, getpid(), getppid()));
            7
        });
        let pid = pid.unwrap();
        // no waiting: the child had ended before
        let (told, own, parent) = seen.unwrap();
        assert_eq!((told, own.as_raw_nonzero().get() as u32), (pid, pid));
        assert_eq!(parent, Some(caller));
        assert_eq!(status(pid), 7);
    }

    #[test]
    fn the_caller_goes_on_at_the_exec() {
        let arguments =
            super::super::Arguments::new(vec![c"sh".into(), c"-c".into(), c"exit 3".into()]);
        let none = super::super::Arguments::new(vec![]);
        let mut deep = 0;
        let pid = clone3_borrowing(0, None, |_| {
            deep = depth(200);
            super::super::execve(c"/bin/sh", &arguments, &none).raw_os_error()
        });
        assert_eq!((status(pid.unwrap()), deep), (3, 200));
    }

    /// Uses a lot of stack.
    fn depth(levels: u32) -> u32 {
        let page = std::hint::black_box([levels; 128]);
        if levels == 0 { 0 } else { depth(page[0] - 1) + 1 }
    }

    #[test]
    fn a_panic_ends_the_child_alone() {
        let pid = clone3_borrowing(0, None, |_| panic!("of the child"));
        assert_eq!(status(pid.unwrap()), 70);
    }

    #[test]
    fn what_the_kernel_refuses_is_said() {
        let flags = super::super::CLONE_NEWPID | libc::CLONE_THREAD;
        assert_eq!(clone3_borrowing(flags, None, |_| 0), Err(Errno::INVAL));
        let no_cgroup = std::fs::File::open("/").unwrap();
        let cgroup = std::os::fd::AsFd::as_fd(&no_cgroup);
        assert_eq!(clone3_borrowing(0, Some(cgroup), |_| 0), Err(Errno::BADF));
    }
}
