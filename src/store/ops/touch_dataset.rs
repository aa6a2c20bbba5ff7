//! Beat: a write that proves that writes work, and a counter that only rises, by which a loss of data is noticed.

use crate::store::dataset::identity::Dataset;
use crate::store::error::Result;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "touch_dataset", []);

/// What a beat may do to a shard that does not know its data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchPurpose {
    /// Nothing.
    Check,
    /// Tell it, if it knows none.
    CreateIfMissing,
    /// Tell it, and have all servers take it for theirs.
    Accept,
}

/// The pulse of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatasetMarker {
    /// The data set's name and number of shards.
    pub dataset: String,
    /// How often it has been written, by any server.
    pub generation: i64,
    /// When an operator last accepted the set as it is, by Redis' clock in ms; 0: never.
    pub accepted_at: i64,
}

/// Writes the shard's pulse and answers it; `None` where there is none and none was to be made.
pub async fn touch_dataset(
    shard: &Shard,
    caller: &mut Caller,
    dataset: &Dataset,
    purpose: TouchPurpose,
) -> Result<Option<DatasetMarker>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push(dataset.to_string()).push(match purpose {
        TouchPurpose::Check => "check",
        TouchPurpose::CreateIfMissing => "create",
        TouchPurpose::Accept => "accept",
    });
    let mut reply = crate::store::redis::reply::read_list(call.send_unchecked().await?)?;
    match reply.text()?.as_str() {
        "marker" => {
            Ok(Some(DatasetMarker { dataset: reply.text()?, generation: reply.int()?, accepted_at: reply.int()? }))
        }
        "missing" => Ok(None),
        other => super::unexpected_reply(&SCRIPT, other),
    }
}
