//! Module paths that Rust sources use, read from their text: `use` trees and inline paths that begin with `crate`,
//! `super`, `self` or a submodule. Comments, strings and `#[cfg(test)]` modules are excluded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{files, name, root};

/// A module path: `["store", "redis", "client"]`.
pub type Module = Vec<String>;

/// The source of one module.
struct Source {
    text: String,
    /// Declares submodules, so it is a `mod.rs` or a file beside a folder of its name.
    submodules: BTreeSet<String>,
}

/// All modules of `src` with the names that each re-exports.
pub struct Crate {
    sources: BTreeMap<Module, Source>,
    reexports: BTreeMap<Module, BTreeMap<String, Module>>,
}

/// A use of one module by another; both are files.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Import {
    pub from: Module,
    pub to: Module,
}

/// A path as it is written, with the inline modules around it and whether a `pub use` contains it.
struct Written {
    segments: Vec<String>,
    alias: Option<String>,
    inline: Vec<String>,
    public: bool,
}

impl Crate {
    pub fn read() -> Self {
        let mut sources = BTreeMap::new();
        for path in files("src", &["rs"]) {
            let text = code(&std::fs::read_to_string(&path).unwrap());
            let submodules = submodules(&text);
            sources.insert(module_of(&path), Source { text, submodules });
        }
        let mut all = Crate { sources, reexports: BTreeMap::new() };
        let mut reexports = BTreeMap::new();
        for (module, source) in &all.sources {
            let mut names = BTreeMap::new();
            for written in paths(source).into_iter().filter(|written| written.public && written.inline.is_empty()) {
                let target = all.absolute(module, &written);
                let last = target.last().cloned().unwrap_or_default();
                names.insert(written.alias.unwrap_or(last), target);
            }
            reexports.insert(module.clone(), names);
        }
        all.reexports = reexports;
        all
    }

    /// The imports between files of `src`, without those of a module by itself and without re-exports.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut found = BTreeSet::new();
        for (module, source) in &self.sources {
            for written in paths(source).into_iter().filter(|written| !written.public) {
                let to = self.file_of(self.absolute(module, &written));
                if to != *module {
                    found.insert(Import { from: module.clone(), to });
                }
            }
        }
        found
    }

    /// The path from the root of the crate.
    fn absolute(&self, module: &Module, written: &Written) -> Module {
        let mut path: Module = module.iter().chain(&written.inline).cloned().collect();
        for (index, segment) in written.segments.iter().enumerate() {
            match segment.as_str() {
                "crate" | "slotwheel" if index == 0 => path.clear(),
                "super" => drop(path.pop()),
                "self" => {}
                segment => path.push(segment.to_owned()),
            }
        }
        path
    }

    /// The file that defines what a path names; follows re-exports.
    fn file_of(&self, path: Module) -> Module {
        let mut path = path;
        // Each re-export leads to another module; a chain is short.
        for _ in 0..8 {
            let known = (0..=path.len()).rev().find(|end| self.sources.contains_key(&path[..*end])).unwrap_or(0);
            let Some(item) = path.get(known) else { return path };
            let Some(target) = self.reexports.get(&path[..known]).and_then(|names| names.get(item)) else {
                return path[..known].to_vec();
            };
            path = target.iter().chain(&path[known + 1..]).cloned().collect();
        }
        panic!("{path:?}: re-exports in a circle")
    }
}

/// `src/store/redis/client.rs` is `store::redis::client`; `mod.rs`, `lib.rs` and `main.rs` are their folder.
fn module_of(path: &Path) -> Module {
    let shown = name(path);
    let inside = shown.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Module = inside.split('/').map(str::to_owned).collect();
    // The binary is a crate of its own, below nothing.
    if module.last().is_some_and(|last| last == "mod" || inside == "lib") {
        module.pop();
    }
    module
}

fn submodules(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let declared = words.windows(2).filter(|pair| pair[0] == "mod");
    declared.filter_map(|pair| pair[1].strip_suffix(';')).map(str::to_owned).collect()
}

/// A text without comments, contents of strings, and modules of unit tests.
pub fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let begins = |word: &str| rest.iter().copied().take(word.len()).eq(word.chars());
        if begins("//") {
            at += rest.iter().take_while(|c| **c != '\n').count();
        } else if begins("r#\"") || begins("r\"") {
            let end: &[char] = if rest[1] == '#' { &['"', '#'] } else { &['"'] };
            let start = 1 + end.len();
            let length = rest[start..].windows(end.len()).position(|window| window == end).unwrap_or(rest.len());
            out.push_str("\"\"");
            at += start + length + end.len();
        } else if rest[0] == '"' {
            let mut length = 1;
            while rest.get(length).is_some_and(|c| *c != '"') {
                length += if rest[length] == '\\' { 2 } else { 1 };
            }
            out.push_str("\"\"");
            at += length + 1;
        } else if rest[0] == '\'' && rest.get(1) == Some(&'\\') {
            at += 2 + rest[2..].iter().skip(1).take_while(|c| **c != '\'').count() + 2;
        } else if rest[0] == '\'' && rest.get(2) == Some(&'\'') {
            at += 3;
        } else {
            out.push(rest[0]);
            at += 1;
        }
    }
    without_tests(&out)
}

