//! Submit, claim, heartbeat, and requests that wait for an end.

use slotwheel::domain::task::DedupeMode;
use slotwheel::domain::task::NewTask;
use slotwheel::domain::task::StartTime;
use slotwheel::store::Caller;
use slotwheel::store::ops::WhenFull;
use slotwheel::store::ops::heartbeat::LeaseHeartbeat;
use slotwheel::store::ops::heartbeat::heartbeat;
use slotwheel::store::ops::resolve_hand_offs::resolve_hand_offs;
use slotwheel::store::ops::subscribe_completion::subscribe_completion;

use super::{Scenario, expiring, keyed, later, leased, listening, scenario};
use crate::support::script_lab::{document, id, queue, task, want};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("submit", "the first task", |_lab| {}, |lab| { lab.submit(&[task(11)]).await? }),
        scenario!("submit", "a second task", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            lab.submit(&[task(12)]).await?
        }),
        scenario!("submit", "several, scheduled and expiring", |lab| { lab.submit(&[later(14)]).await? }, |lab| {
            let other = NewTask { queue: queue("r"), priority: 9, ..task(31) };
            lab.submit(&[task(11), later(12), expiring(21), other]).await?;
        }),
        scenario!("submit", "events enabled", |lab| { listening(lab).await? }, |lab| {
            lab.submit(&[task(11), later(12)]).await?;
        }),
        scenario!("submit", "with a dedupe window", |_lab| {}, |lab| {
            lab.submit(&[keyed(11, DedupeMode::Keep, Some(60_000))]).await?;
        }),
        scenario!(
            "submit",
            "keeps the holder of the key",
            |lab| { lab.submit(&[keyed(11, DedupeMode::Keep, None)]).await? },
            |lab| {
                lab.submit(&[keyed(12, DedupeMode::Keep, None)]).await?;
            }
        ),
        scenario!(
            "submit",
            "replaces with another priority and a time of expiry",
            |lab| {
                lab.submit(&[keyed(11, DedupeMode::Replace, None)]).await?;
            },
            |lab| {
                let new = NewTask { priority: 7, expires_in_ms: Some(1000), ..keyed(12, DedupeMode::Replace, None) };
                lab.submit(&[new]).await?;
            }
        ),
        scenario!(
            "submit",
            "debounce: ready to scheduled",
            |lab| { lab.submit(&[keyed(11, DedupeMode::Debounce, None), task(12)]).await? },
            |lab| {
                let new = NewTask { start: StartTime::After(5000), ..keyed(13, DedupeMode::Debounce, None) };
                lab.submit(&[new]).await?;
            }
        ),
        scenario!(
            "submit",
            "debounce: scheduled to ready",
            |lab| {
                lab.submit(&[NewTask {
                    start: StartTime::After(5000),
                    expires_in_ms: Some(9000),
                    ..keyed(11, DedupeMode::Debounce, None)
                }])
                .await?;
            },
            |lab| { lab.submit(&[keyed(13, DedupeMode::Debounce, None)]).await? }
        ),
        scenario!(
            "submit",
            "takes the key from a leased task",
            |lab| {
                leased(lab, &[keyed(11, DedupeMode::Replace, None)]).await?;
            },
            |lab| { lab.submit(&[keyed(12, DedupeMode::Replace, Some(60_000))]).await? }
        ),
        scenario!(
            "submit",
            "the key is free after its window",
            |lab| {
                lab.submit(&[keyed(11, DedupeMode::Keep, Some(60_000))]).await?;
                lab.at(90_000);
            },
            |lab| { lab.submit(&[keyed(12, DedupeMode::Keep, None)]).await? }
        ),
        scenario!("submit", "hands the first task over", |_lab| {}, |lab| {
            lab.submit_to(&["q"], &[want(1, Some(b"c"), 1)], &[task(11)]).await?;
        }),
        scenario!(
            "submit",
            "hands over, and leaves some, with events",
            |lab| {
                listening(lab).await?;
                leased(lab, &[task(11)]).await?;
            },
            |lab| {
                let (other, urgent) =
                    (NewTask { queue: queue("r"), ..task(31) }, NewTask { priority: 9, ..expiring(21) });
                let tasks = [task(12), urgent, keyed(22, DedupeMode::Keep, None), later(23), other, task(13)];
                lab.submit_to(&["q", "r"], &[want(2, None, 1), want(1, Some(b"d"), 2)], &tasks).await?;
            }
        ),
        scenario!("submit", "offers for a queue with ready tasks", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            lab.submit_to(&["q"], &[want(2, None, 1)], &[task(12), task(21)]).await?;
        }),
        scenario!("resolve_hand_offs", "of a call that has not run", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            resolve_hand_offs(lab.shard(), &Caller::new()).await?;
        }),
        scenario!("claim", "the last of its slot", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            lab.claim(&["q"], &[want(1, None, 1)]).await?;
        }),
        scenario!("claim", "one of several", |lab| { lab.submit(&[task(11), task(12), expiring(13)]).await? }, |lab| {
            lab.claim(&["q"], &[want(1, Some(b"c"), 1)]).await?;
        }),
        scenario!(
            "claim",
            "many slots, priorities and requests",
            |lab| {
                let urgent = NewTask { priority: 9, ..expiring(12) };
                let other = NewTask { queue: queue("r"), ..task(31) };
                lab.submit(&[task(11), urgent, task(21), task(22), task(32), other]).await?;
            },
            |lab| {
                lab.claim(&["q", "r"], &[want(2, Some(b"c"), 2), want(3, None, 2)]).await?;
            }
        ),
        scenario!(
            "claim",
            "passes over expired tasks",
            |lab| {
                lab.submit(&[expiring(11), task(12)]).await?;
                lab.at(700_000);
            },
            |lab| {
                lab.claim(&["q"], &[want(5, None, 1)]).await?;
            }
        ),
        scenario!(
            "claim",
            "events enabled",
            |lab| {
                listening(lab).await?;
                lab.submit(&[task(11), task(12)]).await?;
            },
            |lab| {
                lab.claim(&["q"], &[want(2, None, 1)]).await?;
            }
        ),
        scenario!("heartbeat", "with progress", |lab| { leased(lab, &[task(11), task(12)]).await? }, |lab| {
            let beat =
                |n| LeaseHeartbeat { lease_ref: lab.held(n), lease_ms: Some(90_000), progress: Some(document("3")) };
            heartbeat(lab.shard(), &mut Caller::new(), &[beat(11), beat(12)], WhenFull::Store).await?;
        }),
        scenario!("heartbeat", "shortens", |lab| { leased(lab, &[task(11)]).await? }, |lab| {
            let beat = LeaseHeartbeat { lease_ref: lab.held(11), lease_ms: Some(1000), progress: None };
            heartbeat(lab.shard(), &mut Caller::new(), &[beat], WhenFull::Store).await?;
        }),
        scenario!("subscribe_completion", "a waiting task", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            subscribe_completion(lab.shard(), &mut Caller::new(), &[id(11), id(12)]).await?;
        }),
    ]
}
