use std::io::{Read, Write};

use bulkhead_resolver::*;
use bulkhead_types::Id;

use crate::fixture::*;

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub const ALL: &[(&str, fn())] = &[$((stringify!($case), $case)),*];
    };
}

cases![
    names_are_answered_without_an_engine,
    another_resolver_goes_on_with_the_sockets,
    an_engine_of_another_version_gets_a_resolver_of_its_own,
    hundreds_of_containers_are_listed_with_their_sockets,
    other_names_are_asked_of_the_hosts_servers,
    a_containers_own_servers_are_asked_from_inside,
    a_silent_or_failing_server_does_not_keep_anybody_waiting,
    what_does_not_fit_is_asked_by_tcp,
    only_the_servers_own_answer_counts,
    malformed_packets_and_greedy_clients_do_no_harm,
    the_process_may_do_next_to_nothing,
];

fn names_are_answered_without_an_engine() {
    let mut resolver = Resolver::launch();
    let network = Id::random();
    let (web, db) = (Guest::new(network, "web", 2), Guest::new(network, "db", 3));
    let stranger = Guest::new(Id::random(), "stranger", 9);
    for guest in [&web, &db, &stranger] {
        guest.put(&resolver);
    }
    let check = || {
        assert_eq!(web.ask("DB", A).addresses(), ["10.0.0.3"]);
        assert_eq!(web.ask("db.net", A).addresses(), ["10.0.0.3"]);
        assert_eq!(db.ask("host.docker.internal", A).addresses(), ["10.0.0.1"]);
        let none = web.ask("db", AAAA);
        assert_eq!((none.code(), none.addresses().len()), (NO_ERROR, 0));
        assert_eq!(web.ask("3.0.0.10.in-addr.arpa", PTR).code(), NO_ERROR);
        // another network's names are nobody's, and without servers nothing is
        assert_eq!(stranger.ask("web", A).code(), SERVER_FAILURE);
        assert_eq!(web.ask("example.com", A).code(), SERVER_FAILURE);
        let firsts: Vec<_> = (0..2).map(|_| web.ask("all", A).addresses().remove(0)).collect();
        assert_ne!(firsts[0], firsts[1]);
    };
    check();
    resolver.client = None;
    check();
    resolver.reconnect();
    check();
    // what has changed is told without sockets
    let mut renamed = db.container.clone();
    renamed.networks[0].names[0] = "store".to_owned();
    resolver.client().put(&renamed, None).unwrap();
    assert_eq!(web.ask("store", A).addresses(), ["10.0.0.3"]);
    assert_eq!(web.ask("db", A).code(), SERVER_FAILURE);
    resolver.client().remove(db.container.id).unwrap();
    resolver.client().remove(db.container.id).unwrap();
    assert_eq!(web.ask("store", A).code(), SERVER_FAILURE);
}

fn another_resolver_goes_on_with_the_sockets() {
    let mut resolver = Resolver::launch();
    let web = Guest::new(Id::random(), "web", 2);
    web.put(&resolver);
    assert_eq!(web.ask("web", A).addresses(), ["10.0.0.2"]);
    resolver.kill();
    assert!(matches!(resolver.client().list(), Err(ResolverError::Gone(_))));
    // asked while there is none, answered by the next
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| web.ask("web", A).addresses());
        resolver.reconnect();
        assert!(resolver.client().list().unwrap().is_empty());
        web.put(&resolver);
        assert_eq!(asking.join().unwrap(), ["10.0.0.2"]);
    });
}

fn an_engine_of_another_version_gets_a_resolver_of_its_own() {
    let mut resolver = Resolver::launch();
    let first = resolver.pid();
    // as the client of another version does, when it has heard of ours
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET);
    let stranger = rustix::net::socket(family, kind, None).unwrap();
    let address = rustix::net::SocketAddrUnix::new(resolver.socket()).unwrap();
    rustix::net::connect(&stranger, &address).unwrap();
    let say = |text: &[u8]| rustix::net::send(&stranger, text, rustix::net::SendFlags::NOSIGNAL);
    say(b"bulkhead-resolver end").unwrap();
    resolver.gone.recv().unwrap();
    resolver.reconnect();
    assert_ne!(resolver.pid(), first);
}

