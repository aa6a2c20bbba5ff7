//! Every key, its type, its members, and who writes it. Nothing else builds a key but the scripts, which derive theirs
//! from the same base and name them in their headers.
//!
//! All keys of a shard begin with its base, `<prefix>:{<tag>}:`; the tag is a decimal string whose own Redis slot is
//! the first slot of the shard, so that shards spread over a Cluster's masters as slots do. Ids and digests stand as
//! 16 raw bytes. No string of a user's stands in a key but the name of a queue, which has neither colon nor brace.

use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::slot::{SLOT_COUNT, Shards, Slot};
use crate::domain::state::State;

/// The Redis type of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum KeyType {
    Hash,
    Zset,
    Set,
    String,
    List,
}

/// One kind of key.
#[derive(Debug)]
pub struct KeyPattern {
    /// What follows the base; `<…>` stands for the variable parts.
    pub pattern: &'static str,
    /// Its type.
    pub key_type: KeyType,
    /// What it holds, and who writes it.
    pub description: &'static str,
}

const fn key(form: &'static str, kind: KeyType, holds: &'static str) -> KeyPattern {
    KeyPattern { pattern: form, key_type: kind, description: holds }
}

/// All of them. Those marked "reserved" are named here so that nothing else takes their place.
pub const PATTERNS: &[KeyPattern] = &[
    key("task:<id>", KeyType::Hash, "a task; fields in record.rs; written by every transition"),
    key(
        "slot:<queue>:<priority>:<slot>",
        KeyType::Zset,
        "ids of ready tasks by seq; whatever makes a task ready or takes it",
    ),
    key(
        "wheel:<queue>",
        KeyType::Zset,
        "`<priority>:<slot>` of slots with ready tasks, by (9-priority)*2^49 + turn; as above",
    ),
    key(
        "ready",
        KeyType::Zset,
        "queues with a wheel that is not empty and not paused, by the priority at its front; as above",
    ),
    key("scheduled:<queue>", KeyType::Zset, "ids by run time; submit, fail, release, reap; promote"),
    key("leased:<queue>", KeyType::Zset, "ids by the end of the lease; claim, heartbeat; all ends of a lease"),
    key(
        "due",
        KeyType::Zset,
        "queues by a time not later than their first in scheduled and leased; promote sets it anew",
    ),
    key(
        "expirations",
        KeyType::Zset,
        "ids of waiting tasks that have one, by expires_at; whatever makes a task wait or not",
    ),
    key("ended:<queue>:<state>", KeyType::Zset, "ids by the time of the end; all ends; retry, remove"),
    key("retention", KeyType::Zset, "ids of ended tasks by the time to drop them; all ends; retry, remove"),
    key("count:<queue>", KeyType::Hash, "field for each state, submitted, removed; every transition"),
    key("count", KeyType::Hash, "the same for the whole shard, deleted queues included; every transition"),
    key(
        "dedupe:<queue>:<digest>",
        KeyType::String,
        "id of the holder, then the end of the window in ms if any; submit, all ends",
    ),
    key("idempotency:<digest>", KeyType::Hash, "body, id, status, until: an Idempotency-Key; remember"),
    key("claim:<digest>", KeyType::Set, "ids leased under a claim id; claim, all ends of a lease"),
    key(
        "callers",
        KeyType::Hash,
        "pump -> number, time, answer of its last call; <pump>:sums -> what it has at hand; every script that writes; tidy",
    ),
    key(
        "events_enabled",
        KeyType::String,
        "until when scripts report what they change, in s of Redis' own clock, and the name of since when; listen",
    ),
    key("absent_guard", KeyType::String, "never exists; declared by every call, see client.rs"),
    key("settings_copy:<queue>", KeyType::Hash, "the shard's copy of the settings: version, paused; configure"),
    key("queues", KeyType::Zset, "names of queues that this shard has seen, score 0; submit, configure"),
    key("seq", KeyType::Hash, "seq, turn: counters; whatever queues a task"),
    key(
        "meta",
        KeyType::Hash,
        "first shard only: shards, id of the data set, whether all have a pulse; the first start",
    ),
    key(
        "dataset",
        KeyType::Hash,
        "set, beats, accepted: by which a loss of data is noticed; waits: how often replicas were; beat, replicas.rs",
    ),
    key("settings:<queue>", KeyType::Hash, "first shard only: master copy of the settings; settings"),
    key("settings_index", KeyType::Zset, "first shard only: names of queues that have settings, score 0; settings"),
    key(
        "stats:<bucket>",
        KeyType::Hash,
        "sums of 5 s put away, `<queue>:<name>` and `:<name>` for the shard: submit, claim, all ends of a lease; goes by itself",
    ),
    key(
        "lease_samples",
        KeyType::Hash,
        "bucket -> since when, and who has held how many leases since, of the last 40 s; sample",
    ),
    key("workers", KeyType::Hash, "first shard only: worker -> first and last sight, last claim, what is known; sight"),
    key("workers_seen", KeyType::Zset, "first shard only: the same by the time of the last sight; sight"),
    key("arc:<queue>", KeyType::Zset, "reserved: slots of a queue in order of their number, for affinity"),
    key("held:<queue>", KeyType::Hash, "reserved: slot -> leases or holder, for limits per slot"),
    key("waking", KeyType::Zset, "reserved: queues by the time that frees them"),
    key("outbox", KeyType::List, "reserved: effects on other shards"),
];

/// The keys of one shard.
#[derive(Clone, Debug)]
pub struct Keys {
    base: String,
}

impl Keys {
    /// The keys under `<prefix>:{<tag>}:`.
    pub fn new(prefix: &str, tag: u32) -> Self {
        Keys { base: format!("{prefix}:{{{tag}}}:") }
    }

