#!/usr/bin/env bash
# Two checkouts of one package with a common target directory: `cargo run` in the second one runs the first one's program.
#
# Seen with cargo 1.95.0. Cargo names the artifacts of a workspace member by the path relative to its workspace, so both
# checkouts have the same artifact and the same fingerprint. It decides by modification times whether the artifact is
# fresh. A source file of the second checkout that is older than the first checkout's build counts as built. A guess
# would be that the absolute path of the package, which is part of its package id, keeps the two apart.
#
# The same holds for a target directory that is copied with hard links: cargo rewrites fingerprints in place.
# Output seen: "first checkout" twice, and "Fresh" for the second checkout.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cargo --version

mkdir -p first/src
printf '[package]\nname = "probe"\nversion = "0.1.0"\nedition = "2021"\n' > first/Cargo.toml
echo 'fn main() { println!("first checkout"); }' > first/src/main.rs
cp -r first second
echo 'fn main() { println!("second checkout"); }' > second/src/main.rs
touch -d '1 hour ago' second/src/main.rs

export CARGO_TARGET_DIR=$dir/target
one=$(cd first && cargo run --quiet)
two=$(cd second && cargo run --quiet)
state=$(cd second && cargo build --verbose 2>&1 | grep -o -m 1 -w Fresh || true)
echo "first: $one; second: $two; state of the second: ${state:-rebuilt}"
[ "$one" = "first checkout" ] && [ "$two" = "first checkout" ] && [ "$state" = Fresh ] ||
  { echo "cargo behaves differently now" >&2; exit 1; }
