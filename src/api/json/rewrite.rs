//! Rewrites JSON text: into text that every parser reads (for reports), or into its canonical form (to compare bodies).
//!
//! The input is valid JSON apart from the defects of [`validate`](super::validate): the parser has read it.

use std::collections::HashMap;
use std::ops::Range;

use super::adjusted::cut;
use super::validate::{skip_escape, skip_number, skip_string};

/// Bytes kept of a value that is nested too deeply.
const TOO_DEEP_BYTES: usize = 1024;
/// Fields of a submit whose own fields may be null, as those of the submit.
const NESTED_REQUESTS: [&str; 2] = ["backoff", "dedupe"];
/// The field of a batch item that takes the place of a header.
const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// JSON without defects, and the changes that made it so.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) json: String,
    /// Whether a value was nested too deeply: it became a string with its text, cut if it is long.
    pub(super) is_cut: bool,
    /// Whether half of a surrogate pair became U+FFFD, a number beyond a double null, or an earlier value of a name was
    /// left out.
    pub(super) is_replaced: bool,
}

/// Returns `json` without defects, nested at most `max_depth` deep.
pub(super) fn without_defects(json: &str, max_depth: usize) -> Sound {
    let mut rewriter = Rewriter::new(json, max_depth, false);
    rewriter.value(0, false);
    Sound { json: rewriter.out, is_cut: rewriter.is_cut, is_replaced: rewriter.is_replaced }
}

/// Returns the canonical form of a submit, which depends on neither the order of fields, nor white space, nor the
/// notation of strings and numbers. Numbers are equal if their decimal values are. A null field counts as absent.
pub(in crate::api) fn canonical(json: &str) -> String {
    let mut rewriter = Rewriter::new(json, usize::MAX, true);
    rewriter.value(0, true);
    rewriter.out
}

/// Returns `text` with null for each `NaN` and `Infinity` that is not in a string.
pub(in crate::api) fn without_non_numbers(text: &str) -> String {
    let (mut out, mut copied, mut index) = (String::with_capacity(text.len()), 0, 0);
    while let Some(rest) = text.as_bytes().get(index..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"\"") {
            index = end_of_string(text.as_bytes(), index + 1);
            continue;
        }
        let Some(word) = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| rest.starts_with(word.as_bytes()))
        else {
            index += 1;
            continue;
        };
        out.push_str(text.get(copied..index).unwrap_or_default());
        out.push_str("null");
        index += word.len();
        copied = index;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

struct Rewriter<'a> {
    json: &'a str,
    index: usize,
    out: String,
    max_depth: usize,
    is_canonical: bool,
    is_cut: bool,
    is_replaced: bool,
}

/// A member of an object that was written, without the comma.
struct Member {
    name: String,
    written: Range<usize>,
    is_left_out: bool,
}

