//! Adjustments: what the server changed in a report in order to take it. The response lists them.
//!
//! A report is rejected for its form (a missing field, a wrong type), which its author sees at the first try. It is
//! never rejected for its content (a long message, half an emoji), which depends on the work: the work would be lost.

use serde::{Serialize, Serializer};

/// The change of one value of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum Reason {
    /// Too long or nested too deeply: cut, with a mark in its place.
    Cut,
    /// Not JSON that every parser reads: half of a surrogate pair became U+FFFD, a number beyond a double null, and of
    /// two values of one name the last counts.
    Replaced,
    /// A number out of its range: moved to the nearest end.
    Clamped,
    /// Redis had no memory left for the value.
    Dropped,
}

/// One changed value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(in crate::api) struct Adjustment {
    /// JSON pointer of the value in the request.
    pointer: String,
    reason: Reason,
}

/// The adjustments of a report, or of one item of a batch.
#[derive(Clone, Default, Debug)]
pub(in crate::api) struct Adjusted {
    adjustments: Vec<Adjustment>,
    /// Whether the body has a defect of [`JsonDefect`](super::validate::JsonDefect), in any of its values.
    pub(super) may_have_defects: bool,
    /// Whether the body has U+FFFD or null in the place of what no parser reads.
    pub(super) has_substitutes: bool,
}

impl Adjusted {
    pub(in crate::api) fn new(may_have_defects: bool, has_substitutes: bool) -> Self {
        Adjusted { adjustments: Vec::new(), may_have_defects, has_substitutes }
    }

    /// Adds an adjustment.
    pub(in crate::api) fn push(&mut self, pointer: String, reason: Reason) {
        let adjustment = Adjustment { pointer, reason };
        if !self.adjustments.contains(&adjustment) {
            self.adjustments.push(adjustment);
        }
    }
}

impl Serialize for Adjusted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.adjustments.serialize(serializer)
    }
}

impl Adjusted {
    /// Adds the value at `pointer`, if it was dropped for lack of memory.
    pub(in crate::api) fn with_dropped(mut self, dropped: bool, pointer: impl FnOnce() -> String) -> Self {
        if dropped {
            self.push(pointer(), Reason::Dropped);
        }
        self
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
