//! The systems of a run: systems under test and lower bounds. Each can run one round.

use std::rc::Rc;

use anyhow::{Result, bail};
use futures_util::future::LocalBoxFuture;

use crate::adapters::beanstalkd::Beanstalkd;
use crate::adapters::bullmq::Bullmq;
use crate::adapters::elasticmq::Elasticmq;
use crate::adapters::faktory::Faktory;
use crate::adapters::lmstfy::Lmstfy;
use crate::adapters::ocypod::Ocypod;
use crate::adapters::slotwheel::Slotwheel;
use crate::adapters::{Adapter, Capability, Fsync, Settings};
use crate::empty_server::EmptyServer;
use crate::ledger::Ledger;
use crate::limit::Limit;
use crate::load::{Measured, Plan};
use crate::round_trip::RoundTrip;
use crate::workloads::fill::Fill;
use crate::workloads::{QUEUE, Script};

/// All systems.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Slotwheel.
    Slotwheel,
    /// Another build of Slotwheel (`--other`), only if it is named.
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
    /// The commands of a task's life alone.
    Limit,
    /// An axum handler that does nothing.
    EmptyServer,
    /// An HTTP round trip and a Redis round trip, one after the other.
    RoundTrip,
}

impl Kind {
    /// The systems that run whole lives, Slotwheel first.
    pub fn full_life() -> impl Iterator<Item = Self> {
        let all = <Self as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|kind| !matches!(kind, Self::Limit | Self::EmptyServer | Self::RoundTrip))
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
            Self::EmptyServer => "empty",
            Self::RoundTrip => "bare",
        }
    }

    /// Whether it can run a script.
    pub fn can(self, script: &Script) -> bool {
        let capabilities: &[Capability] = match self {
            Self::Slotwheel | Self::Other | Self::Always => Slotwheel::CAPABILITIES,
            Self::Ocypod => Ocypod::CAPABILITIES,
            Self::Lmstfy => Lmstfy::CAPABILITIES,
            Self::Faktory => Faktory::CAPABILITIES,
            Self::Beanstalkd => Beanstalkd::CAPABILITIES,
            Self::Elasticmq => Elasticmq::CAPABILITIES,
            Self::Bullmq => return Bullmq::can(script),
            // Lower bounds accompany every workload.
            Self::Limit | Self::EmptyServer | Self::RoundTrip => return true,
        };
        script.needs().iter().all(|needed| capabilities.contains(needed))
    }

    /// Starts the system.
    pub async fn start(self, settings: &Settings) -> Result<Box<dyn System>> {
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
            Self::EmptyServer => Box::new(Running::of(EmptyServer::start(settings).await?)),
            Self::RoundTrip => Box::new(RoundTrip::start(settings).await?),
        })
    }
}

/// A running system.
pub trait System {
    /// Its version and settings.
    fn version(&self) -> String;

    /// Adds waiting tasks before the rounds begin.
    fn fill<'a>(&'a self, _fill: &'a Fill) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async { bail!("it has no queues") })
    }

    /// Runs one round.
    fn round<'a>(&'a self, script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>>;
}

/// A system with the ledger of its tasks.
struct Running<S> {
    system: S,
    ledger: Rc<Ledger>,
}

impl<S> Running<S> {
    fn of(system: S) -> Self {
        Self { system, ledger: Rc::default() }
    }
}

impl<S: Adapter> System for Running<S> {
    fn version(&self) -> String {
        self.system.version()
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(fill.give(&self.system, &self.ledger))
    }

    fn round<'a>(&'a self, script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>> {
        Box::pin(async move {
            let before = self.ledger.unfinished();
            let measured = script.round(&self.system, &self.ledger, plan).await?;
            if measured.tasks == 0 {
                bail!("no task was finished");
            }
            let left = self.ledger.unfinished();
            if left != before && !script.leaves_tasks() {
                bail!("{} tasks were lost", left.abs_diff(before));
            }
            match self.system.left(QUEUE).await? {
                Some(other) if other != left => bail!("it reports {other} unfinished tasks; the ledger has {left}"),
                _ => {}
            }
            Ok(measured)
        })
    }
}
