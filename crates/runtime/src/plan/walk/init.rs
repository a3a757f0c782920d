//! The runtime's own init: process 1 that reaps orphans and forwards signals.

use bulkhead_sys::process::{close_from, exit_now};
use bulkhead_sys::signal;

/// Waits for the end of `child` and ends with its exit status; every signal must be blocked.
pub(super) fn supervise(child: u32) -> ! {
    // the parent takes the end of the control socket for a successful execve
    let _ = close_from(3);
    loop {
        let Ok(taken) = signal::wait() else { continue };
        if taken.number != signal::CHILD {
            // the terminal's signals have reached the child by themselves
            if !taken.from_kernel {
                let _ = signal::send_to_child(child, taken.number);
            }
            continue;
        }
        while let Ok(Some((pid, status))) = signal::reap_any() {
            if pid == child {
                exit_now(signal::exit_code(status));
            }
        }
    }
}
