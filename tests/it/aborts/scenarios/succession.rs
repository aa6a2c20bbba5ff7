//! Tasks that wait for the end of another, and tasks past their time of expiry.

use slotwheel::domain::state::State;
use slotwheel::domain::task::DedupeMode::{After, Debounce, Keep, Replace};
use slotwheel::domain::task::{NewTask, StartTime};
use slotwheel::store::Caller;
use slotwheel::store::Result;
use slotwheel::store::ops::delete::DeleteReason;
use slotwheel::store::ops::expire_tasks::expire_tasks;
use slotwheel::store::ops::promote::promote;
use slotwheel::store::ops::release::Releaser;
use slotwheel::store::ops::retry::retry;
use slotwheel::store::ops::run_now::run_now;

use super::{
    Scenario, call_off, expiring, fail_with, failure, finish, forget, give_back, keyed, later, leased, scenario,
};
use crate::support::script_lab::{Lab, id, queue};

fn delayed(n: u16) -> NewTask {
    NewTask { start: StartTime::After(90_000), ..keyed(n, After, Some(60_000)) }
}

fn expiring_holder(n: u16) -> NewTask {
    NewTask { expires_in_ms: Some(600_000), ..keyed(n, Keep, None) }
}

/// A waiting task that expires, and its successor.
async fn waiting_pair(lab: &Lab) -> Result<()> {
    lab.submit(&[expiring_holder(11)]).await?;
    lab.submit(&[keyed(12, After, None)]).await
}

/// A leased task, and its successor.
async fn leased_pair(lab: &Lab, successor: NewTask) -> Result<()> {
    leased(lab, &[keyed(11, Keep, None)]).await?;
    lab.submit(&[successor]).await
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("submit", "after a ready task", |lab| { lab.submit(&[keyed(11, Keep, None)]).await? }, |lab| {
            lab.submit(&[keyed(12, After, None)]).await?;
        }),
        scenario!("submit", "after a leased task", |lab| { leased(lab, &[keyed(11, Keep, None)]).await? }, |lab| {
            lab.submit(&[delayed(12)]).await?;
        }),
        scenario!("submit", "replaces a successor", |lab| { leased_pair(lab, delayed(12)).await? }, |lab| {
            lab.submit(&[keyed(13, Debounce, None)]).await?;
        }),
        scenario!(
            "submit",
            "replaces a task that waits for its retry",
            |lab| {
                leased(lab, &[keyed(11, Keep, None)]).await?;
                fail_with(lab, &[failure(lab, 11, Some(500_000))]).await?;
            },
            |lab| { lab.submit(&[keyed(12, Replace, Some(60_000))]).await? }
        ),
        scenario!(
            "submit",
            "finds the holder expired",
            |lab| {
                lab.submit(&[expiring_holder(11)]).await?;
                lab.at(700_000);
            },
            |lab| { lab.submit(&[keyed(12, Keep, None)]).await? }
        ),
        scenario!(
            "submit",
            "finds a holder with a successor expired",
            |lab| {
                waiting_pair(lab).await?;
                lab.at(700_000);
            },
            |lab| { lab.submit(&[keyed(13, Keep, None)]).await? }
        ),
        scenario!("complete", "with a successor", |lab| { leased_pair(lab, delayed(12)).await? }, |lab| {
            finish(lab, 11).await?;
        }),
        scenario!("fail", "with a successor", |lab| { leased_pair(lab, keyed(12, Replace, None)).await? }, |lab| {
            fail_with(lab, &[failure(lab, 11, Some(5000))]).await?;
        }),
        scenario!("release", "with a successor", |lab| { leased_pair(lab, keyed(12, Replace, None)).await? }, |lab| {
            give_back(lab, 11, Releaser::Worker, 0).await?;
        }),
        scenario!(
            "expire_leases",
            "with a successor",
            |lab| {
                leased_pair(lab, keyed(12, Replace, None)).await?;
                lab.at(90_000);
            },
            |lab| { lab.reap(&queue("q"), 5000).await? }
        ),
        scenario!("cancel", "with a successor", |lab| { waiting_pair(lab).await? }, |lab| {
            call_off(lab, &[11]).await?;
        }),
        scenario!("cancel", "with its successor", |lab| { waiting_pair(lab).await? }, |lab| {
            call_off(lab, &[11, 12]).await?;
        }),
        scenario!(
            "cancel",
            "past the expiry",
            |lab| {
                waiting_pair(lab).await?;
                lab.at(700_000);
            },
            |lab| { call_off(lab, &[11]).await? }
        ),
        scenario!("run_now", "a successor", |lab| { leased_pair(lab, delayed(12)).await? }, |lab| {
            run_now(lab.shard(), &mut Caller::new(), &[id(12)]).await?;
        }),
        scenario!("delete", "with a successor", |lab| { waiting_pair(lab).await? }, |lab| {
            forget(lab, DeleteReason::Purge(vec![State::Ready]), &[11]).await?;
        }),
        scenario!(
            "expire_tasks",
            "with a successor",
            |lab| {
                waiting_pair(lab).await?;
                lab.at(700_000);
            },
            |lab| {
                expire_tasks(lab.shard(), &mut Caller::new(), 500).await?;
            }
        ),
        scenario!(
            "promote",
            "past the expiry",
            |lab| {
                lab.submit(&[NewTask { expires_in_ms: Some(600_000), ..later(11) }, later(12)]).await?;
                lab.at(700_000);
            },
            |lab| {
                promote(lab.shard(), &mut Caller::new(), &queue("q"), 500).await?;
            }
        ),
        scenario!(
            "retry",
            "past the expiry",
            |lab| {
                lab.submit(&[expiring(11), NewTask { expires_in_ms: Some(600_000), ..later(12) }]).await?;
                lab.at(700_000);
            },
            |lab| {
                retry(lab.shard(), &mut Caller::new(), &[id(11), id(12)]).await?;
            }
        ),
        scenario!(
            "retry",
            "past the expiry, with a successor",
            |lab| {
                waiting_pair(lab).await?;
                lab.at(700_000);
            },
            |lab| {
                retry(lab.shard(), &mut Caller::new(), &[id(11)]).await?;
            }
        ),
    ]
}
