//! Workers, as known from their claims, heartbeats and leases.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::queue::QueueName;

/// A worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Name, chosen by the worker.
    pub name: String,
    /// Address of its last request; `None`: unknown to every server.
    pub address: Option<IpAddr>,
    /// Declared concurrency.
    pub concurrency: u32,
    /// Queues of its last claim.
    pub queues: Vec<QueueName>,
}

impl Worker {
    /// Returns the digest that represents the name in Redis.
    pub fn name_digest(name: &str) -> Digest {
        Digest::of(&[name.as_bytes()])
    }

    /// Returns a worker of which only the name is known.
    pub fn unknown(name: &str) -> Self {
        Worker { name: name.to_owned(), address: None, concurrency: 1, queues: Vec::new() }
    }
}
