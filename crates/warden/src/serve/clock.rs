//! The two clocks, in nanoseconds.

use rustix::time::{ClockId, clock_gettime};

/// Since the epoch; what is recorded and shown.
pub(super) fn now() -> i64 {
    nanoseconds(ClockId::Realtime)
}

/// What deadlines are measured by.
pub(super) fn monotonic() -> i64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
