//! What a history tells, by task: submits, leases, reports, and how it stood at the end.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use super::clock::Moment;
use super::event::{Answer, Call, Claimed, Counts, Event, Item, Outcome, Read};
use super::requests::{End, Sending, Sendings};

/// Counts the checker's steps, so that a test can say how they grow.
#[derive(Debug, Default)]
pub struct Work(Cell<u64>);

impl Work {
    pub fn step(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub fn steps(&self) -> u64 {
        self.0.get()
    }

    /// Sorts; each look at an element is a step.
    pub fn sort<T, K: Ord>(&self, list: &mut [T], key: impl Fn(&T) -> K) {
        list.sort_by_key(|element| {
            self.step();
            key(element)
        });
    }
}

/// An item of a submit.
#[derive(Debug)]
pub struct Submitted<'a> {
    pub item: &'a Item,
    pub queue: &'a str,
    /// It was not stored before.
    pub first: i64,
    /// It was stored by then, if it is known to be; in µs like all times here.
    pub by: Option<i64>,
    /// Every sending of it was refused.
    pub refused: bool,
    /// It came with others in one call that was sent once: the call, and its place.
    pub batch: Option<(usize, usize)>,
    pub slot: u16,
    /// Ids that it was answered with, as new.
    pub ids: Vec<&'a str>,
}

/// A submit that was answered with another's task.
#[derive(Debug)]
pub struct Kept<'a> {
    pub id: &'a str,
    pub queue: &'a str,
    pub key: &'a str,
    pub from: i64,
    pub to: i64,
}

/// What a worker did with a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    Complete,
    Fail,
    Release,
    Heartbeat,
}

/// One operation with a token; its sendings taken together.
#[derive(Debug)]
pub struct Report<'a> {
    pub verb: Verb,
    /// Not before this.
    pub first: i64,
    /// It was accepted, by then.
    pub accepted: Option<i64>,
    /// Each sending was refused.
    pub refused: bool,
    /// Sendings that may have taken effect although nobody was told.
    pub unknown: u32,
    pub result: Option<&'a str>,
    pub run_at: Option<i64>,
    pub retry: bool,
}

/// A lease that a client was told of.
#[derive(Debug)]
pub struct Lease<'a> {
    pub token: &'a str,
    pub granted: Moment,
    /// As last answered; heartbeats only move it on.
    pub until: i64,
    pub lease_us: i64,
    /// The server may have taken it back: it was given to a sending whose answer never came, and was found again by a
    /// repetition while that server may still have been about to give back what it could not deliver.
    pub revocable: bool,
    /// As the claim showed it.
    pub attempt: u32,
    pub reports: Vec<Report<'a>>,
}

impl Lease<'_> {
    /// The span in which it certainly lived. It begins when the grant had certainly happened. It ends, for a lease that
    /// only its worker or time can end, with the first of: its end by Redis' clock, as far as answers have moved it; the
    /// first sending of a report that ends it. Beyond that, and for others, with the last sending of a report that was
    /// accepted: then it lived still.
    pub fn certain(&self) -> (i64, i64) {
        let proved = self.reports.iter().filter(|report| report.accepted.is_some()).map(|report| report.first).max();
        let ending =
            self.reports.iter().filter(|report| report.verb != Verb::Heartbeat).map(|report| report.first).min();
        let assumed = if self.revocable { i64::MIN } else { self.until.min(ending.unwrap_or(i64::MAX)) };
        (self.granted.to, proved.unwrap_or(i64::MIN).max(assumed))
    }

    /// From then on it has run out, even if every heartbeat whose answer is missing prolonged it.
    pub fn ran_out(&self) -> i64 {
        let beats = self.reports.iter().filter(|report| report.verb == Verb::Heartbeat);
        self.until + beats.map(|beat| i64::from(beat.unknown) * self.lease_us).sum::<i64>()
    }
}

/// All that is known of a task.
#[derive(Debug, Default)]
pub struct Task<'a> {
    pub id: &'a str,
    pub queue: &'a str,
    /// Names under which it was seen.
    pub names: Vec<&'a str>,
    /// By the grant.
    pub leases: Vec<Lease<'a>>,
    pub read: Option<&'a Read>,
}

