//! Tasks that are followed on their way through this server: their spans are sent when they have been submitted, handed
//! out, and when their leases end. What a span tells of a lease, Redis is asked before the lease can end: after that
//! the task may have begun another. Which server gave it does not matter.
//!
//! Where no spans are sent, each function here returns at once, and nothing is asked or kept.

use std::time::SystemTime;

use futures_util::future::{join_all, try_join};
use tokio::time::{Instant, timeout};

use crate::domain::id::TaskId;
use crate::domain::task::{ClaimedTask, NewTask};
use crate::spans::{ExecutionOutcome, READ_TIMEOUT, Spans, TaskSpan, TracedTask, system_time};
use crate::store::ops::submit::Submitted;
use crate::store::ops::{LeaseEnd, LeaseRef};
use crate::store::views::lease_details::{LeaseDetails, ReadyWait, lease_details, ready_waits};
use crate::store::views::next_due::next_due;
use crate::store::{Error, Result, Shard, Store};

/// Follows tasks.
#[derive(Debug)]
pub(super) struct TaskTracer {
    spans: Spans,
    store: Store,
}

/// Submits on their way.
#[derive(Debug)]
pub(super) struct SubmitSpans {
    started: Instant,
    /// Each in its place.
    tasks: Vec<Option<TracedTask>>,
}

/// Waits that end when a client has the tasks.
#[derive(Debug)]
pub(super) struct WaitSpans {
    spans: Spans,
    waits: Vec<(TracedTask, SystemTime, SystemTime)>,
}

/// A lease that is about to end.
#[derive(Debug)]
pub(super) struct ExecutionSpan {
    task: TracedTask,
    lease: LeaseDetails,
    /// When this was found out, by Redis' clock and by ours.
    read_at: (SystemTime, Instant),
}

impl TaskTracer {
    pub(super) fn new(spans: Spans, store: &Store) -> Self {
        TaskTracer { spans, store: store.clone() }
    }

    /// Tasks are about to be submitted.
    pub(super) fn start_submits(&self, tasks: &[NewTask]) -> Option<SubmitSpans> {
        if !self.spans.is_enabled() {
            return None;
        }
        let trace = |task: &NewTask| self.spans.trace(task.id, &task.queue, &task.attributes);
        Some(SubmitSpans { started: Instant::now(), tasks: tasks.iter().map(trace).collect() })
    }

    /// They were submitted, each with its outcome.
    pub(super) fn finish_submits(&self, submits: Option<SubmitSpans>, outcomes: &[Result<Submitted>]) {
        let Some(submits) = submits else { return };
        for (task, outcome) in submits.tasks.iter().zip(outcomes) {
            if let (Some(followed), Ok(Submitted::Created { at, .. })) = (task, outcome) {
                // Most of the time goes by once Redis has it, until it is as durable as is wanted; and drawn the other
                // way, it would begin before its client's request.
                let created_at = system_time(*at);
                self.spans.send(followed, &TaskSpan::Submit, created_at, created_at + submits.started.elapsed());
            }
        }
    }

    /// Tasks of one shard are about to be handed out: the waits that end with that, if any is followed.
    pub(super) async fn wait_spans(&self, tasks: &[ClaimedTask]) -> Option<Box<WaitSpans>> {
        if !self.spans.is_enabled() {
            return None;
        }
        // Apart, here and below, so that it takes no room in requests that wait.
        Box::pin(timeout(READ_TIMEOUT, self.read_waits(tasks))).await.ok().flatten()
    }

    async fn read_waits(&self, tasks: &[ClaimedTask]) -> Option<Box<WaitSpans>> {
        let trace = |task: &ClaimedTask| Some((self.spans.trace(task.id, &task.queue, &task.attributes)?, task.lease));
        let (traced, ids): (Vec<_>, Vec<TaskId>) =
            tasks.iter().filter_map(|task| Some((trace(task)?, task.id))).unzip();
        let ready_waits =
            ready_waits(self.store.shard_for_task(ids.first()?), &ids).await.map_err(log_lost_spans).ok()?;
        let wait = |((task, lease), wait): (_, Option<ReadyWait>)| {
            // One that has ended by now is remembered with its token, and the task may be ready anew.
            let wait = wait.filter(|wait| wait.lease == lease && wait.ready_at <= wait.begun)?;
            Some((task, system_time(wait.ready_at), system_time(wait.begun)))
        };
        let waits = traced.into_iter().zip(ready_waits).filter_map(wait).collect();
        Some(Box::new(WaitSpans { spans: self.spans.clone(), waits }))
    }

