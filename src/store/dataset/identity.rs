//! The first start on a data set founds it; every later one must fit what was founded.

use std::fmt;

use deadpool_redis::redis::{Value, cmd, pipe};

use crate::domain::slot::Shards;
use crate::store::error::{Error, Result};
use crate::store::keys::{Keys, tags};
use crate::store::redis::client::Client;
use crate::store::redis::reply::{int, read_list, text};

/// What was decided once for a data set.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// How its slots are cut.
    pub shards: Shards,
    /// Its name: 32 hexadecimal digits.
    pub id: String,
    /// Whether every shard has got its pulse.
    pub has_markers: bool,
}

/// As in the pulse of each shard: `<id>/<shards>`.
impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.shards.count())
    }
}

impl Dataset {
    /// Whether a set of this name, as in a pulse, is cut as this one is.
    pub(in crate::store) fn has_shard_count_of(&self, set: &str) -> bool {
        set.split_once('/').is_some_and(|(_, shards)| shards == self.shards.count().to_string())
    }
}

/// A start that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// Another number of shards was asked for.
    #[error(
        "this data set was founded with {founded} shards, and {wanted} are asked for. The number never changes: \
         start with --shards {founded} or without --shards; for another number, use another --prefix or another Redis"
    )]
    ShardCountMismatch {
        /// As it is.
        founded: u16,
        /// As was asked for.
        wanted: u16,
    },
    /// There is no answer.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Finds what was decided at the first start, or decides it: `wanted` shards, or else 1, or on a Cluster the next
/// power of two from four times its masters, at least 16.
pub async fn found(
    client: &Client,
    prefix: &str,
    wanted: Option<Shards>,
) -> std::result::Result<Dataset, DatasetError> {
    // Nothing is written where nothing has to be: a Redis that is full can still be drained.
    if let Some(dataset) = load(client, prefix).await? {
        return check_shard_count(dataset, wanted);
    }
    let meta = first_shard_keys(prefix).meta();
    let proposed = match wanted {
        Some(shards) => shards,
        None => default_shard_count(client).await?,
    };
    let mut pipeline = pipe();
    pipeline.cmd("HSETNX").arg(&meta).arg("shards").arg(proposed.count());
    pipeline.cmd("HSETNX").arg(&meta).arg("id").arg(format!("{:032x}", rand::random::<u128>()));
    client.send_pipeline(&pipeline).await?;
    let dataset = load(client, prefix).await?.ok_or_else(|| Error::Unexpected("meta is gone".into()))?;
    check_shard_count(dataset, wanted)
}

fn check_shard_count(dataset: Dataset, wanted: Option<Shards>) -> std::result::Result<Dataset, DatasetError> {
    match wanted {
        Some(wanted) if wanted != dataset.shards => {
            Err(DatasetError::ShardCountMismatch { founded: dataset.shards.count(), wanted: wanted.count() })
        }
        _ => Ok(dataset),
    }
}

/// Whether servers are, or lately were, at work where no data set is: it was lost.
pub async fn is_missing(client: &Client, prefix: &str) -> Result<bool> {
    let callers = int(client.send(cmd("EXISTS").arg(first_shard_keys(prefix).callers())).await?)?;
    Ok(callers > 0 && load(client, prefix).await?.is_none())
}

/// What was decided at the first start; `None` if there was none.
pub async fn load(client: &Client, prefix: &str) -> Result<Option<Dataset>> {
    let mut fields = read_list(
        client.send(cmd("HMGET").arg(first_shard_keys(prefix).meta()).arg(&["shards", "id", "has_markers"])).await?,
    )?;
    let count = match fields.value()? {
        Value::Nil => return Ok(None),
        count => int(count)?,
    };
    let shards = u16::try_from(count).ok().and_then(Shards::new);
    let shards = shards.ok_or_else(|| Error::Unexpected(format!("meta names {count} shards")))?;
    let id = fields.text()?;
    Ok(Some(Dataset { shards, id, has_markers: fields.value()? != Value::Nil }))
}

/// The keys of the first shard.
fn first_shard_keys(prefix: &str) -> Keys {
    // The first shard's tag is the same whatever their number.
    let tag = Shards::new(1).map(tags).and_then(|tags| tags.first().copied()).unwrap_or_default();
    Keys::new(prefix, tag)
}

async fn default_shard_count(client: &Client) -> Result<Shards> {
    let count = if client.is_cluster() {
        let info = text(client.send(cmd("CLUSTER").arg("INFO")).await?)?;
        let masters = info.lines().find_map(|line| line.strip_prefix("cluster_size:"));
        let masters: u16 = masters.and_then(|size| size.trim().parse().ok()).unwrap_or(1);
        masters.saturating_mul(4).next_power_of_two().clamp(16, Shards::MAX)
    } else {
        1
    };
    Shards::new(count).ok_or_else(|| Error::Unexpected(format!("{count} is no number of shards")))
}
