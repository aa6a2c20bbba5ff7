//! Random traces of one queue in one shard: a submit, its wake-up and the checks of a server overlap in every order.
//!
//! At each step, a task hides from no waiter: if the cache says that there is none, a wake-up is still on its way.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::ready_cache::{Epoch, ReadyCache};
use crate::domain::queue::QueueName;
use crate::store::ops::claim::Front;

const SHARD: usize = 0;

fn queue() -> QueueName {
    QueueName::parse("q").unwrap()
}

/// One step. The number is a priority, or selects a check.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Another server submits a task.
    Submit(u8),
    /// This server submits a task, and answers.
    OwnSubmit(u8),
    /// Another server claims the tasks above this priority.
    Claim(u8),
    SendCheck,
    /// Redis runs a check.
    RunCheck(u8),
    /// The reply to a check arrives.
    ApplyCheck(u8),
    /// A wake-up arrives.
    Deliver,
    Interrupt,
    Resume,
    Invalidate,
    AddWaiter,
    RemoveWaiter,
    /// All waiters end, and the server forgets the queue.
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::{AddWaiter, ApplyCheck, Claim, Deliver, Forget, Interrupt, Invalidate, OwnSubmit, RemoveWaiter};
    use Step::{Resume, RunCheck, SendCheck, Submit};
    let frequent = prop_oneof![
        (0u8..3).prop_map(Submit),
        (0u8..3).prop_map(OwnSubmit),
        (0u8..4).prop_map(Claim),
        Just(SendCheck),
        (0u8..3).prop_map(RunCheck),
        (0u8..3).prop_map(ApplyCheck),
        Just(Deliver),
    ];
    let rare = prop::sample::select(vec![Interrupt, Resume, Invalidate, AddWaiter, AddWaiter, RemoveWaiter, Forget]);
    prop::collection::vec(prop_oneof![3 => frequent, 1 => rare], 1..80)
}

/// Redis, the channel, and the server.
struct Trace {
    cache: ReadyCache,
    /// The highest ready priority in Redis.
    front: Option<u8>,
    is_subscribed: bool,
    /// Wake-ups on their way.
    channel: VecDeque<u8>,
    /// Checks in flight: when they were sent, and what they read.
    checks: Vec<(Epoch, Option<Front>)>,
    waiters: usize,
    /// Whether the server remembers the queue.
    is_remembered: bool,
    /// Whether the server has received a wake-up since Redis had no task.
    is_announced: bool,
}

impl Trace {
    fn new() -> Self {
        let mut cache = ReadyCache::new(1);
        cache.resume(SHARD);
        cache.add_waiter(&queue());
        Trace {
            cache,
            front: None,
            is_subscribed: true,
            channel: VecDeque::new(),
            checks: Vec::new(),
            waiters: 1,
            is_remembered: true,
            is_announced: false,
        }
    }

    fn is_negative(&self) -> bool {
        self.cache.possible_shards(&[queue()]).is_empty()
    }

    /// As submit.lua does: a wake-up if the wheel was empty, or had lower priorities only.
    fn submit(&mut self, priority: u8) {
        if self.front.is_none_or(|front| priority > front) {
            self.front = Some(priority);
            self.channel.extend(self.is_subscribed.then_some(priority));
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Submit(priority) => self.submit(priority),
            Step::OwnSubmit(priority) => {
                let sent_at = self.cache.epoch();
                self.submit(priority);
                self.cache.record_submit(&queue(), SHARD, priority, sent_at);
                assert!(!self.is_negative(), "a claim after the answer finds the task");
            }
            Step::Claim(priority) => {
                self.front = self.front.filter(|_| priority > 0).map(|front| front.min(priority - 1));
                self.is_announced &= self.front.is_some();
            }
            Step::SendCheck => self.checks.push((self.cache.epoch(), None)),
            Step::RunCheck(number) => {
                let found = self.front.map_or(Front::Empty, Front::Ready);
                let check = self.checks.get_mut(usize::from(number)).filter(|(_, read)| read.is_none());
                check.into_iter().for_each(|(_, read)| *read = Some(found));
            }
            Step::ApplyCheck(number) => {
                if let Some((sent_at, Some(found))) = self.checks.get(usize::from(number)).copied() {
                    self.checks.remove(usize::from(number));
                    self.cache.apply_check(&queue(), SHARD, sent_at, found);
                }
            }
            Step::Deliver => {
                if let Some(priority) = self.channel.pop_front() {
                    self.cache.record_wakeup(&queue(), SHARD, priority);
                    self.is_announced |= self.is_remembered && self.front.is_some() && self.channel.is_empty();
                }
            }
            Step::Interrupt => {
                self.is_subscribed = false;
                self.channel.clear();
                self.cache.interrupt();
            }
            Step::Resume => {
                self.is_subscribed = true;
                self.cache.resume(SHARD);
            }
            Step::Invalidate => self.cache.invalidate(SHARD),
            Step::AddWaiter => {
                self.cache.add_waiter(&queue());
                self.waiters += 1;
                self.is_remembered = true;
            }
            Step::RemoveWaiter if self.waiters == 0 => {}
            Step::RemoveWaiter => {
                self.cache.remove_waiter(&queue());
                self.waiters -= 1;
            }
            Step::Forget => {
                (0..self.waiters).for_each(|_| self.cache.remove_waiter(&queue()));
                let remembers = std::iter::repeat_with(|| !self.cache.queues_to_poll().is_empty());
                assert!(remembers.take(100).any(|remembers| !remembers), "no poll forgets it");
                (self.waiters, self.is_remembered, self.is_announced) = (0, false, false);
            }
        }
    }
}

/// # Panics
/// If a task hides.
fn run_all(steps: impl IntoIterator<Item = Step>) {
    let mut trace = Trace::new();
    for step in steps {
        trace.run(step);
        if trace.front.is_some() && trace.channel.is_empty() {
            assert!(!trace.is_negative(), "a task hides after {step:?}");
            let is_known = trace.cache.ready_shards(&queue()).is_some();
            assert!(is_known || !trace.is_announced, "a task is not known any more after {step:?}");
        }
    }
}

#[test]
fn check_does_not_count_if_its_queue_was_forgotten_before_a_wakeup() {
    use Step::{AddWaiter, ApplyCheck, Deliver, Forget, RunCheck, SendCheck, Submit};
    run_all([SendCheck, RunCheck(0), Forget, Submit(1), Deliver, AddWaiter, ApplyCheck(0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn task_is_known_or_its_wakeup_is_on_its_way(steps in steps()) {
        run_all(steps);
    }
}
