//! A network with its addresses: who has which.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bulkhead_types::Id;

use crate::address_pool::AddressPool;
use crate::network::Network;

/// One network of an engine that runs.
#[derive(Debug)]
pub(crate) struct AttachedNetwork {
    pub network: Network,
    pub ipv4: Option<AddressPool<Ipv4Addr>>,
    pub ipv6: Option<AddressPool<Ipv6Addr>>,
}

impl AttachedNetwork {
    pub(crate) fn new(network: Network) -> Self {
        let ipv4 = network.ipv4.as_ref().map(AddressPool::new);
        let ipv6 = network.ipv6.as_ref().map(AddressPool::new);
        Self { network, ipv4, ipv6 }
    }

    /// Whether an endpoint has an address that does not only wait to be taken down.
    pub(crate) fn is_in_use(&self) -> bool {
        self.ipv4.as_ref().is_some_and(AddressPool::is_in_use)
            || self.ipv6.as_ref().is_some_and(AddressPool::is_in_use)
    }
}

/// What an endpoint has of its network. Given back by [`Self::release`] alone.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub network: Arc<AttachedNetwork>,
    pub endpoint: Id,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

impl Lease {
    /// Notes that the endpoint waits to be taken down; `false` if that is known, or it has gone.
    pub(crate) fn retire(&self) -> bool {
        let mut retired = false;
        if let (Some(pool), Some(address)) = (&self.network.ipv4, self.ipv4) {
            retired |= pool.retire(address, self.endpoint);
        }
        if let (Some(pool), Some(address)) = (&self.network.ipv6, self.ipv6) {
            retired |= pool.retire(address, self.endpoint);
        }
        retired
    }

    /// Notes a lease of the engine before this one.
    pub(crate) fn recover(&self) {
        if let (Some(pool), Some(address)) = (&self.network.ipv4, self.ipv4) {
            pool.recover(address, self.endpoint);
        }
        if let (Some(pool), Some(address)) = (&self.network.ipv6, self.ipv6) {
            pool.recover(address, self.endpoint);
        }
    }

    pub(crate) fn release(&self) {
        if let (Some(pool), Some(address)) = (&self.network.ipv4, self.ipv4) {
            pool.release(address, self.endpoint);
        }
        if let (Some(pool), Some(address)) = (&self.network.ipv6, self.ipv6) {
            pool.release(address, self.endpoint);
        }
    }
}
