//! For each script, states in which it takes each of its branches. Items that are each a single write are in separate
//! calls: of several such items, a stopped call may have done some.

mod bookkeeping;
mod keys;
mod lease_ends;
mod pieces;
mod submit_and_claim;
mod succession;
mod waiting_tasks;

use std::future::Future;
use std::pin::Pin;

use deadpool_redis::redis::cmd;
use slotwheel::domain::digest::Digest;
use slotwheel::domain::queue::QueueSettings;
use slotwheel::domain::task::{Dedupe, DedupeMode, NewTask, StartTime};
use slotwheel::store::invariant::Invariant;
use slotwheel::store::ops::WhenFull;
use slotwheel::store::ops::apply_settings::apply_settings;
use slotwheel::store::ops::cancel::cancel;
use slotwheel::store::ops::claim::WaiterRequest;
use slotwheel::store::ops::complete::{Completion, complete};
use slotwheel::store::ops::complete_and_claim::FollowingClaim;
use slotwheel::store::ops::delete::{DeleteReason, delete};
use slotwheel::store::ops::enable_events::enable_events;
use slotwheel::store::ops::fail::{Failure, fail};
use slotwheel::store::ops::idempotency::{IdempotencyRecord, record_idempotency, refuse_idempotency};
use slotwheel::store::ops::release::{Release, Releaser, release};
use slotwheel::store::{Caller, Result};

use crate::support::script_lab::{Lab, document, error, id, queue, task, want};

type Step = for<'a> fn(&'a Lab) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A state, and a call in that state.
pub struct Scenario {
    /// The script that is stopped.
    pub script: &'static str,
    pub name: &'static str,
    pub before: Step,
    pub call: Step,
}

macro_rules! scenario {
    ($script:literal, $name:literal, |$a:ident| $before:block, |$b:ident| $call:block) => {
        Scenario {
            script: $script,
            name: $name,
            before: |$a| {
                Box::pin(async move {
                    $before;
                    Ok(())
                })
            },
            call: |$b| {
                Box::pin(async move {
                    $call;
                    Ok(())
                })
            },
        }
    };
}
use scenario;

fn keyed(n: u16, mode: DedupeMode, window_ms: Option<i64>) -> NewTask {
    NewTask { dedupe: Some(Dedupe { digest: Digest::of(&[b"d"]), mode, window_ms }), ..task(n) }
}

fn later(n: u16) -> NewTask {
    NewTask { start: StartTime::After(60_000), ..task(n) }
}

fn expiring(n: u16) -> NewTask {
    NewTask { expires_in_ms: Some(600_000), ..task(n) }
}

fn failure(lab: &Lab, n: u16, wait_ms: Option<i64>) -> Failure {
    Failure { lease_ref: lab.held(n), report: error("broken"), wait_ms }
}

/// Submits and claims tasks.
async fn leased(lab: &Lab, tasks: &[NewTask]) -> Result<()> {
    lab.submit(tasks).await?;
    lab.claim(&["q"], &[want(tasks.len(), Some(b"c"), 1)]).await.map(drop)
}

/// From now on scripts publish events.
async fn listening(lab: &Lab) -> Result<()> {
    enable_events(lab.shard(), &mut Caller::new()).await.map(drop)
}

async fn finish(lab: &Lab, n: u16) -> Result<()> {
    let done = Completion { lease_ref: lab.held(n), result: document("2") };
    complete(lab.shard(), &mut Caller::new(), &[done], WhenFull::Store).await.map(drop)
}

/// Completes tasks, and claims of `queues` behind them, each with the index of its completion.
async fn finish_and_claim(
    lab: &Lab,
    numbers: &[u16],
    queues: &[&str],
    claims: &[(usize, WaiterRequest)],
) -> Result<()> {
    let done = |n: &u16| Completion { lease_ref: lab.held(*n), result: document("2") };
    let claim = |(completion, request): &(usize, WaiterRequest)| FollowingClaim {
        completion: *completion,
        batch: None,
        request: request.clone(),
    };
    let (done, claims): (Vec<_>, Vec<_>) = (numbers.iter().map(done).collect(), claims.iter().map(claim).collect());
    lab.complete_and_claim(queues, &done, &claims).await.map(drop)
}

