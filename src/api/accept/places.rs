//! How many connections there are, in all and by address, and who finds a place.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files for other uses: connections to Redis, logs, the listener itself.
const RESERVED_FILES: usize = 256;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Default, Debug)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// All are taken.
    Full,
    /// All that the address may have are taken.
    Address,
}

impl Places {
    /// As many as are asked for, as far as the process may open files: a connection that is taken in finds what it
    /// needs.
    pub(super) fn new(total: usize, per_address: usize) -> Arc<Self> {
        let files = open_files().map_or(usize::MAX, |files| files.saturating_sub(RESERVED_FILES).max(1));
        if files < total {
            tracing::info!(asked = total, connections = files, "as many connections as the limit of open files lets");
        }
        Arc::new(Places { total: total.min(files), per_address, taken: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refused> {
        let address = counted_as(address);
        let mut taken = self.lock();
        if taken.total >= self.total {
            return Err(Refused::Full);
        }
        let own = taken.by_address.entry(address).or_default();
        if *own >= self.per_address {
            return Err(Refused::Address);
        }
        *own += 1;
        taken.total += 1;
        Ok(Place { places: self.clone(), address })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().total
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.total -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Who has one address of an IPv6 network has all of them: the first 64 bits count.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

/// How many files this process may have open, where the system says so.
fn open_files() -> Option<usize> {
    usize::try_from(rlimit::Resource::NOFILE.get_soft().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address() {
        let places = Places::new(3, 2);
        let [one, other, ours] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse().unwrap());
        let first = places.enter(one).unwrap();
        let second = places.enter(other).unwrap();
        assert_eq!(places.enter(one).unwrap_err(), Refused::Address);
        let third = places.enter(ours).unwrap();
        assert_eq!(places.enter(ours).unwrap_err(), Refused::Full);
        drop(first);
        let fourth = places.enter("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(places.enter(ours).unwrap_err(), Refused::Full);
        drop((second, third, fourth));
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by_address.is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_limit_of_open_files_is_known() {
        assert!(open_files().is_some());
    }
}
