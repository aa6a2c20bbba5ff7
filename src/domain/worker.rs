//! Workers, as far as they show themselves: by claiming, by waiting, by heartbeats, and by what they hold.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::queue::QueueName;

/// What is known of a worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// As it calls itself.
    pub name: String,
    /// From where it last came; `None`: no server remembers.
    pub address: Option<IpAddr>,
    /// How many tasks it works at, as it says.
    pub concurrency: u32,
    /// The queues that its last claim named.
    pub queues: Vec<QueueName>,
}

impl Worker {
    /// What stands for the name in Redis.
    pub fn name_digest(name: &str) -> Digest {
        Digest::of(&[name.as_bytes()])
    }

    /// One of which nothing is known but its name.
    pub fn unknown(name: &str) -> Self {
        Worker { name: name.to_owned(), address: None, concurrency: 1, queues: Vec::new() }
    }
}
