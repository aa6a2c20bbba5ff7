//! Instants of Redis' clock, and their form in JSON.

use std::fmt;

use jiff::Timestamp;

/// Milliseconds since 1970-01-01T00:00:00Z, by Redis' clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Millis(pub i64);

impl Millis {
    /// Reads RFC 3339 with any offset; digits beyond the millisecond are dropped. `None` where it does not parse.
    pub fn parse(text: &str) -> Option<Self> {
        // RFC 3339 has neither bracketed zones nor a blank between date and time, which the parser would take.
        let is_rfc3339 = text.len() <= 64 && text.as_bytes().get(10).is_some_and(|b| matches!(b, b'T' | b't'));
        if !is_rfc3339 || text.contains('[') {
            return None;
        }
        Some(Millis(text.parse::<Timestamp>().ok()?.as_millisecond()))
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Millis {
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
    fn times_are_shown_in_utc_with_milliseconds() {
        assert_eq!(Millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Millis(1_700_000_000_007).to_string(), "2023-11-14T22:13:20.007Z");
    }

    #[test]
    fn offsets_are_read_and_other_forms_refused() {
        assert_eq!(Millis::parse("1970-01-01T01:00:00.5+01:00"), Some(Millis(500)));
        for bad in ["", "now", "1970-01-01", "1970-01-01 00:00:00Z", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z"] {
            assert_eq!(Millis::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_back(ms in 0i64..253_402_300_799_000) {
            prop_assert_eq!(Millis::parse(&Millis(ms).to_string()), Some(Millis(ms)));
        }
    }
}
