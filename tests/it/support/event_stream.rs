//! A client of `GET /events`: each event is checked against the contract.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Http, contract};

/// Longer than any wait in a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A stream of events.
pub struct Stream {
    body: UnsyncBoxBody<Bytes, String>,
    read: String,
    /// The id of the last event, as a client stores it.
    pub id: String,
    /// The number of cursors.
    pub places: usize,
}

impl Stream {
    fn of(body: UnsyncBoxBody<Bytes, String>) -> Self {
        Stream { body, read: String::new(), id: String::new(), places: 0 }
    }

    pub async fn open(http: &Http, query: &str) -> Self {
        Self::open_behind(http, query, "").await
    }

    /// Opens a stream after the event of this id, if it is not empty.
    pub async fn open_behind(http: &Http, query: &str, id: &str) -> Self {
        let url = format!("http://{}/events{query}", http.address);
        let answer = reqwest::Client::new().get(url).header("last-event-id", id).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        for (name, value) in
            [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
        {
            assert_eq!(answer.headers()[name], value);
        }
        let body = hyper::Response::<reqwest::Body>::from(answer).into_body();
        Self::of(body.map_err(|error| error.to_string()).boxed_unsync())
    }

    /// Returns the next block of lines; `None` at the end of the stream.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.read = rest;
                return Some(block);
            }
            let frame = self.body.frame().await?;
            let bytes = frame.expect("an unbroken stream").into_data().expect("data");
            self.read.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }

    /// Returns the id of the next event, which must be a cursor.
    pub async fn place(&mut self) -> String {
        let block = tokio::time::timeout(PATIENCE, self.block()).await.expect("a place in time").expect("a place");
        let (name, data) = self.parse(&block).expect("an event");
        assert_eq!((name.as_str(), data), ("cursor", json!({"cursor": self.id})), "{block}");
        self.id.clone()
    }

    /// Returns name and data of a block, and keeps its id; `None` if it has no data.
    fn parse(&mut self, block: &str) -> Option<(String, Value)> {
        let (mut name, mut data) = (None, None);
        for line in block.lines() {
            match line.split_once(':').expect("a field") {
                ("event", value) => name = Some(value.trim().to_owned()),
                ("id", value) => self.id = value.trim().to_owned(),
                ("data", value) => data = Some(serde_json::from_str::<Value>(value).expect("JSON")),
                ("retry", value) => assert!(value.trim().parse::<u32>().is_ok()),
                other => panic!("{other:?} is no field of an event"),
            }
        }
        let (name, data) = (name?, data?);
        contract::check_event(&name, &data);
        Some((name, data))
    }

    /// Returns the next event: its name and its data; `None` at the end of the stream.
    pub async fn event(&mut self) -> Option<(String, Value)> {
        tokio::time::timeout(PATIENCE, self.any_event()).await.expect("an event in time")
    }

    async fn any_event(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block().await?;
            // Clients drop a block without data, and its id.
            match self.parse(&block).expect("an event with data") {
                (name, _) if name == "cursor" => self.places += 1,
                event => return Some(event),
            }
        }
    }

    /// Returns the data of the next event, which must be a task event.
    pub async fn change(&mut self) -> Value {
        let (name, data) = self.event().await.expect("an event");
        assert_eq!(name, "task", "{data}");
        data
    }

    /// Asserts that the next event is this transition.
    pub async fn expect(&mut self, task: &Value, from: Value, state: Value) {
        let change = self.change().await;
        assert_eq!((&change["id"], &change["from"], &change["state"]), (&task["id"], &from, &state), "{change}");
    }

    /// Asserts that the next event is a gap of `count` events.
    pub async fn missed(&mut self, count: Value) {
        assert_eq!(self.event().await.expect("an event"), ("gap".into(), json!({"count": count})));
    }
}

/// Opens a stream over HTTP/2 with a receive window of `window` bytes; returns it with its connection task and the
/// request sender.
pub async fn narrow(
    http: &Http,
    window: u32,
) -> (Stream, JoinHandle<hyper::Result<()>>, http2::SendRequest<Empty<Bytes>>) {
    let stream = TcpStream::connect(http.address).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://{}/events", http.address)).body(Empty::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().map_err(|error| error.to_string()).boxed_unsync();
    (Stream::of(body), connection, sender)
}
