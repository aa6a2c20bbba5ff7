//! The workloads, (a) to (i): who takes part, what is done, and what is wanted of the figures. One file each.

pub mod batches;
pub mod chained;
pub mod life;
pub mod submit;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::contenders::Kind;
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, Verb, closed};
use crate::sides::{Capability, Side};
use crate::stats::Wanted;

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
    Life,
    /// See `chained`.
    Chained,
    /// See `batches`.
    Batches {
        /// Whether each task has a random key.
        keyed: bool,
    },
    /// Requests that ask for nothing.
    Empty,
}

impl Script {
    /// What a side must be able to do for it.
    pub fn needs(&self) -> &'static [Capability] {
        match self {
            Self::Submit | Self::Life | Self::Empty => &[],
            Self::Chained => &[Capability::FinishAndTake],
            Self::Batches { keyed: false } => &[Capability::Many],
            Self::Batches { keyed: true } => &[Capability::Many, Capability::Keys],
        }
    }

    /// Whether tasks stay unfinished after it.
    pub fn leaves_tasks(&self) -> bool {
        matches!(self, Self::Submit | Self::Empty)
    }

    /// One round of it.
    pub async fn round<S: Side>(&self, side: &S, ledger: &Ledger, plan: &Plan) -> Result<Measured> {
        side.prepare(QUEUE).await?;
        match self {
            Self::Submit => closed(side, ledger, plan, submit::script).await,
            Self::Life => closed(side, ledger, plan, life::script).await,
            Self::Chained => chained::round(side, ledger, plan).await,
            Self::Batches { keyed } => {
                let plan = Plan { connections: batches::CONNECTIONS, ..*plan };
                closed(side, ledger, &plan, async |client, run| batches::script(client, run, *keyed).await).await
            }
            Self::Empty => {
                closed(side, ledger, plan, async |client, run| {
                    let payload = run.payload();
                    let task = crate::sides::Task { payload: &payload, key: None };
                    run.timed(Verb::Empty, crate::sides::Client::submit(client, QUEUE, task)).await?;
                    run.counted(1);
                    Ok(())
                })
                .await
            }
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
    /// What it does.
    pub script: Script,
}

impl Entry {
    fn new(kind: Kind, script: Script) -> Self {
        Self { label: kind.name().to_owned(), kind, script }
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
}

/// All of them.
pub fn all() -> Vec<Workload> {
    vec![submit::workload(), life::workload(), chained::workload(), batches::workload(false), batches::workload(true)]
}

/// How one entry's figure relates to another's.
fn ratio(one: &'static str, of: fn(&Measured) -> f64, other: &'static str) -> impl Fn(&Round) -> Option<f64> {
    move |round| Some(of(round.get(one)?) / of(round.get(other)?))
}
