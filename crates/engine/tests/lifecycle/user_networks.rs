//! Networks of the user's own.

use std::net::Ipv4Addr;

use bulkhead_engine::{
    BridgeOptions, Class, Container, CreateContainer, CreateNetwork, EndpointConfig, NetworkMode,
    PoolRequest,
};

use crate::containers::{exec, exec_end, wait_for};
use crate::rig::Rig;

fn request(name: &str, subnet: &str) -> CreateNetwork {
    let pool = PoolRequest { subnet: subnet.to_owned(), ..PoolRequest::default() };
    CreateNetwork { name: name.to_owned(), pools: vec![pool], ..CreateNetwork::default() }
}

/// A container on the networks of these names, of which the first is its mode.
fn on(mut create: CreateContainer, networks: &[&str]) -> CreateContainer {
    create.host.network_mode = NetworkMode::Named(networks[0].to_owned());
    create.endpoints = networks.iter().map(|name| EndpointConfig::of(*name)).collect();
    create
}

fn addresses(container: &Container) -> Vec<(String, String, Ipv4Addr)> {
    let attachments = container.network.attachments.iter();
    attachments
        .map(|it| (it.network_name.clone(), it.interface.clone(), it.ipv4.unwrap().address))
        .collect()
}

/// What a command in a running container says, and its exit code.
pub async fn inside(rig: &Rig, name: &str, script: &str) -> (u8, String) {
    let command = exec(&["sh", "-c", script]);
    let exec = rig.engine.exec_create(rig.id(name), command).await.unwrap();
    let socket = rig.engine.exec_start(exec, false, (0, 0)).await.unwrap().unwrap();
    let output = crate::rig::read_output(socket, false).await;
    let ended = exec_end(rig, &exec.to_string()).await;
    (ended.exit_code.unwrap(), output)
}

fn has_link(name: &str) -> bool {
    std::fs::read_to_string("/proc/net/dev").unwrap().contains(&format!("{name}:"))
}

pub async fn one_is_made_used_and_removed(rig: &mut Rig) {
    let (_, mut events) = rig.engine.events(None);
    let network = rig.engine.create_network(request("web", "10.77.0.0/24")).await.unwrap();
    let link = network.link_name();
    assert!(has_link(&link), "{link}");
    let web = rig.start(on(Rig::sleeper("on-web"), &["web"])).await;
    let own = Ipv4Addr::new(10, 77, 0, 2);
    assert_eq!(addresses(&web), [("web".to_owned(), "eth0".to_owned(), own)]);
    let (code, output) =
        rig.run(on(Rig::script("asks", "ip route; ip -4 addr show eth0"), &["web"])).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("default via 10.77.0.1"), "{output}");
    assert!(output.contains("10.77.0.3/24"), "{output}");

    // Neither network reaches the other.
    let other = rig.start(Rig::sleeper("on-default")).await;
    let other = other.network.address().unwrap();
    let (code, _) = inside(rig, "on-web", &format!("nc -w 1 {other} 1 </dev/null")).await;
    assert_ne!(code, 0);

    let view = rig.engine.network("web").unwrap();
    assert_eq!(view.containers[&web.id].ipv4.unwrap().address, own);
    assert_eq!(rig.engine.network(&network.id.short()).unwrap().name, "web");
    let error = rig.engine.remove_network(&view).await.unwrap_err();
    assert_eq!(error.class, Class::Denied);
    assert!(error.message.contains("has active endpoints (name:\"on-web\""), "{error}");
    rig.engine.stop(rig.id("on-web"), Some(1), None).await.unwrap();
    rig.engine.remove_network(&view).await.unwrap();
    assert!(!has_link(&link));
    assert_eq!(rig.engine.network("web").unwrap_err().message, "network web not found");
    let error = rig.engine.start(rig.id("on-web")).await.unwrap_err();
    assert_eq!(error.message, "network web not found");

    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        if event.kind == "network" && event.attributes["name"] == "web" {
            seen.push(event.action);
        }
    }
    assert_eq!(
        seen,
        ["create", "connect", "connect", "disconnect", "disconnect", "destroy"],
        "of the network and two containers"
    );
    // One of the same name is another, and does as well.
    rig.engine.create_network(request("web", "10.78.0.0/24")).await.unwrap();
    rig.engine.start(rig.id("on-web")).await.unwrap();
    let again = rig.engine.container("on-web").unwrap();
    assert_eq!(again.network.address(), Some(Ipv4Addr::new(10, 78, 0, 2)));
    rig.done().await;
}

