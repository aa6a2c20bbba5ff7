//! Finds the end of a chunked body, so that the bytes after it are checked as the next request head.
//!
//! The HTTP library decodes the chunks. The scanner only finds their boundaries, and rejects syntax that the library
//! would tolerate.

/// Hexadecimal digits of a chunk size: 8 allow 4 GiB, more than any accepted body.
const MAX_SIZE_DIGITS: u8 = 8;
/// Bytes of the extension in one size line.
const MAX_EXTENSION_BYTES: u16 = 256;
/// Bytes of all trailers.
const MAX_TRAILER_BYTES: u16 = 4096;

/// The body does not follow the chunked encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the chunked encoding of the body is malformed")]
pub(super) struct InvalidChunk;

/// The position in a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ChunkState {
    /// In the digits of a chunk size, after `digits` of them.
    Size { digits: u8 },
    /// In a chunk extension, which is ignored.
    Extension { bytes: u16 },
    /// Before the line feed of a size line.
    SizeLineFeed,
    /// In the data of a chunk.
    Data,
    /// After the data, before the carriage return.
    DataCarriageReturn,
    /// After the data, before the line feed.
    DataLineFeed,
    /// At the start of a line after the last chunk.
    TrailerLineStart,
    /// In a trailer.
    Trailer,
    /// Before the line feed of a trailer.
    TrailerLineFeed,
    /// Before the line feed of the empty line that ends the body.
    FinalLineFeed,
    /// After the body.
    Finished,
}

/// A scanner for one chunked body, fed in parts of any size.
#[derive(Debug)]
pub(super) struct ChunkScanner {
    state: ChunkState,
    /// Bytes of the current chunk that have not arrived.
    chunk_bytes_left: u64,
    trailer_bytes: u16,
}

impl ChunkScanner {
    pub(super) fn new() -> Self {
        ChunkScanner { state: ChunkState::Size { digits: 0 }, chunk_bytes_left: 0, trailer_bytes: 0 }
    }

    /// Whether the body has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.state == ChunkState::Finished
    }

    /// Scans the next part of the stream. Returns how many of its bytes belong to the body.
    ///
    /// # Errors
    /// If the body does not follow the chunked encoding, or exceeds a limit above.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        let mut position = 0;
        while let Some(&byte) = bytes.get(position) {
            match self.state {
                ChunkState::Finished => break,
                ChunkState::Data => {
                    let left = usize::try_from(self.chunk_bytes_left).unwrap_or(usize::MAX);
                    let length = left.min(bytes.len() - position);
                    position += length;
                    self.chunk_bytes_left -= length as u64;
                    if self.chunk_bytes_left == 0 {
                        self.state = ChunkState::DataCarriageReturn;
                    }
                    continue;
                }
                _ => self.state = self.next_state(byte)?,
            }
            position += 1;
        }
        Ok(position)
    }

    fn next_state(&mut self, byte: u8) -> Result<ChunkState, InvalidChunk> {
        use ChunkState as S;
        Ok(match (self.state, byte) {
            (S::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                self.chunk_bytes_left = self.chunk_bytes_left * 16 + digit;
                S::Size { digits: digits + 1 }
            }
            (S::Size { digits: 1.. }, b'\r') => S::SizeLineFeed,
            (S::Size { digits: 1.. }, b';') => S::Extension { bytes: 0 },
            (S::Extension { .. }, b'\r') => S::SizeLineFeed,
            (S::Extension { bytes }, _) if bytes < MAX_EXTENSION_BYTES && is_text_byte(byte) => {
                S::Extension { bytes: bytes + 1 }
            }
            (S::SizeLineFeed, b'\n') if self.chunk_bytes_left == 0 => S::TrailerLineStart,
            (S::SizeLineFeed, b'\n') => S::Data,
            (S::DataCarriageReturn, b'\r') => S::DataLineFeed,
            (S::DataLineFeed, b'\n') => S::Size { digits: 0 },
            (S::TrailerLineStart, b'\r') => S::FinalLineFeed,
            (S::Trailer, b'\r') => S::TrailerLineFeed,
            (S::TrailerLineStart | S::Trailer, _) if self.trailer_bytes < MAX_TRAILER_BYTES && is_text_byte(byte) => {
                self.trailer_bytes += 1;
                S::Trailer
            }
            (S::TrailerLineFeed, b'\n') => S::TrailerLineStart,
            (S::FinalLineFeed, b'\n') => S::Finished,
            _ => return Err(InvalidChunk),
        })
    }
}

fn is_text_byte(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the length of the body in `text`, or `None` if the body has not ended.
    fn body_end(text: &str) -> Result<Option<usize>, InvalidChunk> {
        let mut scanner = ChunkScanner::new();
        let consumed = scanner.scan(text.as_bytes())?;
        // A scan byte by byte gives the same result.
        let mut byte_scanner = ChunkScanner::new();
        let byte_consumed: usize = text.bytes().map(|byte| byte_scanner.scan(&[byte]).unwrap()).sum();
        assert_eq!((consumed, scanner.is_finished()), (byte_consumed, byte_scanner.is_finished()));
        Ok(scanner.is_finished().then_some(consumed))
    }

    #[test]
    fn chunked_body_ends_after_last_chunk_and_trailers() {
        assert_eq!(body_end("0\r\n\r\nGET"), Ok(Some(5)));
        assert_eq!(body_end("3\r\nabc\r\n0\r\n\r\nGET"), Ok(Some(13)));
        assert_eq!(body_end("A;x=y\r\n0123456789\r\n00\r\nt: 1\r\n\r\nGET"), Ok(Some(31)));
        assert_eq!(body_end("3\r\nab"), Ok(None));
    }

    #[test]
    fn malformed_chunked_body_is_rejected() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r",
            "3\r\nabcd",
            "3\r\nabc\n",
            "123456789\r\n",
            "1;a\nb",
            "0\r\n\n",
            "0\r\na\n",
        ] {
            assert_eq!(ChunkScanner::new().scan(text.as_bytes()), Err(InvalidChunk), "{text:?}");
        }
    }
}
