//! The addresses of one network, and which endpoint has them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_types::Id;

use crate::addresses;

/// An address is leased to an endpoint, not to a container: the next start of a container does not
/// wait for the link of the last one, and a lease is never given back in the name of another.
#[derive(Debug)]
pub(crate) struct AddressPool {
    gateway: Ipv4Addr,
    prefix: u8,
    leases: Mutex<BTreeMap<Ipv4Addr, Lease>>,
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
    pub(crate) fn new(gateway: Ipv4Addr, prefix: u8) -> Self {
        Self { gateway, prefix, leases: Mutex::default() }
    }

    /// The lowest free address.
    pub(crate) fn lease(&self, endpoint: Id) -> Result<Ipv4Addr, Exhausted> {
        let mut leases = self.leases();
        match addresses::free_address(self.gateway, self.prefix, leases.keys().copied()) {
            Some(address) => {
                leases.insert(address, Lease { endpoint, retired: false });
                Ok(address)
            }
            None => {
                Err(Exhausted { retired: leases.values().filter(|lease| lease.retired).count() })
            }
        }
    }

    /// Notes a lease of the engine before this one.
    pub(crate) fn recover(&self, address: Ipv4Addr, endpoint: Id) {
        self.leases().insert(address, Lease { endpoint, retired: false });
    }

    /// Notes that the endpoint waits to be taken down; `false` if that is known, or it has gone.
    pub(crate) fn retire(&self, address: Ipv4Addr, endpoint: Id) -> bool {
        match self.leases().get_mut(&address) {
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
        if leases.get(&address).is_some_and(|lease| lease.endpoint == endpoint) {
            leases.remove(&address);
        }
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
