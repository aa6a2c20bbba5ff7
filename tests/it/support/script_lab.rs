//! A store without a server: its scripts can be stopped at any of their calls of Redis, and its state can be restored.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Cmd, FromRedisValue, cmd, pipe};
use serde_json::value::RawValue;
use slotwheel::domain::claim_id::ClaimId;
use slotwheel::domain::digest::KeyDigest;
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::{QueueName, QueueSettings};
use slotwheel::domain::slot::{Shards, Slot};
use slotwheel::domain::state::State;
use slotwheel::domain::task::{Attributes, ClaimedTask, ErrorReport, NewTask, StartTime};
use slotwheel::store::audit::audit;
use slotwheel::store::dataset::identity;
use slotwheel::store::ops::apply_settings::apply_settings;
use slotwheel::store::ops::claim::{ClaimCall, ClaimReply, WaiterRequest};
use slotwheel::store::ops::complete::{Completion, complete};
use slotwheel::store::ops::complete_and_claim::{CompleteAndClaimCall, FollowingClaim};
use slotwheel::store::ops::expire_leases::{ExpiredLease, expire_leases};
use slotwheel::store::ops::expire_tasks::expire_tasks;
use slotwheel::store::ops::promote::promote;
use slotwheel::store::ops::submit::{HandOff, Offers, submit};
use slotwheel::store::ops::{LeaseEnd, LeaseRef, WhenFull};
use slotwheel::store::redis::config::RedisConfig;
use slotwheel::store::views::expired_leases::expired_leases;
use slotwheel::store::views::next_due::next_due;
use slotwheel::store::{Caller, Client, Result, Shard, Store};
use uuid::Uuid;

use super::SHIM;
use super::records;
use super::redis::{Flavour, OwnRedis, connect};

const ABORT: &str = include_str!("abort.lua");

/// Reads all content, one line each: key, field or member, value or score. Left out are the last calls of callers, statistics,
/// and the name of a period of events, which differ between two runs.
const CONTENT: &str = r"
local lines = {}
local left_out = { stats = true, lease_samples = true, workers = true, workers_seen = true }
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local function line(...) lines[#lines + 1] = table.concat({ key, ... }, '\1') end
  local pairs_of = { hash = { 'HGETALL', key }, zset = { 'ZRANGE', key, 0, -1, 'WITHSCORES' } }
  if left_out[string.match(key, '}:([%a_]+)')] then
    kind = 'left out'
  elseif pairs_of[kind] then
    local list, is_callers = redis.call(unpack(pairs_of[kind])), string.match(key, '}:callers$')
    for i = 1, #list, 2 do
      if is_callers and list[i] == 'events' then
        line(list[i], (string.gsub(list[i + 1], ' %x+%-%d+$', '')))
      elseif not is_callers or list[i] == 'shard' or string.match(list[i], '^queue:') then
        line(list[i], list[i + 1])
      end
    end
  elseif kind == 'set' then
    for _, member in ipairs(redis.call('SMEMBERS', key)) do line(member) end
  else
    line(redis.call('GET', key))
  end
  if redis.call('PTTL', key) > 0 then line('has a TTL') end
end
return lines";

/// Lines that [`CONTENT`] reads.
pub type Content = BTreeSet<Vec<u8>>;

/// A store with one shard.
pub struct Lab {
    pub store: Store,
    connection: MultiplexedConnection,
    offset: Arc<AtomicI64>,
    held: Mutex<BTreeMap<TaskId, LeaseRef>>,
    redis: OwnRedis,
}

/// A saved state of a lab.
pub struct Saved {
    keys: Vec<(Vec<u8>, i64, Vec<u8>)>,
    held: BTreeMap<TaskId, LeaseRef>,
    now: i64,
}

/// Task `n`; its slot is `n / 10`.
pub fn id(n: u16) -> TaskId {
    let slot = Slot::new(n / 10).expect("a slot");
    TaskId::new(Uuid::from_u128(0x0190_c7a0_5dcb_7000_8000_0000_0000_0000 | u128::from(n) << 14), slot)
}

pub fn queue(name: &str) -> QueueName {
    QueueName::parse(name).expect("a name")
}

pub fn document(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).expect("JSON")
}

/// Task `n` of queue `q`, ready at once.
pub fn task(n: u16) -> NewTask {
    NewTask {
        id: id(n),
        may_be_stored: false,
        queue: queue("q"),
        slot: id(n).slot(),
        key_digest: None,
        priority: 4,
        payload: document("1"),
        attributes: Attributes::default(),
        start: StartTime::After(0),
        expires_in_ms: None,
        max_attempts: 3,
        max_acquired: 1000,
        backoff: None,
        max_run_ms: 0,
        retain_ms: None,
        dedupe: None,
    }
}

/// Tasks of queue `q` that all have slot 1.
pub fn in_one_slot(numbers: Range<u16>) -> Vec<NewTask> {
    let slot = Slot::new(1).expect("a slot");
    numbers.map(|n| NewTask { slot, ..task(n) }).collect()
}

