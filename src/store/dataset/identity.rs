//! The identity of a data set. The first start creates it, and every later start must match it.

use std::fmt;

use deadpool_redis::redis::{Value, cmd, pipe};

use crate::domain::slot::Shards;
use crate::store::error::{Error, Result};
use crate::store::keys::{Keys, tags};
use crate::store::redis::client::Client;
use crate::store::redis::reply::{int, read_list, text};

/// The version of the layout of all keys and records. A release reads and writes one.
const LAYOUT: i64 = 5;

/// The identity of a data set. It never changes.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The number of shards.
    pub shards: Shards,
    /// A random id: 32 hexadecimal digits.
    pub id: String,
    /// Whether every shard has its marker.
    pub has_markers: bool,
}

/// The form in the marker of each shard: `<id>/<shards>`.
impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.shards.count())
    }
}

impl Dataset {
    /// Whether the data set of a marker has as many shards as this one.
    pub(in crate::store) fn has_shard_count_of(&self, marker: &str) -> bool {
        marker.split_once('/').is_some_and(|(_, shards)| shards == self.shards.count().to_string())
    }
}

/// Why a start failed to open the data set.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The configured number of shards is not that of the data set.
    #[error(
        "this data set was created with {existing} shards, but {configured} are configured. The number never changes: \
         start with --shards {existing} or without --shards; for another number, use another --prefix or another Redis"
    )]
    ShardCountMismatch {
        /// The number of shards of the data set.
        existing: u16,
        /// The configured number.
        configured: u16,
    },
    /// Another release wrote the data set.
    #[error(
        "this data set has layout {0} of its records, and this release reads and writes layout {LAYOUT} only. Nothing was \
         changed. Let the release that wrote it finish its tasks, or use another --prefix or another Redis"
    )]
    OtherLayout(i64),
    /// Redis gave no usable reply.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Opens the data set, or creates it with the `configured` number of shards. The default is one shard; on a Cluster it
/// is four times the number of masters, rounded up to a power of two, at least 16.
///
/// # Errors
/// [`DatasetError::ShardCountMismatch`] if the data set has another number of shards, and
/// [`DatasetError::OtherLayout`] if another release wrote it.
pub async fn open_or_create(
    client: &Client,
    prefix: &str,
    configured: Option<Shards>,
) -> std::result::Result<Dataset, DatasetError> {
    // Reads before it writes, so that a server can start on a Redis that is full.
    if let Some(dataset) = load(client, prefix).await? {
        return check_shard_count(dataset, configured);
    }
    let meta = first_shard_keys(prefix).meta();
    let proposed = match configured {
        Some(shards) => shards,
        None => default_shard_count(client).await?,
    };
    let mut pipeline = pipe();
    // The number of shards comes last: with it, the data set exists.
    pipeline.cmd("HSETNX").arg(&meta).arg("layout").arg(LAYOUT);
    pipeline.cmd("HSETNX").arg(&meta).arg("id").arg(format!("{:032x}", rand::random::<u128>()));
    pipeline.cmd("HSETNX").arg(&meta).arg("shards").arg(proposed.count());
    client.send_pipeline(&pipeline).await?;
    let dataset = load(client, prefix).await?.ok_or_else(|| Error::Unexpected("the meta key is missing".into()))?;
    check_shard_count(dataset, configured)
}

fn check_shard_count(dataset: Dataset, configured: Option<Shards>) -> std::result::Result<Dataset, DatasetError> {
    match configured {
        Some(configured) if configured != dataset.shards => {
            Err(DatasetError::ShardCountMismatch { existing: dataset.shards.count(), configured: configured.count() })
        }
        _ => Ok(dataset),
    }
}

/// Whether the data set was lost: callers have left records, but there is no data set.
pub async fn is_missing(client: &Client, prefix: &str) -> std::result::Result<bool, DatasetError> {
    let callers = int(client.send(cmd("EXISTS").arg(first_shard_keys(prefix).callers())).await?)?;
    Ok(callers > 0 && load(client, prefix).await?.is_none())
}

/// Returns the data set under this prefix. `None`: no server has started with it yet.
///
/// # Errors
/// [`DatasetError::OtherLayout`] if another release wrote it.
pub async fn load(client: &Client, prefix: &str) -> std::result::Result<Option<Dataset>, DatasetError> {
    let mut command = cmd("HMGET");
    command.arg(first_shard_keys(prefix).meta()).arg(&["shards", "id", "has_markers", "layout"]);
    let mut fields = read_list(client.send(&command).await?)?;
    let count = match fields.value()? {
        Value::Nil => return Ok(None),
        count => int(count)?,
    };
    let shards = u16::try_from(count).ok().and_then(Shards::new);
    let shards =
        shards.ok_or_else(|| Error::Unexpected(format!("invalid number of shards in the meta key: {count}")))?;
    let id = fields.text()?;
    let has_markers = fields.value()? != Value::Nil;
    // Releases with the first layout wrote no version.
    let layout = match fields.value()? {
        Value::Nil => 1,
        layout => int(layout)?,
    };
    if layout != LAYOUT {
        return Err(DatasetError::OtherLayout(layout));
    }
    Ok(Some(Dataset { shards, id, has_markers }))
}

/// Returns the keys of the first shard of any data set with this prefix.
pub fn first_shard_keys(prefix: &str) -> Keys {
    // The first shard has the same tag for every number of shards.
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
    Shards::new(count).ok_or_else(|| Error::Unexpected(format!("invalid number of shards: {count}")))
}
