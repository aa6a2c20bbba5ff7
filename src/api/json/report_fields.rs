//! Reads the fields of reports. A value whose content the server cannot keep is changed, not rejected.

use super::adjusted::{Adjusted, Reason, cut};
use super::fields::Fields;
use crate::api::problem::Problem;
use crate::domain::limits::{self, ValueRange};
use crate::domain::task::RawJson;

impl Fields<'_> {
    /// Returns a whole number, moved into its range, if the field is present.
    pub(in crate::api) fn clamped_int(
        &self,
        name: &'static str,
        range: ValueRange,
        adjusted: &mut Adjusted,
    ) -> Result<Option<i64>, Problem> {
        let Some(field) = self.optional(name) else { return Ok(None) };
        let number = field.whole_number()?;
        let clamped = number.clamp(range.min, range.max);
        if clamped != number {
            adjusted.push(field.pointer(), Reason::Clamped);
        }
        Ok(Some(clamped))
    }

    /// Returns a string cut to `max` bytes, if the field is present.
    pub(in crate::api) fn cut_text(
        &self,
        name: &'static str,
        max: usize,
        adjusted: &mut Adjusted,
    ) -> Result<Option<String>, Problem> {
        let Some(field) = self.optional(name) else { return Ok(None) };
        let text = field.text(usize::MAX)?;
        if text.len() <= max {
            return Ok(Some(text));
        }
        adjusted.push(field.pointer(), Reason::Cut);
        Ok(Some(cut(&text, max)))
    }

    /// Returns any JSON, if the field is present. If it exceeds [`limits::MAX_JSON_BYTES`], its text is cut, and is a
    /// string.
    pub(in crate::api) fn cut_document(&self, name: &'static str, adjusted: &mut Adjusted) -> Option<RawJson> {
        let field = self.optional(name)?;
        let raw = field.raw;
        if raw.get().len() <= limits::MAX_JSON_BYTES {
            return Some(raw.to_owned());
        }
        adjusted.push(field.pointer(), Reason::Cut);
        Some(cut_json(raw.get()))
    }
}

/// Returns the JSON string of the cut text: that of a string, else of the JSON itself.
fn cut_json(json: &str) -> RawJson {
    let text = serde_json::from_str(json).unwrap_or_else(|_| json.to_owned());
    let mut max = limits::MAX_JSON_BYTES;
    loop {
        // The escapes of a string take up to six times its bytes.
        max -= max / 4;
        if let Ok(cut) = serde_json::value::to_raw_value(&cut(&text, max))
            && cut.get().len() <= limits::MAX_JSON_BYTES
        {
            return cut;
        }
    }
}
