//! Order within a key.

use std::collections::HashMap;

use super::facts::{Facts, Submitted, Task};

/// A task that was ready at once: the times of its submit and of its first delivery.
struct Place<'a> {
    id: &'a str,
    submitted: (i64, i64),
    batch: Option<(usize, usize)>,
    granted: (i64, i64),
    /// Every delivery was seen, so the first known one is the first.
    certain: bool,
}

fn place<'a>(task: &Task<'a>, submitted: &Submitted<'a>) -> Option<Place<'a>> {
    let first = task.leases.first()?;
    let seen = task.read.is_some_and(|read| read.acquired as usize == task.leases.len());
    Some(Place {
        id: task.id,
        submitted: (submitted.first, submitted.by?),
        batch: submitted.batch,
        granted: (first.granted.from, first.granted.to),
        // A delayed task takes its position when it becomes ready.
        certain: seen && first.attempt == 1 && submitted.item.delay_ms == 0,
    })
}

/// Guarantees: of one key and priority, and without a key within a slot and a priority, tasks are first delivered in the order of their submits.
///
/// The order of two tasks is known if one submit was answered before the other was sent, or if both came in one batch.
/// The later task must not certainly have been delivered before the first delivery of the earlier one. Tasks with
/// unseen deliveries are left out: their turn may have come before.
pub(super) fn keys_are_in_order(facts: &Facts<'_>) -> Vec<String> {
    let mut keys: HashMap<(&str, u8, u16, Option<&str>), Vec<Place<'_>>> = HashMap::new();
    for task in facts.tasks.values() {
        facts.work.step();
        let Some(submitted) = task.names.first().and_then(|name| facts.submitted.get(name)) else { continue };
        let item = submitted.item;
        // A task without a key has its dedupe key as its routing key.
        let key = item.key.as_deref().or(item.dedupe.as_deref());
        let places = keys.entry((task.queue, item.priority, submitted.slot, key)).or_default();
        places.extend(place(task, submitted));
    }
    let mut found = Vec::new();
    for places in keys.values_mut() {
        check_single_submits(facts, places, &mut found);
        check_batches(facts, places, &mut found);
    }
    found
}

/// Visits submits in the order of their requests, and in parallel those that were answered by then. A task must not
/// have been delivered before the latest first delivery of the answered ones.
fn check_single_submits(facts: &Facts<'_>, places: &mut [Place<'_>], found: &mut Vec<String>) {
    facts.work.sort(places, |place| place.submitted.0);
    let mut answered: Vec<usize> = (0..places.len()).filter(|at| places[*at].certain).collect();
    facts.work.sort(&mut answered, |at| places[*at].submitted.1);
    let mut answered = answered.into_iter().peekable();
    let mut latest: Option<&Place<'_>> = None;
    for place in places.iter() {
        facts.work.step();
        while let Some(earlier) = answered.next_if(|at| places[*at].submitted.1 < place.submitted.0) {
            facts.work.step();
            if latest.is_none_or(|latest| latest.granted.0 < places[earlier].granted.0) {
                latest = Some(&places[earlier]);
            }
        }
        compare(latest, place, found);
    }
}

fn check_batches(facts: &Facts<'_>, places: &mut [Place<'_>], found: &mut Vec<String>) {
    facts.work.sort(places, |place| place.batch);
    let mut latest: Option<&Place<'_>> = None;
    for place in places.iter().filter(|place| place.batch.is_some()) {
        facts.work.step();
        if latest.is_some_and(|latest| latest.batch.map(|(op, _)| op) != place.batch.map(|(op, _)| op)) {
            latest = None;
        }
        compare(latest, place, found);
        if place.certain && latest.is_none_or(|latest| latest.granted.0 < place.granted.0) {
            latest = Some(place);
        }
    }
}

fn compare(earlier: Option<&Place<'_>>, place: &Place<'_>, found: &mut Vec<String>) {
    if let Some(earlier) = earlier
        && place.granted.1 < earlier.granted.0
    {
        found.push(format!("task {} was delivered before {}, which was submitted before it", place.id, earlier.id));
    }
}
