//! Memory that two processes share, for handing over a descriptor without system calls.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Two words that both sides see: one side offers a descriptor by its number, the other takes it
/// with pidfd_getfd(2) and says so.
#[derive(Debug)]
pub struct Handover {
    words: NonNull<Words>,
}

#[derive(Debug)]
#[repr(C)]
struct Words {
    /// The descriptor's number and one.
    offered: AtomicU32,
    taken: AtomicU32,
}

const LENGTH: usize = 4096;

impl Handover {
    /// Makes one for this process, and the descriptor by which another [`open`](Self::open)s it.
    pub fn new() -> Result<(Self, OwnedFd), Errno> {
        let memory = rustix::fs::memfd_create(c"handover", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memory, LENGTH as u64)?;
        Ok((Self::open(memory.as_fd())?, memory))
    }

    /// Opens the other side's.
    pub fn open(memory: BorrowedFd<'_>) -> Result<Self, Errno> {
        // a shorter file would be a signal at the first access
        if rustix::fs::fstat(memory)?.st_size < LENGTH as i64 {
            return Err(Errno::INVAL);
        }
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                LENGTH,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memory,
                0,
            )?
        };
        NonNull::new(mapped.cast()).map(|words| Self { words }).ok_or(Errno::NOMEM)
    }

    fn words(&self) -> &Words {
        // SAFETY: the mapping is of a whole page, aligned, zero at first, lives as long as `self`,
        // and is only ever accessed by atomic operations, on both sides.
        unsafe { self.words.as_ref() }
    }

    /// Offers a descriptor and waits, turning round, until the other side has taken it; makes no
    /// system call until then.
    ///
    /// # Errors
    /// `TIMEDOUT` after some seconds without an answer: the other side is gone.
    pub fn offer(self, descriptor: OwnedFd) -> Result<(), Errno> {
        // some seconds; a clock would be a system call where there is no vdso
        const TURNS: u64 = 1 << 32;
        self.words().offered.store(descriptor.as_raw_fd() as u32 + 1, Ordering::Release);
        for _ in 0..TURNS {
            if self.words().taken.load(Ordering::Acquire) != 0 {
                // closing it and the mapping are system calls too: the exec does both
                let _ = descriptor.into_raw_fd();
                std::mem::forget(self);
                return Ok(());
            }
            std::hint::spin_loop();
        }
        Err(Errno::TIMEDOUT)
    }

    /// Takes what is offered by the process of `pidfd`; `None` as long as nothing is.
    pub fn take(&self, pidfd: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
        let Some(number) = self.words().offered.load(Ordering::Acquire).checked_sub(1) else {
            return Ok(None);
        };
        // SAFETY: pidfd_getfd(2) takes no pointers; `pidfd` is open for the time of the borrow.
        let fd = crate::check_value(unsafe {
            libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0)
        })?;
        // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Lets the other side go on.
    pub fn taken(&self) {
        self.words().taken.store(1, Ordering::Release);
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open`, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_descriptor_goes_over_without_a_message() {
        let (ours, memory) = Handover::new().unwrap();
        assert!(Handover::open(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
        let child = crate::process::clone3(0, None, || {
            let theirs = Handover::open(memory.as_fd()).unwrap();
            let (read, write) = rustix::pipe::pipe().unwrap();
            rustix::io::write(&write, b"over").unwrap();
            i32::from(theirs.offer(read).is_err())
        })
        .unwrap();
        let taken = loop {
            match ours.take(child.pidfd.as_fd()).unwrap() {
                Some(taken) => break taken,
                None => std::thread::yield_now(),
            }
        };
        ours.taken();
        let mut text = [0; 4];
        std::fs::File::from(taken).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"over");
    }
}
