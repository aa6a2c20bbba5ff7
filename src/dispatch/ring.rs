//! The last events, each with its number. Who reads them has a place in it and nothing else of its own: a slow reader
//! costs no memory, and is told how many it has missed once they are overwritten.

use std::collections::VecDeque;

use crate::domain::queue::QueueName;
use crate::store::change::Change;

/// So many are looked at in one go: whoever adds some waits meanwhile.
const LOOKED_AT: usize = 4096;

/// Events, by their numbers, from 1 on.
#[derive(Debug)]
pub(super) struct Ring {
    most: usize,
    /// `None`: a gap, of which nobody knows how many changes it hides.
    kept: VecDeque<Option<Change>>,
    /// The number of the first that is kept, or would be.
    first: u64,
    /// The number of the last gap that is kept no more.
    gap: u64,
}

/// An event, as a reader gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Who has seen this one has seen all up to it.
    pub number: u64,
    /// What it says.
    pub told: Told,
}

/// What an event says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// A task has changed.
    Change(Change),
    /// So many changes were missed, of whatever queue; `None`: nobody knows how many.
    Missed(Option<u64>),
}

impl Ring {
    /// Keeps `most` events.
    pub(super) fn new(most: usize) -> Self {
        Ring { most, kept: VecDeque::new(), first: 1, gap: 0 }
    }

    /// The number of the latest event; 0 before the first.
    pub(super) fn latest(&self) -> u64 {
        self.first + self.kept.len() as u64 - 1
    }

    fn push(&mut self, event: Option<Change>) {
        if self.kept.len() >= self.most {
            if let Some(None) = self.kept.pop_front() {
                self.gap = self.first;
            }
            self.first += 1;
        }
        self.kept.push_back(event);
    }

    /// These happened.
    pub(super) fn add(&mut self, changes: Vec<Change>) {
        changes.into_iter().for_each(|change| self.push(Some(change)));
    }

    /// Some may have happened that are not known.
    pub(super) fn add_gap(&mut self) {
        self.push(None);
    }

    /// At most `limit` events behind number `seen` that are about `queues` (none: about any), and how far that is. There
    /// may be more even if these are none: until that is the latest.
    pub(super) fn after(&self, seen: u64, queues: &[QueueName], limit: usize) -> (Vec<Event>, u64) {
        let mut events = Vec::new();
        let mut number = seen.max(self.first - 1);
        if number > seen {
            // Among those that are gone there may be a gap.
            let count = (self.gap <= seen).then_some(number - seen);
            events.push(Event { number, told: Told::Missed(count) });
        }
        let skipped = usize::try_from(number + 1 - self.first).unwrap_or(usize::MAX);
        for event in self.kept.iter().skip(skipped).take(LOOKED_AT) {
            if events.len() >= limit {
                break;
            }
            number += 1;
            let told = match event {
                None => {
                    // One gap after another is one gap.
                    events.pop_if(|last: &mut Event| last.told == Told::Missed(None));
                    Told::Missed(None)
                }
                Some(change) if queues.is_empty() || queues.contains(&change.queue) => Told::Change(change.clone()),
                Some(_) => continue,
            };
            events.push(Event { number, told });
        }
        (events, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::TaskId;
    use crate::domain::state::State;
    use crate::domain::time::Millis;
    use proptest::prelude::*;

    fn change(number: u64) -> Change {
        let id = TaskId::from_bytes(&u128::from(number).to_be_bytes()).unwrap();
        let queue = QueueName::parse(if number.is_multiple_of(2) { "even" } else { "odd" }).unwrap();
        Change { id, queue, from: None, to: Some(State::Ready), at: Millis(0) }
    }

    proptest! {
        #[test]
        fn a_reader_gets_each_event_or_hears_how_many_it_missed(
            // How much comes (0: a gap), and whether the reader reads then, and how much at once.
            steps in proptest::collection::vec((0u64..12, any::<bool>(), 1usize..6), 1..60),
        ) {
            let mut ring = Ring::new(8);
            // What happened, by number less 1; `None`: a gap.
            let (mut story, mut seen) = (Vec::new(), 0);
            for (count, reads, limit) in steps {
                if count == 0 {
                    ring.add_gap();
                    story.push(None);
                } else {
                    let changes: Vec<Change> = (0..count).map(|one| change(story.len() as u64 + one)).collect();
                    story.extend(changes.iter().cloned().map(Some));
                    ring.add(changes);
                }
                prop_assert_eq!(ring.latest(), story.len() as u64);
                while reads && seen < ring.latest() {
                    let (events, now) = ring.after(seen, &[], limit);
                    prop_assert!(!events.is_empty() && events.len() <= limit);
                    for event in events {
                        // Each speaks of all behind the one before it.
                        let about = &story[usize::try_from(seen).unwrap()..usize::try_from(event.number).unwrap()];
                        let gaps = about.iter().filter(|one| one.is_none()).count();
                        match event.told {
                            Told::Change(was) => prop_assert_eq!(about, [Some(was)]),
                            Told::Missed(Some(count)) => prop_assert_eq!((about.len() as u64, gaps), (count, 0)),
                            Told::Missed(None) if seen + 1 < ring.first => prop_assert!(gaps > 0),
                            Told::Missed(None) => prop_assert!(gaps > 0 && gaps == about.len()),
                        }
                        seen = event.number;
                    }
                    prop_assert_eq!(seen, now);
                }
            }
        }
    }

    #[test]
    fn a_gap_is_told_also_where_it_was_overwritten_and_only_to_who_has_not_seen_it() {
        let mut ring = Ring::new(2);
        ring.add_gap();
        ring.add((2..5).map(change).collect());
        let told = |seen| ring.after(seen, &[], 1).0[0].told.clone();
        assert_eq!(told(0), Told::Missed(None));
        assert_eq!(told(1), Told::Missed(Some(1)));
    }

    #[test]
    fn queues_that_are_not_asked_for_are_passed_over() {
        let mut ring = Ring::new(8);
        ring.add((1..6).map(change).collect());
        let (events, seen) = ring.after(0, &[QueueName::parse("even").unwrap()], 100);
        assert_eq!((events.iter().map(|event| event.number).collect::<Vec<_>>(), seen), (vec![2, 4], 5));
    }

    #[test]
    fn one_look_is_bounded_and_the_next_goes_on() {
        let mut ring = Ring::new(3 * LOOKED_AT);
        ring.add(vec![change(1); 2 * LOOKED_AT]);
        ring.add(vec![change(2)]);
        let (even, looked) = ([QueueName::parse("even").unwrap()], LOOKED_AT as u64);
        assert_eq!(ring.after(0, &even, 1), (vec![], looked));
        assert_eq!(ring.after(looked, &even, 1), (vec![], 2 * looked));
        assert_eq!(ring.after(2 * looked, &even, 1).0.len(), 1);
    }
}
