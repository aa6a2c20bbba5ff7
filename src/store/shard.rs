//! The store, its shards, and calls of scripts that are safe to send twice.

use std::sync::Arc;

use deadpool_redis::redis::{Cmd, Pipeline, Value};
use tokio::sync::watch;

use super::circuit_breaker::CircuitBreaker;
use super::error::Result;
use super::keys::{ChannelScope, Keys, tags};
use super::memory::MemoryGauge;
use super::metrics::Transitions;
use super::notes::Notes;
use super::redis::client::Client;
use super::redis::replication::{Replication, WrittenCall};
use super::redis::script::Script;
use crate::degradations::Degradations;
use crate::domain::id::TaskId;
use crate::domain::slot::{Shards, Slot};

/// All shards of a data set.
#[derive(Clone, Debug)]
pub struct Store {
    shards: Arc<[Shard]>,
    layout: Shards,
    prefix: Arc<str>,
    client: Arc<Client>,
    channel_scope: Arc<watch::Sender<ChannelScope>>,
    degradations: Arc<Degradations>,
}

impl Store {
    /// Returns the store of the data set with this id. All its keys begin with `prefix`.
    pub fn new(client: Arc<Client>, layout: Shards, dataset_id: &str, prefix: &str) -> Self {
        let scope = ChannelScope::new(client.database(), dataset_id);
        let channel_scope = Arc::new(watch::Sender::new(scope));
        let degradations: Arc<Degradations> = Arc::default();
        let unreadable = Arc::new(Notes::new(degradations.clone()));
        let shards = tags(layout).into_iter().enumerate();
        let shards = shards.map(|(index, tag)| Shard {
            index,
            keys: Arc::new(Keys::new(prefix, tag)),
            breaker: Arc::new(CircuitBreaker::new(index)),
            memory: Arc::default(),
            client: client.clone(),
            channel_scope: channel_scope.clone(),
            replication: None,
            unreadable: unreadable.clone(),
        });
        let shards = shards.collect();
        Store { shards, layout, prefix: prefix.into(), client, channel_scope, degradations }
    }

    /// Returns a store that confirms a submit only when replicas have it.
    pub fn with_replication(self, replication: Option<Replication>) -> Self {
        let replication = replication.map(Arc::new);
        let shards = self.shards.iter().map(|shard| Shard { replication: replication.clone(), ..shard.clone() });
        Store { shards: shards.collect(), ..self }
    }

    /// Returns the division of slots into shards.
    pub fn layout(&self) -> Shards {
        self.layout
    }

    /// Returns the prefix of all keys and channels.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the scope of all channels. It changes when another data set is accepted.
    pub(super) fn channel_scope(&self) -> watch::Receiver<ChannelScope> {
        self.channel_scope.subscribe()
    }

    /// Returns the Redis client.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Returns the degradations of this server.
    pub fn degradations(&self) -> &Arc<Degradations> {
        &self.degradations
    }

    /// Returns all shards in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Returns the shard that holds `slot`.
    pub fn shard_for_slot(&self, slot: Slot) -> &Shard {
        let index = self.layout.shard_of(slot).min(self.shards.len() - 1);
        // There is at least one shard, and `shard_of` returns less than their number.
        #[allow(clippy::indexing_slicing)]
        &self.shards[index]
    }

    /// Returns the shard that holds the task.
    pub fn shard_for_task(&self, id: &TaskId) -> &Shard {
        self.shard_for_slot(id.slot())
    }

    /// Returns the first shard. It alone holds the data set's meta key, the master copies of settings, and the workers.
    pub fn first_shard(&self) -> &Shard {
        #[allow(clippy::indexing_slicing)]
        &self.shards[0]
    }
}

/// A range of slots. All its keys have one hash tag.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The index, from 0.
    pub index: usize,
    /// The keys.
    pub keys: Arc<Keys>,
    /// Rejects calls while the shard is unavailable or its data is lost.
    pub breaker: Arc<CircuitBreaker>,
    /// The memory of its Redis, as last read.
    pub memory: Arc<MemoryGauge>,
    client: Arc<Client>,
    channel_scope: Arc<watch::Sender<ChannelScope>>,
    replication: Option<Arc<Replication>>,
    unreadable: Arc<Notes>,
}

/// The caller of scripts that write: a random id and the number of its last call.
///
/// Calls of one caller never overlap, because each borrows it mutably. A shard therefore remembers only the last call
/// of a caller, and answers a repeated call with the first reply.
#[derive(Debug)]
pub struct Caller {
    id: Arc<str>,
    sequence: u64,
}