async fn fail_with(lab: &Lab, failures: &[Failure]) -> Result<()> {
    fail(lab.shard(), &mut Caller::new(), failures, WhenFull::Store).await.map(drop)
}

async fn note(lab: &Lab, status: Option<u16>) -> Result<()> {
    let digest = |text: &[u8]| Digest::of(&[text]);
    let note = IdempotencyRecord { key: digest(b"key"), body: digest(b"body"), task_id: id(11), status };
    record_idempotency(lab.shard(), &mut Caller::new(), &[note]).await.map(drop)
}

async fn note_refused(lab: &Lab) -> Result<()> {
    let digest = |text: &[u8]| Digest::of(&[text]);
    let note = IdempotencyRecord { key: digest(b"key"), body: digest(b"body"), task_id: id(11), status: None };
    refuse_idempotency(lab.shard(), &mut Caller::new(), &[note]).await.map(drop)
}

async fn pause(lab: &Lab, version: i64, paused: bool) -> Result<()> {
    apply_settings(lab.shard(), &mut Caller::new(), &queue("q"), version, &QueueSettings { paused }).await.map(drop)
}

async fn call_off(lab: &Lab, numbers: &[u16]) -> Result<()> {
    let ids: Vec<_> = numbers.iter().map(|n| id(*n)).collect();
    cancel(lab.shard(), &mut Caller::new(), &ids).await.map(drop)
}

async fn forget(lab: &Lab, reason: DeleteReason, numbers: &[u16]) -> Result<()> {
    let ids: Vec<_> = numbers.iter().map(|n| id(*n)).collect();
    delete(lab.shard(), &mut Caller::new(), &reason, &ids).await.map(drop)
}

async fn give_back(lab: &Lab, n: u16, by: Releaser, delay_ms: i64) -> Result<()> {
    release(lab.shard(), &mut Caller::new(), &[Release { lease_ref: lab.held(n), by, delay_ms }]).await.map(drop)
}

/// Damage of every kind that can be repaired, in a store with tasks in many states.
async fn damaged(lab: &Lab) -> Result<()> {
    leased(lab, &[task(11), keyed(12, DedupeMode::Keep, None)]).await?;
    finish(lab, 11).await?;
    lab.submit(&[task(13), later(14), expiring(25)]).await?;
    note(lab, None).await?;
    for (name, key, argument) in [
        ("ZREM", "slot:q:4:2", Some(id(25))),
        ("ZREM", "scheduled:q", Some(id(14))),
        ("ZREM", "leased:q", Some(id(12))),
        ("DEL", "wheel:q", None),
        ("DEL", "due", None),
        ("DEL", "ended_due", None),
        ("DEL", "queues", None),
    ] {
        let mut command = cmd(name);
        command.arg(lab.key(key));
        if let Some(id) = argument {
            command.arg(id.as_bytes());
        }
        lab.ask::<()>(&command).await;
    }
    lab.ask::<()>(cmd("HDEL").arg(lab.key("callers")).arg("queue:q").arg("shard")).await;
    lab.ask::<()>(cmd("ZADD").arg(lab.key("scheduled:q")).arg(1).arg(id(13).as_bytes())).await;
    lab.ask::<()>(cmd("ZADD").arg(lab.key("expirations")).arg(1).arg(b"no id")).await;
    Ok(())
}

fn entry(n: u16, index: &str) -> Invariant {
    Invariant::IndexEntry { member: id(n).as_bytes().to_vec(), index: index.into() }
}

pub fn all() -> Vec<Scenario> {
    let mut all = submit_and_claim::all();
    all.extend(waiting_tasks::all());
    all.extend(lease_ends::all());
    all.extend(bookkeeping::all());
    all.extend(succession::all());
    all.extend(pieces::all());
    all.extend(keys::all());
    all
}
