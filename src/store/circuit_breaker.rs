//! A circuit breaker for each shard, and what is known of the shard: data loss, and a missing permission.
//!
//! When a call finds the shard unavailable until its time limit, the breaker opens. Further calls then fail
//! immediately, except one probe at a time. The first reply closes it. Requests therefore do not pile up while Redis is
//! unavailable, and one call, not all of them, finds out that it is available again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{DataLoss, Error, Result};
use crate::metrics::Counter;

#[derive(Debug, Default)]
enum Breaker {
    /// Calls are made.
    #[default]
    Closed,
    /// The last call failed. The next call becomes a probe.
    Open { failure: Error },
    /// A probe is running. All other calls fail.
    HalfOpen { failure: Error, probe: u64 },
}

impl Breaker {
    fn failure(&self) -> Option<&Error> {
        match self {
            Breaker::Closed => None,
            Breaker::Open { failure } | Breaker::HalfOpen { failure, .. } => Some(failure),
        }
    }

    /// # Errors
    /// The last failure while a probe is running.
    fn check(&self) -> Result<()> {
        match self {
            Breaker::HalfOpen { failure, .. } => Err(failure.clone()),
            Breaker::Closed | Breaker::Open { .. } => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    /// The number of probes so far, which is the id of the last one.
    probes: u64,
    data_loss: Option<DataLoss>,
    /// The permission that the user of this server lacks.
    denial: Option<String>,
}

impl State {
    /// # Errors
    /// [`Error::DataLoss`] if the loss blocks requests, and [`Error::Denied`] if a permission is missing: a script that
    /// began would stop half-way.
    fn check_data(&self) -> Result<()> {
        if let Some(loss) = self.data_loss.filter(|loss| loss.blocks_requests()) {
            return Err(Error::DataLoss(loss));
        }
        match &self.denial {
            Some(permission) => Err(Error::Denied(permission.clone())),
            None => Ok(()),
        }
    }

    /// # Errors
    /// As [`CircuitBreaker::check`].
    fn check(&self) -> Result<()> {
        self.check_data()?;
        self.breaker.failure().map_or(Ok(()), |failure| Err(failure.clone()))
    }
}

/// The circuit breaker of one shard.
#[derive(Debug)]
pub struct CircuitBreaker {
    shard: usize,
    state: Mutex<State>,
    /// The number of shards whose check fails, of all shards of the store.
    blocked_shards: Arc<AtomicUsize>,
    rejected: Counter,
}

/// The permit of the one call that is made while the shard is unavailable. Dropping it permits another probe.
struct Probe<'a> {
    breaker: &'a CircuitBreaker,
    id: u64,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.breaker.change(|state| {
            if let Breaker::HalfOpen { failure, probe } = &state.breaker
                && *probe == self.id
            {
                state.breaker = Breaker::Open { failure: failure.clone() };
            }
        });
    }
}

impl CircuitBreaker {
    /// Returns a closed breaker for the shard with this index. It counts the shard in `blocked_shards` while its check fails.
    pub(super) fn new(shard: usize, blocked_shards: Arc<AtomicUsize>) -> Self {
        CircuitBreaker { shard, state: Mutex::default(), blocked_shards, rejected: Counter::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state. All changes are made here, so that the number of blocked shards follows them.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let state = &mut *self.lock();
        let was_blocked = state.check().is_err();
        let outcome = change(state);
        match (was_blocked, state.check().is_err()) {
            (false, true) => drop(self.blocked_shards.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.blocked_shards.fetch_sub(1, Ordering::Relaxed)),
            (true, true) | (false, false) => {}
        }
        outcome
    }

    /// Runs `operation` if no data loss, missing permission or open breaker forbids it. Its outcome closes or opens the breaker.
    pub(super) async fn call<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let checked = self.lock().check_data();
        self.count_rejection(checked)?;
        self.call_unchecked(operation).await
    }

