//! The store, its shards, and calls of scripts that are safe to send twice.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deadpool_redis::redis::{Cmd, Pipeline, Value};
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::Instant;

pub use super::caller::Caller;
use super::caller::CallerPool;
use super::circuit_breaker::CircuitBreaker;
use super::clock::{ShardClock, Uptime, unconfirmed};
use super::error::{Error, Result};
use super::keys::{ChannelScope, Keys, tags};
use super::memory::MemoryGauge;
use super::metrics::Transitions;
use super::notes::Notes;
use super::redis::client::{CALL_DEADLINE, Client};
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
    callers: Arc<CallerPool>,
    /// The number of shards whose circuit breakers reject requests.
    blocked_shards: Arc<AtomicUsize>,
}

impl Store {
    /// Returns the store of the data set with this id. All its keys begin with `prefix`.
    pub fn new(client: Arc<Client>, layout: Shards, dataset_id: &str, prefix: &str) -> Self {
        let scope = ChannelScope::new(client.database(), dataset_id);
        let channel_scope = Arc::new(watch::Sender::new(scope));
        let degradations: Arc<Degradations> = Arc::default();
        let unreadable = Arc::new(Notes::new(degradations.clone()));
        let blocked_shards: Arc<AtomicUsize> = Arc::default();
        let shards = tags(layout).into_iter().enumerate();
        let shards = shards.map(|(index, tag)| {
            let keys = Arc::new(Keys::new(prefix, tag));
            Shard {
                index,
                keys: keys.clone(),
                breaker: Arc::new(CircuitBreaker::new(index, blocked_shards.clone())),
                memory: Arc::new(MemoryGauge::new(layout.count())),
                clock: Arc::new(ShardClock::new(
                    index,
                    client.clone(),
                    keys,
                    degradations.clone(),
                    channel_scope.clone(),
                )),
                client: client.clone(),
                channel_scope: channel_scope.clone(),
                replication: None,
                unreadable: unreadable.clone(),
            }
        });
        let shards = shards.collect();
        let callers = Arc::default();
        Store { shards, layout, prefix: prefix.into(), client, channel_scope, degradations, callers, blocked_shards }
    }

    /// Returns a store that confirms a submit only when replicas have it.
    pub fn with_replication(self, replication: Option<Replication>) -> Self {
        let replication = replication.map(Arc::new);
        let shards = self.shards.iter().map(|shard| Shard { replication: replication.clone(), ..shard.clone() });
        Store { shards: shards.collect(), ..self }
    }

    /// Returns the callers of operations without a loop of their own.
    pub(super) fn callers(&self) -> &CallerPool {
        &self.callers
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

    /// Returns the shards whose circuit breakers reject requests. Usually there is none, and no breaker is asked.
    pub fn blocked_shards(&self) -> impl Iterator<Item = &Shard> {
        let some_are = self.blocked_shards.load(Ordering::Relaxed) > 0;
        self.shards.iter().take_while(move |_| some_are).filter(|shard| shard.breaker.check().is_err())
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

    /// Touches the clock of every shard.
    pub async fn touch_clocks(&self) -> Result<()> {
        try_join_all(self.shards.iter().map(Shard::touch_clock)).await.map(drop)
    }

    /// Returns the first shard. It alone holds the data set's meta key, the master copies of settings, and the workers.
    pub fn first_shard(&self) -> &Shard {
        #[allow(clippy::indexing_slicing)]
        &self.shards[0]
    }
}

/// The maximum number of calls of a script that are refused because the clock is not confirmed. One touch suffices, if
/// nothing happens to the clock or to Redis after it.
const MAX_TOUCHES: usize = 3;

/// Precedes the clock offset of a script that only reads, and then accepts an unconfirmed clock.
const ACCEPTS_UNCONFIRMED: &str = "?";

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
    /// Confirms the clock, which its scripts require.
    pub clock: Arc<ShardClock>,
    client: Arc<Client>,
    channel_scope: Arc<watch::Sender<ChannelScope>>,
    replication: Option<Arc<Replication>>,
    unreadable: Arc<Notes>,
}

/// A call of a script that writes.
pub(super) struct ScriptCall<'a> {
    shard: &'a Shard,
    script: &'static Script,
    /// Whether Redis rejects the call when it is full, though the script may run then.
    is_growing: bool,
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
        self.shard.breaker.call(pin!(self.run_script())).await
    }

    /// Sends the call in spite of a data loss: for the call that detects the loss.
    pub(super) async fn send_unchecked(&self) -> Result<Value> {
        self.shard.breaker.call_unchecked(pin!(self.run_script())).await
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
        let deadline = Instant::now() + CALL_DEADLINE;
        for _ in 0..MAX_TOUCHES {
            let called_at = Uptime::now();
            if let Some(reply) =
                self.shard.client.run_script(self.script, self.is_growing, &self.command, deadline).await?
            {
                return Ok(reply);
            }
            self.shard.clock.confirm_since(called_at, deadline).await?;
        }
        Err(unconfirmed())
    }
}

