//! Every key of the store: its pattern, type, content and writers. Scripts build the same keys from the same base; their
//! headers declare them by these patterns.
//!
//! All keys of a shard start with its base, `<prefix>:{<tag>}:`. The tag is a decimal string whose Redis slot is the first
//! slot of the shard, so that shards spread over a Cluster's masters as slots do. Ids and digests are 16 raw bytes. The
//! only user text in a key is the name of a queue, which contains neither colon nor brace.

use std::sync::Arc;

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
    Any,
}

/// One kind of key.
#[derive(Debug)]
pub struct KeyPattern {
    /// The part after the base; `<…>` marks the variable parts.
    pub pattern: &'static str,
    /// Its type.
    pub key_type: KeyType,
    /// Its content; then its writers.
    pub description: &'static str,
}

const fn key(pattern: &'static str, key_type: KeyType, description: &'static str) -> KeyPattern {
    KeyPattern { pattern, key_type, description }
}

/// All keys. Those marked "reserved" are listed so that no other use takes their name.
pub const PATTERNS: &[KeyPattern] = &[
    key("task:<id>", KeyType::Hash, "a task, fields in record.rs; every transition"),
    key(
        "slot:<queue>:<priority>:<slot>",
        KeyType::Zset,
        "slot queue: ids of ready tasks by seq; every transition to or from ready",
    ),
    key(
        "slot:<queue>:<priority>:<slot>:<piece>",
        KeyType::Zset,
        "a piece of a long slot queue: the ids of 32 seqs behind those in the slot queue; as above",
    ),
    key(
        "slot:<queue>:<priority>:<slot>:k",
        KeyType::Zset,
        "keyed slot queue: digest of the key, seq in 6 bytes and id of ready tasks with a key, score 0; as above",
    ),
    key(
        "wheel:<queue>",
        KeyType::Zset,
        "names of slot queues, `<priority>:<slot>` or `<priority>:<slot>:k`, by (9 - priority) * 2^49 + turn; as above",
    ),
    key("scheduled:<queue>", KeyType::Zset, "ids by run_at; submit, fail, release, expire_leases, promote"),
    key("leased:<queue>", KeyType::Zset, "ids by lease_until; claim, heartbeat, ends of leases"),
    key(
        "due",
        KeyType::Zset,
        "queues by a time at or before their first in scheduled and leased, which is in their record too; as these, promote",
    ),
    key("expirations", KeyType::Zset, "ids of waiting tasks by expires_at; every transition to or from waiting"),
    key(
        "ended:<queue>:<state>",
        KeyType::Zset,
        "ids of ended tasks by the time of their end; ends of tasks, retry, delete",
    ),
    key(
        "ended:<queue>:<state>:<piece>",
        KeyType::Zset,
        "a piece of a long list of ended tasks: those with 32 consecutive positions of their end; as above",
    ),
    key(
        "retention",
        KeyType::Zset,
        "ids of ended tasks by the end of their own retention; ends of tasks, retry, delete",
    ),
    key(
        "ended_due",
        KeyType::Zset,
        "`<queue>:<state>` by the end of the default retention of the first task in `ended:<queue>:<state>` that has no own \
         one and was not looked at; ends of tasks, purge_ended, remove_queue",
    ),
    key(
        "dedupe:<queue>:<digest>",
        KeyType::String,
        "id of the task that holds the key, then the end of its window in ms, if any; submit, retry, ends of tasks",
    ),
    key("idempotency:<digest>", KeyType::Hash, "an Idempotency-Key: body, id, status, until; idempotency"),
    key("claim:<digest>", KeyType::Set, "ids leased under a claim id; claim, ends of leases"),
    key(
        "callers",
        KeyType::Hash,
        "<caller> -> its last call, with counters that are not in stats yet; every script that writes, prune_callers; \
         queue:<queue> -> counts, front, time in due, paused, seq, passes; every transition, apply_settings, remove_queue; shard -> counts, \
         turn; every transition; layout.rs has the bytes of all these; clock -> last touch, shift, last change of the \
         shift; touch_clock, confirm_clock; events -> end of the time in which scripts publish events, in s by Redis' clock, \
         and the name of its start; enable_events",
    ),
    key("outages", KeyType::Zset, "`<from> <until>` of the last outages by from; confirm_clock"),
    key(
        "absent_guard:<scope>",
        KeyType::String,
        "never exists; declared by every call, see redis/client.rs; the scope is that of the channels",
    ),
    key("settings_copy:<queue>", KeyType::Hash, "the shard's copy of the settings: version, paused; apply_settings"),
    key("queues", KeyType::Zset, "names of the shard's queues, score 0; submit, apply_settings, remove_queue"),
    key(
        "meta",
        KeyType::Hash,
        "first shard: shards, id of the data set, version of its layout, has_markers; the first start",
    ),
    key(
        "dataset",
        KeyType::Hash,
        "marker that detects a loss of data: dataset, generation, accepted_at, replica_waits; touch_dataset, \
         redis/replication.rs",
    ),
    key(
        "settings:<queue>",
        KeyType::Hash,
        "first shard: master copy of the settings, removed_at if removed; set_settings, remove_settings",
    ),
    key(
        "settings_index",
        KeyType::Zset,
        "first shard: names of queues with settings, score 0; set_settings, remove_settings",
    ),
    key(
        "stats:<bucket>",
        KeyType::Hash,
        "counters of 5 s, `<queue>:<name>` and `:<name>` for the shard; submit, claim, ends of leases; expires",
    ),
    key(
        "lease_samples",
        KeyType::Hash,
        "<5 s> -> time, and for each worker its leases held since then, of the last 40 s; sample_leases",
    ),
    key(
        "workers",
        KeyType::Hash,
        "first shard: worker -> first and last seen, last claim, description; record_workers",
    ),
    key("workers_seen", KeyType::Zset, "first shard: workers by the time they were last seen; record_workers"),
    key("quarantine:<time>:<key>", KeyType::Any, "an unreadable key that was set aside, under its name; repair"),
    key("arc:<queue>", KeyType::Zset, "reserved: slots of a queue by number, for affinity"),
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

    /// The prefix of every key of the shard.
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

    /// The key of a slot queue by its name on the wheel.
    pub fn slot_queue(&self, queue: &QueueName, member: &str) -> Vec<u8> {
        self.text_key(&format!("slot:{queue}:{member}"))
    }

    /// `slot:<queue>:<priority>:<slot>:<piece>`
    pub fn piece(&self, queue: &QueueName, priority: u8, slot: Slot, piece: i64) -> Vec<u8> {
        self.text_key(&format!("slot:{queue}:{priority}:{}:{piece}", slot.number()))
    }

    /// `slot:<queue>:<priority>:<slot>:k`
    pub fn keyed_slot(&self, queue: &QueueName, priority: u8, slot: Slot) -> Vec<u8> {
        self.text_key(&format!("slot:{queue}:{priority}:{}:k", slot.number()))
    }

    /// `wheel:<queue>`
    pub fn wheel(&self, queue: &QueueName) -> Vec<u8> {
        self.text_key(&format!("wheel:{queue}"))
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

    /// `claim:<digest>`
    pub fn claim(&self, digest: &Digest) -> Vec<u8> {
        self.binary_key("claim:", digest.as_bytes())
    }

    /// `outages`
    pub fn outages(&self) -> Vec<u8> {
        self.text_key("outages")
    }

    /// `callers`
    pub fn callers(&self) -> Vec<u8> {
        self.text_key("callers")
    }

    /// `absent_guard:<scope>`
    pub fn absent_guard(&self, scope: &ChannelScope) -> Vec<u8> {
        [self.base.as_bytes(), b"absent_guard:", scope.0.as_bytes()].concat()
    }

    /// `settings_copy:<queue>`
    pub fn settings_copy(&self, queue: &QueueName) -> Vec<u8> {
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

    /// The channel of wake-ups: a queue is ready, a task is due or has ended, or a server has waiters.
    pub fn wakeups_channel(&self, scope: &ChannelScope) -> String {
        format!("{}wakeups:{scope}", self.base)
    }

    /// The channel of events: the transitions of tasks, while a server subscribes to them.
    pub fn events_channel(&self, scope: &ChannelScope) -> String {
        format!("{}events:{scope}", self.base)
    }
}

/// The scope of channels: `<database>:<id of the data set>`. All databases of a Redis share its channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelScope(Arc<str>);

impl ChannelScope {
    /// Returns the scope of a data set in a database.
    pub fn new(database: i64, dataset_id: &str) -> Self {
        ChannelScope(format!("{database}:{dataset_id}").into())
    }
}

impl std::fmt::Display for ChannelScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns for each shard the smallest decimal string whose Redis slot is the shard's first slot.
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
