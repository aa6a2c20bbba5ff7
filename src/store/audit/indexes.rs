//! Compares what was read: tasks against indexes, both ways, and counters against both.

use std::collections::HashMap;

use super::scan::{Content, QueueIndexes, Seen};
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::store::views::queues::Counts;

/// All that does not fit.
pub(super) fn check(content: &Content) -> Vec<String> {
    let mut findings = content.unreadable.clone();
    for (id, task) in &content.tasks {
        let mut wrong =
            |what: String| findings.push(format!("task {id} ({}, queue {}) {what}", task.state, task.queue));
        task_stands(id, task, content, &mut wrong);
    }
    for (name, queue) in &content.queues {
        let mut wrong = |what: String| findings.push(format!("queue {name} {what}"));
        queue_stands(name, queue, content, &mut wrong);
    }
    global_indexes(content, &mut findings);
    findings
}

/// The task is where its state says, and nowhere else.
fn task_stands(id: &TaskId, task: &Seen, content: &Content, wrong: &mut impl FnMut(String)) {
    let Some(queue) = content.queues.get(&task.queue) else { return };
    let place = (task.priority, task.slot.number());
    let in_slot = queue.slots.get(&place).and_then(|slot| slot.get(id));
    match (task.state == State::Ready, in_slot) {
        (true, None) => wrong(format!("is not in slot queue {}:{}", place.0, place.1)),
        (true, Some(seq)) if *seq != task.seq => wrong(format!("stands at {seq} and not at its own {}", task.seq)),
        (false, Some(_)) => wrong("is in a slot queue".into()),
        _ => {}
    }
    let mut at = |index: &str, entry: Option<&i64>, wanted: Option<Option<i64>>| match (entry, wanted) {
        (None, Some(_)) => wrong(format!("is not in {index}")),
        (Some(_), None) => wrong(format!("is in {index}")),
        (Some(score), Some(time)) if Some(*score) != time => {
            wrong(format!("stands in {index} at {score}, not {time:?}"))
        }
        _ => {}
    };
    let when = |state: State, time: Option<i64>| (task.state == state).then_some(time);
    at("scheduled", queue.scheduled.get(id), when(State::Scheduled, task.run_at));
    at("leased", queue.leased.get(id), when(State::Leased, task.lease_until));
    for state in State::ALL.into_iter().filter(|state| state.has_ended()) {
        let entry = queue.ended.get(state.as_str()).and_then(|ended| ended.get(id));
        at(state.as_str(), entry, when(state, task.finished_at));
    }
    let waits = matches!(task.state, State::Scheduled | State::Ready);
    at("deadline", content.deadline.get(id), task.expires_at.filter(|_| waits).map(Some));
    match (task.state.has_ended(), content.retain.get(id)) {
        (true, None) => wrong("has no time to be dropped at".into()),
        (false, Some(_)) => wrong("has a time to be dropped at".into()),
        _ => {}
    }
    if let Some(claim) = task.claim.as_ref().filter(|_| task.state == State::Leased)
        && !content.claims.get(claim).is_some_and(|ids| ids.contains(id))
    {
        wrong("is not in the record of its claim id".into());
    }
}