/// Tasks of queue `q` with this key, that all have slot 1.
pub fn of_key(key: &str, numbers: Range<u16>) -> Vec<NewTask> {
    let key_digest = Some(KeyDigest::of_key(key.as_bytes()));
    in_one_slot(numbers).into_iter().map(|task| NewTask { key_digest, ..task }).collect()
}

pub fn error(message: &str) -> ErrorReport {
    ErrorReport { worker: "w".into(), kind: "k".into(), message: message.into(), details: None }
}

/// A request for `max` tasks of the first `queues` queues of the call.
pub fn want(max: usize, claim: Option<&[u8]>, queues: usize) -> WaiterRequest {
    WaiterRequest {
        max,
        lease_ms: 60_000,
        worker: "w".into(),
        claim_id: claim.map(|claim| ClaimId::of_leases("lease", claim)),
        queues: (0..queues).collect(),
    }
}

impl Lab {
    pub async fn start() -> Self {
        let redis = OwnRedis::single(&[]).await;
        let offset: Arc<AtomicI64> = Arc::default();
        let shim = if Flavour::of_this_run() == Flavour::Shim { SHIM } else { "" };
        let prelude = format!("{shim}\n{ABORT}");
        let target = RedisConfig {
            url: redis.url.clone(),
            clock_offset: offset.clone(),
            injected_lua: prelude,
            ..RedisConfig::default()
        };
        let client = Client::connect(target, slotwheel::store::ops::ALL).await.expect("a connection");
        let shards = Shards::new(1).expect("one shard");
        let dataset = identity::open_or_create(&client, "sw", Some(shards)).await.expect("a data set");
        let store = Store::new(Arc::new(client), dataset.shards, &dataset.id, "sw");
        let connection = connect(&redis.url).await.expect("a connection");
        Lab { store, connection, offset, held: Mutex::default(), redis }
    }

    /// Stops Redis. The audit must find nothing.
    pub async fn end(mut self) {
        let findings = audit(&self.store).await.expect("an audit").findings;
        assert!(findings.is_empty(), "the audit finds {findings:#?}");
        self.redis.stop().await;
    }

    pub fn shard(&self) -> &Shard {
        self.store.first_shard()
    }

    /// Sets the scripts' clock to `ms` after the start of the lab.
    pub fn at(&self, ms: i64) {
        self.offset.store(ms, Ordering::Relaxed);
    }

