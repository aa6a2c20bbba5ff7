//! Looks at the head of an HTTP/1 request before the HTTP library sees it, and refuses what can be read in two ways:
//! the library mends some of that silently, and a proxy before us may have mended it otherwise.
//!
//! Guarantees: of a head that passes, everybody who keeps to RFC 9112 finds the same end, and the same end of the body.

/// Where the body of a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// After so many bytes, none included.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeadError {
    /// The head is over a bound, in words.
    TooLarge(&'static str),
    /// The request is not what it should be, in words.
    Malformed(&'static str),
}

use HeadError::{Malformed, TooLarge};

/// The first line of an HTTP/2 connection, which looks like a head of HTTP/1 so that old servers refuse it.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A search for the end of a head in bytes that come bit by bit.
#[derive(Default, Debug)]
pub(super) struct HeadScanner {
    /// Bytes looked at.
    position: usize,
    /// Where the head begins: empty lines before it do not count.
    head_start: usize,
    /// Where the current line begins.
    line_start: usize,
    previous_byte: u8,
}

impl HeadScanner {
    /// Goes on with the search in `bytes`, which begin as at the last call. The place of the head once it has ended.
    pub(super) fn scan(&mut self, bytes: &[u8], max_bytes: usize) -> Result<Option<std::ops::Range<usize>>, HeadError> {
        while let Some(&byte) = bytes.get(self.position) {
            if self.position >= max_bytes {
                return Err(TooLarge("the head of the request is too large"));
            }
            match byte {
                0 => return Err(Malformed("the head has a NUL byte")),
                b'\n' if self.previous_byte != b'\r' => return Err(Malformed("the head has a bare line feed")),
                b'\n' => {
                    let is_empty_line = self.position == self.line_start + 1;
                    self.line_start = self.position + 1;
                    match is_empty_line {
                        true if self.head_start + 2 == self.line_start => self.head_start = self.line_start,
                        true => return Ok(Some(self.head_start..self.line_start)),
                        false => {}
                    }
                }
                _ if self.previous_byte == b'\r' => return Err(Malformed("the head has a bare carriage return")),
                _ => {}
            }
            self.previous_byte = byte;
            self.position += 1;
        }
        Ok(None)
    }
}

/// Whether the byte may stand in a method or a header's name.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim_blanks(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// Reads a complete head, with the empty line at its end.
pub(super) fn validate_head(head: &[u8], max_headers: usize) -> Result<Framing, HeadError> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let is_http_1_1 = parse_request_line(lines.next().unwrap_or_default())?;
    let (mut length, mut chunked, mut host_count, mut header_count) = (None, false, 0, 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        header_count += 1;
        if header_count > max_headers {
            return Err(TooLarge("the request has too many headers"));
        }
        let (name, value) = parse_header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = parse_digits(value).ok_or(Malformed("Content-Length must be one number"))?;
            if length.replace(number).is_some() {
                return Err(Malformed("Content-Length stands twice"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("Transfer-Encoding must be chunked, once"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            host_count += 1;
            if !value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte)) {
                return Err(Malformed("Host is not a host and a port"));
            }
        }
    }
    match (length, chunked) {
        _ if host_count > 1 => Err(Malformed("Host stands twice")),
        _ if host_count == 0 && is_http_1_1 => Err(Malformed("Host is needed")),
        (Some(_), true) => Err(Malformed("Content-Length and Transfer-Encoding exclude each other")),
        (None, true) if !is_http_1_1 => Err(Malformed("HTTP/1.0 has no Transfer-Encoding")),
        (None, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Whether it says HTTP/1.1, and not 1.0.
fn parse_request_line(line: &[u8]) -> Result<bool, HeadError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
        return Err(Malformed("the first line must be method, target and version with one space between"));
    };
    if method.is_empty() || !method.iter().copied().all(is_token_byte) {
        return Err(Malformed("the method is no word"));
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed("the target is not a path"));
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Malformed("the version must be HTTP/1.1 or HTTP/1.0")),
    }
}

/// Name and value of a header.
fn parse_header(line: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Malformed("a header is folded over lines"));
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed("a header has no colon"))?;
    let (name, value) = line.split_at_checked(colon).unwrap_or_default();
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(Malformed("a header's name is no word, or has a space before the colon"));
    }
    let value = value.get(1..).unwrap_or_default();
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Malformed("a header's value has a control character"));
    }
    Ok((name, trim_blanks(value)))
}

/// A number of digits alone: no sign, no list.
fn parse_digits(text: &[u8]) -> Option<u64> {
    let is_plain = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    is_plain.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use crate::api::accept::request_head::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Option<Framing>, HeadError> {
        let mut scanner = HeadScanner::default();
        match scanner.scan(text.as_bytes(), 1000)? {
            None => Ok(None),
            Some(range) => validate_head(&text.as_bytes()[range], 5).map(Some),
        }
    }

    #[test]
    fn body_framing_follows_the_head() {
        let get = "GET /a?b HTTP/1.1\r\nHost: [::1]:80\r\n";
        assert_eq!(read(&format!("{get}\r\n")), Ok(Some(Framing::Length(0))));
        assert_eq!(read(&format!("\r\n\r\n{get}\r\nGET")), Ok(Some(Framing::Length(0))), "empty lines come first");
        assert_eq!(read(&format!("{get}content-length: \t7 \r\n\r\n")), Ok(Some(Framing::Length(7))));
        assert_eq!(read(&format!("{get}Transfer-Encoding:chunked\r\n\r\n")), Ok(Some(Framing::Chunked)));
        assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), Ok(Some(Framing::Length(0))));
        assert_eq!(read(get), Ok(None));
    }

    #[test]
    fn limits_of_head_and_headers_are_exact() {
        let four_headers = "a: 1\r\n".repeat(4);
        assert!(read(&format!("GET / HTTP/1.1\r\nhost: x\r\n{four_headers}\r\n")).is_ok());
        assert!(matches!(read(&format!("GET / HTTP/1.1\r\nhost: x\r\n{four_headers}a: 1\r\n\r\n")), Err(TooLarge(_))));
        let head = |length: usize| format!("GET / HTTP/1.0\r\na: {}\r\n\r\n", "x".repeat(length - 23));
        assert_eq!(head(1000).len(), 1000);
        assert!(read(&head(1000)).is_ok());
        assert!(matches!(read(&head(1001)), Err(TooLarge(_))));
    }

    proptest! {
        #[test]
        fn head_scanned_in_parts_gives_the_same_result(bytes in "[GET /:a\r\n\0]{0,60}", cut in 0usize..60) {
            let bytes = bytes.as_bytes();
            let mut whole = HeadScanner::default();
            let expected = whole.scan(bytes, 50);
            let mut pieces = HeadScanner::default();
            let first = pieces.scan(&bytes[..cut.min(bytes.len())], 50);
            let last = if first == Ok(None) { pieces.scan(bytes, 50) } else { first };
            prop_assert_eq!(expected, last);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = validate_head(&bytes, 10);
        }
    }
}
