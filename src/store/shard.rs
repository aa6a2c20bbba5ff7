//! The store as a whole, its shards, and how a mutating call is made so that it may be sent twice.

use std::sync::Arc;

use deadpool_redis::redis::{Cmd, Pipeline, Value};

use super::client::Client;
use super::error::Result;
use super::gate::Gate;
use super::keys::{Keys, tags};
use super::meters::Transitions;
use super::replicas::Replicas;
use super::script::Script;
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
            gate: Arc::new(Gate::new(index)),
            client: client.clone(),
            replicas: None,
        });
        Store { shards: shards.collect(), layout, client }
    }

    /// The same, where a submit is accepted once replicas have it.
    pub fn with_replicas(self, replicas: Option<Replicas>) -> Self {
        let replicas = replicas.map(Arc::new);
        let shards = self.shards.iter().map(|shard| Shard { replicas: replicas.clone(), ..shard.clone() });
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
    pub fn shard_of(&self, slot: Slot) -> &Shard {
        let index = self.layout.of(slot).min(self.shards.len() - 1);
        // There is at least one shard, and `of` answers below their number.
        #[allow(clippy::indexing_slicing)]
        &self.shards[index]
    }

    /// The one that holds the task.
    pub fn shard_of_id(&self, id: &TaskId) -> &Shard {
        self.shard_of(id.slot())
    }

    /// The one that also holds what there is once: meta, master copies of settings.
    pub fn home(&self) -> &Shard {
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
    pub gate: Arc<Gate>,
    client: Arc<Client>,
    replicas: Option<Arc<Replicas>>,
}

/// Who calls, and how often it has. Its calls never overlap (each borrows it mutably), so the scripts need to
/// remember only its last one in order to answer a repetition.
#[derive(Debug)]
pub struct Caller {
    pump: Arc<str>,
    number: u64,
}

impl Caller {
    /// A caller that nobody else is: a fresh random name.
    pub fn new() -> Self {
        Caller { pump: format!("{:016x}", rand::random::<u64>()).into(), number: 0 }
    }
}

impl Default for Caller {
    fn default() -> Self {
        Caller::new()
    }
}

/// A mutating call on its way.
pub(super) struct Call<'a> {
    shard: &'a Shard,
    script: &'static Script,
    command: Cmd,
    pump: Arc<str>,
    number: u64,
}

impl Call<'_> {
    pub(super) fn arg(&mut self, argument: impl AsRef<[u8]>) -> &mut Self {
        self.command.arg(argument.as_ref());
        self
    }

    pub(super) fn int(&mut self, argument: impl Into<i64>) -> &mut Self {
        self.command.arg(argument.into());
        self
    }

    pub(super) fn count(&mut self, argument: usize) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// Sends it. It may be sent again under its number where no answer came: then it may have run, and the script
    /// knows.
    pub(super) async fn send(&self) -> Result<Value> {
        self.shard.gate.pass(self.run()).await
    }

    /// The same for the call that finds out whether the shard's data is what it was.
    pub(super) async fn send_in_spite_of_loss(&self) -> Result<Value> {
        self.shard.gate.pass_in_spite_of_loss(self.run()).await
    }

    /// Returns once the replicas that are wanted have what it has written.
    pub(super) async fn confirm(&self) -> Result<()> {
        let Some(replicas) = &self.shard.replicas else { return Ok(()) };
        let outcome = replicas.confirm(&self.shard.keys, &self.pump, self.number).await;
        // They are waited for over a connection of their own, whose instruments nobody reads.
        if let Err(error) = &outcome {
            self.shard.client.meters().errors.note(error);
        }
        outcome
    }

    /// What happened to tasks.
    pub(super) fn transitions(&self) -> &Transitions {
        self.shard.transitions()
    }

    async fn run(&self) -> Result<Value> {
        self.shard.client.run(self.script, &self.command).await
    }
}

impl Shard {
    /// Begins a call of a mutating script.
    pub(super) fn call(&self, script: &'static Script, caller: &mut Caller) -> Call<'_> {
        caller.number += 1;
        let Caller { pump, number } = caller;
        let mut command = self.begin(script);
        command.arg(&**pump).arg(*number).arg(self.client.offset());
        Call { shard: self, script, command, pump: pump.clone(), number: *number }
    }

    fn begin(&self, script: &Script) -> Cmd {
        let mut command = self.client.call(script, [self.keys.calls(), self.keys.void()]);
        command.arg(self.keys.base());
        command
    }

    /// Runs a script that only reads: ARGV are base, offset_ms, then `arguments`.
    pub(super) async fn look(&self, script: &'static Script, arguments: Vec<Vec<u8>>) -> Result<Value> {
        let mut command = self.begin(script);
        command.arg(self.client.offset()).arg(arguments);
        self.gate.pass(self.client.run(script, &command)).await
    }

    /// Sends one command, which may be sent twice.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value> {
        self.gate.pass(self.client.send(command)).await
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What happened to tasks.
    pub(super) fn transitions(&self) -> &Transitions {
        &self.client.meters().transitions
    }

    pub(super) async fn read(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        self.gate.pass(self.client.send_all(pipeline)).await
    }
}
