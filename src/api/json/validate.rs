//! A look over the raw bytes of JSON before it is parsed: the parser's raw values check neither depth nor surrogates.

/// What the look found wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::api) enum JsonDefect {
    /// More open brackets than allowed, at this byte.
    TooDeep(usize),
    /// Half of a surrogate pair, at this byte.
    LoneSurrogate(usize),
}

/// Looks through `json`, which may be malformed otherwise: then the parser will say so.
pub(in crate::api) fn validate(json: &[u8], max_depth: usize) -> Result<(), JsonDefect> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(JsonDefect::TooDeep(at));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at = skip_string(json, at + 1)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// From the first byte of a string to the one behind its closing quote.
fn skip_string(json: &[u8], mut at: usize) -> Result<usize, JsonDefect> {
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' if json.get(at + 1) == Some(&b'u') => at = skip_escape(json, at)?,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Ok(at)
}

/// From a `\u` to behind it, and behind its other half where it is half of a pair.
fn skip_escape(json: &[u8], at: usize) -> Result<usize, JsonDefect> {
    match code_unit(json, at) {
        Some(0xD800..=0xDBFF) => match code_unit(json, at + 6) {
            Some(0xDC00..=0xDFFF) => Ok(at + 12),
            _ => Err(JsonDefect::LoneSurrogate(at)),
        },
        Some(0xDC00..=0xDFFF) => Err(JsonDefect::LoneSurrogate(at)),
        Some(_) => Ok(at + 6),
        // Malformed, which the parser will find.
        None => Ok(at + 2),
    }
}

/// The code unit that `\uXXXX` at this place stands for.
fn code_unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
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

    proptest! {
        #[test]
        fn json_of_any_bytes_does_not_panic(bytes: Vec<u8>) {
            let _ = validate(&bytes, 8);
        }

        #[test]
        fn json_accepted_by_serde_is_accepted(text in "\\PC*") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(validate(json.as_bytes(), 1), Ok(()));
        }
    }
}
