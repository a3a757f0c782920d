//! `bulkhead netns`: what `ip netns` does, on the same `/var/run/netns`, and what it does not.

mod page;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;

use bulkhead_network::named::{self, PairAddresses};
use bulkhead_network::{NetworkError, view};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::several;
use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::table;

#[derive(Debug, Subcommand)]
pub enum NetnsCommand {
    /// Create a network namespace
    Add {
        /// Bring its loopback up, too
        #[arg(long)]
        up: bool,
        name: String,
    },
    /// Remove names of network namespaces; one goes when its last process has
    #[command(visible_alias = "del")]
    Delete {
        /// All of them
        #[arg(short, long, conflicts_with = "names")]
        all: bool,
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
    },
    /// List the names
    #[command(visible_alias = "list")]
    Ls {
        /// `text` or `json`
        #[arg(long, default_value = "text")]
        format: String,
    },
    /// Run a command in a network namespace
    Exec {
        name: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Print the names of a process's network namespace
    Identify {
        /// The process [default: this one]
        pid: Option<u32>,
    },
    /// Print the processes in a network namespace
    Pids { name: String },
    /// Give a network namespace a number, by which this one knows it
    Set {
        name: String,
        /// The number, or `auto` for one that is free
        id: String,
    },
    /// Give a running container's or a process's network namespace a name: CONTAINER [NAME], or NAME PID
    ///
    /// Without a name it is the container's own.
    Attach { container: String, name: Option<String> },
    /// Show names that come and go, as they do
    Monitor,
    /// Make a pair of links, one here and one in a network namespace, both up
    Veth(VethArguments),
    /// Show links, addresses, routes, neighbours, sockets and firewall of a network namespace
    ///
    /// Without a name it lists the names.
    Show {
        /// `text` or `json`
        #[arg(long, default_value = "text")]
        format: String,
        /// A name of `netns ls`, or a running container
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct VethArguments {
    /// Where the second link goes
    #[arg(long, value_name = "NAME")]
    to: String,
    /// An address with its prefix, such as 10.1.0.1/24, of the first link; said again, of the second,
    /// which else gets the next address of the subnet
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    addr: Vec<String>,
    /// The link here
    here: String,
    /// The link there
    there: String,
}

pub async fn run(client: &Client, command: NetnsCommand) -> Result<(), Failure> {
    let root = |verb: &str| crate::host::require_root(&format!("netns {verb}"));
    match command {
        NetnsCommand::Add { up, name } => {
            root("add")?;
            named::add(&name).map_err(failed)?;
            match up {
                true => named::bring_up(&name).map_err(failed),
                false => {
                    eprintln!(
                        "lo in {name} is down: `bulkhead netns exec {name} ip link set lo up` brings it up, as --up does"
                    );
                    Ok(())
                }
            }
        }
        NetnsCommand::Delete { all, names } => {
            root("delete")?;
            let names = match all {
                true => named::list().map_err(failed)?.into_iter().map(|(name, _)| name).collect(),
                false => names,
            };
            let delete =
                async |name: &str| named::delete(name).map_err(failed).map(|()| String::new());
            several::all(&names, delete).await
        }
        NetnsCommand::Ls { format } => list(&format),
        NetnsCommand::Show { format, name: None } => list(&format),
        NetnsCommand::Show { format, name: Some(name) } => show(client, &format, &name).await,
        NetnsCommand::Exec { name, command } => {
            root("exec")?;
            named::enter(&name).map_err(failed)?;
            let cause = std::process::Command::new(&command[0]).args(&command[1..]).exec();
            let code = if cause.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            Err(Failure::new(format!("cannot run {}: {cause}", command[0].display()))
                .with_code(code))
        }
        NetnsCommand::Identify { pid } => {
            let names = named::identify(pid.unwrap_or_else(std::process::id)).map_err(failed)?;
            table::show(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
            Ok(())
        }
        NetnsCommand::Pids { name } => {
            let pids = named::pids(&name).map_err(failed)?;
            table::show(&pids.iter().map(|pid| format!("{pid}\n")).collect::<String>());
            Ok(())
        }
        NetnsCommand::Set { name, id } => {
            root("set")?;
            let number = match id.as_str() {
                "auto" => None,
                number => Some(number.parse::<u16>().map(i32::from).map_err(|_| {
                    Failure::new(format!(
                        "{number:?} is no number: give one from 0 to 65535, or auto"
                    ))
                })?),
            };
            named::set(&name, number).map_err(failed)
        }
        NetnsCommand::Attach { container, name } => {
            attach(client, &container, name.as_deref()).await
        }
        NetnsCommand::Monitor => {
            let told = |change| {
                let line = match change {
                    named::Change::Added(name) => format!("add {name}\n"),
                    named::Change::Deleted(name) => format!("delete {name}\n"),
                };
                let mut stdout = std::io::stdout();
                stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_ok()
            };
            named::monitor(told).map_err(failed)
        }
        NetnsCommand::Veth(arguments) => {
            root("veth")?;
            let VethArguments { to, addr, here, there } = arguments;
            let addresses = addresses(&addr)?;
            named::pair(&here, &there, &to, &addresses).map_err(failed)
        }
    }
}

fn failed(cause: NetworkError) -> Failure {
    Failure::new(cause.to_string())
}

fn list(format: &str) -> Result<(), Failure> {
    let names = named::list().map_err(failed)?;
    match format {
        "json" => {
            let list = names.iter().map(|(name, id)| json!({"name": name, "id": id}));
            table::show(&format!("{}\n", list.collect::<Value>()));
        }
        "text" => {
            let line = |(name, id): &(String, Option<i32>)| match id {
                Some(id) => format!("{name} (id: {id})\n"),
                None => format!("{name}\n"),
            };
            table::show(&names.iter().map(line).collect::<String>());
        }
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn unknown(format: &str) -> Failure {
    Failure::new(format!("unknown format {format:?}: use text or json"))
}

async fn attach(client: &Client, first: &str, second: Option<&str>) -> Result<(), Failure> {
    // as `ip netns attach NAME PID`
    if let Some(pid) = second.and_then(|pid| pid.parse::<u32>().ok()) {
        crate::host::require_root("netns attach")?;
        let netns = of_process(pid)?;
        return named::attach(first, std::os::fd::AsFd::as_fd(&netns)).map_err(failed);
    }
    let query = second.map(|name| format!("&name={}", encode(name))).unwrap_or_default();
    let path = format!("/bulkhead/netns/attach?container={}{query}", encode(first));
    client.post(&path, None).await.map(drop)
}

fn of_process(pid: u32) -> Result<OwnedFd, Failure> {
    std::fs::File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from).map_err(|cause| {
        Failure::new(format!("cannot open the network namespace of process {pid}: {cause}"))
    })
}

async fn show(client: &Client, format: &str, name: &str) -> Result<(), Failure> {
    let netns = match named::open(name) {
        Ok(netns) => netns,
        Err(NetworkError::NoSuchNamespace(_)) => of_container(client, name).await?,
        Err(cause) => return Err(failed(cause)),
    };
    let seen = view::view(std::os::fd::AsFd::as_fd(&netns)).map_err(failed)?;
    let shown = match format {
        "text" => page::text(name, &seen),
        "json" => {
            let json = serde_json::to_string_pretty(&page::json(name, &seen));
            json.map_err(|cause| Failure::new(cause.to_string()))? + "\n"
        }
        other => return Err(unknown(other)),
    };
    table::show(&shown);
    Ok(())
}

async fn of_container(client: &Client, name: &str) -> Result<OwnedFd, Failure> {
    let seen = client.get(&format!("/containers/{}/json", encode(name))).await.map_err(|failure| {
        match failure.lacks("container", "No such container") {
            true => Failure::new(format!(
                "there is no network namespace and no container {name:?}: `bulkhead netns ls` and `bulkhead ps` show them"
            )),
            false => failure,
        }
    })?;
    match seen["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) {
        None | Some(0) => Err(Failure::new(format!(
            "container {name} does not run, and has no network namespace: start it first"
        ))),
        Some(pid) => of_process(pid),
    }
}

/// The first address is the first link's, the second one the other's.
fn addresses(flags: &[String]) -> Result<PairAddresses, Failure> {
    let mut read = Vec::new();
    for flag in flags {
        let wrong = || {
            Failure::new(format!(
                "invalid address {flag:?}: write it with its prefix, as 10.1.0.1/24"
            ))
        };
        let (address, prefix) = flag.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(wrong)?;
        read.push((address, prefix));
    }
    match read.as_slice() {
        [] => Ok(PairAddresses::default()),
        [first] => {
            let there = next(*first).ok_or_else(|| {
                Failure::new(format!(
                    "{}/{} leaves no other address for the second link: give it one by --addr",
                    first.0, first.1
                ))
            })?;
            Ok(PairAddresses { here: vec![*first], there: vec![there] })
        }
        [first, second] => Ok(PairAddresses { here: vec![*first], there: vec![*second] }),
        _ => Err(Failure::new("--addr is said once for each of the two links")),
    }
}

/// The next address of the same subnet, or the one before where there is none, but neither the subnet's own
/// nor that of all in it.
fn next((address, prefix): (IpAddr, u8)) -> Option<(IpAddr, u8)> {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32_u8),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let mask = 1_u128.checked_shl(u32::from(width - prefix)).map_or(u128::MAX, |size| size - 1);
    let usable = |candidate: u128| {
        let host = candidate & mask;
        // two addresses are a link of two (RFC 3021)
        candidate & !mask == bits & !mask && (mask <= 1 || (host != 0 && host != mask))
    };
    let found =
        [bits.checked_add(1), bits.checked_sub(1)].into_iter().flatten().find(|it| usable(*it))?;
    let address = match width {
        32 => IpAddr::from(u32::try_from(found).ok()?.to_be_bytes()),
        _ => IpAddr::from(found.to_be_bytes()),
    };
    Some((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_get_addresses() {
        let read = |flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let text = |all: Vec<(IpAddr, u8)>| {
                all.iter()
                    .map(|(address, prefix)| format!("{address}/{prefix}"))
                    .collect::<String>()
            };
            addresses(&flags).map(|it| (text(it.here), text(it.there))).map_err(|it| it.message)
        };
        for (flags, here, there) in [
            (&[][..], "", ""),
            (&["10.1.0.1/24"], "10.1.0.1/24", "10.1.0.2/24"),
            (&["10.1.0.254/24"], "10.1.0.254/24", "10.1.0.253/24"),
            (&["10.1.0.0/31"], "10.1.0.0/31", "10.1.0.1/31"),
            (&["fd00::1/64"], "fd00::1/64", "fd00::2/64"),
            (&["10.1.0.1/24", "10.2.0.1/16"], "10.1.0.1/24", "10.2.0.1/16"),
        ] {
            assert_eq!(read(flags), Ok((here.to_owned(), there.to_owned())), "{flags:?}");
        }
        for wrong in [
            &["10.1.0.1"][..],
            &["10.1.0.1/33"],
            &["10.1.0.1/32"],
            &["a/8"],
            &["10.0.0.1/8", "10.0.0.2/8", "10.0.0.3/8"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
