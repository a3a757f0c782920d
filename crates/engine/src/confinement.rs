//! What a process of a container may do.

use bulkhead_runtime::{Capabilities, Seccomp, capabilities};

use crate::{Container, EngineError, HostConfig};

/// Whether a process is given all that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Usual,
    Full,
}

/// The capabilities of a process of `container`, and the filter that goes with them.
///
/// A container with a user namespace of its own never has the host's network, so `NET_RAW` is
/// harmless there as long as it gives no packet sockets: those take the filter away, or a word of
/// the user. Where users bring a filter of their own, nothing says that it closes them.
pub(crate) fn confinement(
    container: &Container,
    privilege: Privilege,
) -> Result<(Capabilities, Seccomp), EngineError> {
    let security = &container.host.security_opt;
    let HostConfig { cap_add, cap_drop, privileged, .. } = &container.host;
    let full = *privileged || privilege == Privilege::Full;
    let own_network = container.id_range.is_some() && security.seccomp == Seccomp::Default;
    let default = if own_network { Capabilities::OWN_NETWORK } else { Capabilities::DEFAULT };
    let resolve = |default| {
        capabilities::resolve(default, cap_add, cap_drop, full)
            .map_err(|error| EngineError::invalid(error.to_string()))
    };
    let asked = resolve(Capabilities::NONE)?.has(capabilities::NET_RAW);
    let seccomp = match &security.seccomp {
        _ if full => Seccomp::Unconfined,
        Seccomp::Default if !asked => Seccomp::WithoutPackets,
        other => other.clone(),
    };
    Ok((resolve(default)?, seccomp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecurityOptions;

    #[test]
    fn net_raw_is_kept_where_it_reaches_no_other_network_and_no_packet() {
        let mut container = crate::container::tests::container("web");
        let confined = |container: &Container, options: &[&str], privilege| {
            let mut container = container.clone();
            let options = options.iter().map(|option| (*option).to_owned()).collect();
            container.host.security_opt = SecurityOptions::parse(options).unwrap();
            let (set, seccomp) = confinement(&container, privilege).unwrap();
            (set.has(capabilities::NET_RAW), seccomp)
        };
        let closed = Seccomp::WithoutPackets;
        let usual = Privilege::Usual;
        assert_eq!(confined(&container, &[], usual), (false, closed.clone()), "the host's users");
        container.id_range = Some(bulkhead_types::IdMap::new(1 << 30, 1 << 16));
        assert_eq!(confined(&container, &[], usual), (true, closed.clone()));
        let unconfined = ["seccomp=unconfined"];
        assert_eq!(confined(&container, &unconfined, usual), (false, Seccomp::Unconfined));
        assert_eq!(confined(&container, &[], Privilege::Full), (true, Seccomp::Unconfined));
        container.host.cap_drop = vec!["NET_RAW".into()];
        assert_eq!(confined(&container, &[], usual), (false, closed));
        for asked in ["net_raw", "ALL"] {
            container.host.cap_drop = Vec::new();
            container.host.cap_add = vec![asked.into()];
            assert_eq!(confined(&container, &[], usual), (true, Seccomp::Default), "{asked}");
        }
    }
}
