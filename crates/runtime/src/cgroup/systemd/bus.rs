//! A connection to a D-Bus bus, or to systemd itself: as much as calling methods and waiting for a
//! signal takes (D-Bus specification, "Authentication Protocol" and "Message Format").

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use super::value::{Reader, Value, pad};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("connect to the D-Bus at {address}: {cause}")]
    Connect { address: String, cause: io::Error },
    #[error("talk to the D-Bus: {0}")]
    Transport(#[from] io::Error),
    #[error("call {method} by D-Bus: {message} ({name})")]
    Call { method: String, name: String, message: String },
}

#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    /// Without a bus between there are no names.
    is_direct: bool,
    serial: u32,
    signals: VecDeque<Signal>,
}

#[derive(Debug, PartialEq)]
pub struct Signal {
    pub member: String,
    pub body: Vec<Value>,
}

/// An object and an interface of it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub service: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
}

const BUS: Target<'_> = Target {
    service: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

impl Bus {
    /// Connects to the first of the `;`-separated addresses that answers, such as
    /// `unix:path=/run/dbus/system_bus_socket`.
    pub fn connect(addresses: &str) -> Result<Self, BusError> {
        let mut bus = Self::open(addresses, false)?;
        bus.call(BUS, "Hello", &[])?;
        Ok(bus)
    }

    /// Connects to a peer without a bus between: systemd's private socket.
    pub fn connect_direct(address: &str) -> Result<Self, BusError> {
        Self::open(address, true)
    }

    fn open(addresses: &str, is_direct: bool) -> Result<Self, BusError> {
        let mut cause = io::Error::from(io::ErrorKind::InvalidInput);
        for address in addresses.split(';') {
            let connected = socket_address(address)
                .ok_or_else(|| io::Error::other("not a Unix socket's address"))
                .and_then(|address| UnixStream::connect_addr(&address));
            match connected {
                Ok(stream) => return Ok(Self::over(stream, is_direct)?),
                Err(error) => cause = error,
            }
        }
        Err(BusError::Connect { address: addresses.to_owned(), cause })
    }

    /// Speaks over a connected socket.
    pub(super) fn over(stream: UnixStream, is_direct: bool) -> io::Result<Self> {
        let mut bus = Self { stream, is_direct, serial: 0, signals: VecDeque::new() };
        bus.stream.set_read_timeout(Some(TIMEOUT))?;
        bus.authenticate()?;
        Ok(bus)
    }

