//! Order within a slot.

use std::collections::HashMap;

use super::facts::{Facts, Submitted, Task};

/// A task that was ready at once: when it was stored, and when it was first handed out.
struct Place<'a> {
    id: &'a str,
    submitted: (i64, i64),
    batch: Option<(usize, usize)>,
    granted: (i64, i64),
    /// Every hand-out was seen: nobody had it before the first that is known.
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
        // One that waited for its time took its place when that came.
        certain: seen && first.attempt == 1 && submitted.item.delay_ms == 0,
    })
}

/// Guarantees: within a slot and a priority tasks are first handed out in the order of their submits.
///
/// Of two tasks the order is known if one's submit was answered before the other's was sent, or if both came in one
/// batch. The later one may not have been handed out, for certain, before the earlier one was for the first time. Those
/// with hand-outs that nobody saw are left out: they may have had their turn before.
pub(super) fn slots_are_in_order(facts: &Facts<'_>) -> Vec<String> {
    let mut slots: HashMap<(&str, u8, u16), Vec<Place<'_>>> = HashMap::new();
    for task in facts.tasks.values() {
        facts.work.step();
        let Some(submitted) = task.names.first().and_then(|name| facts.submitted.get(name)) else { continue };
        let slot = slots.entry((task.queue, submitted.item.priority, submitted.slot)).or_default();
        slot.extend(place(task, submitted));
    }
    let mut found = Vec::new();
    for places in slots.values_mut() {
        singly(facts, places, &mut found);
        in_batches(facts, places, &mut found);
    }
    found
}

/// Goes through the submits by their sending, and through their answers beside it: the latest first hand-out of all
/// that were answered by then is the one that a task must not have come before.
fn singly(facts: &Facts<'_>, places: &mut [Place<'_>], found: &mut Vec<String>) {
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
        report(latest, place, found);
    }
}

fn in_batches(facts: &Facts<'_>, places: &mut [Place<'_>], found: &mut Vec<String>) {
    facts.work.sort(places, |place| place.batch);
    let mut latest: Option<&Place<'_>> = None;
    for place in places.iter().filter(|place| place.batch.is_some()) {
        facts.work.step();
        if latest.is_some_and(|latest| latest.batch.map(|(op, _)| op) != place.batch.map(|(op, _)| op)) {
            latest = None;
        }
        report(latest, place, found);
        if place.certain && latest.is_none_or(|latest| latest.granted.0 < place.granted.0) {
            latest = Some(place);
        }
    }
}

fn report(earlier: Option<&Place<'_>>, place: &Place<'_>, found: &mut Vec<String>) {
    if let Some(earlier) = earlier
        && place.granted.1 < earlier.granted.0
    {
        found.push(format!("task {} was handed out before {}, which had come before it", place.id, earlier.id));
    }
}
