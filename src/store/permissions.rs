//! Permissions: every command that the store sends or a script calls, and whether the user of Redis may run it.
//!
//! A script that meets a forbidden command stops half-way. Therefore a server refuses to start without a required
//! permission, and rejects requests when it loses one while it runs. Channels only make work faster: without them it is
//! found by polls.

use std::collections::BTreeSet;

use deadpool_redis::redis::{Cmd, cmd};

use super::error::Result;
use super::keys::{ChannelScope, Keys};
use super::redis::client::Client;
use super::shard::Store;
use crate::degradations::Reason;

/// The part of Slotwheel that needs a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Every server.
    Always,
    /// Wake-ups and events.
    Channels,
    /// A server on a Cluster.
    Cluster,
    /// A server with a database other than 0.
    Database,
    /// A server with the durability `replicated`.
    Replicated,
    /// The check of the settings of Redis.
    Settings,
    /// Making room before the memory of Redis is full, and its figures.
    Memory,
    /// `slotwheel doctor`.
    Doctor,
}

/// A command of Redis.
#[derive(Debug)]
pub struct Command {
    /// Its name as in ACL rules, with the subcommand.
    pub name: &'static str,
    /// The part that needs it.
    pub need: Need,
    /// Arguments with which it changes nothing; `KEY` is a key that never exists. `None`: there are none, or another part of
    /// the store notices the missing permission.
    probe: Option<&'static [&'static str]>,
}

/// Defines [`COMMANDS`].
macro_rules! commands {
    ($($need:ident: $($name:literal $([$($argument:literal)*])?),*;)*) => {
        /// All commands. A test compares them with the code.
        pub const COMMANDS: &[Command] = &[
            $($(Command { name: $name, need: Need::$need, probe: commands!(@probe $([$($argument)*])?) },)*)*
        ];
    };
    (@probe) => { None };
    (@probe [$($argument:literal)*]) => { Some(&[$($argument),*]) };
}

commands! {
    Always:
        "del" ["KEY"], "eval" ["return 0" "1" "KEY"], "evalsha" ["0" "1" "KEY"], "exists" ["KEY"], "get" ["KEY"],
        "hdel" ["KEY" "field"], "hget" ["KEY" "field"], "hgetall" ["KEY"], "hkeys" ["KEY"], "hmget" ["KEY" "field"],
        // Redis rejects an odd number of fields and values after it has checked the permission.
        "hscan" ["KEY" "0"], "hset" ["KEY" "field" "value" "odd"],
        // Creates the data set: its failure is the start's.
        "hsetnx",
        "hstrlen" ["KEY" "field"],
        "pexpire" ["KEY" "1"], "ping" [], "pttl" ["KEY"],
        "memory|usage" ["KEY"],
        // It has no form without effect.
        "sadd",
        "set" ["KEY" "value" "XX"], "sismember" ["KEY" "member"], "smembers" ["KEY"], "srem" ["KEY" "member"], "time" [], "type" ["KEY"],
        "zadd" ["KEY" "XX" "1" "member"], "zcard" ["KEY"], "zcount" ["KEY" "0" "1"], "zmscore" ["KEY" "member"], "zrandmember" ["KEY" "1"],
        "zrange" ["KEY" "0" "0"], "zrangebylex" ["KEY" "-" "+"], "zrangebyscore" ["KEY" "0" "1"], "zrank" ["KEY" "member"],
        "zrem" ["KEY" "member"], "zrevrank" ["KEY" "member"], "zscore" ["KEY" "member"], "zunionstore" ["KEY" "2" "KEY" "KEY"];
    // Publishing is checked on the channels themselves, and pub/sub reports a subscription that fails.
    Channels: "spublish", "ssubscribe";
    Cluster: "asking", "cluster|info", "cluster|slots";
    Database: "select";
    // The last argument of HINCRBY is no number.
    Replicated: "hincrby" ["KEY" "field" "text"], "wait" ["0" "0"];
    Settings: "config|get";
    Memory: "info";
    Doctor: "rename", "scan";
}

