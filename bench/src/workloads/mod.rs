//! The workloads, (a) to (m): systems, work and goals. One file each.

mod batches;
mod chained;
mod counts;
pub mod fill;
mod life;
mod memory;
pub mod pickup;
mod queues;
mod shards;
mod sizes;
mod steady;
mod submit;
mod waiters;
mod waiting;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::adapters::{Adapter, Capability};
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, closed};
use crate::stats::Wanted;
use crate::systems::Kind;
use fill::Fill;

/// The queue of workloads with one queue.
pub const QUEUE: &str = "bench";

/// Tasks in a batch.
pub const BATCH: usize = 100;

/// The work of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Script {
    /// See `submit`.
    Submit,
    /// See `life`.
    Life {
        /// Whether each task has a random key.
        keyed: bool,
    },
    /// See `chained`.
    Chained,
    /// See `batches`.
    Batches {
        /// Whether each task has a random key.
        keyed: bool,
    },
    /// See `pickup` and `waiting`.
    PickUp {
        /// Waiting workers.
        workers: usize,
        /// Submitting connections.
        senders: usize,
    },
    /// See `queues`.
    Scattered {
        /// Number of queues.
        queues: usize,
    },
    /// See `memory`: waiting tasks.
    Memory(Fill),
    /// See `memory`: completed tasks.
    CompletedMemory(Fill),
    /// See `shards`.
    IdleClaims,
    /// See `steady`.
    Steady,
    /// See `counts`.
    Counts {
        /// Whether a worker waits for each task.
        waiting: bool,
    },
    /// See `waiters`.
    Waiters,
    /// Empty requests: submits to the empty handler.
    EmptyServer,
}

impl Script {
    /// The capability that a system needs.
    pub fn needs(&self) -> &'static [Capability] {
        match self {
            Self::Submit | Self::Life { keyed: false } | Self::PickUp { .. } | Self::Scattered { .. } => &[],
            Self::IdleClaims | Self::Steady | Self::Counts { .. } => &[],
            Self::Waiters | Self::EmptyServer | Self::Memory(Fill { keyed: false, .. }) => &[],
            Self::Life { keyed: true } | Self::Memory(Fill { keyed: true, .. }) => &[Capability::Keys],
            Self::Chained => &[Capability::FinishAndTake],
            Self::Batches { keyed: false } | Self::CompletedMemory(_) => &[Capability::Many],
            Self::Batches { keyed: true } => &[Capability::Many, Capability::Keys],
        }
    }

    /// Whether tasks stay unfinished.
    pub fn leaves_tasks(&self) -> bool {
        matches!(self, Self::Submit | Self::Memory(_) | Self::EmptyServer)
    }

    /// Runs one round.
    pub async fn round<S: Adapter>(&self, system: &S, ledger: &Ledger, plan: &Plan) -> Result<Measured> {
        system.prepare(QUEUE).await?;
        match self {
            Self::Submit | Self::EmptyServer => closed(system, ledger, plan, submit::script).await,
            Self::Life { keyed } => {
                closed(system, ledger, plan, async |client, run| life::script(client, run, *keyed).await).await
            }
            Self::Chained => chained::round(system, ledger, plan).await,
            Self::Batches { keyed } => {
                let plan = Plan { connections: batches::CONNECTIONS, ..*plan };
                closed(system, ledger, &plan, async |client, run| batches::script(client, run, *keyed).await).await
            }
            Self::PickUp { workers, senders } => pickup::round(system, ledger, plan, (*workers, *senders)).await,
            Self::Scattered { queues } => {
                closed(system, ledger, plan, async |client, run| queues::script(client, run, *queues).await).await
            }
            Self::Memory(fill) => memory::round(system, ledger, fill).await,
            Self::CompletedMemory(fill) => memory::completed(system, ledger, fill).await,
            Self::IdleClaims => closed(system, ledger, plan, shards::idle_claim).await,
            Self::Steady => steady::round(system, ledger, plan).await,
            Self::Counts { waiting } => counts::round(system, ledger, plan, *waiting).await,
            Self::Waiters => waiters::round(system, ledger).await,
        }
    }
}

