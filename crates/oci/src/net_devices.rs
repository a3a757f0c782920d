//! `linux.netDevices`: links of the host that move into the container.

use std::fs::File;
use std::os::fd::AsFd;

use bulkhead_types::oci::{Config, NamespaceKind};

use crate::error::{Error, Result};

/// Refuses what cannot be done before anything is made (runc: libcontainer/configs/validate,
/// `netdevices`).
pub fn check(config: &Config) -> Result<()> {
    let Some(linux) = config.linux.as_ref().filter(|linux| !linux.net_devices.is_empty()) else {
        return Ok(());
    };
    if !linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Network) {
        let text = "unable to move network devices without a NET namespace";
        return Err(Error::Config(text.to_owned()));
    }
    if !rustix::process::geteuid().is_root() {
        let text = "network devices are not supported for rootless containers";
        return Err(Error::Config(text.to_owned()));
    }
    Ok(())
}

/// Moves them into the network namespace of `pid`. One that fails leaves those before it there:
/// they go the way of the namespace.
pub fn adopt(config: &Config, pid: u32) -> std::result::Result<(), String> {
    let devices = config.linux.iter().flat_map(|linux| &linux.net_devices);
    let path = format!("/proc/{pid}/ns/net");
    for (name, device) in devices {
        let new_name = if device.name.is_empty() { name } else { &device.name };
        let moved = File::open(&path).map_err(|error| error.to_string()).and_then(|namespace| {
            bulkhead_network::move_link(name, namespace.as_fd(), new_name)
                .map_err(|error| error.to_string())
        });
        moved.map_err(|error| format!("move netDevice {name} to namespace {path}: {error}"))?;
    }
    Ok(())
}
