//! What takes part in a run: a side, or what a side is held against; each can be told to do one round.

use std::rc::Rc;

use anyhow::{Result, bail};
use futures_util::future::LocalBoxFuture;

use crate::round_trip::Bare;
use crate::empty_server::Empty;
use crate::ledger::Ledger;
use crate::limit::Limit;
use crate::load::{Measured, Plan};
use crate::adapters::beanstalkd::Beanstalkd;
use crate::adapters::bullmq::Bullmq;
use crate::adapters::elasticmq::Elasticmq;
use crate::adapters::faktory::Faktory;
use crate::adapters::lmstfy::Lmstfy;
use crate::adapters::ocypod::Ocypod;
use crate::adapters::slotwheel::Slotwheel;
use crate::adapters::{Capability, Fsync, Settings, Side};
use crate::workloads::fill::Fill;
use crate::workloads::{QUEUE, Script};

/// All that can take part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Kind {
    /// What this is about.
    Slotwheel,
    /// Another build of it (`--other`); takes part only where it is asked for.
    Other,
    /// Slotwheel with `appendfsync always`.
    Always,
    /// See `adapters::ocypod`.
    Ocypod,
    /// See `adapters::lmstfy`.
    Lmstfy,
    /// See `adapters::faktory`.
    Faktory,
    /// See `adapters::bullmq`.
    Bullmq,
    /// See `adapters::beanstalkd`.
    Beanstalkd,
    /// See `adapters::elasticmq`.
    Elasticmq,
    /// The bare commands of a task's life.
    Limit,
    /// An axum handler that does nothing.
    Empty,
    /// A bare HTTP round trip and a Redis round trip, one after the other.
    Bare,
}

impl Kind {
    /// Those that do whole lives: Slotwheel first.
    pub fn sides() -> impl Iterator<Item = Self> {
        let all = <Self as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|kind| !matches!(kind, Self::Limit | Self::Empty | Self::Bare))
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slotwheel => "slotwheel",
            Self::Other => "other",
            Self::Always => "slotwheel, always",
            Self::Ocypod => "ocypod",
            Self::Lmstfy => "lmstfy",
            Self::Faktory => "faktory",
            Self::Bullmq => "bullmq",
            Self::Beanstalkd => "beanstalkd",
            Self::Elasticmq => "elasticmq",
            Self::Limit => "limit",
            Self::Empty => "empty",
            Self::Bare => "bare",
        }
    }

    /// Whether it can do what a script asks for.
    pub fn can(self, script: &Script) -> bool {
        let capabilities: &[Capability] = match self {
            Self::Slotwheel | Self::Other | Self::Always => Slotwheel::CAPABILITIES,
            Self::Ocypod => Ocypod::CAPABILITIES,
            Self::Lmstfy => Lmstfy::CAPABILITIES,
            Self::Faktory => Faktory::CAPABILITIES,
            Self::Beanstalkd => Beanstalkd::CAPABILITIES,
            Self::Elasticmq => Elasticmq::CAPABILITIES,
            Self::Bullmq => return Bullmq::can(script),
            // They stand beside whatever is measured.
            Self::Limit | Self::Empty | Self::Bare => return true,
        };
        script.needs().iter().all(|needed| capabilities.contains(needed))
    }

    /// Starts it.
    pub async fn start(self, settings: &Settings) -> Result<Box<dyn Contender>> {
        Ok(match self {
            Self::Slotwheel => Box::new(Running::of(Slotwheel::start(settings).await?)),
            Self::Other => Box::new(Running::of(Slotwheel::start_binary(&settings.other, settings).await?)),
            Self::Always => {
                let settings = Settings { fsync: Fsync::Always, ..settings.clone() };
                Box::new(Running::of(Slotwheel::start(&settings).await?))
            }
            Self::Ocypod => Box::new(Running::of(Ocypod::start(settings).await?)),
            Self::Lmstfy => Box::new(Running::of(Lmstfy::start(settings).await?)),
            Self::Faktory => Box::new(Running::of(Faktory::start(settings).await?)),
            Self::Bullmq => Box::new(Bullmq::start(settings).await?),
            Self::Beanstalkd => Box::new(Running::of(Beanstalkd::start(settings).await?)),
            Self::Elasticmq => Box::new(Running::of(Elasticmq::start(settings).await?)),
            Self::Limit => Box::new(Limit::start(settings).await?),
            Self::Empty => Box::new(Running::of(Empty::start(settings).await?)),
            Self::Bare => Box::new(Bare::start(settings).await?),
        })
    }
}

/// What takes part, started.
pub trait Contender {
    /// Its version and settings.
    fn version(&self) -> String;

    /// Gives it tasks that wait, before the rounds begin.
    fn fill<'a>(&'a self, _fill: &'a Fill) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async { bail!("it has no queues") })
    }

    /// Does one round.
    fn round<'a>(&'a self, script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>>;
}

/// A side with the book of what was submitted to it.
struct Running<S> {
    side: S,
    ledger: Rc<Ledger>,
}

impl<S> Running<S> {
    fn of(side: S) -> Self {
        Self { side, ledger: Rc::default() }
    }
}

impl<S: Side> Contender for Running<S> {
    fn version(&self) -> String {
        self.side.version()
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(fill.give(&self.side, &self.ledger))
    }

    fn round<'a>(&'a self, script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>> {
        Box::pin(async move {
            let before = self.ledger.unfinished();
            let measured = script.round(&self.side, &self.ledger, plan).await?;
            if measured.tasks == 0 {
                bail!("nothing was done");
            }
            let left = self.ledger.unfinished();
            if left != before && !script.leaves_tasks() {
                bail!("{} tasks were lost", left.abs_diff(before));
            }
            match self.side.left(QUEUE).await? {
                Some(other) if other != left => bail!("it still has {other} tasks, of which {left} are unfinished"),
                _ => {}
            }
            Ok(measured)
        })
    }
}
