//! Lease expiry: ends the leases that were neither reported nor extended in time.

use std::time::SystemTime;

use tokio::time::timeout;

use super::job::{Context, Turn};
use super::stale_entries::correct_entries;
use crate::domain::id::TaskId;
use crate::domain::task::ErrorReport;
use crate::spans::{ExecutionOutcome, READ_TIMEOUT, Spans, TaskSpan, TracedTask, system_time};
use crate::store::ops::expire_leases::{ExpiredLease, expire_leases};
use crate::store::views::expired_leases::expired_leases;
use crate::store::views::lease_details::{LeaseDetails, lease_details};
use crate::store::{Error, Result, Shard};

/// A span to send: task, span, start, end.
type Span = (TracedTask, TaskSpan, SystemTime, SystemTime);

pub(super) async fn step(context: &mut Context, turn: &Turn) -> Result<usize> {
    let Some(queue) = &turn.queue else { return Ok(0) };
    let found = expired_leases(&context.shard, queue, turn.now, turn.limit).await?;
    if found.entries == 0 {
        return Ok(0);
    }
    let expired: Vec<ExpiredLease> = found
        .leases
        .into_iter()
        .filter_map(|(id, holding)| {
            let wait_ms = holding.retry_delay_ms(rand::random());
            let report = ErrorReport {
                worker: holding.worker,
                kind: "lease_expired".into(),
                message: "the lease expired before the worker reported".into(),
                details: None,
            };
            Some(ExpiredLease { id, token: holding.lease?, report, wait_ms })
        })
        .collect();
    if !expired.is_empty() {
        let traced = read_spans(&context.shard, &expired, &context.spans).await;
        let expired = expire_leases(&context.shard, &mut context.caller, &expired).await?;
        for (task, span, start, end) in expired.ended.iter().filter_map(|index| traced.get(*index)?.as_ref()) {
            context.spans.send(task, span, *start, *end);
        }
        let done = expired.ended.len().saturating_add(expired.prolonged);
        if done > 0 {
            return Ok(done);
        }
    }
    // Another server was faster, heartbeats extended the leases, or the entries are stale.
    correct_entries(context, &format!("leased:{queue}"), turn).await
}

/// Returns, for each lease, the span of its execution; `None` if the task is not traced. Empty if spans are disabled.
async fn read_spans(shard: &Shard, leases: &[ExpiredLease], spans: &Spans) -> Vec<Option<Span>> {
    if !spans.is_enabled() {
        return Vec::new();
    }
    let ids: Vec<TaskId> = leases.iter().map(|lease| lease.id).collect();
    let details = timeout(READ_TIMEOUT, lease_details(shard, &ids)).await.map_err(Error::timed_out).flatten();
    let details = details.unwrap_or_else(|error| {
        tracing::debug!(%error, shard = shard.index, "reading spans failed");
        Vec::new()
    });
    let to_span = |(lease, details): (&ExpiredLease, Option<LeaseDetails>)| {
        let details = details.filter(|details| details.lease == lease.token)?;
        let task = spans.trace(lease.id, &details.queue, &details.labels)?;
        let LeaseDetails { worker, attempt, begun, lease_until, .. } = details;
        let span = TaskSpan::Execution { worker, attempt, outcome: ExecutionOutcome::LeaseExpired };
        Some((task, span, system_time(begun), system_time(lease_until)))
    };
    leases.iter().zip(details).map(to_span).collect()
}