impl Caller {
    /// Returns a caller with a new random id.
    pub fn new() -> Self {
        Caller { id: format!("{:016x}", rand::random::<u64>()).into(), sequence: 0 }
    }
}

impl Default for Caller {
    fn default() -> Self {
        Caller::new()
    }
}

/// A call of a script that writes.
pub(super) struct ScriptCall<'a> {
    shard: &'a Shard,
    script: &'static Script,
    command: Cmd,
    caller_id: Arc<str>,
    sequence: u64,
}

impl ScriptCall<'_> {
    pub(super) fn push(&mut self, argument: impl AsRef<[u8]>) -> &mut Self {
        self.command.arg(argument.as_ref());
        self
    }

    pub(super) fn push_int(&mut self, argument: impl Into<i64>) -> &mut Self {
        self.command.arg(argument.into());
        self
    }

    pub(super) fn push_usize(&mut self, argument: usize) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// Sends the call, and repeats it under the same number while no reply comes. The script runs once.
    pub(super) async fn send(&self) -> Result<Value> {
        self.shard.breaker.call(self.run_script()).await
    }

    /// Sends the call in spite of a data loss: for the call that detects the loss.
    pub(super) async fn send_unchecked(&self) -> Result<Value> {
        self.shard.breaker.call_unchecked(self.run_script()).await
    }

    /// Returns when the required number of replicas have the call's writes.
    pub(super) async fn wait_for_replicas(&self) -> Result<()> {
        let Some(replication) = &self.shard.replication else { return Ok(()) };
        let keys = &self.shard.keys;
        let call = WrittenCall {
            callers_key: keys.callers(),
            dataset_key: keys.dataset(),
            caller_id: &self.caller_id,
            sequence: self.sequence,
        };
        let outcome = replication.wait(call).await;
        // The metrics of the replication client are not exported, so its errors are counted here.
        if let Err(error) = &outcome {
            self.shard.client.metrics().errors.record(error);
        }
        outcome
    }

    /// Returns the counters of transitions.
    pub(super) fn transitions(&self) -> &Transitions {
        self.shard.transitions()
    }

    async fn run_script(&self) -> Result<Value> {
        self.shard.client.run_script(self.script, &self.command).await
    }
}

impl Shard {
    /// Returns a new call of a script that writes. The caller appends the arguments.
    pub(super) fn call(&self, script: &'static Script, caller: &mut Caller) -> ScriptCall<'_> {
        caller.sequence += 1;
        let Caller { id: caller_id, sequence } = caller;
        let mut command = self.command(script);
        command.arg(&**caller_id).arg(*sequence).arg(self.client.clock_offset_ms());
        ScriptCall { shard: self, script, command, caller_id: caller_id.clone(), sequence: *sequence }
    }

    fn command(&self, script: &Script) -> Cmd {
        let absent_guard = self.keys.absent_guard(&self.channel_scope.borrow());
        let mut command = self.client.evalsha(script, [self.keys.callers(), absent_guard]);
        command.arg(self.keys.base());
        command
    }

    /// Runs a script that only reads. Its ARGV are base, offset_ms, then `args`.
    pub(super) async fn read_script(&self, script: &'static Script, args: Vec<Vec<u8>>) -> Result<Value> {
        let mut command = self.command(script);
        command.arg(self.client.clock_offset_ms()).arg(args);
        self.breaker.call(self.client.run_script(script, &command)).await
    }

    /// Sends one command. It may arrive twice.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value> {
        self.breaker.call(self.client.send(command)).await
    }

    /// Sends commands together and returns one reply for each. They may arrive twice.
    pub(super) async fn send_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        self.breaker.call(self.client.send_pipeline(pipeline)).await
    }

    /// Returns the channel of wake-ups.
    pub fn wakeups_channel(&self) -> String {
        self.keys.wakeups_channel(&self.channel_scope.borrow())
    }

    /// Returns the channel of events.
    pub fn events_channel(&self) -> String {
        self.keys.events_channel(&self.channel_scope.borrow())
    }

    /// Publishes and hears messages of this data set from now on: it was accepted in place of the one before.
    pub(super) fn accept_dataset(&self, id: &str) {
        let accepted = ChannelScope::new(self.client.database(), id);
        self.channel_scope.send_if_modified(|scope| std::mem::replace(scope, accepted.clone()) != accepted);
    }

    /// Whether a submit waits for replicas.
    pub(super) fn waits_for_replicas(&self) -> bool {
        self.replication.is_some()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the notes of unreadable data, of all shards.
    pub fn unreadable(&self) -> &Notes {
        &self.unreadable
    }

    /// Returns the counters of transitions.
    pub(super) fn transitions(&self) -> &Transitions {
        &self.client.metrics().transitions
    }
}
