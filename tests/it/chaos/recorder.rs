//! Writes a history line by line: a killed process leaves everything recorded until then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use deadpool_redis::redis::cmd;

use crate::history::event::{ClockReading, Event, Outage};
use crate::support::redis::OwnRedis;

/// The history of one process.
pub struct Recorder {
    process: String,
    began: Instant,
    file: Mutex<File>,
    /// Counts of operations, and unexpected observations.
    tally: Mutex<BTreeMap<&'static str, u64>>,
    strange: Mutex<Vec<String>>,
}

impl Recorder {
    /// Writes to `<process>.jsonl` in `folder`.
    pub fn new(folder: &Path, process: &str) -> Self {
        let file = File::create_new(folder.join(format!("{process}.jsonl"))).expect("a file for the history");
        Recorder {
            process: process.to_owned(),
            began: Instant::now(),
            file: Mutex::new(file),
            tally: Mutex::default(),
            strange: Mutex::default(),
        }
    }

    /// Returns the time on the process' clock in µs.
    pub fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_micros()).expect("a short run")
    }

    /// Writes an event with its time and process. Each line is one write, so a kill leaves whole lines.
    pub fn write(&self, mut event: Event) {
        event.process = self.process.clone();
        event.wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as i64;
        let mut file = self.file.lock().unwrap();
        event.at = if event.clock.is_some() { event.at } else { self.now() };
        let mut line = serde_json::to_vec(&event).expect("JSON");
        line.push(b'\n');
        file.write_all(&line).expect("a line of the history");
    }

    /// Writes a reading of the shard's clock.
    pub fn write_clock(&self, at: i64, reading: ClockReading) {
        self.write(Event { at, clock: Some(reading), ..Event::default() });
    }

    /// Writes the outages, which prolong leases.
    pub async fn note_outages(&self, redis: &OwnRedis) {
        let key: Vec<Vec<u8>> = redis.ask(cmd("KEYS").arg("*:outages")).await;
        for key in key {
            let outages: Vec<String> = redis.ask(cmd("ZRANGE").arg(key).arg(0).arg(-1)).await;
            for outage in outages {
                let times = outage.split_once(' ').map(|(from, until)| (from.parse(), until.parse()));
                let Some((Ok(from), Ok(until))) = times else { panic!("an outage {outage}") };
                self.write(Event { outage: Some(Outage { from, until }), ..Event::default() });
                self.count("outages", 1);
            }
        }
    }

    pub fn count(&self, what: &'static str, by: u64) {
        *self.tally.lock().unwrap().entry(what).or_default() += by;
    }

    pub fn tally(&self) -> BTreeMap<&'static str, u64> {
        self.tally.lock().unwrap().clone()
    }

    /// Records an observation that no fault explains.
    pub fn note_strange(&self, what: String) {
        let mut strange = self.strange.lock().unwrap();
        if strange.len() < 20 {
            strange.push(what);
        }
    }

    pub fn strange(&self) -> Vec<String> {
        self.strange.lock().unwrap().clone()
    }
}
