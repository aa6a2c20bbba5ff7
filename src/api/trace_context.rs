//! The trace context that comes with a submit goes on to the worker with the task, unless the task brings its own.

use axum::http::HeaderMap;

use crate::domain::limits;
use crate::domain::task::Attributes;
use crate::domain::trace::{TRACEPARENT, TRACESTATE, TraceParent, is_tracestate};

/// The `traceparent` of a request and the `tracestate` beside it, as they came.
#[derive(Debug)]
pub(super) struct TraceContext {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// That of a request; `None` where it has none, or one that is not as it must be, or two.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?.to_str().ok()?;
        if parents.next().is_some() {
            return None;
        }
        TraceParent::parse(parent)?;
        // It may come in pieces, and without a parent it means nothing.
        let pieces: Result<Vec<&str>, _> = headers.get_all(TRACESTATE).iter().map(|piece| piece.to_str()).collect();
        let state = pieces.ok().map(|pieces| pieces.join(",")).filter(|state| is_tracestate(state));
        Some(TraceContext { parent: parent.to_owned(), state })
    }

    /// Hangs it on a task that names no parent itself, as far as there is room among the task's labels.
    pub(super) fn attach_to(&self, labels: &mut Attributes) {
        if labels.headers.contains_key(TRACEPARENT) || !add_header(labels, TRACEPARENT, &self.parent) {
            return;
        }
        if let Some(state) = &self.state
            && !labels.headers.contains_key(TRACESTATE)
        {
            add_header(labels, TRACESTATE, state);
        }
    }
}

/// Adds a header, if the limits that hold for a client's own let it; whether they did.
fn add_header(labels: &mut Attributes, name: &str, value: &str) -> bool {
    let Attributes { key: _, tags, headers } = labels;
    let sizes = headers.iter().map(|(name, value)| name.len() + value.len()).chain(tags.iter().map(String::len));
    let fits = headers.len() < limits::MAX_HEADERS
        && sizes.sum::<usize>() + name.len() + value.len() <= limits::MAX_ATTRIBUTES_BYTES;
    if fits {
        headers.insert(name.to_owned(), value.to_owned());
    }
    fits
}