fn hundreds_of_containers_are_listed_with_their_sockets() {
    let mut resolver = Resolver::launch();
    let guest = Guest::with_upstream(Id::random(), "web", 2, &[], Reach::Container);
    let mut container = guest.container.clone();
    for number in 0..300 {
        container.id = Id::random();
        container.networks[0].names = vec![format!("web-{number}")];
        resolver.client().put(&container, None).unwrap();
    }
    let namespace = Namespace::new();
    for _ in 0..100 {
        container.id = Id::random();
        let (sockets, _, _) = namespace.sockets(2);
        resolver.client().put(&container, Some(&sockets)).unwrap();
    }
    guest.put(&resolver);
    resolver.reconnect();
    let all = resolver.client().list().unwrap();
    assert_eq!(all.len(), 401);
    assert_eq!(all.iter().filter(|(_, sockets)| sockets.is_some()).count(), 101);
    let (found, sockets) =
        all.into_iter().find(|(container, _)| container.id == guest.container.id).unwrap();
    assert_eq!(found, guest.container);
    let sockets = sockets.unwrap();
    assert_eq!((sockets.upstream_udp.len(), sockets.upstream_tcp.len()), (2, 2));
    let udp = std::net::UdpSocket::from(sockets.udp);
    assert_eq!(udp.local_addr().unwrap(), guest.udp);
    assert_eq!(guest.ask("web-299", A).addresses(), ["10.0.0.2"]);
}

fn other_names_are_asked_of_the_hosts_servers() {
    let resolver = Resolver::launch();
    let (server, asked) = server(Behaviour::Answers([192, 0, 2, 1]));
    let network = Id::random();
    let guest = |name, last| Guest::with_upstream(network, name, last, &[server], Reach::Host);
    let (one, two) = (guest("one", 2), guest("two", 3));
    one.put(&resolver);
    two.put(&resolver);
    assert_eq!(one.ask("www.Example.com", A).addresses(), ["192.0.2.1"]);
    // kept, and shared by who asks the same servers
    assert_eq!(two.ask("WWW.example.com", A).addresses(), ["192.0.2.1"]);
    assert_eq!(two.ask("one", A).addresses(), ["10.0.0.2"]);
    assert_eq!(two.ask("one", AAAA).code(), NO_ERROR);
    assert_eq!(asked.try_iter().count(), 1);
    // a name of no network is forwarded even without a dot, unless the container says otherwise
    assert_eq!(one.ask("bare", A).addresses(), ["192.0.2.1"]);
    let mut container = one.container.clone();
    container.bare_names = BareNames::Refuse;
    resolver.client().put(&container, None).unwrap();
    assert_eq!(one.ask("bare", A).code(), NO_SUCH_NAME);
    // one that is on internal networks only
    container.upstream.servers.clear();
    resolver.client().put(&container, None).unwrap();
    assert_eq!(one.ask("www.example.com", A).code(), SERVER_FAILURE);
}

fn a_containers_own_servers_are_asked_from_inside() {
    let resolver = Resolver::launch();
    let namespace = Namespace::new();
    let (address, asked) = namespace.inside(|| server(Behaviour::Answers([192, 0, 2, 7])));
    let network = Id::random();
    let mut guest = Guest::with_upstream(network, "web", 2, &[address], Reach::Container);
    let (sockets, udp, tcp) = namespace.sockets(2);
    (guest.namespace, guest.sockets, guest.udp, guest.tcp) = (namespace, sockets, udp, tcp);
    guest.put(&resolver);
    // more than there are sockets, one after the other and at once
    for number in 0..5 {
        let name = format!("n{number}.example");
        assert_eq!(guest.ask(&name, A).addresses(), ["192.0.2.7"]);
    }
    std::thread::scope(|scope| {
        let guest = &guest;
        for number in 5..25 {
            scope.spawn(move || {
                let name = format!("n{number}.example");
                assert_eq!(guest.ask(&name, A).addresses(), ["192.0.2.7"]);
            });
        }
    });
    assert_eq!(asked.try_iter().count(), 25);
    // the host's loopback is not the container's
    let other = Guest::with_upstream(network, "db", 3, &[address], Reach::Container);
    other.put(&resolver);
    assert_eq!(other.ask("n1.example", A).code(), SERVER_FAILURE);
}

fn a_silent_or_failing_server_does_not_keep_anybody_waiting() {
    let resolver = Resolver::launch();
    let (silent, _silent) = server(Behaviour::Silent);
    let (failing, _failing) = server(Behaviour::Fails(SERVER_FAILURE));
    let (good, _good) = server(Behaviour::Answers([192, 0, 2, 3]));
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = [silent, failing, closed, good];
    let guest = Guest::with_upstream(Id::random(), "web", 2, &servers, Reach::Host);
    guest.put(&resolver);
    assert_eq!(guest.ask("www.example.com", A).addresses(), ["192.0.2.3"]);
    let (missing, _missing) = server(Behaviour::Fails(NO_SUCH_NAME));
    let guest = Guest::with_upstream(Id::random(), "web", 2, &[missing, good], Reach::Host);
    guest.put(&resolver);
    assert_eq!(guest.ask("gone.example.com", A).code(), NO_SUCH_NAME);
    let guest = Guest::with_upstream(Id::random(), "web", 2, &[failing, closed], Reach::Host);
    guest.put(&resolver);
    assert_eq!(guest.ask("gone.example.com", A).code(), SERVER_FAILURE);
}

