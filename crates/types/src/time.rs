//! Times and durations as people write them to Docker's tools.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A moment: a Go duration before `now` (`24h`, `1m30s`), seconds since the epoch with an optional
/// fraction, RFC 3339, or a date with or without a time of day, in `zone` unless it names its own
/// (moby: daemon/internal/timestamp).
pub fn parse_moment(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Some(nanoseconds) = go_duration(text)
        && text != "0"
    {
        return now.checked_sub(SignedDuration::from_nanos(nanoseconds)).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Some(time) = epoch_seconds(text) {
        return Some(time);
    }
    // RFC 3339 but for the seconds or the time of day, with or without a zone
    let (text, zone) = match text.strip_suffix('Z') {
        Some(text) => (text, &TimeZone::UTC),
        None => (text, zone),
    };
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H"];
    let date_time = forms.iter().find_map(|form| DateTime::strptime(form, text).ok());
    let date_time = date_time.or_else(|| {
        let date = jiff::civil::Date::strptime("%Y-%m-%d", text).ok()?;
        Some(date.at(0, 0, 0, 0))
    })?;
    zone.to_timestamp(date_time).ok()
}

/// `1795462134` or `1795462134.000000001`.
fn epoch_seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

/// Go's `time.ParseDuration`, in nanoseconds; it knows no number without a unit but 0.
pub fn go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
        if rest.is_empty() {
            break;
        }
    }
    // Above 2^53 (104 days) a double is off by some nanoseconds, which nobody means.
    (total < i64::MAX as f64).then_some((sign * total) as i64)
}

/// Go's `time.Duration.String`: `1.5s`, `2m0s`, `1h0m0s`, `20ms`.
pub fn go_duration_text(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    // Without the zeros that say nothing.
    let with = |unit: u128, name: &str| {
        let fraction = nanoseconds % unit * (1_000_000_000 / unit);
        let number = format!("{}.{fraction:09}", nanoseconds / unit);
        format!("{}{name}", number.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => with(1_000, "µs"),
        1_000_000..1_000_000_000 => with(1_000_000, "ms"),
        _ => {
            let seconds = duration.as_secs();
            let below = Duration::new(seconds % 60, duration.subsec_nanos());
            let number = format!("{}.{:09}", below.as_secs(), below.subsec_nanos());
            let rest = number.trim_end_matches('0').trim_end_matches('.');
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{rest}s"),
                (0, minutes) => format!("{minutes}m{rest}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (10_000_000_000, "10s"),
            (30_000_000_000, "30s"),
            (60_000_000_000, "1m0s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (100 * 3_600_000_000_000, "100h0m0s"),
        ] {
            assert_eq!(go_duration_text(Duration::from_nanos(nanoseconds)), text);
            assert_eq!(go_duration(text), i64::try_from(nanoseconds).ok(), "{text}");
        }
    }

    #[test]
    fn moments_are_read_as_docker_reads_them() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        for (text, moment) in [
            ("24h", "2026-11-22T12:00:00Z"),
            ("1m30s", "2026-11-23T11:58:30Z"),
            ("-10m", "2026-11-23T12:10:00Z"),
            ("8760h", "2025-11-23T12:00:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("1.5", "1970-01-01T00:00:01.5Z"),
            ("1795462134.000000001", "2026-11-23T19:28:54.000000001Z"),
            ("2026-11-23T19:28:54Z", "2026-11-23T19:28:54Z"),
            ("2026-11-23T19:28:54.25+02:00", "2026-11-23T17:28:54.25Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2026-11-01Z", "2026-11-01T00:00:00Z"),
            ("2026-11-01T08", "2026-11-01T07:00:00Z"),
            ("2026-11-01T08:30", "2026-11-01T07:30:00Z"),
            ("2026-11-01T08:30:15", "2026-11-01T07:30:15Z"),
            ("2026-11-01T08:30:15.5", "2026-11-01T07:30:15.5Z"),
        ] {
            let parsed = parse_moment(text, now, &berlin).map(|time| time.to_string());
            assert_eq!(parsed.as_deref(), Some(moment), "{text}");
        }
        for wrong in ["", "bogus", "x", "1.", "1.x", "1.0000000001", "99999999999999999", "24"] {
            let parsed = parse_moment(wrong, now, &berlin);
            assert!(parsed.is_none() || wrong == "24", "{wrong}: {parsed:?}");
        }
    }
}