    pub fn now(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }

    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.connection.clone()).await.expect("an answer of Redis")
    }

    /// A key of the shard.
    pub fn key(&self, rest: &str) -> Vec<u8> {
        format!("{}{rest}", self.shard().keys.base()).into_bytes()
    }

    pub async fn forget_all(&self) {
        self.ask::<()>(&cmd("FLUSHDB")).await;
        self.at(0);
        self.held.lock().expect("no panic").clear();
    }

    /// From now on every script is stopped at its call number `at` of Redis; 0: at none.
    pub async fn stop_at(&self, at: usize) {
        self.ask::<()>(cmd("HSET").arg(self.key("callers")).arg("~abort").arg(at)).await;
    }

    pub async fn content(&self) -> Content {
        let lines = self.ask::<Vec<Vec<u8>>>(cmd("EVAL").arg(CONTENT).arg(0)).await;
        let start = [&self.key("callers")[..], b"\x01"].concat();
        let readable = |line: Vec<u8>| {
            let Some(rest) = line.strip_prefix(&start[..]) else { return line };
            let end = rest.iter().position(|byte| *byte == 1).unwrap_or(rest.len());
            let (field, record) = rest.split_at(end);
            let shown = records::shown(&String::from_utf8_lossy(field), record.get(1..).unwrap_or_default());
            [&start[..], field, b"\x01", &shown].concat()
        };
        lines.into_iter().map(readable).collect()
    }

    /// Saves all keys, leases and the time for [`Lab::restore`].
    pub async fn save(&self) -> Saved {
        let mut keys = Vec::new();
        for key in self.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*")).await {
            let left: i64 = self.ask(cmd("PTTL").arg(&key)).await;
            let value: Vec<u8> = self.ask(cmd("DUMP").arg(&key)).await;
            keys.push((key, left.max(0), value));
        }
        Saved { keys, held: self.held.lock().expect("no panic").clone(), now: self.now() }
    }

    pub async fn restore(&self, Saved { keys, held, now }: &Saved) {
        let mut pipeline = pipe();
        pipeline.cmd("FLUSHDB");
        for (key, left, value) in keys {
            pipeline.cmd("RESTORE").arg(key).arg(*left).arg(value);
        }
        pipeline.query_async::<()>(&mut self.connection.clone()).await.expect("an answer of Redis");
        *self.held.lock().expect("no panic") = held.clone();
        self.at(*now);
    }

    /// The tasks in the content, and their states.
    pub fn tasks(&self, content: &Content) -> BTreeMap<TaskId, State> {
        let prefix = self.key("task:");
        let states = content.iter().filter_map(|line| {
            let (id, field) = line.strip_prefix(prefix.as_slice())?.split_at_checked(16)?;
            let state = std::str::from_utf8(field.strip_prefix(b"\x01S\x01")?).ok()?;
            Some((TaskId::from_bytes(id)?, State::parse(state)?))
        });
        states.collect()
    }

    pub async fn submit(&self, tasks: &[NewTask]) -> Result<()> {
        submit(self.shard(), &mut Caller::new(), tasks, &Offers::default()).await.map(drop)
    }

    /// Submits, and offers requests for the first of these queues. Keeps the leases that were handed over.
    pub async fn submit_to(
        &self,
        queues: &[&str],
        requests: &[WaiterRequest],
        tasks: &[NewTask],
    ) -> Result<Vec<HandOff>> {
        let queues = queues.iter().map(|name| queue(name)).collect();
        let offers = Offers { queues, requests: requests.to_vec(), max_tasks: tasks.len() };
        let reply = submit(self.shard(), &mut Caller::new(), tasks, &offers).await?;
        self.keep(&reply.hand_offs);
        Ok(reply.hand_offs)
    }

    /// Keeps the leases of hand-offs for [`Lab::held`].
    pub fn keep(&self, hand_offs: &[HandOff]) {
        let held = hand_offs.iter().map(|one| (one.id, LeaseRef { id: one.id, lease: Some(one.lease) }));
        self.held.lock().expect("no panic").extend(held);
    }

    pub async fn claim(&self, queues: &[&str], wants: &[WaiterRequest]) -> Result<Vec<ClaimedTask>> {
        let queues: Vec<QueueName> = queues.iter().map(|name| queue(name)).collect();
        let mut caller = Caller::new();
        let handed = ClaimCall::new(self.shard(), &mut caller, &queues, wants).send().await?;
        let tasks: Vec<ClaimedTask> = handed.tasks.into_iter().map(|(_, task)| task).collect();
        let held = tasks.iter().map(|task| (task.id, LeaseRef { id: task.id, lease: Some(task.lease) }));
        self.held.lock().expect("no panic").extend(held);
        Ok(tasks)
    }

    /// Completes tasks, and claims of these queues behind them.
    pub async fn complete_and_claim(
        &self,
        queues: &[&str],
        completions: &[Completion],
        claims: &[FollowingClaim],
    ) -> Result<(Vec<LeaseEnd>, ClaimReply)> {
        let queues: Vec<QueueName> = queues.iter().map(|name| queue(name)).collect();
        let mut caller = Caller::new();
        let reply = CompleteAndClaimCall::new(self.shard(), &mut caller, completions, &queues, claims).send().await?;
        let held = reply.1.tasks.iter().map(|(_, task)| (task.id, LeaseRef { id: task.id, lease: Some(task.lease) }));
        self.held.lock().expect("no panic").extend(held);
        Ok(reply)
    }

    /// Whether a claim of this lab has taken task `n`.
    pub fn holds(&self, n: u16) -> bool {
        self.held.lock().expect("no panic").contains_key(&id(n))
    }

    /// The lease of task `n` from a claim of this lab.
    pub fn held(&self, n: u16) -> LeaseRef {
        self.held.lock().expect("no panic").get(&id(n)).expect("a lease").clone()
    }

    /// Ends the expired leases of `queue`.
    pub async fn reap(&self, queue: &QueueName, wait_ms: i64) -> Result<()> {
        let now = next_due(self.shard()).await?.now;
        let leases: Vec<ExpiredLease> = expired_leases(self.shard(), queue, now, 500)
            .await?
            .leases
            .into_iter()
            .map(|(id, holding)| ExpiredLease {
                id,
                token: holding.lease.expect("a token"),
                report: error("late"),
                wait_ms,
            })
            .collect();
        expire_leases(self.shard(), &mut Caller::new(), &leases).await.map(drop)
    }

    /// Advances the clock past all times and completes all tasks. Returns the tasks in the order of their claims.
    pub async fn drain(&self) -> Result<Vec<TaskId>> {
        self.at(self.now() + 30 * 86_400_000);
        let mut caller = Caller::new();
        for name in ["q", "r"] {
            apply_settings(self.shard(), &mut caller, &queue(name), 99, &QueueSettings::default()).await?;
            self.reap(&queue(name), 0).await?;
            promote(self.shard(), &mut caller, &queue(name), 500).await?;
        }
        // A task that was leased at its time of expiry waits again.
        expire_tasks(self.shard(), &mut caller, 500).await?;
        let mut worked = Vec::new();
        loop {
            let claimed = self.claim(&["q", "r"], &[want(100, None, 2)]).await?;
            // The end of a task may start its successor.
            if claimed.is_empty() && promote(self.shard(), &mut caller, &queue("q"), 500).await? > 0 {
                continue;
            }
            if claimed.is_empty() {
                return Ok(worked);
            }
            let done: Vec<Completion> = claimed
                .iter()
                .map(|task| Completion {
                    lease_ref: LeaseRef { id: task.id, lease: Some(task.lease) },
                    result: document("null"),
                })
                .collect();
            complete(self.shard(), &mut caller, &done, WhenFull::Store).await?;
            worked.extend(claimed.into_iter().map(|task| task.id));
        }
    }
}
