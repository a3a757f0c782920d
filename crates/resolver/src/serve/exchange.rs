//! One question to one server: by UDP, and by TCP where the answer does not fit.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use bulkhead_types::Id;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::Server;
use super::poller::Source;
use crate::raw;

pub(super) struct Exchange {
    flight: u64,
    /// Which of the flight's servers.
    pub server: usize,
    /// Drawn for this exchange, as its port is by the kernel: whoever does not see the question does
    /// not guess both.
    id: u16,
    with_edns: bool,
    socket: Socket,
    /// By TCP.
    stream: Option<Stream>,
}

enum Socket {
    /// Of the host's network namespace, made for this exchange.
    Own(OwnedFd),
    /// One that the engine opened in the container's.
    Lent(Id, usize),
}

/// What is still to be sent, and what has come (RFC 1035, 4.2.2: each message after its length).
struct Stream {
    unsent: Vec<u8>,
    received: Vec<u8>,
}

pub(super) enum Started {
    Asked,
    /// Until another exchange of the container ends.
    Queued,
}

/// What a packet from a server means.
enum Verdict {
    /// It is no answer to this question.
    Ignored,
    Good,
    /// It does not fit: by TCP it would.
    Cut,
    /// The server does not understand EDNS.
    WithoutEdns,
    Failed,
}

impl Server {
    /// Asks a server by UDP.
    pub(super) fn start_exchange(&mut self, token: u64, server: usize) -> Result<Started, Errno> {
        let with_edns = self.flights.get(token).is_some_and(|flight| flight.query.has_edns());
        self.start(token, server, with_edns, SocketType::DGRAM)
    }

    fn start(
        &mut self,
        token: u64,
        server: usize,
        with_edns: bool,
        kind: SocketType,
    ) -> Result<Started, Errno> {
        let flight = self.flights.get(token).ok_or(Errno::NOENT)?;
        let address = *flight.servers.get(server).ok_or(Errno::NOENT)?;
        let (place, id) = (flight.place, random_id()?);
        let question = match with_edns {
            true => flight.query.to_server(id),
            false => flight.query.without_edns().to_server(id),
        };
        let (socket, address) = match place {
            None => (Socket::Own(open(address, kind)?), address),
            Some(container) => {
                let served = self.containers.get_mut(&container).ok_or(Errno::NOENT)?;
                let listening = served.listening.as_mut().ok_or(Errno::NOENT)?;
                let free = match kind {
                    SocketType::STREAM => &mut listening.free_tcp,
                    _ => &mut listening.free_udp,
                };
                match free.pop() {
                    Some(index) => {
                        let address = if listening.is_ipv6 { mapped(address) } else { address };
                        (Socket::Lent(container, index), address)
                    }
                    None if kind == SocketType::DGRAM => {
                        if listening.waiting.len() >= MOST_WAITING {
                            return Err(Errno::AGAIN);
                        }
                        listening.waiting.push_back((token, server));
                        return Ok(Started::Queued);
                    }
                    None => return Err(Errno::AGAIN),
                }
            }
        };
        let stream = (kind == SocketType::STREAM).then(|| {
            let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
            let unsent = [&length.to_be_bytes()[..], &question].concat();
            Stream { unsent, received: Vec::new() }
        });
        let exchange = Exchange { flight: token, server, id, with_edns, socket, stream };
        match self.send_question(&exchange, address, &question) {
            Ok(watched) => {
                self.flights.exchanges.insert(watched, exchange);
                if let Some(flight) = self.flights.get(token) {
                    flight.exchanges.push(watched);
                }
                Ok(Started::Asked)
            }
            Err(errno) => {
                self.release(exchange);
                Err(errno)
            }
        }
    }

