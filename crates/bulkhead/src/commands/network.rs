//! `bulkhead network …`: networks of the user's own.

use bulkhead_docker_types::{
    EndpointSettings, Ipam, IpamPool, NetworkConnect, NetworkCreate, NetworkDisconnect,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::prune::{self, PruneArguments};
use super::run::endpoint;
use super::show::{self, each, text};
use super::{filter, inspect, several};
use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Create a network
    Create(CreateArguments),
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match, such as `name=web` or `label=tier=front`
        #[arg(short, long)]
        filter: Vec<String>,
        /// A Go template, or `json`
        #[arg(long)]
        format: Option<String>,
        /// Show whole ids
        #[arg(long)]
        no_trunc: bool,
        /// Show ids alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show all that is known of one or more networks
    Inspect {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        /// Accepted for scripts of Docker's: it asks for a swarm's services
        #[arg(short, long)]
        verbose: bool,
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Do not complain about networks that are not there
        #[arg(short, long)]
        force: bool,
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Connect a container to a network, while it runs or for its next start
    Connect(ConnectArguments),
    /// Take a container off a network
    Disconnect {
        /// Accepted for scripts of Docker's: there is nothing to force
        #[arg(short, long)]
        force: bool,
        network: String,
        container: String,
    },
    /// Remove all networks that no running container is on
    Prune(PruneArguments),
}

#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Let containers be attached by hand; all networks do, so this is only repeated
    #[arg(long)]
    attachable: bool,
    /// Another machine's address, as NAME=ADDRESS: no container gets it
    #[arg(long)]
    aux_address: Vec<String>,
    /// What makes the network: bridge, macvlan or ipvlan (on an interface of the host, by -o parent=NAME)
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// The gateway of a subnet
    #[arg(long)]
    gateway: Vec<String>,
    /// No way out of this host
    #[arg(long)]
    internal: bool,
    /// Draw containers' addresses from this part of a subnet
    #[arg(long)]
    ip_range: Vec<String>,
    /// What gives out addresses: default
    #[arg(long, default_value = "default")]
    ipam_driver: String,
    /// An option of what gives out addresses, as NAME=VALUE
    #[arg(long)]
    ipam_opt: Vec<String>,
    /// Give containers IPv4 addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Give containers IPv6 addresses; where no subnet is named they get local ones unless this is false
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// A label, as NAME=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// An option of the driver, such as com.docker.network.driver.mtu=1400
    #[arg(short, long)]
    opt: Vec<String>,
    /// The addresses of the network, such as 10.20.0.0/16; one for IPv4 and one for IPv6
    #[arg(long)]
    subnet: Vec<String>,
    name: String,
}

#[derive(Debug, Args)]
pub struct ConnectArguments {
    /// A further name of the container on this network
    #[arg(long)]
    alias: Vec<String>,
    /// An option of the endpoint, such as com.docker.network.endpoint.ifname=web0
    #[arg(long)]
    driver_opt: Vec<String>,
    /// The network of the highest has the default route
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i64,
    /// The container's IPv4 address
    #[arg(long)]
    ip: Option<String>,
    /// The container's IPv6 address
    #[arg(long)]
    ip6: Option<String>,
    /// Another container and what this one is to call it, as NAME:ALIAS
    #[arg(long)]
    link: Vec<String>,
    /// A further address of the container, for talking to neighbours alone, such as 169.254.8.8
    #[arg(long)]
    link_local_ip: Vec<String>,
    network: String,
    container: String,
}

