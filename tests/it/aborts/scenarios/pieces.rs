//! Slot queues and lists of ended tasks with pieces.

use std::ops::Range;

use slotwheel::domain::id::TaskId;
use slotwheel::store::invariant::Invariant;
use slotwheel::store::ops::cancel::cancel;
use slotwheel::store::ops::delete::{DeleteReason, delete};
use slotwheel::store::ops::purge_ended::purge_ended;
use slotwheel::store::ops::release::{Release, Releaser, release};
use slotwheel::store::ops::repair::repair;
use slotwheel::store::{Caller, Result};

use super::{Scenario, finish, scenario};
use crate::support::script_lab::{Lab, id, in_one_slot, queue, want};

/// As many tasks as a head has.
const HEAD: Range<u16> = 1000..1032;
/// Tasks behind them.
const BEHIND: Range<u16> = 2000..2003;

/// Submits a slot queue with a piece, and claims tasks from its head until `left` are there.
async fn with_piece(lab: &Lab, left: usize) -> Result<()> {
    lab.submit(&in_one_slot(HEAD)).await?;
    lab.submit(&in_one_slot(BEHIND)).await?;
    let mut claimed = HEAD.len() - left;
    while claimed > 0 {
        claimed -= lab.claim(&["q"], &[want(claimed.min(100), None, 1)]).await?.len();
    }
    Ok(())
}

/// Completes tasks of one slot, and leases those behind them.
async fn with_ended(lab: &Lab, ended: Range<u16>) -> Result<()> {
    lab.submit(&in_one_slot(ended.clone())).await?;
    lab.submit(&in_one_slot(BEHIND)).await?;
    while !lab.claim(&["q"], &[want(100, None, 1)]).await?.is_empty() {}
    for n in ended {
        finish(lab, n).await?;
    }
    Ok(())
}

/// A list of completed tasks with one in its head and some in a piece.
async fn with_ended_piece(lab: &Lab) -> Result<()> {
    with_ended(lab, HEAD).await?;
    finish(lab, BEHIND.start).await?;
    finish(lab, BEHIND.start + 1).await?;
    let ids: Vec<TaskId> = (HEAD.start..HEAD.end - 1).map(id).collect();
    delete(lab.shard(), &mut Caller::new(), &DeleteReason::Requested, &ids).await.map(drop)
}

async fn delete_completed(lab: &Lab, n: u16) -> Result<()> {
    delete(lab.shard(), &mut Caller::new(), &DeleteReason::Requested, &[id(n)]).await.map(drop)
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("submit", "begins a piece", |lab| { lab.submit(&in_one_slot(HEAD)).await? }, |lab| {
            lab.submit(&in_one_slot(BEHIND)).await?;
        }),
        scenario!("submit", "goes on in a piece", |lab| { with_piece(lab, HEAD.len()).await? }, |lab| {
            lab.submit(&in_one_slot(3000..3002)).await?;
        }),
        scenario!("claim", "moves a piece to the head", |lab| { with_piece(lab, 1).await? }, |lab| {
            lab.claim(&["q"], &[want(2, None, 1)]).await?;
        }),
        scenario!("claim", "takes the last of the head", |lab| { with_piece(lab, 1).await? }, |lab| {
            lab.claim(&["q"], &[want(1, None, 1)]).await?;
        }),
        scenario!("cancel", "the last of the head", |lab| { with_piece(lab, 1).await? }, |lab| {
            cancel(lab.shard(), &mut Caller::new(), &[id(1031)]).await?;
        }),
        scenario!("cancel", "in a piece", |lab| { with_piece(lab, 1).await? }, |lab| {
            cancel(lab.shard(), &mut Caller::new(), &[id(2001)]).await?;
        }),
        scenario!("release", "in front of a piece", |lab| { with_piece(lab, 1).await? }, |lab| {
            let lease_ref = lab.held(1005);
            let releases = [Release { lease_ref, by: Releaser::Worker, delay_ms: 0 }];
            release(lab.shard(), &mut Caller::new(), &releases).await?;
        }),
        scenario!("complete", "begins a piece", |lab| { with_ended(lab, HEAD).await? }, |lab| {
            finish(lab, BEHIND.start).await?;
            finish(lab, BEHIND.start + 1).await?;
        }),
        scenario!("complete", "goes on in a piece", |lab| { with_ended_piece(lab).await? }, |lab| {
            finish(lab, BEHIND.end - 1).await?;
        }),
        scenario!("delete", "the last of the head", |lab| { with_ended_piece(lab).await? }, |lab| {
            delete_completed(lab, 1031).await?;
        }),
        scenario!("delete", "in a piece", |lab| { with_ended_piece(lab).await? }, |lab| {
            delete_completed(lab, 2000).await?;
        }),
        scenario!(
            "purge_ended",
            "moves a piece to the head",
            |lab| {
                with_ended_piece(lab).await?;
                lab.at(90_000_000);
            },
            |lab| {
                purge_ended(lab.shard(), &mut Caller::new(), 2).await?;
            }
        ),
        scenario!(
            "repair",
            "a head that was lost",
            |lab| {
                with_piece(lab, 1).await?;
                lab.ask::<()>(deadpool_redis::redis::cmd("DEL").arg(lab.key("slot:q:4:1"))).await;
            },
            |lab| {
                let entry = |n| Invariant::IndexEntry { member: id(n).as_bytes().to_vec(), index: "slot:q:4:1".into() };
                let place = Invariant::WheelEntry { queue: queue("q"), member: "4:1".into() };
                repair(lab.shard(), &mut Caller::new(), &[entry(1031), place]).await?;
            }
        ),
    ]
}
