//! Requests: each invocation with its end, grouped by operation.

use std::collections::HashMap;

use super::clock::{Clocks, Moment};
use super::event::{Answer, Call, Event};

/// One request of an operation, and its end.
#[derive(Debug)]
pub struct Request<'a> {
    pub call: &'a Call,
    pub invoked: Moment,
    pub end: End<'a>,
    /// When the operation was first sent.
    pub first: Moment,
    /// An earlier request of the operation may have taken effect, or may still.
    pub repeated: bool,
    /// Index of the operation.
    pub op: usize,
    /// By how much the shard's clock fell near its end, as [`Clocks::slack`] returns it.
    pub slack: i64,
}

/// The end of a request.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    Ok(Moment, &'a Answer),
    /// It had no effect.
    Refused,
    /// It may have taken effect at any time since, or may still.
    Unknown,
}

/// All requests in the order of their lines, and the defects of the lines themselves.
#[derive(Debug, Default)]
pub struct Requests<'a> {
    pub all: Vec<Request<'a>>,
    pub broken: Vec<String>,
    /// Jumps of the shard's clock, as [`Clocks::jumps`] returns them.
    pub jumps: Vec<(i64, i64, i64)>,
    /// The largest of all requests.
    pub slack: i64,
}

impl<'a> Requests<'a> {
    /// The lines of one process are in the order of their writing.
    pub fn of(events: &'a [Event]) -> Self {
        let mut clocks = Clocks::default();
        for event in events {
            if let Some(reading) = event.clock {
                clocks.read(&event.process, event.at, reading);
            }
        }
        let mut requests = Requests { jumps: clocks.jumps(), ..Requests::default() };
        let mut places: HashMap<(&str, u64, u32), (usize, bool)> = HashMap::new();
        let mut ops: HashMap<(&str, u64), (usize, Moment)> = HashMap::new();
        for event in events.iter().filter(|event| event.clock.is_none() && event.outage.is_none()) {
            let moment = clocks.moment(&event.process, event.at);
            let key = (event.client.as_str(), event.op, event.attempt);
            if let Some(call) = &event.invoke {
                let repeated = ops.contains_key(&(key.0, key.1));
                let count = ops.len();
                let (op, first) = *ops.entry((key.0, key.1)).or_insert((count, moment));
                places.insert(key, (requests.all.len(), false));
                let end = End::Unknown;
                requests.all.push(Request { call, invoked: moment, end, first, repeated, op, slack: 0 });
                continue;
            }
            let Some((place, ended)) = places.get_mut(&key) else {
                requests.broken.push(format!("{key:?} ends and was never invoked"));
                continue;
            };
            if *ended {
                requests.broken.push(format!("{key:?} ended, and ends again"));
                continue;
            }
            *ended = true;
            let slack = clocks.slack(&event.process, event.at);
            requests.slack = requests.slack.max(slack);
            requests.all[*place].slack = slack;
            requests.all[*place].end = match (&event.ok, &event.fail) {
                (Some(answer), _) => End::Ok(moment, answer),
                (None, Some(_)) => End::Refused,
                (None, None) => End::Unknown,
            };
        }
        requests
    }
}