/// Cuts every `#[cfg(test)] mod … { … }`.
fn without_tests(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("#[cfg(test)]") {
        out.push_str(before);
        let open = behind.find('{').unwrap_or(behind.len());
        let semicolon = behind.find(';').unwrap_or(behind.len());
        // A declaration of one line has no block.
        rest = if semicolon < open { &behind[semicolon + 1..] } else { &behind[open + block(&behind[open..])..] };
    }
    out.push_str(rest);
    out
}

/// The length of the block with which a text begins.
fn block(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// The paths of a source that may name modules of this crate.
fn paths(source: &Source) -> Vec<Written> {
    let tokens = tokens(&source.text);
    let mut found = Vec::new();
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        let before = at.checked_sub(1).map(|before| tokens[before].as_str());
        match token {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.retain(|(_, opened)| *opened <= depth);
            }
            "mod" if tokens.get(at + 2).is_some_and(|brace| brace == "{") => {
                inline.push((tokens[at + 1].clone(), depth + 1));
            }
            _ => {}
        }
        let starts = matches!(token, "crate" | "super" | "self" | "slotwheel") || source.submodules.contains(token);
        let path = tokens.get(at + 1).is_some_and(|next| next == "::") && before != Some("::") && before != Some(".");
        // `pub(in crate::x)` limits a visibility and imports nothing; a macro's `$crate` imports where it is used.
        let path = path && !(before == Some("in") && at > 1 && tokens[at - 2] == "(") && before != Some("$");
        if starts && path {
            let public = in_public_use(&tokens[..at]);
            let names: Vec<String> = inline.iter().map(|(name, _)| name.clone()).collect();
            let mut trees = Vec::new();
            at = tree(&tokens, at, &[], &mut trees);
            for (segments, alias) in trees {
                // `crate` inside a submodule's name would be another crate's.
                found.push(Written { segments, alias, inline: names.clone(), public });
            }
            continue;
        }
        at += 1;
    }
    found
}

/// Whether the statement that the tokens end in is a `pub use`, of whatever visibility.
fn in_public_use(tokens: &[String]) -> bool {
    let start = tokens.iter().rposition(|token| matches!(token.as_str(), ";" | "}" | "]")).map_or(0, |at| at + 1);
    let statement = &tokens[start..];
    statement.first().is_some_and(|first| first == "pub") && statement.iter().any(|token| token == "use")
}

/// Reads a path or a tree of paths from `at`; returns the place behind it.
fn tree(tokens: &[String], at: usize, prefix: &[String], found: &mut Vec<(Vec<String>, Option<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = at;
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = if tokens[at] == "," { at + 1 } else { tree(tokens, at, &path, found) };
                }
                return at + 1;
            }
            Some("*") => {
                found.push((path, None));
                return at + 1;
            }
            Some(word) if is_word(word) => path.push(word.to_owned()),
            // `a::<T>`, or a macro's `$`.
            _ => {
                found.push((path, None));
                return at.max(1);
            }
        }
        at += 1;
        match tokens.get(at).map(String::as_str) {
            Some("::") => at += 1,
            Some("as") => {
                found.push((path, tokens.get(at + 1).cloned()));
                return at + 2;
            }
            _ => {
                found.push((path, None));
                return at;
            }
        }
    }
}

fn is_word(token: &str) -> bool {
    token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Words, `::`, and single other characters.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count();
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            word => word,
        };
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    found
}

#[test]
fn imports_are_read_from_trees_inline_paths_and_reexports() {
    let text = "pub use redis::{Client, script as s};\nuse crate::domain::{id::TaskId, *}; // use crate::api::x;\n\
                pub(in crate::x) fn f() { $crate::y::z; let a = super::b::c(\"crate::no::path\"); }\n\
                #[cfg(test)]\nmod tests { use crate::upkeep::x; }";
    let submodules = BTreeSet::from(["redis".to_owned()]);
    let written = paths(&Source { text: code(text), submodules });
    let shown: Vec<String> =
        written.iter().map(|path| format!("{} {}", path.segments.join("::"), path.public)).collect();
    assert_eq!(
        shown,
        [
            "redis::Client true",
            "redis::script true",
            "crate::domain::id::TaskId false",
            "crate::domain false",
            "super::b::c false"
        ]
    );
    assert!(root().join("src").is_dir());
}
