//! Raises the generation of a shard's data set: proves that writes work, and lets servers detect a loss of data.

use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "touch_dataset", []);

/// Whether a call may write the data set's marker to a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchPurpose {
    /// A shard without a marker stays without one.
    Check,
    /// A shard without a marker gets that of this data set.
    CreateIfMissing,
    /// The shard gets the marker of this data set in any case, and all servers accept it.
    Accept,
}

/// Marker of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatasetMarker {
    /// Id of the data set and its number of shards: `<id>/<shards>`.
    pub dataset: String,
    /// Number of times that servers have written the marker; it never decreases unless data is lost.
    pub generation: i64,
    /// When an operator last accepted a loss of data, by Redis' clock in ms; 0: never.
    pub accepted_at: i64,
}

/// Raises the shard's generation. Returns its marker, `None` if it has none and `purpose` does not allow one.
pub async fn touch_dataset(
    shard: &Shard,
    caller: &mut Caller,
    dataset: &str,
    purpose: TouchPurpose,
) -> Result<Option<DatasetMarker>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push(dataset).push(match purpose {
        TouchPurpose::Check => "check",
        TouchPurpose::CreateIfMissing => "create",
        TouchPurpose::Accept => "accept",
    });
    let mut reply = reply::read_list(call.send_unchecked().await?)?;
    match reply.text()?.as_str() {
        "marker" => {
            Ok(Some(DatasetMarker { dataset: reply.text()?, generation: reply.int()?, accepted_at: reply.int()? }))
        }
        "missing" => Ok(None),
        other => super::unexpected_reply(&SCRIPT, other),
    }
}
