//! Compares a snapshot of a shard: tasks with indexes in both directions, and counts with both. A mismatch is only a
//! suspect, because the data may have changed during the read.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::{ListPlace, QueueIndexes, ShardSnapshot};
use super::task::TaskSnapshot;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::store::invariant::Invariant;
use crate::store::views::queue_records::{
    Counts, KEYED, KeyedMember, ListName, QueueRecord, ended_list, state_of_list, wheel_member,
};

/// Returns the invariants that the snapshot contradicts.
pub(super) fn find_suspects(snapshot: &ShardSnapshot) -> BTreeSet<Invariant> {
    let mut suspects = snapshot.malformed.clone();
    for (id, task) in &snapshot.tasks {
        check_task(id, task, snapshot, &mut suspects);
    }
    for (name, queue) in &snapshot.queues {
        check_queue(name, queue, snapshot, &mut suspects);
    }
    check_dedupe_keys(snapshot, &mut suspects);
    check_shard_indexes(snapshot, &mut suspects);
    suspects
}

fn index_entry(id: &TaskId, index: impl Into<Vec<u8>>) -> Invariant {
    Invariant::IndexEntry { member: id.as_bytes().to_vec(), index: index.into() }
}

/// Returns the name of a slot queue or a list of ended tasks.
fn list_index(queue: &QueueName, (list, piece): ListPlace) -> String {
    let piece = piece.map(|number| format!(":{number}")).unwrap_or_default();
    match state_of_list(list) {
        Some(state) => format!("ended:{queue}:{state}{piece}"),
        None => format!("slot:{queue}:{}{piece}", wheel_member(list)),
    }
}

/// Returns the list and the piece in which a ready or an ended task is.
fn place_of(task: &TaskSnapshot, record: &QueueRecord) -> Option<ListPlace> {
    let (list, seq) = match task.state {
        State::Ready => {
            let first = if task.key_digest.is_some() { KEYED } else { 0 };
            ((first + task.priority, task.slot.number()), task.seq)
        }
        state => (ended_list(state)?, task.end_seq),
    };
    Some((list, record.piece_of(list, seq)))
}

fn claim_index(claim: &[u8]) -> Vec<u8> {
    [b"claim:", claim].concat()
}

/// The member of `ended_due` for a queue and state.
fn ended_member(queue: &QueueName, state: State) -> String {
    format!("{queue}:{state}")
}

/// Returns how long a task in this state is kept by default, in ms. `None`: it has not ended.
fn default_retain_ms(state: State) -> Option<i64> {
    match state {
        State::Completed => Some(limits::RETAIN_COMPLETED_MS),
        State::Dead => Some(limits::RETAIN_DEAD_MS),
        State::Cancelled | State::Expired => Some(limits::RETAIN_OTHER_MS),
        State::Ready | State::Scheduled | State::Leased => None,
    }
}

