//! What is kept beside tasks, what only reads, and the doctor's own.

use std::time::Duration;

use deadpool_redis::redis::cmd;
use slotwheel::domain::digest::Digest;
use slotwheel::domain::queue::Settings;
use slotwheel::domain::state::State;
use slotwheel::domain::task::DedupeMode;
use slotwheel::domain::worker::Worker;
use slotwheel::store::Caller;
use slotwheel::store::Result;
use slotwheel::store::audit::Subject;
use slotwheel::store::found::Founded;
use slotwheel::store::ops::beat::{Purpose, beat};
use slotwheel::store::ops::mend::mend;
use slotwheel::store::ops::sample::sample;
use slotwheel::store::ops::settings::set;
use slotwheel::store::ops::sight::{Sighting, sight};
use slotwheel::store::ops::tidy::tidy;
use slotwheel::store::views::confirm::confirm;
use slotwheel::store::views::horizon::horizon;
use slotwheel::store::views::page::by_time;
use slotwheel::store::views::stats::window;

use super::{Scenario, damaged, entry, finish, keyed, later, leased, listening, note, pause, scenario};
use crate::support::lab::{Lab, id, queue, task};

fn founded(lab: &Lab) -> Founded {
    Founded { shards: lab.store.layout(), id: "f".into(), has_pulse: true }
}

async fn seen(lab: &Lab, names: &[&str]) -> Result<()> {
    let seen = names.iter().map(|name| Sighting {
        worker: Worker::unknown(name),
        seen: Duration::from_millis(7),
        claimed: Some(Duration::from_millis(9)),
    });
    sight(lab.shard(), &mut Caller::new(), &seen.collect::<Vec<_>>()).await.map(drop)
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario!("configure", "a queue that nobody knows", |_lab| {}, |lab| { pause(lab, 1, true).await? }),
        scenario!("configure", "pauses", |lab| { lab.submit(&[task(11)]).await? }, |lab| {
            pause(lab, 1, true).await?
        }),
        scenario!(
            "configure",
            "resumes",
            |lab| {
                lab.submit(&[task(11)]).await?;
                pause(lab, 1, true).await?;
            },
            |lab| { pause(lab, 2, false).await? }
        ),
        scenario!("settings", "the first", |_lab| {}, |lab| {
            set(&lab.store, &mut Caller::new(), &queue("q"), &Settings { paused: true }).await?;
        }),
        scenario!(
            "settings",
            "others",
            |lab| {
                set(&lab.store, &mut Caller::new(), &queue("q"), &Settings { paused: true }).await?;
            },
            |lab| {
                set(&lab.store, &mut Caller::new(), &queue("q"), &Settings { paused: false }).await?;
            }
        ),
        scenario!("remember", "opens", |_lab| {}, |lab| { note(lab, None).await? }),
        scenario!("remember", "closes", |lab| { note(lab, None).await? }, |lab| { note(lab, Some(201)).await? }),
        scenario!(
            "remember",
            "opens again after its time",
            |lab| {
                note(lab, Some(201)).await?;
                lab.at(2 * 86_400_000);
            },
            |lab| { note(lab, None).await? }
        ),
        scenario!("beat", "the first", |_lab| {}, |lab| {
            beat(lab.shard(), &mut Caller::new(), &founded(lab), Purpose::Found).await?;
        }),
        scenario!(
            "beat",
            "another",
            |lab| {
                beat(lab.shard(), &mut Caller::new(), &founded(lab), Purpose::Found).await?;
            },
            |lab| {
                beat(lab.shard(), &mut Caller::new(), &founded(lab), Purpose::Look).await?;
            }
        ),
        scenario!(
            "tidy",
            "pumps that are gone",
            |lab| {
                lab.submit(&[task(11)]).await?;
                lab.at(9_000_000);
            },
            |lab| {
                tidy(lab.shard(), &mut Caller::new(), "0").await?;
            }
        ),
        scenario!("listen", "again", |lab| { listening(lab).await? }, |lab| { listening(lab).await? }),
        scenario!("mend", "entries", |lab| { damaged(lab).await? }, |lab| {
            let subjects =
                [entry(12, "leased:q"), entry(13, "scheduled:q"), entry(14, "scheduled:q"), entry(25, "slot:q:4:2")];
            mend(lab.shard(), &mut Caller::new(), &subjects).await?;
        }),
        scenario!("mend", "counters and counts", |lab| { damaged(lab).await? }, |lab| {
            let counts = Subject::Counts { queue: queue("q"), places: vec!["4:1".into()] };
            mend(
                lab.shard(),
                &mut Caller::new(),
                &[Subject::Counters { seq: 4, turn: 1 }, counts, Subject::Total(vec!["q".into()])],
            )
            .await?;
        }),
        scenario!("mend", "the wheel and the list of queues", |lab| { damaged(lab).await? }, |lab| {
            let place = Subject::Place { queue: queue("q"), member: "4:1".into() };
            mend(lab.shard(), &mut Caller::new(), &[place, Subject::Queue("q".into())]).await?;
        }),
        scenario!(
            "mend",
            "a dedupe key",
            |lab| {
                lab.submit(&[keyed(11, DedupeMode::Keep, Some(60_000))]).await?;
                let key = lab.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*dedupe*")).await;
                lab.ask::<()>(cmd("DEL").arg(&key[0])).await;
            },
            |lab| {
                let digest = Digest::of(&[b"d"]).as_bytes().to_vec();
                mend(
                    lab.shard(),
                    &mut Caller::new(),
                    &[Subject::Dedupe { queue: queue("q"), digest, ids: vec![id(11)] }],
                )
                .await?;
            }
        ),
        scenario!("confirm", "much", |lab| { damaged(lab).await? }, |lab| {
            confirm(lab.shard(), &[entry(14, "scheduled:q"), Subject::Queue("q".into())]).await?;
        }),
        scenario!("sample", "who holds leases", |lab| { leased(lab, &[task(11), task(12)]).await? }, |lab| {
            sample(lab.shard(), &mut Caller::new(), None).await?;
        }),
        scenario!(
            "sample",
            "nobody any more",
            |lab| {
                leased(lab, &[task(11)]).await?;
                sample(lab.shard(), &mut Caller::new(), None).await?;
                finish(lab, 11).await?;
                lab.at(60_000);
            },
            |lab| {
                sample(lab.shard(), &mut Caller::new(), None).await?;
            }
        ),
        scenario!("sight", "the first", |_lab| {}, |lab| { seen(lab, &["a", "b"]).await? }),
        scenario!(
            "sight",
            "one again after long, one new, one forgotten",
            |lab| {
                seen(lab, &["a", "b"]).await?;
                lab.at(90_000_000);
            },
            |lab| { seen(lab, &["b", "c"]).await? }
        ),
        scenario!("stats", "something", |lab| { leased(lab, &[task(11)]).await? }, |lab| {
            window(&lab.store, Some(&queue("q")), 2).await?;
        }),
        scenario!("horizon", "something", |lab| { lab.submit(&[later(11)]).await? }, |lab| {
            horizon(lab.shard()).await?;
        }),
        scenario!("page", "something", |lab| { lab.submit(&[later(11)]).await? }, |lab| {
            by_time(lab.shard(), &queue("q"), State::Scheduled, None, 10).await?;
        }),
    ]
}