pub async fn requests_that_cannot_be_met(rig: &mut Rig) {
    rig.engine.create_network(request("taken", "10.77.0.0/24")).await.unwrap();
    for (create, class, part) in [
        (
            request("taken", "10.78.0.0/24"),
            Class::Conflict,
            "network with name taken already exists",
        ),
        (request("more", "10.77.0.0/16"), Class::Denied, "Pool overlaps"),
        (request("more", "172.29.0.0/16"), Class::Denied, "Pool overlaps"),
        (request("more", "10.77.0.1/24"), Class::Invalid, "it should be 10.77.0.0/24"),
        (request("bridge", "10.79.0.0/24"), Class::Denied, "predefined bridge network"),
        (request(" ", "10.79.0.0/24"), Class::Invalid, "name is empty"),
    ] {
        let error = rig.engine.create_network(create).await.unwrap_err();
        assert_eq!(error.class, class, "{error}");
        assert!(error.message.contains(part), "{error}");
    }
    let options = [("com.docker.network.bridge.name".to_owned(), "lo".to_owned())].into();
    let mut create = request("more", "10.79.0.0/24");
    create.options = BridgeOptions::parse(options).unwrap();
    let error = rig.engine.create_network(create).await.unwrap_err();
    assert!(error.message.contains("interface called lo exists"), "{error}");
    assert_eq!(rig.engine.networks().len(), 4);

    let at = |network: &str, address: [u8; 4]| EndpointConfig {
        ipv4: Some(address.into()),
        ..EndpointConfig::of(network)
    };
    let aliased = EndpointConfig { aliases: vec!["db".to_owned()], ..EndpointConfig::of("bridge") };
    rig.engine
        .create_network(CreateNetwork { name: "drawn".into(), ..Default::default() })
        .await
        .unwrap();
    for (mode, endpoint, part) in [
        (NetworkMode::Named("nothing".into()), None, "network nothing not found"),
        (NetworkMode::Bridge, Some(EndpointConfig::of("nothing")), "network nothing not found"),
        (NetworkMode::Bridge, Some(at("bridge", [172, 29, 0, 9])), "user defined networks only"),
        (NetworkMode::Bridge, Some(aliased), "network-scoped aliases"),
        (NetworkMode::Bridge, Some(at("taken", [10, 99, 0, 9])), "no configured subnet contains"),
        (NetworkMode::Bridge, Some(at("taken", [10, 77, 0, 1])), "the network's own"),
        (NetworkMode::Bridge, Some(at("drawn", [172, 17, 0, 9])), "user configured subnets"),
        (NetworkMode::Host, Some(EndpointConfig::of("taken")), "network mode host"),
        (NetworkMode::None, Some(EndpointConfig::of("taken")), "network mode none"),
    ] {
        let mut create = Rig::sleeper("never");
        create.host.network_mode = mode;
        create.endpoints = endpoint.into_iter().collect();
        let error = rig.engine.create(create).await.unwrap_err();
        assert_eq!(error.class, Class::Invalid, "{error}");
        assert!(error.message.contains(part), "{error}");
    }
    for name in ["bridge", "host", "none"] {
        let view = rig.engine.network(name).unwrap();
        let error = rig.engine.remove_network(&view).await.unwrap_err();
        assert!(error.message.contains("pre-defined network and cannot be removed"), "{error}");
    }
    rig.done().await;
}

