//! Scripts that end leases.

use slotwheel::domain::task::DedupeMode;
use slotwheel::domain::task::NewTask;
use slotwheel::store::Caller;
use slotwheel::store::ops::fail::Failure;
use slotwheel::store::ops::release::{Release, Releaser, release};
use slotwheel::store::ops::subscribe_completion::subscribe_completion;

use super::{
    Scenario, call_off, expiring, fail_with, failure, finish, finish_and_claim, give_back, keyed, leased, listening,
    scenario,
};
use crate::support::script_lab::{error, id, queue, task, want};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!(
            "complete",
            "one of two under a claim id",
            |lab| { leased(lab, &[task(11), task(12)]).await? },
            |lab| { finish(lab, 11).await? }
        ),
        scenario!(
            "complete",
            "the last, with a dedupe key and a waiting request",
            |lab| {
                leased(lab, &[keyed(11, DedupeMode::Keep, None)]).await?;
                subscribe_completion(lab.shard(), &mut Caller::new(), &[id(11)]).await?;
            },
            |lab| { finish(lab, 11).await? }
        ),
        scenario!(
            "complete",
            "events enabled",
            |lab| {
                leased(lab, &[task(11), task(12)]).await?;
                listening(lab).await?;
            },
            |lab| { finish(lab, 11).await? }
        ),
        scenario!(
            "complete_and_claim",
            "one by one, the last of its slot",
            |lab| {
                leased(lab, &[task(11)]).await?;
                lab.submit(&[task(12)]).await?;
            },
            |lab| { finish_and_claim(lab, &[11], &["q"], &[(0, want(1, None, 1))]).await? }
        ),
        scenario!(
            "complete_and_claim",
            "a batch, many slots and requests, a repeated completion",
            |lab| {
                leased(lab, &[task(11), keyed(12, DedupeMode::Keep, None), task(13)]).await?;
                finish(lab, 13).await?;
                let other = NewTask { queue: queue("r"), ..expiring(31) };
                lab.submit(&[task(14), expiring(21), task(22), task(32), other]).await?;
            },
            |lab| {
                let claims = [(1, want(2, None, 2)), (0, want(9, None, 1)), (2, want(9, None, 2))];
                finish_and_claim(lab, &[11, 12, 13], &["r", "q"], &claims).await?;
            }
        ),
        scenario!(
            "complete_and_claim",
            "events enabled, nothing ready",
            |lab| {
                leased(lab, &[task(11)]).await?;
                listening(lab).await?;
            },
            |lab| { finish_and_claim(lab, &[11], &["q"], &[(0, want(1, None, 1))]).await? }
        ),
        scenario!("fail", "retried later", |lab| { leased(lab, &[expiring(11), task(12)]).await? }, |lab| {
            fail_with(lab, &[failure(lab, 11, Some(5000)), failure(lab, 12, Some(5000))]).await?;
        }),
        scenario!(
            "fail",
            "retried at once",
            |lab| {
                leased(lab, &[task(11)]).await?;
                lab.submit(&[task(12), task(21)]).await?;
            },
            |lab| { fail_with(lab, &[failure(lab, 11, Some(0))]).await? }
        ),
        scenario!(
            "fail",
            "dead and cancelled",
            |lab| {
                leased(lab, &[keyed(11, DedupeMode::Keep, None), task(12)]).await?;
                call_off(lab, &[12]).await?;
            },
            |lab| { fail_with(lab, &[failure(lab, 11, None), failure(lab, 12, Some(0))]).await? }
        ),
        scenario!(
            "fail",
            "old errors dropped",
            |lab| {
                lab.submit(&[task(11)]).await?;
                for _ in 0..2 {
                    lab.claim(&["q"], &[want(1, None, 1)]).await?;
                    let large = Failure { report: error(&"x".repeat(32_000)), ..failure(lab, 11, Some(0)) };
                    fail_with(lab, &[large]).await?;
                }
                lab.claim(&["q"], &[want(1, None, 1)]).await?;
            },
            |lab| {
                let large = Failure { report: error(&"y".repeat(32_000)), ..failure(lab, 11, Some(5000)) };
                fail_with(lab, &[large]).await?;
            }
        ),
        scenario!(
            "expire_leases",
            "retried, dead, cancelled",
            |lab| {
                let last = NewTask { max_attempts: 1, ..keyed(12, DedupeMode::Keep, None) };
                leased(lab, &[expiring(11), last, task(13)]).await?;
                call_off(lab, &[13]).await?;
                lab.at(70_000);
            },
            |lab| { lab.reap(&queue("q"), 5000).await? }
        ),
        scenario!(
            "expire_leases",
            "retried at once",
            |lab| {
                leased(lab, &[task(11)]).await?;
                lab.at(70_000);
            },
            |lab| { lab.reap(&queue("q"), 0).await? }
        ),
        scenario!(
            "release",
            "to its position, behind a slot with its turn",
            |lab| {
                leased(lab, &[expiring(11)]).await?;
                lab.submit(&[task(21)]).await?;
            },
            |lab| { give_back(lab, 11, Releaser::Worker, 0).await? }
        ),
        scenario!(
            "release",
            "undelivered: the turns of two slots, one of them on the wheel",
            |lab| {
                leased(lab, &[task(11), task(21)]).await?;
                lab.submit(&[task(22), task(31)]).await?;
            },
            |lab| {
                let back = |n| Release { lease_ref: lab.held(n), by: Releaser::Undelivered, delay_ms: 0 };
                release(lab.shard(), &mut Caller::new(), &[back(21), back(11)]).await?;
            }
        ),
        scenario!(
            "release",
            "after the last delivery",
            |lab| {
                leased(lab, &[NewTask { max_acquired: 1, ..keyed(11, DedupeMode::Keep, None) }]).await?;
                subscribe_completion(lab.shard(), &mut Caller::new(), &[id(11)]).await?;
            },
            |lab| { give_back(lab, 11, Releaser::Worker, 0).await? }
        ),
        scenario!("release", "by a client", |lab| { leased(lab, &[expiring(11), task(12)]).await? }, |lab| {
            give_back(lab, 11, Releaser::Client { acquired: Some(1) }, 0).await?
        }),
        scenario!("release", "with a delay", |lab| { leased(lab, &[task(11)]).await? }, |lab| {
            give_back(lab, 11, Releaser::Worker, 5000).await?
        }),
        scenario!(
            "release",
            "cancelled",
            |lab| {
                leased(lab, &[keyed(11, DedupeMode::Keep, None)]).await?;
                call_off(lab, &[11]).await?;
            },
            |lab| { give_back(lab, 11, Releaser::Worker, 0).await? }
        ),
    ]
}
