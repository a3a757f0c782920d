//! `--link`: what a container is told about another one.

use std::net::Ipv4Addr;

use crate::Container;
use crate::extra_host::HostLine;

/// The line of `/etc/hosts` for a linked container.
pub(crate) fn host_line(alias: &str, target: &Container, address: Ipv4Addr) -> HostLine {
    let mut names = vec![alias.to_owned()];
    for name in [&target.config.hostname, &target.id.short(), target.name.as_str()] {
        if !name.is_empty() && !names.iter().any(|have| have == name) {
            names.push(name.to_owned());
        }
    }
    HostLine { address: address.to_string(), names }
}

/// The environment variables of a link (moby: daemon/links/links.go, `ToEnv`).
pub(crate) fn environment(
    child: &str,
    alias: &str,
    target: &Container,
    address: Ipv4Addr,
) -> Vec<String> {
    let prefix = alias.replace('-', "_").to_uppercase();
    let mut variables = Vec::new();
    let ports = &target.config.exposed_ports;
    // The default port: the lowest, tcp before udp.
    if let Some(port) = ports.iter().min() {
        let (number, protocol) = (port.number(), port.protocol());
        variables.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
    }
    for port in ports {
        let (port, protocol) = (port.number(), port.protocol());
        let port_prefix = format!("{prefix}_PORT_{port}_{}", protocol.name().to_uppercase());
        variables.push(format!("{port_prefix}={protocol}://{address}:{port}"));
        variables.push(format!("{port_prefix}_ADDR={address}"));
        variables.push(format!("{port_prefix}_PORT={port}"));
        variables.push(format!("{port_prefix}_PROTO={protocol}"));
    }
    variables.push(format!("{prefix}_NAME=/{child}/{alias}"));
    for variable in &target.config.env {
        match variable.split_once('=') {
            Some(("HOME" | "PATH", _)) | None => {}
            Some((key, value)) => variables.push(format!("{prefix}_ENV_{key}={value}")),
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_container_is_described_in_the_environment_and_in_hosts() {
        let mut target = crate::container::tests::container("db-1");
        target.config.exposed_ports =
            ["5432/tcp", "53/udp"].map(|port| port.parse().unwrap()).into();
        target.config.env = vec!["PATH=/bin".into(), "POSTGRES_USER=me".into()];
        target.config.hostname = "pg".into();
        let address = Ipv4Addr::new(172, 17, 0, 5);
        assert_eq!(
            environment("web", "my-db", &target, address),
            [
                "MY_DB_PORT=udp://172.17.0.5:53",
                "MY_DB_PORT_5432_TCP=tcp://172.17.0.5:5432",
                "MY_DB_PORT_5432_TCP_ADDR=172.17.0.5",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_53_UDP=udp://172.17.0.5:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.5",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_POSTGRES_USER=me",
            ]
        );
        assert_eq!(
            host_line("my-db", &target, address).names,
            ["my-db".to_owned(), "pg".to_owned(), target.id.short(), "db-1".to_owned()]
        );
    }
}
