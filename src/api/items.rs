//! Items of which some are settled at once (refused, or known already) and the others go on together: all outcomes come
//! back in the order of the items.

use super::problem::Problem;

/// Items `T` on their way to outcomes `U`.
#[derive(Debug)]
pub(super) struct Items<T, U> {
    open: Vec<T>,
    /// In order: what is settled, and `None` for the next that is open.
    settled: Vec<Option<Result<U, Problem>>>,
}

impl<T, U> Items<T, U> {
    pub(super) fn new() -> Self {
        Items { open: Vec::new(), settled: Vec::new() }
    }

    /// The next item: one that goes on, or the problem that settles it.
    pub(super) fn add(&mut self, item: Result<T, Problem>) {
        match item {
            Ok(item) => {
                self.open.push(item);
                self.settled.push(None);
            }
            Err(problem) => self.settle(Err(problem)),
        }
    }

    /// The next item, whose outcome is known.
    pub(super) fn settle(&mut self, outcome: Result<U, Problem>) {
        self.settled.push(Some(outcome));
    }

    /// The places of those that go on, from 0.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.settled.iter().enumerate().filter(|(_, settled)| settled.is_none()).map(|(place, _)| place)
    }

    /// Takes out those that go on; their outcomes are owed to [`Items::outcomes`].
    pub(super) fn take_open(&mut self) -> Vec<T> {
        std::mem::take(&mut self.open)
    }

    /// All outcomes, in order; `owed` are those of the items that went on.
    pub(super) fn outcomes<E: Into<Problem>>(
        self,
        owed: impl IntoIterator<Item = Result<U, E>>,
    ) -> Vec<Result<U, Problem>> {
        let mut owed = owed.into_iter();
        let outcomes = self.settled.into_iter();
        outcomes.filter_map(|settled| settled.or_else(|| owed.next().map(|owed| owed.map_err(Into::into)))).collect()
    }
}
