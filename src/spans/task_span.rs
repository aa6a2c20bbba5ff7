//! A traced task, and the parts of its life that spans cover.

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::trace::TraceParent;

/// A traced task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TracedTask {
    /// The client's span.
    pub(super) parent: TraceParent,
    /// The vendors' part of the parent.
    pub(super) tracestate: Option<String>,
    pub(super) id: TaskId,
    pub(super) queue: QueueName,
}

/// The part of a task's life that a span covers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskSpan {
    /// From the task's creation until it is as durable as configured.
    Submit,
    /// From ready to leased.
    Waiting,
    /// The time of a lease.
    Execution {
        /// The worker that held the lease.
        worker: String,
        /// Attempt number, from 1.
        attempt: u32,
        /// How the execution ended.
        outcome: ExecutionOutcome,
    },
}

/// How an execution ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExecutionOutcome {
    /// The worker completed the task.
    Completed,
    /// The worker reported a failure.
    Failed,
    /// The worker released the task.
    Released,
    /// The lease expired.
    LeaseExpired,
}

impl ExecutionOutcome {
    /// The value of the attribute `slotwheel.outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            ExecutionOutcome::Completed => "completed",
            ExecutionOutcome::Failed => "failed",
            ExecutionOutcome::Released => "released",
            ExecutionOutcome::LeaseExpired => "lease_expired",
        }
    }

    /// Whether the span has the status error.
    pub fn is_error(self) -> bool {
        match self {
            ExecutionOutcome::Completed | ExecutionOutcome::Released => false,
            ExecutionOutcome::Failed | ExecutionOutcome::LeaseExpired => true,
        }
    }
}

impl TaskSpan {
    /// The value of the attribute `messaging.operation.name`.
    pub fn name(&self) -> &'static str {
        match self {
            TaskSpan::Submit => "submit",
            TaskSpan::Waiting => "waiting",
            TaskSpan::Execution { .. } => "execution",
        }
    }
}
