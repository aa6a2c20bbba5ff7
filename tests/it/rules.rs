//! Rules of the house, held by a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use slotwheel::domain::state::{State, Transition};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` with one of the endings.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The floor that a module stands on; modules of one floor do not import one another, but for those of the ground.
fn floor(module: &str) -> Option<u8> {
    Some(match module {
        "domain" | "config" | "metrics" => 0,
        "store" | "spans" => 1,
        "dispatch" | "upkeep" => 2,
        "http_server" => 3,
        "api" => 4,
        "app" => 5,
        "cli" | "main" => 6,
        _ => return None,
    })
}

#[test]
fn modules_import_only_lower_floors() {
    for path in files("src", &["rs"]) {
        let shown = name(&path);
        let own = shown.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if own == "lib" {
            continue;
        }
        let own_floor = floor(&own).unwrap_or_else(|| panic!("{shown} stands on no floor"));
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let other: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let Some(other_floor) = floor(&other) else { continue };
                let config_reads_domain = own == "config" && other == "domain";
                assert!(other == own || other_floor < own_floor || config_reads_domain, "{shown} imports {other}");
            }
        }
    }
}

#[test]
fn external_libraries_are_used_by_one_floor_each() {
    for (library, folders) in [
        ("deadpool_redis", &["src/store"][..]),
        ("axum", &["src/api", "src/http_server"]),
        ("hyper", &["src/http_server", "src/cli.rs"]),
        ("clap", &["src/cli.rs", "src/config"]),
        ("opentelemetry", &["src/spans"]),
    ] {
        for path in files("src", &["rs"]) {
            let shown = name(&path);
            let text = std::fs::read_to_string(&path).unwrap();
            let used = text.lines().any(|line| !line.contains("//") && line.contains(&format!("{library}::")));
            assert!(!used || folders.iter().any(|folder| shown.starts_with(folder)), "{shown} speaks {library}");
        }
    }
}

#[test]
fn files_have_at_most_400_lines() {
    let folders = ["src", "tests", "bench/src"];
    for path in folders.iter().flat_map(|folder| files(folder, &["rs", "lua"])) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines", name(&path));
    }
}

