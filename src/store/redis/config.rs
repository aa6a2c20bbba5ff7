//! The address of Redis and the settings of connections to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::io::tcp::socket2::TcpKeepalive;
use deadpool_redis::redis::{self, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates};

/// Milliseconds added to the Redis clock. Tests move time with it.
pub type ClockOffset = Arc<AtomicI64>;

/// The address of Redis, and what is sent with each script.
#[derive(Clone, Debug, Default)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, `redis+unix://` or `unix://`, with user, password and database.
    pub url: String,
    /// PEM certificates of accepted authorities. `None`: those of the operating system.
    pub ca_certificates: Option<Vec<u8>>,
    /// Added to the Redis clock by every script. Zero except in tests.
    pub clock_offset: ClockOffset,
    /// Lua inserted after the first line of every script. Empty except in tests.
    pub injected_lua: String,
}

impl RedisConfig {
    pub(super) fn connection_info(&self) -> RedisResult<ConnectionInfo> {
        let url = self.url.as_str();
        let info = match self.tls_certificates() {
            Some(certificates) => redis::Client::build_with_tls(url, certificates)?.get_connection_info().clone(),
            None => url.into_connection_info()?,
        };
        Ok(info.set_tcp_settings(tcp_settings()))
    }

    pub(super) fn tls_certificates(&self) -> Option<TlsCertificates> {
        let pem = self.ca_certificates.clone()?;
        Some(TlsCertificates { client_tls: None, root_cert: Some(pem) })
    }

    /// Returns the clock offset in ms, as scripts take it. Empty for zero.
    pub(super) fn clock_offset_ms(&self) -> String {
        match self.clock_offset.load(Ordering::Relaxed) {
            0 => String::new(),
            ms => ms.to_string(),
        }
    }
}

/// Keepalive probes, because a subscriber only reads: without them it never notices a dead peer.
pub(super) fn tcp_settings() -> TcpSettings {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2)).with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}
