//! Checks JSON before it is parsed. The parser's raw values check neither nesting depth, nor surrogates, nor the rules of
//! I-JSON (RFC 7493): numbers that a double can hold, and names that occur once in their object.

/// A defect that the parser does not find, at a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::api) enum JsonDefect {
    /// A bracket that exceeds the nesting depth.
    TooDeep(usize),
    /// An escape that is half of a surrogate pair.
    LoneSurrogate(usize),
    /// A number beyond the range of a double.
    NumberOverflow(usize),
    /// A name that occurred before in its object.
    DuplicateName(usize),
    /// `NaN` or `Infinity`, which some encoders write.
    NotANumber(usize),
}

/// A name of an open object: its bytes between the quotes.
#[derive(Clone, Copy)]
struct Name {
    from: u32,
    to: u32,
    is_escaped: bool,
}

/// Names kept of all open objects. JSON of [`MAX_JSON_BYTES`](crate::domain::limits::MAX_JSON_BYTES) has fewer, so an
/// object with more is rejected for its size.
const MAX_NAMES: usize = 1 << 16;
/// Objects of at most this many names are compared pair by pair; larger ones are sorted.
const FEW_NAMES: usize = 8;

/// Finds the first defect in `json`; `max_depth` is at most 64. Any other malformed JSON passes: the parser rejects it.
pub(in crate::api) fn validate(json: &[u8], max_depth: usize) -> Result<(), JsonDefect> {
    let (mut depth, mut index) = (0usize, 0);
    // One bit for each open bracket, the innermost lowest: whether it is that of an object.
    let mut is_object = 0u64;
    let mut is_name_next = false;
    // The names of all open objects, and where those of each begin.
    let (mut names, mut first_names): (Vec<Name>, Vec<usize>) = (Vec::new(), Vec::new());
    while let Some(&byte) = json.get(index) {
        match byte {
            b'"' => {
                let (after, is_escaped) = skip_string(json, index + 1)?;
                if is_name_next && names.len() < MAX_NAMES {
                    let as_u32 = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
                    names.push(Name { from: as_u32(index + 1), to: as_u32(after.saturating_sub(1)), is_escaped });
                }
                is_name_next = false;
                index = after;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(JsonDefect::TooDeep(index));
                }
                is_name_next = byte == b'{';
                is_object = is_object << 1 | u64::from(is_name_next);
                if is_name_next {
                    first_names.push(names.len());
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                is_object >>= 1;
                if byte == b'}'
                    && let Some(first) = first_names.pop()
                {
                    if let Some(at) = names.get_mut(first..).and_then(|names| find_duplicate(json, names)) {
                        return Err(JsonDefect::DuplicateName(at));
                    }
                    names.truncate(first);
                }
            }
            b',' => is_name_next = is_object & 1 == 1,
            b'-' | b'0'..=b'9' => {
                index = skip_number(json, index)?;
                continue;
            }
            b'N' | b'I' => return Err(JsonDefect::NotANumber(index)),
            _ => {}
        }
        index += 1;
    }
    Ok(())
}

/// Returns the position after the closing quote of the string whose first byte is at `index`, and whether the string has
/// escapes.
pub(super) fn skip_string(json: &[u8], mut index: usize) -> Result<(usize, bool), JsonDefect> {
    let mut is_escaped = false;
    while let Some(rest) = json.get(index..) {
        let Some(length) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else { break };
        index += length;
        if rest.get(length) == Some(&b'"') {
            return Ok((index + 1, is_escaped));
        }
        is_escaped = true;
        index = if json.get(index + 1) == Some(&b'u') { skip_escape(json, index)? } else { index + 2 };
    }
    Ok((json.len(), is_escaped))
}

/// Returns the position after the `\u` escape at `index`, or after both escapes of a surrogate pair.
pub(super) fn skip_escape(json: &[u8], index: usize) -> Result<usize, JsonDefect> {
    match code_unit(json, index) {
        Some(0xD800..=0xDBFF) => match code_unit(json, index + 6) {
            Some(0xDC00..=0xDFFF) => Ok(index + 12),
            _ => Err(JsonDefect::LoneSurrogate(index)),
        },
        Some(0xDC00..=0xDFFF) => Err(JsonDefect::LoneSurrogate(index)),
        Some(_) => Ok(index + 6),
        // Malformed: the parser rejects it.
        None => Ok(index + 2),
    }
}

