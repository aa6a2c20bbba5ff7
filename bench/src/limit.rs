//! The limit: the minimum Redis cost of a task's life. Its commands are fixed.
//!
//! 64 lives run at once, one task each, as the commands below; no batching, pipelined, without Lua, HTTP or checks.
//! Redis is configured like Slotwheel's. Every life has its own slot, so the list is exact: a submit adds the slot to
//! the wheel, the claim removes it. Ended tasks stay, as in the other systems; they are flushed between rounds.
//!
//! | | |
//! |---|---|
//! | submit | `HSET task`: state, queue, slot, priority, seq, created at, attempts allowed, payload |
//! | | `ZADD slot queue`, `ZADD wheel` |
//! | claim | `ZPOPMIN wheel`, `ZPOPMIN slot queue` |
//! | | `HSET task`: state, token, lease until, leased since, attempts, acquired, worker; `ZADD leased` |
//! | | `HMGET task`: fields for the worker |
//! | complete | `HMGET task`: what proves the lease; `ZREM leased` |
//! | | `HSET task`: state, finished at; `ZADD ended` |

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures_util::future::LocalBoxFuture;
use redis::{Pipeline, Value};

use crate::adapters::Settings;
use crate::ledger::payload;
use crate::load::{Measured, Plan};
use crate::processes::{Redis, cpu_seconds};
use crate::spent::Spent;
use crate::systems::System;
use crate::workloads::Script;

/// Concurrent lives.
const LIVES: u64 = 64;

/// A Redis and a connection to it.
pub struct Limit {
    redis: Redis,
    connection: RefCell<redis::Connection>,
}

impl Limit {
    /// Starts its Redis.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let redis = Redis::start(settings, "limit", &["--hash-max-listpack-value", "4096"]).await?;
        let connection = redis::Client::open(redis.url(settings.unix))?.get_connection()?;
        Ok(Self { redis, connection: RefCell::new(connection) })
    }

    fn run(&self, plan: &Plan) -> Result<Measured> {
        let mut connection = self.connection.borrow_mut();
        redis::cmd("FLUSHALL").query::<()>(&mut connection)?;
        let mut next = 0;
        let mut lives = |until: Instant| -> Result<u64> {
            let first = next;
            while Instant::now() < until {
                let answers: Vec<Value> = pipeline(next, plan.payload).query(&mut connection)?;
                ensure!(answers.len() as u64 == LIVES * COMMANDS, "an answer for each command");
                ensure!(
                    !answers.iter().any(|answer| matches!(answer, Value::Nil | Value::ServerError(_))),
                    "all went well"
                );
                next += LIVES;
            }
            Ok(next - first)
        };
        lives(Instant::now() + plan.warm_up)?;
        let (before, begun) = (cpu_seconds(self.redis.pid())?, Instant::now());
        let tasks = lives(begun + plan.window)?;
        let (after, seconds) = (cpu_seconds(self.redis.pid())?, begun.elapsed().as_secs_f64());
        let left: Vec<u64> =
            redis::pipe().cmd("ZCARD").arg("{0}leased").cmd("ZCARD").arg("{0}ended").query(&mut connection)?;
        ensure!(left == [0, next], "every life has ended");
        redis::cmd("FLUSHALL").query::<()>(&mut connection)?;
        Ok(Measured {
            seconds,
            tasks,
            spent: Spent { redis: after - before, ..Spent::default() },
            ..Measured::default()
        })
    }
}

/// Commands of one life.
const COMMANDS: u64 = 12;

/// One task of the pipeline: its id as sixteen bytes, its keys, its slot.
struct Place {
    id: Vec<u8>,
    task: Vec<u8>,
    slot: String,
    queue: String,
    seq: u64,
}

impl Place {
    fn new(seq: u64) -> Self {
        // Sixteen bytes, the size of an id, spread by a multiplication.
        let id = [seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(), seq.to_be_bytes()].concat();
        let slot = (seq % 16384).to_string();
        Self { task: [b"{0}task:", &id[..]].concat(), queue: format!("{{0}}slot:q:4:{slot}"), slot, id, seq }
    }
}

/// Submits all, claims all, completes all.
fn pipeline(first: u64, size: usize) -> Pipeline {
    const NOW: &str = "1790000000000";
    const LATER: &str = "1790000060000";
    const TOKEN: &[u8] = b"0123456789abcdef";
    let places: Vec<Place> = (first..first + LIVES).map(Place::new).collect();
    let mut pipe = Pipeline::with_capacity((LIVES * COMMANDS) as usize);
    for Place { id, task, slot, queue, seq } in &places {
        pipe.cmd("HSET").arg(task).arg("S").arg("ready").arg("q").arg("q").arg("s").arg(slot).arg("p").arg(4);
        pipe.arg("n").arg(seq).arg("c").arg(NOW).arg("m").arg(5).arg("d").arg(payload(*seq, size));
        pipe.cmd("ZADD").arg(queue).arg(seq).arg(id);
        pipe.cmd("ZADD").arg("{0}wheel:q").arg(seq).arg(slot);
    }
    for Place { id, task, queue, .. } in &places {
        pipe.cmd("ZPOPMIN").arg("{0}wheel:q");
        pipe.cmd("ZPOPMIN").arg(queue);
        pipe.cmd("HSET").arg(task).arg("S").arg("leased").arg("t").arg(TOKEN).arg("u").arg(LATER).arg("h").arg(NOW);
        pipe.arg("a").arg(1).arg("A").arg(1).arg("W").arg("bench");
        pipe.cmd("ZADD").arg("{0}leased").arg(LATER).arg(id);
        pipe.cmd("HMGET").arg(task).arg(&["q", "s", "p", "d", "m", "c", "x"]);
    }
    for Place { id, task, .. } in &places {
        pipe.cmd("HMGET").arg(task).arg(&["S", "t", "u"]);
        pipe.cmd("ZREM").arg("{0}leased").arg(id);
        pipe.cmd("HSET").arg(task).arg("S").arg("completed").arg("f").arg(NOW);
        pipe.cmd("ZADD").arg("{0}ended").arg(NOW).arg(id);
    }
    pipe
}

impl System for Limit {
    fn version(&self) -> String {
        "12 bare commands a life, 64 lives in a pipeline".to_owned()
    }

    fn round<'a>(&'a self, _script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>> {
        Box::pin(async move { self.run(plan) })
    }
}
