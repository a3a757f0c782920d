//! Networks beside Docker's: making and removing them, running on them, Compose, what passes through
//! them, names, and many published ports.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::probe::Figures;
use super::side_by_side::{Engines, Mark, Operation, Way, print_head};
use super::{median, milliseconds};
use crate::setup;

const IMAGE: &str = "bulkhead-bench-net";
const NETWORK: &str = "benchnet";
const SERVER: &str = "benchserver";
const CLIENT: &str = "benchclient";
/// Where the probe listens in a container.
const PORT: u16 = 5201;
/// Where Docker's and Bulkhead's servers are published.
const PUBLISHED: [u16; 2] = [5211, 5212];
/// The link between the engines' host and the one outside: documentation addresses (RFC 5737).
const HOST: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";
const ROUNDS: usize = 5;
const MANY_PORTS: u16 = 5000;

/// `bench network [RUNS]`: each operation by each client, in turns, 15 of each unless it is said.
pub fn run(arguments: &[&str]) -> Result<()> {
    let runs: usize =
        arguments.first().map_or(Ok(15), |runs| runs.parse()).context("the number of runs")?;
    ensure!(runs >= 5, "fewer than 5 runs say nothing");
    setup::packages(&[("/usr/bin/dnsperf", "dnsperf"), ("/usr/bin/busybox", "busybox-static")])?;
    Engines::with(|engines| {
        let measured = prepare(engines)
            .and_then(|()| operations(engines, runs))
            .and_then(|()| compose(engines, runs.div_ceil(3)))
            .and_then(|()| transfers(engines))
            .and_then(|()| names(engines))
            .and_then(|()| ports(engines));
        for line in [
            format!("rm -f {SERVER} {CLIENT}"),
            format!("network rm {NETWORK}"),
            format!("rmi {IMAGE}"),
        ] {
            let _ = engines.ways[0].command(&line).output();
        }
        measured
    })
}

/// The image with the probe, a network and a server on it, on both engines.
fn prepare(engines: &Engines) -> Result<()> {
    let tree = engines.place.join("tree");
    std::fs::create_dir_all(tree.join("bin"))?;
    for program in ["busybox", "true", "sleep"] {
        std::fs::copy("/usr/bin/busybox", tree.join("bin").join(program))?;
    }
    std::fs::copy(std::env::current_exe()?, tree.join("probe"))?;
    let tar = engines.place.join("tree.tar");
    let (from, to) = (tree.display(), tar.display());
    engines.shell.run(&format!("tar -C {from} -cf {to} ."))?;
    for (way, published) in engines.by_docker().iter().zip(PUBLISHED) {
        way.run(&format!("import {to} {IMAGE}"), 1)?;
        let _ = way.command(&format!("rm -f {SERVER} {CLIENT}")).output();
        let _ = way.command(&format!("network rm {NETWORK}")).output();
        way.run(&format!("network create {NETWORK}"), 1)?;
        way.run(
            &format!(
                "run -d --name {SERVER} --network {NETWORK} -p {published}:{PORT} {IMAGE} \
                 /probe bench probe serve 0.0.0.0:{PORT}"
            ),
            1,
        )?;
        way.run(
            &format!("run -d --name {CLIENT} --network {NETWORK} {IMAGE} /bin/sleep 100000"),
            1,
        )?;
    }
    Ok(())
}

fn operations(engines: &Engines, runs: usize) -> Result<()> {
    print_head("User networks");
    let mark = [Mark::Ratio(5.0), Mark::None];
    let run = format!("run --rm --network {NETWORK} {IMAGE} /bin/true");
    for operation in [
        Operation::new(
            "network create, rm",
            &["network create benchother", "network rm benchother"],
            runs,
            mark,
        ),
        Operation::new("run --rm on a network", &[&run], runs, mark),
        Operation {
            before: vec!["network create benchother".to_owned()],
            after: vec!["network rm benchother".to_owned()],
            ..Operation::new(
                "connect, disconnect",
                &[
                    &format!("network connect benchother {CLIENT}"),
                    &format!("network disconnect benchother {CLIENT}"),
                ],
                runs,
                [Mark::None, Mark::None],
            )
        },
    ] {
        engines.compare(&operation, &engines.ways)?;
    }
    Ok(())
}

