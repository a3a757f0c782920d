//! What happens to many at once.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bulkhead_engine::{LogQuery, PortRequest, Status};
use bulkhead_network::Protocol;
use futures_util::future::join_all;

use crate::rig::Rig;

/// Those that somebody else is stopping with more patience than a teardown has end between its look at
/// them and its kill: that is no fault.
pub async fn are_torn_down_whoever_else_stops_them(rig: &mut Rig) {
    let names: Vec<String> = (0..24).map(|number| format!("down{number}")).collect();
    // Process 1 ignores SIGTERM; every other one ends by it, in its own time.
    let shared = &*rig;
    join_all(names.iter().enumerate().map(|(number, name)| {
        let script = match number % 2 {
            0 => "sleep 1000",
            _ => "trap 'sleep 0.1; exit 3' TERM; while :; do sleep 0.2; done",
        };
        shared.start(Rig::script(name, script))
    }))
    .await;
    let mut stops = Vec::new();
    for name in &names {
        let (engine, id) = (Arc::clone(&rig.engine), rig.id(name));
        stops.push(tokio::spawn(async move { engine.stop(id, Some(60), None).await }));
    }
    rig.done().await;
    for stop in join_all(stops).await {
        stop.unwrap().unwrap();
    }
    for name in &names {
        assert_eq!(rig.engine.container(name).unwrap().state.status, Status::Exited, "{name}");
    }
}

pub async fn are_adopted_at_once(rig: &mut Rig) {
    let create = |number: usize| {
        let mut create = Rig::sleeper(&format!("kept{number}"));
        create.host.port_bindings = vec![PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: Some(Ipv4Addr::LOCALHOST.into()),
            host_port: 0,
            last_host_port: None,
        }];
        create
    };
    let shared = &*rig;
    let before = join_all((0..20).map(|number| shared.start(create(number)))).await;
    for number in 0..20 {
        rig.ready(&format!("kept{number}")).await;
    }
    rig.close().await;
    rig.open().await;
    for before in &before {
        let after = rig.engine.container(before.name.as_str()).unwrap();
        assert_eq!((&after.state, &after.network), (&before.state, &before.network));
        let port = after.network.ports[0].host_port;
        assert!(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err(), "{port}");
    }
    // Each is its engine's own again: it can be stopped, and its end is told with its code.
    let stops = before.iter().map(|before| rig.engine.stop(before.id, Some(60), None));
    for stopped in join_all(stops).await {
        stopped.unwrap();
    }
    for before in &before {
        let state = rig.engine.container(before.name.as_str()).unwrap().state;
        assert_eq!((state.status, state.exit_code), (Status::Exited, 3), "{}", before.name);
    }
    rig.done().await;
}

/// The address of one that has ended is free although its link is there for a while.
pub async fn come_and_go_on_a_small_network(rig: &mut Rig) {
    rig.engine.tear_down().await.unwrap();
    rig.close().await;
    // 29 addresses
    rig.options.bridge_address = Some(("172.29.0.1".parse().unwrap(), 27));
    rig.open().await;
    for round in 0..3 {
        let shared = &*rig;
        let runs = (0..25).map(|number| {
            let mut create = Rig::script(&format!("r{round}n{number}"), "echo ran");
            create.host.auto_remove = true;
            shared.run(create)
        });
        for (number, ran) in join_all(runs).await.into_iter().enumerate() {
            assert_eq!(ran, (0, "ran\n".to_owned()), "round {round}, {number}");
        }
    }
    rig.done().await;
}

/// Whoever asks and does not read costs a few records, however long the log is.
pub async fn readers_that_never_read_hold_little(rig: &mut Rig) {
    let script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done";
    rig.start(Rig::script("writes", script)).await;
    let query = LogQuery { stdout: true, follow: true, ..LogQuery::default() };
    let id = rig.id("writes");
    let readers = join_all((0..300).map(|_| rig.engine.logs(id, query.clone()))).await;
    let mut readers: Vec<_> = readers.into_iter().map(|reader| reader.unwrap()).collect();
    let ended = rig.engine.wait(id, bulkhead_engine::WaitCondition::NotRunning).unwrap();
    assert_eq!(ended.await.unwrap(), 0);
    crate::containers::wait_for(|| readers.iter().all(|reader| reader.capacity() == 0)).await;
    assert!(readers.iter().all(|reader| reader.len() <= 16), "more waits than a reader asked for");
    // Nothing is lost to one who reads late.
    let mut late = readers.swap_remove(7);
    drop(readers);
    for number in 0..5000 {
        let line = late.recv().await.unwrap().unwrap();
        assert_eq!(line.text, format!("line {number}\n").into_bytes());
    }
    assert!(late.recv().await.is_none());
    rig.done().await;
}
