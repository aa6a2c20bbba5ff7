//! Checks the head of an HTTP/1 request before the HTTP library sees it, and rejects every ambiguous one.
//!
//! The library repairs some ambiguities without notice, and a proxy before the server may repair them differently. Such a
//! difference allows request smuggling.
//!
//! Guarantees: every parser that follows RFC 9112 finds the same end of an accepted head, and the same end of its body.

/// How the end of a request body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// After this number of bytes, which may be 0.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// Why a request head is rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeadError {
    /// The head exceeds the limit that the text names.
    TooLarge(&'static str),
    /// The head has the fault that the text names.
    Malformed(&'static str),
}

use HeadError::{Malformed, TooLarge};

/// The first line of an HTTP/2 connection. It has the form of an HTTP/1 head so that old servers reject it.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A search for the end of a head in a buffer that grows.
#[derive(Default, Debug)]
pub(super) struct HeadScanner {
    /// Bytes that have been scanned.
    position: usize,
    /// Start of the head. Empty lines before it are not part of it.
    head_start: usize,
    line_start: usize,
    /// Whether the last byte was a carriage return.
    is_after_cr: bool,
}

impl HeadScanner {
    /// Scans the bytes that were appended since the last call. Returns the range of the head when it is complete.
    ///
    /// # Errors
    /// If the head exceeds `max_bytes`, or has a byte that no head may have.
    pub(super) fn scan(
        &mut self,
        buffer: &[u8],
        max_bytes: usize,
    ) -> Result<Option<std::ops::Range<usize>>, HeadError> {
        let allowed = buffer.get(..max_bytes).unwrap_or(buffer);
        while let Some(rest) = allowed.get(self.position..)
            && let Some(&byte) = rest.first()
        {
            match byte {
                0 => return Err(Malformed("the request head contains a NUL byte")),
                b'\n' if self.is_after_cr => {
                    let is_empty_line = self.position == self.line_start + 1;
                    self.position += 1;
                    self.line_start = self.position;
                    self.is_after_cr = false;
                    match is_empty_line {
                        true if self.head_start + 2 == self.line_start => self.head_start = self.line_start,
                        true => return Ok(Some(self.head_start..self.line_start)),
                        false => {}
                    }
                }
                b'\n' => return Err(Malformed("a line of the request head ends without a carriage return")),
                _ if self.is_after_cr => {
                    return Err(Malformed("the request head contains a carriage return without a line feed"));
                }
                b'\r' => {
                    self.position += 1;
                    self.is_after_cr = true;
                }
                _ => {
                    self.position +=
                        rest.iter().position(|byte| matches!(byte, 0 | b'\r' | b'\n')).unwrap_or(rest.len())
                }
            }
        }
        match buffer.len() > max_bytes {
            true => Err(TooLarge("the request head exceeds the server's limit (max_head_bytes)")),
            false => Ok(None),
        }
    }
}

/// Checks a complete head, including the empty line at its end. Returns the framing of its body.
///
/// # Errors
/// If the head is malformed or ambiguous, or has more than `max_headers` headers.
pub(super) fn validate_head(head: &[u8], max_headers: usize) -> Result<Framing, HeadError> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let is_http_1_1 = parse_request_line(lines.next().unwrap_or_default())?;
    let (mut length, mut chunked, mut host_count, mut header_count) = (None, false, 0, 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        header_count += 1;
        if header_count > max_headers {
            return Err(TooLarge("the number of request headers exceeds the server's limit (max_headers)"));
        }
        let (name, value) = parse_header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = parse_digits(value).ok_or(Malformed("Content-Length must be one number"))?;
            if length.replace(number).is_some() {
                return Err(Malformed("Content-Length must not be repeated"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("Transfer-Encoding must be chunked, and must not be repeated"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            host_count += 1;
            if !value.iter().all(|byte| is_in(&HOST_BYTES, *byte)) {
                return Err(Malformed("Host must be a host name or address, with an optional port"));
            }
        }
    }
    match (length, chunked) {
        _ if host_count > 1 => Err(Malformed("Host must not be repeated")),
        _ if host_count == 0 && is_http_1_1 => Err(Malformed("the Host header is missing")),
        (Some(_), true) => Err(Malformed("Content-Length and Transfer-Encoding must not be used together")),
        (None, true) if !is_http_1_1 => Err(Malformed("HTTP/1.0 does not support Transfer-Encoding")),
        (None, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Returns whether the version is HTTP/1.1 rather than HTTP/1.0.
fn parse_request_line(line: &[u8]) -> Result<bool, HeadError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
        return Err(Malformed("the request line must be method, target and version, separated by single spaces"));
    };
    if method.is_empty() || !method.iter().all(|byte| is_in(&TOKEN_BYTES, *byte)) {
        return Err(Malformed("the method must be a token"));
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed("the request target must be visible ASCII characters"));
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Malformed("the version must be HTTP/1.1 or HTTP/1.0")),
    }
}

/// Returns the name and the value of a header.
fn parse_header(line: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Malformed("a header must not be folded over several lines"));
    }
    let name_end = line.iter().position(|byte| !is_in(&TOKEN_BYTES, *byte)).unwrap_or(line.len());
    if name_end == 0 || line.get(name_end) != Some(&b':') {
        return Err(Malformed(match line.contains(&b':') {
            true => "a header name must be a token, directly followed by a colon",
            false => "a header must contain a colon",
        }));
    }
    let (name, value) = line.split_at_checked(name_end).unwrap_or_default();
    let value = value.get(1..).unwrap_or_default();
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Malformed("a header value must not contain control characters"));
    }
    Ok((name, trim_blanks(value)))
}

