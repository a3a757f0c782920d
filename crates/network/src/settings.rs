//! Settings that the kernel has no netlink message for: files below /proc/sys/net, of the network
//! namespace of the calling thread (ip-sysctl.rst).

use std::io;

use crate::Bridge;
use crate::nft::ruleset::Ipv6Loopback;

/// Whether bridges switch on the host's forwarding between its interfaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarding {
    #[default]
    SwitchOn,
    Leave,
}

/// Whether this kernel has IPv6, which it may be built or booted (`ipv6.disable=1`) without.
pub(crate) fn has_ipv6() -> bool {
    std::path::Path::new(IPV6).exists()
}

/// Whether links have IPv6 unless somebody says otherwise: this kernel has it, and it is switched off
/// neither for all of them nor for those that are to come.
pub(crate) fn uses_ipv6() -> bool {
    let is_off = |links| is(&of_link(links, "disable_ipv6"), "1").unwrap_or(true);
    has_ipv6() && !is_off("all") && !is_off("default")
}

/// Sets what a bridge needs, before it is up.
pub(crate) fn of_bridge(bridge: &Bridge, forwarding: Forwarding) -> io::Result<()> {
    let forwards = forwarding == Forwarding::SwitchOn;
    if bridge.ipv4.is_some() && forwards {
        set("/proc/sys/net/ipv4/ip_forward", "1")?;
    }
    match set(&of_link(&bridge.name, "accept_ra"), "0") {
        Err(error) if error.kind() == io::ErrorKind::NotFound && bridge.ipv6.is_none() => {}
        other => other?,
    }
    if bridge.ipv6.is_some() {
        enable_ipv6(&bridge.name)?;
        if forwards {
            forward_ipv6()?;
        }
    }
    Ok(())
}

/// Lets a link have IPv6 addresses where the namespace's default says that it has none.
pub(crate) fn enable_ipv6(link: &str) -> io::Result<()> {
    set(&of_link(link, "disable_ipv6"), "0")
}

/// With br_netfilter, answers to `[::1]` would not arrive; see `ruleset.rs`.
pub(crate) fn ipv6_loopback() -> io::Result<Ipv6Loopback> {
    match std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-ip6tables") {
        Ok(text) if text.trim_end() != "0" => Ok(Ipv6Loopback::Refused),
        Ok(_) => Ok(Ipv6Loopback::Published),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ipv6Loopback::Published),
        Err(error) => Err(error),
    }
}

/// A link that hears router advertisements as a host does would not hear them any more, and lose the
/// routes that it has from them, once the namespace forwards: `accept_ra` 2 says that it does.
fn forward_ipv6() -> io::Result<()> {
    let forwarding = of_link("all", "forwarding");
    if is(&forwarding, "1")? {
        return Ok(());
    }
    for entry in std::fs::read_dir(IPV6)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        // `default` too: of a link that is plugged in tomorrow the same is true.
        if ["all", "lo"].contains(&name.as_str()) {
            continue;
        }
        let accepts = of_link(&name, "accept_ra");
        let heard = is(&accepts, "1").and_then(|as_a_host| match as_a_host {
            true => set(&accepts, "2"),
            false => Ok(()),
        });
        match heard {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // the link has gone
            other => other?,
        }
    }
    set(&forwarding, "1")
}

fn of_link(link: &str, setting: &str) -> String {
    format!("{IPV6}/{link}/{setting}")
}

fn is(file: &str, value: &str) -> io::Result<bool> {
    Ok(std::fs::read_to_string(file)?.trim_end() == value)
}

/// Writes a setting that has another value.
pub(crate) fn set(file: &str, value: &str) -> io::Result<()> {
    // many hosts mount /proc/sys read-only in containers: a value that is right needs no write
    if is(file, value)? { Ok(()) } else { std::fs::write(file, value) }
}

const IPV6: &str = "/proc/sys/net/ipv6/conf";
