//! The driver `fluentd`: Fluentd's forward protocol, a message for each record (Fluentd: "Forward
//! Protocol Specification v1", Message Modes; moby: daemon/logger/fluentd).

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::connection::{Connection, Endpoint, Host, Tls, timed_out, unix_path};
use crate::msgpack;
use crate::options::{OptionError, Own, duration};
use crate::origin::Origin;
use crate::record::Record;

#[derive(Debug, Clone)]
pub struct Options {
    endpoint: Endpoint,
    /// Whether the receiver says that it has taken a message.
    acknowledged: bool,
    /// Nanoseconds instead of seconds.
    sub_second: bool,
}

const PORT: u16 = 24224;

impl Options {
    pub(crate) fn parse(own: &mut Own<'_>) -> Result<Self, OptionError> {
        let address = own.take("fluentd-address").unwrap_or_default();
        let endpoint = match address.split_once("://") {
            None if address.is_empty() => {
                Endpoint::Tcp(Host { name: "127.0.0.1".to_owned(), port: PORT })
            }
            None => Endpoint::Tcp(Host::parse(address, PORT)?),
            Some(("tcp", host)) => Endpoint::Tcp(Host::parse(host, PORT)?),
            Some(("tls", host)) => Endpoint::Tls(Host::parse(host, PORT)?, Tls::default()),
            Some(("unix", path)) => Endpoint::Unix(unix_path(path)?),
            Some((scheme, _)) => {
                return Err(OptionError::Invalid(format!("unsupported scheme: '{scheme}'")));
            }
        };
        // What waits is on disk and is tried again until it is taken, so these say nothing that is not
        // so already: no program waits (async), and the buffer is the log on this machine.
        own.flag("fluentd-async")?;
        own.flag("fluentd-async-connect")?;
        let time = "it is a duration, such as 500ms";
        own.read("fluentd-async-reconnect-interval", time, |text| {
            let range = Duration::from_millis(100)..=Duration::from_secs(10);
            duration(text).filter(|time| time.is_zero() || range.contains(time))
        })?;
        own.read("fluentd-retry-wait", time, duration)?;
        own.read("fluentd-write-timeout", time, duration)?;
        own.read("fluentd-read-timeout", time, duration)?;
        own.read("fluentd-buffer-limit", "it is a size, such as 8MB", |text| {
            bulkhead_types::parse_size(text).ok()
        })?;
        own.read("fluentd-max-retries", "it is a number", |text| text.parse::<u32>().ok())?;
        Ok(Self {
            endpoint,
            acknowledged: own.flag("fluentd-request-ack")?.unwrap_or(false),
            sub_second: own.flag("fluentd-sub-second-precision")?.unwrap_or(false),
        })
    }

    pub(crate) fn place(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp(host) => format!("fluentd at {host}"),
            Endpoint::Tls(host, _) => format!("fluentd at tls://{host}"),
            Endpoint::Unix(path) => format!("fluentd at {}", path.display()),
        }
    }

    /// `[tag, time, record]`, with an option that asks for an answer where there is a chunk's name.
    fn message(&self, origin: &Origin, record: &Record, chunk: Option<&str>) -> Vec<u8> {
        let mut fields: BTreeMap<&str, &str> =
            origin.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let name = format!("/{}", origin.name);
        fields.insert("container_id", &origin.id);
        fields.insert("container_name", &name);
        fields.insert("source", record.source());
        fields.insert("log", &record.text);
        if record.goes_on {
            fields.insert("partial_message", "true");
        }
        let mut message = Vec::with_capacity(record.text.len() + 256);
        msgpack::array(&mut message, if chunk.is_some() { 4 } else { 3 });
        msgpack::text(&mut message, &origin.tag);
        match self.sub_second {
            false => msgpack::integer(&mut message, record.at.as_second()),
            true => {
                // EventTime: seconds and nanoseconds, 32 bits each.
                let seconds = (record.at.as_second() as u32).to_be_bytes();
                let [a, b, c, d] = seconds;
                let [e, f, g, h] = (record.at.subsec_nanosecond().unsigned_abs()).to_be_bytes();
                msgpack::extension(&mut message, [a, b, c, d, e, f, g, h]);
            }
        }
        msgpack::map(&mut message, fields.len());
        for (name, value) in fields {
            msgpack::text(&mut message, name);
            msgpack::text(&mut message, value);
        }
        if let Some(chunk) = chunk {
            msgpack::map(&mut message, 1);
            msgpack::text(&mut message, "chunk");
            msgpack::text(&mut message, chunk);
        }
        message
    }
}

#[derive(Debug)]
pub(crate) struct Channel(Connection);

impl Channel {
    pub(crate) async fn open(options: &Options) -> io::Result<Self> {
        Connection::open(&options.endpoint).await.map(Self)
    }

    /// `sent` counts the records that the receiver has, also where the rest fails.
    pub(crate) async fn send(
        &mut self,
        options: &Options,
        origin: &Origin,
        records: &[Record],
        sent: &mut usize,
    ) -> io::Result<()> {
        if options.acknowledged {
            for record in records {
                let chunk = chunk()?;
                self.0.write(&options.message(origin, record, Some(&chunk))).await?;
                self.acknowledgement(&chunk).await?;
                *sent += 1;
            }
            return Ok(());
        }
        self.0.check().await?;
        let all: Vec<u8> =
            records.iter().flat_map(|record| options.message(origin, record, None)).collect();
        self.0.write(&all).await?;
        self.0.delivered().await?;
        *sent = records.len();
        Ok(())
    }

    /// Reads `{"ack": CHUNK}`.
    async fn acknowledgement(&mut self, chunk: &str) -> io::Result<()> {
        let mut wanted = Vec::new();
        msgpack::map(&mut wanted, 1);
        msgpack::text(&mut wanted, "ack");
        let mut found = Vec::new();
        let mut buffer = [0; 256];
        loop {
            match self.0.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::ConnectionReset.into()),
                length => found.extend_from_slice(&buffer[..length]),
            }
            // Whatever form the text has, it ends with its bytes.
            if found.starts_with(&wanted) && found.ends_with(chunk.as_bytes()) {
                return Ok(());
            }
            if found.len() > 4 * buffer.len() {
                return Err(timed_out());
            }
        }
    }
}

/// A name that no other message has: 128 random bits, as Docker's in base64's length.
fn chunk() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use bulkhead_types::Stream;

    use super::*;
    use crate::origin::tests::origin;

    #[test]
    fn a_message_is_an_array_of_tag_time_and_record() {
        let record = Record {
            at: "2026-01-01T00:00:00.5Z".parse().unwrap(),
            stream: Stream::Stdout,
            text: "x".repeat(300),
            goes_on: false,
        };
        let host = Host { name: "h".to_owned(), port: 1 };
        let options =
            Options { endpoint: Endpoint::Tcp(host), acknowledged: true, sub_second: true };
        let message = options.message(&origin(), &record, Some("c1"));
        assert_eq!(message[..2], [0x94, 0xa0 | 16], "four parts, a tag of 16 bytes");
        assert_eq!(message[18..20], [0xd7, 0]);
        assert_eq!(message[20..28], [0x69, 0x55, 0xb9, 0x00, 0x1d, 0xcd, 0x65, 0x00]);
        assert_eq!(message[28], 0x86, "six pairs");
        assert!(message.ends_with(b"\x81\xa5chunk\xa2c1"));
        let log = message.windows(7).position(|bytes| bytes == b"\xa3log\xda\x01\x2c");
        assert!(log.is_some(), "{}", message.escape_ascii());
    }
}
