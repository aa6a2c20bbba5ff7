//! Names of tests: `subject_condition_expectation`, at most 70 characters.

use super::{files, name};

const MAX_NAME: usize = 70;

/// A test's name begins with its subject: no pronoun, no article, no clause.
const NO_SUBJECT: [&str; 21] = [
    "a", "an", "each", "every", "it", "no", "nobody", "nothing", "of", "one", "only", "somebody", "so", "the", "those",
    "what", "where", "while", "who", "whoever", "with",
];

/// The names of the functions behind `#[test]`, `#[tokio::test]` and within `proptest!`.
fn tests(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        if let Some(function) = function.filter(|_| marked) {
            found.push(function.split(['(', '<']).next().unwrap());
            marked = false;
        }
    }
    found
}

#[test]
fn test_names_begin_with_their_subject_and_have_at_most_70_characters() {
    let (mut seen, mut defects) = (0, Vec::new());
    for path in super::files::FOLDERS.iter().flat_map(|folder| files(folder, &["rs"])) {
        let text = std::fs::read_to_string(&path).unwrap();
        for test in tests(&text) {
            let first = test.split('_').next().unwrap();
            if test.len() > MAX_NAME || NO_SUBJECT.contains(&first) || first == test {
                defects.push(format!("{}: {test}", name(&path)));
            }
            seen += 1;
        }
    }
    assert!(defects.is_empty(), "{}", defects.join("\n"));
    // So that a change of how tests are marked does not end the rule.
    assert!(seen > 400, "{seen}");
}
