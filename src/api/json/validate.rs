//! Checks JSON before it is parsed: the parser's raw values check neither nesting depth nor surrogates.

/// A defect that the parser does not find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::api) enum JsonDefect {
    /// The bracket at this byte exceeds the nesting depth.
    TooDeep(usize),
    /// The escape at this byte is half of a surrogate pair.
    LoneSurrogate(usize),
}

/// Finds the first defect in `json`. Any other malformed JSON passes: the parser rejects it.
pub(in crate::api) fn validate(json: &[u8], max_depth: usize) -> Result<(), JsonDefect> {
    let (mut depth, mut index) = (0usize, 0);
    while let Some(&byte) = json.get(index) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(JsonDefect::TooDeep(index));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                index = skip_string(json, index + 1)?;
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    Ok(())
}

/// Returns the position after the closing quote of the string whose first byte is at `index`.
fn skip_string(json: &[u8], mut index: usize) -> Result<usize, JsonDefect> {
    while let Some(&byte) = json.get(index) {
        match byte {
            b'"' => return Ok(index + 1),
            b'\\' if json.get(index + 1) == Some(&b'u') => index = skip_escape(json, index)?,
            b'\\' => index += 2,
            _ => index += 1,
        }
    }
    Ok(index)
}

/// Returns the position after the `\u` escape at `index`, or after both escapes of a surrogate pair.
fn skip_escape(json: &[u8], index: usize) -> Result<usize, JsonDefect> {
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
