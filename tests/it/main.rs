//! Integration tests: each starts its own redis-server, and its own server in this process.
//!
//! `SLOTWHEEL_TEST_ON` selects the Redis: `single` (default), `cluster` (a one-process Redis Cluster with 16 shards),
//! or `shim` (a single Redis; `support/shim.lua` checks every script while it runs).
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

mod aborts;
mod bad_input;
mod batches;
mod behind_commit;
mod cancel;
mod channels;
mod chaos;
mod claim;
mod clock;
mod complete;
mod completion_wait;
mod contract;
mod data_loss;
mod deduplication;
mod delays;
mod disconnects;
mod doctor;
mod durability;
mod embedded_redis;
mod empty_queues;
mod events;
mod expiry;
mod fail;
mod fairness;
mod framing;
mod hand_off;
mod heartbeats;
mod history;
mod http2;
mod idempotency;
mod inner_commands;
mod isolation;
mod layout;
mod list;
mod lost_replies;
mod memory;
mod metrics;
mod model;
mod monitoring;
mod optional_fields;
mod overload;
mod panics;
mod permissions;
mod pieces;
mod process;
mod queue_removal;
mod queue_simulation;
mod queues;
mod redis_errors;
mod redis_outage;
mod release;
mod repair;
mod reports;
mod resharding;
mod retention;
mod rolling_restart;
mod routes;
mod rules;
mod script_checker;
mod shutdown;
mod slots;
mod slow_clients;
mod startup;
mod statistics;
mod submit;
mod succession;
mod tracing;
mod turns;
mod upgrade;
mod workers;
