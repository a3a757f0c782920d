//! Prints how long the acts of a container's start and stop take, in namespaces of its own.
//!
//! `cargo run --release -p bulkhead-network --example speed [ROUNDS]`, as root.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bulkhead_network::{Bridge, DefaultRoute, Endpoint, Gateway, Host, Protocol, PublishedPort};
use rustix::thread::UnshareFlags;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let rounds: u8 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 100,
    };
    bulkhead_sys::unshare(UnshareFlags::NEWNET)?;
    let host = Host::open()?;
    let bridge = Bridge {
        name: "bulkhead0".to_owned(),
        ipv4: Some(Gateway { address: Ipv4Addr::new(10, 0, 0, 1), prefix: 16 }),
        ipv6: None,
        mtu: 1500,
        internal: false,
        inter_container: true,
        masquerade: true,
        access: Default::default(),
        publish_policy: Default::default(),
    };
    let mut clock = Clock::default();
    clock.time("bridge, first", || host.ensure_bridge(&bridge))?;
    for number in 0..rounds {
        clock.time("bridge, again", || host.ensure_bridge(&bridge))?;
        let netns = clock.time("namespace", namespace)?;
        let address = Ipv4Addr::new(10, 0, 1, number);
        let endpoint = Endpoint {
            host_link: format!("bh{number}"),
            interface: "eth0".to_owned(),
            mac: [2, 0, 0, 0, 0, number],
            ipv4: Some(address),
            ipv6: None,
            default_route: DefaultRoute::Both,
            link_local: vec![],
            sysctls: vec![],
        };
        let port = PublishedPort {
            protocol: Protocol::Tcp,
            host_address: Ipv4Addr::UNSPECIFIED.into(),
            host_port: 8000 + u16::from(number),
            container_address: address.into(),
            container_port: 80,
            reached_by: Default::default(),
        };
        clock.time("loopback", || host.loopback_up(netns.as_fd()))?;
        clock.time("plug", || host.plug(netns.as_fd(), &bridge, &endpoint))?;
        clock.time("publish", || host.publish(&[port]))?;
        clock.time("unpublish", || host.unpublish(&[port]))?;
        clock.time("unplug", || host.unplug(&endpoint.host_link))?;
    }
    clock.print();
    Ok(())
}

fn namespace() -> Result<OwnedFd, Failure> {
    std::thread::spawn(|| -> Result<OwnedFd, Failure> {
        bulkhead_sys::unshare(UnshareFlags::NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Times by name, in the order in which the names came first.
#[derive(Default)]
struct Clock(Vec<(&'static str, Vec<Duration>)>);

impl Clock {
    fn time<T, E>(
        &mut self,
        name: &'static str,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let start = Instant::now();
        let result = act();
        let took = start.elapsed();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(took),
            None => self.0.push((name, vec![took])),
        }
        result
    }

    fn print(mut self) {
        println!("{:<16}{:>10}{:>10}{:>10}", "", "least", "median", "most");
        for (name, times) in &mut self.0 {
            times.sort();
            let show = |index: usize| format!("{:.0?}", times[index]);
            let (least, median, most) = (show(0), show(times.len() / 2), show(times.len() - 1));
            println!("{name:<16}{least:>10}{median:>10}{most:>10}");
        }
    }
}