/// Checks that the task is in the index of its state with the right score. [`check_queue`] finds surplus entries.
fn check_task(id: &TaskId, task: &TaskSnapshot, snapshot: &ShardSnapshot, suspects: &mut BTreeSet<Invariant>) {
    let Some(queue) = snapshot.queues.get(&task.queue) else { return };
    let place = place_of(task, &queue.record);
    let list = place.map(|place| (list_index(&task.queue, place), queue.lists.get(&place)));
    let (index, entries, expected) = match (task.state, list) {
        (State::Ready, Some((index, entries))) => (index, entries, Some(task.seq)),
        (_, Some((index, entries))) => (index, entries, task.finished_at),
        (State::Leased, None) => (format!("leased:{}", task.queue), Some(&queue.leased), task.lease_until),
        (_, None) => (format!("scheduled:{}", task.queue), Some(&queue.scheduled), task.run_at),
    };
    let found = entries.and_then(|entries| entries.get(id));
    // An expired task is found to have ended after the time of its end.
    let is_right = if task.state == State::Expired { found >= expected.as_ref() } else { found == expected.as_ref() };
    let last_piece = place.and_then(|(list, _)| queue.record.pieces.get(&list)).map(|pieces| pieces.last);
    let is_known = place.and_then(|(_, piece)| piece).is_none_or(|piece| last_piece.is_some_and(|last| piece <= last));
    let has_key = place.is_none_or(|(list, _)| list.0 < KEYED) || queue.key_digests.get(id) == task.key_digest.as_ref();
    if !is_right || !is_known || !has_key {
        let member = task.key_digest.filter(|_| task.state == State::Ready);
        let keyed = member.map(|key_digest| KeyedMember { key_digest, seq: task.seq, id: *id }.to_bytes());
        let member = keyed.unwrap_or_else(|| id.as_bytes().to_vec());
        suspects.insert(Invariant::IndexEntry { member, index: index.into() });
    }
    if let Some(expires_at) = task.expires_at.filter(|_| task.is_waiting())
        && snapshot.expirations.get(id) != Some(&expires_at)
    {
        suspects.insert(index_entry(id, "expirations"));
    }
    if task.state.has_ended() && task.has_own_retention && !snapshot.retention.contains_key(id) {
        suspects.insert(index_entry(id, "retention"));
    }
    if let (Some(retain_ms), Some(finished_at), false) =
        (default_retain_ms(task.state), found.copied().or(task.finished_at), task.has_own_retention)
    {
        let due = snapshot.ended_due.get(ended_member(&task.queue, task.state).as_bytes());
        if due.is_none_or(|due| *due > finished_at + retain_ms) {
            suspects.insert(Invariant::Retained(*id));
        }
    }
    if let Some(claim) = task.claim.as_ref().filter(|_| task.state == State::Leased)
        && !snapshot.claims.get(claim).is_some_and(|ids| ids.contains(id))
    {
        suspects.insert(index_entry(id, claim_index(claim)));
    }
    if let Some(predecessor) = &task.predecessor {
        let is_named =
            |task: &TaskSnapshot| !task.state.has_ended() && task.successor.as_deref() == Some(id.as_bytes());
        let predecessor = TaskId::from_bytes(predecessor).and_then(|id| snapshot.tasks.get(&id));
        if !predecessor.is_some_and(is_named) {
            suspects.insert(Invariant::Successor(*id));
        }
    }
    if task.has_stale_end_fields {
        suspects.insert(Invariant::StaleEndFields(*id));
    }
}

fn check_queue(name: &QueueName, queue: &QueueIndexes, snapshot: &ShardSnapshot, suspects: &mut BTreeSet<Invariant>) {
    // The task decides whether the entry is valid. Entries of unreadable tasks are left alone.
    let mut check_entry = |id: &TaskId, member: Vec<u8>, index: String, belongs: &dyn Fn(&TaskSnapshot) -> bool| {
        let belongs = snapshot
            .tasks
            .get(id)
            .map_or(snapshot.unreadable_tasks.contains(id), |task| task.queue == *name && belongs(task));
        if !belongs {
            suspects.insert(Invariant::IndexEntry { member, index: index.into() });
        }
    };
    for (place, ids) in &queue.lists {
        for (id, seq) in ids {
            let keyed = queue.key_digests.get(id).filter(|_| place.0.0 >= KEYED);
            let member = keyed.map(|key_digest| KeyedMember { key_digest: *key_digest, seq: *seq, id: *id });
            let bytes = member.map_or_else(|| id.as_bytes().to_vec(), KeyedMember::to_bytes);
            check_entry(id, bytes, list_index(name, *place), &|task| {
                let is_right =
                    |member: KeyedMember| (task.key_digest, task.seq) == (Some(member.key_digest), member.seq);
                place_of(task, &queue.record) == Some(*place) && member.is_none_or(is_right)
            });
        }
    }
    for (index, ids, state) in
        [("scheduled", &queue.scheduled, State::Scheduled), ("leased", &queue.leased, State::Leased)]
    {
        for id in ids.keys() {
            check_entry(id, id.as_bytes().to_vec(), format!("{index}:{name}"), &|task| task.state == state);
        }
    }
    let slots: BTreeSet<&ListName> =
        queue.lists.keys().map(|(list, _)| list).filter(|list| state_of_list(**list).is_none()).collect();
    let occupied: BTreeSet<&ListName> = slots.iter().copied().chain(queue.wheel.keys()).collect();
    for wheel_slot in occupied {
        let low = i64::from(9 - wheel_slot.0 % KEYED) << 49;
        let in_range = queue.wheel.get(wheel_slot).is_some_and(|score| (low..low + (1 << 49)).contains(score));
        if !in_range || !queue.lists.contains_key(&(*wheel_slot, None)) {
            let member = wheel_member(*wheel_slot).into();
            suspects.insert(Invariant::WheelEntry { queue: name.clone(), member });
        }
    }
    if !queue_indexes_match(name, queue, snapshot) {
        suspects.insert(Invariant::QueueIndexes(name.as_str().into()));
    }
    if !counts_match(queue) {
        let missing = slots.into_iter().filter(|wheel_slot| !queue.wheel.contains_key(wheel_slot));
        let unlisted_slots = missing.map(|wheel_slot| wheel_member(*wheel_slot)).collect();
        suspects.insert(Invariant::QueueCounts { queue: name.clone(), unlisted_slots });
    }
}

