//! The limits of open connections, in total and per address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rejection::Rejection;

/// File descriptors kept for other uses: connections to Redis, logs, the listener.
const RESERVED_FILE_DESCRIPTORS: usize = 256;

/// The limits, and the connections that count against them.
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

/// The permit of an open connection. The connection no longer counts when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
}

impl ConnectionLimits {
    /// Returns limits of at most `max_connections`, lowered to the file descriptors that the process may open: an
    /// accepted connection can then be served.
    pub(super) fn new(max_connections: usize, max_per_address: usize) -> Arc<Self> {
        let max_files =
            max_open_files().map_or(usize::MAX, |files| files.saturating_sub(RESERVED_FILE_DESCRIPTORS).max(1));
        if max_files < max_connections {
            let (configured, effective) = (max_connections, max_files);
            tracing::info!(configured, effective, "max_connections lowered to the limit of open files");
        }
        let max_connections = max_connections.min(max_files);
        Arc::new(ConnectionLimits { max_connections, max_per_address, open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a permit for a connection from `address`.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn acquire(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, Rejection> {
        let address = address_key(address);
        let mut open = self.lock();
        if open.total >= self.max_connections {
            return Err(Rejection::MaxConnections);
        }
        let count = open.by_address.entry(address).or_default();
        if *count >= self.max_per_address {
            return Err(Rejection::MaxConnectionsPerAddress);
        }
        *count += 1;
        open.total += 1;
        Ok(ConnectionPermit { limits: self.clone(), address })
    }

    /// Returns the number of open connections.
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

/// Returns the address that a connection counts for. An IPv6 host has a whole /64 network, so the first 64 bits count.
fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

/// Returns the number of files that the process may open, if the operating system reports it.
fn max_open_files() -> Option<usize> {
    usize::try_from(rlimit::Resource::NOFILE.get_soft().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_in_total_and_per_address() {
        let limits = ConnectionLimits::new(3, 2);
        let [first_address, same_network, ipv4_address] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse().unwrap());
        let first = limits.acquire(first_address).unwrap();
        let second = limits.acquire(same_network).unwrap();
        assert_eq!(limits.acquire(first_address).unwrap_err(), Rejection::MaxConnectionsPerAddress);
        let third = limits.acquire(ipv4_address).unwrap();
        assert_eq!(limits.acquire(ipv4_address).unwrap_err(), Rejection::MaxConnections);
        drop(first);
        let fourth = limits.acquire("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(limits.acquire(ipv4_address).unwrap_err(), Rejection::MaxConnections);
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
