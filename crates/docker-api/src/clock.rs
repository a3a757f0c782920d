//! Times and durations as Docker writes them.

use bulkhead_types::Timestamp;

/// What Go writes for a time that never was.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with as many digits of the second as there are (Go's `RFC3339Nano`).
pub(crate) fn rfc3339(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

/// RFC 3339 with nine digits, which sort as text (moby: `RFC3339NanoFixed`), as logs have it.
pub(crate) fn rfc3339_fixed(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// How long ago `time` was, in Docker's words such as `About an hour`; empty seconds are
/// `Less than a second` (docker/go-units: `HumanDuration`).
pub(crate) fn since(time: Timestamp, now: Timestamp) -> String {
    duration(now.as_second().saturating_sub(time.as_second()).max(0))
}

fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Go rounds the hours.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        _ if seconds < 60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_docker() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
            (100 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn log_times_have_nine_digits() {
        let time = Timestamp::new(1_795_462_100, 794_500_000).expect("in range");
        assert_eq!(rfc3339_fixed(time), "2026-11-23T19:28:20.794500000Z");
        assert_eq!(rfc3339(Some(time)), "2026-11-23T19:28:20.7945Z");
        assert_eq!(rfc3339(None), NEVER);
    }
}