/// Five services with health checks on two networks with three volumes.
fn compose(engines: &Engines, runs: usize) -> Result<()> {
    let plugin = engines.shell.ask(&format!(
        "find {}/usr/libexec/docker/cli-plugins -name docker-compose",
        peers_root().display()
    ))?;
    let plugin = PathBuf::from(plugin.output.trim());
    ensure!(plugin.exists(), "the peers have no docker-compose");
    let file = engines.place.join("compose.yaml");
    std::fs::write(&file, five_services())?;
    let ways = [
        engines.ways[0].by("compose → Docker", &plugin),
        engines.ways[1].by("compose → Bulkhead", &plugin),
    ];
    let line = |verb: &str| format!("--progress quiet -f {} {verb}", file.display());
    let (up, down) = (line("up -d"), line("down -v"));
    print_head("Compose: five services with health checks, two networks, three volumes");
    let marks = [Mark::Ratio(3.0), Mark::None];
    let first =
        Operation { after: vec![down.clone()], ..Operation::new("up -d", &[&up], runs, marks) };
    engines.compare(&first, &ways)?;
    let second = Operation { before: vec![up], ..Operation::new("down -v", &[&down], runs, marks) };
    engines.compare(&second, &ways)
}

fn five_services() -> String {
    let mut text = String::from("name: benchfive\nservices:\n");
    let services = [
        ("proxy", "[front]", ""),
        ("app", "[front, back]", "\n    volumes: [\"app:/data\"]"),
        ("worker", "[back]", ""),
        ("cache", "[back]", "\n    volumes: [\"cache:/data\"]"),
        ("db", "[back]", "\n    volumes: [\"db:/data\"]"),
    ];
    for (name, networks, volumes) in services {
        let _ = write!(
            text,
            "  {name}:\n    image: {IMAGE}\n    command: [\"/bin/sleep\", \"100000\"]\n    \
             stop_signal: SIGKILL\n    networks: {networks}{volumes}\n    healthcheck:\n      \
             test: [\"CMD\", \"/bin/true\"]\n      interval: 1s\n"
        );
    }
    text + "networks:\n  front: {}\n  back: {}\nvolumes:\n  app: {}\n  cache: {}\n  db: {}\n"
}

fn peers_root() -> PathBuf {
    std::env::var_os("PEERS_DIR").map_or_else(|| "/var/tmp/peers".into(), PathBuf::from)
}

/// A process that is ended with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Throughput and there-and-back times, in turns, beside a plain pair of links.
fn transfers(engines: &Engines) -> Result<()> {
    let (host, outside) = (&engines.netns, format!("{}-out", engines.netns));
    let link = |line: &str| engines.shell.run(line);
    link(&format!(
        "ip netns add {outside} && ip -n {host} link add bhout0 type veth peer name eth0 netns {outside} \
         && ip -n {host} addr add {HOST}/30 dev bhout0 && ip -n {host} link set bhout0 up \
         && ip -n {outside} addr add {OUTSIDE}/30 dev eth0 && ip -n {outside} link set eth0 up \
         && ip -n {outside} link set lo up"
    ))?;
    let measured = transfers_between(engines, &outside);
    link(&format!("ip netns delete {outside}"))?;
    measured
}

