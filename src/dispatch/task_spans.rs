//! Spans of traced tasks, sent when a task is submitted, delivered, and when its lease ends. An execution's details are
//! read from Redis before the lease can end, because the task may be leased again right after. They do not depend on
//! the server that leased it.
//!
//! Without an exporter, each function returns at once and nothing is read or kept.

use std::time::SystemTime;

use futures_util::future::{join_all, try_join};
use tokio::time::{Instant, timeout};

use super::batch::{BatchItem, BatchedOp};
use super::batcher::Batcher;
use crate::domain::id::TaskId;
use crate::domain::task::{ClaimedTask, NewTask};
use crate::spans::{ExecutionOutcome, READ_TIMEOUT, Spans, TaskSpan, TracedTask, system_time};
use crate::store::ops::fail::Failure;
use crate::store::ops::release::Release;
use crate::store::ops::submit::Submitted;
use crate::store::ops::{LeaseEnd, LeaseRef};
use crate::store::views::lease_details::{LeaseDetails, ReadyWait, lease_details, ready_waits};
use crate::store::views::next_due::next_due;
use crate::store::{Error, Result, Shard, Store};

/// Sends the spans of traced tasks.
#[derive(Debug)]
pub(super) struct TaskTracer {
    spans: Spans,
    store: Store,
}

/// The waits that end with a delivery.
#[derive(Debug)]
pub(super) struct WaitSpans {
    spans: Spans,
    waits: Vec<(TracedTask, SystemTime, SystemTime)>,
}

/// The execution that a report ends.
#[derive(Debug)]
struct ExecutionSpan {
    task: TracedTask,
    lease: LeaseDetails,
    /// When the details were read, by the clocks of Redis and of this process.
    read_at: (SystemTime, Instant),
}

/// A report that ends a lease.
pub(super) trait LeaseReport: BatchItem {
    /// The lease that it ends.
    fn lease(&self) -> &LeaseRef;
}

impl LeaseReport for Failure {
    fn lease(&self) -> &LeaseRef {
        &self.lease_ref
    }
}

impl LeaseReport for Release {
    fn lease(&self) -> &LeaseRef {
        &self.lease_ref
    }
}

impl TaskTracer {
    pub(super) fn new(spans: Spans, store: &Store) -> Self {
        TaskTracer { spans, store: store.clone() }
    }

    /// Sends the span of each task that a submit created. The submit was sent at `started`.
    pub(super) fn send_submits(&self, started: Instant, replies: &[Result<(NewTask, Submitted)>]) {
        if !self.spans.is_enabled() {
            return;
        }
        for (task, submitted) in replies.iter().flatten() {
            if let Submitted::Created { at, .. } | Submitted::CreatedAfter { at, .. } = submitted
                && let Some(traced) = self.spans.trace(task.id, &task.queue, &task.attributes)
            {
                // The span starts when Redis has the task: durability takes most of the time. A span that ended then
                // would start before the client's request.
                let created_at = system_time(*at);
                self.spans.send(&traced, &TaskSpan::Submit, created_at, created_at + started.elapsed());
            }
        }
    }

    /// Sends reports and then the span of each execution that they ended.
    pub(super) async fn trace_reports<Op>(
        &self,
        reports: Vec<Op::Item>,
        outcome: ExecutionOutcome,
        batcher: &Batcher<Op>,
    ) -> Vec<Result<Op::Reply>>
    where
        Op: BatchedOp,
        Op::Item: LeaseReport,
        Op::Reply: AsRef<LeaseEnd>,
    {
        if !self.spans.is_enabled() {
            return batcher.send_all(reports).await;
        }
        let leases: Vec<LeaseRef> = reports.iter().map(|report| report.lease().clone()).collect();
        // Boxed, here and below: waiting requests hold no room for it.
        let read = Box::pin(timeout(READ_TIMEOUT, self.read_executions(&leases)));
        let executions = read.await.unwrap_or_default();
        let replies = batcher.send_all(reports).await;
        for (execution, reply) in executions.into_iter().zip(&replies) {
            if let (Some(execution), Ok(reply)) = (execution, reply)
                && matches!(reply.as_ref(), LeaseEnd::Done { repeated: false, .. })
            {
                self.send_execution(execution, outcome);
            }
        }
        replies
    }

