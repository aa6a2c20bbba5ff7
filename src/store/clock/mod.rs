//! The clock of a shard: Redis' clock and a shift, by which leases and delays keep their length when Redis' clock is set.
//!
//! Each server touches the clock each second. If a script finds the last touch more than 2 s in the past, or the clock
//! behind it, the script does nothing. Then the server compares the time since its own last touch with a clock of its
//! machine that is never set. If both agree, there was an outage, and leases that were alive when it began are prolonged.
//! Otherwise Redis' clock was set, or another Redis has taken over: the shift makes up for it.

pub(in crate::store) mod confirm_clock;
mod step;
pub(in crate::store) mod touch_clock;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value, cmd};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::caller::Caller;
use super::error::{Error, Result};
use super::keys::{ChannelScope, Keys};
use super::redis::client::{CALL_DEADLINE, Client};
use super::redis::script::Script;
use crate::degradations::{Degradations, Reason};
use confirm_clock::{Confirmed, KEEP_OUTAGE_MS, MAX_OUTAGES};
pub use step::Uptime;
use step::{Sighting, shift_after, step_ms};
use touch_clock::{Reading, Touched};

/// The maximum number of attempts to confirm a clock: one after a slow reading, one after the others had their time, and two
/// if servers meet in it.
const MAX_ATTEMPTS: usize = 4;
/// How long a server that has just started leaves the judgement to the others: twice the second between touches.
const OTHERS_JUDGE_WITHIN: Duration = Duration::from_secs(2);
/// How often it checks meanwhile whether another server has judged.
const JUDGEMENT_INTERVAL: Duration = Duration::from_millis(200);

/// The error if the clock remains unconfirmed.
pub(super) fn unconfirmed() -> Error {
    Error::Unavailable("the clock of Redis cannot be confirmed".into())
}

/// The clock of one shard, as this server has last seen it.
#[derive(Debug)]
pub struct ShardClock {
    shard: usize,
    client: Arc<Client>,
    keys: Arc<Keys>,
    degradations: Arc<Degradations>,
    channel_scope: Arc<watch::Sender<ChannelScope>>,
    shift_ms: AtomicI64,
    watch: Mutex<Watch>,
}

/// One server's touches of a clock.
#[derive(Default, Debug)]
struct Watch {
    caller: Caller,
    last: Option<Sighting>,
}

impl ShardClock {
    pub(super) fn new(
        shard: usize,
        client: Arc<Client>,
        keys: Arc<Keys>,
        degradations: Arc<Degradations>,
        channel_scope: Arc<watch::Sender<ChannelScope>>,
    ) -> Self {
        let (shift_ms, watch) = (AtomicI64::new(0), Mutex::default());
        ShardClock { shard, client, keys, degradations, channel_scope, shift_ms, watch }
    }

    /// Returns the shift against Redis' clock in ms at the last touch.
    pub fn shift_ms(&self) -> i64 {
        self.shift_ms.load(Ordering::Relaxed)
    }

    /// Touches the clock, and confirms it.
    pub(super) async fn touch(&self) -> Result<()> {
        let deadline = Instant::now() + CALL_DEADLINE;
        self.watch(deadline, None).await
    }

    /// Confirms the clock if this server has not done so since `called_at`.
    pub(super) async fn confirm_since(&self, called_at: Uptime, deadline: Instant) -> Result<()> {
        self.watch(deadline, Some(called_at)).await
    }

    async fn watch(&self, deadline: Instant, since: Option<Uptime>) -> Result<()> {
        let mut watch = timeout_at(deadline, self.watch.lock()).await.map_err(Error::timed_out)?;
        if since.is_some_and(|since| watch.last.is_some_and(|last| last.received > since)) {
            return Ok(());
        }
        let (mut was_left_to_others, mut was_imprecise) = (false, false);
        for _ in 0..MAX_ATTEMPTS {
            let sent = Uptime::now();
            let touched =
                touch_clock::decode(self.call(&mut watch.caller, &touch_clock::SCRIPT, deadline, |_| {}).await?)?;
            let sighting = |reading: Reading| Sighting { time_ms: reading.time_ms, sent, received: Uptime::now() };
            match touched {
                // The next reading may be faster: Redis or the connection was frozen.
                Touched::Confirmed(reading) | Touched::Unconfirmed { reading, .. }
                    if !sighting(reading).is_precise() && !was_imprecise =>
                {
                    was_imprecise = true;
                }
                Touched::Confirmed(reading) => {
                    watch.last = Some(sighting(reading));
                    self.set_shift(reading.shift_ms);
                    return Ok(());
                }
                // Without an earlier sighting, a step forward looks like an outage. Another server knows which it was.
                Touched::Unconfirmed { reading, last_touch_ms, record }
                    if watch.last.is_none() && reading.time_ms > last_touch_ms && !was_left_to_others =>
                {
                    was_left_to_others = true;
                    self.leave_to_others(&record).await?;
                }
                Touched::Unconfirmed { reading, last_touch_ms, record } => {
                    let step = step_ms(watch.last.as_ref(), last_touch_ms, &sighting(reading));
                    let shift = shift_after(reading.shift_ms, step);
                    let sent = Uptime::now();
                    let judged = Some(reading.time_ms);
                    let confirmed = self.confirm(&mut watch.caller, &record, judged, shift, deadline).await?;
                    if let Some(Confirmed { time_ms, outage_ms }) = confirmed {
                        self.report(step, shift, outage_ms, watch.last.is_some());
                        watch.last = Some(Sighting { time_ms, sent, received: Uptime::now() });
                        self.set_shift(shift);
                        return Ok(());
                    }
                }
            }
        }
        Err(unconfirmed())
    }

