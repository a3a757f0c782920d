//! Names on networks of the user's own, as programs in containers ask for them.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use bulkhead_engine::{
    CreateContainer, CreateNetwork, EndpointConfig, Link, NetworkMode, PoolRequest,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::recovery::end_processes;
use crate::rig::Rig;
use crate::user_networks::inside;

async fn network(rig: &Rig, name: &str, subnet: &str, internal: bool) {
    let pool = PoolRequest { subnet: subnet.to_owned(), ..PoolRequest::default() };
    let pools = vec![pool];
    let request =
        CreateNetwork { name: name.to_owned(), internal, pools, ..CreateNetwork::default() };
    rig.engine.create_network(request).await.unwrap();
}

fn on(mut create: CreateContainer, config: EndpointConfig) -> CreateContainer {
    create.host.network_mode = NetworkMode::Named(config.network.clone());
    create.endpoints = vec![config];
    create
}

/// What busybox's nslookup finds: the addresses, or what went wrong.
async fn lookup(rig: &Rig, from: &str, name: &str) -> String {
    let script = format!("busybox nslookup -type=a {name} 2>&1");
    let (_, output) = inside(rig, from, &script).await;
    let found: Vec<&str> = output
        .lines()
        .skip_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("Address: "))
        .collect();
    if found.is_empty() { output } else { found.join(" ") }
}

/// One question from a container's place, without an engine: the last four bytes of the answer.
fn ask(pid: u32, name: &str) -> [u8; 4] {
    let netns = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    question.extend(name.as_bytes());
    question.extend([0, 0, 1, 0, 1]);
    let asking = std::thread::spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.send_to(&question, "127.0.0.11:53").unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[length - 4..length].try_into().unwrap()
    });
    asking.join().unwrap()
}

pub async fn they_are_answered_while_the_engine_is_away(rig: &mut Rig) {
    network(rig, "web", "10.77.0.0/24", false).await;
    let alias = EndpointConfig { aliases: vec!["www".into()], ..EndpointConfig::of("web") };
    let one = rig.start(on(Rig::sleeper("one"), alias)).await;
    rig.start(on(Rig::sleeper("two"), EndpointConfig::of("web"))).await;
    for name in ["one", "www", "ONE", &one.id.short(), "one.web"] {
        assert_eq!(lookup(rig, "two", name).await, "10.77.0.2", "{name}");
    }
    assert_eq!(lookup(rig, "one", "two").await, "10.77.0.3");
    let (_, file) = inside(rig, "two", "cat /etc/resolv.conf").await;
    assert!(file.contains("nameserver 127.0.0.11\n") && file.contains("ndots:0"), "{file}");
    // the name of the host, and no name of a container on no network of the user's
    assert_eq!(lookup(rig, "one", "host.docker.internal").await, "10.77.0.1");
    rig.start(Rig::sleeper("other")).await;
    let (_, file) = inside(rig, "other", "cat /etc/resolv.conf").await;
    assert!(!file.contains("127.0.0.11"), "{file}");

    let pid = rig.engine.container("one").unwrap().state.pid;
    rig.close().await;
    assert_eq!(ask(pid, "two"), [10, 77, 0, 3]);
    rig.open().await;
    assert_eq!(lookup(rig, "one", "two").await, "10.77.0.3");
    // it knows what starts and ends under the next one
    rig.engine.stop(rig.id("two"), Some(1), None).await.unwrap();
    rig.start(on(Rig::sleeper("three"), EndpointConfig::of("web"))).await;
    let missing = lookup(rig, "one", "two").await;
    assert!(!missing.contains("10.77."), "{missing}");
    assert_eq!(lookup(rig, "three", "one").await, "10.77.0.2");
    rig.done().await;
}

pub async fn another_resolver_takes_over(rig: &mut Rig) {
    network(rig, "web", "10.77.0.0/24", false).await;
    rig.start(on(Rig::sleeper("one"), EndpointConfig::of("web"))).await;
    let two = rig.start(on(Rig::sleeper("two"), EndpointConfig::of("web"))).await;
    end_processes(&rig.options.run, "resolver");
    // the question waits for the next one
    assert_eq!(ask(two.state.pid, "one"), [10, 77, 0, 2]);
    rig.close().await;
    end_processes(&rig.options.run, "resolver");
    rig.open().await;
    // nobody had the sockets any more
    assert_eq!(lookup(rig, "two", "one").await, "10.77.0.2");
    rig.done().await;
}

pub async fn they_follow_connections_and_renames(rig: &mut Rig) {
    network(rig, "front", "10.77.0.0/24", false).await;
    network(rig, "back", "10.78.0.0/24", true).await;
    rig.start(on(Rig::sleeper("web"), EndpointConfig::of("front"))).await;
    rig.start(on(Rig::sleeper("db"), EndpointConfig::of("back"))).await;
    rig.start(Rig::sleeper("late")).await;
    let unknown = lookup(rig, "web", "db.back").await;
    assert!(!unknown.contains("10.78."), "{unknown}");
    let view = rig.engine.network("back").unwrap();
    let config = |aliases: &[&str]| EndpointConfig {
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        ..EndpointConfig::of("back")
    };
    rig.engine.connect(rig.id("web"), &view, config(&["app"])).await.unwrap();
    assert_eq!(lookup(rig, "web", "db").await, "10.78.0.2");
    assert_eq!(lookup(rig, "db", "app").await, "10.78.0.3");
    // one that had no names before gets the resolver's address with them
    let link = Link { container: rig.id("db").to_string(), alias: "store".to_owned() };
    let with_link = EndpointConfig { links: vec![link], ..config(&[]) };
    rig.engine.connect(rig.id("late"), &view, with_link).await.unwrap();
    assert_eq!(lookup(rig, "late", "store").await, "10.78.0.2");
    rig.engine.rename(rig.id("db"), "base").await.unwrap();
    assert_eq!(lookup(rig, "web", "base").await, "10.78.0.2");
    assert_eq!(lookup(rig, "late", "store").await, "10.78.0.2");
    let gone = lookup(rig, "web", "db").await;
    assert!(!gone.contains("10.78."), "{gone}");
    rig.engine.disconnect(rig.id("web"), &view).await.unwrap();
    let gone = lookup(rig, "base", "web").await;
    assert!(!gone.contains("10.7"), "{gone}");
    // nothing leaves an internal network, not even a question
    let refused = lookup(rig, "base", "www.example.com").await;
    assert!(refused.contains("SERVFAIL"), "{refused}");
    let (_, file) = inside(rig, "base", "busybox nslookup host.docker.internal 2>&1").await;
    assert!(file.contains("NXDOMAIN"), "{file}");
    rig.done().await;
}