    /// What every key of the shard begins with.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn text_key(&self, rest: &str) -> Vec<u8> {
        [self.base.as_bytes(), rest.as_bytes()].concat()
    }

    fn binary_key(&self, kind: &str, id: &[u8]) -> Vec<u8> {
        [self.base.as_bytes(), kind.as_bytes(), id].concat()
    }

    /// `task:<id>`
    pub fn task(&self, id: &TaskId) -> Vec<u8> {
        self.binary_key("task:", id.as_bytes())
    }

    /// `slot:<queue>:<priority>:<slot>`
    pub fn slot(&self, queue: &QueueName, priority: u8, slot: Slot) -> Vec<u8> {
        self.text_key(&format!("slot:{queue}:{priority}:{}", slot.number()))
    }

    /// `wheel:<queue>`
    pub fn wheel(&self, queue: &QueueName) -> Vec<u8> {
        self.text_key(&format!("wheel:{queue}"))
    }

    /// `ready`
    pub fn ready(&self) -> Vec<u8> {
        self.text_key("ready")
    }

    /// `due`
    pub fn due(&self) -> Vec<u8> {
        self.text_key("due")
    }

    /// `scheduled:<queue>`
    pub fn scheduled(&self, queue: &QueueName) -> Vec<u8> {
        self.text_key(&format!("scheduled:{queue}"))
    }

    /// `leased:<queue>`
    pub fn leased(&self, queue: &QueueName) -> Vec<u8> {
        self.text_key(&format!("leased:{queue}"))
    }

    /// `ended:<queue>:<state>`
    pub fn ended(&self, queue: &QueueName, state: State) -> Vec<u8> {
        self.text_key(&format!("ended:{queue}:{state}"))
    }

    /// `count:<queue>`
    pub fn queue_counts(&self, queue: &QueueName) -> Vec<u8> {
        self.text_key(&format!("count:{queue}"))
    }

    /// `count`
    pub fn shard_counts(&self) -> Vec<u8> {
        self.text_key("count")
    }

    /// `claim:<digest>`
    pub fn claim(&self, digest: &Digest) -> Vec<u8> {
        self.binary_key("claim:", digest.as_bytes())
    }

    /// `callers`
    pub fn callers(&self) -> Vec<u8> {
        self.text_key("callers")
    }

    /// `events_enabled`
    pub fn events_enabled(&self) -> Vec<u8> {
        self.text_key("events_enabled")
    }

    /// `absent_guard`
    pub fn absent_guard(&self) -> Vec<u8> {
        self.text_key("absent_guard")
    }

    /// `settings_copy:<queue>`
    pub fn queue(&self, queue: &QueueName) -> Vec<u8> {
        self.text_key(&format!("settings_copy:{queue}"))
    }

    /// `queues`
    pub fn queues(&self) -> Vec<u8> {
        self.text_key("queues")
    }

    /// `retention`
    pub fn retention(&self) -> Vec<u8> {
        self.text_key("retention")
    }

    /// `meta`
    pub fn meta(&self) -> Vec<u8> {
        self.text_key("meta")
    }

    /// `dataset`
    pub fn dataset(&self) -> Vec<u8> {
        self.text_key("dataset")
    }

    /// `settings:<queue>`
    pub fn settings(&self, queue: &QueueName) -> Vec<u8> {
        self.text_key(&format!("settings:{queue}"))
    }

    /// `settings_index`
    pub fn settings_index(&self) -> Vec<u8> {
        self.text_key("settings_index")
    }

    /// `lease_samples`
    pub fn lease_samples(&self) -> Vec<u8> {
        self.text_key("lease_samples")
    }

    /// `workers`
    pub fn workers(&self) -> Vec<u8> {
        self.text_key("workers")
    }

    /// `workers_seen`
    pub fn workers_seen(&self) -> Vec<u8> {
        self.text_key("workers_seen")
    }

    /// The channel on which the shard's scripts publish hints.
    pub fn wakeups_channel(&self) -> String {
        format!("{}wakeups", self.base)
    }

    /// The channel on which they report what becomes of tasks, while somebody listens.
    pub fn events_channel(&self) -> String {
        format!("{}events", self.base)
    }
}

/// For each shard the least decimal string whose Redis slot is the shard's first slot.
pub fn tags(shards: Shards) -> Vec<u32> {
    let mut tags = vec![None; usize::from(shards.count())];
    let mut missing = tags.len();
    // Strings up to 109757 cover all 16384 slots.
    for candidate in 0..=109_757u32 {
        if missing == 0 {
            break;
        }
        let slot = Slot::of_key(candidate.to_string().as_bytes());
        if !slot.number().is_multiple_of(SLOT_COUNT / shards.count()) {
            continue;
        }
        if let Some(tag @ None) = tags.get_mut(shards.shard_of(slot)) {
            *tag = Some(candidate);
            missing -= 1;
        }
    }
    tags.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_tags_lie_in_the_first_slot_of_their_shard() {
        for count in [1, 16, 1024] {
            let shards = Shards::new(count).unwrap();
            let tags = tags(shards);
            assert_eq!(tags.len(), usize::from(count));
            for (index, tag) in tags.iter().enumerate() {
                let base = Keys::new("sw", *tag);
                assert_eq!(Slot::of_key(base.base().as_bytes()).number(), shards.slot_range(index).0);
            }
        }
    }

    #[test]
    fn first_shard_has_the_same_tag_for_any_shard_count() {
        let first = |count| tags(Shards::new(count).unwrap())[0];
        assert_eq!(first(1), first(1024));
    }
}