    /// Returns when another server has replaced the record of the clock, or has had the time to.
    async fn leave_to_others(&self, record: &[u8]) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < OTHERS_JUDGE_WITHIN {
            sleep(JUDGEMENT_INTERVAL).await;
            if self.read_record().await?.is_none_or(|(current, _)| current != record) {
                break;
            }
        }
        Ok(())
    }

    /// Reads the stored shift against Redis' clock in ms, without a touch.
    pub async fn read_shift_ms(&self) -> Result<i64> {
        Ok(self.read_record().await?.map_or(0, |(_, shift_ms)| shift_ms))
    }

    /// Ends the shift: the shard's clock is Redis' clock again. Its times jump by the shift; leases are prolonged by a
    /// jump forward. Returns the shift before.
    pub async fn accept_redis_clock(&self) -> Result<i64> {
        let deadline = Instant::now() + CALL_DEADLINE;
        let mut watch = timeout_at(deadline, self.watch.lock()).await.map_err(Error::timed_out)?;
        for _ in 0..MAX_ATTEMPTS {
            let Some((record, shift_ms)) = self.read_record().await?.filter(|(_, shift_ms)| *shift_ms != 0) else {
                return Ok(0);
            };
            if self.confirm(&mut watch.caller, &record, None, 0, deadline).await?.is_some() {
                return Ok(shift_ms);
            }
        }
        Err(unconfirmed())
    }

    /// Returns the record of the clock, and its shift.
    async fn read_record(&self) -> Result<Option<(Vec<u8>, i64)>> {
        let Value::BulkString(record) = self.client.send(cmd("HGET").arg(self.keys.callers()).arg("clock")).await?
        else {
            return Ok(None);
        };
        let text = str::from_utf8(&record).unwrap_or_default();
        let shift_ms = text.split(' ').nth(1).map_or(Ok(0), str::parse);
        let malformed = |_| Error::Unexpected("the record of the clock is malformed".into());
        let shift_ms = shift_ms.map_err(malformed)?;
        Ok(Some((record, shift_ms)))
    }

    async fn confirm(
        &self,
        caller: &mut Caller,
        record: &[u8],
        judged_ms: Option<i64>,
        shift_ms: i64,
        deadline: Instant,
    ) -> Result<Option<Confirmed>> {
        let arguments = |command: &mut Cmd| {
            let judged = judged_ms.map_or_else(String::new, |time| time.to_string());
            command.arg(record).arg(judged).arg(shift_ms).arg(KEEP_OUTAGE_MS).arg(MAX_OUTAGES);
        };
        confirm_clock::decode(self.call(caller, &confirm_clock::SCRIPT, deadline, arguments).await?)
    }

    async fn call(
        &self,
        caller: &mut Caller,
        script: &Script,
        deadline: Instant,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Value> {
        let (caller_id, sequence) = caller.next_call();
        let mut command = self.client.script_command(script, false, &self.keys, &self.channel_scope.borrow());
        command.arg(&*caller_id).arg(sequence).arg(self.client.write_offset_ms());
        arguments(&mut command);
        let reply = self.client.run_script(script, false, &command, deadline).await?;
        reply.ok_or_else(|| Error::Unexpected(format!("script {} was refused by its own clock", script.name)))
    }

    fn report(&self, step_ms: i64, shift_ms: i64, outage_ms: i64, was_watched: bool) {
        let counters = &self.client.metrics().counters;
        if step_ms != 0 {
            counters.clock_steps.inc();
            tracing::error!(
                shard = self.shard,
                step_ms,
                shift_ms,
                "the clock of Redis was set; leases and delays keep their length"
            );
        }
        if outage_ms > 0 && was_watched {
            counters.outages.inc();
            tracing::warn!(shard = self.shard, outage_ms, "outage over; leases are prolonged by it");
        } else if outage_ms > 0 {
            tracing::info!(shard = self.shard, outage_ms, "no server ran; leases are prolonged by that time");
        }
    }

    fn set_shift(&self, shift_ms: i64) {
        self.shift_ms.store(shift_ms, Ordering::Relaxed);
        let subject = format!("shard {}", self.shard);
        if shift_ms == 0 {
            self.degradations.clear(Reason::ClockStepped, &subject);
            return;
        }
        let direction = if shift_ms < 0 { "behind" } else { "ahead of" };
        let detail = format!(
            "the clock of Redis was set, or another Redis has taken over: the times of this shard are {} s {direction} \
             Redis' clock, so that leases and delays keep their length. To use Redis' clock again, run `slotwheel doctor \
             --accept-clock`",
            shift_ms.unsigned_abs() as f64 / 1000.0
        );
        self.degradations.raise(Reason::ClockStepped, &subject, detail);
    }
}
