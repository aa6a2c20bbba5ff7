//! Checks replies against openapi.yaml.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::Answer;

/// The contract.
pub static CONTRACT: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(slotwheel::api::CONTRACT).expect("openapi.yaml is YAML"));

/// Its schemas, converted to JSON Schema.
static COMPONENTS: LazyLock<Value> = LazyLock::new(|| translated(&CONTRACT["components"]));

/// Converts OpenAPI 3.0 to JSON Schema, and closes what is open: a field that the contract does not have is a fault here,
/// although a client has to accept it.
fn translated(schema: &Value) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(translated).collect(),
        Value::Object(fields) => {
            let mut out: Map<String, Value> = Map::new();
            for (name, value) in fields {
                if name != "nullable" && name != "example" && name != "examples" {
                    out.insert(name.clone(), translated(value));
                }
            }
            if fields.get("additionalProperties") == Some(&json!(true)) {
                out.insert("additionalProperties".into(), json!(false));
            }
            if fields.get("nullable") == Some(&json!(true)) {
                if let Some(kind) = fields.get("type") {
                    out.insert("type".into(), json!([kind, "null"]));
                } else {
                    return json!({"anyOf": [out, {"type": "null"}]});
                }
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

/// The contract's path template that matches `path`.
fn template(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &&String| {
        let wanted: Vec<&str> = template.split('/').collect();
        wanted.len() == parts.len()
            && wanted.iter().zip(&parts).all(|(wanted, part)| wanted == part || wanted.starts_with('{'))
    };
    let paths = CONTRACT["paths"].as_object().expect("paths");
    // A template without a parameter takes precedence.
    let mut found: Vec<&String> = paths.keys().filter(fits).collect();
    found.sort_by_key(|template| template.contains('{'));
    found.first().map(|template| template.as_str())
}

/// Returns the node that `value` refers to, or `value` itself.
pub fn resolved(mut value: &'static Value) -> &'static Value {
    while let Some(reference) = value.get("$ref").and_then(Value::as_str) {
        value = CONTRACT.pointer(reference.trim_start_matches('#')).expect("a reference leads somewhere");
    }
    value
}

/// Panics unless the contract allows this reply.
#[track_caller]
pub fn check(method: &str, path: &str, answer: &Answer) {
    let Some(template) = template(path) else {
        assert_eq!(answer.status, 404, "{method} {path} is not in the contract and answers {}", answer.status);
        return;
    };
    let operation = &CONTRACT["paths"][template][method.to_lowercase()];
    if operation.is_null() {
        assert_eq!(answer.status, 405, "{method} {template} is not in the contract");
        return;
    }
    let exact = answer.status.to_string();
    let response = operation["responses"].get(&exact);
    let response = resolved(response.unwrap_or_else(|| panic!("{method} {template} has no answer {exact}")));
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        assert!(answer.text.is_empty(), "{method} {template} {exact} has no content");
        return;
    };
    let kind = answer.header("content-type").expect("a content type");
    let kind = kind.split(';').next().unwrap_or_default();
    let media = content.get(kind).unwrap_or_else(|| panic!("{method} {template} {exact} is not of {kind}"));
    if !kind.ends_with("json") {
        return;
    }
    for header in response.get("headers").and_then(Value::as_object).into_iter().flatten() {
        if resolved(header.1)["required"] == true {
            assert!(answer.headers.contains_key(header.0.as_str()), "{method} {template} lacks {}", header.0);
        }
    }
    validate(&format!("{method} {template} {exact}"), &media["schema"], &answer.json());
}

/// Panics unless the contract allows the data of this server-sent event.
#[track_caller]
pub fn check_event(name: &str, data: &Value) {
    let stream = &CONTRACT["paths"]["/events"]["get"]["responses"]["200"]["content"]["text/event-stream"];
    let schema = stream["x-events"].get(name).unwrap_or_else(|| panic!("{name} is not an event of the contract"));
    validate(&format!("the event {name}"), schema, data);
}

/// Panics unless `body` is as in `schema`. The schemas of one `name` must be equal.
#[track_caller]
pub fn validate(name: &str, schema: &Value, body: &Value) {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, Validator>>> = LazyLock::new(Mutex::default);
    let mut validators = VALIDATORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let validator = validators.entry(name.to_owned()).or_insert_with(|| {
        let whole = json!({"allOf": [translated(schema)], "components": *COMPONENTS});
        jsonschema::validator_for(&whole).expect("a schema")
    });
    let faults: Vec<String> =
        validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{name} is not as in the contract: {faults:#?}\n{body:#}");
}
