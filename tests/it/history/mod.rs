//! Checks recorded histories: whether what clients were told can be true of a dispatcher that keeps its promises.
//!
//! Only what is certain counts. Each event has the moment of its sending and of its answer, and what it did happened
//! somewhere between; what was never answered happened at any later time, or never. A finding means that no order of
//! all that would have been right; what might have been right is none.
//!
//! Every check sorts and hashes, no more: twice the history is about twice the work (`growing`). Every check has a
//! history that it alone refuses, and its neighbour that is sound (`refusing`).

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

/// What must hold.
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
}

type Check = fn(&Facts<'_>) -> Vec<String>;

/// The invariants, and what checks each.
pub const CHECKS: [(Invariant, Check); 12] = [
    (Invariant::Lost, tasks::nothing_is_lost),
    (Invariant::CompletedOnce, tasks::completed_once),
    (Invariant::LeasesApart, leases::leases_are_apart),
    (Invariant::NotEarly, leases::nothing_is_early),
    (Invariant::Attempts, leases::attempts_are_counted),
    (Invariant::Order, order::slots_are_in_order),
    (Invariant::TokensFresh, leases::tokens_are_fresh),
    (Invariant::StaleTokens, leases::stale_tokens_change_nothing),
    (Invariant::Conservation, counts::counts_add_up),
    (Invariant::Submitted, tasks::all_was_submitted),
    (Invariant::Dedupe, tasks::dedupe_keys_are_held),
    (Invariant::Unknown, tasks::unknown_stays_unknown),
];

/// What is wrong with a history.
#[derive(Clone, Debug)]
pub struct Finding {
    pub invariant: Invariant,
    pub text: String,
}

/// What a check saw.
#[derive(Debug, Default)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    /// Sendings whose outcome nobody knows.
    pub unknown: usize,
    /// Tasks, and leases of them that a client was told of.
    pub tasks: usize,
    pub leases: usize,
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
    for (invariant, check) in CHECKS {
        let found = check(&facts);
        verdict.findings.extend(found.into_iter().map(|text| Finding { invariant, text }));
    }
    verdict.steps = facts.work.steps();
    verdict
}
