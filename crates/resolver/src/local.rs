//! What is answered here, and what is nobody's and asked of a server: a function of values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;

use crate::protocol::{BareNames, Container};
use crate::query::{Answer, Kind, Query};
use crate::zones::Zones;

/// The answer to a question about the asker's networks or about itself; `None` for all others. Of
/// several addresses, each `turn` has another first.
///
/// A name that is known has no records of other kinds than its addresses: an empty answer, which no
/// server is asked for. Docker asks (moby: libnetwork/resolver.go, `serveDNS`), so that a server's "no
/// such name" can hide the container from a client that asks for HTTPS records first.
pub(crate) fn answer(
    zones: &Zones,
    asker: &Container,
    query: &Query,
    turn: usize,
) -> Option<Answer> {
    if query.kind == Kind::Refused {
        return Some(Answer::code(ResponseCode::Refused));
    }
    if query.kind == Kind::Ptr
        && let Some(address) = query.reversed()
    {
        if address.is_loopback() {
            return Answer::host("localhost");
        }
        return Answer::host(zones.find_host(asker, address)?);
    }
    let name = query.text.as_deref()?;
    if is_localhost(name) {
        return Some(of_kind(query.kind, &LOCALHOST, 0));
    }
    if HOST_NAMES.contains(&name) {
        let gateways = asker.networks.iter().find(|member| !member.gateways.is_empty());
        return Some(match gateways {
            Some(member) => of_kind(query.kind, &member.gateways, 0),
            // on internal networks alone there is no way to the host
            None => Answer::code(ResponseCode::NXDomain),
        });
    }
    Some(of_kind(query.kind, &zones.find(asker, name)?, turn))
}

/// Whether a name that no network knows is to be looked for with a search domain instead.
pub(crate) fn is_refused_bare(asker: &Container, query: &Query) -> bool {
    asker.bare_names == BareNames::Refuse
        && matches!(query.kind, Kind::A | Kind::Aaaa)
        && query.text.as_deref().is_some_and(|name| !name.contains('.'))
}

fn of_kind(kind: Kind, addresses: &[IpAddr], turn: usize) -> Answer {
    let wanted = |address: &IpAddr| match kind {
        Kind::A => address.is_ipv4(),
        Kind::Aaaa => address.is_ipv6(),
        Kind::Any => true,
        Kind::Ptr | Kind::Other | Kind::Refused => false,
    };
    let mut addresses: Vec<IpAddr> = addresses.iter().copied().filter(wanted).collect();
    if !addresses.is_empty() {
        let first = turn % addresses.len();
        addresses.rotate_left(first);
    }
    Answer::addresses(addresses)
}

/// RFC 6761, section 6.3: nobody else is asked, and no container is called so.
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// As Docker Desktop has them; no container takes them away.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];

#[cfg(test)]
mod tests {
    use bulkhead_types::Id;

    use super::*;
    use crate::query::tests::ask;
    use crate::zones::tests::container;

    const A: u16 = 1;
    const MX: u16 = 15;
    const AAAA: u16 = 28;
    const HTTPS: u16 = 65;
    const PTR: u16 = 12;
    const ANY: u16 = 255;

    #[test]
    fn each_name_has_its_answer() {
        let (network, other) = (Id::random(), Id::random());
        let names = ["web", "localhost", "host.docker.internal", "app.example.com"];
        let mut web = container(&[(network, "net", &names, &["10.0.0.2", "fd00::2"])]);
        web.networks[0].gateways = vec!["10.0.0.1".parse().unwrap()];
        let db = container(&[(network, "net", &["db"], &["10.0.0.3"])]);
        let hidden = container(&[(other, "other", &["secret"], &["10.9.0.2"])]);
        let mut zones = Zones::default();
        for container in [&web, &db, &hidden] {
            zones.add(container);
        }
        let cases: &[(&str, u16, Option<&[&str]>)] = &[
            ("web", A, Some(&["10.0.0.2"])),
            ("WEB", AAAA, Some(&["fd00::2"])),
            ("web", ANY, Some(&["10.0.0.2", "fd00::2"])),
            ("web.net", A, Some(&["10.0.0.2"])),
            ("app.example.com", A, Some(&["10.0.0.2"])),
            // known, and without such records: nobody else is asked
            ("db", AAAA, Some(&[])),
            ("db", MX, Some(&[])),
            ("db", HTTPS, Some(&[])),
            // reserved, whatever a container is called
            ("localhost", A, Some(&["127.0.0.1"])),
            ("localhost", AAAA, Some(&["::1"])),
            ("a.localhost", A, Some(&["127.0.0.1"])),
            ("host.docker.internal", A, Some(&["10.0.0.1"])),
            ("gateway.docker.internal", AAAA, Some(&[])),
            // reverse
            ("3.0.0.10.in-addr.arpa", PTR, Some(&["db.net."])),
            ("1.0.0.127.in-addr.arpa", PTR, Some(&["localhost."])),
            ("2.0.9.10.in-addr.arpa", PTR, None),
            // others' and nobody's
            ("secret", A, None),
            ("secret.other", A, None),
            ("example.com", A, None),
            ("", A, None),
        ];
        for (name, kind, wanted) in cases {
            let query = Query::read(&ask(name, *kind)).unwrap();
            let found = answer(&zones, &web, &query, 0).map(|answer| {
                assert_eq!(answer.code, ResponseCode::NoError, "{name}");
                answer.data.iter().map(ToString::to_string).collect::<Vec<_>>()
            });
            let wanted = wanted.map(|all| all.iter().map(ToString::to_string).collect());
            assert_eq!(found, wanted, "{name} {kind}");
        }
        // no gateway, no host
        let query = Query::read(&ask("host.docker.internal", A)).unwrap();
        let none = answer(&zones, &db, &query, 0).unwrap();
        assert_eq!(none, Answer::code(ResponseCode::NXDomain));
    }

    #[test]
    fn whole_zones_and_other_classes_are_refused() {
        let asker = container(&[]);
        let zones = Zones::default();
        for (name, kind, class) in [("net", 252, 1), ("net", 251, 1), ("version.bind", 16, 3)] {
            let mut message = ask(name, kind);
            *message.last_mut().unwrap() = class;
            let query = Query::read(&message).unwrap();
            let refused = answer(&zones, &asker, &query, 0).unwrap();
            assert_eq!(refused.code, ResponseCode::Refused, "{name}");
        }
    }

    #[test]
    fn each_turn_has_another_first() {
        let network = Id::random();
        let mut zones = Zones::default();
        let member =
            |last: u8| container(&[(network, "net", &["all"], &[&format!("10.0.0.{last}")])]);
        let members: Vec<_> = (1..=3).map(member).collect();
        members.iter().for_each(|member| zones.add(member));
        let query = Query::read(&ask("all", A)).unwrap();
        let firsts: Vec<String> = (0..4)
            .map(|turn| answer(&zones, &members[0], &query, turn).unwrap().data[0].to_string())
            .collect();
        assert_eq!(firsts, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
    }

    #[test]
    fn bare_names_are_refused_only_where_it_was_asked_for() {
        let mut asker = container(&[]);
        let query = |name, kind| Query::read(&ask(name, kind)).unwrap();
        assert!(!is_refused_bare(&asker, &query("box", A)));
        asker.bare_names = BareNames::Refuse;
        assert!(is_refused_bare(&asker, &query("box", AAAA)));
        assert!(!is_refused_bare(&asker, &query("box", MX)));
        assert!(!is_refused_bare(&asker, &query("box.example", A)));
    }
}
