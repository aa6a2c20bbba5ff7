//! Promote, cancel, expire, retry, delete.

use slotwheel::domain::state::State;
use slotwheel::domain::task::DedupeMode;
use slotwheel::domain::task::NewTask;
use slotwheel::domain::task::StartTime;
use slotwheel::store::Caller;
use slotwheel::store::ops::delete::DeleteReason;
use slotwheel::store::ops::expire_tasks::expire_tasks;
use slotwheel::store::ops::promote::promote;
use slotwheel::store::ops::purge_ended::purge_ended;
use slotwheel::store::ops::release::Releaser;
use slotwheel::store::ops::retry::retry;
use slotwheel::store::ops::run_now::run_now;
use slotwheel::store::ops::subscribe_completion::subscribe_completion;

use super::{
    Scenario, call_off, expiring, fail_with, failure, finish, forget, give_back, keyed, later, leased, scenario,
};
use crate::support::script_lab::{id, queue, task};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!(
            "promote",
            "some are due",
            |lab| {
                lab.submit(&[
                    later(11),
                    NewTask { expires_in_ms: Some(90_000), ..later(12) },
                    NewTask { start: StartTime::After(99_000), ..task(13) },
                ])
                .await?;
                lab.at(61_000);
            },
            |lab| {
                promote(lab.shard(), &mut Caller::new(), &queue("q"), 500).await?;
            }
        ),
        scenario!(
            "promote",
            "the last is due",
            |lab| {
                lab.submit(&[later(11), task(21)]).await?;
                lab.at(61_000);
            },
            |lab| {
                promote(lab.shard(), &mut Caller::new(), &queue("q"), 500).await?;
            }
        ),
        scenario!(
            "expire_tasks",
            "ready and scheduled",
            |lab| {
                let keyed = NewTask { expires_in_ms: Some(1000), ..keyed(11, DedupeMode::Keep, None) };
                lab.submit(&[keyed, task(12), NewTask { expires_in_ms: Some(1000), ..later(13) }]).await?;
                lab.at(2000);
            },
            |lab| {
                expire_tasks(lab.shard(), &mut Caller::new(), 500).await?;
            }
        ),
        scenario!(
            "run_now",
            "scheduled, ready and expired",
            |lab| {
                let expired = NewTask { expires_in_ms: Some(1000), ..keyed(13, DedupeMode::Keep, None) };
                let short = NewTask { expires_in_ms: Some(90_000), ..later(11) };
                lab.submit(&[short, task(12), expired, later(21)]).await?;
                lab.at(2000);
            },
            |lab| {
                run_now(lab.shard(), &mut Caller::new(), &[id(11), id(12), id(13), id(21)]).await?;
            }
        ),
        scenario!("cancel", "a leased task", |lab| { leased(lab, &[task(11)]).await? }, |lab| {
            call_off(lab, &[11]).await?
        }),
        scenario!(
            "cancel",
            "ready and scheduled",
            |lab| {
                lab.submit(&[expiring(12), later(13), keyed(14, DedupeMode::Keep, None)]).await?;
                subscribe_completion(lab.shard(), &mut Caller::new(), &[id(12)]).await?;
            },
            |lab| { call_off(lab, &[12, 13, 14]).await? }
        ),
        scenario!(
            "retry",
            "a dead task with a dedupe key and a time of expiry",
            |lab| {
                leased(lab, &[NewTask { expires_in_ms: Some(600_000), ..keyed(11, DedupeMode::Keep, Some(60_000)) }])
                    .await?;
                fail_with(lab, &[failure(lab, 11, None)]).await?;
            },
            |lab| {
                retry(lab.shard(), &mut Caller::new(), &[id(11)]).await?;
            }
        ),
        scenario!(
            "retry",
            "a task cancelled under lease, and another",
            |lab| {
                leased(lab, &[task(11)]).await?;
                lab.submit(&[task(12), task(21)]).await?;
                call_off(lab, &[11, 12]).await?;
                give_back(lab, 11, Releaser::Worker, 0).await?;
            },
            |lab| {
                retry(lab.shard(), &mut Caller::new(), &[id(11), id(12)]).await?;
            }
        ),
        scenario!(
            "delete",
            "ended tasks",
            |lab| {
                leased(lab, &[task(11), task(12)]).await?;
                finish(lab, 11).await?;
                finish(lab, 12).await?;
            },
            |lab| { forget(lab, DeleteReason::Requested, &[11]).await? }
        ),
        scenario!(
            "delete",
            "past retention",
            |lab| {
                leased(lab, &[kept_for(11, 3_600_000), kept_for(12, 3_600_000)]).await?;
                finish(lab, 11).await?;
                finish(lab, 12).await?;
                lab.at(9_000_000);
            },
            |lab| { forget(lab, DeleteReason::RetentionElapsed, &[11, 12]).await? }
        ),
        scenario!(
            "purge_ended",
            "past the default retention",
            |lab| {
                leased(lab, &[kept_for(11, 100_000_000), task(12), keyed(13, DedupeMode::Keep, None), task(14)])
                    .await?;
                for n in [11, 12, 13] {
                    finish(lab, n).await?;
                }
                lab.at(3_000_000);
                finish(lab, 14).await?;
                lab.at(4_000_000);
            },
            |lab| {
                purge_ended(lab.shard(), &mut Caller::new(), 10).await?;
            }
        ),
        scenario!(
            "purge_ended",
            "the last ones",
            |lab| {
                leased(lab, &[task(11), task(12)]).await?;
                finish(lab, 11).await?;
                finish(lab, 12).await?;
                lab.at(4_000_000);
            },
            |lab| {
                purge_ended(lab.shard(), &mut Caller::new(), 10).await?;
            }
        ),
        scenario!(
            "delete",
            "a purge",
            |lab| {
                lab.submit(&[keyed(11, DedupeMode::Keep, None), expiring(12), later(13)]).await?;
            },
            |lab| { forget(lab, DeleteReason::Purge(vec![State::Ready, State::Scheduled]), &[11, 12, 13]).await? }
        ),
    ]
}

fn kept_for(n: u16, retain_ms: i64) -> NewTask {
    NewTask { retain_ms: Some(retain_ms), ..task(n) }
}
