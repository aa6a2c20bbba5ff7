//! openapi.yaml agrees with the routes, problem codes and bounds of the code, and has the form that generators read.

mod form;

use std::collections::BTreeSet;

use slotwheel::api::{problem::Code, route_table};

use crate::support::contract::CONTRACT;
use crate::support::{Fixture, text};

#[test]
fn contract_has_exactly_the_routes_of_the_router() {
    let built: BTreeSet<(String, String)> = route_table()
        .into_iter()
        // An asset of the page for the contract.
        .filter(|(_, path, _)| *path != "/docs/rapidoc.js")
        .map(|(method, path, _)| (method.as_str().to_lowercase(), path.to_owned()))
        .collect();
    let mut written = BTreeSet::new();
    for (path, operations) in CONTRACT["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            written.insert((method.clone(), path.clone()));
        }
    }
    assert_eq!(built, written);
}

#[test]
fn problem_codes_are_in_the_contract_with_their_status() {
    for code in Code::ALL {
        let row = slotwheel::api::CONTRACT.lines().find(|line| line.contains(&format!("| `{}` |", code.as_str())));
        let row = row.unwrap_or_else(|| panic!("{} is not in the contract", code.as_str()));
        assert!(row.contains(code.status().as_str()), "{row}");
    }
}

#[test]
fn contract_bounds_and_defaults_are_those_of_the_code() {
    use slotwheel::domain::limits::{self, ValueRange};
    let submit = &CONTRACT["components"]["schemas"]["SubmitRequest"]["properties"];
    let claim = &CONTRACT["components"]["schemas"]["ClaimRequest"]["properties"];
    let check = |properties: &serde_json::Value, name: &str, ValueRange { min, max, .. }: ValueRange| {
        let mut field = &properties[name];
        if let Some(reference) = field["$ref"].as_str() {
            field = CONTRACT.pointer(reference.trim_start_matches('#')).unwrap();
        }
        assert_eq!((field["minimum"].as_i64(), field["maximum"].as_i64()), (Some(min), Some(max)), "{name}");
    };
    for (name, bound) in [
        ("priority", limits::PRIORITY),
        ("delay_ms", limits::DELAY_MS),
        ("expires_in_ms", limits::EXPIRES_IN_MS),
        ("max_attempts", limits::MAX_ATTEMPTS),
        ("max_acquired", limits::MAX_ACQUIRED),
        ("max_run_ms", limits::MAX_RUN_MS),
        ("retain_ms", limits::RETAIN_MS),
    ] {
        check(submit, name, bound);
    }
    for (name, bound) in [("max", limits::CLAIM_TASKS), ("wait_ms", limits::WAIT_MS), ("lease_ms", limits::LEASE_MS)] {
        check(claim, name, bound);
        let default = format!("Default {}.", bound.default);
        assert!(text(&claim[name]["description"]).trim().ends_with(&default), "{name}: {default}");
    }
}

#[tokio::test]
async fn contract_and_its_page_are_served_without_external_resources() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.http.get("/openapi.yaml").await.text, slotwheel::api::CONTRACT);
    let page = fixture.http.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "an outside asset");
    // The contract names the default address; the page sends its requests to its own server.
    assert!(page.text.contains(r#"server-url="/" default-api-server="/""#));
    let script = reqwest::get(format!("http://{}/docs/rapidoc.js", fixture.http.address)).await.unwrap();
    assert_eq!(script.headers()["content-type"], "text/javascript");
    fixture.end().await;
}
