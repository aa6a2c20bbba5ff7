//! Scripts: each header agrees with its body, and all of them with the state table and the field table.

use std::collections::BTreeSet;

use slotwheel::domain::state::{State, Transition};

use super::{files, name};

/// A script's header between `--[[` and `]]`, and the text behind it.
fn header(text: &str) -> (&str, &str) {
    text.trim_start_matches("--[[").split_once("]]").expect("a header")
}

/// The header of a fragment without its comment signs, and the text behind it.
fn fragment_header(text: &str) -> (String, &str) {
    let end = text.lines().take_while(|line| line.starts_with("--")).map(|line| line.len() + 1).sum();
    let (header, code) = text.split_at(end);
    (header.lines().map(|line| line.trim_start_matches('-').trim_start()).collect::<Vec<_>>().join("\n"), code)
}

/// Lua without comments.
fn lua_code(text: &str) -> String {
    let (_, text) = if text.starts_with("--[[") { header(text) } else { ("", text) };
    text.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code)).collect::<Vec<_>>().join("\n")
}

/// The fixed part of each key that a text builds from the base: "task", "ready", …; channels are no keys.
fn keys_built(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split("base .. '").skip(1) {
        let word: String = part.chars().take_while(|c| c.is_ascii_alphabetic() || *c == '_').collect();
        found.insert(word);
    }
    if text.contains("KEYS[1]") {
        found.insert("callers".into());
    }
    found.retain(|word| word != "wakeups" && word != "events");
    found
}

/// The keys that a line `KEYS …` or `keys: …` declares, by their forms.
fn keys_declared(header: &str, label: &str) -> BTreeSet<String> {
    let mut lines = header.lines().skip_while(|line| !line.starts_with(label));
    let mut list = lines.next().unwrap_or_default().trim_start_matches(label).to_owned();
    // A line that ends with a comma goes on in the next.
    while list.ends_with(',') {
        list = format!("{list} {}", lines.next().unwrap_or_default().trim());
    }
    list.split(',').map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect()
}