/// A queue's counts as they were asked for.
#[derive(Debug)]
pub struct Sample<'a> {
    pub queue: &'a str,
    pub from: i64,
    pub to: i64,
    pub counts: Counts,
}

#[derive(Debug, Default)]
pub struct Facts<'a> {
    pub work: Work,
    pub broken: Vec<String>,
    pub submitted: HashMap<&'a str, Submitted<'a>>,
    pub kept: Vec<Kept<'a>>,
    pub tasks: BTreeMap<&'a str, Task<'a>>,
    /// Tokens that were given out by more than one claim.
    pub reused: Vec<String>,
    pub samples: Vec<Sample<'a>>,
    /// When a queue was read whole for the last time, by then.
    pub read: BTreeMap<&'a str, i64>,
    pub unknown: usize,
}

impl<'a> Facts<'a> {
    pub fn of(events: &'a [Event]) -> Self {
        let sendings = Sendings::of(events);
        let mut facts = Facts { broken: sendings.broken, ..Facts::default() };
        let mut tokens: HashMap<&str, (&str, usize)> = HashMap::new();
        for sending in &sendings.all {
            facts.work.step();
            facts.unknown += usize::from(matches!(sending.end, End::Unknown));
            facts.submit(sending);
            facts.claim(sending, &mut tokens);
            facts.read(sending);
        }
        facts.reports(&sendings.all, &tokens);
        let Facts { work, tasks, .. } = &mut facts;
        for task in tasks.values_mut() {
            work.sort(&mut task.leases, |lease| (lease.granted.to, lease.granted.from));
        }
        facts
    }

