//! The nfnetlink socket: batches, and the two questions that are asked.

use std::collections::HashMap;
use std::io;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt::set_socket_send_buffer_size_force;

use super::attributes::Attributes;
use super::codec::{self, Batch, Element, Family};

/// A nfnetlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Nfnetlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Nfnetlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_NETFILTER)?;
        // a refused message would come back whole
        socket.set_cap_ack(true)?;
        // a batch is one datagram: that of 2,000 endpoints and ports is above the default 208 KiB
        set_socket_send_buffer_size_force(&socket, SEND)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE) })
    }

    /// Carries the batch out, all or nothing; fails with the first message that was refused.
    pub(crate) fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let begin = self.sequence.wrapping_add(1);
        let (datagram, last) = batch.encode(begin);
        self.sequence = last.wrapping_add(1);
        self.socket.send(&datagram, 0)?;
        let mut refused = None;
        let mut done = false;
        while !done {
            self.receive(|sequence, kind, body| {
                // before `begin`: left over from a request that failed half-way
                if kind != ERROR || sequence.wrapping_sub(begin) > last.wrapping_sub(begin) {
                    return Ok(());
                }
                let code = error_code(body);
                if code != 0 && refused.is_none() {
                    refused = Some(io::Error::from_raw_os_error(-code));
                }
                // errors come in the messages' order; one for `begin` is about the whole batch
                done |= sequence == last || sequence == begin;
                Ok(())
            })?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// All elements of a set; `NotFound` if there is no such set.
    pub(crate) fn elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> io::Result<Vec<Element>> {
        let attributes = codec::dump_elements(table, set);
        let mut elements = Vec::new();
        self.ask(family as u8, codec::GET_ELEMENT, true, &attributes, |body| {
            elements.extend(codec::decode_elements(body));
        })?;
        Ok(elements)
    }

    /// How many rules each chain of a table has; one without rules is left out.
    pub(crate) fn rules(
        &mut self,
        family: Family,
        table: &str,
    ) -> io::Result<HashMap<String, usize>> {
        let mut chains = HashMap::new();
        self.ask(family as u8, codec::GET_RULE, true, &codec::dump_rules(table), |body| {
            if let Some(chain) = codec::decode_chain_of_rule(body) {
                *chains.entry(chain).or_default() += 1;
            }
        })?;
        Ok(chains)
    }

    /// The number of the ruleset's last change, by whomever.
    pub(crate) fn generation(&mut self) -> io::Result<u32> {
        let mut found = None;
        self.ask(0, codec::GET_GENERATION, false, &Attributes::default(), |body| {
            found = codec::decode_generation(body);
        })?;
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Chains that drop what is forwarded unless one of their rules accepts it, as `family table chain`.
    pub(crate) fn dropping_forward_chains(&mut self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        self.ask(0, codec::GET_CHAIN, true, &Attributes::default(), |body| {
            found.extend(codec::decode_dropping_forward_chain(body));
        })?;
        Ok(found)
    }

    /// Asks about a family of protocols and hands each answer's body over.
    pub(super) fn ask(
        &mut self,
        family: u8,
        kind: u16,
        dump: bool,
        attributes: &Attributes,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let wanted = self.sequence;
        self.socket.send(&codec::request(kind, dump, family, wanted, attributes), 0)?;
        let mut done = false;
        while !done {
            self.receive(|sequence, kind, body| {
                match kind {
                    // left over from a request that failed half-way
                    _ if sequence != wanted => {}
                    ERROR if error_code(body) != 0 => {
                        return Err(io::Error::from_raw_os_error(-error_code(body)));
                    }
                    ERROR | DONE => done = true,
                    _ => each(body),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Receives one datagram and hands over sequence number, type and body of each message.
    fn receive(
        &mut self,
        mut each: impl FnMut(u32, u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        let mut rest = self.buffer.as_slice();
        while let Some((header, _)) = rest.split_first_chunk::<16>() {
            let word = |at: usize| {
                u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let length = word(0) as usize;
            let body =
                rest.get(16..length).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            each(word(8), kind, body)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The negative errno at the start of an NLMSG_ERROR; 0 is an acknowledgement.
fn error_code(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code))
}

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes; see `Rtnetlink`.
const RECEIVE: usize = 32 * 1024;
const SEND: usize = 4 * 1024 * 1024;