#[test]
fn files_begin_with_their_purpose() {
    let folders = ["src", "tests", "bench/src"];
    for path in folders.iter().flat_map(|folder| files(folder, &["rs"])) {
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
fn module_names_are_specific() {
    for path in files("src", &["rs"]) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        for banned in ["util", "utils", "common", "helper", "helpers", "manager", "types", "misc", "service"] {
            assert_ne!(stem, banned, "{}", name(&path));
        }
    }
}

#[test]
fn files_have_no_todo_and_tests_neither_sleep_nor_are_ignored() {
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

/// The words of a script's header between `--[[` and `]]`, and the text behind it.
fn header(text: &str) -> (&str, &str) {
    text.trim_start_matches("--[[").split_once("]]").expect("a header")
}

/// The fixed word of each key that a text builds from the base: 'task:', 'ready', …
fn keys_built(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split("base .. '").skip(1) {
        let word: String = part.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        found.insert(word);
    }
    found
}

#[test]
fn script_headers_match_their_bodies() {
    let patterns: BTreeSet<String> = slotwheel::store::keys::PATTERNS
        .iter()
        .map(|pattern| pattern.pattern.split(':').next().unwrap().to_owned())
        .collect();
    for script in slotwheel::store::ops::ALL {
        let folder = if Path::new(&root().join(format!("src/store/ops/{}.lua", script.name))).exists() {
            "ops"
        } else {
            "views"
        };
        let file = root().join(format!("src/store/{folder}/{}.lua", script.name));
        let own = std::fs::read_to_string(&file).unwrap();
        let (contract, body) = header(&own);
        assert!(script.text.starts_with("#!lua"), "{}", script.name);
        assert!(script.text.ends_with(&own), "{}", script.name);
        for word in ["KEYS[1] calls", "ARGV[1] base", "RETURNS ", "MOVES ", "COST "] {
            assert!(contract.contains(word), "{}: the header lacks {word}", script.name);
        }
        let declared = keys_built(contract);
        for key in &declared {
            assert!(patterns.contains(key), "{}: {key} is none of the keys", script.name);
        }
        // What the body itself builds is declared; a fragment builds what it is called for.
        for key in keys_built(body) {
            // Channels are no keys.
            assert!(declared.contains(&key) || key == "signals", "{}: {key} is not declared", script.name);
        }
        // This one is read whatever the body calls.
        let reads_listen = script.text.trim_end_matches(&own).contains("base .. 'listen'");
        assert!(!reads_listen || declared.contains("listen"), "{}: listen is not declared", script.name);
        // Arguments are numbered in the header as they are read.
        for number in 1..12 {
            let read = body.contains(&format!("ARGV[{number}]"));
            let said = contract.contains(&format!("ARGV[{number}] "));
            assert!(!read || said, "{}: ARGV[{number}] is not declared", script.name);
        }
    }
}

/// The moves that a header names, like "leased -> ready | dead, ready <-> scheduled"; "-" is no task at all.
fn moves(contract: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let line = contract.lines().find_map(|line| line.strip_prefix("MOVES")).expect("a line of moves").trim();
    for part in line.split([',', ';']) {
        let (both, arrow) = (part.contains("<->"), if part.contains("<->") { "<->" } else { "->" });
        let Some((from, to)) = part.split_once(arrow) else { continue };
        let from = from.rsplit(": ").next().unwrap().trim();
        let from: Vec<&str> = match from {
            "every state but leased" => {
                State::ALL.iter().map(|state| state.as_str()).filter(|s| *s != "leased").collect()
            }
            one => vec![one],
        };
        for (from, to) in from.iter().flat_map(|from| to.split('|').map(move |to| (*from, to.trim()))) {
            found.insert((from.to_owned(), to.to_owned()));
            if both {
                found.insert((to.to_owned(), from.to_owned()));
            }
        }
    }
    found
}

#[test]
fn script_transitions_are_those_of_the_state_table() {
    let mut built = BTreeSet::new();
    for script in slotwheel::store::ops::ALL {
        let start = script.text.find("--[[").expect("a header");
        built.extend(moves(header(&script.text[start..]).0));
    }
    // Tasks come from nowhere and go to nowhere; the table is about those that are there.
    built.retain(|(from, to)| from != "-" && to != "-");
    let mut table = BTreeSet::new();
    for state in State::ALL {
        for event in Transition::ALL {
            table.extend(state.after(event).map(|after| (state.to_string(), after.to_string())));
        }
    }
    table.retain(|(from, to)| from != to);
    assert_eq!(built, table);
}

#[test]
fn fields_written_by_scripts_are_in_the_field_table() {
    let table = std::fs::read_to_string(root().join("src/store/record.rs")).unwrap();
    for path in files("src/store/ops", &["lua"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split("field('").skip(1) {
            let field: String = part.chars().take_while(|c| *c != '\'').collect();
            assert!(table.contains(&format!("| {field} |")), "{}: field {field}", name(&path));
        }
    }
}

#[test]
fn guarantees_name_existing_tests() {
    let promises = std::fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let tests = files("tests/it", &["rs"]);
    let mut named = 0;
    for name in promises.split('`').skip(1).step_by(2).filter(|code| code.contains("::")) {
        let (module, test) = name.split_once("::").unwrap();
        let of_module = |path: &&PathBuf| {
            let inside = path.strip_prefix(root().join("tests/it")).unwrap();
            inside.with_extension("") == Path::new(module) || inside.starts_with(module)
        };
        let is_there = |path: &PathBuf| std::fs::read_to_string(path).unwrap().contains(&format!("fn {test}("));
        assert!(tests.iter().filter(of_module).any(is_there), "{name} is no test");
        named += 1;
    }
    // A promise without one would be a wish.
    let promised = promises.split("## Not promised").next().unwrap();
    for paragraph in promised.split("\n\n").filter(|paragraph| paragraph.starts_with("**")) {
        assert!(paragraph.contains("::"), "{paragraph}");
    }
    assert!(named > 40);
}

#[test]
fn mutant_patches_apply() {
    for patch in files("mutants", &["patch"]) {
        let check =
            std::process::Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(root()).output();
        let check = check.expect("git");
        assert!(check.status.success(), "{}: {}", name(&patch), String::from_utf8_lossy(&check.stderr));
    }
}

#[test]
fn readme_is_short_and_shows_the_two_commands_first() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() < 150);
    let (run, test) = (readme.find("make run").unwrap(), readme.find("make test").unwrap());
    assert!(run < test && test < readme.find("curl").unwrap());
}