fn queue_stands(name: &QueueName, queue: &QueueIndexes, content: &Content, wrong: &mut impl FnMut(String)) {
    let known = |id: &TaskId| content.tasks.get(id).is_some_and(|task| task.queue == *name);
    for (place, ids) in &queue.slots {
        for id in ids.keys().filter(|id| !known(id)) {
            wrong(format!("has {id} in slot queue {}:{}, which is no task of its", place.0, place.1));
        }
        // A task in another slot queue than its own shows here; one in its own was looked at from the task's side.
        for (id, task) in ids.keys().filter_map(|id| Some((id, content.tasks.get(id)?))) {
            if (task.priority, task.slot.number()) != *place {
                wrong(format!("has {id} in slot queue {}:{}, which is not its own", place.0, place.1));
            }
        }
        if ids.values().any(|seq| *seq > content.seq) {
            wrong(format!("has a place in slot queue {}:{} that was never given", place.0, place.1));
        }
        if !queue.wheel.contains_key(place) {
            wrong(format!("has ready tasks in {}:{}, which is not on the wheel", place.0, place.1));
        }
    }
    for (place, score) in &queue.wheel {
        if !queue.slots.contains_key(place) {
            wrong(format!("has {}:{} on the wheel, which has no ready task", place.0, place.1));
        }
        let low = i64::from(9 - place.0) << 49;
        if !(low..low + (1 << 49)).contains(score) {
            wrong(format!("has {}:{} on the wheel at {score}, outside its priority", place.0, place.1));
        }
    }
    for (index, ids) in [("scheduled", &queue.scheduled), ("leased", &queue.leased)]
        .into_iter()
        .chain(queue.ended.iter().map(|(state, ids)| (*state, ids)))
    {
        for id in ids.keys().filter(|id| !known(id)) {
            wrong(format!("has {id} in {index}, which is no task of its"));
        }
    }
    counts_stand(queue, wrong);
    let front = queue.wheel.iter().min_by_key(|(_, score)| **score).map(|((priority, _), _)| i64::from(*priority));
    let front = front.filter(|_| !queue.paused);
    let ready = content.ready.get(name.as_str()).copied();
    if front != ready {
        wrong(format!("stands in ready with {ready:?}; the front of its wheel says {front:?}"));
    }
    let earliest = queue.scheduled.values().chain(queue.leased.values()).min();
    match (earliest, content.due.get(name.as_str())) {
        (Some(_), None) => wrong("has scheduled or leased tasks and is not in due".into()),
        (Some(first), Some(due)) if due > first => wrong(format!("is due at {due}, after its first task at {first}")),
        _ => {}
    }
    if !content.listed.contains_key(name.as_str()) {
        wrong("is not in the list of queues".into());
    }
    for (holder, until) in queue.dedupe.values() {
        let task = holder.and_then(|id| content.tasks.get(&id));
        let over = until.is_some_and(|until| until <= content.now);
        if !over && task.is_none_or(|task| task.state.has_ended()) {
            wrong(format!("has a dedupe key held by {holder:?}, which is no task that lives"));
        }
    }
}

/// Each count equals what it counts, and together they are all that was submitted.
fn counts_stand(queue: &QueueIndexes, wrong: &mut impl FnMut(String)) {
    let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, removed } = queue.counts;
    let ended = |state: State| queue.ended.get(state.as_str()).map_or(0, HashMap::len);
    let waiting: usize = queue.slots.values().map(HashMap::len).sum();
    for (name, count, found) in [
        ("scheduled", scheduled, queue.scheduled.len()),
        ("ready", ready, waiting),
        ("leased", leased, queue.leased.len()),
        ("completed", completed, ended(State::Completed)),
        ("dead", dead, ended(State::Dead)),
        ("cancelled", cancelled, ended(State::Cancelled)),
        ("expired", expired, ended(State::Expired)),
    ] {
        if count != found as i64 {
            wrong(format!("counts {count} {name} and has {found}"));
        }
    }
    let all = scheduled + ready + leased + completed + dead + cancelled + expired + removed;
    if submitted != all {
        wrong(format!("counts {submitted} submitted, and {all} in all states"));
    }
}

fn global_indexes(content: &Content, findings: &mut Vec<String>) {
    for (index, ids) in [("deadline", &content.deadline), ("retain", &content.retain)] {
        for id in ids.keys().filter(|id| !content.tasks.contains_key(id)) {
            findings.push(format!("{index} has {id}, which is no task"));
        }
    }
    for queue in content.ready.keys().chain(content.listed.keys()) {
        let there = QueueName::parse(queue).is_some_and(|name| content.queues.contains_key(&name));
        if !there {
            findings.push(format!("ready or queues names {queue}, of which there is nothing"));
        }
    }
    for (claim, ids) in &content.claims {
        for id in ids {
            let task = content.tasks.get(id);
            if !task.is_some_and(|task| task.state == State::Leased && task.claim.as_ref() == Some(claim)) {
                findings.push(format!("a claim id has {id}, which is not leased under it"));
            }
        }
    }
    let mut sum = Counts::default();
    for queue in content.queues.values() {
        sum.join(queue.counts);
    }
    // A deleted queue leaves nothing but what was submitted to it and removed.
    let gone = content.total.submitted - sum.submitted;
    let same = Counts { submitted: sum.submitted + gone, removed: sum.removed + gone, ..sum };
    if gone < 0 || same != content.total {
        findings.push(format!("the shard counts {:?}, its queues together {sum:?}", content.total));
    }
    // A key whose holder lives and does not know of it would never be freed.
    for (id, task) in &content.tasks {
        let Some(digest) = task.dedupe.as_ref().filter(|_| !task.state.has_ended()) else { continue };
        let holder = content.queues.get(&task.queue).and_then(|queue| queue.dedupe.get(digest));
        if let Some((None, _)) = holder {
            findings.push(format!("the dedupe key of {id} is held by nobody that can be read"));
        }
    }
}