/// The bytes that may occur in a token: a method or a header name.
const TOKEN_BYTES: [bool; 256] = letters_digits_and(b"!#$%&'*+-.^_`|~");
/// The bytes that may occur in a host with its port.
const HOST_BYTES: [bool; 256] = letters_digits_and(b"-._~%!$&'()*+;=:[]");

/// Returns the set of all letters, digits and `others`.
// Out of bounds, it would not compile.
#[allow(clippy::indexing_slicing)]
const fn letters_digits_and(others: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut index = 0;
    while index < set.len() {
        set[index] = (index as u8).is_ascii_alphanumeric();
        index += 1;
    }
    index = 0;
    while index < others.len() {
        set[others[index] as usize] = true;
        index += 1;
    }
    set
}

fn is_in(set: &[bool; 256], byte: u8) -> bool {
    set.get(usize::from(byte)).copied().unwrap_or(false)
}

fn trim_blanks(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// Parses a number of 1 to 18 digits, without a sign or a list.
fn parse_digits(text: &[u8]) -> Option<u64> {
    let is_plain = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    is_plain.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(read(&format!("\r\n\r\n{get}\r\nGET")), Ok(Some(Framing::Length(0))), "leading empty lines");
        assert_eq!(read(&format!("{get}content-length: \t7 \r\n\r\n")), Ok(Some(Framing::Length(7))));
        assert_eq!(read(&format!("{get}Transfer-Encoding:chunked\r\n\r\n")), Ok(Some(Framing::Chunked)));
        assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), Ok(Some(Framing::Length(0))));
        assert_eq!(read(get), Ok(None));
    }

    #[test]
    fn limits_of_head_and_headers_are_exact() {
        let four_headers = "a: 1\r\n".repeat(4);
        assert!(read(&format!("GET / HTTP/1.1\r\nhost: x\r\n{four_headers}\r\n")).is_ok());
        let over = read(&format!("GET / HTTP/1.1\r\nhost: x\r\n{four_headers}a: 1\r\n\r\n"));
        assert!(matches!(over, Err(TooLarge(_))));
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
            let mut parts = HeadScanner::default();
            let first = parts.scan(&bytes[..cut.min(bytes.len())], 50);
            let last = if first == Ok(None) { parts.scan(bytes, 50) } else { first };
            prop_assert_eq!(expected, last);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = validate_head(&bytes, 10);
        }
    }
}