    /// Leases are about to end, if their tokens hold. Each in its place; empty where none is followed.
    pub(super) async fn execution_spans<'a>(
        &self,
        leases: impl Iterator<Item = &'a LeaseRef> + Send,
    ) -> Vec<Option<ExecutionSpan>> {
        if !self.spans.is_enabled() {
            return Vec::new();
        }
        let leases: Vec<&LeaseRef> = leases.collect();
        Box::pin(timeout(READ_TIMEOUT, self.read_execution_spans(&leases))).await.unwrap_or_default()
    }

    async fn read_execution_spans(&self, leases: &[&LeaseRef]) -> Vec<Option<ExecutionSpan>> {
        let mut spans: Vec<Option<ExecutionSpan>> = leases.iter().map(|_| None).collect();
        let read = join_all(self.store.shards().iter().map(|shard| self.execution_spans_in(shard, leases))).await;
        for (index, span) in read.into_iter().flatten() {
            if let Some(entry) = spans.get_mut(index) {
                *entry = Some(span);
            }
        }
        spans
    }

    /// Those of one shard, each with its place; none where Redis does not say: their spans are lost, and nothing else.
    async fn execution_spans_in(&self, shard: &Shard, leases: &[&LeaseRef]) -> Vec<(usize, ExecutionSpan)> {
        let is_here = |(_, lease): &(usize, &&LeaseRef)| self.store.shard_for_task(&lease.id).index == shard.index;
        let leases_here: Vec<(usize, &&LeaseRef)> = leases.iter().enumerate().filter(is_here).collect();
        if leases_here.is_empty() {
            return Vec::new();
        }
        let ids: Vec<TaskId> = leases_here.iter().map(|(_, lease)| lease.id).collect();
        let redis_now = async { next_due(shard).await.map(|next_due| (system_time(next_due.now), Instant::now())) };
        let Ok((details, read_at)) = try_join(lease_details(shard, &ids), redis_now).await.map_err(log_lost_spans)
        else {
            return Vec::new();
        };
        let span = |((index, lease), details): ((usize, &&LeaseRef), Option<LeaseDetails>)| {
            let details = details.filter(|course| lease.lease == Some(course.lease))?;
            let task = self.spans.trace(lease.id, &details.queue, &details.labels)?;
            Some((index, ExecutionSpan { task, lease: details, read_at }))
        };
        leases_here.into_iter().zip(details).filter_map(span).collect()
    }

    /// They were reported to have ended, each with its outcome.
    pub(super) fn finish_executions<'a>(
        &self,
        spans: Vec<Option<ExecutionSpan>>,
        execution_outcome: ExecutionOutcome,
        outcomes: impl IntoIterator<Item = &'a Result<LeaseEnd>>,
    ) {
        for (span, outcome) in spans.into_iter().zip(outcomes) {
            if let (
                Some(ExecutionSpan { task: followed, lease: course, read_at: seen }),
                Ok(LeaseEnd::Done { repeated: false, .. }),
            ) = (span, outcome)
            {
                let LeaseDetails { worker, attempt, begun, .. } = course;
                let to = seen.0 + seen.1.elapsed();
                self.spans.send(
                    &followed,
                    &TaskSpan::Execution { worker, attempt, end: execution_outcome },
                    system_time(begun),
                    to,
                );
            }
        }
    }
}

impl WaitSpans {
    /// The client has the tasks.
    pub(super) fn send(&self) {
        for (task, from, to) in &self.waits {
            self.spans.send(task, &TaskSpan::Waiting, *from, *to);
        }
    }
}

/// Says why nothing is known of tasks whose spans would have been sent.
fn log_lost_spans(error: Error) {
    tracing::debug!(%error, "spans are lost");
}
