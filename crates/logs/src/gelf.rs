//! The driver `gelf`: Graylog's extended format (Graylog: GELF payload specification 1.1; moby:
//! daemon/logger/gelf).

use std::io::{self, Write as _};

use flate2::Compression;
use serde_json::{Map, Value, json};
use tokio::net::UdpSocket;

use crate::connection::{Connection, Endpoint, Host};
use crate::options::{OptionError, Own};
use crate::origin::Origin;
use crate::record::Record;
use crate::syslog::{pace, refused, send_udp, udp};

#[derive(Debug, Clone)]
pub struct Options {
    host: Host,
    transport: Transport,
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    Udp(Packing),
    Tcp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    Gzip(Compression),
    Zlib(Compression),
    Plain,
}

/// Bytes of a message in one datagram, as Docker's client cuts them: below what Ethernet takes.
const CHUNK: usize = 1420;
const CHUNK_HEADER: usize = 12;
/// The specification's most.
const MOST_CHUNKS: usize = 128;

impl Options {
    pub(crate) fn parse(own: &mut Own<'_>) -> Result<Self, OptionError> {
        let invalid = |text: &str| Err(OptionError::Invalid(text.to_owned()));
        let address = own.take("gelf-address").unwrap_or_default();
        if address.is_empty() {
            return invalid("gelf-address is a required parameter");
        }
        let Some((scheme @ ("udp" | "tcp"), place)) = address.split_once("://") else {
            return invalid("gelf: endpoint needs to be TCP or UDP");
        };
        // Docker has no default for the port.
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port {
            return invalid("gelf: please provide gelf-address as proto://host:port");
        }
        let host = Host::parse(place, 0)?;
        let kind = own.take("gelf-compression-type");
        let level = own.read("gelf-compression-level", "it is a number from -1 to 9", |text| {
            text.parse::<i32>().ok().filter(|level| (-1..=9).contains(level))
        })?;
        let number = "it is a number";
        let reconnect =
            own.read("gelf-tcp-max-reconnect", number, |text| text.parse::<u32>().ok())?;
        let delay =
            own.read("gelf-tcp-reconnect-delay", number, |text| text.parse::<u32>().ok())?;
        if scheme == "tcp" {
            if kind.is_some() || level.is_some() {
                return invalid("compression is only supported on UDP");
            }
            return Ok(Self { host, transport: Transport::Tcp });
        }
        if reconnect.is_some() || delay.is_some() {
            return invalid(
                "gelf-tcp-max-reconnect and gelf-tcp-reconnect-delay are only supported on TCP",
            );
        }
        let level = match level {
            None | Some(-1) => Compression::fast(),
            Some(level) => Compression::new(level.unsigned_abs()),
        };
        let packing = match kind {
            None | Some("gzip") => Packing::Gzip(level),
            Some("zlib") => Packing::Zlib(level),
            Some("none") => Packing::Plain,
            Some(_) => {
                return invalid("gelf: invalid compression type: it is gzip, zlib or none");
            }
        };
        Ok(Self { host, transport: Transport::Udp(packing) })
    }

    pub(crate) fn place(&self) -> String {
        let scheme = match self.transport {
            Transport::Udp(_) => "udp",
            Transport::Tcp => "tcp",
        };
        format!("gelf at {scheme}://{}", self.host)
    }
}

#[derive(Debug)]
pub(crate) enum Channel {
    Udp(UdpSocket, Packing),
    Tcp(Box<Connection>),
}

impl Channel {
    pub(crate) async fn open(options: &Options) -> io::Result<Self> {
        match options.transport {
            Transport::Udp(packing) => Ok(Self::Udp(udp(&options.host).await?, packing)),
            Transport::Tcp => {
                let endpoint = Endpoint::Tcp(options.host.clone());
                Ok(Self::Tcp(Box::new(Connection::open(&endpoint).await?)))
            }
        }
    }

    pub(crate) async fn send(&mut self, origin: &Origin, records: &[Record]) -> io::Result<()> {
        // An empty message is none to the specification, and Docker sends none.
        let messages = records.iter().filter(|record| !record.text.is_empty());
        let messages = messages.map(|record| message(origin, record).to_string());
        match self {
            Self::Udp(socket, packing) => {
                let mut sent = 0;
                for message in messages {
                    for chunk in chunks(&packing.pack(message.as_bytes())?)? {
                        send_udp(socket, &chunk).await?;
                        pace(sent).await;
                        sent += 1;
                    }
                }
                refused(socket)
            }
            Self::Tcp(connection) => {
                connection.check().await?;
                let all: Vec<u8> =
                    messages.flat_map(|message| [message.into_bytes(), vec![0]].concat()).collect();
                connection.write(&all).await?;
                connection.delivered().await
            }
        }
    }
}

fn message(origin: &Origin, record: &Record) -> Value {
    let mut message = Map::new();
    let seconds = record.at.as_millisecond() as f64 / 1000.0;
    for (name, value) in [
        ("version", json!("1.1")),
        ("host", json!(origin.hostname)),
        ("short_message", json!(record.text)),
        ("timestamp", json!(seconds)),
        ("level", json!(record.severity())),
        ("_container_id", json!(origin.id)),
        ("_container_name", json!(origin.name)),
        ("_image_id", json!(origin.image_id)),
        ("_image_name", json!(origin.image_name)),
        ("_command", json!(origin.command)),
        ("_tag", json!(origin.tag)),
        ("_created", json!(origin.created.to_string())),
    ] {
        message.insert(name.to_owned(), value);
    }
    for (name, value) in &origin.attributes {
        // `_id` is the server's own
        let name = if name.starts_with('_') { name.clone() } else { format!("_{name}") };
        message.insert(name, json!(value));
    }
    Value::Object(message)
}

impl Packing {
    fn pack(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(level) => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Zlib(level) => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Plain => Ok(bytes.to_vec()),
        }
    }
}

/// The datagrams of a message: itself, or its numbered parts.
fn chunks(bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    if bytes.len() <= CHUNK {
        return Ok(vec![bytes.to_vec()]);
    }
    let parts: Vec<&[u8]> = bytes.chunks(CHUNK - CHUNK_HEADER).take(MOST_CHUNKS).collect();
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
    let count = parts.len() as u8;
    let number = |(number, part): (usize, &&[u8])| {
        let header = [&[0x1e, 0x0f][..], &id, &[number as u8, count]].concat();
        [&header, *part].concat()
    };
    Ok(parts.iter().enumerate().map(number).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bulkhead_types::Stream;

    use super::*;
    use crate::origin::tests::origin;

    #[test]
    fn messages_are_cut_and_come_together_again() {
        let record = Record {
            at: "2026-01-01T00:00:00.25Z".parse().unwrap(),
            stream: Stream::Stdout,
            text: (0..4000).map(|number| format!("{number:x}")).collect(),
            goes_on: false,
        };
        let message = message(&origin(), &record).to_string();
        assert!(message.contains(r#""timestamp":1767225600.25,"level":6"#), "{message}");
        assert!(message.contains(r#""_A1":"x","_own":"1""#), "{message}");
        let packed = Packing::Gzip(Compression::fast()).pack(message.as_bytes()).unwrap();
        let chunks = chunks(&packed).unwrap();
        assert!(chunks.len() > 2 && chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        let whole: Vec<u8> = chunks.iter().flat_map(|chunk| chunk[12..].to_vec()).collect();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*whole).read_to_string(&mut text).unwrap();
        assert_eq!(text, message);
    }
}
