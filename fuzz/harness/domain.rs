//! Harness of the fuzz targets `names` and `tokens`: parses arbitrary input, and requires that accepted input has one
//! textual form. Compiled only for fuzzing and tests.

use super::id::TaskId;
use super::queue::QueueName;
use super::slot::{SLOT_COUNT, Slot};
use super::time::TimestampMs;
use super::token::Token;

/// Parses queue names, keys, task ids and timestamps.
pub fn names(bytes: &[u8]) {
    assert!(Slot::of_key(bytes).number() < SLOT_COUNT);
    if let Some(id) = TaskId::from_bytes(bytes) {
        assert_reads_back(&id);
    }
    if let Some((ms, _)) = bytes.split_first_chunk::<8>() {
        // Every number has a textual form.
        assert!(!TimestampMs(i64::from_le_bytes(*ms)).to_string().is_empty());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_eq!(QueueName::parse(text).is_some(), is_queue_name(text), "{text:?}");
    if let Some(id) = TaskId::parse(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
        assert_reads_back(&id);
    }
    if let Some(time) = TimestampMs::parse(text) {
        assert!(is_rfc3339(text), "{text:?} is read as a time");
        let shown = time.to_string();
        assert!(is_rfc3339(&shown), "{text:?} is shown as {shown:?}");
        assert_eq!(TimestampMs::parse(&shown), Some(time), "{text:?}");
    }
}

fn assert_reads_back(id: &TaskId) {
    assert_eq!(TaskId::parse(&id.to_string()), Some(*id));
    assert_eq!(TaskId::from_bytes(id.as_bytes()), Some(*id));
    assert!(id.slot().number() < SLOT_COUNT);
    assert!(!id.created_at().to_string().is_empty());
}

/// Matches `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`, implemented differently from the parser.
fn is_queue_name(text: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
    (1..=128).contains(&text.chars().count()) && !text.starts_with(['.', '-', '_']) && text.chars().all(allowed)
}

/// Matches the grammar of RFC 3339, section 5.6, without the ranges of its numbers.
fn is_rfc3339(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let form: String = text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    let form = form.to_ascii_uppercase();
    let Some(rest) = form.strip_prefix("0000-00-00T00:00:00") else { return false };
    let zone = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(zone);
    let fraction_fits = fraction.is_empty() || fraction.strip_prefix('.').is_some_and(digits);
    fraction_fits && matches!(zone, "Z" | "+00:00" | "-00:00")
}

/// Parses lease tokens.
pub fn tokens(bytes: &[u8]) {
    if let Some(token) = Token::from_bytes(bytes) {
        let text = token.to_string();
        assert_eq!(Token::parse(&text), Some(token));
        // The debug form contains four characters of a token, never all.
        assert!(!format!("{token:?}").contains(&text));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(token) = Token::parse(text) {
        assert_eq!(token.to_string(), text, "two texts are one token");
    }
}

/// Runs a target on its seeds and past findings.
#[cfg(test)]
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "{} is empty", folder.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_names_and_tokens_pass() {
        replay("names", names);
        replay("tokens", tokens);
    }
}
