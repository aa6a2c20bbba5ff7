//! The limit of the memory of the embedded Redis, as written in the settings.

/// A limit of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaxMemory {
    /// Bytes; 0: no limit.
    Bytes(u64),
    /// Percent of the memory of the machine or container, 1 to 100.
    Share(u8),
}

impl MaxMemory {
    /// The accepted values.
    pub(super) const FORMS: &'static str = "it takes a number of bytes, 0 for no limit, or a share from 1% to 100%";

    /// Parses a number of bytes or a share; `None` if it is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(share) => {
                let share = share.parse().ok().filter(|share| (1..=100).contains(share))?;
                Some(MaxMemory::Share(share))
            }
            None => text.parse().ok().map(MaxMemory::Bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_a_number_of_bytes_or_a_share() {
        assert_eq!(MaxMemory::parse("50%"), Some(MaxMemory::Share(50)));
        assert_eq!(MaxMemory::parse("4294967296"), Some(MaxMemory::Bytes(1 << 32)));
        for text in ["", "0%", "101%", "-1", "1GB", "%"] {
            assert_eq!(MaxMemory::parse(text), None, "{text}");
        }
    }
}
