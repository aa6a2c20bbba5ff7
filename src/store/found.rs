//! The first start on a data set founds it; every later one must fit what was founded.

use std::fmt;

use deadpool_redis::redis::{Value, cmd, pipe};

use super::client::Client;
use super::error::{Error, Result};
use super::keys::{Keys, tags};
use super::reply::{int, items, text};
use crate::domain::slot::Shards;

/// What was decided once for a data set.
#[derive(Clone, Debug)]
pub struct Founded {
    /// How its slots are cut.
    pub shards: Shards,
    /// Its name: 32 hexadecimal digits.
    pub id: String,
    /// Whether every shard has got its pulse.
    pub has_pulse: bool,
}

/// As in the pulse of each shard: `<id>/<shards>`.
impl fmt::Display for Founded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.shards.count())
    }
}

impl Founded {
    /// Whether a set of this name, as in a pulse, is cut as this one is.
    pub(super) fn fits(&self, set: &str) -> bool {
        set.split_once('/').is_some_and(|(_, shards)| shards == self.shards.count().to_string())
    }
}

/// A start that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// Another number of shards was asked for.
    #[error(
        "this data set was founded with {founded} shards, and {wanted} are asked for. The number never changes: \
         start with --shards {founded} or without --shards; for another number, use another --prefix or another Redis"
    )]
    Shards {
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
pub async fn found(client: &Client, prefix: &str, wanted: Option<Shards>) -> std::result::Result<Founded, Misfit> {
    // Nothing is written where nothing has to be: a Redis that is full can still be drained.
    if let Some(founded) = existing(client, prefix).await? {
        return fitting(founded, wanted);
    }
    let meta = home(prefix).meta();
    let proposed = match wanted {
        Some(shards) => shards,
        None => suitable(client).await?,
    };
    let mut pipeline = pipe();
    pipeline.cmd("HSETNX").arg(&meta).arg("shards").arg(proposed.count());
    pipeline.cmd("HSETNX").arg(&meta).arg("id").arg(format!("{:032x}", rand::random::<u128>()));
    client.send_all(&pipeline).await?;
    let founded = existing(client, prefix).await?.ok_or_else(|| Error::Unexpected("meta is gone".into()))?;
    fitting(founded, wanted)
}

fn fitting(founded: Founded, wanted: Option<Shards>) -> std::result::Result<Founded, Misfit> {
    match wanted {
        Some(wanted) if wanted != founded.shards => {
            Err(Misfit::Shards { founded: founded.shards.count(), wanted: wanted.count() })
        }
        _ => Ok(founded),
    }
}

/// Whether servers are, or lately were, at work where no data set is: it was lost.
pub async fn is_lost(client: &Client, prefix: &str) -> Result<bool> {
    let calls = int(client.send(cmd("EXISTS").arg(home(prefix).calls())).await?)?;
    Ok(calls > 0 && existing(client, prefix).await?.is_none())
}

/// What was decided at the first start; `None` if there was none.
pub async fn existing(client: &Client, prefix: &str) -> Result<Option<Founded>> {
    let mut fields = items(client.send(cmd("HMGET").arg(home(prefix).meta()).arg(&["shards", "id", "pulse"])).await?)?;
    let count = match fields.value()? {
        Value::Nil => return Ok(None),
        count => int(count)?,
    };
    let shards = u16::try_from(count).ok().and_then(Shards::new);
    let shards = shards.ok_or_else(|| Error::Unexpected(format!("meta names {count} shards")))?;
    let id = fields.text()?;
    Ok(Some(Founded { shards, id, has_pulse: fields.value()? != Value::Nil }))
}

/// The keys of the first shard.
fn home(prefix: &str) -> Keys {
    // The first shard's tag is the same whatever their number.
    let tag = Shards::new(1).map(tags).and_then(|tags| tags.first().copied()).unwrap_or_default();
    Keys::new(prefix, tag)
}

async fn suitable(client: &Client) -> Result<Shards> {
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
