//! Leases, tokens, attempts.

use super::facts::{Facts, Lease, Report, Task, Verb};

/// Guarantees: no two leases of a task lived at one time.
///
/// A lease that certainly lived at some moment, and another that certainly lived or was certainly granted at that
/// moment, are too many.
pub(super) fn leases_are_apart(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        let mut longest: Option<&Lease<'_>> = None;
        for lease in &task.leases {
            facts.work.step();
            let (from, to) = lease.certain();
            if let Some(before) = longest {
                let (began, ends) = before.certain();
                if from < ends && (to > from || lease.granted.from >= began) {
                    found.push(format!(
                        "task {}: the lease {} lived until {ends}, and {} was granted by {from}",
                        task.id, before.token, lease.token
                    ));
                }
            }
            if longest.is_none_or(|before| before.certain().1 < to) {
                longest = Some(lease);
            }
        }
    }
    found
}

/// Guarantees: no task was handed out before its time: the delay of its submit, or the `run_at` that a report was
/// answered with.
///
/// Scripts read the clock in whole ms, so a delay may end up to 1 ms earlier than it is long.
pub(super) fn nothing_is_early(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        let submitted = task.names.first().and_then(|name| facts.submitted.get(name));
        let mut not_before = i64::MIN;
        if let Some(submitted) = submitted.filter(|submitted| submitted.item.delay_ms > 0) {
            not_before = submitted.first + (submitted.item.delay_ms - 1) * 1000;
        }
        for lease in &task.leases {
            facts.work.step();
            if lease.granted.to <= not_before {
                found.push(format!("task {}: {} was granted before {not_before}", task.id, lease.token));
            }
            not_before = lease.reports.iter().filter_map(|report| report.run_at).max().unwrap_or(i64::MIN);
        }
    }
    found
}

/// Guarantees: no token was given twice, and none was good for a task that it was not given for.
pub(super) fn tokens_are_fresh(facts: &Facts<'_>) -> Vec<String> {
    facts.reused.clone()
}

/// The least and the most that a lease can have added to the attempts: a failure or a lease that ran out is one, a
/// completion or a release none.
fn counted(lease: &Lease<'_>, task: &Task<'_>) -> (u32, u32) {
    let result = task.read.and_then(|read| read.result.as_deref());
    let is = |verb: Verb| lease.reports.iter().filter(move |report| report.verb == verb);
    let accepted = |report: &Report<'_>| report.accepted.is_some();
    if is(Verb::Complete).any(|report| accepted(report) || (report.unknown > 0 && report.result == result)) {
        return (0, 0);
    }
    if is(Verb::Fail).any(accepted) {
        return (1, 1);
    }
    if is(Verb::Release).any(accepted) {
        return (0, 0);
    }
    // Given back by the worker or by the server, or run out.
    let given_back = lease.revocable || is(Verb::Release).any(|report| report.unknown > 0);
    // Whether a failure was accepted or the lease ran out before it was makes no difference.
    if given_back { (0, 1) } else { (1, 1) }
}

/// Guarantees: attempts are the executions that failed or ran out, no more and no fewer; a task is dead when they are
/// used up, or when a failure said so; hand-outs that no client was told of may or may not have been one.
pub(super) fn attempts_are_counted(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        let Some(read) = task.read else { continue };
        let seen = u32::try_from(task.leases.len()).expect("a number of leases");
        let Some(unseen) = read.acquired.checked_sub(seen) else {
            found.push(format!("task {}: handed out {} times, {seen} times seen", task.id, read.acquired));
            continue;
        };
        let (mut least, mut most, mut last) = (0, 0, false);
        for lease in &task.leases {
            facts.work.step();
            let before = lease.attempt.saturating_sub(1);
            if before < least || before > most + unseen {
                found.push(format!("task {}: {} is attempt {}", task.id, lease.token, lease.attempt));
            }
            let (at_least, at_most) = counted(lease, task);
            (least, most) = (least + at_least, most + at_most);
            last |= lease.reports.iter().any(|report| report.verb == Verb::Fail && !report.retry && !report.refused);
        }
        if read.attempts < least || read.attempts > most + unseen || read.attempts > read.max_attempts {
            found.push(format!("task {}: {} attempts, of {least} to {}", task.id, read.attempts, most + unseen));
        }
        if read.state == "dead" && read.attempts < read.max_attempts && !last {
            found.push(format!("task {}: dead after {} of {}", task.id, read.attempts, read.max_attempts));
        }
    }
    found
}

/// Guarantees: a report whose token was certainly dead when it was first sent was not accepted, and left no result.
///
/// A token is certainly dead once its lease has run out (by its last known end, and later by a lease for each heartbeat
/// that was never answered), once another lease of the task was granted, or once another verb has ended it. The same
/// verb repeated is answered as before, so what counts is when it was first sent.
pub(super) fn stale_tokens_change_nothing(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        let result = task.read.and_then(|read| read.result.as_deref());
        for (place, lease) in task.leases.iter().enumerate() {
            let next = task.leases.get(place + 1).filter(|next| next.granted.from >= lease.granted.to);
            let dead = lease.ran_out().min(next.map_or(i64::MAX, |next| next.granted.to));
            // The first sending of each verb, and the first time that another verb was known to have ended the lease.
            let ended_by = |verb: Verb| {
                let others = lease.reports.iter().filter(|other| other.verb != verb && other.verb != Verb::Heartbeat);
                others.filter_map(|other| other.accepted).min().unwrap_or(i64::MAX)
            };
            for report in &lease.reports {
                facts.work.step();
                let took_effect = report.accepted.is_some() || (report.result.is_some() && report.result == result);
                if !took_effect {
                    continue;
                }
                let same = lease.reports.iter().filter(|other| other.verb == report.verb);
                let first = match report.verb {
                    Verb::Heartbeat => report.first,
                    _ => same.map(|other| other.first).min().unwrap_or(report.first),
                };
                if first > dead.min(ended_by(report.verb)) {
                    found.push(format!("task {}: {:?} with {} was too late", task.id, report.verb, lease.token));
                } else if report.refused {
                    found.push(format!("task {}: a refused completion with {} left its result", task.id, lease.token));
                }
            }
        }
    }
    found
}
