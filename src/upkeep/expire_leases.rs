//! Ends leases that ran out.

use std::time::SystemTime;

use tokio::time::timeout;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::task::ErrorReport;
use crate::domain::time::TimestampMs;
use crate::spans::{ExecutionOutcome, READ_TIMEOUT, Spans, TaskSpan, TracedTask, system_time};
use crate::store::ops::expire_leases::{ExpiredLease, expire_leases};
use crate::store::views::expired_leases::expired_leases;
use crate::store::views::lease_details::{LeaseDetails, lease_details};
use crate::store::{Caller, Error, Result, Shard};

/// A span to be sent.
type Span = (TracedTask, TaskSpan, SystemTime, SystemTime);

pub(super) async fn run(
    shard: &Shard,
    caller: &mut Caller,
    queue: &QueueName,
    now: TimestampMs,
    spans: &Spans,
) -> Result<()> {
    loop {
        let expired = expired_leases(shard, queue, now).await?;
        let count = expired.len();
        if count == 0 {
            return Ok(());
        }
        let expired: Vec<ExpiredLease> = expired
            .into_iter()
            .filter_map(|(id, holding)| {
                let wait_ms = holding.retry_delay_ms(rand::random());
                let report = ErrorReport {
                    worker: holding.worker,
                    kind: "lease_expired".into(),
                    message: "the lease ran out before the worker reported".into(),
                    details: None,
                };
                Some(ExpiredLease { id, token: holding.lease?, report, wait_ms })
            })
            .collect();
        let traced = followed(shard, &expired, spans).await;
        let ended = expire_leases(shard, caller, &expired).await?;
        for (followed, stretch, from, to) in ended.iter().filter_map(|place| traced.get(*place)?.as_ref()) {
            spans.send(followed, stretch, *from, *to);
        }
        // Fewer than were seen: another replica was faster, or leases were prolonged. Those are looked at next time.
        if ended.len() < count {
            return Ok(());
        }
    }
}

/// The spans of executions that end with these leases, each in its place if it is followed.
async fn followed(shard: &Shard, leases: &[ExpiredLease], spans: &Spans) -> Vec<Option<Span>> {
    if !spans.is_enabled() {
        return Vec::new();
    }
    let ids: Vec<TaskId> = leases.iter().map(|overdue| overdue.id).collect();
    let details =
        timeout(READ_TIMEOUT, lease_details(shard, &ids)).await.map_err(Error::timed_out).flatten().unwrap_or_else(
            |error| {
                tracing::debug!(%error, "spans are lost");
                Vec::new()
            },
        );
    let to_span = |(overdue, course): (&ExpiredLease, Option<LeaseDetails>)| {
        let course = course.filter(|course| course.lease == overdue.token)?;
        let followed = spans.trace(overdue.id, &course.queue, &course.labels)?;
        let LeaseDetails { worker, attempt, begun, lease_until: until, .. } = course;
        let stretch = TaskSpan::Execution { worker, attempt, outcome: ExecutionOutcome::LeaseExpired };
        Some((followed, stretch, system_time(begun), system_time(until)))
    };
    leases.iter().zip(details).map(to_span).collect()
}
