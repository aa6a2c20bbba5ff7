//! Prose: what a text search can hold of the rules for comments, documents, help, errors and logs.

use std::path::{Path, PathBuf};

use super::{files, name, root};

/// Words with which no statement begins: its subject is a noun.
const NO_SUBJECT: [&str; 8] =
    ["Who ", "Whoever ", "Those who ", "What ", "Nobody ", "Somebody ", "One who ", "One that "];

/// Phrases that a limit, a name or an ordinary verb replaces, and words that the glossary replaces. In lower case.
const PHRASES: [&str; 21] = [
    "so many",
    "is told",
    "are told",
    "was told",
    "is said",
    "are said",
    "is looked at",
    "stands",
    "whoever",
    "nobody",
    "somebody",
    "manieth",
    "lane",
    "lanes",
    "mend",
    "mends",
    "mended",
    "given back",
    "put away",
    "farewell",
    "managed redis",
];

/// Ordinary uses of those phrases.
const ALLOWED: [&str; 2] = ["stands for", "stands still"];

/// Sources and documents. `rules` itself names what it forbids.
fn texts() -> Vec<PathBuf> {
    let folders = [
        "src",
        "tests",
        "bench/src",
        "benches",
        "fuzz/harness",
        "fuzz/targets",
        "docs",
        "deploy",
        "examples",
        "sdk-check",
        "events-check",
    ];
    let folders = folders.iter().filter(|folder| root().join(folder).is_dir());
    let endings = ["rs", "lua", "md", "yml", "yaml", "toml", "py", "sh", "mjs"];
    let single = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "openapi.yaml",
        "config.default.toml",
        "compose.yaml",
        "bench/README.md",
        "Makefile",
        "Dockerfile",
    ];
    let single = single.iter().map(|file| root().join(file)).filter(|path| path.exists());
    let all = folders.flat_map(|folder| files(folder, &endings)).chain(single);
    all.filter(|path| !name(path).starts_with("tests/it/rules/")).collect()
}

/// Paragraphs of prose: of code its comments and longer strings, of other files their text outside code blocks.
fn paragraphs(path: &Path, text: &str) -> Vec<String> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("");
    let comment = match ending {
        "rs" | "mjs" => "//",
        "lua" => "--",
        "md" => "",
        _ => "#",
    };
    let everything = matches!(ending, "md" | "yaml" | "yml");
    let mut found = vec![String::new()];
    let mut in_block = false;
    let mut in_header = false;
    for line in text.lines().map(str::trim) {
        in_block ^= line.starts_with("```");
        in_header = ending == "lua" && (in_header || line.starts_with("--[[")) && !line.starts_with("]]");
        let marked = !comment.is_empty() && line.starts_with(comment);
        let prose = if marked || in_header {
            line.trim_start_matches(['/', '!', '-', '#', '[']).trim()
        } else if everything && !in_block {
            line
        } else {
            found.push(String::new());
            // Of a line of code, the strings that are sentences.
            found.extend(
                line.split('"').skip(1).step_by(2).filter(|string| string.matches(' ').count() > 1).map(str::to_owned),
            );
            found.push(String::new());
            continue;
        };
        let begins = prose.is_empty() || prose.starts_with(['-', '*', '#', '|', '>']) || is_key(prose);
        if begins {
            found.push(String::new());
        }
        for cell in prose.split('|') {
            let cell = cell.trim_start_matches(['-', '*', '#', '>', ' ']);
            let cell = if is_key(cell) { cell.split_once(": ").map_or("", |(_, value)| value) } else { cell };
            if prose.contains('|') {
                found.push(String::new());
            }
            let last = found.last_mut().unwrap();
            last.push(' ');
            last.push_str(cell.trim_matches(['"', '\'', ' ']));
        }
    }
    found.retain(|paragraph| !paragraph.trim().is_empty());
    found.iter().map(|paragraph| without_code(paragraph)).collect()
}

/// A line of YAML or TOML that begins a value.
fn is_key(line: &str) -> bool {
    let key = line.split(':').next().unwrap_or_default();
    line.contains(':') && !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-$/{}".contains(c))
}

/// Puts one word for each piece of inline code.
fn without_code(text: &str) -> String {
    text.split('`').enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "x" }).collect()
}

/// What a paragraph breaks.
fn defects(paragraph: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sentence in sentences(paragraph) {
        let sentence = sentence.trim().trim_start_matches(['*', '_', '(', '"']);
        let begins = NO_SUBJECT.iter().any(|word| sentence.starts_with(word));
        if begins && !sentence.ends_with('?') {
            found.push(sentence.to_owned());
        }
    }
    let plain: String =
        paragraph.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let mut plain = format!(" {} ", words.join(" "));
    for allowed in ALLOWED {
        plain = plain.replace(allowed, "");
    }
    for phrase in PHRASES.iter().filter(|phrase| plain.contains(&format!(" {phrase} "))) {
        found.push(format!("`{phrase}` in: {}", paragraph.trim()));
    }
    found
}

/// Sentences end with a full stop, a question mark or an exclamation mark before a space.
fn sentences(paragraph: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, pair) in paragraph.as_bytes().windows(2).enumerate() {
        if matches!(pair, [b'.' | b'?' | b'!', b' ']) {
            found.push(&paragraph[start..=at]);
            start = at + 1;
        }
    }
    found.push(&paragraph[start..]);
    found
}

#[test]
fn sentences_have_a_noun_as_subject_and_no_banned_phrase() {
    let mut found = Vec::new();
    for path in texts() {
        let text = std::fs::read_to_string(&path).unwrap();
        let all = paragraphs(&path, &text);
        found.extend(all.iter().flat_map(|one| defects(one)).map(|defect| format!("{}: {defect}", name(&path))));
    }
    assert!(found.is_empty(), "{} sentences:\n{}", found.len(), found.join("\n"));
}

#[test]
fn prose_rule_finds_what_it_forbids() {
    let source =
        "//! Reads tasks. Who waits has a place.\n// What is `over` is deleted\n// here.\nlet x = \"nobody was here\";";
    let found: Vec<String> = paragraphs(Path::new("x.rs"), source).iter().flat_map(|one| defects(one)).collect();
    assert_eq!(
        found,
        ["Who waits has a place.", "What is x is deleted here.", "`nobody` in: nobody was here"].map(str::to_owned)
    );
    assert!(defects("What happens when Redis dies? Nothing is lost. UTC stands for a time zone.").is_empty());
    let table = "| What it is | so many |\n\ndescription: One that waits.\n";
    let found: Vec<String> = paragraphs(Path::new("x.md"), table).iter().flat_map(|one| defects(one)).collect();
    assert_eq!(found.len(), 3, "{found:?}");
}
