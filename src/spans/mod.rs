//! Spans of tasks: what a tracing system shows of a task between its submit and its end, in the trace of the client that
//! submitted it.
//!
//! A task is followed if it carries a `traceparent` whose owner keeps the trace. All spans of it are children of that
//! one: who looks at the client's trace sees the task's submit, each of its waits and each of its executions. Their times
//! are by Redis' clock, as all times of a task are; how they are come by is said in docs/tracing.md.
//!
//! Without the feature `otlp`, or without an endpoint, nothing is followed and nothing of this costs anything.

#[cfg(feature = "otlp")]
mod otlp;

use std::time::{Duration, SystemTime};

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::task::Attributes;
use crate::domain::time::TimestampMs;
use crate::domain::trace::{TRACEPARENT, TRACESTATE, TraceParent, is_tracestate};

/// A span for which Redis has to be asked longer is lost: work does not wait for it.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    #[cfg(feature = "otlp")]
    exporter: Option<std::sync::Arc<otlp::Exporter>>,
}

/// A task that is followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TracedTask {
    parent: TraceParent,
    /// What vendors add to the parent.
    tracestate: Option<String>,
    id: TaskId,
    queue: QueueName,
}

/// What a span is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskSpan {
    /// The server takes the task in.
    Submit,
    /// The task is ready and nobody has it.
    Waiting,
    /// A worker has it.
    Execution {
        /// Which.
        worker: String,
        /// The how manieth execution that counts, from 1.
        attempt: u32,
        /// How it ended.
        end: ExecutionOutcome,
    },
}

/// How an execution ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExecutionOutcome {
    /// Its worker completed it.
    Completed,
    /// Its worker said that it failed.
    Failed,
    /// Its worker handed the task back.
    Released,
    /// Its worker fell silent.
    LeaseExpired,
}

impl ExecutionOutcome {
    /// Its text, as the attribute `slotwheel.outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            ExecutionOutcome::Completed => "completed",
            ExecutionOutcome::Failed => "failed",
            ExecutionOutcome::Released => "released",
            ExecutionOutcome::LeaseExpired => "lease_expired",
        }
    }

    /// Whether it is an error.
    pub fn is_error(self) -> bool {
        match self {
            ExecutionOutcome::Completed | ExecutionOutcome::Released => false,
            ExecutionOutcome::Failed | ExecutionOutcome::LeaseExpired => true,
        }
    }
}

impl TaskSpan {
    /// Its name, as the attribute `messaging.operation.name`.
    pub fn name(&self) -> &'static str {
        match self {
            TaskSpan::Submit => "submit",
            TaskSpan::Waiting => "waiting",
            TaskSpan::Execution { .. } => "execution",
        }
    }
}

impl Spans {
    /// Sends spans to the collector at `endpoint`, the base of its OTLP paths. `None`: sends none.
    ///
    /// # Errors
    /// When the exporter cannot be set up. Whether the collector answers is not looked at.
    pub fn with_endpoint(endpoint: Option<&str>) -> anyhow::Result<Self> {
        #[cfg(feature = "otlp")]
        return Ok(Spans { exporter: endpoint.map(otlp::Exporter::new).transpose()?.map(Into::into) });
        #[cfg(not(feature = "otlp"))]
        match endpoint {
            None => Ok(Spans::default()),
            Some(_) => anyhow::bail!("built without the feature otlp"),
        }
    }

    /// Whether any are sent.
    pub fn is_enabled(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.exporter.is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }

    /// The task, if it is followed.
    pub fn trace(&self, id: TaskId, queue: &QueueName, labels: &Attributes) -> Option<TracedTask> {
        if !self.is_enabled() {
            return None;
        }
        let parent = TraceParent::parse(labels.headers.get(TRACEPARENT)?).filter(|parent| parent.sampled)?;
        // A task may bring its own, and that has not been looked at.
        let tracestate = labels.headers.get(TRACESTATE).filter(|state| is_tracestate(state)).cloned();
        Some(TracedTask { parent, tracestate, id, queue: queue.clone() })
    }

    /// Sends the span of a stretch, now or later; where there is no room for it, it is lost.
    pub fn send(&self, task: &TracedTask, span: &TaskSpan, start: SystemTime, end: SystemTime) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.send(task, span, start, end);
        }
        #[cfg(not(feature = "otlp"))]
        let _ = (task, span, start, end);
    }

    /// Sends what has not been sent yet, within bounds.
    pub async fn flush(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            otlp::flush(exporter).await;
        }
    }
}

/// An instant of Redis' clock.
pub fn system_time(time: TimestampMs) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(time.0).unwrap_or(0))
}