impl<'a> Rewriter<'a> {
    fn new(json: &'a str, max_depth: usize, is_canonical: bool) -> Self {
        let out = String::with_capacity(json.len());
        Rewriter { json, index: 0, out, max_depth, is_canonical, is_cut: false, is_replaced: false }
    }

    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.json.as_bytes().get(self.index..)?;
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.index += blank;
        rest.get(blank).copied()
    }

    /// Skips the next byte if it is `byte`.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.index += usize::from(is_next);
        is_next
    }

    fn text(&self, range: Range<usize>) -> &'a str {
        self.json.get(range).unwrap_or_default()
    }

    /// Rewrites a value inside `depth` brackets. `is_request`: an object whose null fields count as absent.
    fn value(&mut self, depth: usize, is_request: bool) {
        let Some(byte) = self.peek() else { return };
        match byte {
            b'{' | b'[' if depth >= self.max_depth => self.cut_value(),
            b'{' => self.object(depth, is_request),
            b'[' => self.list(depth),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let rest = self.json.as_bytes().get(self.index..).unwrap_or_default();
                let letters = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
                self.out.push_str(self.text(self.index..self.index + letters));
                self.index += letters.max(1);
            }
        }
    }

    fn list(&mut self, depth: usize) {
        self.index += 1;
        self.out.push('[');
        while !self.skip(b']') && self.index < self.json.len() {
            self.value(depth + 1, false);
            if self.skip(b',') {
                self.out.push(',');
            }
        }
        self.out.push(']');
    }

    fn object(&mut self, depth: usize, is_request: bool) {
        self.index += 1;
        self.out.push('{');
        let start = self.out.len();
        let (mut members, mut by_name): (Vec<Member>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
        while !self.skip(b'}') && self.index < self.json.len() {
            let from = self.out.len();
            self.string();
            let name: String = serde_json::from_str(self.out.get(from..).unwrap_or_default()).unwrap_or_default();
            self.skip(b':');
            self.out.push(':');
            let value_from = self.out.len();
            self.value(depth + 1, is_request && depth == 0 && NESTED_REQUESTS.contains(&name.as_str()));
            let is_null = self.out.get(value_from..) == Some("null");
            let is_left_out = is_request && (is_null || depth == 0 && name == IDEMPOTENCY_KEY);
            // The last value of a name counts, as with most parsers.
            let earlier = by_name.insert(name.clone(), members.len());
            if let Some(member) = earlier.and_then(|index| members.get_mut(index)) {
                self.is_replaced = true;
                member.is_left_out = true;
            }
            members.push(Member { name, written: from..self.out.len(), is_left_out });
            if self.skip(b',') {
                self.out.push(',');
            }
        }
        if self.is_canonical || members.iter().any(|member| member.is_left_out) {
            members.retain(|member| !member.is_left_out);
            if self.is_canonical {
                members.sort_by(|member, other| member.name.cmp(&other.name));
            }
            let kept: Vec<&str> =
                members.iter().map(|member| self.out.get(member.written.clone()).unwrap_or_default()).collect();
            let kept = kept.join(",");
            self.out.truncate(start);
            self.out.push_str(&kept);
        }
        self.out.push('}');
    }

    fn string(&mut self) {
        if self.peek() != Some(b'"') {
            return;
        }
        let (from, bytes) = (self.index, self.json.as_bytes());
        self.out.push('"');
        let (start, mut copied, mut index) = (self.out.len() - 1, from + 1, from + 1);
        while let Some(&byte) = bytes.get(index) {
            match byte {
                b'"' => break,
                b'\\' if bytes.get(index + 1) == Some(&b'u') => match skip_escape(bytes, index) {
                    Ok(after) => index = after,
                    Err(_) => {
                        self.out.push_str(self.text(copied..index));
                        self.out.push('\u{FFFD}');
                        self.is_replaced = true;
                        index += 6;
                        copied = index;
                    }
                },
                b'\\' => index += 2,
                _ => index += 1,
            }
        }
        self.out.push_str(self.text(copied..index));
        self.out.push('"');
        self.index = index + 1;
        if self.is_canonical {
            let decoded: String = serde_json::from_str(self.out.get(start..).unwrap_or_default()).unwrap_or_default();
            self.out.truncate(start);
            self.out.push_str(&serde_json::to_string(&decoded).unwrap_or_default());
        }
    }

    fn number(&mut self) {
        let from = self.index;
        match skip_number(self.json.as_bytes(), from) {
            Ok(after) => {
                self.index = after;
                let number = self.text(from..after);
                match decimal(number).filter(|_| self.is_canonical) {
                    Some(decimal) => self.out.push_str(&decimal),
                    None => self.out.push_str(number),
                }
            }
            Err(_) => {
                let rest = self.json.as_bytes().get(from..).unwrap_or_default();
                let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                self.index += rest.iter().take_while(is_part).count();
                self.out.push_str("null");
                self.is_replaced = true;
            }
        }
    }

    /// Rewrites a value with brackets into a string with its text.
    fn cut_value(&mut self) {
        let (from, bytes) = (self.index, self.json.as_bytes());
        let (mut depth, mut index) = (0usize, from);
        while let Some(&byte) = bytes.get(index) {
            match byte {
                b'"' => {
                    index = end_of_string(bytes, index + 1);
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            index += 1;
            if depth == 0 {
                break;
            }
        }
        let text = cut(self.text(from..index), TOO_DEEP_BYTES);
        self.out.push_str(&serde_json::to_string(&text).unwrap_or_default());
        self.index = index;
        self.is_cut = true;
    }
}

/// Returns the position after the closing quote, also of a string with half of a surrogate pair.
fn end_of_string(json: &[u8], mut index: usize) -> usize {
    loop {
        match skip_string(json, index) {
            Ok((after, _)) => return after,
            Err(super::validate::JsonDefect::LoneSurrogate(at)) => index = at + 6,
            Err(_) => return json.len(),
        }
    }
}

/// Returns a number as its significant digits and a power of ten; `None` if its exponent has more than 18 digits.
fn decimal(number: &str) -> Option<String> {
    let (sign, unsigned) = number.strip_prefix('-').map_or(("", number), |unsigned| ("-", unsigned));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if exponent.len() > 18 {
        return None;
    }
    let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let digits = [whole, fraction].concat();
    let significant = digits.trim_end_matches('0');
    let exponent =
        exponent - i64::try_from(fraction.len()).ok()? + i64::try_from(digits.len() - significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    Some(format!("{sign}{significant}e{exponent}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::validate::validate;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn defects_are_removed_and_all_else_keeps_its_bytes() {
        for (json, wanted) in [
            (r#"{"a":"x\ud83d","b":"\ud83d\ude00"}"#, "{\"a\":\"x\u{FFFD}\",\"b\":\"\\ud83d\\ude00\"}"),
            (r#"[1e400,-1e999,1.50,12345678901234567890]"#, "[null,null,1.50,12345678901234567890]"),
            (r#"{"a":1,"b":[2],"a":{"c":1,"c":2,"d":3}}"#, r#"{"b":[2],"a":{"c":2,"d":3}}"#),
            (r#"{"\ud800":1,"\ufffd":2}"#, r#"{"\ufffd":2}"#),
            (r#""\udc00\\\"""#, "\"\u{FFFD}\\\\\\\"\""),
        ] {
            let sound = without_defects(json, 9);
            assert_eq!((sound.json.as_str(), sound.is_replaced, sound.is_cut), (wanted, true, false), "{json}");
        }
        let sound = without_defects(r#"[[["]\ud800"],2],{"a":{}},true,null]"#, 2);
        assert_eq!(sound.json, r#"[["[\"]\\ud800\"]",2],{"a":"{}"},true,null]"#);
        assert!(sound.is_cut && !sound.is_replaced);
    }

    #[test]
    fn non_numbers_become_null_outside_strings() {
        let text = r#"{"NaN":NaN,"a":[-Infinity,Infinity,"\"NaN","\ud800 -Infinity"],"ü":NaN}"#;
        let wanted = r#"{"NaN":null,"a":[null,null,"\"NaN","\ud800 -Infinity"],"ü":null}"#;
        assert_eq!(without_non_numbers(text), wanted);
        assert_eq!(without_non_numbers("Na"), "Na");
    }

    #[test]
    fn bodies_of_one_meaning_have_one_canonical_form() {
        let same = [
            r#"{"queue":"q","payload":{"b":[1.0,0.1],"a":"é"},"backoff":{"base_ms":1000}}"#,
            r#" { "backoff" : {"base_ms":1e3, "factor":null}, "key":null, "queue":"q",
                "payload" : {"a":"\u00e9", "b":[1, 100E-3]}, "idempotency_key": "k" } "#,
        ];
        assert_eq!(canonical(same[0]), canonical(same[1]));
        for [one, other] in [
            [r#"{"payload":[1,2]}"#, r#"{"payload":[2,1]}"#],
            [r#"{"payload":12345678901234567890}"#, r#"{"payload":12345678901234567891}"#],
            [r#"{"payload":{"a":null}}"#, r#"{"payload":{}}"#],
            [r#"{"payload":1}"#, r#"{"payload":"1"}"#],
            [r#"{"payload":-1}"#, r#"{"payload":1}"#],
            [r#"{"payload":1e-99999999999999999999}"#, r#"{"payload":1e-99999999999999999998}"#],
        ] {
            assert_ne!(canonical(one), canonical(other));
        }
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?(e[+-]?[0-9]{1,3})?",
            "\"(a|\\\\ud83d|\\\\ude00|\\\\n|é|\\\\\\\\){0,4}\"",
            Just("null".to_owned()),
        ];
        leaf.prop_recursive(6, 60, 5, |inner| {
            let members = proptest::collection::vec(("[ab]|\\\\ud83d", inner.clone()), 0..4);
            let object = |members: Vec<(String, String)>| {
                let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
                format!("{{{}}}", members.join(" ,"))
            };
            prop_oneof![
                members.prop_map(object),
                proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            ]
        })
    }

    proptest! {
        #[test]
        fn rewritten_json_has_no_defect_and_sound_json_its_value(json in json(), depth in 1usize..5) {
            let sound = without_defects(&json, depth);
            prop_assert_eq!(validate(sound.json.as_bytes(), depth), Ok(()), "{} {}", json, sound.json);
            prop_assert!(serde_json::from_str::<Value>(&sound.json).is_ok(), "{} {}", json, sound.json);
            prop_assert_eq!(validate(json.as_bytes(), depth).is_ok(), !sound.is_cut && !sound.is_replaced, "{}", json);
            if let (Ok(()), Ok(value)) = (validate(json.as_bytes(), 9), serde_json::from_str::<Value>(&json)) {
                let form = canonical(&json);
                prop_assert!(!canonical(&value.to_string()).is_empty());
                prop_assert_eq!(canonical(&form), form);
            }
        }
    }
}
