//! Notices that a data set is not what it was: each shard carries the set's name and a counter that every server raises
//! each second. A name that is gone or another, or a counter lower than it was, is a loss that an operator has to accept.
//!
//! What is noticed is what happens while a server runs: the counter it saw last is in its memory alone.

use deadpool_redis::redis::{Value, cmd};

use super::identity::Dataset;
use crate::store::circuit_breaker::DataLoss;
use crate::store::error::Result;
use crate::store::ops::touch_dataset::{DatasetMarker, TouchPurpose, touch_dataset};
use crate::store::redis::reply::text;
use crate::store::shard::{Caller, Shard, Store};

/// Gives every shard of a data set that was just founded its pulse; later starts find them all.
pub async fn write_markers_once(store: &Store, dataset: &Dataset) -> Result<()> {
    if dataset.has_markers {
        return Ok(());
    }
    write_markers(store, dataset, TouchPurpose::CreateIfMissing).await
}

/// Accepts every shard as it is, as part of the data set `founded`: servers that noticed a loss take it for theirs.
pub async fn accept_loss(store: &Store, dataset: &Dataset) -> Result<()> {
    write_markers(store, dataset, TouchPurpose::Accept).await
}

async fn write_markers(store: &Store, dataset: &Dataset, purpose: TouchPurpose) -> Result<()> {
    let mut caller = Caller::new();
    for shard in store.shards() {
        touch_dataset(shard, &mut caller, dataset, purpose).await?;
    }
    // Only now: a start that ends half-way is done again by the next.
    let first_shard = store.first_shard();
    first_shard.send(cmd("HSET").arg(first_shard.keys.meta()).arg("has_markers").arg(1)).await?;
    Ok(())
}

/// The shards that are not part of the data set `founded`, without changing anything.
pub async fn foreign_shards(store: &Store, dataset: &Dataset) -> Result<Vec<(usize, DataLoss)>> {
    let mut foreign = Vec::new();
    for shard in store.shards().iter().filter(|_| dataset.has_markers) {
        match shard.send(cmd("HGET").arg(shard.keys.dataset()).arg("dataset")).await? {
            Value::Nil => foreign.push((shard.index, DataLoss::Missing)),
            set => {
                if text(set)? != dataset.to_string() {
                    foreign.push((shard.index, DataLoss::Replaced));
                }
            }
        }
    }
    Ok(foreign)
}

/// What a server knows of one shard's data.
#[derive(Debug)]
pub struct LossDetector {
    dataset: Dataset,
    expected_set: String,
    last_marker: Option<DatasetMarker>,
    loss: Option<DataLoss>,
}

impl LossDetector {
    /// Nothing yet, but that the shard is part of `own`.
    pub fn new(dataset: &Dataset) -> Self {
        LossDetector { expected_set: dataset.to_string(), dataset: dataset.clone(), last_marker: None, loss: None }
    }

    /// Looks, and tells the shard's gate what it has seen: the loss that is to be accepted, if there is one.
    pub async fn check(&mut self, shard: &Shard, caller: &mut Caller) -> Result<()> {
        let marker = touch_dataset(shard, caller, &self.dataset, TouchPurpose::Check).await?;
        self.evaluate(marker);
        shard.breaker.set_data_loss(self.loss);
        Ok(())
    }

    fn evaluate(&mut self, marker: Option<DatasetMarker>) {
        let Some(marker) = marker else {
            self.loss = Some(DataLoss::Missing);
            return;
        };
        let previous = self.last_marker.as_ref();
        let accepted = previous.is_some_and(|last| marker.accepted_at > last.accepted_at)
            && self.dataset.has_shard_count_of(&marker.dataset);
        // Each look raises the counter itself, so that it stands still only if it had gone back.
        let rolled_back =
            previous.is_some_and(|last| marker.generation <= last.generation || marker.accepted_at < last.accepted_at);
        if accepted {
            self.expected_set = marker.dataset.clone();
            self.loss = None;
        } else if marker.dataset != self.expected_set {
            self.loss = Some(DataLoss::Replaced);
            return;
        } else if rolled_back {
            self.loss = Some(DataLoss::RolledBack);
        } else if self.loss != Some(DataLoss::RolledBack) {
            // What was gone has come back. A set that has once gone back in time has lost what it has lost.
            self.loss = None;
        }
        // An acceptance from before the loss must not count again.
        let accepted = marker.accepted_at.max(previous.map_or(0, |last| last.accepted_at));
        self.last_marker = Some(DatasetMarker { accepted_at: accepted, ..marker });
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::slot::Shards;
    use crate::store::dataset::loss_detector::*;

    fn dataset() -> Dataset {
        Dataset { shards: Shards::new(4).unwrap(), id: "a".into(), has_markers: true }
    }

    fn marker(set: &str, beats: i64, accepted: i64) -> Option<DatasetMarker> {
        Some(DatasetMarker { dataset: set.into(), generation: beats, accepted_at: accepted })
    }

    /// The loss after each of these.
    fn losses(markers: &[Option<DatasetMarker>]) -> Vec<Option<DataLoss>> {
        let mut detector = LossDetector::new(&dataset());
        let observe = |pulse: &Option<DatasetMarker>| {
            detector.evaluate(pulse.clone());
            detector.loss
        };
        markers.iter().map(observe).collect()
    }

    #[test]
    fn rising_generation_is_no_loss() {
        assert_eq!(losses(&[marker("a/4", 7, 0), marker("a/4", 8, 0), marker("a/4", 20, 0)]), [None, None, None]);
    }

    #[test]
    fn missing_or_replaced_dataset_is_a_loss_until_it_returns() {
        let (gone, another) = (Some(DataLoss::Missing), Some(DataLoss::Replaced));
        let seen = [marker("a/4", 7, 0), None, marker("b/4", 9, 0), marker("a/4", 9, 0)];
        assert_eq!(losses(&seen), [None, gone, another, None]);
    }

    #[test]
    fn rolled_back_dataset_stays_lost_until_accepted() {
        let older = Some(DataLoss::RolledBack);
        let seen = [marker("a/4", 7, 0), marker("a/4", 5, 0), marker("a/4", 9, 0), marker("a/4", 10, 1000)];
        assert_eq!(losses(&seen), [None, older, older, None]);
        assert_eq!(losses(&[marker("a/4", 7, 0), marker("a/4", 7, 0)]), [None, older], "one beat is lost");
    }

    #[test]
    fn acceptance_counts_once_and_only_for_the_same_shard_count() {
        let (gone, another, older) = (Some(DataLoss::Missing), Some(DataLoss::Replaced), Some(DataLoss::RolledBack));
        let seen = [marker("a/4", 7, 0), None, marker("b/8", 1, 900), marker("b/4", 1, 1000), marker("b/4", 2, 900)];
        assert_eq!(losses(&seen), [None, gone, another, None, older]);
        let seen = [marker("a/4", 7, 1000), marker("c/4", 1, 1000)];
        assert_eq!(losses(&seen), [None, another]);
    }
}
