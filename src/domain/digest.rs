//! Digests, used in key names and records in place of strings that users choose.

use sha2::{Digest as _, Sha256};

/// The first 128 bits of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Digest([u8; 16]);

impl Digest {
    /// Returns the digest of `parts`. Each part is preceded by its length, so that different lists have different
    /// input.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Digest(bytes)
    }

    /// Returns the digest with these bytes; `None` unless there are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Digest(bytes.try_into().ok()?))
    }

    /// Returns the digest as stored in Redis.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The first 64 bits of the digest of a routing key, by which tasks of one key are ordered and limited. Keys of equal digests
/// count as one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyDigest([u8; KeyDigest::BYTES]);

impl KeyDigest {
    /// Its length, in bytes.
    pub const BYTES: usize = 8;
    /// The highest digest.
    pub const MAX: Self = KeyDigest([u8::MAX; Self::BYTES]);

    /// Returns the digest of a routing key.
    pub fn of_key(key: &[u8]) -> Self {
        let mut bytes = [0; Self::BYTES];
        for (to, from) in bytes.iter_mut().zip(Digest::of(&[key]).0) {
            *to = from;
        }
        KeyDigest(bytes)
    }

    /// Returns the digest with these bytes; `None` unless there are 8.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(KeyDigest(bytes.try_into().ok()?))
    }

    /// Returns the digest as stored in Redis.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Parses 16 hexadecimal digits, as a digest is shown.
    pub fn parse(text: &str) -> Option<Self> {
        let number = u64::from_str_radix(text, 16).ok()?;
        let digest = KeyDigest(number.to_be_bytes());
        (digest.to_string() == text).then_some(digest)
    }
}

impl std::fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_keeps_its_parts_apart() {
        assert_ne!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"a", b"bc"]));
        assert_ne!(Digest::of(&[b"ab"]), Digest::of(&[b"ab", b""]));
        assert_eq!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"ab", b"c"]));
    }
}