    fn task(&mut self, id: &'a str, name: Option<&'a str>) -> &mut Task<'a> {
        self.work.step();
        let task = self.tasks.entry(id).or_insert_with(|| Task { id, ..Task::default() });
        task.names.extend(name.filter(|name| !task.names.contains(name)));
        task
    }

    fn submit(&mut self, sending: &Sending<'a>) {
        let Call::Submit { queue, items } = sending.call else { return };
        let outcomes = match sending.end {
            End::Ok(_, Answer::Submitted(outcomes)) => outcomes.as_slice(),
            _ => &[],
        };
        for (place, item) in items.iter().enumerate() {
            self.work.step();
            let outcome = outcomes.get(place);
            let refused = matches!(sending.end, End::Refused) || matches!(outcome, Some(Outcome::Fail(_)));
            let known = self.submitted.entry(&item.name).or_insert_with(|| Submitted {
                item,
                queue,
                first: sending.first.from,
                by: None,
                refused: true,
                batch: None,
                slot: 0,
                ids: Vec::new(),
            });
            known.refused &= refused;
            let End::Ok(at, _) = sending.end else { continue };
            match outcome {
                Some(Outcome::Created { id, slot }) => {
                    known.by = Some(known.by.map_or(at.to, |by| by.min(at.to)));
                    known.slot = *slot;
                    known.batch = (!sending.repeated).then_some((sending.op, place));
                    if !known.ids.contains(&id.as_str()) {
                        known.ids.push(id);
                    }
                    self.task(id, Some(&item.name)).queue = queue;
                }
                Some(Outcome::Kept { id }) => {
                    let key = item.dedupe.as_deref().unwrap_or_default();
                    self.kept.push(Kept { id, queue, key, from: sending.first.from, to: at.to });
                    self.task(id, None);
                }
                _ => {}
            }
        }
    }

    fn claim(&mut self, sending: &Sending<'a>, tokens: &mut HashMap<&'a str, (&'a str, usize)>) {
        let (lease_ms, claimed): (i64, &'a [Claimed]) = match (sending.call, sending.end) {
            (Call::Claim { lease_ms, .. }, End::Ok(_, Answer::Claimed(tasks))) => (*lease_ms, tasks),
            (Call::Complete { lease_ms: Some(ms), .. }, End::Ok(_, Answer::Ended { tasks, .. })) => (*ms, tasks),
            _ => return,
        };
        let End::Ok(at, _) = sending.end else { return };
        let mut reused = Vec::new();
        for Claimed { id, name, token, until, attempt } in claimed {
            let task = self.task(id, Some(name));
            if let Some((before, op)) = tokens.get(token.as_str()) {
                if (*before, *op) != (id.as_str(), sending.op) {
                    reused.push(format!("{token} was given for {before} and for {id}"));
                }
                continue;
            }
            tokens.insert(token, (id, sending.op));
            // Scripts read Redis' clock in whole ms; `until` is a lease after that, or later once heartbeats moved it.
            let begin = (until - lease_ms) * 1000;
            let known = if sending.repeated { i64::MIN } else { begin };
            task.leases.push(Lease {
                token,
                granted: Moment { from: sending.first.from.max(known), to: at.to.min(begin + 1000) },
                until: until * 1000,
                lease_us: lease_ms * 1000,
                revocable: sending.repeated,
                attempt: *attempt,
                reports: Vec::new(),
            });
        }
        self.reused.extend(reused);
    }

    fn read(&mut self, sending: &Sending<'a>) {
        match (sending.call, sending.end) {
            (Call::Counts { queue }, End::Ok(at, Answer::Counts(counts))) => {
                self.samples.push(Sample { queue, from: sending.invoked.from, to: at.to, counts: *counts });
            }
            (Call::Tasks { queue }, End::Ok(at, Answer::Tasks(tasks))) => {
                self.read.insert(queue, at.to);
                for read in tasks {
                    let task = self.task(&read.id, Some(&read.name));
                    task.queue = queue;
                    task.read = Some(read);
                }
            }
            _ => {}
        }
    }

    fn reports(&mut self, sendings: &[Sending<'a>], tokens: &HashMap<&'a str, (&'a str, usize)>) {
        let mut ops: HashMap<usize, (&str, &str, Report<'a>)> = HashMap::new();
        for sending in sendings {
            self.work.step();
            let (verb, id, token, result, retry) = match sending.call {
                Call::Complete { id, token, result, .. } => (Verb::Complete, id, token, Some(result.as_str()), true),
                Call::Fail { id, token, retry } => (Verb::Fail, id, token, None, *retry),
                Call::Release { id, token } => (Verb::Release, id, token, None, true),
                Call::Heartbeat { id, token } => (Verb::Heartbeat, id, token, None, true),
                _ => continue,
            };
            let first = sending.first.from;
            let fresh =
                || Report { verb, first, accepted: None, refused: true, unknown: 0, result, run_at: None, retry };
            let (_, _, report) = ops.entry(sending.op).or_insert_with(|| (id, token, fresh()));
            report.refused &= matches!(sending.end, End::Refused);
            match sending.end {
                End::Ok(at, Answer::Ended { run_at, .. }) => {
                    report.accepted = Some(at.to);
                    report.run_at = run_at.map(|ms| ms * 1000);
                }
                End::Ok(at, Answer::Held { until }) => {
                    report.accepted = Some(at.to);
                    // Kept here until the lease is at hand.
                    report.run_at = Some(until * 1000);
                }
                End::Ok(..) | End::Refused => {}
                End::Unknown => report.unknown += 1,
            }
        }
        let mut by_token: HashMap<&str, Vec<Report<'a>>> = HashMap::new();
        for (_, (id, token, report)) in ops {
            self.work.step();
            match tokens.get(token) {
                Some((of, _)) if *of == id => by_token.entry(token).or_default().push(report),
                _ if report.accepted.is_some() => {
                    self.reused.push(format!("{token} was accepted for {id}, not its own"))
                }
                _ => {}
            }
        }
        for lease in self.tasks.values_mut().flat_map(|task| &mut task.leases) {
            let mut reports = by_token.remove(lease.token).unwrap_or_default();
            self.work.sort(&mut reports, |report| report.first);
            for beat in reports.iter_mut().filter(|report| report.verb == Verb::Heartbeat) {
                lease.until = lease.until.max(beat.run_at.take().unwrap_or(i64::MIN));
            }
            lease.reports = reports;
        }
    }
}
