//! A client that records each call before it is sent, and each reply when it arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use slotwheel::domain::digest::Digest;
use slotwheel::domain::time::TimestampMs;

use super::producer::BUSY;
use super::recorder::Recorder;
use crate::history::event::{Answer, Call, Claimed, Event};
use crate::support::{self, contract, text};

/// Timeout of a reply, in addition to the wait that the request asks for.
const PATIENCE: Duration = Duration::from_secs(5);
/// One of this many successful replies is checked against the contract; all others are.
const LOOKED_AT: u64 = 25;

/// The reply, or a problem's code.
pub type Read = Result<Answer, String>;

/// Whether a problem with this code leaves the effect of the request open.
pub fn is_open(code: &str) -> bool {
    matches!(code, "unavailable" | "stopping" | "internal" | "store_full" | "none")
}

/// The outcome of a request.
pub enum Sent {
    Ok(Answer, Value),
    /// It had no effect.
    Refused,
    /// The effect is unknown.
    Unknown,
}

/// An operation, and the number of its requests.
#[derive(Clone, Copy)]
pub struct Op {
    number: u64,
    attempt: u32,
}

pub struct Client {
    pub name: String,
    pub rng: StdRng,
    pub recorder: Arc<Recorder>,
    pub servers: Vec<SocketAddr>,
    /// The queues that it claims from.
    pub queues: &'static [&'static str],
    http: reqwest::Client,
    ops: u64,
}

impl Client {
    /// The client's choices follow from the seed and its name.
    pub fn new(name: String, seed: u64, servers: &[SocketAddr], recorder: &Arc<Recorder>) -> Self {
        let own = Digest::of(&[&seed.to_be_bytes(), name.as_bytes()]);
        let rng = StdRng::seed_from_u64(u64::from_be_bytes(own.as_bytes()[..8].try_into().expect("eight bytes")));
        let http = reqwest::Client::builder().no_proxy().connect_timeout(PATIENCE).build().expect("a client");
        Client { name, rng, recorder: recorder.clone(), servers: servers.to_vec(), queues: &BUSY, http, ops: 0 }
    }

    pub fn begin(&mut self) -> Op {
        self.ops += 1;
        Op { number: self.ops, attempt: 0 }
    }

