//! Scripts: each header agrees with its body, and all of them with the state table and the field table.

use std::collections::BTreeSet;
use std::path::Path;

use slotwheel::domain::state::{State, Transition};

use super::{files, name, root};

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
