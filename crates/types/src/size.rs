/// A text that is not a size such as `64m` or `1.5GiB`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{0}'")]
pub struct InvalidSize(pub String);

/// Reads a memory size in bytes as Docker's `--memory` does: `64m`, `1g`, `512k`, `1.5GiB`, `100b`.
///
/// Every unit is a power of 1024, also `mb` (go-units: RAMInBytes).
pub fn parse_size(text: &str) -> Result<u64, InvalidSize> {
    let invalid = || InvalidSize(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(invalid()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(invalid);
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let bytes = number * (1_u64 << shift) as f64;
    if bytes.is_finite() && bytes >= 0.0 && bytes < 2_f64.powi(63) {
        Ok(bytes as u64)
    } else {
        Err(invalid())
    }
}

/// Writes bytes as Docker's tables do: powers of 1000 and three significant digits (`7.81MB`).
pub fn decimal_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            return format!("{}{unit}", significant(value));
        }
        value /= 1000.0;
    }
    format!("{}PB", significant(value))
}

/// Writes bytes in powers of 1024 and four significant digits, as `docker info` does (`15.49GiB`).
pub fn binary_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    let digits = match value {
        v if v >= 999.5 => 0,
        v if v >= 99.95 => 1,
        v if v >= 9.995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Go's `%.3g` for values below 1000.
fn significant(value: f64) -> String {
    let digits = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_like_docker() {
        for (text, bytes) in [
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("100", 100),
            ("2KB", 2048),
            ("1GiB", 1 << 30),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "m", "-1m", "1x", "1e3m", "99999999999p"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_prints_like_docker() {
        for (bytes, text) in
            [(0, "0B"), (1024, "1KiB"), (16_632_651_776, "15.49GiB"), (1_073_741_823, "1024MiB")]
        {
            assert_eq!(binary_size(bytes), text);
        }
    }

    #[test]
    fn sizes_print_like_docker() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (7_810_000, "7.81MB"),
            (77_800_000, "77.8MB"),
            (1_240_000_000, "1.24GB"),
        ] {
            assert_eq!(decimal_size(bytes), text);
        }
    }
}