pub async fn run(client: &Client, command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create(arguments) => {
            let made = client.post("/networks/create", Some(&json!(creation(arguments)?))).await?;
            println!("{}", text(&made["Id"]));
            Ok(())
        }
        NetworkCommand::Ls { filter, format, no_trunc, quiet } => {
            list(client, &filter, format.as_deref(), no_trunc, quiet).await
        }
        NetworkCommand::Inspect { format, networks, .. } => {
            inspect::only(client, inspect::Kind::Network, format.as_deref(), &networks).await
        }
        NetworkCommand::Rm { force, networks } => remove(client, force, &networks).await,
        NetworkCommand::Connect(arguments) => {
            let ConnectArguments {
                alias,
                driver_opt,
                gw_priority,
                ip,
                ip6,
                link,
                link_local_ip,
                network,
                container,
            } = arguments;
            let settings = EndpointSettings {
                aliases: alias,
                links: link,
                driver_opts: endpoint::pairs(&driver_opt),
                gw_priority,
                ipam_config: endpoint::addresses(ip, ip6, link_local_ip),
                ..EndpointSettings::default()
            };
            let body = NetworkConnect { container, endpoint_config: Some(settings) };
            let path = format!("/networks/{}/connect", encode(&network));
            client.post(&path, Some(&json!(body))).await.map(drop)
        }
        NetworkCommand::Disconnect { force, network, container } => {
            let path = format!("/networks/{}/disconnect", encode(&network));
            let body = NetworkDisconnect { container, force };
            client.post(&path, Some(&json!(body))).await.map(drop)
        }
        NetworkCommand::Prune(arguments) => prune::networks(client, arguments).await,
    }
}

/// Puts each gateway, range and auxiliary address to the subnet that holds it, as the CLI of Docker
/// does; where there is one subnet, the engine says what does not fit.
fn creation(arguments: CreateArguments) -> Result<NetworkCreate, Failure> {
    let mut pools: Vec<IpamPool> = arguments
        .subnet
        .into_iter()
        .map(|subnet| IpamPool { subnet, ..IpamPool::default() })
        .collect();
    for gateway in arguments.gateway {
        let pool = pool_of(&mut pools, &gateway)?;
        pool.gateway = gateway;
    }
    for range in arguments.ip_range {
        let pool = pool_of(&mut pools, &range)?;
        pool.ip_range = range;
    }
    for (name, address) in endpoint::pairs(&arguments.aux_address) {
        let pool = pool_of(&mut pools, &address)?;
        pool.auxiliary_addresses.insert(name, address);
    }
    Ok(NetworkCreate {
        name: arguments.name,
        driver: arguments.driver,
        internal: arguments.internal,
        attachable: arguments.attachable,
        enable_ipv4: arguments.ipv4,
        enable_ipv6: arguments.ipv6,
        ipam: Some(Ipam {
            driver: arguments.ipam_driver,
            config: pools,
            options: endpoint::pairs(&arguments.ipam_opt),
        }),
        options: endpoint::pairs(&arguments.opt),
        labels: endpoint::pairs(&arguments.label),
        ..NetworkCreate::default()
    })
}

/// The subnet of the address's family.
fn pool_of<'a>(pools: &'a mut [IpamPool], address: &str) -> Result<&'a mut IpamPool, Failure> {
    let is_ipv6 = address.contains(':');
    pools.iter_mut().find(|pool| pool.subnet.contains(':') == is_ipv6).ok_or_else(|| {
        Failure::new(format!(
            "no subnet of its family is given for {address}: name it with --subnet"
        ))
    })
}

