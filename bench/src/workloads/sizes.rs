//! (f) A queue with 1000, 100,000 or a million waiting tasks: whole lives at its end and its front, one task per call
//! (one connection, sequential) and in batches of a hundred. Plain, and each task with a random key.

use super::{Entry, Goal, Script, Workload, ratio};
use crate::load::Measured;
use crate::stats::Wanted;
use crate::systems::Kind;
use crate::workloads::fill::Fill;

const SIZES: [(usize, &str, &str); 3] = [
    (1_000_000, "1,000,000 tasks, one a call", "1,000,000 tasks, gathered"),
    (1_000, "1,000 tasks, one a call", "1,000 tasks, gathered"),
    (100_000, "100,000 tasks, one a call", "100,000 tasks, gathered"),
];

pub(super) fn workload(keyed: bool) -> Workload {
    let mut entries = Vec::new();
    for (tasks, single, gathered) in SIZES {
        let fill = Some(Fill { tasks, queues: 1, keyed, payload: 100 });
        let instance = format!("{tasks} tasks");
        for (label, script, connections) in
            [(single, Script::Life { keyed }, Some(1)), (gathered, Script::Batches { keyed }, None)]
        {
            let (label, instance) = (label.to_owned(), instance.clone());
            entries.push(Entry { label, instance, fill, connections, ..Entry::new(Kind::Slotwheel, script) });
        }
    }
    let [(_, many, many_gathered), (_, few, few_gathered), _] = SIZES;
    let goals = vec![
        Goal::new("CPU, 1M to 1k, one a call", Wanted::AtMost(1.4), ratio(many, Measured::cost, few)),
        Goal::new("Redis, 1M to 1k, one a call", Wanted::AtMost(1.4), ratio(many, Measured::redis_cost, few)),
        Goal::new("CPU, 1M to 1k, gathered", Wanted::AtMost(1.6), ratio(many_gathered, Measured::cost, few_gathered)),
        Goal::new(
            "Redis, 1M to 1k, gathered",
            Wanted::AtMost(1.6),
            ratio(many_gathered, Measured::redis_cost, few_gathered),
        ),
    ];
    let (id, title) = match keyed {
        false => ("f", "a queue in which many tasks wait"),
        true => ("f-keyed", "a queue in which many tasks wait, each with a random key"),
    };
    Workload { goals, ..Workload::new(id, title, entries) }
}
