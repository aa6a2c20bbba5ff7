//! 16,000 long polls on one server that is a process of its own: what a waiter costs, and how fast it is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::median;
use crate::server::Server;
use crate::support::redis::OwnRedis;

const WAITERS: usize = 16_000;
const HAND_OUTS: usize = 1_000;
const IDLE: Duration = Duration::from_secs(20);

/// Waits again and again; tells of each answer when it came and whether there was a task in it.
async fn wait(address: SocketAddr, answers: Arc<mpsc::UnboundedSender<(Instant, bool)>>) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let body = json!({"queues": ["q"], "wait_ms": 60_000}).to_string();
    let request = format!(
        "POST /claim HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut buffer = vec![0; 2048];
    loop {
        if stream.write_all(request.as_bytes()).await.is_err() {
            return;
        }
        // An answer is far smaller than the buffer and comes in one piece.
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        let text = String::from_utf8_lossy(&buffer[..read]);
        if answers.send((Instant::now(), text.contains("\"lease\""))).is_err() || text.contains("onnection: close") {
            return;
        }
    }
}

pub async fn measure() {
    let redis = OwnRedis::single(&[]).await;
    let mut server = Server::start(&redis, &[]).await;
    let before = server.memory();
    let (answers, mut heard) = mpsc::unbounded_channel();
    let answers = Arc::new(answers);
    for _ in 0..WAITERS {
        tokio::spawn(wait(server.http.address, answers.clone()));
    }
    while server.waiting().await < WAITERS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let memory = (server.memory() - before) / WAITERS as f64 / 1024.0;
    println!("{WAITERS} waiting claims: {memory:.1} KB of the server's memory each");

    let used = server.processor();
    tokio::time::sleep(IDLE).await;
    let used = (server.processor() - used) / IDLE.as_secs_f64() * 100.0;
    println!("  while nothing happens for {} s: {used:.2} % of a processor", IDLE.as_secs());

    let mut taken: Vec<f64> = Vec::new();
    for number in 0..HAND_OUTS {
        let sent = Instant::now();
        let task: Value = server.http.post("/tasks", &json!({"queue": "q", "payload": number})).await.expect(201);
        assert!(task["id"].is_string());
        let at = loop {
            // Polls that have ended with nothing wait again by themselves.
            let (at, with_task) = heard.recv().await.expect("an answer");
            if with_task {
                break at;
            }
        };
        taken.push(at.duration_since(sent).as_secs_f64() * 1000.0);
    }
    let middle = median(&mut taken);
    let p99 = taken[HAND_OUTS * 99 / 100];
    println!(
        "  from sending a submit to one of them holding the task, {HAND_OUTS} times: p50 {middle:.2} ms, p99 {p99:.2} ms"
    );

    while server.waiting().await < WAITERS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while heard.try_recv().is_ok() {}
    drop(answers);
    let told = Instant::now();
    server.signal("-TERM");
    let (mut answered, mut last) = (0, told);
    while let Some((at, _)) = heard.recv().await {
        answered += 1;
        last = last.max(at);
    }
    let ended = server.child.wait().unwrap();
    println!(
        "  told to stop, it answers {answered} of them within {:.0} ms and has ended after {:.0} ms ({ended})",
        last.duration_since(told).as_secs_f64() * 1000.0,
        told.elapsed().as_secs_f64() * 1000.0
    );
    drop(redis);
}
