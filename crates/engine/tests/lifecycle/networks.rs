use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use bulkhead_engine::{NetworkMode, PortRequest};
use bulkhead_network::Protocol;

use crate::containers::wait_for;
use crate::rig::Rig;

pub async fn links_names_and_published_ports(rig: &mut Rig) {
    let mut server = Rig::script(
        "server",
        "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp & trap 'exit 0' TERM; wait",
    );
    server.config.exposed_ports = vec!["80/tcp".parse().unwrap()];
    server.host.port_bindings = vec![PortRequest {
        container_port: 80,
        protocol: Protocol::Tcp,
        host_address: None,
        host_port: 0,
        last_host_port: None,
    }];
    let server = rig.start(server).await;
    let address = server.network.address().unwrap();
    assert_eq!(
        server.network.gateway().unwrap().ipv4.unwrap().gateway,
        Some("172.29.0.1".parse().unwrap())
    );
    let port = server.network.ports[0].host_port;
    assert_ne!(port, 0);
    let view = &rig.engine.networks()[0];
    assert_eq!(view.containers[&server.id].ipv4.unwrap().address, address);

    // From the host, by its own address and the published port.
    let fetch = move || {
        let mut stream = TcpStream::connect((Ipv4Addr::new(172, 29, 0, 1), port)).ok()?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    wait_for(|| fetch().is_some_and(|answer| answer.contains("served"))).await;

    // From another container, by link, by alias.
    let mut client = Rig::script(
        "client",
        "wget -q -O - http://app/index.html; cat /etc/hosts; env | grep ^APP_; ip route",
    );
    client.host.links = vec!["server:app".parse().unwrap()];
    client.host.extra_hosts = vec!["up:host-gateway".parse().unwrap()];
    let (code, output) = rig.run(client).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("served\n"), "{output}");
    assert!(output.contains(&format!("{address}\tapp {} server\n", server.id.short())), "{output}");
    assert!(output.contains("172.29.0.1\tup\n"), "{output}");
    assert!(output.contains(&format!("APP_PORT_80_TCP=tcp://{address}:80\n")), "{output}");
    assert!(output.contains("default via 172.29.0.1"), "{output}");

    let mut none = Rig::script("none", "ip -o link | grep -c .; ip -o addr show lo | grep -c 127");
    none.host.network_mode = NetworkMode::None;
    assert_eq!(rig.run(none).await, (0, "1\n1\n".to_owned()));

    // A linked container that comes back elsewhere is found again.
    let mut holder = Rig::sleeper("holder");
    holder.host.links = vec!["server:app".parse().unwrap()];
    let holder = rig.start(holder).await;
    rig.engine.stop(rig.id("server"), Some(1), None).await.unwrap();
    rig.start(Rig::sleeper("squatter")).await;
    rig.engine.start(rig.id("server")).await.unwrap();
    let moved = rig.engine.container("server").unwrap().network.address().unwrap();
    let hosts = rig.options.data.join(format!("containers/{}/hosts", holder.id));
    let hosts = std::fs::read_to_string(hosts).unwrap();
    assert!(hosts.contains(&format!("{moved}\tapp")), "{hosts}");

    // Without the link, it is not; both go on.
    let error = rig.engine.unlink(rig.id("holder"), "db").await.unwrap_err();
    assert_eq!(error.message, "No such link: /holder/db");
    rig.engine.unlink(rig.id("holder"), "app").await.unwrap();
    let hosts = rig.options.data.join(format!("containers/{}/hosts", holder.id));
    let hosts = std::fs::read_to_string(hosts).unwrap();
    assert!(!hosts.contains("app"), "{hosts}");
    assert!(rig.engine.container("holder").unwrap().host.links.is_empty());
    assert_eq!(rig.engine.container("server").unwrap().network.address(), Some(moved));
    rig.done().await;
}

pub async fn a_bridge_with_containers_keeps_its_address(rig: &mut Rig) {
    let port = PortRequest {
        container_port: 80,
        protocol: Protocol::Tcp,
        host_address: None,
        host_port: 8080,
        last_host_port: None,
    };
    let published = |name: &str| {
        let mut create = Rig::sleeper(name);
        create.host.port_bindings = vec![port];
        create
    };
    rig.start(published("on-it")).await;
    rig.close().await;
    rig.options.bridge_address = Some(("172.29.0.1".parse().unwrap(), 16));
    let error = bulkhead_engine::Engine::open(rig.options.clone()).await.unwrap_err();
    assert!(error.message.contains("while containers are on it (1)"), "{error}");
    rig.until_free().await;

    // the rules of one that crashed, and whose containers have ended, are in nobody's way
    rig.options.bridge_address = Some(("172.29.0.1".parse().unwrap(), 24));
    rig.open().await;
    rig.engine.remove(rig.id("on-it"), true, false).await.unwrap();
    rig.close().await;
    rig.options.bridge_address = Some(("172.29.0.1".parse().unwrap(), 16));
    let address = rig.options.bridge_address;
    rig.open().await;
    let container = rig.start(published("after")).await;
    let given = container.network.gateway().unwrap().ipv4.unwrap();
    assert_eq!((given.gateway, given.prefix), (address.map(|it| it.0), 16));
    rig.done().await;
}

pub async fn an_address_is_free_when_its_container_has_ended(rig: &mut Rig) {
    rig.engine.tear_down().await.unwrap();
    rig.close().await;
    // Room for one container.
    rig.options.bridge_address = Some(("172.29.0.1".parse().unwrap(), 30));
    rig.open().await;
    for round in 0..5 {
        let mut create = Rig::script(&format!("n{round}"), "ip -4 addr show eth0");
        create.host.auto_remove = true;
        let (code, output) = rig.run(create).await;
        assert_eq!(code, 0, "{output}");
        assert!(output.contains("172.29.0.2/30"), "{output}");
    }
    let taken = rig.start(Rig::sleeper("has-it")).await;
    let create = Rig::sleeper("too-many");
    rig.engine.create(create).await.unwrap();
    let error = rig.engine.start(rig.id("too-many")).await.unwrap_err();
    assert!(error.message.starts_with("no available IPv4 addresses"), "{error}");
    assert_eq!(taken.network.address(), Some("172.29.0.2".parse().unwrap()));
    rig.done().await;
}
