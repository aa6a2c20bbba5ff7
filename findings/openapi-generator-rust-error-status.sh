#!/usr/bin/env bash
# A client of openapi-generator for Rust returns every error as its first one: a 409 is `Status400`.
#
# Seen with openapi-generator 7.26.0 and serde 1.0. The error of an operation is an enum with a variant for each status,
# and serde reads it untagged: the first variant whose type fits the body is taken, and the status plays no part. If the
# errors have one schema, as with RFC 9457, that is always the variant of the lowest status. A guess would be that
# `Status409` is a 409. The field `status` of the error response is right.
# Output seen: "a body of status 409 is Status400".
set -euo pipefail
command -v java > /dev/null || { echo "java is missing" >&2; exit 2; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cargo --version
python3 -m venv tools
tools/bin/pip install --quiet --disable-pip-version-check openapi-generator-cli==7.26.0

cat > contract.yaml << 'END'
openapi: 3.0.3
info: {title: probe, version: '1'}
paths:
  /first:
    get:
      operationId: first
      responses:
        '204': {description: Done.}
        '400': {$ref: '#/components/responses/Problem'}
        '409': {$ref: '#/components/responses/Problem'}
components:
  responses:
    Problem:
      description: A problem.
      content: {application/problem+json: {schema: {$ref: '#/components/schemas/Problem'}}}
  schemas:
    Problem: {type: object, required: [code], properties: {code: {type: string}}}
END
tools/bin/openapi-generator-cli generate -i contract.yaml -g rust -o client > log 2>&1

# The enum and its model alone, so that no HTTP client has to be compiled.
mkdir -p probe/src/models
cp client/src/models/problem.rs probe/src/models/
printf 'pub mod problem;\npub use problem::Problem;\n' > probe/src/models/mod.rs
{
  printf 'mod models;\nuse serde::{Deserialize, Serialize};\n'
  grep -B 2 -A 6 '^pub enum FirstError' client/src/apis/default_api.rs | sed '/^}/q'
  printf 'fn main() {\n    let error: FirstError = serde_json::from_str(r#"{"code": "conflict"}"#).unwrap();\n'
  printf '    println!("{}", format!("{error:?}").split(\x27(\x27).next().unwrap());\n}\n'
} > probe/src/main.rs
printf '[package]\nname = "probe"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nserde_json = "=1.0.151"\n' > probe/Cargo.toml
printf 'serde = { version = "1", features = ["derive"] }\n' >> probe/Cargo.toml
seen=$(cd probe && cargo run --quiet 2> ../build.log) || { cat build.log; exit 2; }
echo "a body of status 409 is $seen"
[ "$seen" = Status400 ] || { echo "openapi-generator behaves differently now" >&2; exit 1; }
