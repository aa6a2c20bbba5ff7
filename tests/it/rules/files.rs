//! Files: each begins with its purpose, has at most 400 lines, a script 150, and has nothing left for later.

use super::{files, name};

const MAX_LINES: usize = 400;
const MAX_SCRIPT_LINES: usize = 150;

/// Sources, tests and tools, without what their builds generate.
pub(super) const FOLDERS: [&str; 6] = ["src", "tests", "bench/src", "benches", "fuzz/harness", "fuzz/targets"];

#[test]
fn files_have_at_most_400_lines_and_scripts_150() {
    for path in FOLDERS.iter().flat_map(|folder| files(folder, &["rs", "lua"])) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        let most = if path.extension().is_some_and(|ext| ext == "lua") { MAX_SCRIPT_LINES } else { MAX_LINES };
        assert!(lines <= most, "{} has {lines} lines", name(&path));
    }
}

#[test]
fn files_begin_with_their_purpose() {
    for path in FOLDERS.iter().flat_map(|folder| files(folder, &["rs"])) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{}", name(&path));
    }
    for path in files("src", &["lua"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let wanted =
            if path.parent().unwrap().ends_with("lib") { format!("-- {stem}: ") } else { format!("--[[ {stem}: ") };
        assert!(text.starts_with(&wanted), "{}", name(&path));
    }
}

#[test]
fn files_have_no_todo_and_tests_neither_sleep_nor_are_ignored() {
    // The words are built from parts, so that this file does not contain them.
    let todo = ["TO", "DO"].concat();
    let ignored = ["#[ign", "ore"].concat();
    let sleep = ["sle", "ep("].concat();
    for path in files("src", &["rs", "lua"]).into_iter().chain(files("tests", &["rs", "lua"])) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&todo) && !text.contains(&ignored), "{}", name(&path));
        if name(&path).starts_with("tests") {
            assert!(!text.contains(&sleep), "{} sleeps", name(&path));
        }
    }
}
