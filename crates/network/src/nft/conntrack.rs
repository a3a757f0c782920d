//! Connections that the kernel tracks, and forgetting some of them (ctnetlink).
//!
//! A tracked connection keeps the translation that it began with: without this, what a client
//! sends on an old flow would reach whichever container has the address next.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use super::Nfnetlink;
use super::attributes::{self, Attributes};

/// One tracked connection, as far as it is needed to know whose it is and to delete it.
#[derive(Debug, Default)]
struct Connection {
    /// The sources of its two directions: who called, and who was called. The one who was called
    /// answers with its own address, a container's also where that was translated.
    sources: [Option<IpAddr>; 2],
    /// AF_INET or AF_INET6.
    family: u8,
    /// CTA_TUPLE_ORIG as the kernel sent it, and CTA_ID and CTA_ZONE where it sent them.
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

/// Forgets the connections from and to containers' addresses.
///
/// Where the namespace has any connection this walks the kernel's table, which all namespaces
/// share: 9 ms at its usual 262,144 buckets however few are in use, and about 1 µs more for each
/// connection that is looked at here. It is for a container's end, not for its start, and for many
/// of them at once. A single address is filtered by the kernel, which takes a walk for each
/// direction.
pub(crate) fn forget(socket: &mut Nfnetlink, addresses: &[IpAddr]) -> io::Result<()> {
    if addresses.is_empty() || count(socket)? == Some(0) {
        return Ok(());
    }
    let found = match addresses {
        [address] => {
            let mut found = tracked(socket, Some((REPLY, *address)))?;
            found.extend(tracked(socket, Some((ORIGINAL, *address)))?);
            found
        }
        _ => tracked(socket, None)?, // of both families, because both are in the one table
    };
    let wanted: HashSet<_> = addresses.iter().collect();
    for connection in found {
        if connection.sources.iter().flatten().any(|source| wanted.contains(source)) {
            connection.delete(socket)?;
        }
    }
    Ok(())
}

/// How many connections of any protocol this network namespace has; `None` if the kernel does not
/// tell.
fn count(socket: &mut Nfnetlink) -> io::Result<Option<u32>> {
    let mut entries = None;
    socket.ask(ANY, GET_STATS, false, &Attributes::default(), |body| {
        entries = attributes::each(body.get(4..).unwrap_or_default())
            .find(|(kind, _)| *kind == 1) // CTA_STATS_GLOBAL_ENTRIES
            .and_then(|(_, value)| Some(u32::from_be_bytes(*value.first_chunk()?)));
    })?;
    Ok(entries)
}

/// All connections, or those whose source in this direction is this address.
fn tracked(socket: &mut Nfnetlink, only: Option<(u16, IpAddr)>) -> io::Result<Vec<Connection>> {
    let mut attributes = Attributes::default();
    let mut family = ANY;
    if let Some((direction, address)) = only {
        family = if address.is_ipv4() { IPV4 } else { IPV6 };
        attributes.nested(direction, |tuple| {
            tuple.nested(TUPLE_IP, |ip| {
                match address {
                    IpAddr::V4(address) => ip.bytes(IPV4_SOURCE, &address.octets()),
                    IpAddr::V6(address) => ip.bytes(IPV6_SOURCE, &address.octets()),
                };
            });
        });
        attributes.nested(FILTER, |filter| {
            // CTA_FILTER_{ORIG,REPLY}_FLAGS, in the order of the directions: only the source counts
            for each in [ORIGINAL, REPLY] {
                filter.bytes(each, &u32::from(each == direction).to_ne_bytes());
            }
        });
    }
    let mut found = Vec::new();
    socket.ask(family, GET, true, &attributes, |body| found.push(Connection::decode(body)))?;
    Ok(found)
}

impl Connection {
    fn decode(body: &[u8]) -> Self {
        let family = body.first().copied().unwrap_or(ANY);
        let mut connection = Self { family, ..Self::default() };
        for (kind, value) in attributes::each(body.get(4..).unwrap_or_default()) {
            match kind {
                ORIGINAL => {
                    connection.sources[0] = source(value);
                    connection.original = value.to_vec();
                }
                REPLY => connection.sources[1] = source(value),
                ID => connection.id = Some(value.to_vec()),
                ZONE => connection.zone = Some(value.to_vec()),
                _ => {}
            }
        }
        connection
    }

    /// One that has ended meanwhile is no error.
    fn delete(self, socket: &mut Nfnetlink) -> io::Result<()> {
        let mut attributes = Attributes::default();
        attributes.bytes(ORIGINAL | attributes::NESTED, &self.original);
        for (kind, value) in [(ID, self.id), (ZONE, self.zone)] {
            if let Some(value) = value {
                attributes.bytes(kind, &value);
            }
        }
        match socket.ask(self.family, DELETE, false, &attributes, |_| {}) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// The source of a CTA_TUPLE.
fn source(tuple: &[u8]) -> Option<IpAddr> {
    let (_, ip) = attributes::each(tuple).find(|(kind, _)| *kind == TUPLE_IP)?;
    attributes::each(ip).find_map(|(kind, address)| match kind {
        IPV4_SOURCE => address.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        IPV6_SOURCE => address.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    })
}

// NFNL_SUBSYS_CTNETLINK, and its IPCTNL_MSG_CT_GET, _DELETE and _GET_STATS
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_STATS: u16 = 1 << 8 | 5;

// enum ctattr_type
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

// CTA_TUPLE_IP, and in it CTA_IP_V4_SRC and CTA_IP_V6_SRC
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;
const IPV6_SOURCE: u16 = 3;

// AF_UNSPEC, AF_INET, AF_INET6
const ANY: u8 = 0;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
