//! The form of openapi.yaml that generators of clients can read: open responses, closed requests, one schema per status,
//! and nothing that only some of them support. `make sdk-check` shows that it suffices.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::contract::{CONTRACT, resolved, validate};
use crate::support::text;

/// A node of the contract and the path to it.
type Node = (String, &'static Value);

/// All operations, by their operationId.
fn operations() -> BTreeMap<&'static str, (&'static str, &'static Value)> {
    let mut all = BTreeMap::new();
    for operations in CONTRACT["paths"].as_object().unwrap().values() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let before = all.insert(text(&operation["operationId"]), (method.as_str(), operation));
            assert!(before.is_none(), "two operations have the id {}", operation["operationId"]);
        }
    }
    all
}

/// The bodies of a request or a response: each media type with its schema.
fn bodies(carrier: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    let content = resolved(carrier)["content"].as_object();
    content.into_iter().flatten().map(|(kind, media)| (kind.as_str(), media))
}

/// Every schema that a body with one of `roots` consists of, references followed, each named component once.
fn schemas(roots: impl IntoIterator<Item = Node>) -> Vec<Node> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<Node> = roots.into_iter().collect();
    let mut found = Vec::new();
    while let Some((path, node)) = open.pop() {
        if let Some(target) = node["$ref"].as_str() {
            if seen.insert(target) {
                open.push((target.to_owned(), resolved(node)));
            }
            continue;
        }
        let fields = node["properties"].as_object().into_iter().flatten();
        open.extend(fields.map(|(name, field)| (format!("{path}/{name}"), field)));
        let parts = node["allOf"].as_array().into_iter().flatten();
        open.extend(parts.map(|part| (path.clone(), part)));
        for name in ["items", "additionalProperties"] {
            if let Some(inner) = node.get(name).filter(|inner| inner.is_object()) {
                open.push((format!("{path}/{name}"), inner));
            }
        }
        found.push((path, node));
    }
    found
}

fn request_schemas() -> Vec<Node> {
    let bodies = operations().into_iter().flat_map(|(id, (_, operation))| {
        bodies(&operation["requestBody"]).map(move |(_, media)| (id.to_owned(), &media["schema"]))
    });
    let parameters = CONTRACT["components"]["parameters"].as_object().unwrap().iter();
    let parameters = parameters.map(|(name, parameter)| (name.clone(), &parameter["schema"]));
    let own = operations().into_iter().flat_map(|(id, (_, operation))| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.map(move |parameter| (id.to_owned(), &resolved(parameter)["schema"]))
    });
    schemas(bodies.chain(parameters).chain(own).collect::<Vec<_>>())
}

