//! Commit subjects: `area: imperative`, at most 72 characters.

use std::process::Command;

use super::root;

/// The last commit before the rule.
const BEFORE: &str = "bbabd576dc915dc701003ffc3029cbe2a295da85";

const MAX_SUBJECT: usize = 72;

/// Standard output of a git command, or nothing if it fails: no git, no history, or a shallow clone.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why a subject breaks the rule.
fn defect(subject: &str) -> Option<&'static str> {
    let Some((area, rest)) = subject.split_once(": ") else { return Some("has no area") };
    let is_area = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-/,. ".contains(c);
    let verb = rest.split(' ').next().unwrap_or_default();
    if subject.chars().count() > MAX_SUBJECT {
        Some("is longer than 72 characters")
    } else if area.is_empty() || !area.chars().all(is_area) {
        Some("has an area that is not lower case")
    } else if !verb.starts_with(|c: char| c.is_ascii_lowercase()) || rest.ends_with('.') {
        Some("must go on in lower case, without a full stop")
    } else if verb.ends_with("ed") && !["embed", "need", "seed", "feed", "speed"].contains(&verb)
        || verb.ends_with("ing")
    {
        Some("must begin with an imperative")
    } else if ["a", "an", "the", "no", "what", "who", "where", "one", "it"].contains(&verb) {
        Some("must begin with a verb")
    } else {
        None
    }
}

#[test]
fn commit_subjects_are_an_area_and_an_imperative() {
    let range = format!("{BEFORE}..HEAD");
    let Some(subjects) = git(&["log", "--no-merges", "--format=%s", &range]) else {
        eprintln!("not checked: the history since {BEFORE} is not here (no git, or a shallow clone)");
        return;
    };
    let defects: Vec<String> =
        subjects.lines().filter_map(|subject| defect(subject).map(|why| format!("`{subject}` {why}"))).collect();
    assert!(defects.is_empty(), "{}", defects.join("\n"));
}

#[test]
fn commit_subject_rule_tells_good_from_bad() {
    for good in ["names: rename to the field's own words", "store/redis: add topology", "tests, bench: embed files"] {
        assert_eq!(defect(good), None, "{good}");
    }
    for bad in [
        "What observing costs, measured again",
        "store: Add topology",
        "store: added topology",
        "store: the topology",
        "store: add topology.",
    ] {
        assert!(defect(bad).is_some(), "{bad}");
    }
    assert!(defect(&format!("store: add {}", "x".repeat(62))).is_some());
}