    fn send_execution(&self, execution: ExecutionSpan, outcome: ExecutionOutcome) {
        let ExecutionSpan { task, lease, read_at: (redis_now, read_at) } = execution;
        let LeaseDetails { worker, attempt, begun, .. } = lease;
        let span = TaskSpan::Execution { worker, attempt, outcome };
        self.spans.send(&task, &span, system_time(begun), redis_now + read_at.elapsed());
    }

    /// Reads the executions that reports of these leases would end, in order; `None` where the task is not traced or
    /// the token is not that of its last lease.
    async fn read_executions(&self, leases: &[LeaseRef]) -> Vec<Option<ExecutionSpan>> {
        let mut executions: Vec<Option<ExecutionSpan>> = leases.iter().map(|_| None).collect();
        let read = join_all(self.store.shards().iter().map(|shard| self.read_executions_in(shard, leases))).await;
        for (index, execution) in read.into_iter().flatten() {
            if let Some(entry) = executions.get_mut(index) {
                *entry = Some(execution);
            }
        }
        executions
    }

    /// Reads the executions of one shard, each with its index. Returns none if Redis fails: then only spans are lost.
    async fn read_executions_in(&self, shard: &Shard, leases: &[LeaseRef]) -> Vec<(usize, ExecutionSpan)> {
        let is_here = |(_, lease): &(usize, &LeaseRef)| self.store.shard_for_task(&lease.id).index == shard.index;
        let leases_here: Vec<(usize, &LeaseRef)> = leases.iter().enumerate().filter(is_here).collect();
        if leases_here.is_empty() {
            return Vec::new();
        }
        let ids: Vec<TaskId> = leases_here.iter().map(|(_, lease)| lease.id).collect();
        let redis_now = async { next_due(shard).await.map(|next_due| (system_time(next_due.now), Instant::now())) };
        let Ok((details, read_at)) = try_join(lease_details(shard, &ids), redis_now).await.map_err(log_lost_spans)
        else {
            return Vec::new();
        };
        let execution = |((index, lease), details): ((usize, &LeaseRef), Option<LeaseDetails>)| {
            // A client that releases a task has no token.
            let details = details.filter(|details| lease.lease.is_none_or(|token| token == details.lease))?;
            let task = self.spans.trace(lease.id, &details.queue, &details.labels)?;
            Some((index, ExecutionSpan { task, lease: details, read_at }))
        };
        leases_here.into_iter().zip(details).filter_map(execution).collect()
    }

    /// Reads the waits that end when these tasks of one shard are delivered. Returns `None` without an exporter.
    pub(super) async fn wait_spans(&self, tasks: &[ClaimedTask]) -> Option<Box<WaitSpans>> {
        if !self.spans.is_enabled() {
            return None;
        }
        Box::pin(timeout(READ_TIMEOUT, self.read_waits(tasks))).await.ok().flatten()
    }

    async fn read_waits(&self, tasks: &[ClaimedTask]) -> Option<Box<WaitSpans>> {
        let trace = |task: &ClaimedTask| Some((self.spans.trace(task.id, &task.queue, &task.attributes)?, task.lease));
        let (traced, ids): (Vec<_>, Vec<TaskId>) =
            tasks.iter().filter_map(|task| Some((trace(task)?, task.id))).unzip();
        let shard = self.store.shard_for_task(ids.first()?);
        let ready_waits = ready_waits(shard, &ids).await.map_err(log_lost_spans).ok()?;
        let wait = |((task, lease), wait): (_, Option<ReadyWait>)| {
            // The lease may have ended already. Its token is kept, but the task may be ready again.
            let wait = wait.filter(|wait| wait.lease == lease && wait.ready_at <= wait.begun)?;
            Some((task, system_time(wait.ready_at), system_time(wait.begun)))
        };
        let waits = traced.into_iter().zip(ready_waits).filter_map(wait).collect();
        Some(Box::new(WaitSpans { spans: self.spans.clone(), waits }))
    }
}

impl WaitSpans {
    /// Sends the spans: the client has received the tasks.
    pub(super) fn send(&self) {
        for (task, start, end) in &self.waits {
            self.spans.send(task, &TaskSpan::Waiting, *start, *end);
        }
    }
}

fn log_lost_spans(error: Error) {
    tracing::debug!(%error, "reading the details of traced tasks failed; their spans are lost");
}
