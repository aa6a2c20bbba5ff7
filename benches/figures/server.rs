//! A server in its own process, measured from outside.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::support::Http;
use crate::support::ports::free_port;
use crate::support::redis::OwnRedis;

/// A running server.
pub struct Server {
    pub child: Child,
    pub http: Http,
}

impl Server {
    pub async fn start(redis: &OwnRedis, extra_args: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Command::new(env!("CARGO_BIN_EXE_slotwheel"))
            .args(["--listen", &address.to_string(), "--redis-url", &redis.url, "--log", "warn"])
            .args(extra_args)
            .stdin(Stdio::null())
            .spawn()
            .expect("a server");
        let mut http = Http::new(address);
        http.check = |_, _, _| {};
        while !http.is_ready().await {}
        Server { child, http }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