/// Whether the record of the queue is readable, and matches its content and its entries in `due` and `queues`.
fn queue_indexes_match(name: &QueueName, queue: &QueueIndexes, snapshot: &ShardSnapshot) -> bool {
    let record = &queue.record;
    let front = queue.wheel.iter().min_by_key(|(_, score)| **score).map(|((list, _), _)| i64::from(list % KEYED));
    let earliest = queue.scheduled.values().chain(queue.leased.values()).min();
    let due = snapshot.due.get(name.as_str().as_bytes());
    // A later time is ignored while the record has an earlier one.
    let is_due_by = |time: Option<&i64>| time.is_none_or(|time| due.is_some_and(|due| due <= time));
    let has_head = |list: &ListName| queue.lists.contains_key(&(*list, None));
    !queue.is_record_unreadable
        && queue.lists.keys().all(|(list, _)| state_of_list(*list).is_none() || has_head(list))
        && front == record.front.map(i64::from)
        && record.passes.iter().all(|list| queue.wheel.contains_key(list))
        && record.paused == queue.settings.paused
        && record.ended_states().all(|state| snapshot.ended_due.contains_key(ended_member(name, state).as_bytes()))
        && is_due_by(earliest)
        && is_due_by(record.due.as_ref())
        && snapshot.queue_index.contains_key(name.as_str().as_bytes())
}

/// Whether each count is exact, and `submitted` is their sum.
fn counts_match(queue: &QueueIndexes) -> bool {
    let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, deleted } =
        queue.record.counts;
    let size = |wanted: Option<State>| -> usize {
        queue.lists.iter().filter(|((list, _), _)| state_of_list(*list) == wanted).map(|(_, ids)| ids.len()).sum()
    };
    let ended = |state: State| size(Some(state));
    let pairs = [
        (scheduled, queue.scheduled.len()),
        (ready, size(None)),
        (leased, queue.leased.len()),
        (completed, ended(State::Completed)),
        (dead, ended(State::Dead)),
        (cancelled, ended(State::Cancelled)),
        (expired, ended(State::Expired)),
    ];
    let total = scheduled + ready + leased + completed + dead + cancelled + expired + deleted;
    submitted == total && pairs.into_iter().all(|(count, found)| count == found as i64)
}

/// Checks that each dedupe key is held by an unended task within its window, and that each such task holds its key.
fn check_dedupe_keys(snapshot: &ShardSnapshot, suspects: &mut BTreeSet<Invariant>) {
    let mut suspect_keys: BTreeMap<(&QueueName, &Vec<u8>), Vec<TaskId>> = BTreeMap::new();
    for (id, task) in &snapshot.tasks {
        let Some(digest) = task.dedupe.as_ref().filter(|_| !task.state.has_ended()) else { continue };
        let holder = snapshot.queues.get(&task.queue).and_then(|queue| queue.dedupe.get(digest));
        // Redis may expire the key slightly early by its own clock.
        let must_hold = task.predecessor.is_none() && task.dedupe_until.is_none_or(|at| at > snapshot.now + 1000);
        if must_hold && holder.is_none_or(|(holder, _)| *holder != Some(*id)) {
            suspect_keys.entry((&task.queue, digest)).or_default().push(*id);
        }
    }
    for (name, queue) in &snapshot.queues {
        for (digest, (holder, until)) in &queue.dedupe {
            let task = holder.and_then(|id| snapshot.tasks.get(&id));
            let broken = holder.is_some_and(|id| snapshot.unreadable_tasks.contains(&id));
            let holds = task.is_some_and(|task| {
                !task.state.has_ended()
                    && task.queue == *name
                    && task.dedupe.as_ref() == Some(digest)
                    && task.dedupe_until.is_none_or(|at| at > snapshot.now)
            });
            let window_ended = until.is_some_and(|until| until <= snapshot.now);
            let window_differs = holds && task.is_some_and(|task| task.dedupe_until != *until);
            if window_differs || (!window_ended && !holds && !broken) {
                suspect_keys.entry((name, digest)).or_default();
            }
        }
    }
    suspects.extend(suspect_keys.into_iter().map(|((queue, digest), ids)| Invariant::DedupeKey {
        queue: queue.clone(),
        digest: digest.clone(),
        ids,
    }));
}

