//! Whether a shard is worth calling: a circuit breaker, and what is known about a loss of its data.
//!
//! Once a call has found the shard away for as long as calls are patient, further ones are refused at once, but for one
//! at a time that goes on trying. The first that is answered opens the gate to all. So nothing piles up while Redis is
//! away, and one caller, not a herd, finds out that it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::{Error, Result};
use crate::metrics::Counter;

/// Why the data of a shard is not what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataLoss {
    /// The data set is gone: the shard is empty.
    Missing,
    /// Another data set stands under the same name.
    Replaced,
    /// The data set is an earlier state of itself.
    RolledBack,
}

impl DataLoss {
    /// All of them.
    pub const ALL: [DataLoss; 3] = [DataLoss::Missing, DataLoss::Replaced, DataLoss::RolledBack];

    /// Its name, as in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            DataLoss::Missing => "missing",
            DataLoss::Replaced => "replaced",
            DataLoss::RolledBack => "rolled_back",
        }
    }

    /// What was seen and what to do, for an operator.
    pub fn explain(self) -> &'static str {
        match self {
            DataLoss::Missing => {
                "the data set is gone: it was flushed, or this is another Redis or database. Bring it back, or accept \
                 the loss with `slotwheel doctor --accept-loss`"
            }
            DataLoss::Replaced => {
                "another data set stands where this server's was. Bring its own back, or accept the change with \
                 `slotwheel doctor --accept-loss`"
            }
            DataLoss::RolledBack => {
                "the data set has gone back in time: what was accepted last is lost. Accept it with `slotwheel doctor \
                 --accept-loss`"
            }
        }
    }

    /// Whether nothing may be served meanwhile. An older state of the same data set is served, because it is the
    /// tasks' own; one that is gone would be a silent empty queue.
    fn blocks_requests(self) -> bool {
        match self {
            DataLoss::Missing | DataLoss::Replaced => true,
            DataLoss::RolledBack => false,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Why the last call failed.
    open_reason: Option<String>,
    /// Whether somebody is finding out if it is back.
    probing: bool,
    data_loss: Option<DataLoss>,
}

impl State {
    /// An error where nothing may be served, because the data is not what it was.
    fn check_data(&self) -> Result<()> {
        match self.data_loss.filter(|loss| loss.blocks_requests()) {
            Some(loss) => Err(Error::DataLoss(loss)),
            None => Ok(()),
        }
    }

    /// An error where the shard is away and somebody finds out already whether it is back.
    fn check_breaker(&self) -> Result<()> {
        match &self.open_reason {
            Some(why) if self.probing => Err(Error::Unavailable(why.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

/// The gate of one shard.
#[derive(Debug)]
pub struct CircuitBreaker {
    shard: usize,
    state: Mutex<State>,
    rejected: Counter,
}

/// Somebody who may call although the shard is away. Dropped, another may.
struct Probe<'a>(&'a CircuitBreaker);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.lock().probing = false;
    }
}

impl CircuitBreaker {
    /// Open, of the shard of this number.
    pub(super) fn new(shard: usize) -> Self {
        CircuitBreaker { shard, state: Mutex::default(), rejected: Counter::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `call` if the shard is worth calling, and learns from its outcome.
    pub(super) async fn call<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let checked = self.lock().check_data();
        self.count_rejection(checked)?;
        self.call_unchecked(operation).await
    }

    /// The same for the call that finds out whether the data is what it was.
    pub(super) async fn call_unchecked<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let admitted = self.begin_call();
        let _probe = self.count_rejection(admitted)?;
        let outcome = operation.await;
        match &outcome {
            Err(Error::Unavailable(why)) => self.set_open_reason(Some(why.clone())),
            // It answers, if only to refuse.
            Ok(_)
            | Err(
                Error::Full(_)
                | Error::Disk(_)
                | Error::DataLoss(_)
                | Error::Unconfirmed(_)
                | Error::Stopping
                | Error::Unexpected(_),
            ) => self.set_open_reason(None),
        }
        outcome
    }

    fn set_open_reason(&self, reason: Option<String>) {
        let before = std::mem::replace(&mut self.lock().open_reason, reason.clone());
        match (before, reason) {
            (None, Some(why)) => tracing::warn!(shard = self.shard, why, "Redis is away"),
            (Some(_), None) => tracing::info!(shard = self.shard, "Redis answers again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Whether a request may get in line: not while somebody finds out already whether the shard is back.
    ///
    /// # Errors
    /// Why the shard is not worth waiting for.
    pub fn admit(&self) -> Result<()> {
        let admitted = self.lock().check_breaker();
        self.count_rejection(admitted)
    }

    /// Counts those who are turned away.
    fn count_rejection<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.rejected.inc();
        }
        outcome
    }

    /// How many calls were not made because of what was known of the shard.
    pub fn refused(&self) -> u64 {
        self.rejected.read()
    }

    fn begin_call(&self) -> Result<Option<Probe<'_>>> {
        let mut state = self.lock();
        state.check_breaker()?;
        if state.open_reason.is_none() {
            return Ok(None);
        }
        state.probing = true;
        Ok(Some(Probe(self)))
    }

    /// What was found out about the shard's data; `None`: it is what it was.
    pub(super) fn set_data_loss(&self, loss: Option<DataLoss>) {
        let before = std::mem::replace(&mut self.lock().data_loss, loss);
        match loss {
            Some(loss) if before != Some(loss) => tracing::error!(shard = self.shard, "{}", loss.explain()),
            None if before.is_some() => tracing::warn!(shard = self.shard, "the data set is accepted, or back"),
            Some(_) | None => {}
        }
    }

    /// The loss that was noticed and not yet accepted.
    pub fn data_loss(&self) -> Option<DataLoss> {
        self.lock().data_loss
    }

    /// Whether it is open to all.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self) -> Result<()> {
        let state = self.lock();
        state.check_data()?;
        match &state.open_reason {
            Some(why) => Err(Error::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Whether the last call found it away.
    pub fn is_open(&self) -> bool {
        self.lock().open_reason.is_some()
    }
}

#[cfg(test)]
mod tests {
    use crate::store::circuit_breaker::*;

    async fn unavailable() -> Result<()> {
        Err(Error::Unavailable("away".into()))
    }

    async fn available() -> Result<()> {
        Ok(())
    }

    #[tokio::test]
    async fn open_breaker_admits_one_probe_and_closes_after_its_first_answer() {
        let gate = CircuitBreaker::new(0);
        assert!(gate.call(unavailable()).await.is_err());
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let probe = gate.call(async {
            answered.await.ok();
            Ok(())
        });
        tokio::pin!(probe);
        assert!(futures_util::poll!(&mut probe).is_pending());
        assert!(gate.call(available()).await.is_err(), "another tries already");
        assert!(gate.is_open());
        answer.send(()).unwrap();
        assert!(probe.await.is_ok());
        assert!(!gate.is_open());
        assert!(gate.call(available()).await.is_ok());
    }

    #[tokio::test]
    async fn dropped_probe_admits_another_probe() {
        let gate = CircuitBreaker::new(0);
        assert!(gate.call(unavailable()).await.is_err());
        {
            let probe = gate.call(std::future::pending::<Result<()>>());
            tokio::pin!(probe);
            assert!(futures_util::poll!(&mut probe).is_pending());
        }
        assert!(gate.call(available()).await.is_ok());
    }

    #[tokio::test]
    async fn missing_dataset_blocks_requests_and_rolled_back_dataset_does_not() {
        let gate = CircuitBreaker::new(0);
        gate.set_data_loss(Some(DataLoss::Missing));
        assert!(matches!(gate.call(available()).await, Err(Error::DataLoss(DataLoss::Missing))));
        assert!(gate.call_unchecked(available()).await.is_ok());
        gate.set_data_loss(Some(DataLoss::RolledBack));
        assert!(gate.call(available()).await.is_ok());
    }
}
