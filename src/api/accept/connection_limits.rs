//! How many connections there are, in all and by address, and who finds a place.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files for other uses: connections to Redis, logs, the listener itself.
const RESERVED_FILE_DESCRIPTORS: usize = 256;

/// All places.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    max_connections: usize,
    max_per_address: usize,
    open: Mutex<OpenConnections>,
}

#[derive(Default, Debug)]
struct OpenConnections {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place; given up when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
}

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LimitExceeded {
    /// All are taken.
    MaxConnections,
    /// All that the address may have are taken.
    MaxConnectionsPerAddress,
}

impl ConnectionLimits {
    /// As many as are asked for, as far as the process may open files: a connection that is taken in finds what it
    /// needs.
    pub(super) fn new(max_connections: usize, max_per_address: usize) -> Arc<Self> {
        let max_files =
            max_open_files().map_or(usize::MAX, |files| files.saturating_sub(RESERVED_FILE_DESCRIPTORS).max(1));
        if max_files < max_connections {
            tracing::info!(
                asked = max_connections,
                connections = max_files,
                "as many connections as the limit of open files lets"
            );
        }
        Arc::new(ConnectionLimits {
            max_connections: max_connections.min(max_files),
            max_per_address,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn acquire(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, LimitExceeded> {
        let address = address_key(address);
        let mut open = self.lock();
        if open.total >= self.max_connections {
            return Err(LimitExceeded::MaxConnections);
        }
        let count = open.by_address.entry(address).or_default();
        if *count >= self.max_per_address {
            return Err(LimitExceeded::MaxConnectionsPerAddress);
        }
        *count += 1;
        open.total += 1;
        Ok(ConnectionPermit { limits: self.clone(), address })
    }

    /// How many are taken.
    pub(super) fn open_connections(&self) -> usize {
        self.lock().total
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// Who has one address of an IPv6 network has all of them: the first 64 bits count.
fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

/// How many files this process may have open, where the system says so.
fn max_open_files() -> Option<usize> {
    usize::try_from(rlimit::Resource::NOFILE.get_soft().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use crate::api::accept::connection_limits::*;

    #[test]
    fn connections_are_limited_in_total_and_per_address() {
        let limits = ConnectionLimits::new(3, 2);
        let [first_address, same_network, ipv4_address] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse().unwrap());
        let first = limits.acquire(first_address).unwrap();
        let second = limits.acquire(same_network).unwrap();
        assert_eq!(limits.acquire(first_address).unwrap_err(), LimitExceeded::MaxConnectionsPerAddress);
        let third = limits.acquire(ipv4_address).unwrap();
        assert_eq!(limits.acquire(ipv4_address).unwrap_err(), LimitExceeded::MaxConnections);
        drop(first);
        let fourth = limits.acquire("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(limits.acquire(ipv4_address).unwrap_err(), LimitExceeded::MaxConnections);
        drop((second, third, fourth));
        assert_eq!(limits.open_connections(), 0);
        assert!(limits.lock().by_address.is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn open_file_limit_is_known_on_linux() {
        assert!(max_open_files().is_some());
    }
}
