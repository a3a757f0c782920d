use bulkhead_types::{Stream, Timestamp};
use serde::Deserialize;

/// One record of a log: a line, or a piece of one that is longer than 16 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub at: Timestamp,
    pub stream: Stream,
    /// Without the newline.
    pub text: String,
    /// Whether the line goes on in a record that follows.
    pub goes_on: bool,
}

impl Record {
    /// Reads a line of a json-file log; `None` for what is no record.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            log: String,
            #[serde(borrow)]
            stream: std::borrow::Cow<'a, str>,
            #[serde(borrow)]
            time: std::borrow::Cow<'a, str>,
        }
        let wire = serde_json::from_slice::<Wire<'_>>(line).ok()?;
        let mut text = wire.log;
        let goes_on = match text.strip_suffix('\n') {
            Some(line) => {
                text.truncate(line.len());
                false
            }
            None => text.len() >= LONGEST,
        };
        Some(Self {
            at: wire.time.parse().ok()?,
            stream: if wire.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
            text,
            goes_on,
        })
    }

    /// syslog's severity, which journald and GELF have too (moby: daemon/logger/syslog): an error is
    /// what was written to standard error.
    pub(crate) fn severity(&self) -> u8 {
        match self.stream {
            Stream::Stdout => 6,
            Stream::Stderr => 3,
        }
    }

    pub(crate) fn source(&self) -> &'static str {
        match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The length, in bytes, at which the warden cuts a line (moby: daemon/logger/copier.go). Text that was
/// no UTF-8 is longer by now.
const LONGEST: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_piece_and_what_is_none() {
        let parse = |text: &str| Record::parse(text.as_bytes());
        let line = parse(r#"{"log":"a\n","stream":"stderr","time":"2026-01-01T00:00:00Z"}"#);
        let line = line.unwrap();
        assert_eq!((&*line.text, line.goes_on, line.severity()), ("a", false, 3));
        let piece = format!(
            r#"{{"log":"{}","stream":"stdout","time":"2026-01-01T00:00:00Z"}}"#,
            "x".repeat(LONGEST)
        );
        assert!(parse(&piece).unwrap().goes_on);
        let end = r#"{"log":"no newline","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#;
        assert!(!parse(end).unwrap().goes_on, "the program ended there");
        assert!(parse("{\"log\":\"a").is_none());
    }
}
