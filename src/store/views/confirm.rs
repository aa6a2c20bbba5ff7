//! Whether what an audit suspects is wrong: each subject looked at in one piece, while others write.

use crate::store::audit::Subject;
use crate::store::error::Result;
use crate::store::ops::mend::{Found, found};
use crate::store::script::Script;
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = Script {
    name: "confirm",
    text: concat!(
        "#!lua flags=no-writes\n",
        include_str!("../ops/lib/look.lua"),
        include_str!("../ops/lib/stage.lua"),
        include_str!("../ops/lib/wheel.lua"),
        include_str!("../ops/lib/truth.lua"),
        include_str!("confirm.lua"),
    ),
};

/// What is wrong with each subject.
pub async fn confirm(shard: &Shard, subjects: &[Subject]) -> Result<Vec<Vec<Found>>> {
    let mut arguments = vec![subjects.len().to_string().into_bytes()];
    arguments.extend(subjects.iter().flat_map(Subject::arguments));
    found(shard.look(&SCRIPT, arguments).await?, subjects.len())
}