pub const NETWORKS: Kind = Kind {
    fields: &[
        ("CreatedAt", "CREATED AT"),
        ("Driver", "DRIVER"),
        ("ID", "NETWORK ID"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("Name", "NAME"),
        ("Scope", "SCOPE"),
    ],
    table: "{{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}",
};

async fn list(
    client: &Client,
    filters: &[String],
    format: Option<&str>,
    no_trunc: bool,
    quiet: bool,
) -> Result<(), Failure> {
    let networks = client.get(&format!("/networks?{}", filter::query(filters)?)).await?;
    let mut networks: Vec<&Value> = each(&networks).collect();
    networks
        .sort_by(|one, other| super::ports::natural(&text(&one["Name"]), &text(&other["Name"])));
    let id = |network: &Value| show::id(&text(&network["Id"]), no_trunc);
    let rows = networks.iter().map(|network| row(network, id(network))).collect();
    rows::print(&NETWORKS, Show::of(quiet, "ID", format), rows)
}

/// What a template sees of a network, all of it text (docker/cli: cli/command/formatter/network.go).
fn row(network: &Value, id: String) -> Value {
    let flag = |name: &str| network[name].as_bool().unwrap_or_default().to_string();
    json!({
        "CreatedAt": created(&text(&network["Created"])),
        "Driver": text(&network["Driver"]),
        "ID": id,
        "IPv4": flag("EnableIPv4"),
        "IPv6": flag("EnableIPv6"),
        "Internal": flag("Internal"),
        "Labels": show::labels(&network["Labels"]),
        "Name": text(&network["Name"]),
        "Scope": text(&network["Scope"]),
        rows::LABELS: network["Labels"],
    })
}

/// A moment as Go prints it: `2026-11-30 15:04:05.123456789 +0000 UTC`.
fn created(text: &str) -> String {
    match text.parse::<bulkhead_types::Timestamp>() {
        Err(_) => text.to_owned(),
        Ok(at) => {
            let nanoseconds = format!(".{:09}", at.subsec_nanosecond());
            let fraction = nanoseconds.trim_end_matches('0').trim_end_matches('.');
            let at = at.to_zoned(bulkhead_types::TimeZone::UTC);
            format!("{}{fraction} +0000 UTC", at.strftime("%Y-%m-%d %H:%M:%S"))
        }
    }
}

async fn remove(client: &Client, force: bool, names: &[String]) -> Result<(), Failure> {
    several::all(names, async |name| {
        match client.delete(&format!("/networks/{}", encode(name))).await {
            Ok(_) => Ok(name.to_owned()),
            Err(failure) if force && failure.status == Some(404) => Ok(String::new()),
            Err(failure) => Err(failure),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: CreateArguments,
    }

    fn read(line: &str) -> Result<NetworkCreate, Failure> {
        creation(Line::try_parse_from(line.split(' ')).expect("it parses").arguments)
    }

    #[test]
    fn addresses_go_to_the_subnet_of_their_family() {
        let made = read(
            "create --subnet 10.0.0.0/16 --subnet fd00::/64 --gateway fd00::9 --gateway 10.0.0.9 \
             --ip-range 10.0.5.0/24 --aux-address router=10.0.0.8 --ipv6 --ipv4=false web",
        )
        .expect("valid");
        let ipam = made.ipam.expect("it is there");
        assert_eq!(ipam.config[0].gateway, "10.0.0.9");
        assert_eq!(ipam.config[0].ip_range, "10.0.5.0/24");
        assert_eq!(ipam.config[0].auxiliary_addresses["router"], "10.0.0.8");
        assert_eq!(ipam.config[1].gateway, "fd00::9");
        assert_eq!((made.enable_ipv4, made.enable_ipv6), (Some(false), Some(true)));
        let error = read("create --gateway 10.0.0.1 web").expect_err("no subnet");
        assert!(error.message.contains("--subnet"), "{}", error.message);
    }

    #[test]
    fn a_row_is_all_text() {
        let network = json!({
            "Name": "front", "Driver": "bridge", "EnableIPv4": true, "Labels": {"a": "1", "b": ""},
        });
        let row = row(&network, "0123".to_owned());
        let fields = row.as_object().unwrap().iter().filter(|(name, _)| *name != rows::LABELS);
        assert!(fields.clone().all(|(_, value)| value.is_string()), "{row}");
        assert_eq!(fields.count(), NETWORKS.fields.len());
        assert_eq!((&row["IPv4"], &row["Internal"]), (&json!("true"), &json!("false")));
        assert_eq!(row["Labels"], "a=1,b=");
    }
}
