//! Signals by name.

/// Reads `KILL`, `SIGKILL`, `sigkill`, `9`, `RTMIN+3`, `RTMAX-2` as people write them: a number from
/// 1 to 64.
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| text.parse::<i32>().ok().filter(|offset| (0..=30).contains(offset));
    if let Some(rest) = name.strip_prefix("RTMIN") {
        // glibc keeps 32 and 33 for itself, so what programs call SIGRTMIN is 34.
        return if rest.is_empty() {
            Some(34)
        } else {
            Some(34 + offset(rest.strip_prefix('+')?)?)
        };
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return if rest.is_empty() {
            Some(64)
        } else {
            Some(64 - offset(rest.strip_prefix('-')?)?)
        };
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// signal(7), the generic numbers of x86 and ARM.
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];

#[cfg(test)]
mod tests {
    #[test]
    fn signals_are_read_as_docker_reads_them() {
        for (text, number) in [
            ("KILL", Some(9)),
            ("SIGKILL", Some(9)),
            ("sigterm", Some(15)),
            ("9", Some(9)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-2", Some(62)),
            ("RTMAX", Some(64)),
            ("0", None),
            ("65", None),
            ("", None),
            ("NOPE", None),
            ("RTMIN3", None),
        ] {
            assert_eq!(super::number(text), number, "{text}");
        }
    }
}