    /// Connects, so that packets of others are not even seen, and returns the token.
    fn send_question(
        &mut self,
        exchange: &Exchange,
        address: SocketAddr,
        question: &[u8],
    ) -> Result<u64, Errno> {
        let socket = match &exchange.socket {
            Socket::Own(socket) => socket.as_fd(),
            Socket::Lent(container, index) => {
                let served = self.containers.get(container);
                let listening = served.and_then(|served| served.listening.as_ref());
                let sockets = &listening.ok_or(Errno::NOENT)?.sockets;
                match exchange.stream {
                    Some(_) => sockets.upstream_tcp[*index].as_fd(),
                    None => sockets.upstream_udp[*index].as_fd(),
                }
            }
        };
        match rustix::net::connect(socket, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) if exchange.stream.is_some() => {}
            Err(errno) => return Err(errno),
        }
        let flags = match exchange.stream {
            Some(_) => EventFlags::IN | EventFlags::OUT,
            None => {
                rustix::net::send(socket, question, SendFlags::NOSIGNAL)?;
                EventFlags::IN
            }
        };
        self.poller.add(socket, Source::Exchange, flags)
    }

    pub(super) fn serve_exchange(&mut self, token: u64, flags: EventFlags, now: Instant) {
        let Some(exchange) = self.flights.exchanges.get(&token) else { return };
        if exchange.stream.is_some() {
            return self.serve_stream(token, flags, now);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..MOST_PACKETS {
            let Some(socket) = self.socket_of(token) else { break };
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    if self.take_answer(token, &buffer[..length], now) {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // nobody listens there, or there is no way
                Err(_) => {
                    self.exchange_failed(token, now);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    fn serve_stream(&mut self, token: u64, flags: EventFlags, now: Instant) {
        match self.pump(token, flags) {
            Ok(Some(message)) => {
                // more than the one that was asked for is not waited for
                if !self.take_answer(token, &message, now) {
                    self.exchange_failed(token, now);
                }
            }
            Ok(None) => {}
            Err(_) => self.exchange_failed(token, now),
        }
    }

    /// Sends and receives what goes without waiting; the answer, once it is whole.
    fn pump(&mut self, token: u64, flags: EventFlags) -> Result<Option<Vec<u8>>, Errno> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.pump_into(token, flags, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn pump_into(
        &mut self,
        token: u64,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> Result<Option<Vec<u8>>, Errno> {
        let containers = &self.containers;
        let Some(exchange) = self.flights.exchanges.get_mut(&token) else { return Ok(None) };
        let socket = match &exchange.socket {
            Socket::Own(socket) => socket.as_fd(),
            Socket::Lent(container, index) => {
                let served = containers.get(container).ok_or(Errno::NOENT)?;
                let listening = served.listening.as_ref().ok_or(Errno::NOENT)?;
                listening.sockets.upstream_tcp[*index].as_fd()
            }
        };
        let Some(stream) = &mut exchange.stream else { return Ok(None) };
        if flags.contains(EventFlags::OUT) && !stream.unsent.is_empty() {
            let send = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(socket, &stream.unsent, send) {
                Ok(length) => drop(stream.unsent.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            if stream.unsent.is_empty() {
                self.poller.want(socket, token, EventFlags::IN);
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((length, _)) => stream.received.extend(&buffer[..length]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let Some((length, message)) = stream.received.split_first_chunk::<2>() else {
            return Ok(None);
        };
        Ok(message.get(..u16::from_be_bytes(*length).into()).map(<[u8]>::to_vec))
    }

    /// Looks at what a server says. `false`: it says nothing to this question.
    fn take_answer(&mut self, token: u64, message: &[u8], now: Instant) -> bool {
        let Some(exchange) = self.flights.exchanges.get(&token) else { return true };
        let (flight, server) = (exchange.flight, exchange.server);
        let by_tcp = exchange.stream.is_some();
        let (id, with_edns) = (exchange.id, exchange.with_edns);
        let Some(asked) = self.flights.get(flight) else { return true };
        match judge(message, id, &asked.query.question, with_edns, by_tcp) {
            Verdict::Ignored => return false,
            Verdict::Good => self.finish(flight, Some((server, message.to_vec())), now),
            Verdict::Failed => self.exchange_failed(token, now),
            Verdict::Cut => {
                asked.cut = Some(message.to_vec());
                self.ask_again(token, (flight, server), with_edns, SocketType::STREAM, now);
            }
            Verdict::WithoutEdns => {
                let kind = if by_tcp { SocketType::STREAM } else { SocketType::DGRAM };
                self.ask_again(token, (flight, server), false, kind, now);
            }
        }
        true
    }

    fn ask_again(
        &mut self,
        token: u64,
        (flight, server): (u64, usize),
        with_edns: bool,
        kind: SocketType,
        now: Instant,
    ) {
        self.forget_exchange(token);
        match self.start(flight, server, with_edns, kind) {
            Ok(Started::Asked) => {}
            Ok(Started::Queued) => {
                if let Some(flight) = self.flights.get(flight) {
                    flight.queued += 1;
                }
            }
            Err(_) => self.server_failed(flight, now),
        }
    }

    fn exchange_failed(&mut self, token: u64, now: Instant) {
        if let Some(flight) = self.forget_exchange(token) {
            self.server_failed(flight, now);
        }
    }

    /// Ends an exchange whose flight goes on.
    fn forget_exchange(&mut self, token: u64) -> Option<u64> {
        let flight = self.flights.exchanges.get(&token)?.flight;
        if let Some(flight) = self.flights.get(flight) {
            flight.exchanges.retain(|exchange| *exchange != token);
        }
        self.end_exchange(token);
        Some(flight)
    }

    pub(super) fn end_exchange(&mut self, token: u64) {
        let Some(exchange) = self.flights.exchanges.remove(&token) else { return };
        if let Some(socket) = borrow(&self.containers, &exchange) {
            self.poller.remove(socket, token);
        }
        self.release(exchange);
    }

    /// Gives a lent socket back: without a peer, and with that without a port.
    fn release(&mut self, exchange: Exchange) {
        let Socket::Lent(container, index) = exchange.socket else { return };
        if let Some(socket) = borrow(&self.containers, &exchange) {
            let _ = rustix::net::connect_unspec(socket);
        }
        let served = self.containers.get_mut(&container);
        if let Some(listening) = served.and_then(|served| served.listening.as_mut()) {
            match exchange.stream {
                Some(_) => listening.free_tcp.push(index),
                None => {
                    listening.free_udp.push(index);
                    self.flights.freed.push(container);
                }
            }
        }
    }

    fn socket_of(&self, token: u64) -> Option<BorrowedFd<'_>> {
        borrow(&self.containers, self.flights.exchanges.get(&token)?)
    }
}

fn borrow<'a>(
    containers: &'a std::collections::BTreeMap<Id, super::Served>,
    exchange: &'a Exchange,
) -> Option<BorrowedFd<'a>> {
    match &exchange.socket {
        Socket::Own(socket) => Some(socket.as_fd()),
        Socket::Lent(container, index) => {
            let sockets = &containers.get(container)?.listening.as_ref()?.sockets;
            let socket = match exchange.stream {
                Some(_) => sockets.upstream_tcp.get(*index),
                None => sockets.upstream_udp.get(*index),
            };
            socket.map(AsFd::as_fd)
        }
    }
}

/// What a message means that has come from the server itself: the socket is connected to it.
fn judge(message: &[u8], id: u16, question: &[u8], with_edns: bool, by_tcp: bool) -> Verdict {
    if raw::id(message) != Some(id) || !raw::is_response(message) {
        return Verdict::Ignored;
    }
    let code = raw::code(message);
    let counts = raw::counts(message);
    let repeated = raw::question(message).map(|range| &message[range]);
    let is_ours = counts.is_some_and(|counts| counts[0] == 1)
        && repeated.is_some_and(|repeated| raw::same_question(repeated, question));
    // some servers do not repeat what they did not understand
    let is_bare = counts.is_some_and(|counts| counts[0] == 0) && code != raw::NO_ERROR;
    if !is_ours && !is_bare {
        return Verdict::Ignored;
    }
    match code {
        raw::FORMAT_ERROR | raw::NOT_IMPLEMENTED if with_edns => Verdict::WithoutEdns,
        raw::FORMAT_ERROR | raw::NOT_IMPLEMENTED | raw::SERVER_FAILURE | raw::REFUSED => {
            Verdict::Failed
        }
        _ if is_bare => Verdict::Failed,
        _ if raw::is_truncated(message) && !by_tcp => Verdict::Cut,
        _ if raw::records(message).is_none() => Verdict::Failed,
        _ => Verdict::Good,
    }
}

fn random_id() -> Result<u16, Errno> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(bytes))
}

fn open(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, kind, flags, None)
}

/// As sockets of IPv6 take addresses of IPv4 (RFC 4291, 2.5.5.2).
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ipv4) => SocketAddr::new(ipv4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Packets that are read from one server before the turn of others.
const MOST_PACKETS: usize = 8;

/// Questions of one container that wait for a socket.
const MOST_WAITING: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tests::ask;

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let sample = raw::tests::sample();
        let id = 0x1234;
        let question = ask("www.example.com", 1)[raw::HEADER..].to_vec();
        let verdict = |change: &dyn Fn(&mut Vec<u8>), with_edns| {
            let mut message = sample.clone();
            change(&mut message);
            match judge(&message, id, &question, with_edns, false) {
                Verdict::Ignored => "ignored",
                Verdict::Good => "good",
                Verdict::Cut => "cut",
                Verdict::WithoutEdns => "without EDNS",
                Verdict::Failed => "failed",
            }
        };
        assert_eq!(verdict(&|_| {}, true), "good");
        assert_eq!(verdict(&|message| message[3] |= raw::NO_SUCH_NAME, true), "good");
        // another's id, a question and no answer, another question, another kind
        assert_eq!(verdict(&|message| message[1] ^= 1, true), "ignored");
        assert_eq!(verdict(&|message| message[2] &= 0x7f, true), "ignored");
        assert_eq!(verdict(&|message| message[13] = b'x', true), "ignored");
        assert_eq!(verdict(&|message| message[30] = 28, true), "ignored");
        assert_eq!(verdict(&|message| message.truncate(20), true), "ignored");
        assert_eq!(verdict(&|message| message[2] |= 0x02, true), "cut");
        assert_eq!(verdict(&|message| message[3] |= raw::FORMAT_ERROR, true), "without EDNS");
        assert_eq!(verdict(&|message| message[3] |= raw::FORMAT_ERROR, false), "failed");
        assert_eq!(verdict(&|message| message[3] |= raw::REFUSED, true), "failed");
        // records that are not there
        assert_eq!(verdict(&|message| message[7] = 9, true), "failed");
    }
}
