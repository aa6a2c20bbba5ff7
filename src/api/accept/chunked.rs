//! Finds where a chunked body ends, so that what stands behind it is looked at as the head of the next request.
//! The HTTP library decodes the chunks; here they are only walked over, and refused where it would be lenient.

/// Digits of a chunk's size: 4 GiB are more than any body may have.
const MAX_SIZE_DIGITS: u8 = 8;
/// Bytes of a size line, and of all trailers.
const MAX_EXTENSION_BYTES: u16 = 256;
const MAX_TRAILER_BYTES: u16 = 4096;

/// The body is not chunked as it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InvalidChunk;

/// Where in a chunked body the walk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ChunkState {
    /// In the digits of a size, so many of which have come.
    Size {
        digits: u8,
    },
    /// Behind them, in what nobody looks at.
    Extension {
        bytes: u16,
    },
    /// Before the line feed of a size line.
    SizeLineFeed,
    /// In the bytes of a chunk.
    Data,
    /// Behind them: before the carriage return, then before the line feed.
    DataCarriageReturn,
    DataLineFeed,
    /// At the beginning of a line behind the last chunk.
    TrailerLineStart,
    /// In such a line; before its line feed; before the line feed of the empty one.
    Trailer,
    TrailerLineFeed,
    FinalLineFeed,
    /// Behind it all.
    Finished,
}

/// A walk over a chunked body.
#[derive(Debug)]
pub(super) struct ChunkScanner {
    state: ChunkState,
    /// Of the current chunk, those that have not come.
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

    /// Walks on; how many of `bytes` belong to the body.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        let mut position = 0;
        while let Some(&byte) = bytes.get(position) {
            match self.state {
                ChunkState::Finished => break,
                ChunkState::Data => {
                    let length =
                        usize::try_from(self.chunk_bytes_left).unwrap_or(usize::MAX).min(bytes.len() - position);
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
        Ok(match (self.state, byte) {
            (ChunkState::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                self.chunk_bytes_left = self.chunk_bytes_left * 16 + (byte as char).to_digit(16).map_or(0, u64::from);
                ChunkState::Size { digits: digits + 1 }
            }
            (ChunkState::Size { digits: 1.. }, b'\r') => ChunkState::SizeLineFeed,
            (ChunkState::Size { digits: 1.. }, b';') => ChunkState::Extension { bytes: 0 },
            (ChunkState::Extension { .. }, b'\r') => ChunkState::SizeLineFeed,
            (ChunkState::Extension { bytes }, _) if bytes < MAX_EXTENSION_BYTES && is_text_byte(byte) => {
                ChunkState::Extension { bytes: bytes + 1 }
            }
            (ChunkState::SizeLineFeed, b'\n') if self.chunk_bytes_left == 0 => ChunkState::TrailerLineStart,
            (ChunkState::SizeLineFeed, b'\n') => ChunkState::Data,
            (ChunkState::DataCarriageReturn, b'\r') => ChunkState::DataLineFeed,
            (ChunkState::DataLineFeed, b'\n') => ChunkState::Size { digits: 0 },
            (ChunkState::TrailerLineStart, b'\r') => ChunkState::FinalLineFeed,
            (ChunkState::Trailer, b'\r') => ChunkState::TrailerLineFeed,
            (ChunkState::TrailerLineStart | ChunkState::Trailer, _)
                if self.trailer_bytes < MAX_TRAILER_BYTES && is_text_byte(byte) =>
            {
                self.trailer_bytes += 1;
                ChunkState::Trailer
            }
            (ChunkState::TrailerLineFeed, b'\n') => ChunkState::TrailerLineStart,
            (ChunkState::FinalLineFeed, b'\n') => ChunkState::Finished,
            _ => return Err(InvalidChunk),
        })
    }
}

fn is_text_byte(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use crate::api::accept::chunked::*;

    fn body_end(text: &str) -> Result<Option<usize>, InvalidChunk> {
        let mut scanner = ChunkScanner::new();
        let consumed = scanner.scan(text.as_bytes())?;
        // Byte by byte it is the same.
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
