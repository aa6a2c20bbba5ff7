//! Scripts for settings, idempotency and servers' records, scripts that only read, and scripts of the doctor.

use std::time::Duration;

use deadpool_redis::redis::cmd;
use slotwheel::domain::digest::Digest;
use slotwheel::domain::state::State;
use slotwheel::domain::task::DedupeMode;
use slotwheel::domain::worker::Worker;
use slotwheel::store::Caller;
use slotwheel::store::Result;
use slotwheel::store::Store;
use slotwheel::store::dataset::identity::Dataset;
use slotwheel::store::invariant::Invariant;
use slotwheel::store::ops::apply_settings::remove_copy;
use slotwheel::store::ops::delete::DeleteReason;
use slotwheel::store::ops::prune_callers::prune_callers;
use slotwheel::store::ops::record_workers::{WorkerSeen, record_workers};
use slotwheel::store::ops::remove_queue::remove_queue;
use slotwheel::store::ops::remove_settings::{delete_removed_settings, mark_settings_removed};
use slotwheel::store::ops::repair::repair;
use slotwheel::store::ops::sample_leases::sample_leases;
use slotwheel::store::ops::set_settings::set_settings;
use slotwheel::store::ops::touch_dataset::{TouchPurpose, touch_dataset};
use slotwheel::store::settings::SettingChange;
use slotwheel::store::views::ended::{EndedList, ended_lists, oldest_ended};
use slotwheel::store::views::next_due::next_due;
use slotwheel::store::views::page::page_by_time;
use slotwheel::store::views::ready::ready_tasks;
use slotwheel::store::views::stats::read_window;
use slotwheel::store::views::verify_invariants::verify_invariants;

use super::{
    Scenario, damaged, entry, finish, forget, keyed, later, leased, listening, note, note_refused, pause, scenario,
};
use crate::support::script_lab::{Lab, id, queue, task};

fn founded(lab: &Lab) -> Dataset {
    Dataset { shards: lab.store.layout(), id: "f".into(), has_markers: true }
}

async fn seen(lab: &Lab, names: &[&str]) -> Result<()> {
    let seen = names.iter().map(|name| WorkerSeen {
        worker: Worker::unknown(name),
        seen_ago: Duration::from_millis(7),
        claimed_ago: Some(Duration::from_millis(9)),
    });
    record_workers(lab.shard(), &mut Caller::new(), &seen.collect::<Vec<_>>()).await.map(drop)
}

async fn set_paused(lab: &Lab, paused: bool) -> Result<()> {
    set_settings(&lab.store, &mut Caller::new(), &queue("q"), &SettingChange::paused(paused)).await
}

async fn one_completed(lab: &Lab) -> Result<()> {
    leased(lab, &[task(11)]).await?;
    finish(lab, 11).await
}

/// A queue whose only task has ended and is deleted.
async fn used_once(lab: &Lab) -> Result<()> {
    one_completed(lab).await?;
    forget(lab, DeleteReason::Requested, &[11]).await
}