fn transfers_between(engines: &Engines, outside: &str) -> Result<()> {
    let probe = std::env::current_exe()?;
    let within = |netns: &str, arguments: &[&str]| {
        let mut command = engines.shell.command("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).arg(&probe).args(["bench", "probe"]);
        command.args(arguments).stdin(Stdio::null());
        command
    };
    let plain = format!("{OUTSIDE}:{PORT}");
    let _server = Ended(within(outside, &["serve", &plain]).spawn()?);
    wait_for(&engines.netns, &plain)?;
    let call = |netns: &str, address: &str| -> Result<Figures> {
        let said = within(netns, &["call", address, "2"]).output()?;
        ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        Figures::parse(&String::from_utf8_lossy(&said.stdout))
    };
    let from_container = |way: &Way, address: &str| -> Result<Figures> {
        let line =
            format!("run --rm --network {NETWORK} {IMAGE} /probe bench probe call {address} 2");
        Figures::parse(&way.ask(&line)?)
    };
    let mut rows: Vec<(String, Vec<Figures>)> = vec![("a plain veth pair".into(), Vec::new())];
    let mut paths = Vec::new();
    for (way, published) in engines.by_docker().iter().zip(PUBLISHED) {
        let format = format!("{{{{.NetworkSettings.Networks.{NETWORK}.IPAddress}}}}");
        let address = way.ask(&format!("inspect --format {format} {SERVER}"))?;
        let engine = way.name.trim_start_matches("docker → ");
        for what in ["container to container", "host to container", "by a published port"] {
            rows.push((format!("{what}, {engine}"), Vec::new()));
        }
        paths.push((way, format!("{address}:{PORT}"), format!("{HOST}:{published}")));
    }
    for _ in 0..ROUNDS {
        let mut figures = vec![call(&engines.netns, &plain)?];
        for (way, address, published) in &paths {
            figures.push(from_container(way, address)?);
            figures.push(call(&engines.netns, address)?);
            figures.push(call(outside, published)?);
        }
        rows.iter_mut().zip(figures).for_each(|((_, all), figure)| all.push(figure));
    }
    println!(
        "\nOne TCP connection, medians of {ROUNDS} rounds in turns; ratios are to the plain pair\n"
    );
    println!("{:<40}{:>12}{:>9}{:>14}{:>9}", "", "Gbit/s", "ratio", "there-back µs", "ratio");
    let mut base = None;
    for (what, figures) in rows {
        let mut rates: Vec<u64> = figures.iter().map(|figure| figure.bytes_a_second).collect();
        rates.sort_unstable();
        let rate = rates[rates.len() / 2] as f64 * 8e-9;
        let mut times: Vec<Duration> = figures.iter().map(|figure| figure.there_and_back).collect();
        let time = median(&mut times).as_secs_f64() * 1e6;
        let (base_rate, base_time) = *base.get_or_insert((rate, time));
        let (rates, times) = (rate / base_rate, base_time / time);
        println!("{what:<40}{rate:>12.2}{rates:>8.2}×{time:>14.1}{times:>8.2}×");
    }
    Ok(())
}

/// Waits until something listens: it has been started a moment ago.
fn wait_for(netns: &str, address: &str) -> Result<()> {
    let (host, port) = address.split_once(':').context("an address with its port")?;
    let line = format!(
        "nsenter --net=/run/netns/{netns} timeout 10 \
         sh -c 'until busybox nc -w 1 {host} {port} </dev/null; do :; done'"
    );
    let said = crate::shell::Shell::default().ask(&line)?;
    ensure!(said.success, "nothing listens on {address}: {}", said.output);
    Ok(())
}

/// Answers a second of each engine's resolver for a container's name.
fn names(engines: &Engines) -> Result<()> {
    let file = engines.place.join("queries");
    std::fs::write(&file, format!("{SERVER} A\n"))?;
    println!(
        "\nAnswers for a container's name, by dnsperf with 20 clients; medians of {ROUNDS} rounds in turns\n"
    );
    let ways = engines.by_docker();
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, rates) in ways.iter().zip(&mut rates) {
            let pid = way.ask(&format!("inspect --format {{{{.State.Pid}}}} {CLIENT}"))?;
            let said = engines.shell.ask(&format!(
                "nsenter --net=/proc/{pid}/ns/net dnsperf -s 127.0.0.11 -d {} -l 2 -c 20",
                file.display()
            ))?;
            let word = |label: &str| {
                let line = said.output.lines().find_map(|line| line.trim().strip_prefix(label));
                line.and_then(|rest| rest.split_ascii_whitespace().next().map(str::to_owned))
            };
            let lost = word("Queries lost:").context("dnsperf says how many were lost")?;
            let rate = word("Queries per second:").context("dnsperf says a rate")?;
            rates.push((rate.parse::<f64>()?, lost.parse::<u64>()?));
        }
    }
    for (way, mut rates) in ways.iter().zip(rates) {
        let lost: u64 = rates.iter().map(|(_, lost)| lost).sum();
        rates.sort_by(|one, other| one.0.total_cmp(&other.0));
        println!("{:<24}{:>10.0} a second, {lost} lost", way.name, rates[rates.len() / 2].0);
    }
    Ok(())
}

/// What one more published port costs beside 5,000. Bulkhead alone: Docker starts a process for each.
fn ports(engines: &Engines) -> Result<()> {
    let way = &engines.ways[2];
    let one = format!("run --rm -p 30001:80 {IMAGE} /bin/true");
    let times = || -> Result<Duration> {
        let mut times = Vec::new();
        for _ in 0..=ROUNDS * 3 {
            let before = std::time::Instant::now();
            way.run(&one, 1)?;
            times.push(before.elapsed());
        }
        Ok(median(&mut times))
    };
    let first = times()?;
    let last = 20_000 + MANY_PORTS - 1;
    let before = std::time::Instant::now();
    way.run(
        &format!("run -d --name benchports -p 20000-{last}:20000-{last} {IMAGE} /bin/sleep 9999"),
        1,
    )?;
    let all = before.elapsed();
    let next = times()?;
    way.run("rm -f benchports", 1)?;
    println!(
        "\nrun --rm -p, alone {:.1} ms, beside {MANY_PORTS} published ports {:.1} ms: {:.2} × (a container with all of them: {:.0} ms)",
        milliseconds(first),
        milliseconds(next),
        next.div_duration_f64(first),
        milliseconds(all),
    );
    Ok(())
}
