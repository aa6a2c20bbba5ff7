//! Finds where a chunked body ends, so that what stands behind it is looked at as the head of the next request.
//! The HTTP library decodes the chunks; here they are only walked over, and refused where it would be lenient.

/// Digits of a chunk's size: 4 GiB are more than any body may have.
const DIGITS: u8 = 8;
/// Bytes of a size line, and of all trailers.
const LINE_BYTES: u16 = 256;
const TRAILER_BYTES: u16 = 4096;

/// The body is not chunked as it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Broken;

/// Where in a chunked body the walk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// In the digits of a size, so many of which have come.
    Size {
        digits: u8,
    },
    /// Behind them, in what nobody looks at.
    Extension {
        bytes: u16,
    },
    /// Before the line feed of a size line.
    SizeEnd,
    /// In the bytes of a chunk.
    Data,
    /// Behind them: before the carriage return, then before the line feed.
    DataReturn,
    DataEnd,
    /// At the beginning of a line behind the last chunk.
    TrailerLine,
    /// In such a line; before its line feed; before the line feed of the empty one.
    Trailer,
    TrailerEnd,
    LastEnd,
    /// Behind it all.
    Done,
}

/// A walk over a chunked body.
#[derive(Debug)]
pub(super) struct Walk {
    place: Place,
    /// Of the current chunk, those that have not come.
    left: u64,
    trailers: u16,
}

impl Walk {
    pub(super) fn new() -> Self {
        Walk { place: Place::Size { digits: 0 }, left: 0, trailers: 0 }
    }

    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Walks on; how many of `bytes` belong to the body.
    pub(super) fn go_on(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.place {
                Place::Done => break,
                Place::Data => {
                    let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.place = Place::DataReturn;
                    }
                    continue;
                }
                _ => self.place = self.step(byte)?,
            }
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<Place, Broken> {
        Ok(match (self.place, byte) {
            (Place::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < DIGITS => {
                self.left = self.left * 16 + (byte as char).to_digit(16).map_or(0, u64::from);
                Place::Size { digits: digits + 1 }
            }
            (Place::Size { digits: 1.. }, b'\r') => Place::SizeEnd,
            (Place::Size { digits: 1.. }, b';') => Place::Extension { bytes: 0 },
            (Place::Extension { .. }, b'\r') => Place::SizeEnd,
            (Place::Extension { bytes }, _) if bytes < LINE_BYTES && is_text(byte) => {
                Place::Extension { bytes: bytes + 1 }
            }
            (Place::SizeEnd, b'\n') if self.left == 0 => Place::TrailerLine,
            (Place::SizeEnd, b'\n') => Place::Data,
            (Place::DataReturn, b'\r') => Place::DataEnd,
            (Place::DataEnd, b'\n') => Place::Size { digits: 0 },
            (Place::TrailerLine, b'\r') => Place::LastEnd,
            (Place::Trailer, b'\r') => Place::TrailerEnd,
            (Place::TrailerLine | Place::Trailer, _) if self.trailers < TRAILER_BYTES && is_text(byte) => {
                self.trailers += 1;
                Place::Trailer
            }
            (Place::TrailerEnd, b'\n') => Place::TrailerLine,
            (Place::LastEnd, b'\n') => Place::Done,
            _ => return Err(Broken),
        })
    }
}

fn is_text(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Result<Option<usize>, Broken> {
        let mut walk = Walk::new();
        let at = walk.go_on(text.as_bytes())?;
        // Byte by byte it is the same.
        let mut slow = Walk::new();
        let steps: usize = text.bytes().map(|byte| slow.go_on(&[byte]).unwrap()).sum();
        assert_eq!((at, walk.is_done()), (steps, slow.is_done()));
        Ok(walk.is_done().then_some(at))
    }

    #[test]
    fn a_body_ends_behind_its_last_chunk_and_trailers() {
        assert_eq!(end("0\r\n\r\nGET"), Ok(Some(5)));
        assert_eq!(end("3\r\nabc\r\n0\r\n\r\nGET"), Ok(Some(13)));
        assert_eq!(end("A;x=y\r\n0123456789\r\n00\r\nt: 1\r\n\r\nGET"), Ok(Some(31)));
        assert_eq!(end("3\r\nab"), Ok(None));
    }

    #[test]
    fn what_is_not_chunked_is_refused() {
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
            assert_eq!(Walk::new().go_on(text.as_bytes()), Err(Broken), "{text:?}");
        }
    }
}
