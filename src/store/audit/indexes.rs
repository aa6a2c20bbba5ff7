//! Compares what was read: tasks against indexes, both ways, and counters against both. What does not fit is suspected;
//! it may have been read while it changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::scan::{Content, QueueIndexes, Seen};
use super::subject::Subject;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::store::views::queues::Counts;

/// All that does not fit.
pub(super) fn check(content: &Content) -> BTreeSet<Subject> {
    let mut suspects = content.strays.clone();
    for (id, task) in &content.tasks {
        task_stands(id, task, content, &mut suspects);
    }
    for (name, queue) in &content.queues {
        queue_stands(name, queue, content, &mut suspects);
    }
    keys_are_held(content, &mut suspects);
    global_indexes(content, &mut suspects);
    suspects
}

fn entry(id: &TaskId, index: impl Into<Vec<u8>>) -> Subject {
    Subject::Entry { member: id.as_bytes().to_vec(), index: index.into() }
}

fn slot_index(queue: &QueueName, place: (u8, u16)) -> String {
    format!("slot:{queue}:{}:{}", place.0, place.1)
}

fn claim_index(claim: &[u8]) -> Vec<u8> {
    [b"claim:", claim].concat()
}

/// The task is where its state says, at its score. That it is nowhere else is seen from the side of the indexes.
fn task_stands(id: &TaskId, task: &Seen, content: &Content, suspects: &mut BTreeSet<Subject>) {
    let Some(queue) = content.queues.get(&task.queue) else { return };
    let place = (task.priority, task.slot.number());
    let (index, entries, wanted) = match task.state {
        State::Ready => (slot_index(&task.queue, place), queue.slots.get(&place), Some(task.seq)),
        State::Scheduled => (format!("scheduled:{}", task.queue), Some(&queue.scheduled), task.run_at),
        State::Leased => (format!("leased:{}", task.queue), Some(&queue.leased), task.lease_until),
        State::Completed | State::Dead | State::Cancelled | State::Expired => {
            (format!("ended:{}:{}", task.queue, task.state), queue.ended.get(task.state.as_str()), task.finished_at)
        }
    };
    if entries.and_then(|entries| entries.get(id)) != wanted.as_ref() {
        suspects.insert(entry(id, index));
    }
    if let Some(expires_at) = task.expires_at.filter(|_| task.waits())
        && content.deadline.get(id) != Some(&expires_at)
    {
        suspects.insert(entry(id, "deadline"));
    }
    if task.state.has_ended() && !content.retain.contains_key(id) {
        suspects.insert(entry(id, "retain"));
    }
    if let Some(claim) = task.claim.as_ref().filter(|_| task.state == State::Leased)
        && !content.claims.get(claim).is_some_and(|ids| ids.contains(id))
    {
        suspects.insert(entry(id, claim_index(claim)));
    }
    if task.marked {
        suspects.insert(Subject::Marks(*id));
    }
}

fn queue_stands(name: &QueueName, queue: &QueueIndexes, content: &Content, suspects: &mut BTreeSet<Subject>) {
    // An entry belongs there if the task says so; one of a task that cannot be read is left alone.
    let mut fits = |id: &TaskId, index: String, belongs: &dyn Fn(&Seen) -> bool| {
        let belongs =
            content.tasks.get(id).map_or(content.broken.contains(id), |task| task.queue == *name && belongs(task));
        if !belongs {
            suspects.insert(entry(id, index));
        }
    };
    for (place, ids) in &queue.slots {
        for id in ids.keys() {
            fits(id, slot_index(name, *place), &|task| {
                task.state == State::Ready && (task.priority, task.slot.number()) == *place
            });
        }
    }
    queue.scheduled.keys().for_each(|id| fits(id, format!("scheduled:{name}"), &|task| task.state == State::Scheduled));
    queue.leased.keys().for_each(|id| fits(id, format!("leased:{name}"), &|task| task.state == State::Leased));
    for (state, ids) in &queue.ended {
        ids.keys().for_each(|id| fits(id, format!("ended:{name}:{state}"), &|task| task.state.as_str() == *state));
    }
    for place in queue.slots.keys().chain(queue.wheel.keys()) {
        let low = i64::from(9 - place.0) << 49;
        let in_range = queue.wheel.get(place).is_some_and(|score| (low..low + (1 << 49)).contains(score));
        if !in_range || !queue.slots.contains_key(place) {
            let member = format!("{}:{}", place.0, place.1).into();
            suspects.insert(Subject::Place { queue: name.clone(), member });
        }
    }
    if !stands_among_queues(name, queue, content) {
        suspects.insert(Subject::Queue(name.as_str().into()));
    }
    if !counts_stand(queue) {
        let missing = queue.slots.keys().filter(|place| !queue.wheel.contains_key(place));
        let places = missing.map(|place| format!("{}:{}", place.0, place.1)).collect();
        suspects.insert(Subject::Counts { queue: name.clone(), places });
    }
}

