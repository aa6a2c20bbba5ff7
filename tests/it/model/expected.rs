//! The effect and the expected reply of each request.

use std::collections::BTreeMap;

use slotwheel::domain::digest::KeyDigest;
use slotwheel::domain::state::State;

use super::steps::{Call, ClaimSpec, Held, Name, Proof, Retry, Target};
use super::{ClaimId, Claimed, Ended, HOUR, Lease, Model, Problem, Reply, Task, Verb, WheelEntry};

impl Model {
    /// The task of a live lease, or the reply to the same report if it ended this lease.
    fn held(&mut self, held: Held, verb: Option<Verb>) -> Result<Result<Name, Ended>, Problem> {
        let task = self.target(held.0)?;
        let nth = match held.1 {
            Proof::Lease(name, nth) if name == task.name => nth,
            _ => 0,
        };
        match (&task.lease, task.last) {
            (Some(_), _) if nth == task.acquired => Ok(Ok(task.name)),
            (_, Some((last, by, state, run_at))) if nth == last && Some(by) == verb => {
                Ok(Err(Ended { state, run_at, repeated: true }))
            }
            _ => Err(Problem(409, "lease_lost", Some(task.state))),
        }
    }

    fn target(&mut self, target: Target) -> Result<&mut Task, Problem> {
        let task = match target {
            Target::Task(name) => self.tasks.get_mut(&name),
            Target::NoTask => None,
        };
        task.ok_or(Problem(404, "task_not_found", None))
    }
    fn claim(&mut self, ask: &ClaimSpec, id: Option<ClaimId>, again: bool) -> Result<Claimed, Problem> {
        let under_id = |task: &&Task| task.lease.as_ref().is_some_and(|lease| lease.claim == id);
        let before: Vec<Task> = self.tasks.values().filter(under_id).cloned().collect();
        if again && !before.is_empty() {
            return Ok(Claimed { tasks: before, ordered: false });
        }
        let has_other_queues = |claim: &ClaimId| match (claim, &id) {
            (ClaimId::Given(worker, id, _), Some(ClaimId::Given(own_worker, own_id, _))) => {
                (worker, id) == (own_worker, own_id)
            }
            _ => false,
        };
        let mut live = self.tasks.values().filter_map(|task| task.lease.as_ref()?.claim.as_ref());
        if again && live.any(has_other_queues) {
            return Err(Problem(422, "claim_id_mismatch", None));
        }
        let mut tasks = Vec::new();
        for queue in &ask.queues {
            while tasks.len() < ask.max
                && let Some(name) = self.take(queue)
            {
                tasks.push(self.give(name, ask, id.clone()));
            }
        }
        Ok(Claimed { tasks, ordered: true })
    }

    /// Takes the next task of a queue. A slot moves to the rear of its priority with a task without a key, or once each key
    /// has been served.
    fn take(&mut self, queue: &'static str) -> Option<Name> {
        let paused = self.queue(queue).paused;
        loop {
            let entry = *self.queue(queue).wheel.first().filter(|_| !paused)?;
            let taken = self.next_in_pass(queue, entry);
            if let Some((name, key_digest)) = taken {
                let seq = self.seq;
                let until = self.queue(queue).passes.get(&entry).map_or(seq, |(_, until)| *until);
                self.queue(queue).passes.insert(entry, (key_digest, until));
                self.leave_waiting(name, State::Leased);
            }
            if self.next_in_pass(queue, entry).is_none() {
                self.end_turn(queue, entry);
            }
            if let Some((name, _)) = taken {
                return Some(name);
            }
        }
    }

