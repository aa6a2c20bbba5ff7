//! Lease tokens: 128 random bits, formatted as 22 characters of URL-safe Base64.

use std::fmt;

/// Proof of a lease. It authorises complete, fail, release and heartbeat of the task.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Token {
    /// Returns the token of these random bits.
    pub fn new(random: u128) -> Self {
        Token(random.to_be_bytes())
    }

    /// Returns the token with these bytes; `None` unless there are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Token(bytes.try_into().ok()?))
    }

    /// Returns the token as stored in Redis.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses the form that [`Display`](fmt::Display) writes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let mut bits = 0u128;
        let mut last = 0u128;
        for (index, byte) in text.bytes().enumerate() {
            last = ALPHABET.iter().position(|&character| character == byte)? as u128;
            bits = if index < 21 { bits << 6 | last } else { bits << 2 | last >> 4 };
        }
        // The last character carries two bits. The other four must be zero, or two texts would parse to one token.
        (last & 0b1111 == 0).then_some(Token(bits.to_be_bytes()))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0; 22];
        for (index, character) in (0u32..).zip(&mut text) {
            let sextet = match index {
                0..=20 => bits >> (128 - 6 * (index + 1)),
                _ => bits << 4,
            } & 63;
            *character = ALPHABET.get(sextet as usize).copied().unwrap_or(b'A');
        }
        // At once: a writer that escapes looks at each piece anew.
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// A token is a secret: only its first four characters are logged.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:.4}…)", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn token_text_round_trips(random: u128) {
            let token = Token::new(random);
            let text = token.to_string();
            prop_assert_eq!(text.len(), 22);
            prop_assert_eq!(Token::parse(&text), Some(token));
        }

        #[test]
        fn token_of_any_text_does_not_panic(text in ".{0,30}") {
            if let Some(token) = Token::parse(&text) {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
