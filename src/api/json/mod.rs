//! JSON: fields of a request, checks before parsing, adjustments of a report, results of a batch, and the shapes of
//! responses.

pub(super) mod adjusted;
pub(super) mod as_text;
pub(super) mod batch_results;
pub(super) mod fields;
pub(super) mod pointer;
mod report_fields;
pub(super) mod rewrite;
pub(super) mod shapes;
pub(super) mod validate;
