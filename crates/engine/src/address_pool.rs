//! The addresses of one network, and which endpoint has them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_types::Id;

use crate::free_ranges::FreeRanges;
use crate::subnet::{Address, Pool};

/// An address is leased to an endpoint, not to a container: the next start of a container does not
/// wait for the link of the last one, and a lease is never given back in the name of another.
#[derive(Debug)]
pub(crate) struct AddressPool<A> {
    /// The first that may be drawn; addresses are kept by their distance from it.
    first: u128,
    last: u128,
    leases: Mutex<Leases<A>>,
}

#[derive(Debug)]
struct Leases<A> {
    taken: BTreeMap<A, Holder>,
    free: FreeRanges,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Endpoint(Id),
    /// Its container has ended, or it was disconnected; the link is still to be taken down.
    Retired(Id),
    /// The gateway's, or another machine's.
    Reserved,
}

/// Every address is leased, `retired` of them to endpoints that only wait to be taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted {
    pub retired: usize,
}

impl<A: Address> AddressPool<A> {
    pub(crate) fn new(pool: &Pool<A>) -> Self {
        let (first, last) = pool.bounds();
        // 4 billion of a larger block are enough for every bridge.
        let room = last.saturating_sub(first).min(u32::MAX.into());
        let mut free = match first <= last {
            true => FreeRanges::new(0, u32::try_from(room).unwrap_or(u32::MAX)),
            false => FreeRanges::new(1, 0),
        };
        let mut taken = BTreeMap::new();
        for reserved in pool.auxiliary.values().copied().chain([pool.gateway]) {
            taken.insert(reserved, Holder::Reserved);
            if let Some(number) = offset(first, last, reserved) {
                free.take(number);
            }
        }
        Self { first, last, leases: Mutex::new(Leases { taken, free }) }
    }

    /// The lowest free address.
    pub(crate) fn lease(&self, endpoint: Id) -> Result<A, Exhausted> {
        let mut leases = self.leases();
        match leases.free.take_lowest() {
            Some(number) => {
                let address = A::of_number(self.first + u128::from(number));
                leases.taken.insert(address, Holder::Endpoint(endpoint));
                Ok(address)
            }
            None => Err(Exhausted { retired: leases.retired(|_| true) }),
        }
    }

    /// This very address, wherever in the subnet it is.
    pub(crate) fn lease_exactly(&self, address: A, endpoint: Id) -> Result<(), Exhausted> {
        let mut leases = self.leases();
        if leases.taken.contains_key(&address) {
            return Err(Exhausted { retired: leases.retired(|taken| taken == address) });
        }
        leases.taken.insert(address, Holder::Endpoint(endpoint));
        if let Some(number) = offset(self.first, self.last, address) {
            leases.free.take(number);
        }
        Ok(())
    }

    /// Notes a lease of the engine before this one.
    pub(crate) fn recover(&self, address: A, endpoint: Id) {
        let mut leases = self.leases();
        if let Some(number) = offset(self.first, self.last, address) {
            leases.free.take(number);
        }
        leases.taken.insert(address, Holder::Endpoint(endpoint));
    }

    /// Notes that the endpoint waits to be taken down; `false` if that is known, or it has gone.
    pub(crate) fn retire(&self, address: A, endpoint: Id) -> bool {
        match self.leases().taken.get_mut(&address) {
            Some(holder) if *holder == Holder::Endpoint(endpoint) => {
                *holder = Holder::Retired(endpoint);
                true
            }
            _ => false,
        }
    }

    /// Gives the address back, if it is still this endpoint's.
    pub(crate) fn release(&self, address: A, endpoint: Id) {
        let mut leases = self.leases();
        let own = [Holder::Endpoint(endpoint), Holder::Retired(endpoint)];
        if leases.taken.get(&address).is_some_and(|holder| own.contains(holder)) {
            leases.taken.remove(&address);
            if let Some(number) = offset(self.first, self.last, address) {
                leases.free.give_back(number);
            }
        }
    }

