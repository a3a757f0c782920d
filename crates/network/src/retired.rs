//! Bridges that are out of use and wait to be removed.
//!
//! The kernel waits for RCU grace periods when a link goes, 30 to 40 ms for a bridge. All the rest takes
//! it less than one: to bring the bridge down, to take its addresses, and to give it another name, so that
//! the next network may have both at once.

use rustix::io::Errno;

use crate::host::index_of;
use crate::survey::RETIRED;
use crate::{Bridge, Host, NetworkError, link};

impl Host {
    /// Takes a bridge out of use, with the endpoints and published ports in its subnet: no packet passes
    /// it any more, and its name and addresses are free. Returns the name under which the link waits for
    /// [`Host::unplug_all`]; `None` where there was none.
    ///
    /// [`Host::reconcile`] removes what an engine that died has left waiting.
    pub fn retire_bridge(&self, bridge: &Bridge) -> Result<Option<String>, NetworkError> {
        let retired = self.retire_link(bridge);
        self.forget_bridge(bridge).and(retired)
    }

    fn retire_link(&self, bridge: &Bridge) -> Result<Option<String>, NetworkError> {
        let mut route = self.route();
        let Some(index) = index_of(&mut route, &bridge.name)? else { return Ok(None) };
        let name = format!("{RETIRED}{index:08x}");
        let addresses = [
            bridge.ipv4.map(|own| (own.address.into(), own.prefix)),
            bridge.ipv6.map(|own| (own.address.into(), own.prefix)),
        ];
        let mut changes = vec![link::down(index)];
        changes.extend(
            addresses
                .into_iter()
                .flatten()
                .map(|(address, prefix)| link::no_address(index, address, prefix)),
        );
        changes.push(link::rename(index, &name));
        let changed = route
            .change(changes)
            .and_then(|answers| answers.into_iter().try_for_each(unless_gone_with_the_link));
        changed.map_err(NetworkError::kernel(format!("take bridge {} out of use", bridge.name)))?;
        Ok(Some(name))
    }
}

/// IPv6 addresses go when their link goes down (ip-sysctl.rst, `keep_addr_on_down`).
fn unless_gone_with_the_link(answer: std::io::Result<()>) -> std::io::Result<()> {
    match answer {
        Err(error) if error.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error()) => Ok(()),
        other => other,
    }
}