    /// The next task of the turn of an entry, and its key. `None`: the turn is over.
    fn next_in_pass(&mut self, queue: &'static str, entry: WheelEntry) -> Option<(Name, KeyDigest)> {
        let pass = self.queue(queue).passes.get(&entry).copied();
        let mut firsts: BTreeMap<KeyDigest, &Task> = BTreeMap::new();
        for task in self.ready_in(queue, entry) {
            let first = firsts.entry(task.key_digest()).or_insert(task);
            if task.seq < first.seq {
                *first = task;
            }
        }
        let is_due = |key_digest: &KeyDigest, task: &Task| {
            pass.is_none_or(|(served, until)| *key_digest > served && task.seq <= until)
        };
        let next = firsts.into_iter().find(|(key_digest, task)| is_due(key_digest, task));
        next.map(|(key_digest, task)| (task.name, key_digest))
    }

    fn end_turn(&mut self, queue: &'static str, entry: WheelEntry) {
        let queue = self.queue(queue);
        queue.passes.remove(&entry);
        if queue.wheel.first() == Some(&entry) {
            let rear = queue.wheel.iter().position(|other| other.0 < entry.0).unwrap_or(queue.wheel.len());
            queue.wheel[..rear].rotate_left(1);
        }
    }

    fn give(&mut self, name: Name, ask: &ClaimSpec, claim: Option<ClaimId>) -> Task {
        let now = self.now;
        let task = self.task(name);
        let asked = ask.lease * HOUR;
        let length = if task.spec.max_run > 0 { asked.min(task.spec.max_run * HOUR) } else { asked };
        task.acquired += 1;
        task.worker = Some(ask.worker);
        task.lease = Some(Lease { since: now, length, until: now + length, outages: 0, all_outages: 0, claim });
        let task = task.clone();
        self.given.insert((name, task.acquired));
        task
    }

    fn complete(&mut self, held: Held, result: u8) -> Result<Ended, Problem> {
        Ok(match self.held(held, Some(Verb::Complete))? {
            Err(before) => before,
            Ok(name) => {
                self.task(name).result = Some(result);
                self.end_lease(name, Verb::Complete, State::Completed, None)
            }
        })
    }

    /// Completes one task or a batch, then claims if any completion was accepted. Without a claim id, the proofs
    /// identify the claim.
    fn complete_all(&mut self, items: &[(Held, u8)], then: Option<&ClaimSpec>, in_batch: bool) -> Reply {
        let ends: Vec<_> = items.iter().map(|(held, result)| self.complete(*held, *result)).collect();
        let accepted = ends.iter().any(Result::is_ok);
        let repeated = ends.iter().flatten().any(|ended| ended.repeated);
        let proofs = items.iter().map(|(held, _)| held.1).collect();
        let claimed = then.filter(|_| accepted).map(|ask| match ClaimId::given(ask) {
            Some(id) => self.claim(ask, Some(id), true),
            None => self.claim(ask, Some(ClaimId::After(in_batch, proofs)), repeated),
        });
        Reply::Completed(ends.into_iter().map(|end| Ok(end?.state)).collect(), claimed)
    }

    fn beat(&mut self, held: Held, asked: Option<i64>, progress: Option<u8>) -> Result<(i64, bool), Problem> {
        let now = self.now;
        let Ok(name) = self.held(held, None)? else { unreachable!("a heartbeat ends no lease") };
        let task = self.task(name);
        let lease = task.lease.as_mut().expect("a lease");
        lease.until = now + asked.map_or(lease.length, |hours| hours * HOUR);
        lease.outages = 0;
        if task.spec.max_run > 0 {
            lease.until = lease.until.min(lease.since + task.spec.max_run * HOUR + lease.all_outages);
        }
        task.progress = progress.or(task.progress);
        Ok((lease.until, task.cancel))
    }

    fn cancel(&mut self, target: Target) -> Result<Task, Problem> {
        let task = self.target(target)?;
        let name = task.name;
        match task.state {
            State::Cancelled => {}
            State::Leased => task.cancel = true,
            State::Scheduled | State::Ready => {
                self.leave_waiting(name, State::Cancelled);
                self.conclude(name);
            }
            ended => return Err(Problem(409, "already_ended", Some(ended))),
        }
        Ok(self.tasks[&name].clone())
    }

