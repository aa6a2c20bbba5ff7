//! Checks recorded histories: whether the replies to clients are possible for a dispatcher that keeps its guarantees.
//!
//! Only certain facts count. Each event has the times of its request and of its reply; its effect happened at some time
//! between. A request without a reply took effect at any later time, or never. A finding means that no order of all
//! effects is correct.
//!
//! Every check only sorts and hashes, so twice the history takes about twice the work (`scaling`). Every check has a
//! history that it alone rejects, and a valid neighbour of it (`violations`).

pub mod clock;
mod counts;
pub mod event;
mod facts;
mod leases;
mod order;
mod requests;
mod scaling;
mod tasks;
mod violations;

use std::io::BufRead;

use event::Event;
use facts::Facts;

/// The invariants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    Lost,
    CompletedOnce,
    LeasesApart,
    NotEarly,
    Attempts,
    Order,
    TokensFresh,
    StaleTokens,
    Conservation,
    Submitted,
    Dedupe,
    Unknown,
    ClockKeepsPace,
}

type Check = fn(&Facts<'_>) -> Vec<String>;

/// The invariants and their checks.
pub const CHECKS: [(Invariant, Check); 13] = [
    (Invariant::Lost, tasks::tasks_are_not_lost),
    (Invariant::CompletedOnce, tasks::completed_once),
    (Invariant::LeasesApart, leases::leases_are_apart),
    (Invariant::NotEarly, leases::delays_are_kept),
    (Invariant::Attempts, leases::attempts_are_counted),
    (Invariant::Order, order::keys_are_in_order),
    (Invariant::TokensFresh, leases::tokens_are_fresh),
    (Invariant::StaleTokens, leases::stale_tokens_change_nothing),
    (Invariant::Conservation, counts::counts_add_up),
    (Invariant::Submitted, tasks::content_was_submitted),
    (Invariant::Dedupe, tasks::dedupe_keys_are_held),
    (Invariant::Unknown, tasks::unknown_stays_unknown),
    (Invariant::ClockKeepsPace, clock::clock_keeps_pace),
];

/// One violation of an invariant.
#[derive(Clone, Debug)]
pub struct Finding {
    pub invariant: Invariant,
    pub text: String,
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    /// Requests with an unknown outcome.
    pub unknown: usize,
    /// Tasks, and leases seen by clients.
    pub tasks: usize,
    pub leases: usize,
    /// The longest jump of the shard's clock in µs, forward or back.
    pub longest_jump_us: i64,
    /// Steps of the checker.
    pub steps: u64,
}

impl Verdict {
    pub fn of(&self, invariant: Invariant) -> usize {
        self.findings.iter().filter(|finding| finding.invariant == invariant).count()
    }
}

/// Reads lines.
pub fn read(lines: impl BufRead) -> Vec<Event> {
    let lines = lines.lines().map(|line| line.expect("a history that can be read"));
    let lines = lines.filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

/// Checks every invariant.
pub fn check(events: &[Event]) -> Verdict {
    let facts = Facts::of(events);
    let mut verdict = Verdict { unknown: facts.unknown, tasks: facts.tasks.len(), ..Verdict::default() };
    verdict.leases = facts.tasks.values().map(|task| task.leases.len()).sum();
    verdict.longest_jump_us = facts.jumps.iter().map(|(_, _, by)| by.abs()).max().unwrap_or_default();
    for (invariant, check) in CHECKS {
        let found = check(&facts);
        verdict.findings.extend(found.into_iter().map(|text| Finding { invariant, text }));
    }
    verdict.steps = facts.work.steps();
    verdict
}
