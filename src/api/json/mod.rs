//! JSON: request fields, validation, batch results, responses and their shapes.

pub(super) mod batch_results;
pub(super) mod fields;
pub(super) mod response;
pub(super) mod shapes;
pub(super) mod validate;
