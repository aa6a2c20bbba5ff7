//! The effect and the expected reply of a submit, by its Idempotency-Key and its dedupe key.

use slotwheel::domain::state::State;

use super::steps::{Mode, Name, Spec, Start};
use super::{HOUR, Model, Problem, Record, Reply, Task};

/// Whether the task that holds the key gets no further attempt.
fn replaces(mode: Mode) -> bool {
    matches!(mode, Mode::Replace | Mode::Debounce)
}

impl Model {
    pub(super) fn submit(&mut self, mut name: Name, spec: &Spec) -> Reply {
        let (now, body) = (self.now, spec.clone());
        // Rejected before its Idempotency-Key is used.
        if matches!((spec.start, spec.expires_in), (Start::In(delay), Some(life)) if delay >= life) {
            return Reply::Problem(Problem(422, "invalid_time", None));
        }
        let record_key = spec.once.map(|key| (spec.queue, key));
        if let Some(key) = record_key {
            match self.records.get(&key).filter(|record| record.until > now) {
                Some(record) if record.body != body => {
                    return Reply::Problem(Problem(422, "idempotency_mismatch", None));
                }
                Some(&Record { name, status: Some(status), .. }) => return self.found(status, name),
                Some(record) => name = record.name,
                None => {
                    let until = now + 24 * HOUR;
                    self.records.insert(key, Record { body, name, status: None, until });
                }
            }
        }
        let run_at = match spec.start {
            Start::TooFar => {
                // A refused submit does not use up its key.
                record_key.map(|key| self.records.remove(&key));
                return Reply::Problem(Problem(422, "invalid_time", None));
            }
            Start::In(hours) if hours > 0 => Some(now + hours * HOUR),
            Start::In(_) | Start::Past => None,
        };
        let Some((status, name)) = self.place(name, spec, run_at) else {
            record_key.map(|key| self.records.remove(&key));
            return Reply::Problem(Problem(422, "invalid_time", None));
        };
        if let Some(record) = record_key.and_then(|key| self.records.get_mut(&key)) {
            (record.status, record.name) = (Some(status), name);
        }
        self.found(status, name)
    }

    fn found(&self, status: u16, name: Name) -> Reply {
        match self.tasks.get(&name) {
            Some(task) => Reply::Task(status, Box::new(task.clone())),
            None => Reply::Gone(status, name),
        }
    }

    /// Updates the waiting task that holds the dedupe key or follows it, or creates a task. `None`: the updated task would
    /// expire before its time.
    fn place(&mut self, name: Name, spec: &Spec, run_at: Option<i64>) -> Option<(u16, Name)> {
        let (now, mut after, mut key_until) = (self.now, None, None);
        if let Some((key, mode, window)) = spec.dedupe {
            let key = (spec.queue, spec.key, key);
            key_until = window.map(|hours| now + hours * HOUR);
            let holder = self.keys.get(&key).filter(|(_, until)| until.is_none_or(|until| until > now));
            if let Some(&(holder, _)) = holder {
                let successor = self.successor(holder);
                let task = &self.tasks[&holder];
                let leased = task.state == State::Leased;
                match (mode, successor) {
                    (Mode::Keep, Some(successor)) => return Some((200, successor)),
                    (Mode::Keep, None) if !(leased && task.cancel) => return Some((200, holder)),
                    (_, Some(successor)) => {
                        return self.replace(successor, spec, mode, run_at).then_some((200, successor));
                    }
                    _ if leased || mode == Mode::After => after = Some(holder),
                    _ => {
                        return self.replace(holder, spec, mode, run_at).then_some((200, holder));
                    }
                }
            }
            if after.is_none() {
                self.keys.insert(key, (name, key_until));
            }
        }
        let task = Task {
            name,
            spec: spec.clone(),
            state: State::Scheduled,
            seq: self.next_seq(),
            attempts: 0,
            acquired: 0,
            uncounted: 0,
            cancel: false,
            after,
            start_at: run_at.filter(|_| after.is_some()),
            replaces: after.is_some() && spec.dedupe.is_some_and(|(_, mode, _)| replaces(mode)),
            key_until,
            worker: None,
            progress: None,
            result: None,
            created_at: now,
            run_at: run_at.filter(|_| after.is_none()),
            expires_at: spec.expires_in.map(|hours| now + hours * HOUR),
            finished_at: None,
            drop_at: None,
            lease: None,
            last: None,
            errors: Vec::new(),
        };
        self.made.insert(name);
        self.tasks.insert(name, task);
        let queue = self.queue(spec.queue);
        queue.known = true;
        queue.submitted += 1;
        if run_at.is_none() && after.is_none() {
            self.enter(name);
        }
        Some((201, name))
    }

    /// Replaces the content of a waiting task by the submit's. Its time restarts with debounce, and if it waits for a
    /// retry; that of a task that follows another with each mode but replace. Returns false if the task would expire before
    /// its time.
    fn replace(&mut self, name: Name, spec: &Spec, mode: Mode, run_at: Option<i64>) -> bool {
        let (now, seq) = (self.now, self.seq + 1);
        let task = self.task(name);
        let (was, before) = (task.state, task.wheel_entry());
        let waits_for_retry = |&(_, _, state, at): &(_, _, State, Option<i64>)| {
            was == State::Scheduled && state == State::Scheduled && at == task.run_at
        };
        let restarts = mode == Mode::Debounce || task.last.as_ref().is_some_and(waits_for_retry);
        let due = match task.after {
            Some(_) => task.start_at.filter(|_| mode == Mode::Replace),
            None => task.run_at.filter(|_| was == State::Scheduled && !restarts),
        };
        let expires_at = spec.expires_in.map(|hours| now + hours * HOUR);
        if due.zip(expires_at).is_some_and(|(due, expires_at)| due >= expires_at) {
            return false;
        }
        let window = spec.dedupe.and_then(|(_, _, window)| window);
        task.spec = spec.clone();
        (task.attempts, task.uncounted, task.progress) = (0, task.acquired, None);
        task.expires_at = expires_at;
        task.key_until = window.map(|hours| now + hours * HOUR);
        if task.after.is_some() {
            task.replaces |= replaces(mode);
            task.start_at = if mode == Mode::Replace { task.start_at } else { run_at };
            return true;
        }
        if restarts {
            task.run_at = run_at;
            task.state = if run_at.is_some() { State::Scheduled } else { State::Ready };
        }
        if restarts && task.state == State::Ready {
            task.seq = seq;
        }
        let (state, after, key_until) = (task.state, task.wheel_entry(), task.key_until);
        self.seq = seq;
        if let Some((key, _, _)) = spec.dedupe {
            self.keys.insert((spec.queue, spec.key, key), (name, key_until));
        }
        if was == State::Ready && (state, after) != (was, before) {
            self.vacate(spec.queue, before);
        }
        if state == State::Ready {
            self.enter(name);
        }
        true
    }
}
