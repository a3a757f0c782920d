//! Connections that the kernel tracks, and forgetting some of them (ctnetlink).
//!
//! A tracked connection keeps the translation that it began with: without this, what a client
//! sends on an old flow would reach whichever container has the address next.

use std::io;
use std::net::Ipv4Addr;

use super::Nfnetlink;
use super::attributes::{self, Attributes};

/// One tracked connection, as far as it is needed to delete it.
#[derive(Debug, Default)]
struct Connection {
    /// CTA_TUPLE_ORIG as the kernel sent it, and CTA_ID and CTA_ZONE where it sent them.
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

/// Forgets the connections from and to a container's address.
///
/// This walks the kernel's table twice, 9 ms each at its usual 262,144 buckets however few are in
/// use: for a container's end, not for its start.
pub(crate) fn forget(socket: &mut Nfnetlink, address: Ipv4Addr) -> io::Result<()> {
    // who was called answers with its own address: the container's, also if it was translated
    for direction in [REPLY, ORIGINAL] {
        for connection in tracked(socket, direction, address)? {
            let mut attributes = Attributes::default();
            attributes.bytes(ORIGINAL | attributes::NESTED, &connection.original);
            for (kind, value) in [(ID, connection.id), (ZONE, connection.zone)] {
                if let Some(value) = value {
                    attributes.bytes(kind, &value);
                }
            }
            match socket.ask(DELETE, false, &attributes, |_| {}) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // ended meanwhile
                other => other?,
            }
        }
    }
    Ok(())
}

/// The IPv4 connections whose source in this direction is `address`.
fn tracked(
    socket: &mut Nfnetlink,
    direction: u16,
    address: Ipv4Addr,
) -> io::Result<Vec<Connection>> {
    let mut attributes = Attributes::default();
    attributes.nested(direction, |tuple| {
        tuple.nested(1, |ip| {
            ip.bytes(1, &address.octets()); // CTA_IP_V4_SRC
        });
    });
    attributes.nested(FILTER, |filter| {
        // CTA_FILTER_{ORIG,REPLY}_FLAGS, in the order of the directions: only the source counts
        for each in [ORIGINAL, REPLY] {
            filter.bytes(each, &u32::from(each == direction).to_ne_bytes());
        }
    });
    let mut found = Vec::new();
    socket.ask(GET, true, &attributes, |body| found.push(decode(body)))?;
    Ok(found)
}

fn decode(body: &[u8]) -> Connection {
    let mut connection = Connection::default();
    for (kind, value) in attributes::each(body.get(4..).unwrap_or_default()) {
        match kind {
            ORIGINAL => connection.original = value.to_vec(),
            ID => connection.id = Some(value.to_vec()),
            ZONE => connection.zone = Some(value.to_vec()),
            _ => {}
        }
    }
    connection
}

// NFNL_SUBSYS_CTNETLINK, and its IPCTNL_MSG_CT_GET and _DELETE
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

// enum ctattr_type
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