    /// Runs `operation` in spite of a data loss or a missing permission: for the calls that detect whether it persists.
    pub(super) async fn call_unchecked<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let admitted = self.begin_call();
        let _probe = self.count_rejection(admitted)?;
        let outcome = operation.await;
        match &outcome {
            Err(failure @ (Error::Unavailable(_) | Error::Unauthenticated(_))) => self.record_failure(failure),
            Err(Error::Denied(permission)) => {
                self.record_reply();
                self.set_denial(Some(permission.clone()));
            }
            // Any other error is a reply.
            Ok(_)
            | Err(
                Error::Full(_)
                | Error::Disk(_)
                | Error::DataLoss(_)
                | Error::Unconfirmed(_)
                | Error::Stopping
                | Error::Unexpected(_),
            ) => self.record_reply(),
        }
        outcome
    }

    fn record_failure(&self, failure: &Error) {
        let failure = failure.clone();
        self.change(|state| {
            state.breaker = match std::mem::take(&mut state.breaker) {
                Breaker::Closed => {
                    tracing::warn!(shard = self.shard, error = %failure, "Redis is unavailable");
                    Breaker::Open { failure }
                }
                Breaker::Open { .. } => Breaker::Open { failure },
                Breaker::HalfOpen { probe, .. } => Breaker::HalfOpen { failure, probe },
            };
        });
    }

    fn record_reply(&self) {
        match self.change(|state| std::mem::take(&mut state.breaker)) {
            Breaker::Closed => {}
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => {
                tracing::info!(shard = self.shard, "Redis is available again");
            }
        }
    }

    /// Checks whether a request may wait for this shard.
    ///
    /// # Errors
    /// The last failure while a probe is running.
    pub fn admit(&self) -> Result<()> {
        let admitted = self.lock().breaker.check();
        self.count_rejection(admitted)
    }

    fn count_rejection<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.rejected.inc();
        }
        outcome
    }

    /// Returns the number of calls and requests rejected so far, by the breaker or because of a data loss.
    pub fn rejected(&self) -> u64 {
        self.rejected.read()
    }

    /// Returns a probe if the breaker was open, and `None` if it is closed.
    fn begin_call(&self) -> Result<Option<Probe<'_>>> {
        self.change(|state| {
            state.breaker.check()?;
            let Breaker::Open { failure } = &state.breaker else { return Ok(None) };
            state.probes += 1;
            state.breaker = Breaker::HalfOpen { failure: failure.clone(), probe: state.probes };
            Ok(Some(Probe { breaker: self, id: state.probes }))
        })
    }

    /// Records the result of the last data loss check. `None`: the data is intact.
    pub(super) fn set_data_loss(&self, loss: Option<DataLoss>) {
        let previous = self.change(|state| std::mem::replace(&mut state.data_loss, loss));
        match loss {
            Some(loss) if previous != Some(loss) => {
                tracing::error!(shard = self.shard, "data loss detected: {}", loss.explain());
            }
            None if previous.is_some() => {
                tracing::warn!(shard = self.shard, "data loss over: the data set was accepted or restored");
            }
            Some(_) | None => {}
        }
    }

    /// Records the missing permission that a reply or the last check has shown. `None`: the last check found none.
    pub(super) fn set_denial(&self, permission: Option<String>) {
        let previous = self.change(|state| std::mem::replace(&mut state.denial, permission.clone()));
        match permission {
            Some(permission) if previous.is_none() => {
                tracing::error!(shard = self.shard, permission, "Redis denies a permission: requests are rejected");
            }
            None if previous.is_some() => tracing::info!(shard = self.shard, "Redis denies no permission any more"),
            Some(_) | None => {}
        }
    }

    /// Whether a permission is missing.
    pub(super) fn is_denied(&self) -> bool {
        self.lock().denial.is_some()
    }

    /// Returns the detected data loss, until an operator accepts it or the data is restored.
    pub fn data_loss(&self) -> Option<DataLoss> {
        self.lock().data_loss
    }

    /// Checks that the breaker is closed and that no data loss or missing permission blocks requests.
    ///
    /// # Errors
    /// [`Error::DataLoss`], [`Error::Denied`], or the last failure.
    pub fn check(&self) -> Result<()> {
        self.lock().check()
    }

    /// Whether the breaker is open or half-open: the last call found the shard unavailable.
    pub fn is_open(&self) -> bool {
        self.lock().breaker.failure().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn unavailable() -> Result<()> {
        Err(Error::Unavailable("no connection".into()))
    }

    async fn available() -> Result<()> {
        Ok(())
    }

    #[tokio::test]
    async fn open_breaker_admits_one_probe_and_closes_after_its_first_reply() {
        let breaker = CircuitBreaker::new(0, Arc::default());
        assert!(breaker.call(unavailable()).await.is_err());
        let (reply, replied) = tokio::sync::oneshot::channel::<()>();
        let probe = breaker.call(async {
            replied.await.ok();
            Ok(())
        });
        tokio::pin!(probe);
        assert!(futures_util::poll!(&mut probe).is_pending());
        assert!(breaker.call(available()).await.is_err(), "a probe is running");
        assert!(breaker.is_open());
        reply.send(()).unwrap();
        assert!(probe.await.is_ok());
        assert!(!breaker.is_open());
        assert!(breaker.call(available()).await.is_ok());
    }

    #[tokio::test]
    async fn dropped_probe_permits_another_probe() {
        let breaker = CircuitBreaker::new(0, Arc::default());
        assert!(breaker.call(unavailable()).await.is_err());
        {
            let probe = breaker.call(std::future::pending::<Result<()>>());
            tokio::pin!(probe);
            assert!(futures_util::poll!(&mut probe).is_pending());
        }
        assert!(breaker.call(available()).await.is_ok());
    }

    #[tokio::test]
    async fn dropped_earlier_probe_permits_no_second_probe() {
        let breaker = CircuitBreaker::new(0, Arc::default());
        let (reply, replied) = tokio::sync::oneshot::channel::<()>();
        let call_before_outage = breaker.call(async {
            replied.await.ok();
            Ok(())
        });
        tokio::pin!(call_before_outage);
        assert!(futures_util::poll!(&mut call_before_outage).is_pending());
        assert!(breaker.call(unavailable()).await.is_err());
        let mut earlier_probe = Box::pin(breaker.call(std::future::pending::<Result<()>>()));
        assert!(futures_util::poll!(&mut earlier_probe).is_pending());
        reply.send(()).unwrap();
        assert!(call_before_outage.await.is_ok());
        assert!(breaker.call(unavailable()).await.is_err(), "the breaker was closed, and opens again");
        let probe = breaker.call(std::future::pending::<Result<()>>());
        tokio::pin!(probe);
        assert!(futures_util::poll!(&mut probe).is_pending());
        drop(earlier_probe);
        assert!(breaker.call(available()).await.is_err(), "a probe is running");
    }

    #[tokio::test]
    async fn missing_dataset_blocks_requests_and_rolled_back_dataset_does_not() {
        let breaker = CircuitBreaker::new(0, Arc::default());
        breaker.set_data_loss(Some(DataLoss::Missing));
        assert!(matches!(breaker.call(available()).await, Err(Error::DataLoss(DataLoss::Missing))));
        assert!(breaker.call_unchecked(available()).await.is_ok());
        breaker.set_data_loss(Some(DataLoss::RolledBack));
        assert!(breaker.call(available()).await.is_ok());
    }

    #[tokio::test]
    async fn denied_call_blocks_requests_until_a_check_finds_no_missing_permission() {
        let breaker = CircuitBreaker::new(0, Arc::default());
        let denied = async { Err::<(), Error>(Error::Denied("zadd".into())) };
        assert!(breaker.call(denied).await.is_err());
        assert!(breaker.call_unchecked(available()).await.is_ok());
        assert!(matches!(breaker.call(available()).await, Err(Error::Denied(_))), "one command may run, others not");
        breaker.set_denial(None);
        assert!(breaker.call(available()).await.is_ok());
    }

    #[tokio::test]
    async fn shard_is_counted_as_blocked_exactly_while_its_check_fails() {
        let blocked_shards: Arc<AtomicUsize> = Arc::default();
        let breakers = [0, 1].map(|shard| CircuitBreaker::new(shard, blocked_shards.clone()));
        let count = || {
            let failing = breakers.iter().filter(|breaker| breaker.check().is_err()).count();
            assert_eq!(blocked_shards.load(Ordering::Relaxed), failing);
            failing
        };
        let [breaker, other] = &breakers;
        assert_eq!(count(), 0);

        for _ in 0..2 {
            assert!(breaker.call_unchecked(unavailable()).await.is_err());
            assert_eq!(count(), 1, "open");
        }
        {
            let probe = breaker.call(std::future::pending::<Result<()>>());
            tokio::pin!(probe);
            assert!(futures_util::poll!(&mut probe).is_pending());
            assert_eq!(count(), 1, "half-open");
        }
        assert_eq!(count(), 1, "open again");
        assert!(other.call(unavailable()).await.is_err());
        assert_eq!(count(), 2);
        for _ in 0..2 {
            assert!(breaker.call(available()).await.is_ok());
            assert_eq!(count(), 1, "closed");
        }
        breaker.set_denial(Some("zadd".into()));
        for loss in [Some(DataLoss::RolledBack), Some(DataLoss::Missing), None] {
            breaker.set_data_loss(loss);
            assert_eq!(count(), 2, "a permission is missing");
        }
        breaker.set_data_loss(Some(DataLoss::Missing));
        breaker.set_denial(None);
        assert_eq!(count(), 2, "data is missing");
        breaker.set_data_loss(Some(DataLoss::RolledBack));
        assert!(other.call(available()).await.is_ok());
        assert_eq!(count(), 0, "all accept requests");
    }
}