impl Shard {
    /// Returns a new call of a script that writes. The caller appends the arguments.
    pub(super) fn call(&self, script: &'static Script, caller: &mut Caller) -> ScriptCall<'_> {
        self.new_call(script, false, caller)
    }

    /// The same for a call that Redis rejects when its memory is full, whatever the flags of the script.
    pub(super) fn growing_call(&self, script: &'static Script, caller: &mut Caller) -> ScriptCall<'_> {
        self.new_call(script, true, caller)
    }

    /// Returns a call in place of the caller's last: it has the same number, so only one of the two runs.
    pub(super) fn call_in_place_of_last(&self, script: &'static Script, caller: &Caller) -> ScriptCall<'_> {
        self.numbered_call(script, false, caller.last_call())
    }

    fn new_call(&self, script: &'static Script, is_growing: bool, caller: &mut Caller) -> ScriptCall<'_> {
        self.numbered_call(script, is_growing, caller.next_call())
    }

    fn numbered_call(
        &self,
        script: &'static Script,
        is_growing: bool,
        (caller_id, sequence): (Arc<str>, u64),
    ) -> ScriptCall<'_> {
        let mut command = self.client.script_command(script, is_growing, &self.keys, &self.channel_scope.borrow());
        command.arg(&*caller_id).arg(sequence).arg(self.client.write_offset_ms());
        ScriptCall { shard: self, script, is_growing, command, caller_id, sequence }
    }

    /// Runs a script that only reads. Its ARGV are base, offset_ms, then `args`.
    pub(super) async fn read_script(&self, script: &'static Script, args: Vec<Vec<u8>>) -> Result<Value> {
        self.breaker.call(pin!(self.run_read_script(script, &args))).await
    }

    async fn run_read_script(&self, script: &'static Script, args: &[Vec<u8>]) -> Result<Value> {
        let deadline = Instant::now() + CALL_DEADLINE;
        let mut prefix = "";
        for _ in 0..MAX_TOUCHES {
            let called_at = Uptime::now();
            let mut command = self.client.script_command(script, false, &self.keys, &self.channel_scope.borrow());
            command.arg(format!("{prefix}{}", self.client.clock_offset_ms())).arg(args);
            if let Some(reply) = self.client.run_script(script, false, &command, deadline).await? {
                return Ok(reply);
            }
            match self.clock.confirm_since(called_at, deadline).await {
                // Redis refuses all writes. Reads go on.
                Err(Error::Full(_) | Error::Disk(_) | Error::Denied(_) | Error::Unconfirmed(_)) => {
                    prefix = ACCEPTS_UNCONFIRMED
                }
                outcome => outcome?,
            }
        }
        Err(unconfirmed())
    }

    /// Touches the shard's clock, in spite of a data loss.
    pub async fn touch_clock(&self) -> Result<()> {
        self.breaker.call_unchecked(pin!(self.clock.touch())).await
    }

    /// Sends one command. It may arrive twice.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value> {
        self.breaker.call(pin!(self.client.send(command))).await
    }

    /// Sends commands together and returns one reply for each. They may arrive twice.
    pub(super) async fn send_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        self.breaker.call(pin!(self.client.send_pipeline(pipeline))).await
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