/// Returns the UTF-16 code unit of the `\uXXXX` at `index`.
fn code_unit(json: &[u8], index: usize) -> Option<u16> {
    let digits = json.get(index..index + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns the position after the number whose first byte is at `from`.
pub(super) fn skip_number(json: &[u8], from: usize) -> Result<usize, JsonDefect> {
    let (mut index, mut has_exponent) = (from + 1, false);
    while let Some(&byte) = json.get(index) {
        match byte {
            b'0'..=b'9' | b'.' | b'-' | b'+' => {}
            b'e' | b'E' => has_exponent = true,
            _ => break,
        }
        index += 1;
    }
    // The largest double has 309 digits.
    if !has_exponent && index - from < 309 {
        return Ok(index);
    }
    let number = json.get(from..index).and_then(|number| std::str::from_utf8(number).ok());
    match number.and_then(|number| number.parse::<f64>().ok()) {
        Some(number) if number.is_infinite() => Err(JsonDefect::NumberOverflow(from)),
        _ => Ok(index),
    }
}

/// Returns the position of a name that occurs twice among the names of one object.
fn find_duplicate(json: &[u8], names: &mut [Name]) -> Option<usize> {
    if names.iter().any(|name| name.is_escaped) {
        return find_escaped_duplicate(json, names);
    }
    let bytes = |name: &Name| json.get(name.from as usize..name.to as usize).unwrap_or_default();
    if let [earlier @ .., _] = &*names
        && names.len() <= FEW_NAMES
    {
        let repeats = |index: usize| {
            let later = names.get(index + 1..).unwrap_or_default();
            names.get(index).and_then(|name| later.iter().find(|other| bytes(name) == bytes(other)))
        };
        return (0..earlier.len()).find_map(repeats).map(|name| name.from as usize - 1);
    }
    names.sort_unstable_by(|name, other| bytes(name).cmp(bytes(other)).then(name.from.cmp(&other.from)));
    let mut pairs = names.windows(2).filter_map(|pair| <&[Name; 2]>::try_from(pair).ok());
    pairs.find(|[name, other]| bytes(name) == bytes(other)).map(|[_, other]| other.from as usize - 1)
}

/// The same for names of which some have escapes. Malformed names are left to the parser.
fn find_escaped_duplicate(json: &[u8], names: &[Name]) -> Option<usize> {
    let mut seen = std::collections::HashSet::with_capacity(names.len());
    let mut repeats = |name: &&Name| {
        let quoted = json.get((name.from as usize).saturating_sub(1)..name.to as usize + 1);
        let decoded = quoted.and_then(|quoted| serde_json::from_slice::<String>(quoted).ok());
        decoded.is_some_and(|name| !seen.insert(name))
    };
    names.iter().find(&mut repeats).map(|name| name.from as usize - 1)
}

#[cfg(test)]
mod tests {
    use crate::api::json::validate::*;
    use proptest::prelude::*;

    #[test]
    fn nesting_depth_ignores_brackets_in_strings() {
        assert_eq!(validate(br#"[[]]"#, 2), Ok(()));
        assert_eq!(validate(br#"[[[]]]"#, 2), Err(JsonDefect::TooDeep(2)));
        assert_eq!(validate(br#"["[[[", "\"[[["]"#, 1), Ok(()));
        assert_eq!(validate(br#"[{},{},{}]"#, 2), Ok(()));
    }

    #[test]
    fn lone_surrogates_are_rejected() {
        for lone in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800x""#, r#"{"\uDBFF":1}"#] {
            assert!(matches!(validate(lone.as_bytes(), 9), Err(JsonDefect::LoneSurrogate(_))), "{lone}");
        }
        for whole in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u00e9""#, r#""\u12"#] {
            assert_eq!(validate(whole.as_bytes(), 9), Ok(()), "{whole}");
        }
    }

    #[test]
    fn numbers_beyond_a_double_are_rejected() {
        let digits = "9".repeat(400);
        for (json, at) in [("1e400", 0), ("[1,-1E+309]", 3), ("{\"a\":2e308}", 5), ("1.8e308", 0), (digits.as_str(), 0)]
        {
            assert_eq!(validate(json.as_bytes(), 9), Err(JsonDefect::NumberOverflow(at)), "{json}");
        }
        let long = format!("0.{digits}");
        for json in
            ["1e308", "-1.7976931348623157e308", "1e-400", "0e999999999999", &long, "\"1e400\"", "true", "[1e,1e400x]"]
        {
            assert_eq!(validate(json.as_bytes(), 9).is_ok(), json != "[1e,1e400x]", "{json}");
        }
    }

    #[test]
    fn duplicate_names_are_rejected_in_one_object_only() {
        let many = (0..40).map(|n| format!("\"n{n}\":{{\"n\":[{n},{{\"n\":0}}]}},")).collect::<String>();
        for json in [
            r#"{"a":1,"a":2}"#.to_owned(),
            r#"{"a":1,"b":{"c":[{"x":"a","x":[]}]}}"#.to_owned(),
            r#"{"a":1,"\u0061":2}"#.to_owned(),
            r#"{ "" : 1 , "" : 2 }"#.to_owned(),
            format!("{{{many}\"n7\":0}}"),
        ] {
            assert!(matches!(validate(json.as_bytes(), 9), Err(JsonDefect::DuplicateName(_))), "{json}");
        }
        assert_eq!(validate(br#"{"ab":1,"c":{"ab":2},"cd":2,"c":3}"#, 9), Err(JsonDefect::DuplicateName(28)));
        for json in [
            r#"{"a":{"a":{"a":["a","a"]}},"b":"a"}"#.to_owned(),
            r#"[{"a":1},{"a":1}]"#.to_owned(),
            r#"{"a\\":1,"a":"a","\"a":2}"#.to_owned(),
            format!("{{{many}\"last\":0}}"),
        ] {
            assert_eq!(validate(json.as_bytes(), 9), Ok(()), "{json}");
        }
    }

    proptest! {
        #[test]
        fn json_of_any_bytes_does_not_panic(bytes: Vec<u8>) {
            let _ = validate(&bytes, 8);
        }

        #[test]
        fn json_of_brackets_and_names_does_not_panic(text in "[{}\\[\\]\",:a\\\\u0-9de.-]{0,60}") {
            let _ = validate(text.as_bytes(), 8);
        }

        #[test]
        fn json_accepted_by_serde_is_accepted(text in "\\PC*") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(validate(json.as_bytes(), 1), Ok(()));
        }
    }
}
