//! Items of which some are settled at once (refused, or known already) and the others go on together: all outcomes come
//! back in the order of the items.

use crate::api::problem::Problem;

/// Items `T` on their way to outcomes `U`.
#[derive(Debug)]
pub(in crate::api) struct BatchResults<T, U> {
    pending: Vec<T>,
    /// In order: what is settled, and `None` for the next that is open.
    results: Vec<Option<Result<U, Problem>>>,
}

impl<T, U> BatchResults<T, U> {
    pub(in crate::api) fn new() -> Self {
        BatchResults { pending: Vec::new(), results: Vec::new() }
    }

    /// The next item: one that goes on, or the problem that settles it.
    pub(in crate::api) fn push(&mut self, item: Result<T, Problem>) {
        match item {
            Ok(item) => {
                self.pending.push(item);
                self.results.push(None);
            }
            Err(problem) => self.push_result(Err(problem)),
        }
    }

    /// The next item, whose outcome is known.
    pub(in crate::api) fn push_result(&mut self, outcome: Result<U, Problem>) {
        self.results.push(Some(outcome));
    }

    /// The places of those that go on, from 0.
    pub(in crate::api) fn pending_indexes(&self) -> impl Iterator<Item = usize> {
        self.results.iter().enumerate().filter(|(_, settled)| settled.is_none()).map(|(place, _)| place)
    }

    /// Takes out those that go on; their outcomes are owed to [`Items::outcomes`].
    pub(in crate::api) fn take_pending(&mut self) -> Vec<T> {
        std::mem::take(&mut self.pending)
    }

    /// All outcomes, in order; `owed` are those of the items that went on.
    pub(in crate::api) fn into_results<E: Into<Problem>>(
        self,
        pending_results: impl IntoIterator<Item = Result<U, E>>,
    ) -> Vec<Result<U, Problem>> {
        let mut owed = pending_results.into_iter();
        let outcomes = self.results.into_iter();
        outcomes.filter_map(|settled| settled.or_else(|| owed.next().map(|owed| owed.map_err(Into::into)))).collect()
    }
}
