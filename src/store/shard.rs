//! The store as a whole, its shards, and how a mutating call is made so that it may be sent twice.

use std::sync::Arc;

use deadpool_redis::redis::{Cmd, Pipeline, Value};

use super::circuit_breaker::CircuitBreaker;
use super::error::Result;
use super::keys::{Keys, tags};
use super::metrics::Transitions;
use super::redis::client::Client;
use super::redis::replication::Replication;
use super::redis::script::Script;
use crate::domain::id::TaskId;
use crate::domain::slot::{Shards, Slot};

/// All shards of a data set.
#[derive(Clone, Debug)]
pub struct Store {
    shards: Arc<[Shard]>,
    layout: Shards,
    client: Arc<Client>,
}

impl Store {
    /// The store with this many shards, its keys beginning with `prefix`.
    pub fn new(client: Arc<Client>, layout: Shards, prefix: &str) -> Self {
        let shards = tags(layout).into_iter().enumerate();
        let shards = shards.map(|(index, tag)| Shard {
            index,
            keys: Arc::new(Keys::new(prefix, tag)),
            breaker: Arc::new(CircuitBreaker::new(index)),
            client: client.clone(),
            replication: None,
        });
        Store { shards: shards.collect(), layout, client }
    }

    /// The same, where a submit is accepted once replicas have it.
    pub fn with_replication(self, replication: Option<Replication>) -> Self {
        let replication = replication.map(Arc::new);
        let shards = self.shards.iter().map(|shard| Shard { replication: replication.clone(), ..shard.clone() });
        Store { shards: shards.collect(), ..self }
    }

    /// How the slots are cut.
    pub fn layout(&self) -> Shards {
        self.layout
    }

    /// The connections.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// All of them, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The one that holds `slot`.
    pub fn shard_for_slot(&self, slot: Slot) -> &Shard {
        let index = self.layout.shard_of(slot).min(self.shards.len() - 1);
        // There is at least one shard, and `of` answers below their number.
        #[allow(clippy::indexing_slicing)]
        &self.shards[index]
    }

    /// The one that holds the task.
    pub fn shard_for_task(&self, id: &TaskId) -> &Shard {
        self.shard_for_slot(id.slot())
    }

    /// The one that also holds what there is once: meta, master copies of settings.
    pub fn first_shard(&self) -> &Shard {
        #[allow(clippy::indexing_slicing)]
        &self.shards[0]
    }
}

/// A range of slots, whose data lies under one tag.
#[derive(Clone, Debug)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// Its keys.
    pub keys: Arc<Keys>,
    /// Whether it is worth calling.
    pub breaker: Arc<CircuitBreaker>,
    client: Arc<Client>,
    replication: Option<Arc<Replication>>,
}

/// Who calls, and how often it has. Its calls never overlap (each borrows it mutably), so the scripts need to
/// remember only its last one in order to answer a repetition.
#[derive(Debug)]
pub struct Caller {
    id: Arc<str>,
    sequence: u64,
}

impl Caller {
    /// A caller that nobody else is: a fresh random name.
    pub fn new() -> Self {
        Caller { id: format!("{:016x}", rand::random::<u64>()).into(), sequence: 0 }
    }
}

impl Default for Caller {
    fn default() -> Self {
        Caller::new()
    }
}

/// A mutating call on its way.
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

    /// Sends it. It may be sent again under its number where no answer came: then it may have run, and the script
    /// knows.
    pub(super) async fn send(&self) -> Result<Value> {
        self.shard.breaker.call(self.run_script()).await
    }

    /// The same for the call that finds out whether the shard's data is what it was.
    pub(super) async fn send_unchecked(&self) -> Result<Value> {
        self.shard.breaker.call_unchecked(self.run_script()).await
    }

    /// Returns once the replicas that are wanted have what it has written.
    pub(super) async fn wait_for_replicas(&self) -> Result<()> {
        let Some(replicas) = &self.shard.replication else { return Ok(()) };
        let outcome = replicas.wait(&self.shard.keys, &self.caller_id, self.sequence).await;
        // They are waited for over a connection of their own, whose instruments nobody reads.
        if let Err(error) = &outcome {
            self.shard.client.metrics().errors.record(error);
        }
        outcome
    }

    /// What happened to tasks.
    pub(super) fn transitions(&self) -> &Transitions {
        self.shard.transitions()
    }

    async fn run_script(&self) -> Result<Value> {
        self.shard.client.run_script(self.script, &self.command).await
    }
}

impl Shard {
    /// Begins a call of a mutating script.
    pub(super) fn call(&self, script: &'static Script, caller: &mut Caller) -> ScriptCall<'_> {
        caller.sequence += 1;
        let Caller { id: caller_id, sequence } = caller;
        let mut command = self.command(script);
        command.arg(&**caller_id).arg(*sequence).arg(self.client.clock_offset_ms());
        ScriptCall { shard: self, script, command, caller_id: caller_id.clone(), sequence: *sequence }
    }

    fn command(&self, script: &Script) -> Cmd {
        let mut command = self.client.evalsha(script, [self.keys.callers(), self.keys.absent_guard()]);
        command.arg(self.keys.base());
        command
    }

    /// Runs a script that only reads: ARGV are base, offset_ms, then `arguments`.
    pub(super) async fn read_script(&self, script: &'static Script, args: Vec<Vec<u8>>) -> Result<Value> {
        let mut command = self.command(script);
        command.arg(self.client.clock_offset_ms()).arg(args);
        self.breaker.call(self.client.run_script(script, &command)).await
    }

    /// Sends one command, which may be sent twice.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value> {
        self.breaker.call(self.client.send(command)).await
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What happened to tasks.
    pub(super) fn transitions(&self) -> &Transitions {
        &self.client.metrics().transitions
    }

    pub(super) async fn send_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        self.breaker.call(self.client.send_pipeline(pipeline)).await
    }
}
