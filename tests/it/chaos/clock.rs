//! Reads the shard's clock all the time, because servers change its shift when Redis' clock is set.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use deadpool_redis::redis::{self, RedisResult};
use slotwheel::domain::slot::Shards;
use slotwheel::store::keys::{Keys, tags};

use super::recorder::Recorder;
use crate::history::event::ClockReading;
use crate::support::poll::poll;

/// Between two readings. Shorter than any fault.
const INTERVAL: Duration = Duration::from_millis(50);
/// Error bound of a good reading in µs.
const GOOD_US: i64 = 2000;
/// Error bound of a reading that is written.
const USABLE_US: i64 = 10_000;
/// Attempts at a good reading; then the best is written.
const ATTEMPTS: usize = 5;

/// The keys of the only shard.
pub fn keys() -> Keys {
    let [tag] = tags(Shards::new(1).expect("one shard"))[..] else { panic!("a tag of one shard") };
    Keys::new("sw", tag)
}

/// A thread that reads the clock into the history of its process.
pub struct ClockWatch {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ClockWatch {
    /// Returns after the first reading. `redis` is the socket of Redis.
    pub async fn start(redis: &Path, recorder: &Arc<Recorder>) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let mut reader = Reader { redis: redis.to_owned(), recorder: recorder.clone(), connection: None };
        let ended = ending.clone();
        let (has_read, first) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            reader.read_until_good();
            let _ = has_read.send(());
            while !ended.load(Ordering::Relaxed) {
                std::thread::park_timeout(INTERVAL);
                reader.read();
            }
            reader.read_until_good();
        });
        first.await.expect("a reading");
        ClockWatch { ending, thread }
    }

    /// Reads the clock a last time.
    pub async fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await;
        ended.expect("an end").expect("no panic");
    }
}

/// The longest time until a server has judged a step: Redis may be frozen.
const JUDGED_WITHIN: Duration = Duration::from_secs(30);

/// Returns when scripts accept the shard's clock. `url` is that of Redis, which may be down meanwhile.
pub async fn until_judged(url: &str) {
    let client = redis::Client::open(url).expect("a URL");
    let callers = keys().callers();
    let is_confirmed = async || {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut both = redis::pipe();
        both.atomic().cmd("TIME").cmd("HGET").arg(&callers).arg("clock");
        let ((seconds, us), record): ((i64, i64), Option<String>) = both.query_async(&mut connection).await?;
        RedisResult::Ok(confirmed(seconds * 1_000_000 + us, record.as_deref()).is_some())
    };
    // The checker finds a step that is judged too late, or never.
    let _ = poll(JUDGED_WITHIN, || async { is_confirmed().await.unwrap_or(false).then_some(()) }).await;
}

struct Reader {
    redis: PathBuf,
    recorder: Arc<Recorder>,
    connection: Option<BufReader<UnixStream>>,
}

impl Reader {
    fn read_until_good(&mut self) {
        while !self.read() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Writes the best of a few readings; returns whether it is good. Writes nothing if Redis does not answer, or if no
    /// script runs at present because the clock is unconfirmed.
    fn read(&mut self) -> bool {
        let mut best: Option<(i64, ClockReading)> = None;
        for _ in 0..ATTEMPTS {
            let reading = self.ask();
            if reading.is_none() {
                // The rest of a late reply would be taken for the next.
                self.connection = None;
            }
            let Some(Some(reading)) = reading else { break };
            if best.is_none_or(|(_, best)| reading.1.within_us < best.within_us) {
                best = Some(reading);
            }
            if reading.1.within_us < GOOD_US {
                break;
            }
        }
        let Some((at, reading)) = best.filter(|(_, best)| best.within_us < USABLE_US) else { return false };
        self.recorder.write_clock(at, reading);
        reading.within_us < GOOD_US
    }

    /// Asks for Redis' time and the record of the clock, as of one moment. The outer `None`: there was no reply.
    fn ask(&mut self) -> Option<Option<(i64, ClockReading)>> {
        if self.connection.is_none() {
            let stream = UnixStream::connect(&self.redis).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            self.connection = Some(BufReader::new(stream));
        }
        let connection = self.connection.as_mut()?;
        let callers = String::from_utf8(keys().callers()).expect("a text");
        let sent = self.recorder.now();
        write!(connection.get_mut(), "MULTI\r\nTIME\r\nHGET {callers} clock\r\nEXEC\r\n").ok()?;
        // +OK, +QUEUED, +QUEUED; *2; *2, $10, seconds, $6, microseconds; $-1, or a length and the record
        let mut lines = Vec::new();
        while lines.len() < 10 || (lines.len() == 10 && lines[9] != "$-1") {
            let mut line = String::new();
            if connection.read_line(&mut line).ok()? == 0 || line.starts_with('-') {
                return None;
            }
            lines.push(line.trim_end().to_owned());
        }
        let came = self.recorder.now();
        let redis_us = lines[6].parse::<i64>().ok()? * 1_000_000 + lines[8].parse::<i64>().ok()?;
        let Some(time_us) = confirmed(redis_us, lines.get(10).map(String::as_str)) else { return Some(None) };
        let within_us = (came - sent) / 2 + 1;
        Some(Some(((sent + came) / 2, ClockReading { time_us, within_us })))
    }
}

/// The shard's clock, if scripts accept it: as `src/store/ops/lib/clock.lua` computes it.
fn confirmed(redis_us: i64, record: Option<&str>) -> Option<i64> {
    let Some(record) = record else { return Some(redis_us) };
    let mut numbers = record.split(' ').map(|number| number.parse::<i64>().expect("a number"));
    let (touched_at, shift_ms) = (numbers.next().expect("a touch"), numbers.next().unwrap_or_default());
    let time_us = redis_us + shift_ms * 1000;
    (-500..=2000).contains(&(time_us / 1000 - touched_at)).then_some(time_us)
}
