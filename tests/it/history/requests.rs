//! Invocations and their ends, put together; sendings of one operation, put together.

use std::collections::HashMap;

use super::clock::{Clocks, Moment};
use super::event::{Answer, Call, Event};

/// A call that was sent once, and what came of it.
#[derive(Debug)]
pub struct Sending<'a> {
    pub call: &'a Call,
    pub invoked: Moment,
    pub end: End<'a>,
    /// When its operation was first sent.
    pub first: Moment,
    /// An earlier sending of its operation may have taken effect, or may yet.
    pub repeated: bool,
    /// Place of its operation.
    pub op: usize,
}

/// How a sending ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    Ok(Moment, &'a Answer),
    /// It had no effect.
    Refused,
    /// It may have taken effect at any time since, and may yet.
    Unknown,
}

/// All sendings in the order of the lines, and what is wrong with the lines themselves.
#[derive(Debug, Default)]
pub struct Sendings<'a> {
    pub all: Vec<Sending<'a>>,
    pub broken: Vec<String>,
}

impl<'a> Sendings<'a> {
    /// The lines of one process stand in the order of their writing.
    pub fn of(events: &'a [Event]) -> Self {
        let mut clocks = Clocks::default();
        for event in events {
            if let Some(reading) = event.clock {
                clocks.read(&event.process, event.at, reading);
            }
        }
        let mut sendings = Sendings::default();
        let mut places: HashMap<(&str, u64, u32), (usize, bool)> = HashMap::new();
        let mut ops: HashMap<(&str, u64), (usize, Moment)> = HashMap::new();
        for event in events.iter().filter(|event| event.clock.is_none()) {
            let moment = clocks.moment(&event.process, event.at);
            let key = (event.client.as_str(), event.op, event.attempt);
            if let Some(call) = &event.invoke {
                let repeated = ops.contains_key(&(key.0, key.1));
                let count = ops.len();
                let (op, first) = *ops.entry((key.0, key.1)).or_insert((count, moment));
                places.insert(key, (sendings.all.len(), false));
                let end = End::Unknown;
                sendings.all.push(Sending { call, invoked: moment, end, first, repeated, op });
                continue;
            }
            let Some((place, ended)) = places.get_mut(&key) else {
                sendings.broken.push(format!("{key:?} ends and was never invoked"));
                continue;
            };
            if *ended {
                sendings.broken.push(format!("{key:?} ended, and ends again"));
                continue;
            }
            *ended = true;
            sendings.all[*place].end = match (&event.ok, &event.fail) {
                (Some(answer), _) => End::Ok(moment, answer),
                (None, Some(_)) => End::Refused,
                (None, None) => End::Unknown,
            };
        }
        sendings
    }
}
