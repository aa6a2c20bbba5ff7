//! Ports for Redis, and for servers that are started again on the same port.
//!
//! A port that the system chooses may be chosen again as soon as its test listener is closed: for another test, or for a
//! client. Therefore each process of tests owns a block of ports, below those that the system chooses from.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The ports of all blocks. Linux chooses from 32768 on.
const BLOCKS: std::ops::Range<u16> = 20_000..32_768;
const BLOCK_SIZE: u16 = 512;

/// The first port of the block of this process. The process listens on it until it ends, so that no other takes the block.
static OWN_BLOCK: LazyLock<(u16, TcpListener)> = LazyLock::new(|| {
    let blocks = BLOCKS.step_by(BLOCK_SIZE.into()).filter(|first| first + (BLOCK_SIZE - 1) < BLOCKS.end);
    let owned = blocks.into_iter().find_map(|first| Some((first, listen(first)?)));
    owned.expect("a block of ports: end the test processes that are left over")
});

/// How many ports were taken from the block.
static TAKEN: AtomicU16 = AtomicU16::new(0);

/// Returns a port that is free, and that this function returns again only after all others of its block.
pub fn free_port() -> u16 {
    let (first, _) = &*OWN_BLOCK;
    let next = || *first + 1 + TAKEN.fetch_add(1, Ordering::Relaxed) % (BLOCK_SIZE - 1);
    let mut ports = std::iter::repeat_with(next).take(BLOCK_SIZE.into());
    ports.find(|port| listen(*port).is_some()).expect("a free port")
}

/// Listens on the port, unless it is in use.
fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).ok()
}
