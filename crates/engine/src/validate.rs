//! What can be said of a request for a container without knowing other containers.

use bulkhead_runtime::capabilities;

use crate::{
    ContainerConfig, EngineError, HostConfig, NetworkMode, OnFailure, RestartPolicy, UtsMode,
    hosts, limits, signals, sysctls,
};

/// Refuses what contradicts itself or cannot be.
pub(crate) fn check(config: &ContainerConfig, host: &mut HostConfig) -> Result<(), EngineError> {
    host.health_on_failure = OnFailure::of(&config.labels)?;
    limits::check(host)?;
    hosts::check(config, host)?;
    sysctls::check(host)?;
    capabilities::resolve(
        bulkhead_runtime::Capabilities::NONE,
        &host.cap_add,
        &host.cap_drop,
        host.privileged,
    )
    .map_err(|error| EngineError::invalid(error.to_string()))?;
    if let Some(signal) = &config.stop_signal {
        signals::parse(signal)?;
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if host.auto_remove && host.restart_policy != RestartPolicy::No {
        return Err(EngineError::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(EngineError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if !matches!(host.network_mode, NetworkMode::Bridge | NetworkMode::Named(_)) {
        // Docker discards them too: there is no bridge to publish from.
        host.port_bindings.clear();
        host.publish_all_ports = false;
    }
    Ok(())
}

/// Refuses what would change a network or a host name that is not the container's own (moby:
/// daemon/pkg/opts and runconfig/hostconfig_unix.go).
pub(crate) fn check_shared_network(
    config: &ContainerConfig,
    host: &HostConfig,
) -> Result<(), EngineError> {
    let conflict = |what: &str| Err(EngineError::invalid(format!("conflicting options: {what}")));
    let has_name = !config.hostname.is_empty() || !config.domainname.is_empty();
    if host.uts_mode != UtsMode::Private && has_name {
        return conflict("hostname and the UTS mode");
    }
    let joins = matches!(host.network_mode, NetworkMode::Container(_));
    let of_others = matches!(host.network_mode, NetworkMode::Host | NetworkMode::Netns(_));
    if !host.links.is_empty() && (joins || of_others) {
        let what = match host.network_mode {
            NetworkMode::Host => "host type networking",
            NetworkMode::Netns(_) => "a named network namespace",
            _ => "container type network",
        };
        return conflict(&format!(
            "{what} can't be used with links. This would result in undefined behavior"
        ));
    }
    if !joins {
        return Ok(());
    }
    if !config.hostname.is_empty() {
        return conflict("hostname and the network mode");
    }
    if !host.dns.is_empty() || !host.dns_search.is_empty() || !host.dns_options.is_empty() {
        return conflict("dns and the network mode");
    }
    if !host.extra_hosts.is_empty() {
        return conflict("custom host-to-IP mapping and the network mode");
    }
    if !host.port_bindings.is_empty() || host.publish_all_ports {
        return conflict("port publishing and the container type network mode");
    }
    if !config.exposed_ports.is_empty() {
        return conflict("port exposing and the container type network mode");
    }
    Ok(())
}
