//! What takes part in a run: a side, or the limit, or the empty handler; each can be told to do one round.

use std::rc::Rc;

use anyhow::{Result, bail};
use futures_util::future::LocalBoxFuture;

use crate::empty::Empty;
use crate::ledger::Ledger;
use crate::limit::Limit;
use crate::load::{Measured, Plan};
use crate::sides::beanstalkd::Beanstalkd;
use crate::sides::bullmq::Bullmq;
use crate::sides::elasticmq::Elasticmq;
use crate::sides::faktory::Faktory;
use crate::sides::lmstfy::Lmstfy;
use crate::sides::ocypod::Ocypod;
use crate::sides::slotwheel::{Other, Slotwheel};
use crate::sides::{Capability, Settings, Side};
use crate::workloads::Script;

/// All that can take part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Kind {
    /// What this is about.
    Slotwheel,
    /// Another build of it (`--other`); takes part only where it is asked for.
    Other,
    /// See `sides::ocypod`.
    Ocypod,
    /// See `sides::lmstfy`.
    Lmstfy,
    /// See `sides::faktory`.
    Faktory,
    /// See `sides::bullmq`.
    Bullmq,
    /// See `sides::beanstalkd`.
    Beanstalkd,
    /// See `sides::elasticmq`.
    Elasticmq,
    /// The bare commands of a task's life.
    Limit,
    /// An axum handler that does nothing.
    Empty,
}

impl Kind {
    /// Those that do whole lives: Slotwheel first.
    pub fn sides() -> impl Iterator<Item = Self> {
        let all = <Self as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|kind| !matches!(kind, Self::Limit | Self::Empty))
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slotwheel => "slotwheel",
            Self::Other => "other",
            Self::Ocypod => "ocypod",
            Self::Lmstfy => "lmstfy",
            Self::Faktory => "faktory",
            Self::Bullmq => "bullmq",
            Self::Beanstalkd => "beanstalkd",
            Self::Elasticmq => "elasticmq",
            Self::Limit => "limit",
            Self::Empty => "empty",
        }
    }

    /// Whether it can do what a script asks for.
    pub fn can(self, script: &Script) -> bool {
        let capabilities = match self {
            Self::Slotwheel => Slotwheel::CAPABILITIES,
            Self::Other => Other::CAPABILITIES,
            Self::Ocypod => Ocypod::CAPABILITIES,
            Self::Lmstfy => Lmstfy::CAPABILITIES,
            Self::Faktory => Faktory::CAPABILITIES,
            Self::Beanstalkd => Beanstalkd::CAPABILITIES,
            Self::Elasticmq => Elasticmq::CAPABILITIES,
            Self::Bullmq => return Bullmq::can(script),
            // They stand beside whatever is measured.
            Self::Limit | Self::Empty => return true,
        };
        script.needs().iter().all(|needed: &Capability| capabilities.contains(needed))
    }

    /// Starts it.
    pub async fn start(self, settings: &Settings) -> Result<Box<dyn Contender>> {
        Ok(match self {
            Self::Slotwheel => Box::new(Running::<Slotwheel>::start(settings).await?),
            Self::Other => Box::new(Running::<Other>::start(settings).await?),
            Self::Ocypod => Box::new(Running::<Ocypod>::start(settings).await?),
            Self::Lmstfy => Box::new(Running::<Lmstfy>::start(settings).await?),
            Self::Faktory => Box::new(Running::<Faktory>::start(settings).await?),
            Self::Bullmq => Box::new(Bullmq::start(settings).await?),
            Self::Beanstalkd => Box::new(Running::<Beanstalkd>::start(settings).await?),
            Self::Elasticmq => Box::new(Running::<Elasticmq>::start(settings).await?),
            Self::Limit => Box::new(Limit::start(settings).await?),
            Self::Empty => Box::new(Running::<Empty>::start(settings).await?),
        })
    }
}

/// What takes part, started.
pub trait Contender {
    /// Its version and settings.
    fn version(&self) -> String;

    /// Does one round.
    fn round<'a>(&'a self, script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>>;
}

/// A side with the book of what was submitted to it.
pub struct Running<S> {
    side: S,
    ledger: Rc<Ledger>,
}

impl<S: Side> Running<S> {
    async fn start(settings: &Settings) -> Result<Self> {
        Ok(Self { side: S::start(settings).await?, ledger: Rc::default() })
    }
}

impl<S: Side> Contender for Running<S> {
    fn version(&self) -> String {
        self.side.version()
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
            Ok(measured)
        })
    }
}
