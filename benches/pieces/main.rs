//! Benchmarks of single steps of a request in this process: `make pieces`.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rmp::encode::{write_array_len, write_sint, write_str_len};
use slotwheel::api::pieces as api;
use slotwheel::dispatch::pieces::WaiterCrowd;
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::QueueName;
use slotwheel::domain::slot::{Shards, Slot};
use slotwheel::domain::token::Token;
use slotwheel::store::pieces as store;

/// The same allocator as the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A timestamp, ms.
const NOW: i64 = 1_700_000_000_000;
/// Tasks per call.
const BATCH: usize = 100;

/// Returns a JSON object of about `bytes` bytes, mostly of short strings.
fn payload(bytes: usize) -> String {
    let items: Vec<String> = (0..(bytes / 20).max(1)).map(|number| format!("\"{number:017}\"")).collect();
    format!("{{\"items\":[{}]}}", items.join(","))
}

fn submit(payload_bytes: usize) -> String {
    let payload = payload(payload_bytes);
    format!(r#"{{"queue":"mail","key":"customer-4711","priority":5,"tags":["blue"],"payload":{payload}}}"#)
}

fn shards() -> Shards {
    Shards::new(16).unwrap()
}

fn json(criterion: &mut Criterion) {
    for (name, bytes) in [("100 B", 100), ("10 KB", 10_000)] {
        let mut group = criterion.benchmark_group("json");
        let text = submit(bytes);
        let body = api::Body::of(text.as_bytes()).unwrap();
        let task = api::stored(body.task(shards()).unwrap());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("scan a submit of {name}"), |bench| {
            bench.iter(|| api::scan(black_box(text.as_bytes())));
        });
        group.bench_function(format!("parse a submit of {name}"), |bench| bench.iter(|| body.task(shards())));
        group.bench_function(format!("answer a submit of {name}"), |bench| bench.iter(|| api::submitted(&task)));
    }
}

fn slot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slot");
    for (name, key) in [("13 B", "customer-4711".to_owned()), ("256 B", "k".repeat(256))] {
        group.bench_function(format!("of a key of {name}"), |bench| {
            bench.iter(|| Slot::of_key(black_box(key.as_bytes())));
        });
    }
}

/// Encoder of a script's reply.
#[derive(Default)]
struct PackedReply(Vec<u8>);

impl PackedReply {
    fn list(&mut self, length: usize) -> &mut Self {
        write_array_len(&mut self.0, length as u32).unwrap();
        self
    }

    fn int(&mut self, number: i64) -> &mut Self {
        write_sint(&mut self.0, number).unwrap();
        self
    }

    fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        write_str_len(&mut self.0, text.as_ref().len() as u32).unwrap();
        self.0.extend_from_slice(text.as_ref());
        self
    }
}

fn submit_answer(count: usize) -> Vec<u8> {
    let mut packed = PackedReply::default();
    packed.list(count);
    for _ in 0..count {
        packed.list(5).text("created").text("ready").int(NOW).text("").text("");
    }
    packed.0
}

/// Returns the reply to one waiter that receives all tasks, with payloads of about 100 bytes.
fn claim_answer(count: usize) -> Vec<u8> {
    let (mut packed, document) = (PackedReply::default(), format!("1{}", payload(100)));
    packed.list(4).int(0).int(0).list(count);
    for place in 1..=count as i64 {
        let id = TaskId::from_bytes(&[7; 16]).unwrap();
        packed.list(13).int(1).int(place).text(id.as_bytes()).int(NOW + 30_000).int(1);
        packed.int(4711).int(4).text(&document).text("0").text("5").text("").text(NOW.to_string()).text("");
    }
    packed.list(1).list(2).int(1).int(4);
    packed.0
}

fn replies(criterion: &mut Criterion) {
    let queues = [QueueName::parse("mail").unwrap()];
    let tokens: Vec<Token> = (0..BATCH as u128).map(Token::new).collect();
    let mut group = criterion.benchmark_group("reply");
    for count in [1, BATCH] {
        let (submits, claims) = (submit_answer(count), claim_answer(count));
        group.bench_function(format!("unpack and read a submit of {count}"), |bench| {
            bench.iter_batched(|| submits.clone(), |packed| store::decode_submit(packed, count), BatchSize::SmallInput);
        });
        group.bench_function(format!("unpack a claim of {count}"), |bench| {
            bench.iter_batched(|| claims.clone(), store::decode_msgpack, BatchSize::SmallInput);
        });
        group.bench_function(format!("unpack and read a claim of {count}"), |bench| {
            let read = |packed| store::claimed(packed, &queues, &tokens);
            bench.iter_batched(|| claims.clone(), read, BatchSize::SmallInput);
        });
        let tasks: Vec<_> = store::claimed(claims, &queues, &tokens).unwrap().tasks;
        let tasks: Vec<_> = tasks.into_iter().map(|(_, task)| task).collect();
        assert_eq!(tasks.len(), count);
        group.bench_function(format!("answer a claim of {count}"), |bench| bench.iter(|| api::claimed(&tasks)));
    }
}

fn waiters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("waiters");
    for count in [1, 100, 16_000] {
        let mut crowd = WaiterCrowd::new(count);
        assert_eq!(crowd.take_and_return(), count.min(100));
        group.bench_function(format!("take and return a batch of {count} new waiters"), |bench| {
            bench.iter(|| crowd.take_and_return());
        });
        crowd.idle_all();
        group.bench_function(format!("add and remove, {count} idle"), |bench| {
            bench.iter(|| {
                crowd.add();
                crowd.remove_last();
            });
        });
        assert_eq!(crowd.serve_first(), count.min(4));
        group.bench_function(format!("serve one, {count} idle"), |bench| bench.iter(|| crowd.serve_first()));
    }
}

criterion_group! {
    name = pieces;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = json, slot, replies, waiters
}
criterion_main!(pieces);
