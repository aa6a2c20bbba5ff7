//! Counts of queues.

use std::collections::HashMap;

use super::event::Counts;
use super::facts::{Facts, Verb};

const ENDED: [&str; 4] = ["completed", "dead", "cancelled", "expired"];

/// Guarantees: at every sample, a queue's tasks add up to its submits. The numbers of submitted and completed tasks are
/// at least those that clients had seen by then, and at most those that clients had sent. At the end, the counts are
/// those of the existing tasks.
pub(super) fn counts_add_up(facts: &Facts<'_>) -> Vec<String> {
    let mut bounds: HashMap<&str, [Times; 2]> = HashMap::new();
    for submitted in facts.submitted.values() {
        facts.work.step();
        let [stored, _] = bounds.entry(submitted.queue).or_default();
        stored.sent.push(submitted.first);
        stored.known.extend(submitted.by);
    }
    let mut existing: HashMap<&str, HashMap<&str, i64>> = HashMap::new();
    for task in facts.tasks.values() {
        facts.work.step();
        let completions = task.leases.iter().flat_map(|lease| &lease.reports);
        let completions = completions.filter(|report| report.verb == Verb::Complete && !report.refused);
        let [_, completed] = bounds.entry(task.queue).or_default();
        completed.sent.extend(completions.clone().map(|report| report.first).min());
        completed.known.extend(completions.filter_map(|report| report.accepted).min());
        if let Some(read) = task.read {
            *existing.entry(task.queue).or_default().entry(read.state.as_str()).or_default() += 1;
        }
    }
    for times in bounds.values_mut().flatten() {
        facts.work.sort(&mut times.sent, |time| *time);
        facts.work.sort(&mut times.known, |time| *time);
    }
    let mut found = Vec::new();
    for sample in &facts.samples {
        facts.work.step();
        let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, deleted } =
            sample.counts;
        let sum = scheduled + ready + leased + completed + dead + cancelled + expired + deleted;
        if submitted != sum {
            found.push(format!("{} at {}: {submitted} submitted, sum of states {sum}", sample.queue, sample.from));
        }
        if let Some([stored, done]) = bounds.get(sample.queue) {
            for (what, count, gone, times) in
                [("submitted", submitted, 0, stored), ("completed", completed, deleted, done)]
            {
                let known = times.known.partition_point(|time| *time < sample.from) as i64;
                let sent = times.sent.partition_point(|time| *time <= sample.to) as i64;
                if count + gone < known || count > sent {
                    found.push(format!("{} at {}: {count} {what}, of {known} to {sent}", sample.queue, sample.from));
                }
            }
        }
        if facts.read.get(sample.queue).is_some_and(|read| *read < sample.from) {
            let existing = existing.get(sample.queue);
            let of = |state: &str| existing.and_then(|states| states.get(state)).copied().unwrap_or_default();
            for (state, count) in ENDED.into_iter().zip([completed, dead, cancelled, expired]) {
                if count != of(state) {
                    found.push(format!("{}: counted {count} {state}, found {}", sample.queue, of(state)));
                }
            }
        }
    }
    found
}

/// Earliest times of an event, and times by which it was known.
#[derive(Default)]
struct Times {
    sent: Vec<i64>,
    known: Vec<i64>,
}
