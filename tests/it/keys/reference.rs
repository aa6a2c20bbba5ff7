//! Random calls beside a reference in plain Rust.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use slotwheel::domain::digest::KeyDigest;
use slotwheel::domain::id::TaskId;
use slotwheel::store::Caller;
use slotwheel::store::audit::audit;
use slotwheel::store::ops::cancel::cancel;
use slotwheel::store::ops::release::{Release, Releaser, release};

use super::submit;
use crate::support::script_lab::{Lab, id, in_one_slot, of_key, want};

/// One slot in plain Rust: its keyed slot queue, and that of its tasks without a key.
#[derive(Default)]
struct Reference {
    /// By key and position; `None`: without a key.
    ready: BTreeMap<(Option<KeyDigest>, u64), TaskId>,
    /// Whether the entry is the keyed one, in the order of turns.
    wheel: Vec<bool>,
    /// The key that was served last, and the last position to serve.
    pass: Option<(KeyDigest, u64)>,
    seq: u64,
}

impl Reference {
    fn enter(&mut self, key: Option<KeyDigest>, seq: u64, id: TaskId) {
        self.ready.insert((key, seq), id);
        if !self.wheel.contains(&key.is_some()) {
            self.wheel.push(key.is_some());
        }
    }

    fn leave(&mut self, key: Option<KeyDigest>, seq: u64) {
        self.ready.remove(&(key, seq)).expect("a ready task");
        if !self.ready.keys().any(|(other, _)| other.is_some() == key.is_some()) {
            self.wheel.retain(|is_keyed| *is_keyed != key.is_some());
            self.pass = self.pass.filter(|_| key.is_none());
        }
    }

    /// The next task of the turn of the entry at the front.
    fn next(&self, is_keyed: bool) -> Option<(Option<KeyDigest>, u64)> {
        let mut last = None;
        let firsts = self.ready.keys().filter(|(key, _)| {
            let is_first = last != Some(*key);
            last = Some(*key);
            is_first && key.is_some() == is_keyed
        });
        let is_due = |(key, seq): &(Option<KeyDigest>, u64)| {
            self.pass
                .is_none_or(|(served, until)| key.is_none_or(|key| key > served) && (key.is_none() || *seq <= until))
        };
        firsts.copied().collect::<Vec<_>>().into_iter().find(is_due)
    }

    fn take(&mut self) -> Option<(Option<KeyDigest>, u64, TaskId)> {
        loop {
            let is_keyed = *self.wheel.first()?;
            let next = self.next(is_keyed);
            let taken = next.map(|(key, seq)| (key, seq, self.ready[&(key, seq)]));
            if let Some((key, seq, _)) = taken {
                if let Some(key) = key {
                    self.pass = Some((key, self.pass.map_or(self.seq, |(_, until)| until)));
                }
                self.leave(key, seq);
            }
            let is_over = !is_keyed || self.next(true).is_none();
            if is_over && self.wheel.first() == Some(&is_keyed) {
                self.pass = self.pass.filter(|_| !is_keyed);
                self.wheel.rotate_left(1);
            }
            if taken.is_some() {
                return taken;
            }
        }
    }

    fn come_first(&mut self, is_keyed: bool) {
        self.wheel.retain(|other| *other != is_keyed);
        self.wheel.insert(0, is_keyed);
    }
}

#[tokio::test]
async fn random_calls_serve_keys_as_the_reference_does() {
    let lab = Lab::start().await;
    for _ in 0..40 {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        lab.forget_all().await;
        play(&lab, StdRng::seed_from_u64(seed)).await;
        let findings = audit(&lab.store).await.expect("an audit").findings;
        assert!(findings.is_empty(), "{findings:#?}");
    }
    lab.end().await;
}

async fn play(lab: &Lab, mut random: StdRng) {
    let (mut reference, mut number) = (Reference::default(), 1000);
    let mut leased: Vec<(Option<KeyDigest>, u64, u16)> = Vec::new();
    let mut numbers = BTreeMap::new();
    for _ in 0..60 {
        match random.random_range(0..10) {
            0..4 => {
                let mut tasks = Vec::new();
                for _ in 0..random.random_range(1..6) {
                    let name = ["a", "b", "c", "d", "e", ""][random.random_range(0..6)];
                    let task = match name {
                        "" => in_one_slot(number..number + 1).remove(0),
                        key => of_key(key, number..number + 1).remove(0),
                    };
                    reference.seq += 1;
                    reference.enter(task.key_digest, reference.seq, task.id);
                    numbers.insert(task.id, number);
                    tasks.push(task);
                    number += 1;
                }
                submit(lab, &tasks).await;
            }
            4..8 => {
                let wanted = random.random_range(1..8);
                let claimed = lab.claim(&["q"], &[want(wanted, None, 1)]).await.expect("tasks");
                let expected: Vec<_> = (0..wanted).map_while(|_| reference.take()).collect();
                let found: Vec<TaskId> = claimed.iter().map(|task| task.id).collect();
                assert_eq!(found, expected.iter().map(|(.., id)| *id).collect::<Vec<_>>());
                leased.extend(expected.into_iter().map(|(key, seq, id)| (key, seq, numbers[&id])));
            }
            8 if !leased.is_empty() => {
                let (key, seq, n) = leased.swap_remove(random.random_range(0..leased.len()));
                let by = if random.random() { Releaser::Worker } else { Releaser::Undelivered };
                let releases = [Release { lease_ref: lab.held(n), by, delay_ms: 0 }];
                release(lab.shard(), &mut Caller::new(), &releases).await.expect("released");
                let has_left = !reference.wheel.contains(&key.is_some());
                reference.enter(key, seq, id(n));
                if by == Releaser::Undelivered && (key.is_none() || has_left) {
                    reference.come_first(key.is_some());
                }
            }
            _ if !reference.ready.is_empty() => {
                let at = random.random_range(0..reference.ready.len());
                let (&(key, seq), &id) = reference.ready.iter().nth(at).expect("a task");
                cancel(lab.shard(), &mut Caller::new(), &[id]).await.expect("cancelled");
                reference.leave(key, seq);
            }
            _ => {}
        }
    }
}
