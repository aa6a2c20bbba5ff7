//! Documents that refer to code: guarantees name their tests, mutants apply, the README begins with two commands.

use std::path::{Path, PathBuf};

use super::{files, name, root};

#[test]
fn guarantees_name_existing_tests() {
    let guarantees = std::fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let tests = files("tests/it", &["rs"]);
    let mut named = 0;
    for name in guarantees.split('`').skip(1).step_by(2).filter(|code| code.contains("::")) {
        let (module, test) = name.split_once("::").unwrap();
        let of_module = |path: &&PathBuf| {
            let inside = path.strip_prefix(root().join("tests/it")).unwrap();
            inside.with_extension("") == Path::new(module) || inside.starts_with(module)
        };
        let defines = |path: &PathBuf| std::fs::read_to_string(path).unwrap().contains(&format!("fn {test}("));
        assert!(tests.iter().filter(of_module).any(defines), "{name} is no test");
        named += 1;
    }
    // A guarantee without a test would be a wish.
    let promised = guarantees.split("## Not promised").next().unwrap();
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

#[test]
fn generators_in_the_documents_have_the_versions_that_are_checked() {
    let run = std::fs::read_to_string(root().join("sdk-check/run")).unwrap();
    let clients = std::fs::read_to_string(root().join("docs/clients.md")).unwrap();
    let pins = ["OPENAPI_GENERATOR", "OPENAPI_PYTHON_CLIENT", "OAPI_CODEGEN", "OGEN", "PROGENITOR"];
    for pin in pins {
        let value = run.lines().find_map(|line| line.strip_prefix(&format!("{pin} = "))).expect(pin);
        let version = value.trim_matches('"').rsplit(['@', '=']).next().unwrap().trim_start_matches('v');
        let name = pin.to_lowercase().replace('_', "-");
        assert!(clients.contains(&format!("{name} {version}")), "docs/clients.md does not name {name} {version}");
    }
}
