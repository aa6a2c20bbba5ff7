//! W3C Trace Context (recommendation of 2021): valid values of `traceparent` and `tracestate`. An invalid value is
//! ignored, never rejected: a trace is no reason to lose work.

/// Name of the header, of a request or a task, that identifies the parent span.
pub const TRACEPARENT: &str = "traceparent";
/// Name of the header with vendor-specific trace data.
pub const TRACESTATE: &str = "tracestate";

/// Maximum length of a `traceparent`. Later versions may be longer than the current 55 bytes.
const MAX_TRACEPARENT_BYTES: usize = 256;
/// Length of a `tracestate` that the recommendation requires to propagate; a longer value is ignored.
const MAX_TRACESTATE_BYTES: usize = 512;
const MAX_TRACESTATE_MEMBERS: usize = 32;
const MAX_MEMBER_BYTES: usize = 256;

/// The parent span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span id.
    pub span_id: [u8; 8],
    /// Whether the caller recorded the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Parses a `traceparent`; `None` if it is invalid. Of a later version, the known fields are parsed.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TRACEPARENT_BYTES {
            return None;
        }
        let mut parts = text.splitn(5, '-');
        let [version] = hex(parts.next()?)?;
        let trace = hex(parts.next()?)?;
        let span = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        let is_version_0 = version == 0;
        let is_invalid = version == 0xff || trace == [0; 16] || span == [0; 8];
        if is_invalid || (is_version_0 && parts.next().is_some()) {
            return None;
        }
        Some(TraceParent { trace_id: trace, span_id: span, sampled: flags & 1 == 1 })
    }
}

/// Parses exactly `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Returns whether the text is a `tracestate`: a list of at most 32 members, in total at most 512 bytes.
pub fn is_tracestate(text: &str) -> bool {
    let mut members = 0;
    let entries = text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty());
    let are_valid = entries.inspect(|_| members += 1).all(is_member);
    are_valid && (1..=MAX_TRACESTATE_MEMBERS).contains(&members) && text.len() <= MAX_TRACESTATE_BYTES
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_key_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let is_value_byte = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    let has_valid_start = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    has_valid_start
        && key.len() <= MAX_MEMBER_BYTES
        && key.bytes().all(is_key_byte)
        && (1..=MAX_MEMBER_BYTES).contains(&value.len())
        && value.bytes().all(is_value_byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn traceparent_has_a_trace_id_and_a_span_id() {
        let parent = TraceParent::parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!(u128::from_be_bytes(parent.trace_id), 0x4bf92f3577b34da6a3ce929d0e0e4736);
        assert_eq!(u64::from_be_bytes(parent.span_id), 0x00f067aa0ba902b7);
        assert!(parent.sampled);
        assert!(!TraceParent::parse(&format!("00-{TRACE}-{SPAN}-02")).unwrap().sampled);
        assert_eq!(TraceParent::parse(&format!("cc-{TRACE}-{SPAN}-01")), Some(parent), "a later version");
        assert_eq!(TraceParent::parse(&format!("cc-{TRACE}-{SPAN}-01-what-comes")), Some(parent), "with more behind");
    }

    #[test]
    fn malformed_traceparent_is_rejected() {
        for text in [
            "".to_owned(),
            "mine".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("000-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-0101"),
            format!("cc-{TRACE}-{SPAN}-01more"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}g-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!("cc-{TRACE}-{SPAN}-01-{}", "x".repeat(MAX_TRACEPARENT_BYTES)),
        ] {
            assert_eq!(TraceParent::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn tracestate_is_a_list_of_entries() {
        for text in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, \t,b=x y,", "0@v-_*/=~!"] {
            assert!(is_tracestate(text), "{text:?}");
        }
        let many = vec!["a=1"; MAX_TRACESTATE_MEMBERS + 1].join(",");
        let long = format!("a={}", "x".repeat(MAX_MEMBER_BYTES + 1));
        let longer =
            [format!("a={}", "x".repeat(250)), format!("b={}", "x".repeat(250)), "c=12345678".into()].join(",");
        for text in ["", " , ", "a", "a=", "=1", "A=1", "-a=1", "a=b=c", "a=1\n", "a=é", &many, &long, &longer] {
            assert!(!is_tracestate(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn trace_context_of_any_text_does_not_panic(text in ".{0,80}") {
            let _ = (TraceParent::parse(&text), is_tracestate(&text));
        }
    }
}