#[test]
fn script_headers_declare_keys_and_arguments() {
    let forms: BTreeSet<&str> = slotwheel::store::keys::PATTERNS.iter().map(|pattern| pattern.pattern).collect();
    let words = |keys: &BTreeSet<String>| -> BTreeSet<String> {
        keys.iter().map(|key| key.split(':').next().unwrap_or_default().to_owned()).collect()
    };
    let mut of_fragments = Vec::new();
    for path in files("src/store/ops/lib", &["lua"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let (contract, _) = fragment_header(&text);
        assert!(contract.contains("\ndefines: "), "{}: the header lacks defines", name(&path));
        of_fragments.push((text.clone(), keys_declared(&contract, "keys: ")));
    }
    let mut used = BTreeSet::new();
    for script in slotwheel::store::ops::ALL {
        let body = script.text.split_once("--[[").expect("a header").1;
        let (contract, body) = header(body);
        for word in ["RETURNS ", "MOVES ", "COST "] {
            assert!(contract.contains(word), "{}: the header lacks {word}", script.name);
        }
        let own = keys_declared(contract, "KEYS ");
        let fragments = of_fragments.iter().filter(|(text, _)| script.text.contains(text.as_str()));
        let union: BTreeSet<String> = fragments.flat_map(|(_, keys)| keys).chain(&own).cloned().collect();
        for key in &union {
            assert!(forms.contains(key.as_str()), "{}: {key} is none of the keys", script.name);
        }
        assert_eq!(words(&own), words(&own).union(&keys_built(body)).cloned().collect(), "keys of {}", script.name);
        assert_eq!(words(&union), words(&union).union(&keys_built(script.text)).cloned().collect(), "{}", script.name);
        used.extend(union);
        for number in 1..12 {
            let is_read = body.contains(&format!("ARGV[{number}]"));
            let is_declared = script.text.contains(&format!("ARGV[{number}] "));
            assert!(!is_read || is_declared, "{}: ARGV[{number}] is not declared", script.name);
        }
    }
    for path in files("src/store", &["lua"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let declared = match text.starts_with("--[[") {
            true => keys_declared(header(&text).0, "KEYS "),
            false => keys_declared(&fragment_header(&text).0, "keys: "),
        };
        for word in words(&declared) {
            let is_built = ["base .. '", "kind == '"].iter().any(|before| text.contains(&format!("{before}{word}")));
            assert!(is_built || word == "callers", "{}: {word} is declared, not used", name(&path));
        }
    }
    for key in forms {
        let of_rust = ["absent_guard", "meta", "arc:", "held:", "waking", "outbox"];
        assert!(used.contains(key) || of_rust.iter().any(|own| key.starts_with(own)), "no script uses {key}");
    }
}

#[test]
fn scripts_return_repeated_reply_first_and_commit_last() {
    for script in slotwheel::store::ops::ALL.iter().filter(|script| !script.text.contains("flags=no-writes")) {
        let body = script.text.split_once("--[[").and_then(|(_, own)| own.split_once("]]")).expect("a header").1;
        // A fragment may open the calls of several scripts.
        let opening = if body.contains("open_") { body } else { script.text };
        let opens = opening.contains(" = open_call(") || opening.contains(" = open_with_tasks(");
        assert!(opens && opening.contains("return answer end"), "{}", script.name);
        let body = body.trim_end().trim_end_matches("end)()");
        assert!(body.trim_end().lines().next_back().unwrap().starts_with("return commit("), "{}", script.name);
        assert!(!body.contains("commit(cmsgpack.pack("), "{}: commit packs the reply", script.name);
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
        for transition in Transition::ALL {
            table.extend(state.after(*transition).map(|after| (state.to_string(), after.to_string())));
        }
    }
    table.retain(|(from, to)| from != to);
    assert_eq!(built, table);
}

/// One-letter strings of a text between these quotes.
fn letters(text: &str, quote: char) -> Vec<String> {
    let bytes: Vec<char> = text.chars().collect();
    let is_letter =
        |w: &&[char]| w[1] == quote && w[2].is_ascii_alphabetic() && w[3] == quote && !w[0].is_alphanumeric();
    bytes.windows(4).filter(is_letter).map(|w| w[2].to_string()).collect()
}

#[test]
fn stored_field_names_are_in_their_table_alone() {
    use slotwheel::store::record::FIELDS;
    let stored: BTreeSet<&str> = FIELDS.iter().map(|field| field.stored).collect();
    assert_eq!(stored.len(), FIELDS.len(), "two fields have one stored name");
    for path in files("src/store", &["lua"]) {
        let code = lua_code(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(letters(&code, '\''), [""; 0], "{} names fields by letters", name(&path));
        let members = code.split('.').skip(1).filter(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            end == 1 && rest.starts_with(|c: char| c.is_ascii_alphabetic())
        });
        assert_eq!(members.count(), 0, "{} names fields by letters", name(&path));
    }
    for script in slotwheel::store::ops::ALL {
        let text = script.full_text("");
        let begins_a_word =
            |line: &str, at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let has = |line: &str, prefix: &str| line.match_indices(prefix).any(|(at, _)| begins_a_word(line, at));
        let is_unknown = |line: &&str| has(line, "F.") || has(line, "L.");
        let unknown: Vec<&str> = text.lines().filter(is_unknown).collect();
        assert!(unknown.is_empty(), "{}: no such field: {unknown:?}", script.name);
    }
    for path in files("src/store", &["rs"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code = match name(&path).ends_with("record.rs") {
            true => code.split_once("\n}\n\npub(super) fn priority_in_range").expect("the table").1,
            false => code,
        };
        let found: Vec<String> = letters(code, '"').into_iter().filter(|one| stored.contains(one.as_str())).collect();
        assert_eq!(found, [""; 0], "{} names fields by letters", name(&path));
    }
}

/// The commands of a text: behind `call(`, `pcall(`, `write(`, `write_last(` and `{` in Lua, and `cmd(` in Rust.
fn commands(text: &str, quote: char) -> BTreeSet<String> {
    let words = text.split(quote).skip(1).step_by(2);
    let is_command = |word: &&str| word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase());
    words.filter(is_command).map(str::to_ascii_lowercase).collect()
}

#[test]
fn checked_permissions_are_the_commands_that_are_called() {
    use slotwheel::store::permissions::COMMANDS;
    let options = ["aggregate", "count", "limit", "min", "rev", "samples", "usage", "withscores"];
    let mut called = BTreeSet::new();
    for path in files("src/store", &["lua"]) {
        let code = lua_code(&std::fs::read_to_string(&path).unwrap());
        called.extend(commands(&code, '\'').into_iter().filter(|word| !options.contains(&word.as_str())));
    }
    for path in files("src/store", &["rs"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for part in code.split("cmd(\"").skip(1) {
            let (name, rest) = part.split_once('"').unwrap();
            let subcommand = rest.strip_prefix(").arg(\"").filter(|_| ["CLUSTER", "CONFIG"].contains(&name));
            let subcommand = subcommand.map(|rest| format!("|{}", rest.split('"').next().unwrap()));
            called.insert(format!("{name}{}", subcommand.unwrap_or_default()).to_ascii_lowercase());
        }
    }
    if called.remove("memory") {
        called.insert("memory|usage".into());
    }
    // Redis permits HELLO to every user. The client of Redis itself sends the other three.
    called.remove("hello");
    called.extend(["asking", "cluster|slots", "select"].map(str::to_owned));
    let listed: BTreeSet<String> = COMMANDS.iter().map(|command| command.name.to_owned()).collect();
    assert_eq!(called, listed, "commands of scripts and of the store, and src/store/permissions.rs");
}