/// Returns the ACL rules that suffice for a server, and for the doctor, with this prefix.
pub fn sufficient_rules(prefix: &str) -> String {
    let commands = COMMANDS.iter().map(|command| format!("+{}", command.name)).collect::<Vec<_>>().join(" ");
    format!("~{prefix}:* &{prefix}:* {commands}")
}

/// Returns the missing permissions that a server requires, and the ACL rules to add. `None`: there are none.
///
/// # Errors
/// If Redis gives no reply.
pub async fn missing(client: &Client, keys: &Keys, prefix: &str, is_replicated: bool) -> Result<Option<String>> {
    let (mut rules, key) = (BTreeSet::new(), keys.absent_guard(&ChannelScope::new(client.database(), "")));
    let is_required = |need| need == Need::Always || (need == Need::Replicated && is_replicated);
    for command in COMMANDS.iter().filter(|command| is_required(command.need)) {
        let Some(arguments) = command.probe else { continue };
        if let Some(denial) = client.denial(&key, &probe(command.name, arguments, &key)).await? {
            // The key is checked after the command.
            let is_command = denial.contains("to run the");
            rules.insert(if is_command { format!("+{}", command.name) } else { format!("~{prefix}:*") });
        }
    }
    if rules.is_empty() {
        return Ok(None);
    }
    let rules = rules.into_iter().collect::<Vec<_>>().join(" ");
    Ok(Some(format!("these ACL rules are missing: {rules}")))
}

fn probe(name: &str, arguments: &[&str], key: &[u8]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(name.split('|').collect::<Vec<_>>());
    for argument in arguments {
        match *argument {
            "KEY" => command.arg(key),
            argument => command.arg(argument),
        };
    }
    command
}

/// Checks the permissions of a server that runs, in the shards where one was missing and in shard `index`.
#[derive(Default, Debug)]
pub struct PermissionMonitor {
    index: usize,
}

impl PermissionMonitor {
    /// Checks the next shard, and the shards where a permission was missing. Blocks or admits their requests, and raises or
    /// clears the degradation of channels.
    pub async fn check(&mut self, store: &Store) -> Result<()> {
        self.index = (self.index + 1) % store.shards().len();
        check_shards(store, self.index).await
    }
}

/// Checks a shard, and those where a permission was missing.
pub async fn check_shards(store: &Store, index: usize) -> Result<()> {
    for shard in store.shards() {
        if shard.index == index || shard.breaker.is_denied() {
            let is_replicated = shard.waits_for_replicas();
            let missing = missing(store.client(), &shard.keys, store.prefix(), is_replicated).await?;
            shard.breaker.set_denial(missing);
        }
    }
    let Some(shard) = store.shards().get(index) else { return Ok(()) };
    // No events, and a wake-up that says nothing.
    let messages = [(shard.wakeups_channel(), &b""[..]), (shard.events_channel(), b"\x91\x00")];
    let mut denied = false;
    for (channel, message) in messages {
        let publish = cmd("SPUBLISH").arg(&channel).arg(message).to_owned();
        denied |= store.client().denial(channel.as_bytes(), &publish).await?.is_some();
    }
    report_channels(store, "spublish", denied);
    Ok(())
}

/// Raises or clears the degradation of a command of pub/sub.
pub(super) fn report_channels(store: &Store, command: &str, is_denied: bool) {
    if !is_denied {
        store.degradations().clear(Reason::MissingPermission, command);
        return;
    }
    let prefix = store.prefix();
    let detail = format!(
        "the user of Redis lacks permissions of channels: waiting requests are woken by polls only, and /events has \
         gaps only. Add these ACL rules to it: +spublish +ssubscribe &{prefix}:*"
    );
    store.degradations().raise(Reason::MissingPermission, command, detail);
}
