//! The facts of a history by task: submits, leases, reports, and the final state.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::clock::Moment;
use super::event::{Answer, Call, Claimed, Counts, Event, Item, Outage, Outcome, Read};
use super::requests::{End, Request, Requests};

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

    /// Sorts `list`; each comparison key that is computed counts as a step.
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
    /// Earliest time at which it can have been stored.
    pub first: i64,
    /// Time by which it was stored, if known. In µs, like all times here.
    pub by: Option<i64>,
    /// Every request with it was rejected.
    pub refused: bool,
    /// Its call and its index there, if the call was sent once.
    pub batch: Option<(usize, usize)>,
    pub slot: u16,
    /// Ids returned for it as new tasks.
    pub ids: Vec<&'a str>,
}

/// A submit that returned an existing task.
#[derive(Debug)]
pub struct Kept<'a> {
    pub id: &'a str,
    pub queue: &'a str,
    pub key: &'a str,
    pub from: i64,
    pub to: i64,
}

/// The kind of a report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    Complete,
    Fail,
    Release,
    Heartbeat,
}

/// One operation with a token; all its requests together.
#[derive(Debug)]
pub struct Report<'a> {
    pub verb: Verb,
    /// Earliest time of its effect.
    pub first: i64,
    /// Time by which it was accepted.
    pub accepted: Option<i64>,
    /// Every request was rejected.
    pub refused: bool,
    /// Requests without a reply: each may have taken effect.
    pub unknown: u32,
    pub result: Option<&'a str>,
    pub run_at: Option<i64>,
    pub retry: bool,
}

/// A lease that a client has seen.
#[derive(Debug)]
pub struct Lease<'a> {
    pub token: &'a str,
    pub granted: Moment,
    /// When it was granted if the clock did not fall: the order of a task's leases.
    pub order: i64,
    /// Its end by the latest reply; heartbeats only extend it.
    pub until: i64,
    pub lease_us: i64,
    /// The server may have released it: it was granted to a request whose reply was lost, and returned to a repeated
    /// request while that server may still have been releasing the undelivered lease.
    pub revocable: bool,
    /// The attempt number of the claim's reply.
    pub attempt: u32,
    pub reports: Vec<Report<'a>>,
}

impl Lease<'_> {
    /// The interval in which the lease certainly was live. It begins when the grant had certainly happened.
    ///
    /// It ends with the first of: its end by the shard's clock, as extended by replies; the first request of a report that
    /// ends it. An accepted report proves that the lease was live when the report was last sent; for a revocable lease
    /// that is the only proof.
    pub fn certain(&self) -> (i64, i64) {
        let proved = self.reports.iter().filter(|report| report.accepted.is_some()).map(|report| report.first).max();
        let ending =
            self.reports.iter().filter(|report| report.verb != Verb::Heartbeat).map(|report| report.first).min();
        let assumed = if self.revocable { i64::MIN } else { self.until.min(ending.unwrap_or(i64::MAX)) };
        (self.granted.to, proved.unwrap_or(i64::MIN).max(assumed))
    }

    /// Time at which it certainly had expired, even if each heartbeat without a reply extended it, and each outage since
    /// its grant prolonged it.
    pub fn expired_at(&self, outages: &[Outage]) -> i64 {
        let beats = self.reports.iter().filter(|report| report.verb == Verb::Heartbeat);
        let unprolonged = self.until + beats.map(|beat| i64::from(beat.unknown) * self.lease_us).sum::<i64>();
        let since = outages.iter().filter(|outage| (outage.until + 1) * 1000 > self.granted.from);
        since.fold(unprolonged, |end, outage| match outage.from * 1000 < end {
            true => end + (outage.until + 1 - outage.from) * 1000,
            false => end,
        })
    }
}

/// All facts of a task.
#[derive(Debug, Default)]
pub struct Task<'a> {
    pub id: &'a str,
    pub queue: &'a str,
    /// Names in replies about this id.
    pub names: Vec<&'a str>,
    /// Ordered by grant.
    pub leases: Vec<Lease<'a>>,
    pub read: Option<&'a Read>,
}

/// The counts of a queue, as returned between `from` and `to`.
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
    /// Tasks that a client asked to cancel.
    pub cancelled: BTreeSet<&'a str>,
    pub tasks: BTreeMap<&'a str, Task<'a>>,
    /// Tokens granted by more than one claim.
    pub reused: Vec<String>,
    pub samples: Vec<Sample<'a>>,
    /// By queue, the time by which its final list of tasks was read.
    pub read: BTreeMap<&'a str, i64>,
    pub unknown: usize,
    /// In the order of their beginning.
    pub outages: Vec<Outage>,
    /// Jumps of the shard's clock: the times of the readings around each, and its length.
    pub jumps: Vec<(i64, i64, i64)>,
    /// The longest fall of the shard's clock.
    pub slack: i64,
}

impl<'a> Facts<'a> {
    pub fn of(events: &'a [Event]) -> Self {
        let requests = Requests::of(events);
        let mut outages: Vec<Outage> = events.iter().filter_map(|event| event.outage).collect();
        outages.sort_by_key(|outage| outage.from);
        let mut facts = Facts {
            broken: requests.broken,
            jumps: requests.jumps,
            slack: requests.slack,
            outages,
            ..Facts::default()
        };
        let mut tokens: HashMap<&str, (&str, usize)> = HashMap::new();
        for request in &requests.all {
            facts.work.step();
            facts.unknown += usize::from(matches!(request.end, End::Unknown));
            if let Call::Cancel { id } = request.call {
                facts.cancelled.insert(id);
            }
            facts.submit(request);
            facts.claim(request, &mut tokens);
            facts.read(request);
        }
        facts.reports(&requests.all, &tokens);
        let Facts { work, tasks, .. } = &mut facts;
        for task in tasks.values_mut() {
            work.sort(&mut task.leases, |lease| (lease.order, lease.granted.from));
        }
        facts
    }

