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
