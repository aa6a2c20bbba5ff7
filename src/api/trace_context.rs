//! Stores the trace context of a submit with its task, unless the task has its own. The worker gets it with the claim.

use axum::http::HeaderMap;

use crate::domain::limits;
use crate::domain::task::Attributes;
use crate::domain::trace::{TRACEPARENT, TRACESTATE, TraceParent, is_tracestate};

/// The `traceparent` and `tracestate` headers of a request, unchanged.
#[derive(Debug)]
pub(super) struct TraceContext {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// Returns the trace context of a request; `None` if it is missing, malformed or repeated.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?.to_str().ok()?;
        if parents.next().is_some() {
            return None;
        }
        TraceParent::parse(parent)?;
        // tracestate may be split over several headers.
        let pieces: Result<Vec<&str>, _> = headers.get_all(TRACESTATE).iter().map(|piece| piece.to_str()).collect();
        let state = pieces.ok().map(|pieces| pieces.join(",")).filter(|state| is_tracestate(state));
        Some(TraceContext { parent: parent.to_owned(), state })
    }

    /// Adds the context to the headers of a task that has no `traceparent`, as far as the limits permit.
    pub(super) fn attach_to(&self, attributes: &mut Attributes) {
        if attributes.headers.contains_key(TRACEPARENT) || !add_header(attributes, TRACEPARENT, &self.parent) {
            return;
        }
        if let Some(state) = &self.state
            && !attributes.headers.contains_key(TRACESTATE)
        {
            add_header(attributes, TRACESTATE, state);
        }
    }
}

/// Adds a header if the limits of a task's headers permit it. Returns whether it was added.
fn add_header(attributes: &mut Attributes, name: &str, value: &str) -> bool {
    let Attributes { key: _, tags, headers } = attributes;
    let sizes = headers.iter().map(|(name, value)| name.len() + value.len()).chain(tags.iter().map(String::len));
    let fits = headers.len() < limits::MAX_HEADERS
        && sizes.sum::<usize>() + name.len() + value.len() <= limits::MAX_ATTRIBUTES_BYTES;
    if fits {
        headers.insert(name.to_owned(), value.to_owned());
    }
    fits
}
