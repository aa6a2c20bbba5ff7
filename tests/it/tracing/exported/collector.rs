//! A collector of spans for tests: it accepts OTLP as protobuf over HTTP and decodes the fields that tests need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A span received.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: Value,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub state: String,
    pub name: String,
    pub kind: u64,
    /// Nanoseconds.
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, Value>,
    /// 2 is an error.
    pub status: u64,
}

/// Listens until the test's runtime ends.
pub struct Collector {
    pub endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let came = spans.clone();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            came.lock().unwrap().extend(read(&body));
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async { axum::serve(listener, router).await });
        Collector { endpoint, spans }
    }

    /// The spans so far, by start, then by length.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.lock().unwrap().clone();
        spans.sort_by_key(|span| (span.start, span.end));
        spans
    }
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(&self) -> &'a [u8] {
        let Field::Bytes(bytes) = self else { panic!("a number where bytes should be") };
        bytes
    }

    fn number(&self) -> u64 {
        let Field::Number(number) = self else { panic!("bytes where a number should be") };
        *number
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("UTF-8")
    }

    fn hex(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a varint ends");
        *bytes = rest;
        number |= u64::from(first & 127) << shift;
        if first & 128 == 0 {
            return number;
        }
    }
    panic!("a varint is too long");
}

/// The fields of a message, with their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => 0,
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (taken, rest) = bytes.split_at(length);
        bytes = rest;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => Field::Bytes(taken),
            // Little-endian.
            _ => Field::Number(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))),
        };
        found.push((tag >> 3, field));
    }
    found
}

/// The messages of a repeated field.
fn messages(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).into_iter().filter(move |(of, _)| *of == number).map(|(_, field)| field.bytes())
}

/// The attributes of a repeated field.
fn attributes(message: &[u8], number: u64) -> BTreeMap<String, Value> {
    let pair = |pair: &[u8]| {
        let (mut key, mut value) = (String::new(), Value::Null);
        for (number, field) in fields(pair) {
            match number {
                1 => key = field.text(),
                _ => {
                    value = fields(field.bytes()).first().map_or(json!(""), |(kind, field)| match kind {
                        1 => json!(field.text()),
                        3 => json!(field.number()),
                        other => panic!("an attribute of kind {other}"),
                    });
                }
            }
        }
        (key, value)
    };
    messages(message, number).map(pair).collect()
}

fn read(request: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for resource_spans in messages(request, 1) {
        let resource = messages(resource_spans, 1).next().expect("a resource");
        let service = attributes(resource, 1)["service.name"].clone();
        for span in messages(resource_spans, 2).flat_map(|scope_spans| messages(scope_spans, 2)) {
            found.push(one(service.clone(), span));
        }
    }
    found
}

fn one(service: Value, message: &[u8]) -> Span {
    let mut span = Span {
        service,
        trace: String::new(),
        id: String::new(),
        parent: String::new(),
        state: String::new(),
        name: String::new(),
        kind: 0,
        start: 0,
        end: 0,
        attributes: attributes(message, 9),
        status: 0,
    };
    for (number, field) in fields(message) {
        match number {
            1 => span.trace = field.hex(),
            2 => span.id = field.hex(),
            3 => span.state = field.text(),
            4 => span.parent = field.hex(),
            5 => span.name = field.text(),
            6 => span.kind = field.number(),
            7 => span.start = field.number(),
            8 => span.end = field.number(),
            15 => {
                let status = fields(field.bytes());
                span.status = status.iter().find(|(of, _)| *of == 3).map_or(0, |(_, code)| code.number());
            }
            _ => {}
        }
    }
    span
}
