//! Ends leases that ran out.

use std::time::SystemTime;

use tokio::time::timeout;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::task::ErrorReport;
use crate::domain::time::Millis;
use crate::spans::{End, Followed, PATIENCE, Spans, Stretch, instant};
use crate::store::ops::reap::{Overdue, reap};
use crate::store::views::courses::{Course, courses};
use crate::store::views::overdue::overdue;
use crate::store::{Caller, Error, Result, Shard};

/// A span to be sent.
type Span = (Followed, Stretch, SystemTime, SystemTime);

pub(super) async fn run(
    shard: &Shard,
    caller: &mut Caller,
    queue: &QueueName,
    now: Millis,
    spans: &Spans,
) -> Result<()> {
    loop {
        let leases = overdue(shard, queue, now).await?;
        let count = leases.len();
        if count == 0 {
            return Ok(());
        }
        let leases: Vec<Overdue> = leases
            .into_iter()
            .filter_map(|(id, holding)| {
                let wait_ms = holding.wait_ms(rand::random());
                let report = ErrorReport {
                    worker: holding.worker,
                    kind: "lease_expired".into(),
                    message: "the lease ran out before the worker reported".into(),
                    details: None,
                };
                Some(Overdue { id, lease: holding.lease?, report, wait_ms })
            })
            .collect();
        let followed = followed(shard, &leases, spans).await;
        let ended = reap(shard, caller, &leases).await?;
        for (followed, stretch, from, to) in ended.iter().filter_map(|place| followed.get(*place)?.as_ref()) {
            spans.send(followed, stretch, *from, *to);
        }
        // Fewer than were seen: another replica was faster, or leases were prolonged. Those are looked at next time.
        if ended.len() < count {
            return Ok(());
        }
    }
}

/// The spans of executions that end with these leases, each in its place if it is followed.
async fn followed(shard: &Shard, leases: &[Overdue], spans: &Spans) -> Vec<Option<Span>> {
    if !spans.are_on() {
        return Vec::new();
    }
    let ids: Vec<TaskId> = leases.iter().map(|overdue| overdue.id).collect();
    let found = timeout(PATIENCE, courses(shard, &ids)).await.map_err(Error::late).flatten().unwrap_or_else(|error| {
        tracing::debug!(%error, "spans are lost");
        Vec::new()
    });
    let span = |(overdue, course): (&Overdue, Option<Course>)| {
        let course = course.filter(|course| course.lease == overdue.lease)?;
        let followed = spans.follow(overdue.id, &course.queue, &course.labels)?;
        let Course { worker, attempt, begun, until, .. } = course;
        let stretch = Stretch::Execution { worker, attempt, end: End::LeaseExpired };
        Some((followed, stretch, instant(begun), instant(until)))
    };
    leases.iter().zip(found).map(span).collect()
}
