//! Transitions of tasks: they wait, end and are deleted; and those caused by time alone.

use std::collections::BTreeSet;

use slotwheel::domain::state::State;

use super::steps::Name;
use super::{Ended, HOUR, HOURS, Model, Queue, STEP, Task, UPKEEP_DELAY, UPKEEP_DELAY_PER_HOUR, Verb, WheelEntry};

impl Model {
    pub(super) fn task(&mut self, name: Name) -> &mut Task {
        self.tasks.get_mut(&name).expect("a task")
    }

    pub(super) fn queue(&mut self, name: &'static str) -> &mut Queue {
        self.queues.entry(name).or_default()
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Names of tasks whose `due` time has come, by time and then by age.
    fn overdue(&self, due: impl Fn(&Task) -> Option<i64>) -> Vec<Name> {
        let found = self.tasks.values().filter_map(|task| Some((due(task).filter(|at| *at <= self.now)?, task.name)));
        found.collect::<BTreeSet<_>>().into_iter().map(|(_, name)| name).collect()
    }

    /// Begins the next step.
    pub(super) fn begin(&mut self) {
        self.steps += 1;
        self.now = self.hours * HOUR + self.steps * STEP;
    }

    /// The time `hours` later.
    pub(super) fn after(&mut self, hours: i64) -> i64 {
        self.hours += hours;
        self.hours * HOUR + self.steps * STEP
    }

    /// Advances to the next transition caused by time, at most to `target`, and applies it. Returns false if there was
    /// none.
    pub(super) fn pass(&mut self, target: i64) -> bool {
        let next = self.tasks.values().filter_map(Task::next_due).min().filter(|at| *at <= target);
        let late = |at: i64| UPKEEP_DELAY + at / HOUR % HOURS * UPKEEP_DELAY_PER_HOUR;
        self.now = next.map_or(target, |at| target.min(at + late(at)));
        self.upkeep();
        next.is_some()
    }

    /// Begins an outage of `hours`.
    pub(super) fn suffer(&mut self, hours: i64) {
        for lease in self.tasks.values_mut().filter_map(|task| task.lease.as_mut()) {
            lease.outages += hours * HOUR;
            lease.all_outages += hours * HOUR;
        }
    }

    /// Applies the transitions that are due now.
    pub(super) fn upkeep(&mut self) {
        let now = self.now;
        for lease in self.tasks.values_mut().filter_map(|task| task.lease.as_mut()) {
            if lease.until <= now {
                lease.until += std::mem::take(&mut lease.outages);
            }
        }
        for name in self.overdue(|task| task.lease.as_ref().map(|lease| lease.until)) {
            let task = self.task(name);
            let wait = task.wait_after(task.attempts + 1);
            self.end_badly(name, Verb::ExpireLease, "lease_expired", Some(wait));
        }
        for name in self.overdue(|task| task.expires_at.filter(|_| task.is_waiting())) {
            self.leave_waiting(name, State::Expired);
            self.conclude(name);
            let task = self.task(name);
            task.finished_at = task.expires_at;
        }
        for name in self.overdue(|task| task.run_at.filter(|_| task.state == State::Scheduled)) {
            self.task(name).seq = self.next_seq();
            self.enter(name);
        }
        for name in self.overdue(|task| task.drop_at) {
            self.remove(name);
        }
    }

    /// Makes a task ready. If its slot was not on the wheel, it is added at the rear of its priority.
    pub(super) fn enter(&mut self, name: Name) {
        let task = self.task(name);
        task.state = State::Ready;
        let (entry, queue) = (task.wheel_entry(), task.spec.queue);
        let wheel = &mut self.queue(queue).wheel;
        if !wheel.contains(&entry) {
            wheel.insert(wheel.iter().position(|other| other.0 < entry.0).unwrap_or(wheel.len()), entry);
        }
    }

    /// The ready tasks of an entry of the wheel.
    pub(super) fn ready_in(&self, queue: &str, entry: WheelEntry) -> impl Iterator<Item = &Task> {
        let here =
            move |task: &&Task| task.state == State::Ready && task.spec.queue == queue && task.wheel_entry() == entry;
        self.tasks.values().filter(here)
    }

    /// Removes a slot without ready tasks from the wheel.
    pub(super) fn vacate(&mut self, queue: &'static str, entry: WheelEntry) {
        if self.ready_in(queue, entry).next().is_none() {
            let queue = self.queue(queue);
            queue.wheel.retain(|other| *other != entry);
            queue.passes.remove(&entry);
        }
    }

    pub(super) fn leave_waiting(&mut self, name: Name, state: State) {
        let task = self.task(name);
        task.state = state;
        let (queue, entry) = (task.spec.queue, task.wheel_entry());
        self.vacate(queue, entry);
    }

    /// Ends a task in the given state.
    pub(super) fn conclude(&mut self, name: Name) {
        let now = self.now;
        let task = self.task(name);
        let default = match task.state {
            State::Completed => 1,
            State::Dead => 14 * 24,
            _ => 24,
        };
        task.finished_at = Some(now);
        task.drop_at = Some(now + task.spec.retain.unwrap_or(default) * HOUR);
        self.free_key(name);
    }

    /// The task that waits for the end of another.
    pub(super) fn successor(&self, name: Name) -> Option<Name> {
        let follows = |task: &&Task| task.state == State::Scheduled && task.after == Some(name);
        self.tasks.values().find(follows).map(|task| task.name)
    }

    /// Whether the task gets no further attempt, because the one that waits for its end replaces it.
    pub(super) fn is_replaced(&self, name: Name) -> bool {
        self.successor(name).is_some_and(|successor| self.tasks[&successor].replaces)
    }

    /// Frees the dedupe key of a task. Its successor gets the key, and waits for its own time only.
    fn free_key(&mut self, name: Name) {
        self.keys.retain(|_, (holder, _)| *holder != name);
        let (now, Some(successor)) = (self.now, self.successor(name)) else { return };
        let task = self.task(successor);
        (task.after, task.replaces) = (None, false);
        task.run_at = Some(task.start_at.unwrap_or(now).max(now));
        let (spec, until) = (task.spec.clone(), task.key_until);
        let Some((key, _, _)) = spec.dedupe else { return };
        let key = (spec.queue, spec.key, key);
        let is_free = self.keys.get(&key).is_none_or(|(_, until)| until.is_some_and(|until| until <= now));
        if is_free && until.is_none_or(|until| until > now) {
            self.keys.insert(key, (successor, until));
        }
    }

    pub(super) fn remove(&mut self, name: Name) {
        let task = self.tasks.remove(&name).expect("a task");
        self.free_key(name);
        self.vacate(task.spec.queue, task.wheel_entry());
        self.queue(task.spec.queue).removed += 1;
    }

    /// Ends a lease; its task enters `state`.
    pub(super) fn end_lease(&mut self, name: Name, verb: Verb, state: State, run_at: Option<i64>) -> Ended {
        let task = self.task(name);
        task.lease = None;
        task.last = Some((task.acquired, verb, state, run_at));
        task.state = state;
        match state {
            State::Ready if matches!(verb, Verb::Release | Verb::Revoke) => self.enter(name),
            State::Ready => {
                self.task(name).seq = self.next_seq();
                self.enter(name);
            }
            State::Scheduled => task.run_at = run_at,
            _ => self.conclude(name),
        }
        Ended { state, run_at, repeated: false }
    }

    /// Counts a failed attempt; the next one follows after `wait`, if any is left.
    pub(super) fn end_badly(&mut self, name: Name, verb: Verb, kind: &'static str, wait: Option<i64>) -> Ended {
        let (now, is_replaced) = (self.now, self.is_replaced(name));
        let task = self.task(name);
        task.attempts += 1;
        task.errors.push(task.failure(now, task.attempts, kind));
        let (state, run_at) = match wait {
            _ if task.cancel => (State::Cancelled, None),
            Some(wait) if task.attempts < task.spec.max_attempts && !is_replaced => task.state_after(wait, now),
            _ => (State::Dead, None),
        };
        self.end_lease(name, verb, state, run_at)
    }

    /// Ends a lease at the request of its worker, or of a client, without an attempt. After its last delivery the task of
    /// the worker is dead.
    pub(super) fn end_early(&mut self, name: Name, verb: Verb, delay: i64) -> Ended {
        let (now, is_replaced) = (self.now, self.is_replaced(name));
        let task = self.task(name);
        let is_last = verb == Verb::Release
            && task.spec.max_acquired.is_some_and(|max| max > 0 && task.acquired - task.uncounted >= max);
        let (state, run_at) = match task.cancel || is_replaced {
            true => (State::Cancelled, None),
            false if is_last => (State::Dead, None),
            false => task.state_after(delay * HOUR, now),
        };
        if state == State::Dead {
            task.errors.push(task.failure(now, task.attempts + 1, "max_acquired"));
        }
        self.end_lease(name, verb, state, run_at)
    }
}
