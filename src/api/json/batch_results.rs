//! Results of a batch in the order of its items. Some results are known at once (an invalid item, a repeated request);
//! the other items are executed together.

use crate::api::problem::Problem;

/// Items `T` to execute, and the results `U` known so far.
#[derive(Debug)]
pub(in crate::api) struct BatchResults<T, U> {
    pending: Vec<T>,
    /// One entry for each item, in order; `None` is the next pending item.
    results: Vec<Option<Result<U, Problem>>>,
}

impl<T, U> BatchResults<T, U> {
    pub(in crate::api) fn new() -> Self {
        BatchResults { pending: Vec::new(), results: Vec::new() }
    }

    /// Adds the next item: an item to execute, or the problem that is its result.
    pub(in crate::api) fn push(&mut self, item: Result<T, Problem>) {
        match item {
            Ok(item) => {
                self.pending.push(item);
                self.results.push(None);
            }
            Err(problem) => self.push_result(Err(problem)),
        }
    }

    /// Adds the next item by its result.
    pub(in crate::api) fn push_result(&mut self, result: Result<U, Problem>) {
        self.results.push(Some(result));
    }

    /// Returns the indexes of the items to execute, from 0.
    pub(in crate::api) fn pending_indexes(&self) -> impl Iterator<Item = usize> {
        self.results.iter().enumerate().filter(|(_, result)| result.is_none()).map(|(index, _)| index)
    }

    /// Takes the items to execute. Their results go to [`BatchResults::into_results`], in the same order.
    pub(in crate::api) fn take_pending(&mut self) -> Vec<T> {
        std::mem::take(&mut self.pending)
    }

    /// Returns all results in the order of the items. `pending_results` are those of the executed items.
    pub(in crate::api) fn into_results<E: Into<Problem>>(
        self,
        pending_results: impl IntoIterator<Item = Result<U, E>>,
    ) -> Vec<Result<U, Problem>> {
        let mut executed = pending_results.into_iter();
        let results = self.results.into_iter();
        results
            .filter_map(|result| result.or_else(|| executed.next().map(|result| result.map_err(Into::into))))
            .collect()
    }
}
