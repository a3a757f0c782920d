//! `--network` and its kin of `run`: which networks, and what is asked for there.

use std::collections::BTreeMap;

use bulkhead_docker_types::{EndpointIpam, EndpointSettings, NetworkingConfig};

use super::RunArguments;
use crate::failure::Failure;

/// The network mode, which is the first network, and what is asked for on each.
pub fn networks(arguments: &RunArguments) -> Result<(String, NetworkingConfig), Failure> {
    let mut all = Vec::new();
    for flag in &arguments.network {
        let (name, settings) = network(flag)?;
        if all.iter().any(|(other, _)| *other == name) {
            return Err(Failure::new(format!("network {name} is named twice; name it once")));
        }
        all.push((name, settings));
    }
    if all.is_empty() {
        all.push(("default".to_owned(), EndpointSettings::default()));
    }
    let mode = all[0].0.clone();
    // The flags of their own are the first network's.
    let first = &mut all[0].1;
    first.aliases.extend(arguments.network_alias.iter().cloned());
    let link_local = arguments.link_local_ip.clone();
    if let Some(own) = addresses(arguments.ip.clone(), arguments.ip6.clone(), link_local) {
        if first.ipam_config.is_some() {
            return Err(Failure::new(
                "--ip, --ip6 and --link-local-ip contradict the addresses in --network",
            ));
        }
        first.ipam_config = Some(own);
    }
    if let Some(mac) = &arguments.mac_address {
        first.mac_address.clone_from(mac);
    }
    // Links of the default bridge are the container's, those of others their network's.
    if !is_builtin(&mode) {
        first.links.extend(arguments.link.iter().cloned());
    }
    let asks = all.len() > 1 || all[0].1 != EndpointSettings::default();
    let endpoints_config = match asks {
        true => all.into_iter().map(|(name, settings)| (name, Some(settings))).collect(),
        false => BTreeMap::new(),
    };
    Ok((mode, NetworkingConfig { endpoints_config }))
}

pub fn is_builtin(mode: &str) -> bool {
    matches!(mode, "" | "default" | "bridge" | "host" | "none") || mode.starts_with("container:")
}

/// `NAME`, or `name=NAME,alias=A,ip=…,ip6=…,link-local-ip=…,mac-address=…,driver-opt=K=V,gw-priority=N`.
fn network(flag: &str) -> Result<(String, EndpointSettings), Failure> {
    let mut settings = EndpointSettings::default();
    if !flag.contains('=') {
        return Ok((flag.to_owned(), settings));
    }
    let wrong = |why: &str| Failure::new(format!("invalid --network {flag:?}: {why}"));
    let (mut name, mut ip, mut ip6) = (String::new(), None, None);
    let mut link_local = Vec::new();
    for field in flag.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| wrong(&format!("{field} has no value")))?;
        match key {
            "name" => value.clone_into(&mut name),
            "alias" => settings.aliases.push(value.to_owned()),
            "ip" => ip = Some(value.to_owned()),
            "ip6" => ip6 = Some(value.to_owned()),
            "link-local-ip" => link_local.push(value.to_owned()),
            "mac-address" => value.clone_into(&mut settings.mac_address),
            "driver-opt" => {
                let (option, value) = value.split_once('=').unwrap_or((value, ""));
                settings.driver_opts.insert(option.to_owned(), value.to_owned());
            }
            "gw-priority" => {
                settings.gw_priority =
                    value.parse().map_err(|_| wrong("gw-priority is no number"))?;
            }
            _ => return Err(wrong(&format!("there is no field {key}"))),
        }
    }
    if name.is_empty() {
        return Err(wrong("name=NETWORK is missing"));
    }
    settings.ipam_config = addresses(ip, ip6, link_local);
    Ok((name, settings))
}

pub fn addresses(
    ip: Option<String>,
    ip6: Option<String>,
    link_local_ips: Vec<String>,
) -> Option<EndpointIpam> {
    let asked = ip.is_some() || ip6.is_some() || !link_local_ips.is_empty();
    asked.then(|| EndpointIpam {
        ipv4_address: ip.unwrap_or_default(),
        ipv6_address: ip6.unwrap_or_default(),
        link_local_ips,
    })
}

/// `NAME=VALUE` flags.
pub fn pairs(flags: &[String]) -> BTreeMap<String, String> {
    let pair = |flag: &String| {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        (name.to_owned(), value.to_owned())
    };
    flags.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        arguments: RunArguments,
    }

    fn read(line: &str) -> Result<(String, NetworkingConfig), Failure> {
        networks(&Line::try_parse_from(line.split(' ')).expect("it parses").arguments)
    }

    #[test]
    fn networks_are_read_as_docker_reads_them() {
        assert_eq!(
            read("run box").expect("valid"),
            ("default".into(), NetworkingConfig::default())
        );
        let (mode, config) = read("run --network host box").expect("valid");
        assert_eq!((mode.as_str(), config.endpoints_config.len()), ("host", 0));
        let (mode, config) = read(
            "run --network name=web,alias=a,ip=10.0.0.9,gw-priority=2,driver-opt=k=v --network back \
             --network-alias b --link db:store --mac-address 02:42:0a:00:00:09 box",
        )
        .expect("valid");
        assert_eq!(mode, "web");
        let web = config.endpoints_config["web"].clone().expect("it asks");
        assert_eq!((web.aliases, web.gw_priority), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert_eq!(web.links, ["db:store"]);
        assert_eq!(web.mac_address, "02:42:0a:00:00:09");
        assert_eq!(web.driver_opts["k"], "v");
        assert_eq!(web.ipam_config.expect("an address").ipv4_address, "10.0.0.9");
        assert!(config.endpoints_config.contains_key("back"));
        for (line, part) in [
            ("run --network alias=a box", "name=NETWORK is missing"),
            ("run --network name=a,bogus=1 box", "no field bogus"),
            ("run --network name=a,gw-priority=x box", "no number"),
            ("run --network name=a,ip=10.0.0.1 --ip 10.0.0.2 box", "contradict"),
            ("run --network a --network a box", "named twice"),
        ] {
            let error = read(line).expect_err(part);
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
}
