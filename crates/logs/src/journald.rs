//! The driver `journald`: systemd's own protocol (systemd: "Journal Native Protocol"), with the fields
//! that Docker writes (moby: daemon/logger/journald).

use std::io;
use std::path::Path;

use bulkhead_types::Stream;
use tokio::net::UnixDatagram;

use crate::origin::Origin;
use crate::record::Record;

pub(crate) const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal's socket, once somebody listens there.
#[derive(Debug)]
pub(crate) struct Channel(UnixDatagram);

impl Channel {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self(socket))
    }

    pub(crate) async fn send(&mut self, origin: &Origin, records: &[Record]) -> io::Result<()> {
        for record in records {
            let entry = entry(origin, record);
            let sent = self.0.send(&entry);
            let sent = tokio::time::timeout(std::time::Duration::from_secs(10), sent);
            sent.await.unwrap_or_else(|_| Err(crate::connection::timed_out()))?;
        }
        Ok(())
    }
}

fn entry(origin: &Origin, record: &Record) -> Vec<u8> {
    let mut entry = Vec::new();
    let short = origin.short_id();
    let priority = match record.stream {
        Stream::Stdout => "6",
        Stream::Stderr => "3",
    };
    let time = record.at.to_string();
    for (name, value) in [
        ("MESSAGE", record.text.as_str()),
        ("PRIORITY", priority),
        ("CONTAINER_ID", short),
        ("CONTAINER_ID_FULL", &origin.id),
        ("CONTAINER_NAME", &origin.name),
        ("CONTAINER_TAG", &origin.tag),
        ("IMAGE_NAME", &origin.image_name),
        ("SYSLOG_IDENTIFIER", &origin.tag),
        ("SYSLOG_TIMESTAMP", &time),
    ] {
        field(&mut entry, name, value);
    }
    for (name, value) in &origin.attributes {
        field(&mut entry, &field_name(name), value);
    }
    if record.goes_on {
        field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", "true");
    }
    entry
}

/// `NAME=VALUE`, or for a value with newlines its name, its length and itself.
fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    if name.is_empty() {
        return;
    }
    entry.extend_from_slice(name.as_bytes());
    match value.contains('\n') {
        false => entry.push(b'='),
        true => {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// What the journal takes as a name: upper-case letters, digits and underscores, none of which it
/// starts with (moby: daemon/logger/journald/journald.go, `sanitizeKeyMod`).
fn field_name(name: &str) -> String {
    let letters = name.chars().map(|letter| match letter.to_ascii_uppercase() {
        letter @ ('A'..='Z' | '0'..='9') => letter,
        _ => '_',
    });
    letters.collect::<String>().trim_start_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::tests::origin;

    #[test]
    fn an_entry_has_dockers_fields() {
        let record = Record {
            at: "2026-03-04T05:06:07Z".parse().unwrap(),
            stream: Stream::Stderr,
            text: "two\nlines".to_owned(),
            goes_on: true,
        };
        let entry = entry(&origin(), &record);
        let long =
            b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=3\nCONTAINER_ID=abcdef012345\n";
        assert!(entry.starts_with(long), "{}", entry.escape_ascii());
        let text = String::from_utf8_lossy(&entry);
        for line in ["CONTAINER_NAME=web", "CONTAINER_TAG=web/abcdef012345", "A1=x", "OWN=1"] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.ends_with("CONTAINER_PARTIAL_MESSAGE=true\n"));
        assert_eq!(field_name("_com.example-a"), "COM_EXAMPLE_A");
    }

    #[tokio::test]
    async fn each_record_is_a_datagram() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert!(Channel::open(&path).is_err(), "nobody listens yet");
        let journal = UnixDatagram::bind(&path).unwrap();
        let record = |text: &str| Record {
            at: "2026-03-04T05:06:07Z".parse().unwrap(),
            stream: Stream::Stdout,
            text: text.to_owned(),
            goes_on: false,
        };
        let mut open = Channel::open(&path).unwrap();
        open.send(&origin(), &[record("one"), record("two")]).await.unwrap();
        for text in ["one", "two"] {
            let mut space = [0; 4096];
            let length = journal.recv(&mut space).await.unwrap();
            let begin = format!("MESSAGE={text}\nPRIORITY=6\n");
            assert!(space[..length].starts_with(begin.as_bytes()));
        }
        drop(journal);
        assert!(open.send(&origin(), &[record("three")]).await.is_err());
    }
}