    fn revive(&mut self, target: Target) -> Result<Task, Problem> {
        let now = self.now;
        let task = self.target(target)?;
        let (name, state, spec) = (task.name, task.state, task.spec.clone());
        if !matches!(state, State::Dead | State::Cancelled | State::Expired) {
            return Err(Problem(409, "not_retryable", Some(state)));
        }
        if let Some((key, _, _)) = spec.dedupe {
            let key = (spec.queue, spec.key, key);
            if self.keys.get(&key).is_some_and(|(_, until)| until.is_none_or(|until| until > now)) {
                return Err(Problem(409, "dedupe_conflict", Some(state)));
            }
            self.keys.insert(key, (name, None));
        }
        let seq = self.next_seq();
        let task = self.task(name);
        (task.seq, task.attempts, task.uncounted, task.cancel) = (seq, 0, task.acquired, false);
        (task.replaces, task.after, task.key_until) = (false, None, None);
        (task.run_at, task.finished_at, task.drop_at) = (None, None, None);
        task.expires_at = spec.expires_in.map(|hours| now + hours * HOUR);
        self.enter(name);
        Ok(self.tasks[&name].clone())
    }

    fn delete(&mut self, target: Target) -> Result<(), Problem> {
        let task = self.target(target)?;
        let (name, state) = (task.name, task.state);
        if !state.has_ended() {
            return Err(Problem(409, "not_ended", Some(state)));
        }
        self.remove(name);
        Ok(())
    }

    fn purge(&mut self, queue: &str, states: &[State]) -> usize {
        let named = |task: &&Task| task.spec.queue == queue && states.contains(&task.state);
        let gone: Vec<Name> = self.tasks.values().filter(named).map(|task| task.name).collect();
        gone.iter().for_each(|name| self.remove(*name));
        gone.len()
    }

    fn remove_queue(&mut self, queue: &'static str) -> Result<Reply, Problem> {
        if self.tasks.values().any(|task| task.spec.queue == queue && !task.state.has_ended()) {
            return Err(Problem(409, "queue_not_empty", None));
        }
        let deleted = self.purge(queue, &State::ALL);
        self.queues.remove(queue);
        Ok(Reply::Purged(deleted))
    }

    fn set_paused(&mut self, queue: &'static str, paused: bool) -> Reply {
        let own = self.queue(queue);
        (own.known, own.paused) = (true, paused);
        Reply::Queue(queue, paused)
    }

    /// Ends a lease by a report.
    fn report(&mut self, held: Held, verb: Verb, end: impl FnOnce(&mut Self, Name) -> Ended) -> Result<Ended, Problem> {
        Ok(match self.held(held, Some(verb))? {
            Ok(name) => end(self, name),
            Err(before) => before,
        })
    }

    fn fail(&mut self, (held, retry): &(Held, Retry)) -> Result<Ended, Problem> {
        self.report(*held, Verb::Fail, |model, name| {
            let task = &model.tasks[&name];
            let wait = match retry {
                Retry::Never => None,
                Retry::In(hours) => Some(hours * HOUR),
                Retry::AsSubmitted => Some(task.wait_after(task.attempts + 1)),
            };
            model.end_badly(name, Verb::Fail, "broken", wait)
        })
    }

    fn release(&mut self, (held, delay): &(Held, i64)) -> Result<Ended, Problem> {
        self.report(*held, Verb::Release, |model, name| model.end_early(name, Verb::Release, *delay))
    }

