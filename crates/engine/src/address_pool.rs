//! The addresses of one network, and which endpoint has them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_types::Id;

use crate::addresses;
use crate::free_ranges::FreeRanges;

/// An address is leased to an endpoint, not to a container: the next start of a container does not
/// wait for the link of the last one, and a lease is never given back in the name of another.
#[derive(Debug)]
pub(crate) struct AddressPool {
    leases: Mutex<Leases>,
}

#[derive(Debug)]
struct Leases {
    taken: BTreeMap<Ipv4Addr, Lease>,
    free: FreeRanges,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    endpoint: Id,
    /// Its container has ended; the link is still to be taken down.
    retired: bool,
}

/// Every address is leased, `retired` of them to endpoints that only wait to be taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted {
    pub retired: usize,
}

impl AddressPool {
    /// All addresses of `gateway`/`prefix`'s network but the gateway's own, the network's (its first)
    /// and the broadcast's (its last).
    pub(crate) fn new(gateway: Ipv4Addr, prefix: u8) -> Self {
        let network = addresses::network(gateway, prefix).to_bits();
        let last = addresses::broadcast(gateway, prefix).to_bits();
        let mut free = FreeRanges::new(network.saturating_add(1), last.saturating_sub(1));
        free.take(gateway.to_bits());
        Self { leases: Mutex::new(Leases { taken: BTreeMap::new(), free }) }
    }

    /// The lowest free address.
    pub(crate) fn lease(&self, endpoint: Id) -> Result<Ipv4Addr, Exhausted> {
        let mut leases = self.leases();
        match leases.free.take_lowest().map(Ipv4Addr::from_bits) {
            Some(address) => {
                leases.taken.insert(address, Lease { endpoint, retired: false });
                Ok(address)
            }
            None => {
                let retired = leases.taken.values().filter(|lease| lease.retired).count();
                Err(Exhausted { retired })
            }
        }
    }

    /// Notes a lease of the engine before this one.
    pub(crate) fn recover(&self, address: Ipv4Addr, endpoint: Id) {
        let mut leases = self.leases();
        leases.free.take(address.to_bits());
        leases.taken.insert(address, Lease { endpoint, retired: false });
    }

    /// Notes that the endpoint waits to be taken down; `false` if that is known, or it has gone.
    pub(crate) fn retire(&self, address: Ipv4Addr, endpoint: Id) -> bool {
        match self.leases().taken.get_mut(&address) {
            Some(lease) if lease.endpoint == endpoint && !lease.retired => {
                lease.retired = true;
                true
            }
            _ => false,
        }
    }

    /// Gives the address back, if it is still this endpoint's.
    pub(crate) fn release(&self, address: Ipv4Addr, endpoint: Id) {
        let mut leases = self.leases();
        if leases.taken.get(&address).is_some_and(|lease| lease.endpoint == endpoint) {
            leases.taken.remove(&address);
            leases.free.give_back(address.to_bits());
        }
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_avoid_network_gateway_and_broadcast() {
        let lease_all = |gateway: [u8; 4], prefix| {
            let pool = AddressPool::new(gateway.into(), prefix);
            std::iter::from_fn(|| pool.lease(Id::random()).ok().map(|address| address.octets()[3]))
                .take(300)
                .collect::<Vec<_>>()
        };
        assert_eq!(lease_all([10, 0, 0, 1], 29), [2, 3, 4, 5, 6]);
        assert_eq!(lease_all([10, 0, 0, 12], 29), [9, 10, 11, 13, 14]);
        assert_eq!(lease_all([10, 0, 0, 1], 30), [2]);
        assert_eq!(lease_all([10, 0, 0, 1], 24).len(), 253);
        assert!(lease_all([10, 0, 0, 1], 32).is_empty());
    }

    #[test]
    fn what_was_leased_before_is_not_leased_again() {
        let pool = AddressPool::new(Ipv4Addr::new(10, 0, 0, 1), 24);
        let old = (Ipv4Addr::new(10, 0, 0, 2), Id::random());
        pool.recover(old.0, old.1);
        assert_eq!(pool.lease(Id::random()), Ok(Ipv4Addr::new(10, 0, 0, 3)));
        pool.release(old.0, old.1);
        assert_eq!(pool.lease(Id::random()), Ok(old.0));
    }

    #[test]
    fn an_address_goes_round_and_is_only_given_back_by_its_own_endpoint() {
        let pool = AddressPool::new(Ipv4Addr::new(10, 0, 0, 1), 29);
        let endpoints: Vec<Id> = (0..6).map(|_| Id::random()).collect();
        let leased: Vec<Ipv4Addr> =
            endpoints[..5].iter().map(|endpoint| pool.lease(*endpoint).unwrap()).collect();
        assert_eq!(leased[0], Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(pool.lease(endpoints[5]), Err(Exhausted { retired: 0 }));
        assert!(pool.retire(leased[2], endpoints[2]));
        assert!(!pool.retire(leased[2], endpoints[2]), "it is known");
        assert!(!pool.retire(leased[2], endpoints[3]), "it is another's");
        assert_eq!(pool.lease(endpoints[5]), Err(Exhausted { retired: 1 }));
        pool.release(leased[2], endpoints[2]);
        assert_eq!(pool.lease(endpoints[5]), Ok(leased[2]));
        pool.release(leased[2], endpoints[2]);
        assert_eq!(pool.lease(endpoints[2]), Err(Exhausted { retired: 0 }));
    }
}
