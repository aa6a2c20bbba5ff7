//! Timestamps of Redis' clock, and their form in JSON.

use std::fmt;

use jiff::Timestamp;

/// Milliseconds since 1970-01-01T00:00:00Z, by Redis' clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimestampMs(pub i64);

impl TimestampMs {
    /// Parses RFC 3339 with any offset and truncates to milliseconds; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        // jiff's parser also accepts hours without minutes, other separators, and zones by name.
        if text.len() > 64 || !is_rfc3339(text) {
            return None;
        }
        let ms = text.parse::<Timestamp>().ok()?.as_millisecond();
        (ms >= YEAR_0_MS).then_some(TimestampMs(ms))
    }
}

/// First millisecond of year 0. An earlier time, possible through an offset, has no form in RFC 3339.
const YEAR_0_MS: i64 = -62_167_219_200_000;

/// Returns whether the text has the form of section 5.6, without checking the ranges of its numbers.
fn is_rfc3339(text: &str) -> bool {
    let pattern = text.bytes().map(|byte| match byte {
        b'0'..=b'9' => b'0',
        other => other.to_ascii_uppercase(),
    });
    let form: Vec<u8> = pattern.collect();
    let Some(rest) = form.strip_prefix(b"0000-00-00T00:00:00") else { return false };
    let zone = match rest.strip_prefix(b".0") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| **byte == b'0').count();
            fraction.get(digits..).unwrap_or_default()
        }
    };
    matches!(zone, b"Z" | b"+00:00" | b"-00:00")
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}", if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timestamp_is_formatted_in_utc_with_milliseconds() {
        assert_eq!(TimestampMs(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(TimestampMs(1_700_000_000_007).to_string(), "2023-11-14T22:13:20.007Z");
    }

    #[test]
    fn offsets_are_read_and_other_forms_rejected() {
        assert_eq!(TimestampMs::parse("1970-01-01T01:00:00.5+01:00"), Some(TimestampMs(500)));
        for bad in ["", "now", "1970-01-01", "1970-01-01 00:00:00Z", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z"] {
            assert_eq!(TimestampMs::parse(bad), None, "{bad}");
        }
        for other_iso_8601 in ["1970-01-01T00Z", "1970-01-01T0000Z", "1970-01-01T00:00:00,5Z", "1970-01-01T00:00:00+01"]
        {
            assert_eq!(TimestampMs::parse(other_iso_8601), None, "{other_iso_8601}");
        }
        assert_eq!(TimestampMs::parse("0000-01-01T00:00:00Z").map(|time| time.0), Some(YEAR_0_MS));
        assert_eq!(TimestampMs::parse("0000-01-01T00:00:00+00:01"), None);
    }

    proptest! {
        #[test]
        fn time_text_round_trips(ms in 0i64..253_402_300_799_000) {
            prop_assert_eq!(TimestampMs::parse(&TimestampMs(ms).to_string()), Some(TimestampMs(ms)));
        }
    }
}
