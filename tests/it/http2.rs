//! HTTP/2 with prior knowledge, and its limits. The tests write the frames that no client library would send.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use slotwheel::config::RawLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Fixture;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM_AND_HEADERS: u8 = 5;
/// The HPACK block of GET, http, / and a host.
const GET: &[u8] = b"\x82\x86\x84\x41\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns a connection over which SETTINGS has been sent.
async fn connect(fixture: &Fixture) -> TcpStream {
    let mut stream = TcpStream::connect(fixture.http.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    stream
}

/// Reads to the end. Returns the type and the payload of each frame.
async fn frames(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    // A reset is an end too.
    let _ = read.expect("an end in time");
    let (mut found, mut rest) = (Vec::new(), &bytes[..]);
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let end = (9 + length).min(rest.len());
        found.push((rest[3], rest[9..end].to_vec()));
        rest = &rest[end..];
    }
    found
}

/// Returns the error code of the last GOAWAY.
fn goaway_code(frames: &[(u8, Vec<u8>)]) -> Option<u32> {
    let (_, payload) = frames.iter().rev().find(|(kind, _)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
}

async fn client<B>(fixture: &Fixture) -> http2::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(fixture.http.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request<B>(fixture: &Fixture, path: &str, body: B) -> hyper::Request<B> {
    let url = format!("http://{}{path}", fixture.http.address);
    hyper::Request::post(url).header("content-type", "application/json").body(body).unwrap()
}

async fn read(answer: hyper::Response<hyper::body::Incoming>) -> (u16, Value) {
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn task_goes_from_submit_to_end_over_one_http2_connection() {
    let fixture = Fixture::start().await;
    let mut sender = client::<Full<Bytes>>(&fixture).await;
    let mut post = async |path: &str, body: Value| {
        read(sender.send_request(request(&fixture, path, Full::from(body.to_string()))).await.unwrap()).await
    };
    let large = "x".repeat(250_000);
    assert_eq!(post("/tasks", json!({"payload": large})).await.0, 201);
    let (_, claimed) = post("/claim", json!({})).await;
    assert_eq!(claimed["tasks"][0]["payload"], large.as_str());
    assert_eq!(post("/complete", crate::support::report(&claimed["tasks"][0])).await.0, 200);
    fixture.end().await;
}

#[tokio::test]
async fn client_that_resets_every_stream_gets_goaway() {
    let fixture = Fixture::start().await;
    let mut stream = connect(&fixture).await;
    let mut resets = Vec::new();
    for number in 0..5000 {
        resets.extend(frame(HEADERS, END_STREAM_AND_HEADERS, 2 * number + 1, GET));
        resets.extend(frame(RST_STREAM, 0, 2 * number + 1, &8u32.to_be_bytes()));
    }
    // The server may close before all frames are sent.
    let _ = stream.write_all(&resets).await;
    let received = frames(&mut stream).await;
    assert_eq!(goaway_code(&received), Some(11), "ENHANCE_YOUR_CALM: {received:?}");
    fixture.submit("q", json!(1)).await;
    fixture.end().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_the_others_answered() {
    let limits = RawLimits { http2_max_streams: Some(2), idle_timeout_ms: Some(1500), ..RawLimits::default() };
    let fixture = Fixture::with(|written| written.limits = limits).await;
    let mut stream = connect(&fixture).await;
    let mut all = Vec::new();
    for number in 0..3 {
        // Its body is missing, so each stream is open when the next one arrives.
        all.extend(frame(HEADERS, 4, 2 * number + 1, b"\x83\x86\x84\x41\x01x"));
    }
    stream.write_all(&all).await.unwrap();
    let received = frames(&mut stream).await;
    let refused = received.iter().filter(|(kind, payload)| *kind == RST_STREAM && payload[3] == 7).count();
    let answered = received.iter().filter(|(kind, _)| *kind == HEADERS).count();
    assert_eq!((refused, answered), (1, 2), "{received:?}");
    assert_eq!(goaway_code(&received), Some(0), "NO_ERROR after the idle timeout");
    fixture.end().await;
}

#[tokio::test]
async fn headers_beyond_the_limit_are_rejected() {
    let fixture = Fixture::start().await;
    let mut sender = client::<Full<Bytes>>(&fixture).await;
    let mut large = request(&fixture, "/tasks", Full::from("{}"));
    for number in 0..10 {
        large.headers_mut().insert(
            hyper::header::HeaderName::try_from(format!("x-{number}")).unwrap(),
            "x".repeat(4000).parse().unwrap(),
        );
    }
    match sender.send_request(large).await {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => panic!("{error}"),
    }
    let answer = sender.send_request(request(&fixture, "/tasks", Full::from("{}"))).await.unwrap();
    assert_eq!(answer.status(), 201);
    fixture.end().await;
}

#[tokio::test]
async fn http2_connection_without_a_request_is_closed() {
    let limits = RawLimits { head_timeout_ms: Some(300), ..RawLimits::default() };
    let fixture = Fixture::with(|written| written.limits = limits).await;
    let mut stream = connect(&fixture).await;
    let started_at = std::time::Instant::now();
    let received = frames(&mut stream).await;
    assert!(started_at.elapsed() >= Duration::from_millis(300));
    assert!(received.iter().all(|(kind, _)| matches!(*kind, SETTINGS | 6 | GOAWAY | 8)), "no response: {received:?}");
    fixture.end().await;
}

#[tokio::test]
async fn slow_body_gets_408_and_other_streams_are_not_delayed() {
    let limits = RawLimits { body_timeout_ms: Some(500), ..RawLimits::default() };
    let fixture = Fixture::with(|written| written.limits = limits).await;
    type Body = StreamBody<futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, std::convert::Infallible>>>;
    let mut sender = client::<Body>(&fixture).await;
    let endless = || StreamBody::new(Box::pin(futures_util::stream::pending()) as _);
    let slow = tokio::spawn(sender.send_request(request(&fixture, "/tasks", endless())));
    let whole = futures_util::stream::once(async { Ok(Frame::data(Bytes::from("{}"))) });
    let quick = sender.send_request(request(&fixture, "/tasks", StreamBody::new(Box::pin(whole) as _))).await.unwrap();
    assert_eq!(quick.status(), 201);
    let (status, problem) = read(slow.await.unwrap().unwrap()).await;
    assert_eq!((status, &problem["code"]), (408, &json!("request_timeout")));
    fixture.end().await;
}

#[tokio::test]
async fn connection_that_opens_no_window_for_its_response_is_closed() {
    let limits = RawLimits { write_timeout_ms: Some(500), ..RawLimits::default() };
    let fixture = Fixture::with(|written| written.limits = limits).await;
    let mut stream = TcpStream::connect(fixture.http.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    stream.write_all(&frame(HEADERS, END_STREAM_AND_HEADERS, 1, GET)).await.unwrap();
    let started_at = std::time::Instant::now();
    frames(&mut stream).await;
    assert!(
        (Duration::from_millis(500)..Duration::from_secs(6)).contains(&started_at.elapsed()),
        "{:?}",
        started_at.elapsed()
    );
    fixture.end().await;
}