fn what_does_not_fit_is_asked_by_tcp() {
    let resolver = Resolver::launch();
    let (address, _asked) = server(Behaviour::Cuts([192, 0, 2, 4]));
    let guest = Guest::with_upstream(Id::random(), "web", 2, &[address], Reach::Host);
    guest.put(&resolver);
    assert_eq!(guest.ask("www.example.com", A).addresses(), ["192.0.2.4"]);
    let namespace = Namespace::new();
    let (address, _asked) = namespace.inside(|| server(Behaviour::Cuts([192, 0, 2, 5])));
    let mut guest = Guest::with_upstream(Id::random(), "web", 2, &[address], Reach::Container);
    let (sockets, udp, tcp) = namespace.sockets(1);
    (guest.namespace, guest.sockets, guest.udp, guest.tcp) = (namespace, sockets, udp, tcp);
    guest.put(&resolver);
    for name in ["a.example", "b.example", "c.example"] {
        assert_eq!(guest.ask(name, A).addresses(), ["192.0.2.5"]);
    }
    // a client by UDP with little room is told to come by TCP
    let network = Id::random();
    let many: Vec<_> = (0..60).map(|last| Guest::new(network, &format!("m{last}"), last)).collect();
    many.iter().for_each(|guest| resolver.client().put(&guest.container, None).unwrap());
    many[0].put(&resolver);
    let cut = many[0].ask("all", A);
    assert!(cut.is_cut() && cut.0.len() <= 512, "{}", cut.0.len());
    let mut stream = many[0].connect();
    let question = query("all", A);
    stream.write_all(&(question.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(&question).unwrap();
    assert_eq!(read_message(&mut stream).unwrap().addresses().len(), 60);
}

fn only_the_servers_own_answer_counts() {
    let resolver = Resolver::launch();
    let (address, asked) = server(Behaviour::Lies([192, 0, 2, 6]));
    let guest = Guest::with_upstream(Id::random(), "web", 2, &[address], Reach::Host);
    guest.put(&resolver);
    let mut ids = std::collections::BTreeSet::new();
    for number in 0..20 {
        let name = format!("n{number}.example");
        assert_eq!(guest.ask(&name, A).addresses(), ["192.0.2.6"]);
        ids.insert(asked.recv().unwrap()[..2].to_vec());
    }
    assert!(ids.len() > 15, "ids are not random: {ids:?}");
}

fn malformed_packets_and_greedy_clients_do_no_harm() {
    let resolver = Resolver::launch();
    let guest = Guest::new(Id::random(), "web", 2);
    guest.put(&resolver);
    // a name that points at itself
    let mut looping = query("web", A);
    looping[12..14].copy_from_slice(b"\xc0\x0c");
    let to = guest.udp;
    let refused = guest.namespace.inside(move || exchange(to, &looping)).unwrap();
    assert_eq!(refused.code(), FORMAT_ERROR);
    // answers are not answered, or two resolvers could talk for ever
    let mut answer = query("web", A);
    answer[2] |= 0x80;
    guest.namespace.inside(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for packet in [&answer[..], b"", b"\0", &[0xff; 60_000]] {
            socket.send_to(packet, to).unwrap();
        }
    });
    // as long as a message can be
    let mut stream = guest.connect();
    let _ = stream.write_all(&[0xff; 65_537]);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
    // several questions in one go and in pieces, and more connections than one may have
    let mut held: Vec<_> = (0..40).map(|_| guest.connect()).collect();
    let mut stream = held.pop().unwrap();
    let question = query("web", A);
    let mut both = Vec::new();
    for _ in 0..200 {
        both.extend((question.len() as u16).to_be_bytes());
        both.extend(&question);
    }
    let (start, end) = both.split_at(25);
    stream.write_all(start).unwrap();
    stream.write_all(end).unwrap();
    for _ in 0..200 {
        assert_eq!(read_message(&mut stream).unwrap().addresses(), ["10.0.0.2"]);
    }
    assert_eq!(guest.ask("web", A).addresses(), ["10.0.0.2"]);
}

fn read_message(stream: &mut std::net::TcpStream) -> std::io::Result<Answer> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(Answer(message))
}

fn the_process_may_do_next_to_nothing() {
    let resolver = Resolver::launch();
    let pid = resolver.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Threads:\t1",
    ] {
        assert!(status.lines().any(|have| have == line), "{line} is missing in\n{status}");
    }
    let root = std::fs::read_dir(format!("/proc/{pid}/root/")).unwrap();
    assert_eq!(root.count(), 0);
}
