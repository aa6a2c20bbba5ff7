//! Reads the fields of reports. A value whose content the server cannot keep is changed, not rejected.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::adjusted::{Adjusted, Reason, cut};
use super::fields::{Field, Fields};
use super::rewrite::{Sound, without_defects};
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
        let text = match adjusted.may_have_defects && field.raw.get().starts_with('"') {
            true => decode(&field.without_defects(adjusted)),
            false => field.text(usize::MAX)?,
        };
        field.note_substitutes(adjusted);
        if text.len() <= max {
            return Ok(Some(text));
        }
        adjusted.push(field.pointer(), Reason::Cut);
        Ok(Some(cut(&text, max)))
    }

    /// Returns any JSON without defects, if the field is present. If it exceeds [`limits::MAX_JSON_BYTES`], its text is
    /// cut, and is a string.
    pub(in crate::api) fn cut_document(&self, name: &'static str, adjusted: &mut Adjusted) -> Option<RawJson> {
        let field = self.optional(name)?;
        field.note_substitutes(adjusted);
        let json: Cow<'_, str> = match adjusted.may_have_defects {
            true => Cow::Owned(field.without_defects(adjusted)),
            false => Cow::Borrowed(field.raw.get()),
        };
        if json.len() > limits::MAX_JSON_BYTES {
            adjusted.push(field.pointer(), Reason::Cut);
            return Some(cut_json(&json));
        }
        match json {
            Cow::Borrowed(_) => Some(field.raw.to_owned()),
            Cow::Owned(json) => RawValue::from_string(json).ok(),
        }
    }
}

impl Field<'_> {
    /// Returns the JSON of the field without defects.
    fn without_defects(&self, adjusted: &mut Adjusted) -> String {
        let pointer = self.pointer();
        // Each part of the pointer is inside one more bracket.
        let max_depth = limits::MAX_JSON_DEPTH.saturating_sub(pointer.matches('/').count());
        let Sound { json, is_cut, is_replaced } = without_defects(self.raw.get(), max_depth);
        for (is_changed, reason) in [(is_replaced, Reason::Replaced), (is_cut, Reason::Cut)] {
            if is_changed {
                adjusted.push(pointer.clone(), reason);
            }
        }
        json
    }

    /// Adds an adjustment if the field has what stands for unreadable parts of the body.
    fn note_substitutes(&self, adjusted: &mut Adjusted) {
        let text = self.raw.get();
        if adjusted.has_substitutes && (text.contains('\u{FFFD}') || text.contains("null")) {
            adjusted.push(self.pointer(), Reason::Replaced);
        }
    }
}

/// Returns the text of a JSON string without defects.
fn decode(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_default()
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