/// Whether `ready`, `due` and `queues` say of the queue what it has.
fn stands_among_queues(name: &QueueName, queue: &QueueIndexes, content: &Content) -> bool {
    let front = queue.wheel.iter().min_by_key(|(_, score)| **score).map(|((priority, _), _)| i64::from(*priority));
    let front = front.filter(|_| !queue.paused);
    let earliest = queue.scheduled.values().chain(queue.leased.values()).min();
    let due_in_time = match (earliest, content.due.get(name.as_str().as_bytes())) {
        (Some(_), None) => false,
        (Some(first), Some(due)) => due <= first,
        (None, _) => true,
    };
    front == content.ready.get(name.as_str().as_bytes()).copied()
        && due_in_time
        && content.listed.contains_key(name.as_str().as_bytes())
}

/// Each count equals what it counts, and together they are all that was submitted.
fn counts_stand(queue: &QueueIndexes) -> bool {
    let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, removed } = queue.counts;
    let ended = |state: State| queue.ended.get(state.as_str()).map_or(0, HashMap::len);
    let waiting: usize = queue.slots.values().map(HashMap::len).sum();
    let pairs = [
        (scheduled, queue.scheduled.len()),
        (ready, waiting),
        (leased, queue.leased.len()),
        (completed, ended(State::Completed)),
        (dead, ended(State::Dead)),
        (cancelled, ended(State::Cancelled)),
        (expired, ended(State::Expired)),
    ];
    let all = scheduled + ready + leased + completed + dead + cancelled + expired + removed;
    submitted == all && pairs.into_iter().all(|(count, found)| count == found as i64)
}

/// Each dedupe key is held by a task that lives and has not let go of it, and each such task holds its key.
fn keys_are_held(content: &Content, suspects: &mut BTreeSet<Subject>) {
    let mut wanting: BTreeMap<(&QueueName, &Vec<u8>), Vec<TaskId>> = BTreeMap::new();
    for (id, task) in &content.tasks {
        let Some(digest) = task.dedupe.as_ref().filter(|_| !task.state.has_ended()) else { continue };
        let holder = content.queues.get(&task.queue).and_then(|queue| queue.dedupe.get(digest));
        // Redis may drop the key a moment before its time, by its own clock.
        let must = task.lets_go_at.is_none_or(|at| at > content.now + 1000);
        if must && holder.is_none_or(|(holder, _)| *holder != Some(*id)) {
            wanting.entry((&task.queue, digest)).or_default().push(*id);
        }
    }
    for (name, queue) in &content.queues {
        for (digest, (holder, until)) in &queue.dedupe {
            let task = holder.and_then(|id| content.tasks.get(&id));
            let broken = holder.is_some_and(|id| content.broken.contains(&id));
            let holds = task.is_some_and(|task| {
                !task.state.has_ended()
                    && task.queue == *name
                    && task.dedupe.as_ref() == Some(digest)
                    && task.lets_go_at.is_none_or(|at| at > content.now)
            });
            let over = until.is_some_and(|until| until <= content.now);
            if !over && !holds && !broken {
                wanting.entry((name, digest)).or_default();
            }
        }
    }
    suspects.extend(wanting.into_iter().map(|((queue, digest), ids)| Subject::Dedupe {
        queue: queue.clone(),
        digest: digest.clone(),
        ids,
    }));
}

fn global_indexes(content: &Content, suspects: &mut BTreeSet<Subject>) {
    let stands =
        |id: &TaskId, belongs: fn(&Seen) -> bool| content.tasks.get(id).map_or(content.broken.contains(id), belongs);
    let waiting = content.deadline.keys().filter(|id| !stands(id, |task| task.waits() && task.expires_at.is_some()));
    suspects.extend(waiting.map(|id| entry(id, "deadline")));
    let kept = content.retain.keys().filter(|id| !stands(id, |task| task.state.has_ended()));
    suspects.extend(kept.map(|id| entry(id, "retain")));
    for (claim, ids) in &content.claims {
        for id in ids {
            let task = content.tasks.get(id);
            if !task.is_some_and(|task| task.state == State::Leased && task.claim.as_ref() == Some(claim)) {
                suspects.insert(entry(id, claim_index(claim)));
            }
        }
    }
    for queue in content.ready.keys().chain(content.listed.keys()) {
        let name = std::str::from_utf8(queue).ok().and_then(QueueName::parse);
        if !name.is_some_and(|name| content.queues.contains_key(&name)) {
            suspects.insert(Subject::Queue(queue.clone()));
        }
    }
    suspects.extend(content.settings.symmetric_difference(&content.configured).cloned().map(Subject::Settings));
    let mut sum = Counts::default();
    for queue in content.queues.values() {
        sum.join(queue.counts);
    }
    // A deleted queue leaves nothing but what was submitted to it and removed.
    let gone = content.total.submitted - sum.submitted;
    if gone < 0 || content.total != (Counts { submitted: sum.submitted + gone, removed: sum.removed + gone, ..sum }) {
        let unlisted = content.queues.keys().filter(|name| !content.listed.contains_key(name.as_str().as_bytes()));
        suspects.insert(Subject::Total(unlisted.map(|name| name.as_str().to_owned()).collect()));
    }
    let seq = content.tasks.values().map(|task| task.seq).max().unwrap_or(0);
    let turns = content.queues.values().flat_map(|queue| queue.wheel.values());
    let turn = turns.map(|score| score & ((1 << 49) - 1)).max().unwrap_or(0);
    if seq > content.seq || turn > content.turn {
        suspects.insert(Subject::Counters { seq, turn });
    }
}
