//! Notices that a data set is not what it was: each shard carries the set's name and a counter that every server raises
//! each second. A name that is gone or another, or a counter lower than it was, is a loss that an operator has to accept.
//!
//! What is noticed is what happens while a server runs: the counter it saw last is in its memory alone.

use deadpool_redis::redis::{Value, cmd};

use super::error::Result;
use super::found::Founded;
use super::gate::Loss;
use super::ops::beat::{Pulse, Purpose, beat};
use super::reply::text;
use super::shard::{Caller, Shard, Store};

/// Gives every shard of a data set that was just founded its pulse; later starts find them all.
pub async fn begin(store: &Store, founded: &Founded) -> Result<()> {
    if founded.has_pulse {
        return Ok(());
    }
    write_all(store, founded, Purpose::Found).await
}

/// Accepts every shard as it is, as part of the data set `founded`: servers that noticed a loss take it for theirs.
pub async fn accept(store: &Store, founded: &Founded) -> Result<()> {
    write_all(store, founded, Purpose::Accept).await
}

async fn write_all(store: &Store, founded: &Founded, purpose: Purpose) -> Result<()> {
    let mut caller = Caller::new();
    for shard in store.shards() {
        beat(shard, &mut caller, founded, purpose).await?;
    }
    // Only now: a start that ends half-way is done again by the next.
    let home = store.home();
    home.send(cmd("HSET").arg(home.keys.meta()).arg("pulse").arg(1)).await?;
    Ok(())
}

/// The shards that are not part of the data set `founded`, without changing anything.
pub async fn strangers(store: &Store, founded: &Founded) -> Result<Vec<(usize, Loss)>> {
    let mut found = Vec::new();
    for shard in store.shards().iter().filter(|_| founded.has_pulse) {
        match shard.send(cmd("HGET").arg(shard.keys.pulse()).arg("set")).await? {
            Value::Nil => found.push((shard.index, Loss::Gone)),
            set => {
                if text(set)? != founded.to_string() {
                    found.push((shard.index, Loss::Another));
                }
            }
        }
    }
    Ok(found)
}

/// What a server knows of one shard's data.
#[derive(Debug)]
pub struct Watch {
    own: Founded,
    set: String,
    last: Option<Pulse>,
    loss: Option<Loss>,
}

impl Watch {
    /// Nothing yet, but that the shard is part of `own`.
    pub fn new(own: &Founded) -> Self {
        Watch { set: own.to_string(), own: own.clone(), last: None, loss: None }
    }

    /// Looks, and tells the shard's gate what it has seen: the loss that is to be accepted, if there is one.
    pub async fn look(&mut self, shard: &Shard, caller: &mut Caller) -> Result<()> {
        let seen = beat(shard, caller, &self.own, Purpose::Look).await?;
        self.judge(seen);
        shard.gate.set_loss(self.loss);
        Ok(())
    }

    fn judge(&mut self, seen: Option<Pulse>) {
        let Some(seen) = seen else {
            self.loss = Some(Loss::Gone);
            return;
        };
        let before = self.last.as_ref();
        let accepted = before.is_some_and(|last| seen.accepted > last.accepted) && self.own.fits(&seen.set);
        // Each look raises the counter itself, so that it stands still only if it had gone back.
        let older = before.is_some_and(|last| seen.beats <= last.beats || seen.accepted < last.accepted);
        if accepted {
            self.set = seen.set.clone();
            self.loss = None;
        } else if seen.set != self.set {
            self.loss = Some(Loss::Another);
            return;
        } else if older {
            self.loss = Some(Loss::Older);
        } else if self.loss != Some(Loss::Older) {
            // What was gone has come back. A set that has once gone back in time has lost what it has lost.
            self.loss = None;
        }
        // An acceptance from before the loss must not count again.
        let accepted = seen.accepted.max(before.map_or(0, |last| last.accepted));
        self.last = Some(Pulse { accepted, ..seen });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::slot::Shards;

    fn own() -> Founded {
        Founded { shards: Shards::new(4).unwrap(), id: "a".into(), has_pulse: true }
    }

    fn pulse(set: &str, beats: i64, accepted: i64) -> Option<Pulse> {
        Some(Pulse { set: set.into(), beats, accepted })
    }

    /// The loss after each of these.
    fn losses(seen: &[Option<Pulse>]) -> Vec<Option<Loss>> {
        let mut watch = Watch::new(&own());
        let look = |pulse: &Option<Pulse>| {
            watch.judge(pulse.clone());
            watch.loss
        };
        seen.iter().map(look).collect()
    }

    #[test]
    fn a_counter_that_rises_is_no_loss() {
        assert_eq!(losses(&[pulse("a/4", 7, 0), pulse("a/4", 8, 0), pulse("a/4", 20, 0)]), [None, None, None]);
    }

    #[test]
    fn what_is_gone_or_another_is_a_loss_until_it_is_back() {
        let (gone, another) = (Some(Loss::Gone), Some(Loss::Another));
        let seen = [pulse("a/4", 7, 0), None, pulse("b/4", 9, 0), pulse("a/4", 9, 0)];
        assert_eq!(losses(&seen), [None, gone, another, None]);
    }

    #[test]
    fn a_set_that_has_gone_back_in_time_stays_lost_until_it_is_accepted() {
        let older = Some(Loss::Older);
        let seen = [pulse("a/4", 7, 0), pulse("a/4", 5, 0), pulse("a/4", 9, 0), pulse("a/4", 10, 1000)];
        assert_eq!(losses(&seen), [None, older, older, None]);
        assert_eq!(losses(&[pulse("a/4", 7, 0), pulse("a/4", 7, 0)]), [None, older], "one beat is lost");
    }

    #[test]
    fn an_acceptance_counts_once_and_not_with_another_number_of_shards() {
        let (gone, another, older) = (Some(Loss::Gone), Some(Loss::Another), Some(Loss::Older));
        let seen = [pulse("a/4", 7, 0), None, pulse("b/8", 1, 900), pulse("b/4", 1, 1000), pulse("b/4", 2, 900)];
        assert_eq!(losses(&seen), [None, gone, another, None, older]);
        let seen = [pulse("a/4", 7, 1000), pulse("c/4", 1, 1000)];
        assert_eq!(losses(&seen), [None, another]);
    }
}
