//! Spans of tasks, from submit to end, in the trace of the client that submitted them.
//!
//! A task is traced if its headers have a sampled `traceparent`. The client's span is the parent of all its spans: one
//! for the submit, one for each wait and one for each execution. Times are by Redis' clock, like all times of a task.
//! docs/tracing.md explains how they are obtained.
//!
//! Without the feature `otlp`, or without an endpoint, no task is traced, at no cost.

#[cfg(feature = "otlp")]
mod otlp;
mod task_span;

use std::time::{Duration, SystemTime};

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::task::Attributes;
use crate::domain::time::TimestampMs;
use crate::domain::trace::{TRACEPARENT, TRACESTATE, TraceParent, is_tracestate};

pub use task_span::{ExecutionOutcome, TaskSpan, TracedTask};

/// Time limit for reading the details of a request's spans from Redis. After it the spans are lost, and the request
/// continues.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The exporter of spans, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    #[cfg(feature = "otlp")]
    exporter: Option<std::sync::Arc<otlp::Exporter>>,
}

impl Spans {
    /// Exports spans to the collector at `endpoint`, the base URL of its OTLP paths. `None` exports none.
    ///
    /// # Errors
    /// If the exporter cannot be set up. The collector is not contacted.
    pub fn with_endpoint(endpoint: Option<&str>) -> anyhow::Result<Self> {
        #[cfg(feature = "otlp")]
        return Ok(Spans { exporter: endpoint.map(otlp::Exporter::new).transpose()?.map(Into::into) });
        #[cfg(not(feature = "otlp"))]
        match endpoint {
            None => Ok(Spans::default()),
            Some(_) => anyhow::bail!("built without the feature otlp: no spans can be exported"),
        }
    }

    /// Whether spans are exported.
    pub fn is_enabled(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.exporter.is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }

    /// Returns the task if it is traced.
    pub fn trace(&self, id: TaskId, queue: &QueueName, attributes: &Attributes) -> Option<TracedTask> {
        if !self.is_enabled() {
            return None;
        }
        let parent = TraceParent::parse(attributes.headers.get(TRACEPARENT)?).filter(|parent| parent.sampled)?;
        // Headers given with a task are not validated on submit.
        let tracestate = attributes.headers.get(TRACESTATE).filter(|state| is_tracestate(state)).cloned();
        Some(TracedTask { parent, tracestate, id, queue: queue.clone() })
    }

    /// Queues a span for export. If the queue is full, the span is lost.
    pub fn send(&self, task: &TracedTask, span: &TaskSpan, start: SystemTime, end: SystemTime) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.send(task, span, start, end);
        }
        #[cfg(not(feature = "otlp"))]
        let _ = (task, span, start, end);
    }

    /// Exports the queued spans, for at most 2 s.
    pub async fn flush(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            otlp::flush(exporter).await;
        }
    }
}

/// Converts a time of Redis' clock. A time before 1970 becomes 1970.
pub fn system_time(time: TimestampMs) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(time.0).unwrap_or(0))
}