fn response_schemas() -> Vec<Node> {
    let events = &CONTRACT["paths"]["/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]["x-events"];
    let events = events.as_object().unwrap().iter().map(|(name, schema)| (name.clone(), schema));
    let bodies = operations().into_iter().flat_map(|(id, (_, operation))| {
        let responses = operation["responses"].as_object().unwrap().iter();
        responses.flat_map(move |(status, response)| {
            bodies(response).map(move |(_, media)| (format!("{id} {status}"), &media["schema"]))
        })
    });
    schemas(bodies.chain(events).collect::<Vec<_>>())
}

#[test]
fn response_objects_are_open_and_their_values_unbounded() {
    let responses = response_schemas();
    assert!(responses.len() > 200, "{}", responses.len());
    for (path, schema) in responses {
        if schema["type"] == "object" {
            let rest = &schema["additionalProperties"];
            assert!(rest == &Value::Bool(true) || rest.is_object(), "{path} is not open");
        }
        // A later version may add values and raise limits. A lower bound is a fact, such as that no count is negative.
        for name in ["enum", "maximum", "maxLength", "maxItems", "maxProperties", "pattern", "default"] {
            assert!(schema.get(name).is_none(), "{path} has {name}");
        }
    }
}

#[test]
fn request_objects_are_closed_and_have_no_defaults() {
    let requests = request_schemas();
    assert!(requests.len() > 60, "{}", requests.len());
    for (path, schema) in requests {
        if schema["type"] == "object" {
            let rest = &schema["additionalProperties"];
            assert!(rest == &Value::Bool(false) || rest.is_object(), "{path} is not closed");
        }
        assert!(schema.get("default").is_none(), "{path} has a default; write it in the description: Default VALUE.");
        assert!(schema.get("nullable").is_none(), "{path} is nullable");
    }
}

#[test]
fn contract_has_no_aliases_and_no_alternatives() {
    for line in slotwheel::api::CONTRACT.lines().filter(|line| !line.trim_start().starts_with("**")) {
        let start = line.trim_start().trim_start_matches("- ");
        let value = start.split_once(": ").map_or(start, |(_, value)| value);
        assert!(!value.starts_with(['&', '*']) && !start.starts_with(['&', '*', '<']), "{line}");
        assert!(!["oneOf:", "anyOf:", "not:"].contains(&start), "{line}");
    }
}

#[test]
fn errors_are_listed_by_status_with_the_schema_of_a_problem() {
    for (id, (method, operation)) in operations() {
        let responses = operation["responses"].as_object().unwrap();
        for (status, response) in responses {
            assert!(status.parse::<u16>().is_ok(), "{id}: many generators ignore the range {status}");
            if status.starts_with('2') {
                continue;
            }
            let bodies: Vec<_> = bodies(response).map(|(kind, media)| (kind, text(&media["schema"]["$ref"]))).collect();
            assert_eq!(bodies, [("application/problem+json", "#/components/schemas/Problem")], "{id} {status}");
        }
        let mut expected = vec!["400", "408", "431", "500", "503"];
        if method != "get" {
            expected.push("403");
        }
        if operation.get("requestBody").is_some() {
            expected.extend(["413", "415", "422"]);
        }
        for status in expected {
            assert!(responses.contains_key(status), "{id} lacks {status}");
        }
    }
}

#[test]
fn operation_ids_collide_with_no_schema() {
    let schemas = CONTRACT["components"]["schemas"].as_object().unwrap();
    for id in operations().into_keys() {
        let (first, rest) = id.split_at(1);
        let pascal = first.to_uppercase() + rest;
        // Generators name the parameters, bodies and responses of an operation by these endings.
        for ending in
            ["", "Request", "RequestBody", "Body", "JSONBody", "Params", "Response", "Result", "Res", "Req", "Error"]
        {
            assert!(!schemas.contains_key(&format!("{pascal}{ending}")), "{id} collides with {pascal}{ending}");
        }
    }
    for kind in ["responses", "parameters", "examples", "headers"] {
        for name in CONTRACT["components"][kind].as_object().unwrap().keys().filter(|_| kind != "examples") {
            assert!(!schemas.contains_key(name), "{kind}/{name} has the name of a schema");
        }
    }
}

#[test]
fn links_name_operations_and_their_bodies_are_json_texts() {
    let operations = operations();
    let mut bodies = 0;
    for (_, operation) in operations.values() {
        for response in operation["responses"].as_object().unwrap().values() {
            for (name, link) in resolved(response)["links"].as_object().into_iter().flatten() {
                assert!(operations.contains_key(text(&link["operationId"])), "{name}");
                if let Some(body) = link.get("requestBody") {
                    serde_json::from_str::<Value>(text(body)).expect("JSON in a string");
                    bodies += 1;
                }
            }
        }
    }
    assert!(bodies > 5);
}

#[test]
fn fields_of_several_schemas_are_the_same() {
    let schemas = &CONTRACT["components"]["schemas"];
    // The state of a submitted task is null if the task has been deleted; a claimed task has a lease.
    let families: [(&[&str], &[&str]); 2] = [
        (&["Task", "SubmittedTask", "ClaimedTask"], &["state", "lease_until"]),
        (&["SubmitRequest", "SubmitBatchItem"], &[]),
    ];
    for (names, except) in families {
        let first = schemas[names[0]]["properties"].as_object().unwrap();
        for name in &names[1..] {
            let shared = schemas[name]["properties"].as_object().unwrap().iter();
            let shared: Vec<_> = shared.filter(|(field, _)| first.contains_key(*field)).collect();
            assert!(shared.len() > 10, "{name}");
            for (field, schema) in shared.into_iter().filter(|(field, _)| !except.contains(&field.as_str())) {
                assert_eq!(schema, &first[field], "{field} of {name} and of {}", names[0]);
            }
        }
    }
}

#[test]
fn examples_are_as_their_schemas() {
    let mut checked = 0;
    for (id, (_, operation)) in operations() {
        let responses = operation["responses"].as_object().unwrap().values();
        for carrier in responses.chain(operation.get("requestBody")) {
            for (_, media) in bodies(carrier) {
                let named = media["examples"].as_object().into_iter().flatten();
                let named = named.map(|(_, example)| &resolved(example)["value"]);
                for example in named.chain(media.get("example")) {
                    checked += 1;
                    validate(&format!("the example {checked} of {id}"), &media["schema"], example);
                }
            }
        }
    }
    assert!(checked > 100, "{checked}");
}