fn check_shard_indexes(snapshot: &ShardSnapshot, suspects: &mut BTreeSet<Invariant>) {
    let is_valid = |id: &TaskId, belongs: fn(&TaskSnapshot) -> bool| {
        snapshot.tasks.get(id).map_or(snapshot.unreadable_tasks.contains(id), belongs)
    };
    let waiting =
        snapshot.expirations.keys().filter(|id| !is_valid(id, |task| task.is_waiting() && task.expires_at.is_some()));
    suspects.extend(waiting.map(|id| index_entry(id, "expirations")));
    let is_kept = |task: &TaskSnapshot| task.state.has_ended() && task.has_own_retention;
    let kept = snapshot.retention.keys().filter(|id| !is_valid(id, is_kept));
    suspects.extend(kept.map(|id| index_entry(id, "retention")));
    for (claim, ids) in &snapshot.claims {
        for id in ids {
            let task = snapshot.tasks.get(id);
            if !task.is_some_and(|task| task.state == State::Leased && task.claim.as_ref() == Some(claim)) {
                suspects.insert(index_entry(id, claim_index(claim)));
            }
        }
    }
    for queue in snapshot.queue_index.keys() {
        let name = std::str::from_utf8(queue).ok().and_then(QueueName::parse);
        if !name.is_some_and(|name| snapshot.queues.contains_key(&name)) {
            suspects.insert(Invariant::QueueIndexes(queue.clone()));
        }
    }
    suspects.extend(
        snapshot.settings.symmetric_difference(&snapshot.settings_index).cloned().map(Invariant::SettingsIndex),
    );
    let mut sum = Counts::default();
    for queue in snapshot.queues.values() {
        sum.merge(queue.record.counts);
    }
    let total = snapshot.record.unwrap_or_default().counts;
    // A deleted queue leaves only its submitted and deleted counts.
    let of_deleted_queues = total.submitted - sum.submitted;
    if of_deleted_queues < 0
        || total
            != (Counts {
                submitted: sum.submitted + of_deleted_queues,
                deleted: sum.deleted + of_deleted_queues,
                ..sum
            })
    {
        let unlisted =
            snapshot.queues.keys().filter(|name| !snapshot.queue_index.contains_key(name.as_str().as_bytes()));
        suspects.insert(Invariant::ShardCounts(unlisted.map(|name| name.as_str().to_owned()).collect()));
    }
    let mut last_seqs: BTreeMap<&QueueName, (i64, [i64; 4])> = BTreeMap::new();
    for task in snapshot.tasks.values() {
        let (seq, ends) = last_seqs.entry(&task.queue).or_default();
        *seq = task.seq.max(*seq);
        if let Some(last) = ended_list(task.state).and_then(|list| ends.get_mut(usize::from(list.0.saturating_sub(10))))
        {
            *last = task.end_seq.max(*last);
        }
    }
    suspects.extend(last_seqs.into_iter().filter_map(|(queue, (seq, ends))| {
        let recorded = snapshot.queues.get(queue).map_or((0, [0; 4]), |found| (found.record.seq, found.record.ends));
        let is_behind = recorded.0 < seq || recorded.1.iter().zip(&ends).any(|(recorded, used)| recorded < used);
        is_behind.then(|| Invariant::LastSeq { queue: queue.clone(), seq, ends })
    }));
    let turns = snapshot.queues.values().flat_map(|queue| queue.wheel.values());
    let turn = turns.map(|score| score & ((1 << 49) - 1)).max().unwrap_or(0);
    if snapshot.record.is_none_or(|record| record.turn < turn) {
        suspects.insert(Invariant::LastTurn(turn));
    }
}
