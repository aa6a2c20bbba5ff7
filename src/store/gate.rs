//! Whether a shard is worth calling: a circuit breaker, and what is known about a loss of its data.
//!
//! Once a call has found the shard away for as long as calls are patient, further ones are refused at once, but for one
//! at a time that goes on trying. The first that is answered opens the gate to all. So nothing piles up while Redis is
//! away, and one caller, not a herd, finds out that it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::{Error, Result};
use crate::measure::Counter;

/// Why the data of a shard is not what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The data set is gone: the shard is empty.
    Gone,
    /// Another data set stands under the same name.
    Another,
    /// The data set is an earlier state of itself.
    Older,
}

impl Loss {
    /// All of them.
    pub const ALL: [Loss; 3] = [Loss::Gone, Loss::Another, Loss::Older];

    /// Its name, as in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Loss::Gone => "gone",
            Loss::Another => "another",
            Loss::Older => "older",
        }
    }

    /// What was seen and what to do, for an operator.
    pub fn explain(self) -> &'static str {
        match self {
            Loss::Gone => {
                "the data set is gone: it was flushed, or this is another Redis or database. Bring it back, or accept \
                 the loss with `slotwheel doctor --accept-loss`"
            }
            Loss::Another => {
                "another data set stands where this server's was. Bring its own back, or accept the change with \
                 `slotwheel doctor --accept-loss`"
            }
            Loss::Older => {
                "the data set has gone back in time: what was accepted last is lost. Accept it with `slotwheel doctor \
                 --accept-loss`"
            }
        }
    }

    /// Whether nothing may be served meanwhile. An older state of the same data set is served, because it is the
    /// tasks' own; one that is gone would be a silent empty queue.
    fn closes(self) -> bool {
        match self {
            Loss::Gone | Loss::Another => true,
            Loss::Older => false,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Why the last call failed.
    away: Option<String>,
    /// Whether somebody is finding out if it is back.
    probing: bool,
    loss: Option<Loss>,
}

impl State {
    /// An error where nothing may be served, because the data is not what it was.
    fn keeps(&self) -> Result<()> {
        match self.loss.filter(|loss| loss.closes()) {
            Some(loss) => Err(Error::Lost(loss)),
            None => Ok(()),
        }
    }

    /// An error where the shard is away and somebody finds out already whether it is back.
    fn admits(&self) -> Result<()> {
        match &self.away {
            Some(why) if self.probing => Err(Error::Unavailable(why.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

/// The gate of one shard.
#[derive(Debug)]
pub struct Gate {
    shard: usize,
    state: Mutex<State>,
    refused: Counter,
}

/// Somebody who may call although the shard is away. Dropped, another may.
struct Probe<'a>(&'a Gate);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.lock().probing = false;
    }
}

impl Gate {
    /// Open, of the shard of this number.
    pub(super) fn new(shard: usize) -> Self {
        Gate { shard, state: Mutex::default(), refused: Counter::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `call` if the shard is worth calling, and learns from its outcome.
    pub(super) async fn pass<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let kept = self.lock().keeps();
        self.note(kept)?;
        self.pass_in_spite_of_loss(call).await
    }

    /// The same for the call that finds out whether the data is what it was.
    pub(super) async fn pass_in_spite_of_loss<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let entered = self.enter();
        let _probe = self.note(entered)?;
        let outcome = call.await;
        match &outcome {
            Err(Error::Unavailable(why)) => self.set_away(Some(why.clone())),
            // It answers, if only to refuse.
            Ok(_)
            | Err(Error::Full(_) | Error::Disk(_) | Error::Lost(_) | Error::Unconfirmed(_) | Error::Unexpected(_)) => {
                self.set_away(None)
            }
        }
        outcome
    }

    fn set_away(&self, away: Option<String>) {
        let before = std::mem::replace(&mut self.lock().away, away.clone());
        match (before, away) {
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
        let admitted = self.lock().admits();
        self.note(admitted)
    }

    /// Counts those who are turned away.
    fn note<T>(&self, passed: Result<T>) -> Result<T> {
        if passed.is_err() {
            self.refused.one();
        }
        passed
    }

    /// How many calls were not made because of what was known of the shard.
    pub fn refused(&self) -> u64 {
        self.refused.read()
    }

    fn enter(&self) -> Result<Option<Probe<'_>>> {
        let mut state = self.lock();
        state.admits()?;
        if state.away.is_none() {
            return Ok(None);
        }
        state.probing = true;
        Ok(Some(Probe(self)))
    }

    /// What was found out about the shard's data; `None`: it is what it was.
    pub(super) fn set_loss(&self, loss: Option<Loss>) {
        let before = std::mem::replace(&mut self.lock().loss, loss);
        match loss {
            Some(loss) if before != Some(loss) => tracing::error!(shard = self.shard, "{}", loss.explain()),
            None if before.is_some() => tracing::warn!(shard = self.shard, "the data set is accepted, or back"),
            Some(_) | None => {}
        }
    }

    /// The loss that was noticed and not yet accepted.
    pub fn loss(&self) -> Option<Loss> {
        self.lock().loss
    }

    /// Whether it is open to all.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self) -> Result<()> {
        let state = self.lock();
        state.keeps()?;
        match &state.away {
            Some(why) => Err(Error::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Whether the last call found it away.
    pub fn is_away(&self) -> bool {
        self.lock().away.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn away() -> Result<()> {
        Err(Error::Unavailable("away".into()))
    }

    async fn well() -> Result<()> {
        Ok(())
    }

    #[tokio::test]
    async fn while_a_shard_is_away_one_at_a_time_tries_it_and_the_first_answer_opens_it() {
        let gate = Gate::new(0);
        assert!(gate.pass(away()).await.is_err());
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let probe = gate.pass(async {
            answered.await.ok();
            Ok(())
        });
        tokio::pin!(probe);
        assert!(futures_util::poll!(&mut probe).is_pending());
        assert!(gate.pass(well()).await.is_err(), "another tries already");
        assert!(gate.is_away());
        answer.send(()).unwrap();
        assert!(probe.await.is_ok());
        assert!(!gate.is_away());
        assert!(gate.pass(well()).await.is_ok());
    }

    #[tokio::test]
    async fn one_who_gives_up_trying_lets_another_try() {
        let gate = Gate::new(0);
        assert!(gate.pass(away()).await.is_err());
        {
            let probe = gate.pass(std::future::pending::<Result<()>>());
            tokio::pin!(probe);
            assert!(futures_util::poll!(&mut probe).is_pending());
        }
        assert!(gate.pass(well()).await.is_ok());
    }

    #[tokio::test]
    async fn a_data_set_that_is_gone_is_not_served_and_an_older_one_is() {
        let gate = Gate::new(0);
        gate.set_loss(Some(Loss::Gone));
        assert!(matches!(gate.pass(well()).await, Err(Error::Lost(Loss::Gone))));
        assert!(gate.pass_in_spite_of_loss(well()).await.is_ok());
        gate.set_loss(Some(Loss::Older));
        assert!(gate.pass(well()).await.is_ok());
    }
}