pub async fn addresses_are_those_that_were_asked_for(rig: &mut Rig) {
    let mut create = request("own", "10.77.0.0/16");
    create.pools[0].range = "10.77.5.0/24".to_owned();
    create.pools[0].gateway = "10.77.9.1".to_owned();
    create.pools[0].auxiliary.insert("router".into(), "10.77.5.0".into());
    rig.engine.create_network(create).await.unwrap();
    let fixed = |name: &str, address: [u8; 4]| {
        let mut create = on(Rig::sleeper(name), &["own"]);
        create.endpoints[0].ipv4 = Some(address.into());
        create.endpoints[0].mac = Some([2, 0x42, 9, 8, 7, 6]);
        create
    };
    let first = rig.start(fixed("fixed", [10, 77, 1, 1])).await;
    assert_eq!(first.network.address(), Some(Ipv4Addr::new(10, 77, 1, 1)));
    let drawn = rig.start(on(Rig::sleeper("drawn"), &["own"])).await;
    assert_eq!(drawn.network.address(), Some(Ipv4Addr::new(10, 77, 5, 1)));
    let (_, output) = inside(rig, "fixed", "ip link show eth0; ip route").await;
    assert!(output.contains("02:42:09:08:07:06"), "{output}");
    assert!(output.contains("default via 10.77.9.1"), "{output}");

    rig.engine.create(fixed("second", [10, 77, 1, 1])).await.unwrap();
    let error = rig.engine.start(rig.id("second")).await.unwrap_err();
    assert!(error.message.starts_with("Address already in use: 10.77.1.1"), "{error}");
    assert_eq!(error.class, Class::Denied);
    // It does not wait for the link of the one that has ended.
    rig.engine.stop(rig.id("fixed"), Some(1), None).await.unwrap();
    rig.engine.start(rig.id("second")).await.unwrap();
    rig.done().await;
}

pub async fn containers_are_connected_while_they_run(rig: &mut Rig) {
    for (name, subnet) in [("front", "10.77.0.0/24"), ("back", "10.78.0.0/24")] {
        rig.engine.create_network(request(name, subnet)).await.unwrap();
    }
    let network = |name: &str| rig.engine.network(name).unwrap();
    rig.start(on(Rig::sleeper("moves"), &["front"])).await;
    let server = Rig::script("server", "trap 'exit 0' TERM; nc -ll -p 80 -e echo hello & wait");
    let server = rig.start(on(server, &["back"])).await;
    let ask = format!("nc -w 5 {} 80 </dev/null", server.network.address().unwrap());
    assert_ne!(inside(rig, "moves", &ask).await.0, 0);

    let aliased = EndpointConfig { aliases: vec!["mover".to_owned()], ..EndpointConfig::default() };
    rig.engine.connect(rig.id("moves"), &network("back"), aliased.clone()).await.unwrap();
    let moves = rig.engine.container("moves").unwrap();
    assert_eq!(
        addresses(&moves)[1],
        ("back".to_owned(), "eth1".to_owned(), Ipv4Addr::new(10, 78, 0, 3))
    );
    // The server may not listen yet.
    let patient = format!("until {ask}; do :; done");
    assert_eq!(inside(rig, "moves", &patient).await, (0, "hello\n".to_owned()));
    let error =
        rig.engine.connect(rig.id("moves"), &network("back"), aliased.clone()).await.unwrap_err();
    assert!(error.message.contains("endpoint with name moves already exists"), "{error}");

    // The route goes with its network, and comes back with it.
    rig.engine.disconnect(rig.id("moves"), &network("back")).await.unwrap();
    let (_, output) = inside(rig, "moves", "ip route; ip link").await;
    assert!(output.contains("default via 10.77.0.1 dev eth0"), "{output}");
    assert!(!output.contains("eth1"), "{output}");
    let error = rig.engine.disconnect(rig.id("moves"), &network("back")).await.unwrap_err();
    assert!(error.message.contains("is not connected to network back"), "{error}");
    rig.engine.disconnect(rig.id("moves"), &network("front")).await.unwrap();
    let (_, output) = inside(rig, "moves", "ip route; ip link").await;
    assert!(!output.contains("default") && !output.contains("eth"), "{output}");
    rig.engine.connect(rig.id("moves"), &network("back"), aliased).await.unwrap();
    let (_, output) = inside(rig, "moves", "ip route").await;
    assert!(output.contains("default via 10.78.0.1 dev eth0"), "{output}");

    // One that does not run has it with its next start, and none is one too.
    rig.engine.stop(rig.id("moves"), Some(1), None).await.unwrap();
    rig.engine.disconnect(rig.id("moves"), &network("back")).await.unwrap();
    rig.engine.start(rig.id("moves")).await.unwrap();
    let (_, output) = inside(rig, "moves", "ip route; ip link").await;
    assert!(output.contains("lo") && !output.contains("eth"), "{output}");
    rig.engine.stop(rig.id("moves"), Some(1), None).await.unwrap();
    let plain = EndpointConfig::default();
    rig.engine.connect(rig.id("moves"), &network("front"), plain.clone()).await.unwrap();
    rig.engine.start(rig.id("moves")).await.unwrap();
    assert_eq!(addresses(&rig.engine.container("moves").unwrap())[0].0, "front");

    let mut none = Rig::sleeper("none");
    none.host.network_mode = NetworkMode::None;
    rig.start(none).await;
    for (container, name, part) in [
        ("none", "front", "private (none) mode"),
        ("moves", "host", "host network"),
        ("moves", "none", "private (none) mode"),
    ] {
        let view = network(name);
        let error = rig.engine.connect(rig.id(container), &view, plain.clone()).await.unwrap_err();
        assert!(error.message.contains(part), "{error}");
    }
    rig.done().await;
}

