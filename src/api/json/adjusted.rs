//! Adjustments: what the server changed in a report in order to take it. The response lists them.
//!
//! A report is rejected for its form (a missing field, a wrong type), which its author sees at the first try. It is
//! never rejected for its content (a long message, half an emoji), which depends on the work: the work would be lost.

use serde::Serialize;

/// The change of one value of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum Reason {
    /// Too long or nested too deeply: cut, with a mark in its place.
    Cut,
    /// A number out of its range: moved to the nearest end.
    Clamped,
}

/// One changed value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(in crate::api) struct Adjustment {
    /// JSON pointer of the value in the request.
    pointer: String,
    reason: Reason,
}

/// The adjustments of a report, or of one item of a batch.
#[derive(Clone, Default, Debug, Serialize)]
#[serde(transparent)]
pub(in crate::api) struct Adjusted(Vec<Adjustment>);

impl Adjusted {
    /// Adds an adjustment.
    pub(in crate::api) fn push(&mut self, pointer: String, reason: Reason) {
        let adjustment = Adjustment { pointer, reason };
        if !self.0.contains(&adjustment) {
            self.0.push(adjustment);
        }
    }
}

/// Returns a text of at most `max` bytes: the beginning and the end of a longer `text`, around a mark with its length.
pub(in crate::api) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mark = format!(" … [cut, {} bytes] … ", text.len());
    let kept = max.saturating_sub(mark.len());
    let (mut head, mut tail) = (kept - kept / 2, text.len() - kept / 2);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    [text.get(..head).unwrap_or_default(), &mark, text.get(tail..).unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cut_text_keeps_its_beginning_and_end() {
        let text = format!("first{}last", "x".repeat(5000));
        let cut = cut(&text, 100);
        assert!(cut.len() <= 100 && cut.starts_with("first") && cut.ends_with("last"), "{cut}");
        assert!(cut.contains(" … [cut, 5009 bytes] … "), "{cut}");
    }

    proptest! {
        #[test]
        fn cut_text_is_within_its_limit(text in "\\PC{0,200}", max in 64usize..300) {
            let cut = cut(&text, max);
            prop_assert!(cut.len() <= max);
            prop_assert!(text.len() > max || cut == text);
        }
    }
}
