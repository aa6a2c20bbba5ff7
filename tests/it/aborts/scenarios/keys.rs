//! Keyed slot queues, in and between passes over their keys.

use slotwheel::domain::digest::KeyDigest;
use slotwheel::domain::task::{DedupeMode, NewTask};
use slotwheel::store::invariant::Invariant;
use slotwheel::store::ops::WhenFull;
use slotwheel::store::ops::cancel::cancel;
use slotwheel::store::ops::fail::fail;
use slotwheel::store::ops::release::{Release, Releaser, release};
use slotwheel::store::ops::repair::repair;
use slotwheel::store::ops::retry::retry;
use slotwheel::store::views::queue_records::KeyedMember;
use slotwheel::store::{Caller, Result};

use super::{Scenario, failure, keyed, scenario};
use crate::support::script_lab::{Lab, id, of_key, want};

/// A slot with three keys, two tasks each.
async fn three_keys(lab: &Lab) -> Result<()> {
    for (key, first) in [("a", 1000), ("b", 1100), ("c", 1200)] {
        lab.submit(&of_key(key, first..first + 2)).await?;
    }
    Ok(())
}

/// A pass over the three keys of which `served` have been served.
async fn in_pass(lab: &Lab, served: usize) -> Result<Vec<u16>> {
    three_keys(lab).await?;
    let claimed = lab.claim(&["q"], &[want(served, None, 1)]).await?;
    Ok([1000, 1100, 1200].into_iter().filter(|n| claimed.iter().any(|task| task.id == id(*n))).collect())
}

/// A task with a routing key and a dedupe key.
fn deduplicated(n: u16, mode: DedupeMode) -> NewTask {
    NewTask { key_digest: Some(KeyDigest::of_key(b"k")), ..keyed(n, mode, None) }
}

async fn give_back(lab: &Lab, n: u16, by: Releaser) -> Result<()> {
    let releases = [Release { lease_ref: lab.held(n), by, delay_ms: 0 }];
    release(lab.shard(), &mut Caller::new(), &releases).await.map(drop)
}

/// The first task that was claimed.
fn first_held(lab: &Lab) -> u16 {
    [1000, 1100, 1200].into_iter().find(|n| lab.holds(*n)).expect("a lease")
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("submit", "keyed, beside others of the key and the slot", |lab| { three_keys(lab).await? }, |lab| {
            let new = [of_key("a", 1300..1302), of_key("d", 1400..1401)].concat();
            lab.submit(&new).await?;
        }),
        scenario!(
            "submit",
            "replaces a keyed task, with another priority",
            |lab| {
                lab.submit(&[deduplicated(11, DedupeMode::Keep)]).await?;
            },
            |lab| {
                lab.submit(&[NewTask { priority: 9, ..deduplicated(12, DedupeMode::Replace) }]).await?;
            }
        ),
        scenario!(
            "submit",
            "debounces a keyed task",
            |lab| {
                lab.submit(&[deduplicated(11, DedupeMode::Keep)]).await?;
            },
            |lab| {
                lab.submit(&[deduplicated(12, DedupeMode::Debounce)]).await?;
            }
        ),
        scenario!("claim", "stops in a pass", |lab| { three_keys(lab).await? }, |lab| {
            lab.claim(&["q"], &[want(2, None, 1)]).await?;
        }),
        scenario!("claim", "goes on in a pass", |lab| { in_pass(lab, 1).await.map(drop)? }, |lab| {
            lab.claim(&["q"], &[want(1, None, 1)]).await?;
        }),
        scenario!("claim", "ends a pass", |lab| { in_pass(lab, 2).await.map(drop)? }, |lab| {
            lab.claim(&["q"], &[want(1, None, 1)]).await?;
        }),
        scenario!("claim", "stops in the next pass", |lab| { in_pass(lab, 2).await.map(drop)? }, |lab| {
            lab.claim(&["q"], &[want(2, None, 1)]).await?;
        }),
        scenario!("claim", "takes all of a keyed slot", |lab| { in_pass(lab, 1).await.map(drop)? }, |lab| {
            lab.claim(&["q"], &[want(9, None, 1)]).await?;
        }),
        scenario!("release", "a keyed task, in a pass", |lab| { in_pass(lab, 2).await.map(drop)? }, |lab| {
            give_back(lab, first_held(lab), Releaser::Worker).await?;
        }),
        scenario!("release", "a keyed task, not delivered", |lab| { in_pass(lab, 3).await.map(drop)? }, |lab| {
            give_back(lab, first_held(lab), Releaser::Undelivered).await?;
        }),
        scenario!("fail", "a keyed task, ready at once", |lab| { in_pass(lab, 1).await.map(drop)? }, |lab| {
            let failures = [failure(lab, first_held(lab), Some(0))];
            fail(lab.shard(), &mut Caller::new(), &failures, WhenFull::Store).await?;
        }),
        scenario!(
            "cancel",
            "the last of a keyed slot in a pass",
            |lab| {
                lab.submit(&[of_key("a", 1000..1001), of_key("b", 1100..1101)].concat()).await?;
                lab.claim(&["q"], &[want(1, None, 1)]).await?;
            },
            |lab| {
                let left = if lab.holds(1000) { 1100 } else { 1000 };
                cancel(lab.shard(), &mut Caller::new(), &[id(left)]).await?;
            }
        ),
        scenario!(
            "retry",
            "a keyed task that has expired, while it waits",
            |lab| {
                let expiring = of_key("a", 1000..1001).remove(0);
                lab.submit(&[NewTask { expires_in_ms: Some(1000), ..expiring }]).await?;
                lab.at(2000);
            },
            |lab| {
                retry(lab.shard(), &mut Caller::new(), &[id(1000)]).await?;
            }
        ),
        scenario!(
            "repair",
            "a keyed slot queue that was lost",
            |lab| {
                lab.submit(&[of_key("a", 1000..1001), of_key("a", 1100..1101)].concat()).await?;
                lab.ask::<()>(deadpool_redis::redis::cmd("DEL").arg(lab.key("slot:q:4:1:k"))).await;
            },
            |lab| {
                let entry = |n, seq| {
                    let member = KeyedMember { key_digest: KeyDigest::of_key(b"a"), seq, id: id(n) };
                    Invariant::IndexEntry { member: member.to_bytes(), index: "slot:q:4:1:k".into() }
                };
                repair(lab.shard(), &mut Caller::new(), &[entry(1000, 1), entry(1100, 2)]).await?;
            }
        ),
    ]
}
