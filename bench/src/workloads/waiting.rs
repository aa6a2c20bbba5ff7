//! (l) The cost of a task for waiting workers: 16 and 64 workers, and one client that submits 200 tasks per second.
//!
//! (e) is the same work with more senders than can be busy, for latency beside the peers. Here a single client leaves
//! no two submits to share a call, so that scripts and commands a task are those of a task alone.

use super::pickup::to_bare;
use super::{Entry, Goal, Script, Workload};
use crate::stats::Wanted;
use crate::systems::Kind;

const FEW: &str = "16 workers";
const MANY: &str = "64 workers";
const FEW_LABEL: &str = "slotwheel, 16 workers";
const MANY_LABEL: &str = "slotwheel, 64 workers";
const SENDERS: usize = 1;

pub(super) fn workload() -> Workload {
    let mut entries = Vec::new();
    for (workers, case) in [(16, FEW), (64, MANY)] {
        for kind in [Kind::Slotwheel, Kind::Other] {
            entries.push(Entry::of_case(kind, Script::PickUp { workers, senders: SENDERS }, case));
        }
    }
    entries.push(Entry::new(Kind::RoundTrip, Script::PickUp { workers: 0, senders: SENDERS }));
    let goals = vec![
        Goal::new("p50 for 16 workers, to the bare round trips'", Wanted::AtMost(1.8), to_bare(FEW_LABEL, "bare", 0.5)),
        Goal::new(
            "p99 for 16 workers, to the bare round trips'",
            Wanted::AtMost(3.0),
            to_bare(FEW_LABEL, "bare", 0.99),
        ),
        Goal::new(
            "p50 for 64 workers, to the bare round trips'",
            Wanted::AtMost(1.8),
            to_bare(MANY_LABEL, "bare", 0.5),
        ),
        Goal::new(
            "p99 for 64 workers, to the bare round trips'",
            Wanted::AtMost(3.0),
            to_bare(MANY_LABEL, "bare", 0.99),
        ),
    ];
    Workload { goals, ..Workload::new("l", "waiting workers: one client submits 200 tasks a second", entries) }
}
