//! Tasks: submitted, ended, deduplicated.

use std::collections::HashMap;

use super::facts::{Facts, Task, Verb};

/// Guarantees: a task whose submit was accepted exists at the end, and has ended.
pub(super) fn tasks_are_not_lost(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, submitted) in &facts.submitted {
        facts.work.step();
        if !facts.read.contains_key(submitted.queue) {
            continue;
        }
        for id in &submitted.ids {
            if facts.tasks.get(id).is_none_or(|task| task.read.is_none()) {
                found.push(format!("task {id}, submitted as {name}, is missing"));
            }
        }
    }
    for read in facts.tasks.values().filter_map(|task| task.read) {
        facts.work.step();
        if matches!(read.state.as_str(), "scheduled" | "ready" | "leased") {
            found.push(format!("task {} never ends: it is {}", read.id, read.state));
        }
    }
    found
}

/// Guarantees: at most one completion of a task was accepted, its result is stored, and the task was not delivered
/// after it.
pub(super) fn completed_once(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        let mut accepted = Vec::new();
        for lease in &task.leases {
            let completions = lease.reports.iter().filter(|report| report.verb == Verb::Complete);
            for report in completions {
                facts.work.step();
                accepted.extend(report.accepted.map(|by| (by, lease.token, report.result)));
            }
        }
        facts.work.sort(&mut accepted, |(by, _, _)| *by);
        let Some((by, token, _)) = accepted.first().copied() else { continue };
        if let Some((_, other, _)) = accepted.iter().find(|(_, other, _)| *other != token) {
            found.push(format!("task {}: completed with {token} and with {other}", task.id));
        }
        if let Some(read) = task.read {
            let stands = accepted.iter().any(|(_, _, result)| *result == read.result.as_deref());
            if read.state != "completed" || !stands {
                found.push(format!("task {}: completed, and then {} {:?}", task.id, read.state, read.result));
            }
        }
        for lease in task.leases.iter().filter(|lease| lease.granted.from > by) {
            found.push(format!("task {}: {} was granted after its completion", task.id, lease.token));
        }
    }
    found
}

/// Guarantees: delivered and read tasks have the payloads and results that clients sent.
pub(super) fn content_was_submitted(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for task in facts.tasks.values() {
        facts.work.step();
        for name in &task.names {
            match facts.submitted.get(name) {
                Some(submitted) if submitted.queue == task.queue || task.queue.is_empty() => {}
                Some(submitted) => found.push(format!("task {}: {name} was for {}", task.id, submitted.queue)),
                None => found.push(format!("task {}: {name} was never submitted", task.id)),
            }
        }
        if task.names.len() > 1 {
            found.push(format!("task {} has several names: {:?}", task.id, task.names));
        }
        if let Some(result) = task.read.and_then(|read| read.result.as_deref()) {
            let mut reports = task.leases.iter().flat_map(|lease| &lease.reports);
            if !reports.any(|report| report.result == Some(result)) {
                found.push(format!("task {}: the result {result} was never sent", task.id));
            }
        }
    }
    found
}

/// Start and end of a task's hold on its key, in ms, and the task's id.
type Holder<'a> = (i64, i64, &'a str);

/// Returns the time in ms at which a task's last lease expired, if no attempt follows it. From then on, a submit with its
/// dedupe key creates its successor, which waits for its end. A delivery that no client saw has an unknown lease.
fn last_lease_expires(task: &Task<'_>) -> Option<i64> {
    let read = task.read.filter(|read| read.attempts + 1 >= read.max_attempts)?;
    let seen = task.leases.len() == read.acquired as usize;
    Some(if seen { task.leases.iter().map(|lease| lease.until / 1000).max()? } else { i64::MIN })
}

/// Guarantees: a dedupe key is held from its task's submit to its end, by the shard's clock, exact to the ms unless that
/// clock fell. Of two tasks with one key, the second was created after the first had ended, or when it had lost its last
/// lease. A submit that returned the holder did so while that task may have held the key.
pub(super) fn dedupe_keys_are_held(facts: &Facts<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut held: HashMap<(&str, &str), Vec<Holder<'_>>> = HashMap::new();
    let mut of: HashMap<&str, (&str, i64, i64)> = HashMap::new();
    for task in facts.tasks.values() {
        facts.work.step();
        let submitted = task.names.first().and_then(|name| facts.submitted.get(name));
        let (Some(submitted), Some(read)) = (submitted, task.read) else { continue };
        let Some(key) = submitted.item.dedupe.as_deref() else { continue };
        let end = read.finished_at.unwrap_or(i64::MAX / 1000 - 1);
        held.entry((task.queue, key)).or_default().push((read.created_at, end, task.id));
        of.insert(task.id, (key, read.created_at, end));
    }
    for ((queue, key), holders) in &mut held {
        facts.work.sort(holders, |(from, to, _)| (*from, *to));
        for pair in holders.windows(2) {
            facts.work.step();
            let ((_, ended, first), (began, _, second)) = (pair[0], pair[1]);
            // A leased task whose cancellation was requested has a successor, which is created before its end.
            let has_successor = facts.cancelled.contains(first)
                || facts.tasks.get(first).and_then(last_lease_expires).is_some_and(|expired| expired <= began);
            if began + facts.slack / 1000 < ended && !has_successor {
                found.push(format!("{key} of {queue}: held by {first} when {second} was created"));
            }
        }
    }
    for kept in &facts.kept {
        facts.work.step();
        let Some((key, from, to)) = of.get(kept.id) else {
            if facts.tasks.get(kept.id).is_some_and(|task| task.read.is_some()) {
                found.push(format!("{} of {}: returned {}, which has no key", kept.key, kept.queue, kept.id));
            }
            continue;
        };
        // The last ms of a task may be the first of its successor.
        if *key != kept.key || from * 1000 > kept.to || (to + 1) * 1000 < kept.from {
            found.push(format!("{} of {}: returned {}, which did not hold it", kept.key, kept.queue, kept.id));
        }
    }
    found
}

/// Guarantees: an unknown operation took effect at most once, a rejected one did not, and no request has two ends.
pub(super) fn unknown_stays_unknown(facts: &Facts<'_>) -> Vec<String> {
    let mut found = facts.broken.clone();
    let mut made: HashMap<&str, &str> = HashMap::new();
    for task in facts.tasks.values() {
        for name in &task.names {
            facts.work.step();
            if let Some(other) = made.insert(name, task.id) {
                found.push(format!("{name} became {other} and {}", task.id));
            }
            if facts.submitted.get(name).is_some_and(|submitted| submitted.refused) {
                found.push(format!("{name} was rejected and is task {}", task.id));
            }
        }
    }
    found
}