/// A system of a workload.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its label in the tables.
    pub label: String,
    /// The system.
    pub kind: Kind,
    /// Entries with the same system and the same instance name share one running system.
    pub instance: String,
    /// Tasks submitted before the rounds.
    pub fill: Option<Fill>,
    /// Connections, if not the default number.
    pub connections: Option<usize>,
    /// Shards of Slotwheel.
    pub shards: u32,
    /// Entries of one case are compared with each other; empty: the only case of the workload.
    pub case: &'static str,
    /// Its work.
    pub script: Script,
}

impl Entry {
    fn new(kind: Kind, script: Script) -> Self {
        let label = kind.name().to_owned();
        Self { label, kind, instance: String::new(), fill: None, connections: None, shards: 1, case: "", script }
    }

    /// An entry of a case, which its label names.
    pub(crate) fn of_case(kind: Kind, script: Script, case: &'static str) -> Self {
        Self { label: format!("{}, {case}", kind.name()), case, ..Self::new(kind, script) }
    }

    /// The same in a system of its own with that number of shards.
    fn with_shards(self, shards: u32) -> Self {
        Self { shards, instance: format!("{shards} shards"), ..self }
    }
}

/// The results of one round, by label.
pub type Round = BTreeMap<String, Measured>;

/// A figure of a round; `None` if its system took no part.
pub type Figure = Box<dyn Fn(&Round) -> Option<f64>>;

/// A goal.
pub struct Goal {
    /// Its text.
    pub text: &'static str,
    /// The figure.
    pub figure: Figure,
    /// Its bound.
    pub wanted: Wanted,
}

impl Goal {
    fn new(text: &'static str, wanted: Wanted, figure: impl Fn(&Round) -> Option<f64> + 'static) -> Self {
        Self { text, wanted, figure: Box::new(figure) }
    }
}

/// One workload.
pub struct Workload {
    /// Its name: a letter, and a word if several share the letter.
    pub id: &'static str,
    /// Its text.
    pub title: &'static str,
    /// The systems.
    pub entries: Vec<Entry>,
    /// The goals.
    pub goals: Vec<Goal>,
    /// Whether it is measured once: sizes do not vary, and are not compared.
    pub once: bool,
    /// Whether the first round is compared with the last: the load goes on through all rounds.
    pub course: bool,
}

impl Workload {
    fn new(id: &'static str, title: &'static str, entries: Vec<Entry>) -> Self {
        Self { id, title, entries, goals: Vec::new(), once: false, course: false }
    }
}

/// All workloads.
pub fn all() -> Vec<Workload> {
    vec![
        submit::workload(),
        life::workload(),
        chained::workload(),
        batches::workload(false),
        batches::workload(true),
        pickup::workload(),
        sizes::workload(false),
        sizes::workload(true),
        queues::workload(),
        memory::workload(),
        waiters::workload(),
        shards::workload(),
        steady::workload(),
        waiting::workload(),
        counts::workload(),
    ]
}

/// Returns the names and titles of all workloads, a line each.
pub fn list() -> String {
    let lines = all().into_iter().map(|workload| format!("  {:<8} {}\n", workload.id, workload.title));
    format!("Workloads:\n{}", lines.collect::<String>())
}

/// The ratio of one entry's figure to another's.
fn ratio(one: &'static str, of: fn(&Measured) -> f64, other: &'static str) -> impl Fn(&Round) -> Option<f64> {
    move |round| Some(of(round.get(one)?) / of(round.get(other)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_workload_are_unique() {
        for workload in all() {
            let mut labels: Vec<&String> = workload.entries.iter().map(|entry| &entry.label).collect();
            labels.sort();
            labels.dedup();
            assert_eq!(labels.len(), workload.entries.len(), "({}): {labels:?}", workload.id);
        }
    }

    #[test]
    fn systems_of_one_instance_are_alike() {
        for workload in all() {
            for entry in &workload.entries {
                let same = |other: &&Entry| (other.kind, &other.instance) == (entry.kind, &entry.instance);
                let first = workload.entries.iter().find(same).unwrap();
                let (one, other) = ((first.shards, first.fill), (entry.shards, entry.fill));
                assert_eq!(one, other, "({}): {}", workload.id, entry.label);
            }
        }
    }
}
