//! Data loss detection. Each shard has a marker: the data set's id and a generation that every server raises each second.
//!
//! A missing marker, another id, or a lower generation than before is a data loss that an operator must accept. Only a
//! loss while a server runs is detected, because the last generation is kept in the server's memory alone.

use deadpool_redis::redis::{Value, cmd};

use super::identity::Dataset;
use crate::store::error::{DataLoss, Result};
use crate::store::ops::touch_dataset::{DatasetMarker, TouchPurpose, touch_dataset};
use crate::store::redis::reply::text;
use crate::store::shard::{Caller, Shard, Store};

/// Writes the marker of every shard of a new data set. Does nothing for a data set that has its markers.
pub async fn write_markers_once(store: &Store, dataset: &Dataset) -> Result<()> {
    if dataset.has_markers {
        return Ok(());
    }
    write_markers(store, dataset, TouchPurpose::CreateIfMissing).await
}

/// Accepts the data of every shard as part of `dataset`. Servers that detected a loss then serve it.
pub async fn accept_loss(store: &Store, dataset: &Dataset) -> Result<()> {
    write_markers(store, dataset, TouchPurpose::Accept).await
}

async fn write_markers(store: &Store, dataset: &Dataset, purpose: TouchPurpose) -> Result<()> {
    let mut caller = Caller::new();
    let dataset = dataset.to_string();
    for shard in store.shards() {
        touch_dataset(shard, &mut caller, &dataset, purpose).await?;
    }
    // Last, so that the next start completes a start that was interrupted.
    let first_shard = store.first_shard();
    first_shard.send(cmd("HSET").arg(first_shard.keys.meta()).arg("has_markers").arg(1)).await?;
    Ok(())
}

/// Returns the shards that are not part of `dataset`, and why. Writes nothing.
pub async fn foreign_shards(store: &Store, dataset: &Dataset) -> Result<Vec<(usize, DataLoss)>> {
    let mut foreign = Vec::new();
    for shard in store.shards().iter().filter(|_| dataset.has_markers) {
        match shard.send(cmd("HGET").arg(shard.keys.dataset()).arg("dataset")).await? {
            Value::Nil => foreign.push((shard.index, DataLoss::Missing)),
            marker => {
                if text(marker)? != dataset.to_string() {
                    foreign.push((shard.index, DataLoss::Replaced));
                }
            }
        }
    }
    Ok(foreign)
}

/// Detects data loss in one shard.
#[derive(Debug)]
pub struct LossDetector {
    dataset: Dataset,
    /// The data set that the marker must name.
    expected_marker: String,
    last_marker: Option<DatasetMarker>,
    loss: Option<DataLoss>,
}

impl LossDetector {
    /// Returns a detector for a shard of `dataset`.
    pub fn new(dataset: &Dataset) -> Self {
        LossDetector { expected_marker: dataset.to_string(), dataset: dataset.clone(), last_marker: None, loss: None }
    }

    /// Checks the shard's marker and records the result in its circuit breaker.
    pub async fn check(&mut self, shard: &Shard, caller: &mut Caller) -> Result<()> {
        let marker = touch_dataset(shard, caller, &self.dataset.to_string(), TouchPurpose::Check).await?;
        if let Some(accepted) = self.evaluate(marker) {
            shard.accept_dataset(accepted.split('/').next().unwrap_or_default());
        }
        shard.breaker.set_data_loss(self.loss);
        Ok(())
    }

    /// Returns the data set if an operator has accepted it since the last marker.
    fn evaluate(&mut self, marker: Option<DatasetMarker>) -> Option<&str> {
        let Some(marker) = marker else {
            self.loss = Some(DataLoss::Missing);
            return None;
        };
        let previous = self.last_marker.as_ref();
        let accepted = previous.is_some_and(|last| marker.accepted_at > last.accepted_at)
            && self.dataset.has_shard_count_of(&marker.dataset);
        // Each check raises the generation itself. An equal generation therefore means a rollback by one.
        let rolled_back =
            previous.is_some_and(|last| marker.generation <= last.generation || marker.accepted_at < last.accepted_at);
        if accepted {
            self.expected_marker = marker.dataset.clone();
            self.loss = None;
        } else if marker.dataset != self.expected_marker {
            self.loss = Some(DataLoss::Replaced);
            return None;
        } else if rolled_back {
            self.loss = Some(DataLoss::RolledBack);
        } else if self.loss != Some(DataLoss::RolledBack) {
            // A missing or replaced data set was restored. A rollback remains: its writes stay lost.
            self.loss = None;
        }
        // An acceptance that predates the loss must not count again.
        let accepted_at = marker.accepted_at.max(previous.map_or(0, |last| last.accepted_at));
        self.last_marker = Some(DatasetMarker { accepted_at, ..marker });
        accepted.then_some(&self.expected_marker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::slot::Shards;

    fn dataset() -> Dataset {
        Dataset { shards: Shards::new(4).unwrap(), id: "a".into(), has_markers: true }
    }

    fn marker(dataset: &str, generation: i64, accepted_at: i64) -> Option<DatasetMarker> {
        Some(DatasetMarker { dataset: dataset.into(), generation, accepted_at })
    }

    /// Returns the loss after each marker.
    fn losses(markers: &[Option<DatasetMarker>]) -> Vec<Option<DataLoss>> {
        let mut detector = LossDetector::new(&dataset());
        let observe = |marker: &Option<DatasetMarker>| {
            detector.evaluate(marker.clone());
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
        let (missing, replaced) = (Some(DataLoss::Missing), Some(DataLoss::Replaced));
        let markers = [marker("a/4", 7, 0), None, marker("b/4", 9, 0), marker("a/4", 9, 0)];
        assert_eq!(losses(&markers), [None, missing, replaced, None]);
    }

    #[test]
    fn rolled_back_dataset_stays_lost_until_accepted() {
        let rolled_back = Some(DataLoss::RolledBack);
        let markers = [marker("a/4", 7, 0), marker("a/4", 5, 0), marker("a/4", 9, 0), marker("a/4", 10, 1000)];
        assert_eq!(losses(&markers), [None, rolled_back, rolled_back, None]);
        assert_eq!(losses(&[marker("a/4", 7, 0), marker("a/4", 7, 0)]), [None, rolled_back], "one write is lost");
    }

    #[test]
    fn acceptance_counts_once_and_only_for_the_same_shard_count() {
        let (missing, replaced, rolled_back) =
            (Some(DataLoss::Missing), Some(DataLoss::Replaced), Some(DataLoss::RolledBack));
        let markers = [marker("a/4", 7, 0), None, marker("b/8", 1, 900), marker("b/4", 1, 1000), marker("b/4", 2, 900)];
        assert_eq!(losses(&markers), [None, missing, replaced, None, rolled_back]);
        let markers = [marker("a/4", 7, 1000), marker("c/4", 1, 1000)];
        assert_eq!(losses(&markers), [None, replaced]);
    }
}