    /// Lets the socket say who this is. Only where that is not enough is the user named: in a user
    /// namespace the number would be another.
    fn authenticate(&mut self) -> io::Result<()> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        if self.is_direct {
            // In one write, as systemd's own clients: the private socket of systemd 252 forgets a
            // call that comes together with BEGIN until another comes.
            self.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\nBEGIN\r\n").as_bytes())?;
            return accepted(&self.line()?);
        }
        self.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
        let mut answer = self.line()?;
        if answer == "DATA" {
            self.stream.write_all(b"DATA\r\n")?;
            answer = self.line()?;
        }
        if answer.starts_with("REJECTED") {
            self.stream.write_all(format!("AUTH EXTERNAL {user}\r\n").as_bytes())?;
            answer = self.line()?;
        }
        accepted(&answer)?;
        self.stream.write_all(b"BEGIN\r\n")
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 4096 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
    }

    /// Asks for the signals that match (D-Bus specification, "Match Rules").
    pub fn add_match(&mut self, rule: &str) -> Result<(), BusError> {
        if self.is_direct {
            return Ok(());
        }
        self.call(BUS, "AddMatch", &[Value::text(rule)]).map(|_| ())
    }

    /// Calls a method and returns what it does; signals that come before are kept.
    pub fn call(
        &mut self,
        target: Target<'_>,
        member: &str,
        arguments: &[Value],
    ) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        let serial = self.serial;
        let destination = (!self.is_direct).then_some(target.service);
        let message = encode(serial, target, destination, member, arguments);
        self.stream.write_all(&message)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                REPLY if message.reply_to == serial => return Ok(message.body),
                ERROR if message.reply_to == serial => {
                    let text = message.body.first().and_then(Value::as_text).unwrap_or_default();
                    return Err(BusError::Call {
                        method: format!("{}.{member}", target.interface),
                        name: message.error_name,
                        message: text.to_owned(),
                    });
                }
                SIGNAL => {
                    self.signals.push_back(Signal { member: message.member, body: message.body });
                }
                // what others call here is not ours to answer
                _ => {}
            }
        }
    }

    /// Waits for a signal of which `wanted` makes something.
    ///
    /// # Errors
    /// `TimedOut` or `WouldBlock` at the deadline.
    pub fn wait_signal<T>(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&Signal) -> Option<T>,
    ) -> Result<T, BusError> {
        while let Some(signal) = self.signals.pop_front() {
            if let Some(found) = wanted(&signal) {
                return Ok(found);
            }
        }
        loop {
            let message = self.receive(deadline)?;
            let signal = Signal { member: message.member, body: message.body };
            if message.kind == SIGNAL
                && let Some(found) = wanted(&signal)
            {
                return Ok(found);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Message> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut fixed = [0; 16];
        self.stream.read_exact(&mut fixed)?;
        let number = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize
        };
        let (body, fields) = (number(4), number(12));
        let header = (16 + fields).next_multiple_of(8);
        if fixed[0] != b'l' || body > LONGEST || fields > LONGEST {
            let text = "the bus sent a message that this program cannot read";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut bytes = fixed.to_vec();
        bytes.resize(header + body, 0);
        self.stream.read_exact(&mut bytes[16..])?;
        decode(&bytes, header).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn accepted(answer: &str) -> io::Result<()> {
    if answer.starts_with("OK") {
        return Ok(());
    }
    let text = format!("the bus refused this user: {answer}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[derive(Debug, Default)]
pub(super) struct Message {
    pub kind: u8,
    pub reply_to: u32,
    pub error_name: String,
    pub member: String,
    pub body: Vec<Value>,
}

fn encode(
    serial: u32,
    target: Target<'_>,
    destination: Option<&str>,
    member: &str,
    arguments: &[Value],
) -> Vec<u8> {
    let signature: String = arguments.iter().map(Value::signature).collect();
    let mut fields = vec![
        (PATH, Value::Path(target.path.to_owned())),
        (INTERFACE, Value::text(target.interface)),
        (MEMBER, Value::text(member)),
    ];
    fields.extend(destination.map(|name| (DESTINATION, Value::text(name))));
    if !signature.is_empty() {
        fields.push((SIGNATURE, Value::Signature(signature)));
    }
    message(CALL, serial, fields, arguments)
}

pub(super) fn message(
    kind: u8,
    serial: u32,
    fields: Vec<(u8, Value)>,
    arguments: &[Value],
) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| argument.write(&mut body));
    let mut out = vec![b'l', kind, 0, 1];
    Value::U32(body.len() as u32).write(&mut out);
    Value::U32(serial).write(&mut out);
    let fields = fields.into_iter().map(|(code, value)| {
        Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
    });
    Value::Array("(yv)".into(), fields.collect()).write(&mut out);
    pad(&mut out, 8);
    out.extend(body);
    out
}

/// Reads a message whose body begins at `header`.
pub(super) fn decode(bytes: &[u8], header: usize) -> Option<Message> {
    let fixed = Reader::new(&bytes[..header]).all("yyyyuua(yv)")?;
    let [Value::Byte(_), Value::Byte(kind), _, _, _, _, Value::Array(_, fields)] = &fixed[..]
    else {
        return None;
    };
    let mut message = Message { kind: *kind, ..Message::default() };
    let mut signature = String::new();
    for field in fields {
        let Value::Struct(field) = field else { return None };
        let [Value::Byte(code), Value::Variant(value)] = &field[..] else { return None };
        let text = || value.as_text().unwrap_or_default().to_owned();
        match (*code, &**value) {
            (REPLY_SERIAL, Value::U32(serial)) => message.reply_to = *serial,
            (ERROR_NAME, _) => message.error_name = text(),
            (MEMBER, _) => message.member = text(),
            (SIGNATURE, _) => signature = text(),
            _ => {}
        }
    }
    message.body = Reader::new(&bytes[header..]).all(&signature)?;
    Some(message)
}

/// Reads `unix:path=…` and `unix:abstract=…`, with `%XX` for what has a meaning there.
fn socket_address(address: &str) -> Option<SocketAddr> {
    let keys = address.strip_prefix("unix:")?;
    keys.split(',').find_map(|key| {
        let (name, value) = key.split_once('=')?;
        let value = unescape(value)?;
        match name {
            "path" => SocketAddr::from_pathname(std::ffi::OsStr::new(&value)).ok(),
            "abstract" => SocketAddr::from_abstract_name(value).ok(),
            _ => None,
        }
    })
}

fn unescape(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// How long an answer may take, as D-Bus's own libraries wait.
const TIMEOUT: Duration = Duration::from_secs(25);
/// The longest message (D-Bus specification).
const LONGEST: usize = 1 << 27;

// kinds of messages, and codes of header fields
pub(super) const CALL: u8 = 1;
pub(super) const REPLY: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;
pub(super) const PATH: u8 = 1;
pub(super) const INTERFACE: u8 = 2;
pub(super) const MEMBER: u8 = 3;
pub(super) const ERROR_NAME: u8 = 4;
pub(super) const REPLY_SERIAL: u8 = 5;
pub(super) const DESTINATION: u8 = 6;
pub(super) const SIGNATURE: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let path = |address: &str| {
            let address = socket_address(address)?;
            Some(address.as_pathname()?.to_str()?.to_owned())
        };
        assert_eq!(path("unix:path=/run/a%20b,guid=5").as_deref(), Some("/run/a b"));
        assert_eq!(path("unix:guid=5,path=/x").as_deref(), Some("/x"));
        let hidden = socket_address("unix:abstract=/tmp/x").unwrap();
        assert_eq!(hidden.as_abstract_name(), Some(&b"/tmp/x"[..]));
        for address in ["tcp:host=x", "unix:", "unix:path=%2", "unix:path=%zz", "/run/x"] {
            assert!(socket_address(address).is_none(), "{address}");
        }
        let error = Bus::connect("unix:path=/nonexistent/bus").unwrap_err().to_string();
        assert!(error.starts_with("connect to the D-Bus at unix:path=/nonexistent/bus: "));
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let target = Target { service: "a.b", path: "/a", interface: "a.b.C" };
        let arguments = [Value::text("x"), Value::U64(5)];
        let bytes = encode(7, target, Some("a.b"), "Do", &arguments);
        let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let message = decode(&bytes, (16 + fields).next_multiple_of(8)).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (CALL, "Do"));
        assert_eq!(bytes[8..12], [7, 0, 0, 0], "the serial");
        assert_eq!(message.body, arguments);
    }
}
