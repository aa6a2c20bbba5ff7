//! The workloads, (a) to (i): who takes part, what is done, and what is wanted of the figures. One file each.

mod batches;
mod chained;
pub mod fill;
mod life;
mod memory;
pub mod pickup;
mod queues;
mod sizes;
mod submit;
mod waiters;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::systems::Kind;
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, closed};
use crate::adapters::{Capability, Side};
use crate::stats::Wanted;
use fill::Fill;

/// The queue of workloads that need one.
pub const QUEUE: &str = "bench";

/// Tasks in a batch.
pub const BATCH: usize = 100;

/// What a contender does in a round.
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
    /// See `pickup`.
    PickUp,
    /// See `queues`.
    Scattered {
        /// How many queues there are.
        queues: usize,
    },
    /// See `memory`.
    Memory(Fill),
    /// See `waiters`.
    Waiters,
    /// Requests that ask for nothing: submits, to the handler that does nothing.
    Empty,
}

impl Script {
    /// What a side must be able to do for it.
    pub fn needs(&self) -> &'static [Capability] {
        match self {
            Self::Submit | Self::Life { keyed: false } | Self::PickUp | Self::Scattered { .. } => &[],
            Self::Waiters | Self::Empty | Self::Memory(Fill { keyed: false, .. }) => &[],
            Self::Life { keyed: true } | Self::Memory(Fill { keyed: true, .. }) => &[Capability::Keys],
            Self::Chained => &[Capability::FinishAndTake],
            Self::Batches { keyed: false } => &[Capability::Many],
            Self::Batches { keyed: true } => &[Capability::Many, Capability::Keys],
        }
    }

    /// Whether tasks stay unfinished after it.
    pub fn leaves_tasks(&self) -> bool {
        matches!(self, Self::Submit | Self::Memory(_) | Self::Empty)
    }

    /// One round of it.
    pub async fn round<S: Side>(&self, side: &S, ledger: &Ledger, plan: &Plan) -> Result<Measured> {
        side.prepare(QUEUE).await?;
        match self {
            Self::Submit | Self::Empty => closed(side, ledger, plan, submit::script).await,
            Self::Life { keyed } => {
                closed(side, ledger, plan, async |client, run| life::script(client, run, *keyed).await).await
            }
            Self::Chained => chained::round(side, ledger, plan).await,
            Self::Batches { keyed } => {
                let plan = Plan { connections: batches::CONNECTIONS, ..*plan };
                closed(side, ledger, &plan, async |client, run| batches::script(client, run, *keyed).await).await
            }
            Self::PickUp => pickup::round(side, ledger, plan).await,
            Self::Scattered { queues } => {
                closed(side, ledger, plan, async |client, run| queues::script(client, run, *queues).await).await
            }
            Self::Memory(fill) => memory::round(side, ledger, fill).await,
            Self::Waiters => waiters::round(side, ledger).await,
        }
    }
}

/// One of those who take part.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the tables of the workload.
    pub label: String,
    /// Who it is.
    pub kind: Kind,
    /// Entries of one workload with the same kind and the same word here are one running system.
    pub instance: String,
    /// What waits in it before the rounds begin.
    pub fill: Option<Fill>,
    /// Connections, if not as many as asked for.
    pub connections: Option<usize>,
    /// What it does.
    pub script: Script,
}

impl Entry {
    fn new(kind: Kind, script: Script) -> Self {
        let label = kind.name().to_owned();
        Self { label, kind, instance: String::new(), fill: None, connections: None, script }
    }
}

/// What the entries measured in one round, by label.
pub type Round = BTreeMap<String, Measured>;

/// A figure of a round; `None` if who it is about took no part.
pub type Figure = Box<dyn Fn(&Round) -> Option<f64>>;

/// What is wanted.
pub struct Goal {
    /// In words.
    pub text: &'static str,
    /// Of which figure.
    pub figure: Figure,
    /// How large.
    pub wanted: Wanted,
}

impl Goal {
    fn new(text: &'static str, wanted: Wanted, figure: impl Fn(&Round) -> Option<f64> + 'static) -> Self {
        Self { text, wanted, figure: Box::new(figure) }
    }
}

/// One workload.
pub struct Workload {
    /// By which it is asked for: a letter, and a word if there are several of the letter.
    pub id: &'static str,
    /// In words.
    pub title: &'static str,
    /// Who takes part.
    pub entries: Vec<Entry>,
    /// What is wanted.
    pub goals: Vec<Goal>,
    /// Whether it is measured once: a size, which does not vary, and no comparison.
    pub once: bool,
}

impl Workload {
    fn new(id: &'static str, title: &'static str, entries: Vec<Entry>) -> Self {
        Self { id, title, entries, goals: Vec::new(), once: false }
    }
}

/// All of them.
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
    ]
}

/// How one entry's figure relates to another's.
fn ratio(one: &'static str, of: fn(&Measured) -> f64, other: &'static str) -> impl Fn(&Round) -> Option<f64> {
    move |round| Some(of(round.get(one)?) / of(round.get(other)?))
}