pub async fn several_networks_have_one_default_route(rig: &mut Rig) {
    for (name, subnet) in [("alpha", "10.77.0.0/24"), ("beta", "10.78.0.0/24")] {
        rig.engine.create_network(request(name, subnet)).await.unwrap();
    }
    let mut inner = request("inner", "10.79.0.0/24");
    inner.internal = true;
    rig.engine.create_network(inner).await.unwrap();
    let server = |name: &str| {
        let script = "trap 'exit 0' TERM; nc -ll -p 80 -e echo hello & ip route; wait";
        let mut create = on(Rig::script(name, script), &["beta", "alpha", "inner"]);
        create.host.port_bindings = vec![bulkhead_engine::PortRequest {
            container_port: 80,
            protocol: bulkhead_network::Protocol::Tcp,
            host_address: None,
            host_port: 0,
            last_host_port: None,
        }];
        create
    };
    let ports = |name: &str| {
        let networking = rig.engine.container(name).unwrap().network.clone();
        match networking.published_address(Ipv4Addr::UNSPECIFIED.into()) {
            Some(std::net::IpAddr::V4(address)) => Some(address),
            _ => None,
        }
    };
    let plain = rig.start(server("plain")).await;
    assert_eq!(addresses(&plain).len(), 3);
    assert_eq!(addresses(&plain)[0].0, "beta", "its mode's is the first");
    assert_eq!(ports("plain"), Some(Ipv4Addr::new(10, 77, 0, 2)), "the first by its name");
    let mut told = server("told");
    told.endpoints[0].gateway_priority = 1;
    rig.start(told).await;
    assert_eq!(ports("told"), Some(Ipv4Addr::new(10, 78, 0, 3)));
    let (_, output) = inside(rig, "told", "ip route").await;
    assert!(output.contains("default via 10.78.0.1"), "{output}");

    // The published port follows.
    let port = plain.network.ports[0].host_port;
    let answer = || {
        use std::io::Read;
        let mut answer = String::new();
        let address = (Ipv4Addr::new(172, 29, 0, 1), port);
        let connected = std::net::TcpStream::connect(address);
        connected.is_ok_and(|mut it| it.read_to_string(&mut answer).is_ok() && answer == "hello\n")
    };
    wait_for(answer).await;
    let alpha = rig.engine.network("alpha").unwrap();
    rig.engine.disconnect(rig.id("plain"), &alpha).await.unwrap();
    assert_eq!(ports("plain"), Some(Ipv4Addr::new(10, 78, 0, 2)));
    wait_for(answer).await;
    let (_, output) = inside(rig, "plain", "ip route").await;
    assert!(output.contains("default via 10.78.0.1"), "{output}");
    rig.done().await;
}

pub async fn they_survive_the_engine(rig: &mut Rig) {
    let network = rig.engine.create_network(request("kept", "10.77.0.0/24")).await.unwrap();
    rig.start(on(Rig::sleeper("stays"), &["kept"])).await;
    rig.close().await;
    rig.open().await;
    let view = rig.engine.network("kept").unwrap();
    assert_eq!((view.id, view.containers.len()), (network.id, 1));
    let (_, output) = inside(rig, "stays", "ip route").await;
    assert!(output.contains("default via 10.77.0.1"), "{output}");
    // Its address is not given to another.
    let next = rig.start(on(Rig::sleeper("next"), &["kept"])).await;
    assert_eq!(next.network.address(), Some(Ipv4Addr::new(10, 77, 0, 3)));
    // After a tear-down, the record is what is left, and makes the bridge again.
    rig.engine.tear_down().await.unwrap();
    assert!(!has_link(&network.link_name()));
    rig.close().await;
    rig.open().await;
    assert!(has_link(&network.link_name()));
    rig.done().await;
}
