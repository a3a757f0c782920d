//! What the fuzz targets see of this crate; no build but theirs has it.

use bulkhead_types::Id;

use crate::local;
use crate::protocol::{BareNames, Container, Membership, Reach, Upstream};
use crate::query::{Answer, Malformed, Query};
use crate::raw;
use crate::zones::Zones;

/// Reads a packet as a query of a container's and as a server's answer to one, and makes replies.
pub fn packet(bytes: &[u8]) {
    answer_of_server(bytes);
    let query = match Query::read(bytes) {
        Ok(query) => query,
        Err(Malformed::Ignore) => return,
        Err(Malformed::Reply(reply)) => return check(bytes, &reply, usize::MAX),
    };
    let text = query.text.clone().unwrap_or_default();
    let container = Container {
        id: Id::random(),
        networks: vec![Membership {
            network: Id::random(),
            network_name: "net".to_owned(),
            // whatever is asked for is known
            names: vec![text, "web".to_owned()],
            addresses: (0..200).map(|last| [10, 0, 0, last].into()).collect(),
            gateways: Vec::new(),
            links: Vec::new(),
        }],
        upstream: Upstream { servers: Vec::new(), reach: Reach::Host },
        bare_names: BareNames::Refuse,
    };
    let mut zones = Zones::default();
    zones.add(&container);
    let room = query.room.min(1 << 16);
    if let Some(answer) = local::answer(&zones, &container, &query, 1) {
        check(bytes, &query.reply(&answer, room), room);
    }
    check(bytes, &query.reply(&Answer::empty(), room), room);
    assert!(Query::read(&query.to_server(1)).is_ok());
    zones.remove(&container);
}

fn answer_of_server(bytes: &[u8]) {
    let mut aged = bytes.to_vec();
    raw::age(&mut aged, 1);
    assert_eq!(raw::records(bytes), raw::records(&aged));
    assert!(raw::lifetime(&aged) <= raw::lifetime(bytes));
}

fn check(query: &[u8], reply: &[u8], room: usize) {
    assert!(reply.len() <= room && raw::is_response(reply));
    assert_eq!(raw::id(query), raw::id(reply));
    assert!(raw::records(reply).is_some());
}

#[cfg(test)]
mod tests {
    use super::packet;

    /// A little of what the fuzzer does for longer.
    #[test]
    fn damaged_packets_hold_what_whole_ones_do() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let ask = crate::query::tests::ask;
        let whole = [ask("web", 1), ask("2.0.0.10.in-addr.arpa", 12), crate::raw::tests::sample()];
        for round in 0..3_000 {
            let mut bytes = whole[round % whole.len()].clone();
            for _ in 0..random(4) {
                let place = random(bytes.len());
                match random(4) {
                    0 => bytes.truncate(place.max(1)),
                    1 => bytes.insert(place, random(256) as u8),
                    2 => bytes[place] = 0xc0,
                    _ => bytes[place] = random(256) as u8,
                }
            }
            packet(&bytes);
        }
    }
}
