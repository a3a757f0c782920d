//! The driver `syslog` (moby: daemon/logger/syslog; RFC 3164, RFC 5424, RFC 5425).

use std::io;
use std::path::PathBuf;

use bulkhead_types::Timestamp;
use jiff::tz::TimeZone;
use tokio::net::{UdpSocket, UnixDatagram};

use crate::connection::{Check, Connection, Endpoint, Host, Tls, unix_path};
use crate::options::{OptionError, Own};
use crate::origin::Origin;
use crate::record::Record;

#[derive(Debug, Clone)]
pub struct Options {
    transport: Transport,
    /// 0 to 23.
    facility: u8,
    format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Transport {
    /// This machine's, wherever its socket is.
    Local,
    Udp(Host),
    Stream(Endpoint),
    Datagrams(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// As RFC 3164 without the host: what a syslog on the same machine reads.
    Unix,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}

/// Where a local syslog listens (Go's log/syslog, `unixSyslog`).
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl Options {
    pub(crate) fn parse(own: &mut Own<'_>) -> Result<Self, OptionError> {
        let facility = own.read("syslog-facility", "there is no such facility", |text| {
            let named = FACILITIES.iter().find(|(name, _)| *name == text);
            named
                .map(|(_, number)| *number)
                .or_else(|| text.parse().ok().filter(|number| *number <= 23))
        })?;
        let format = match own.take("syslog-format") {
            None | Some("") => Format::Unix,
            Some("rfc3164") => Format::Rfc3164,
            Some("rfc5424") => Format::Rfc5424,
            Some("rfc5424micro") => Format::Rfc5424Micro,
            Some(_) => return Err(OptionError::Invalid("Invalid syslog format".to_owned())),
        };
        let path = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        let tls = Tls {
            ca: path(own.take("syslog-tls-ca-cert")),
            certificate: path(own.take("syslog-tls-cert")),
            key: path(own.take("syslog-tls-key")),
            // Go reads any other text as no.
            check: match own.flag("syslog-tls-skip-verify")? {
                Some(true) => Check::Nothing,
                _ => Check::Certificate,
            },
        };
        if tls.certificate.is_some() != tls.key.is_some() {
            return Err(OptionError::Invalid(
                "log opts 'syslog-tls-cert' and 'syslog-tls-key' go together".to_owned(),
            ));
        }
        let address = own.take("syslog-address").unwrap_or_default();
        let transport = match address.split_once("://") {
            None if address.is_empty() => Transport::Local,
            Some(("udp", host)) => Transport::Udp(Host::parse(host, 514)?),
            Some(("tcp", host)) => Transport::Stream(Endpoint::Tcp(Host::parse(host, 514)?)),
            Some(("tcp+tls", host)) => {
                Transport::Stream(Endpoint::Tls(Host::parse(host, 514)?, tls))
            }
            Some(("unix", path)) => Transport::Stream(Endpoint::Unix(unix_path(path)?)),
            Some(("unixgram", path)) => Transport::Datagrams(unix_path(path)?),
            Some((scheme, _)) => {
                return Err(OptionError::Invalid(format!("unsupported scheme: '{scheme}'")));
            }
            None => {
                return Err(OptionError::Invalid(format!(
                    "syslog-address should be in form proto://address, got {address}"
                )));
            }
        };
        Ok(Self { transport, facility: facility.unwrap_or(3), format })
    }

    /// Where to, for people.
    pub(crate) fn place(&self) -> String {
        match &self.transport {
            Transport::Local => "syslog on this machine".to_owned(),
            Transport::Udp(host) => format!("syslog at udp://{host}"),
            Transport::Stream(Endpoint::Tcp(host)) => format!("syslog at tcp://{host}"),
            Transport::Stream(Endpoint::Tls(host, _)) => format!("syslog at tcp+tls://{host}"),
            Transport::Stream(Endpoint::Unix(path)) | Transport::Datagrams(path) => {
                format!("syslog at {}", path.display())
            }
        }
    }

    fn message(&self, origin: &Origin, record: &Record) -> String {
        let priority = self.facility * 8 + record.severity();
        // A label of an image may be part of it, and must not begin another message.
        let tag = origin.tag.replace(|letter: char| letter.is_control(), "_");
        let (host, text) = (&origin.hostname, &record.text);
        let pid = std::process::id();
        let zone = TimeZone::system();
        match self.format {
            Format::Unix => {
                let time = stamp(record.at, &zone);
                format!("<{priority}>{time} {tag}[{pid}]: {text}\n")
            }
            Format::Rfc3164 => {
                let time = stamp(record.at, &zone);
                format!("<{priority}>{time} {host} {tag}[{pid}]: {text}\n")
            }
            Format::Rfc5424 | Format::Rfc5424Micro => {
                let time = rfc3339(record.at, &zone, self.format == Format::Rfc5424Micro);
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - {text}\n")
            }
        }
    }

    /// RFC 5425, 4.3: behind its length, where the transport and the format say so.
    fn framed(&self, message: String) -> String {
        let is_tls = matches!(self.transport, Transport::Stream(Endpoint::Tls(..)));
        match self.format {
            Format::Rfc5424 | Format::Rfc5424Micro if is_tls => {
                format!("{} {message}", message.len())
            }
            _ => message,
        }
    }
}

/// `Jan  2 15:04:05`, RFC 3164, 4.1.2.
fn stamp(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%b %e %H:%M:%S").to_string()
}

fn rfc3339(at: Timestamp, zone: &TimeZone, micro: bool) -> String {
    let local = at.to_zoned(zone.clone());
    let fraction =
        if micro { format!(".{:06}", at.subsec_nanosecond() / 1000) } else { String::new() };
    let offset = match local.offset().seconds() {
        0 => "Z".to_owned(),
        _ => local.strftime("%:z").to_string(),
    };
    format!("{}{fraction}{offset}", local.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// A way to a syslog that is open.
#[derive(Debug)]
pub(crate) enum Channel {
    Udp(UdpSocket),
    Stream(Box<Connection>),
    Datagrams(UnixDatagram),
}

impl Channel {
    pub(crate) async fn open(options: &Options) -> io::Result<Self> {
        match &options.transport {
            Transport::Udp(host) => Ok(Self::Udp(udp(host).await?)),
            Transport::Stream(endpoint) => {
                Ok(Self::Stream(Box::new(Connection::open(endpoint).await?)))
            }
            Transport::Datagrams(path) => Ok(Self::Datagrams(datagrams(path)?)),
            Transport::Local => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for path in LOCAL {
                    match datagrams(path.as_ref()) {
                        Ok(socket) => return Ok(Self::Datagrams(socket)),
                        Err(error) => last = error,
                    }
                    let endpoint = Endpoint::Unix(path.into());
                    if let Ok(connection) = Connection::open(&endpoint).await {
                        return Ok(Self::Stream(Box::new(connection)));
                    }
                }
                Err(last)
            }
        }
    }

    pub(crate) async fn send(
        &mut self,
        options: &Options,
        origin: &Origin,
        records: &[Record],
    ) -> io::Result<()> {
        match self {
            Self::Stream(connection) => {
                connection.check().await?;
                let all =
                    records.iter().map(|record| options.framed(options.message(origin, record)));
                connection.write(all.collect::<String>().as_bytes()).await?;
                connection.delivered().await
            }
            Self::Udp(socket) => {
                for (number, record) in records.iter().enumerate() {
                    let message = options.message(origin, record);
                    send_udp(socket, message.as_bytes()).await?;
                    pace(number).await;
                }
                // A port that nobody listens on says so behind what was sent (ICMP).
                refused(socket)
            }
            Self::Datagrams(socket) => {
                for record in records {
                    let message = options.message(origin, record);
                    let sent = socket.send(message.as_bytes());
                    tokio::time::timeout(std::time::Duration::from_secs(10), sent)
                        .await
                        .unwrap_or_else(|_| Err(crate::connection::timed_out()))?;
                }
                Ok(())
            }
        }
    }
}

fn datagrams(path: &std::path::Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

pub(crate) async fn udp(host: &Host) -> io::Result<UdpSocket> {
    let mut last = io::Error::other(format!("{} has no address", host.name));
    for address in tokio::net::lookup_host((host.name.as_str(), host.port)).await? {
        let any: std::net::SocketAddr = match address {
            std::net::SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            std::net::SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let connect = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        match connect.await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(crate) async fn send_udp(socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
    // What is too long for a datagram never fits, and the rest must not wait for it.
    const MOST: usize = 65_000;
    socket.send(&bytes[..bytes.len().min(MOST)]).await.map(drop)
}

/// Lets a receiver take what it has: a socket's queue holds some hundred datagrams, and more of them go
/// without a word.
pub(crate) async fn pace(sent: usize) {
    const AT_ONCE: usize = 64;
    if sent % AT_ONCE == AT_ONCE - 1 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

pub(crate) fn refused(socket: &UdpSocket) -> io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::Stream;

    use super::*;
    use crate::origin::tests::origin;

    #[test]
    fn messages_are_dockers() {
        let record = Record {
            at: "2026-03-04T05:06:07.123456789Z".parse().unwrap(),
            stream: Stream::Stderr,
            text: "hello".to_owned(),
            goes_on: false,
        };
        let pid = std::process::id();
        let message = |format: Format| {
            let options = Options { transport: Transport::Local, facility: 16, format };
            options.message(&origin(), &record).replace(&pid.to_string(), "PID")
        };
        // The zone is this machine's.
        let time = stamp(record.at, &TimeZone::system());
        let (short, micro) = (
            rfc3339(record.at, &TimeZone::system(), false),
            rfc3339(record.at, &TimeZone::system(), true),
        );
        let tag = "web/abcdef012345";
        assert_eq!(message(Format::Unix), format!("<131>{time} {tag}[PID]: hello\n"));
        assert_eq!(message(Format::Rfc3164), format!("<131>{time} host {tag}[PID]: hello\n"));
        assert_eq!(
            message(Format::Rfc5424),
            format!("<131>1 {short} host {tag} PID {tag} - hello\n")
        );
        assert!(message(Format::Rfc5424Micro).contains(&micro));
        assert_eq!(stamp(record.at, &TimeZone::UTC), "Mar  4 05:06:07");
        assert_eq!(rfc3339(record.at, &TimeZone::UTC, true), "2026-03-04T05:06:07.123456Z");
        let options = Options {
            transport: Transport::Stream(Endpoint::Tls(
                Host { name: "h".to_owned(), port: 1 },
                Tls::default(),
            )),
            facility: 3,
            format: Format::Rfc5424,
        };
        assert_eq!(options.framed("abc\n".to_owned()), "4 abc\n");
    }
}
