//! Tests against the real thing: each starts its own redis-server, and its own server in this process.
//!
//! `SLOTWHEEL_TEST_ON` says on what: `single` (or nothing), `cluster` (a one-process Redis Cluster, 16 shards), or `shim`
//! (a single Redis whose every script is watched while it works).
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

mod aborts;
mod bad_input;
mod batches;
mod cancelling;
mod chaos;
mod claiming;
mod completing;
mod contract;
mod data_loss;
mod deduplication;
mod delays;
mod disconnects;
mod doctor;
mod durability;
mod events;
mod expiry;
mod failing;
mod fairness;
mod flood;
mod framing;
mod heartbeats;
mod history;
mod http2;
mod idempotency;
mod listing;
mod lost_replies;
mod managed;
mod metrics;
mod model;
mod monitoring;
mod process;
mod queueing;
mod queues;
mod repairing;
mod resharding;
mod retention;
mod rolling;
mod rules;
mod shimming;
mod slots;
mod slow_clients;
mod starting;
mod statistics;
mod stopping;
mod submitting;
mod tracing;
mod trouble;
mod upgrading;
mod waiting;
mod workers;
