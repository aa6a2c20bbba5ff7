//! Floors and circles: a top module imports lower ones only, and no folder of `src` has modules that import one another
//! in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Crate, Module};
use super::{files, name};

/// The floor of a top module. Modules of one floor do not import one another, except that `config` reads `domain`.
fn floor(module: &str) -> Option<u8> {
    Some(match module {
        "domain" | "config" | "metrics" | "background" | "degradations" | "logging" => 0,
        "store" | "spans" | "http_server" => 1,
        "dispatch" | "upkeep" => 2,
        "api" => 3,
        "app" => 4,
        "cli" => 5,
        "main" => 6,
        _ => return None,
    })
}

#[test]
fn modules_import_only_lower_floors() {
    for import in Crate::read().imports() {
        let (Some(own), Some(other)) = (import.from.first(), import.to.first()) else { continue };
        let [own_floor, other_floor] =
            [own, other].map(|module| floor(module).unwrap_or_else(|| panic!("{module} has no floor")));
        let config_reads_domain = own == "config" && other == "domain";
        assert!(own == other || other_floor < own_floor || config_reads_domain, "{import:?}");
    }
}

#[test]
fn folders_have_no_import_circle() {
    let mut circles = Vec::new();
    for (folder, graph) in graphs() {
        circles.extend(circle(&graph).map(|circle| format!("src/{}: {}", folder.join("/"), circle.join(" -> "))));
    }
    assert!(circles.is_empty(), "import circles:\n{}", circles.join("\n"));
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// For each folder the imports between what lies directly in it: files, folders with all that they contain, and `mod`
/// for the folder's own `mod.rs`.
fn graphs() -> BTreeMap<Module, Graph> {
    let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
    for import in Crate::read().imports() {
        let common = import.from.iter().zip(&import.to).take_while(|(from, to)| from == to).count();
        let node = |module: &Module| module.get(common).cloned().unwrap_or_else(|| "mod".to_owned());
        let graph = graphs.entry(import.from[..common].to_vec()).or_default();
        graph.entry(node(&import.from)).or_default().insert(node(&import.to));
    }
    graphs
}

/// The shortest circle, if there is any.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    let shortest = |start: &String| {
        let mut paths = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while !paths.is_empty() {
            let mut longer = Vec::new();
            for path in paths {
                for next in graph.get(path.last()?).into_iter().flatten() {
                    let path: Vec<String> = path.iter().chain([next]).cloned().collect();
                    if next == start {
                        return Some(path);
                    }
                    if seen.insert(next.clone()) {
                        longer.push(path);
                    }
                }
            }
            paths = longer;
        }
        None
    };
    graph.keys().filter_map(shortest).min_by_key(Vec::len)
}

#[test]
fn external_libraries_are_used_by_one_floor_each() {
    for (library, folders) in [
        ("deadpool_redis", &["src/store"][..]),
        ("axum", &["src/api", "src/http_server"]),
        ("hyper", &["src/http_server", "src/cli.rs"]),
        ("clap", &["src/cli", "src/config"]),
        ("opentelemetry", &["src/spans"]),
    ] {
        for path in files("src", &["rs"]) {
            let shown = name(&path);
            let text = std::fs::read_to_string(&path).unwrap();
            let used = text.lines().any(|line| !line.contains("//") && line.contains(&format!("{library}::")));
            assert!(!used || folders.iter().any(|folder| shown.starts_with(folder)), "{shown} uses {library}");
        }
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
