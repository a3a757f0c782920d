//! What the resolver takes: answers a second, how long one takes, and memory with 1,000 containers.
//!
//! `cargo run --release -p bulkhead-resolver --example speed`, as root.
#![allow(clippy::unwrap_used)] // a measurement that fails is none

use std::net::UdpSocket;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bulkhead_types::Id;

#[allow(dead_code)] // the tests use all of it
#[path = "../tests/kernel/fixture.rs"]
mod fixture;

use fixture::{A, Guest, Resolver, query};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, resolver, _, socket] = arguments.as_slice()
        && resolver == "resolver"
    {
        return match bulkhead_resolver::serve(Path::new(socket)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most).unwrap();
    let resolver = Resolver::launch();
    println!("with nothing: {}", memory(resolver.pid()));
    let network = Id::random();
    let guest = Guest::new(network, "asks", 1);
    guest.put(&resolver);
    let start = Instant::now();
    for number in 0..1000 {
        let mut other = Guest::new(network, &format!("container-{number}"), 2);
        other.namespace = guest.namespace.clone();
        (other.sockets, other.udp, other.tcp) = guest.namespace.sockets(0);
        other.put(&resolver);
    }
    println!("1,000 containers, with their namespaces, in {:?}", start.elapsed());
    println!("with 1,000 containers: {}", memory(resolver.pid()));
    let socket = guest.namespace.inside(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    socket.connect(guest.udp).unwrap();
    let question = query("container-500", A);
    let mut buffer = [0; 512];
    let mut times: Vec<Duration> = (0..COUNT)
        .map(|_| {
            let start = Instant::now();
            socket.send(&question).unwrap();
            socket.recv(&mut buffer).unwrap();
            start.elapsed()
        })
        .collect();
    let all: Duration = times.iter().sum();
    times.sort();
    println!(
        "one after the other: {:.0} answers a second; half within {:?}, 99 of 100 within {:?}",
        f64::from(COUNT) / all.as_secs_f64(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
    let start = Instant::now();
    for _ in 0..COUNT / AT_ONCE {
        for _ in 0..AT_ONCE {
            socket.send(&question).unwrap();
        }
        for _ in 0..AT_ONCE {
            socket.recv(&mut buffer).unwrap();
        }
    }
    let per_second = f64::from(COUNT) / start.elapsed().as_secs_f64();
    println!("{AT_ONCE} at once: {per_second:.0} answers a second");
    println!("afterwards: {}", memory(resolver.pid()));
    ExitCode::SUCCESS
}

const COUNT: u32 = 20_000;
const AT_ONCE: u32 = 50;

/// What the process alone has, and what it shares with others of the same program.
fn memory(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let wanted = ["Rss:", "Pss:", "Private_Dirty:"];
    let lines = text.lines().filter(|line| wanted.iter().any(|word| line.starts_with(word)));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}