    /// Returns a unique name.
    pub fn unique(&self, op: Op, place: usize) -> String {
        format!("{}:{}:{place}", self.name, op.number)
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn any_server(&mut self) -> SocketAddr {
        self.servers[self.rng.random_range(0..self.servers.len())]
    }

    fn event(&self, op: Op) -> Event {
        Event { client: self.name.clone(), op: op.number, attempt: op.attempt, ..Event::default() }
    }

    /// Records the next request of the operation.
    pub fn invoke(&self, op: &mut Op, call: Call) {
        op.attempt += 1;
        self.recorder.write(Event { invoke: Some(call), ..self.event(*op) });
    }

    pub fn unknown(&self, op: Op, why: &str) {
        self.recorder.write(Event { unknown: Some(why.to_owned()), ..self.event(op) });
    }

    pub fn ok(&self, op: Op, answer: Answer) {
        self.recorder.write(Event { ok: Some(answer), ..self.event(op) });
    }

    /// Reads an existing resource from a random server; the history does not record it.
    pub async fn get(&mut self, path: &str) -> Value {
        let server = self.any_server();
        self.get_from(server, path).await
    }

    /// Reads an existing resource; the history does not record it.
    pub async fn get_from(&self, server: SocketAddr, path: &str) -> Value {
        self.exchange(server, &Request::get(path.into())).await.expect("an answer").expect(200)
    }

    /// Sends a request that must succeed; the history does not record it.
    pub async fn post(&mut self, path: &str, body: Value) -> Value {
        let server = self.any_server();
        let answer = self.exchange(server, &Request::post(path, body)).await.expect("an answer");
        assert!(answer.status < 300, "{}", answer.text);
        answer.json()
    }

    /// Sends one request to a random server. `read` converts the body of a successful reply to a recorded reply, or to
    /// the problem code in it.
    pub async fn send(&mut self, op: &mut Op, call: Call, request: Request, read: impl Fn(&Value) -> Read) -> Sent {
        let server = self.any_server();
        self.invoke(op, call);
        match self.exchange(server, &request).await {
            Err(why) => {
                self.unknown(*op, &why);
                Sent::Unknown
            }
            Ok(answer) if answer.status < 300 => {
                let body = answer.json();
                match read(&body) {
                    Ok(read) => {
                        self.ok(*op, read.clone());
                        Sent::Ok(read, body)
                    }
                    Err(code) => self.problem(*op, &request, code),
                }
            }
            Ok(answer) => {
                let code = answer.json()["code"].as_str().unwrap_or("none").to_owned();
                self.problem(*op, &request, code)
            }
        }
    }

    /// Classifies a problem: a rejection, or an unknown effect.
    fn problem(&self, op: Op, request: &Request, code: String) -> Sent {
        if code == "internal" {
            self.recorder.note_strange(format!("{} was answered with an internal problem", request.path));
        }
        if is_open(&code) {
            self.unknown(op, &code);
            return Sent::Unknown;
        }
        self.recorder.write(Event { fail: Some(code), ..self.event(op) });
        Sent::Refused
    }

    async fn exchange(&self, server: SocketAddr, request: &Request) -> Result<support::Answer, String> {
        let Request { method, path, body, key, wait_ms } = request;
        let mut sent = self.http.request(method.clone(), format!("http://{server}{path}"));
        sent = sent.timeout(PATIENCE + Duration::from_millis(*wait_ms));
        if let Some(key) = key {
            sent = sent.header("idempotency-key", key);
        }
        if let Some(body) = body {
            sent = sent.header("content-type", "application/json").body(body.to_string());
        }
        let response = sent.send().await.map_err(|error| error.to_string())?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.map_err(|error| error.to_string())?;
        let answer = support::Answer { status, headers, text };
        if status >= 300 || self.ops.is_multiple_of(LOOKED_AT) {
            contract::check(method.as_str(), path, &answer);
        }
        Ok(answer)
    }
}

/// A request.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    /// Idempotency-Key.
    pub key: Option<String>,
    pub wait_ms: u64,
}

impl Request {
    pub fn post(path: &str, body: Value) -> Self {
        Request { method: Method::POST, path: path.into(), body: Some(body), key: None, wait_ms: 0 }
    }

    pub fn post_nothing(path: String) -> Self {
        Request { method: Method::POST, path, body: None, key: None, wait_ms: 0 }
    }

    pub fn get(path: String) -> Self {
        Request { method: Method::GET, path, body: None, key: None, wait_ms: 0 }
    }

    pub fn waiting(self, wait_ms: u64) -> Self {
        Request { wait_ms, ..self }
    }

    pub fn keyed(self, key: Option<String>) -> Self {
        Request { key, ..self }
    }
}

/// A time of a reply, in ms.
pub fn time(value: &Value) -> Option<i64> {
    Some(TimestampMs::parse(value.as_str()?).expect("a time").0)
}

/// The digest of a token, so that a history grants no access to a lease.
pub fn digest(lease: &str) -> String {
    let digest = Digest::of(&[lease.as_bytes()]);
    digest.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tasks of a reply in the form of a history.
pub fn claimed(tasks: &Value) -> Vec<Claimed> {
    let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
    let claimed = tasks.iter().map(|task| Claimed {
        id: text(&task["id"]).into(),
        name: text(&task["payload"]["n"]).into(),
        token: digest(text(&task["lease"])),
        until: time(&task["lease_until"]).expect("a time"),
        attempt: number(&task["attempt"]),
    });
    claimed.collect()
}

pub fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().expect("a number")).expect("a small number")
}

/// A payload that contains the task's name.
pub fn payload(name: &str) -> Value {
    json!({"n": name})
}