    fn task(&mut self, id: &'a str, name: Option<&'a str>) -> &mut Task<'a> {
        self.work.step();
        let task = self.tasks.entry(id).or_insert_with(|| Task { id, ..Task::default() });
        task.names.extend(name.filter(|name| !task.names.contains(name)));
        task
    }

    fn submit(&mut self, request: &Request<'a>) {
        let Call::Submit { queue, items } = request.call else { return };
        let outcomes = match request.end {
            End::Ok(_, Answer::Submitted(outcomes)) => outcomes.as_slice(),
            _ => &[],
        };
        for (place, item) in items.iter().enumerate() {
            self.work.step();
            let outcome = outcomes.get(place);
            let refused = matches!(request.end, End::Refused) || matches!(outcome, Some(Outcome::Fail(_)));
            let known = self.submitted.entry(&item.name).or_insert_with(|| Submitted {
                item,
                queue,
                first: request.first.from,
                by: None,
                refused: true,
                batch: None,
                slot: 0,
                ids: Vec::new(),
            });
            known.refused &= refused;
            let End::Ok(at, _) = request.end else { continue };
            match outcome {
                Some(Outcome::Created { id, slot }) => {
                    known.by = Some(known.by.map_or(at.to, |by| by.min(at.to)));
                    known.slot = *slot;
                    known.batch = (!request.repeated).then_some((request.op, place));
                    if !known.ids.contains(&id.as_str()) {
                        known.ids.push(id);
                    }
                    self.task(id, Some(&item.name)).queue = queue;
                }
                Some(Outcome::Kept { id }) => {
                    let key = item.dedupe.as_deref().unwrap_or_default();
                    self.kept.push(Kept { id, queue, key, from: request.first.from, to: at.to });
                    self.task(id, None);
                }
                _ => {}
            }
        }
    }

    fn claim(&mut self, request: &Request<'a>, tokens: &mut HashMap<&'a str, (&'a str, usize)>) {
        let (lease_ms, claimed): (i64, &'a [Claimed]) = match (request.call, request.end) {
            (Call::Claim { lease_ms, .. }, End::Ok(_, Answer::Claimed(tasks))) => (*lease_ms, tasks),
            (Call::Complete { lease_ms: Some(ms), .. }, End::Ok(_, Answer::Ended { tasks, .. })) => (*ms, tasks),
            _ => return,
        };
        let End::Ok(at, _) = request.end else { return };
        // An outage may have prolonged the lease before the reply.
        let is_prolonged = self.outages.iter().any(|outage| outage.until * 1000 >= request.first.from);
        let mut reused = Vec::new();
        for Claimed { id, name, token, until, attempt } in claimed {
            let task = self.task(id, Some(name));
            if let Some((before, op)) = tokens.get(token.as_str()) {
                if (*before, *op) != (id.as_str(), request.op) {
                    reused.push(format!("{token} was granted for {before} and for {id}"));
                }
                continue;
            }
            tokens.insert(token, (id, request.op));
            // Scripts read the clock in whole ms; `until` is one lease after that, or later if heartbeats extended
            // it.
            let begin = (until - lease_ms) * 1000;
            let known = if request.repeated || is_prolonged { i64::MIN } else { begin - request.slack };
            task.leases.push(Lease {
                token,
                order: at.to.min(begin + 1000),
                granted: Moment { from: request.first.from.max(known), to: at.to.min(begin + 1000 + request.slack) },
                until: until * 1000,
                lease_us: lease_ms * 1000,
                revocable: request.repeated,
                attempt: *attempt,
                reports: Vec::new(),
            });
        }
        self.reused.extend(reused);
    }

    fn read(&mut self, request: &Request<'a>) {
        match (request.call, request.end) {
            (Call::Counts { queue }, End::Ok(at, Answer::Counts(counts))) => {
                self.samples.push(Sample { queue, from: request.invoked.from, to: at.to, counts: *counts });
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

    fn reports(&mut self, requests: &[Request<'a>], tokens: &HashMap<&'a str, (&'a str, usize)>) {
        let mut ops: HashMap<usize, (&str, &str, Report<'a>)> = HashMap::new();
        for request in requests {
            self.work.step();
            let (verb, id, token, result, retry) = match request.call {
                Call::Complete { id, token, result, .. } => (Verb::Complete, id, token, Some(result.as_str()), true),
                Call::Fail { id, token, retry } => (Verb::Fail, id, token, None, *retry),
                Call::Release { id, token } => (Verb::Release, id, token, None, true),
                Call::Heartbeat { id, token } => (Verb::Heartbeat, id, token, None, true),
                _ => continue,
            };
            let first = request.first.from;
            let fresh =
                || Report { verb, first, accepted: None, refused: true, unknown: 0, result, run_at: None, retry };
            let (_, _, report) = ops.entry(request.op).or_insert_with(|| (id, token, fresh()));
            report.refused &= matches!(request.end, End::Refused);
            match request.end {
                End::Ok(at, Answer::Ended { run_at, .. }) => {
                    report.accepted = Some(at.to);
                    report.run_at = run_at.map(|ms| ms * 1000);
                }
                End::Ok(at, Answer::Held { until }) => {
                    report.accepted = Some(at.to);
                    // Kept here until the lease is known.
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