    /// Ends a lease without its token. Its repetition changes nothing while the task waits.
    fn revoke(&mut self, target: Target, delay: i64, nth: Option<u32>) -> Result<Task, Problem> {
        let task = self.target(target)?;
        let (name, state) = (task.name, task.state);
        let is_meant = nth.is_none_or(|nth| nth == task.acquired);
        let is_repeated = matches!(task.last, Some((_, Verb::Revoke, to, _)) if to == state || task.is_waiting());
        match (state, is_meant) {
            (State::Leased, true) => {
                self.end_early(name, Verb::Revoke, delay);
            }
            (_, false) => return Err(Problem(409, "not_leased", Some(state))),
            _ if is_repeated => {}
            _ => return Err(Problem(409, "not_leased", Some(state))),
        }
        Ok(self.tasks[&name].clone())
    }

    fn run(&mut self, target: Target) -> Result<Task, Problem> {
        let now = self.now;
        let task = self.target(target)?;
        let (name, state) = (task.name, task.state);
        match state {
            State::Ready => {}
            State::Scheduled if task.after.is_some() => task.start_at = None,
            State::Scheduled => {
                task.run_at = Some(now);
                self.task(name).seq = self.next_seq();
                self.enter(name);
            }
            state => return Err(Problem(409, "not_waiting", Some(state))),
        }
        Ok(self.tasks[&name].clone())
    }

    /// Applies a request and returns the expected reply.
    pub(super) fn call(&mut self, call: &Call) -> Reply {
        let shown = |task| Reply::Task(200, Box::new(task));
        let reply = match call {
            Call::Submit(name, spec) => Ok(self.submit(*name, spec)),
            Call::SubmitBatch(tasks) => {
                Ok(Reply::Batch(tasks.iter().map(|(name, spec)| self.submit(*name, spec)).collect()))
            }
            Call::Claim(ask) => self.claim(ask, ClaimId::given(ask), ask.claim_id.is_some()).map(Reply::Claimed),
            Call::Meet(ask, name, spec) => {
                let submitted = Box::new(self.submit(*name, spec));
                self.claim(ask, None, false).map(|claimed| Reply::Met(submitted, claimed))
            }
            Call::Complete(held, result, then) => match self.complete_all(&[(*held, *result)], then.as_ref(), false) {
                Reply::Completed(ends, _) if ends[0].is_err() => Err(ends[0].clone().unwrap_err()),
                completed => Ok(completed),
            },
            Call::CompleteBatch(items, then) => Ok(self.complete_all(items, then.as_ref(), true)),
            Call::Fail(held, retry) => self.fail(&(*held, *retry)).map(|ended| transitioned(*held, ended)),
            Call::Release(held, delay) => self.release(&(*held, *delay)).map(|ended| transitioned(*held, ended)),
            Call::FailBatch(items) => Ok(Reply::Returned(items.iter().map(|item| self.fail(item)).collect())),
            Call::ReleaseBatch(items) => Ok(Reply::Returned(items.iter().map(|item| self.release(item)).collect())),
            Call::Revoke(target, delay, nth) => self.revoke(*target, *delay, *nth).map(shown),
            Call::Run(target) => self.run(*target).map(shown),
            Call::Heartbeat(beats) => Ok(Reply::Heartbeats(
                beats.iter().map(|(held, lease, progress)| self.beat(*held, *lease, *progress)).collect(),
            )),
            Call::Cancel(target) => self.cancel(*target).map(shown),
            Call::Retry(target) => self.revive(*target).map(shown),
            Call::Delete(target) => self.delete(*target).map(|()| Reply::Nothing),
            Call::Pause(queue) => Ok(self.set_paused(queue, true)),
            Call::Resume(queue) => Ok(self.set_paused(queue, false)),
            Call::Purge(queue, states) => Ok(Reply::Purged(self.purge(queue, states))),
            Call::Remove(queue) => self.remove_queue(queue),
        };
        // A task that returns after its deadline expires at once.
        self.upkeep();
        reply.unwrap_or_else(Reply::Problem)
    }
}

fn transitioned(held: Held, ended: Ended) -> Reply {
    match held.0 {
        Target::Task(name) => Reply::Transitioned(name, ended),
        Target::NoTask => unreachable!("no task has a lease"),
    }
}