    /// Whether an endpoint has an address that does not only wait to be taken down.
    pub(crate) fn is_in_use(&self) -> bool {
        self.leases().taken.values().any(|holder| matches!(holder, Holder::Endpoint(_)))
    }

    fn leases(&self) -> MutexGuard<'_, Leases<A>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Address> Leases<A> {
    fn retired(&self, counts: impl Fn(A) -> bool) -> usize {
        let retired = |(address, holder): &(&A, &Holder)| {
            matches!(holder, Holder::Retired(_)) && counts(**address)
        };
        self.taken.iter().filter(retired).count()
    }
}

/// Where an address is among those that are drawn, if it is.
fn offset<A: Address>(first: u128, last: u128, address: A) -> Option<u32> {
    let number = address.number();
    (first..=last).contains(&number).then(|| u32::try_from(number - first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::subnet::Subnet;

    fn pool(gateway: [u8; 4], prefix: u8) -> AddressPool<Ipv4Addr> {
        let gateway = Ipv4Addr::from(gateway);
        AddressPool::new(&Pool { gateway, ..Pool::of(Subnet::around(gateway, prefix)) })
    }

    #[test]
    fn addresses_avoid_network_gateway_and_broadcast() {
        let lease_all = |gateway: [u8; 4], prefix| {
            let pool = pool(gateway, prefix);
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
    fn a_range_is_drawn_from_and_the_rest_is_for_who_asks() {
        let mut config: Pool<Ipv4Addr> = Pool::of("172.28.0.0/16".parse().unwrap());
        config.range = Some("172.28.5.0/24".parse().unwrap());
        config.gateway = "172.28.5.254".parse().unwrap();
        config.auxiliary = [("a".to_owned(), "172.28.5.0".parse().unwrap())].into();
        let pool = AddressPool::new(&config);
        assert_eq!(pool.lease(Id::random()), Ok("172.28.5.1".parse().unwrap()));
        let (outside, own) = ("172.28.9.9".parse().unwrap(), Id::random());
        assert_eq!(pool.lease_exactly(outside, own), Ok(()));
        assert_eq!(pool.lease_exactly(outside, Id::random()), Err(Exhausted { retired: 0 }));
        assert!(pool.retire(outside, own));
        assert_eq!(pool.lease_exactly(outside, Id::random()), Err(Exhausted { retired: 1 }));
        pool.release(outside, own);
        assert_eq!(pool.lease_exactly(outside, Id::random()), Ok(()));
        let gateway = pool.lease_exactly(config.gateway, Id::random());
        assert_eq!(gateway, Err(Exhausted { retired: 0 }));
        let inside = "172.28.5.2".parse().unwrap();
        assert_eq!(pool.lease_exactly(inside, own), Ok(()));
        assert_eq!(pool.lease(Id::random()), Ok("172.28.5.3".parse().unwrap()));
        pool.release(inside, own);
        assert_eq!(pool.lease(Id::random()), Ok(inside));
    }

    #[test]
    fn addresses_of_the_long_family_are_leased() {
        let pool = AddressPool::<Ipv6Addr>::new(&Pool::of("fd00::/64".parse().unwrap()));
        assert_eq!(pool.lease(Id::random()), Ok("fd00::2".parse().unwrap()));
        let far = "fd00::ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(pool.lease_exactly(far, Id::random()), Ok(()));
        assert_eq!(pool.lease(Id::random()), Ok("fd00::3".parse().unwrap()));
    }

    #[test]
    fn what_was_leased_before_is_not_leased_again() {
        let pool = pool([10, 0, 0, 1], 24);
        let old = (Ipv4Addr::new(10, 0, 0, 2), Id::random());
        pool.recover(old.0, old.1);
        assert_eq!(pool.lease(Id::random()), Ok(Ipv4Addr::new(10, 0, 0, 3)));
        pool.release(old.0, old.1);
        assert_eq!(pool.lease(Id::random()), Ok(old.0));
    }

    #[test]
    fn an_address_goes_round_and_is_only_given_back_by_its_own_endpoint() {
        let pool = pool([10, 0, 0, 1], 29);
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
