//! An HTTP client that checks every reply against the contract.

use std::net::SocketAddr;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::contract;

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Http {
    pub address: SocketAddr,
    client: reqwest::Client,
    /// Called with every reply; checks it against the contract unless a test measures time.
    pub check: fn(&str, &str, &Answer),
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// Returns the body; panics if the status is another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    pub fn json(&self) -> Value {
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text).unwrap_or_else(|_| Value::String(self.text.clone()))
    }

    /// Returns the problem's code and the pointer of its first error; panics if the status is another.
    #[track_caller]
    pub fn problem(&self, status: u16) -> (String, Option<String>) {
        let body = self.expect(status);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let pointer = body["errors"][0]["pointer"].as_str().map(str::to_owned);
        (body["code"].as_str().expect("a code").to_owned(), pointer)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a readable header"))
    }
}

impl Http {
    pub fn new(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Http { address, client, check: contract::check }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string()).await
    }

    /// Without a body.
    pub async fn post_nothing(&self, path: &str) -> Answer {
        self.send(Method::POST, path, &[], None).await
    }

    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, &[], body.as_bytes()).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send(Method::POST, path, &all, Some(body)).await
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut request = self.client.request(method.clone(), format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.expect("a body");
        let answer = Answer { status, headers, text };
        (self.check)(method.as_str(), path, &answer);
        answer
    }

    /// Whether `/readyz` succeeds.
    pub async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("http://{}/readyz", self.address)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}