/// Touches the clock as a server does that has just started.
async fn touch(lab: &Lab) -> Result<()> {
    Store::new(lab.store.client().clone(), lab.store.layout(), "f", "sw").touch_clocks().await
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("apply_settings", "an unknown queue", |_lab| {}, |lab| { pause(lab, 1, true).await? }),
        scenario!("apply_settings", "pauses", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            pause(lab, 1, true).await?
        }),
        scenario!(
            "apply_settings",
            "resumes",
            |lab| {
                lab.submit(&[task(11)]).await?;
                pause(lab, 1, true).await?;
            },
            |lab| { pause(lab, 2, false).await? }
        ),
        scenario!(
            "apply_settings",
            "removes, with tasks",
            |lab| {
                lab.submit(&[task(11)]).await?;
                pause(lab, 1, true).await?;
            },
            |lab| { remove_copy(lab.shard(), &mut Caller::new(), &queue("q"), 2).await? }
        ),
        scenario!("apply_settings", "removes, without tasks", |lab| { pause(lab, 1, true).await? }, |lab| {
            remove_copy(lab.shard(), &mut Caller::new(), &queue("q"), 2).await?;
        }),
        scenario!("remove_queue", "used once", |lab| { used_once(lab).await? }, |lab| {
            remove_queue(lab.shard(), &mut Caller::new(), &queue("q")).await?;
        }),
        scenario!(
            "remove_queue",
            "with settings",
            |lab| {
                used_once(lab).await?;
                pause(lab, 1, true).await?;
            },
            |lab| {
                remove_queue(lab.shard(), &mut Caller::new(), &queue("q")).await?;
            }
        ),
        scenario!("remove_settings", "marks them", |lab| { set_paused(lab, true).await? }, |lab| {
            mark_settings_removed(&lab.store, &mut Caller::new(), &queue("q")).await?;
        }),
        scenario!(
            "remove_settings",
            "deletes marked ones",
            |lab| {
                set_paused(lab, true).await?;
                mark_settings_removed(&lab.store, &mut Caller::new(), &queue("q")).await?;
                lab.at(60_000);
            },
            |lab| { delete_removed_settings(&lab.store, &mut Caller::new(), &queue("q")).await? }
        ),
        scenario!(
            "set_settings",
            "those that were removed",
            |lab| {
                set_paused(lab, true).await?;
                mark_settings_removed(&lab.store, &mut Caller::new(), &queue("q")).await?;
            },
            |lab| { set_paused(lab, false).await? }
        ),
        scenario!("set_settings", "the first", |_lab| {}, |lab| {
            set_settings(&lab.store, &mut Caller::new(), &queue("q"), &SettingChange::paused(true)).await?;
        }),
        scenario!(
            "set_settings",
            "others",
            |lab| {
                set_settings(&lab.store, &mut Caller::new(), &queue("q"), &SettingChange::paused(true)).await?;
            },
            |lab| {
                set_settings(&lab.store, &mut Caller::new(), &queue("q"), &SettingChange::paused(false)).await?;
            }
        ),
        scenario!("idempotency", "opens", |_lab| {}, |lab| { note(lab, None).await? }),
        scenario!("idempotency", "completes", |lab| { note(lab, None).await? }, |lab| { note(lab, Some(201)).await? }),
        scenario!(
            "idempotency",
            "opens again after its time",
            |lab| {
                note(lab, Some(201)).await?;
                lab.at(2 * 86_400_000);
            },
            |lab| { note(lab, None).await? }
        ),
        scenario!(
            "idempotency",
            "opens again after a refusal",
            |lab| {
                note(lab, None).await?;
                note_refused(lab).await?;
            },
            |lab| { note(lab, None).await? }
        ),
        scenario!("idempotency", "refused", |lab| { note(lab, None).await? }, |lab| { note_refused(lab).await? }),
        scenario!("idempotency", "refused without a record", |_lab| {}, |lab| { note_refused(lab).await? }),
        scenario!("touch_dataset", "the first", |_lab| {}, |lab| {
            touch_dataset(lab.shard(), &mut Caller::new(), &founded(lab).to_string(), TouchPurpose::CreateIfMissing)
                .await?;
        }),
        scenario!(
            "touch_dataset",
            "another",
            |lab| {
                touch_dataset(
                    lab.shard(),
                    &mut Caller::new(),
                    &founded(lab).to_string(),
                    TouchPurpose::CreateIfMissing,
                )
                .await?;
            },
            |lab| {
                touch_dataset(lab.shard(), &mut Caller::new(), &founded(lab).to_string(), TouchPurpose::Check).await?;
            }
        ),
        scenario!("touch_clock", "the first", |_lab| {}, |lab| { touch(lab).await? }),
        scenario!("touch_clock", "another", |lab| { touch(lab).await? }, |lab| { touch(lab).await? }),
        scenario!(
            "confirm_clock",
            "after an outage with live leases",
            |lab| {
                leased(lab, &[task(11)]).await?;
                // The clock of this lab stands still, and the last touch is 10 s old.
                lab.ask::<()>(cmd("HSET").arg(lab.key("callers")).arg("clock").arg("1999999990000")).await;
            },
            |lab| { touch(lab).await? }
        ),
        scenario!(
            "prune_callers",
            "idle callers",
            |lab| {
                lab.submit(&[task(11)]).await?;
                lab.at(9_000_000);
            },
            |lab| {
                prune_callers(lab.shard(), &mut Caller::new(), "0").await?;
            }
        ),
        scenario!("enable_events", "again", |lab| { listening(lab).await? }, |lab| { listening(lab).await? }),
        scenario!("repair", "entries", |lab| { damaged(lab).await? }, |lab| {
            let subjects =
                [entry(12, "leased:q"), entry(13, "scheduled:q"), entry(14, "scheduled:q"), entry(25, "slot:q:4:2")];
            repair(lab.shard(), &mut Caller::new(), &subjects).await?;
        }),
        scenario!("repair", "counters and counts", |lab| { damaged(lab).await? }, |lab| {
            let counts = Invariant::QueueCounts { queue: queue("q"), unlisted_slots: vec!["4:1".into()] };
            repair(
                lab.shard(),
                &mut Caller::new(),
                &[
                    Invariant::LastTurn(1),
                    Invariant::LastSeq { queue: queue("q"), seq: 4, ends: [0; 4] },
                    counts,
                    Invariant::ShardCounts(vec!["q".into()]),
                ],
            )
            .await?;
        }),
        scenario!("repair", "the wheel and the list of queues", |lab| { damaged(lab).await? }, |lab| {
            let place = Invariant::WheelEntry { queue: queue("q"), member: "4:1".into() };
            repair(lab.shard(), &mut Caller::new(), &[place, Invariant::QueueIndexes("q".into())]).await?;
        }),
        scenario!(
            "repair",
            "a dedupe key",
            |lab| {
                lab.submit(&[keyed(11, DedupeMode::Keep, Some(60_000))]).await?;
                let key = lab.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*dedupe*")).await;
                lab.ask::<()>(cmd("DEL").arg(&key[0])).await;
            },
            |lab| {
                let digest = Digest::of(&[b"d"]).as_bytes().to_vec();
                repair(
                    lab.shard(),
                    &mut Caller::new(),
                    &[Invariant::DedupeKey { queue: queue("q"), digest, ids: vec![id(11)] }],
                )
                .await?;
            }
        ),
        scenario!(
            "repair",
            "unreadable data set aside",
            |lab| {
                lab.submit(&[task(11), task(12), task(21)]).await?;
                lab.ask::<()>(cmd("SET").arg(lab.shard().keys.task(&id(11))).arg("x")).await;
                lab.ask::<()>(cmd("SET").arg(lab.key("scheduled:q")).arg("x")).await;
            },
            |lab| {
                let key = [&b"task:"[..], id(11).as_bytes()].concat();
                repair(lab.shard(), &mut Caller::new(), &[Invariant::KeyType { key, expected: "hash" }]).await?;
                let key = b"scheduled:q".to_vec();
                repair(lab.shard(), &mut Caller::new(), &[Invariant::KeyType { key, expected: "zset" }]).await?;
            }
        ),
        scenario!("verify_invariants", "damage of all kinds", |lab| { damaged(lab).await? }, |lab| {
            verify_invariants(lab.shard(), &[entry(14, "scheduled:q"), Invariant::QueueIndexes("q".into())]).await?;
        }),
        scenario!("sample_leases", "two leases", |lab| { leased(lab, &[task(11), task(12)]).await? }, |lab| {
            sample_leases(lab.shard(), &mut Caller::new(), None).await?;
        }),
        scenario!(
            "sample_leases",
            "no leases left",
            |lab| {
                leased(lab, &[task(11)]).await?;
                sample_leases(lab.shard(), &mut Caller::new(), None).await?;
                finish(lab, 11).await?;
                lab.at(60_000);
            },
            |lab| {
                sample_leases(lab.shard(), &mut Caller::new(), None).await?;
            }
        ),
        scenario!("record_workers", "the first", |_lab| {}, |lab| { seen(lab, &["a", "b"]).await? }),
        scenario!(
            "record_workers",
            "one seen again, one new, one dropped",
            |lab| {
                seen(lab, &["a", "b"]).await?;
                lab.at(90_000_000);
            },
            |lab| { seen(lab, &["b", "c"]).await? }
        ),
        scenario!("stats", "a claim", |lab| { leased(lab, &[task(11)]).await? }, |lab| {
            read_window(&lab.store, Some(&queue("q")), 2).await?;
        }),
        scenario!("next_due", "a scheduled task", |lab| { lab.submit(&[later(11)]).await? }, |lab| {
            next_due(lab.shard()).await?;
        }),
        scenario!("ended", "a completed task", |lab| { one_completed(lab).await? }, |lab| {
            ended_lists(lab.shard(), None, 10, 10).await?;
        }),
        scenario!(
            "delete",
            "when memory is short",
            |lab| {
                one_completed(lab).await?;
                lab.at(10_000);
            },
            |lab| { forget(lab, DeleteReason::MemoryShort, &[11]).await? }
        ),
        scenario!("ready", "of a slot", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            ready_tasks(&lab.store, &queue("q"), None, 10).await?;
        }),
        scenario!("oldest", "of a list", |lab| { one_completed(lab).await? }, |lab| {
            let list = EndedList { oldest: 0, queue: queue("q"), state: State::Completed };
            oldest_ended(lab.shard(), &[list], i64::MAX, 10).await?;
        }),
        scenario!("page", "a scheduled task", |lab| { lab.submit(&[later(11)]).await? }, |lab| {
            page_by_time(lab.shard(), &queue("q"), State::Scheduled, None, 10).await?;
        }),
    ]
}
