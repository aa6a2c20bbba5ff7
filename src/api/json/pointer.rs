//! JSON pointers (RFC 6901) in problems. They are short, whatever the request.

/// Characters kept of a name.
const NAME_CHARS: usize = 100;
/// Bytes of a pointer to which no further part is added.
const MAX_BYTES: usize = 200;

/// Escapes a name for a JSON pointer, cut to 100 characters.
pub(super) fn escape_pointer(name: &str) -> String {
    let mut name: String = name.chars().take(NAME_CHARS).collect();
    if name.contains(['~', '/']) {
        name = name.replace('~', "~0").replace('/', "~1");
    }
    name
}

/// A bracket that is open at the position.
enum Open<'a> {
    Object { name: &'a str },
    List { index: usize },
}

/// Returns the pointer of the value or name at byte `position` of `json`, which is at `base`. A pointer with many parts
/// lacks the last ones.
pub(in crate::api) fn pointer_at(base: &str, json: &str, position: usize) -> String {
    let bytes = json.as_bytes();
    let (mut open, mut index, mut is_name_next): (Vec<Open<'_>>, usize, bool) = (Vec::new(), 0, false);
    while let Some(&byte) = bytes.get(index).filter(|_| index <= position) {
        match byte {
            b'"' => {
                let from = index + 1;
                index = from;
                while let Some(&byte) = bytes.get(index).filter(|byte| **byte != b'"') {
                    index += if byte == b'\\' { 2 } else { 1 };
                }
                if is_name_next && let Some(Open::Object { name }) = open.last_mut() {
                    *name = json.get(from..index).unwrap_or_default();
                }
                is_name_next = false;
            }
            b'{' if index < position => {
                open.push(Open::Object { name: "" });
                is_name_next = true;
            }
            b'[' if index < position => {
                open.push(Open::List { index: 0 });
                is_name_next = false;
            }
            b'}' | b']' => drop(open.pop()),
            b',' => match open.last_mut() {
                Some(Open::List { index }) => *index += 1,
                Some(Open::Object { .. }) => is_name_next = true,
                None => {}
            },
            _ => {}
        }
        index += 1;
    }
    let mut pointer = base.to_owned();
    for bracket in open {
        if pointer.len() > MAX_BYTES {
            break;
        }
        pointer.push('/');
        match bracket {
            Open::List { index } => pointer.push_str(&index.to_string()),
            Open::Object { name } => {
                let decoded: Option<String> = serde_json::from_str(&format!("\"{name}\"")).ok();
                pointer.push_str(&escape_pointer(decoded.as_deref().unwrap_or(name)));
            }
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pointer_names_the_value_at_a_position() {
        let json = r#"{"a":[1,{"x/y":"s","~\u00e9":[0,[7]]}],"b":8}"#;
        for (part, wanted) in [
            ("1,", "/a/0"),
            ("\"s\"", "/a/1/x~1y"),
            ("7", "/a/1/~0é/1/0"),
            ("8", "/b"),
            ("\"b\"", "/b"),
            ("{\"x", "/a/1"),
            ("{\"a", ""),
        ] {
            assert_eq!(pointer_at("", json, json.find(part).unwrap()), wanted, "{part}");
        }
        assert_eq!(pointer_at("/tasks/3", r#"{"a":1}"#, 5), "/tasks/3/a");
        let deep = format!("{}1", "[".repeat(5000));
        assert!(pointer_at("", &deep, 5000).len() < 210);
    }

    proptest! {
        #[test]
        fn pointer_into_any_text_does_not_panic(text in "[{}\\[\\]\",:a\\\\u0-9é]{0,60}", position in 0usize..70) {
            let _ = pointer_at("", &text, position);
        }
    }
}
