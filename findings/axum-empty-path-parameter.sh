#!/usr/bin/env bash
# A path parameter of axum may be empty in the middle of a path, and may not be empty at its end.
#
# Seen with axum 0.8.9 and matchit 0.8.4, its matcher. The route `/a/{id}` does not match `/a/`, so a guess would be that a
# parameter takes at least one character. But `/a/{id}/b` matches `/a//b`, and its handler gets an empty id; so does
# `/c/{x}/{y}/d` for `/c///d`. A router that replaces axum's has to decide the two cases apart, and a handler that takes
# an id from the middle of a path has to reject the empty one itself.
#
# Output seen: /a/ 404, /a/1 200, /a//b 200 with "", /c/1//d 200 with "1" and "", /c///d 200 with "" and "".
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cargo --version

mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "probe"
version = "0.1.0"
edition = "2021"

[dependencies]
axum = { version = "=0.8.9", default-features = false }
matchit = "=0.8.4"
tokio = { version = "1", features = ["macros", "rt"] }
tower = { version = "0.5", features = ["util"] }
TOML
cat > src/main.rs <<'RUST'
use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::http::Request;
use axum::{Router, routing::get};
use tower::ServiceExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let app = Router::new()
        .route("/a/{id}", get(|Path(id): Path<String>| async move { format!("{id:?}") }))
        .route("/a/{id}/b", get(|Path(id): Path<String>| async move { format!("{id:?}") }))
        .route("/c/{x}/{y}/d", get(|Path(ids): Path<(String, String)>| async move { format!("{ids:?}") }));
    for path in ["/a/", "/a/1", "/a//b", "/c/1//d", "/c///d"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1000).await.unwrap();
        println!("{path} {status} {}", String::from_utf8_lossy(&body));
    }
}
RUST
seen=$(cargo run --quiet)
echo "$seen"
expected='/a/ 404 
/a/1 200 "1"
/a//b 200 ""
/c/1//d 200 ("1", "")
/c///d 200 ("", "")'
[ "$seen" = "$expected" ] || { echo "axum behaves differently now" >&2; exit 1; }
