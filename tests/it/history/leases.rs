//! Leases, tokens, attempts.

use super::facts::{Facts, Lease, Report, Task, Verb};

/// Guarantees: no two leases of a task were live at one time.
///
/// A violation is a lease that certainly was live at a moment at which another certainly was live or was granted.
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
                        "task {}: the lease {} was live until {ends}, and {} was granted by {from}",
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

/// Guarantees: no task was delivered before its time: the end of its submit's delay, or the `run_at` of a report's
/// reply.
///
/// Scripts read the clock in whole ms, so a delay may be up to 1 ms shorter than requested.
pub(super) fn delays_are_kept(facts: &Facts<'_>) -> Vec<String> {
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

/// Guarantees: no token was granted twice, and none was accepted for another task than its own.
pub(super) fn tokens_are_fresh(facts: &Facts<'_>) -> Vec<String> {
    facts.reused.clone()
}

/// The smallest and largest number of attempts that a lease can have counted: a failure or an expired lease counts one,
/// a completion or a release none.
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
    // Released by the worker or by the server, or expired.
    let may_be_released = lease.revocable || is(Verb::Release).any(|report| report.unknown > 0);
    // A failure and an expired lease count alike.
    if may_be_released { (0, 1) } else { (1, 1) }
}

/// Guarantees: attempts are the executions that failed or whose lease expired. A task is dead if its attempts are used
/// up, or if a failure was not retryable. A delivery that no client saw may or may not have counted.
pub(super) fn attempts_are_counted(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        let Some(read) = task.read else { continue };
        let seen = u32::try_from(task.leases.len()).expect("a number of leases");
        let Some(unseen) = read.acquired.checked_sub(seen) else {
            found.push(format!("task {}: delivered {} times, seen {seen} times", task.id, read.acquired));
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

/// Guarantees: a report whose token certainly was dead when the report was first sent was not accepted, and stored no
/// result.
///
/// A token certainly is dead once its lease has expired (by its last known end, extended by each heartbeat without a
/// reply and prolonged by outages), once another lease of the task was granted, or once another kind of report has ended it. A repeated report
/// gets its first reply, so its first request counts.
pub(super) fn stale_tokens_change_nothing(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        let result = task.read.and_then(|read| read.result.as_deref());
        for (place, lease) in task.leases.iter().enumerate() {
            let next = task.leases.get(place + 1).filter(|next| next.granted.from >= lease.granted.to);
            let dead = lease.expired_at(&facts.outages).min(next.map_or(i64::MAX, |next| next.granted.to));
            // The first request of each kind, and the earliest time at which another kind was known to have ended the
            // lease.
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
                    found.push(format!(
                        "task {}: a rejected completion with {} stored its result",
                        task.id, lease.token
                    ));
                }
            }
        }
    }
    found
}
