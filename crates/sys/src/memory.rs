//! Memory that the allocator keeps.

/// Gives the kernel what free(3) has kept for later (malloc_trim(3)), of every thread's arena.
///
/// glibc keeps what lies below a piece that is still in use, so a process stays as large as its busiest
/// moment. Other C libraries have no such call, and nothing is done.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the lock of each arena itself, and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Bytes of memory that is this process's own and in use.
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
        let numbers: Vec<usize> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        (numbers[1] - numbers[2]) * 4096
    }

    #[test]
    fn what_is_free_between_what_is_used_goes_back() {
        // small enough that malloc(3) does not map them one by one, and touched
        let mut pieces: Vec<Vec<u8>> = (0..1024).map(|_| vec![1; 64 << 10]).collect();
        let last = pieces.pop();
        drop(pieces);
        let before = resident();
        give_back();
        let after = resident();
        assert!(after + (32 << 20) < before, "{before} bytes before, {after} after");
        drop(last);
    }
}
