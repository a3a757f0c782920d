//! A container's log, which a crash may have left in any state: what is read forwards and from the end
//! are the same records.
#![no_main]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (tail, bytes) = input;
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("log", flags).expect("memory"));
    file.write_all(bytes).expect("memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let tail = usize::from(tail);
    let [all, past, last] = bulkhead_engine::fuzzing::log(&path, tail).expect("a file");
    assert_eq!(all, past);
    // Records that are damaged count as lines, and are not told.
    assert!(last.len() <= tail && all.ends_with(&last), "{last:?} of {all:?}");
});
