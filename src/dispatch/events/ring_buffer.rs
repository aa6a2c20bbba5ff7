//! A ring buffer of the latest task events. A reader keeps only its position, so a slow reader costs no memory. It
//! receives a gap with the number of events that were overwritten before it read them.

use std::collections::VecDeque;

use crate::domain::queue::QueueName;
use crate::store::notify::events::TaskEvent;

/// Events scanned per read. Writers wait during a read.
const SCAN_LIMIT: usize = 4096;

/// The buffer. Events are numbered from 1.
#[derive(Debug)]
pub(in crate::dispatch) struct EventBuffer {
    capacity: usize,
    /// `None`: a gap of unknown length.
    events: VecDeque<Option<TaskEvent>>,
    /// Number of the first event kept, or of the next one if none is.
    first_number: u64,
    /// Number of the last gap that was overwritten.
    last_evicted_gap: u64,
}

/// An event as a reader receives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BufferedEvent {
    /// Its number. It covers all earlier ones.
    pub number: u64,
    /// Its content.
    pub data: EventData,
}

/// Content of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventData {
    /// A task changed.
    Change(TaskEvent),
    /// Events of any queue were missed: their number, or `None` if it is unknown.
    Gap(Option<u64>),
}

impl EventBuffer {
    /// Keeps at most `capacity` events.
    pub(in crate::dispatch) fn new(capacity: usize) -> Self {
        EventBuffer { capacity, events: VecDeque::new(), first_number: 1, last_evicted_gap: 0 }
    }

    /// Number of the latest event, 0 before the first.
    pub(in crate::dispatch) fn latest_number(&self) -> u64 {
        self.first_number + self.events.len() as u64 - 1
    }

    fn push(&mut self, event: Option<TaskEvent>) {
        if self.events.len() >= self.capacity {
            if let Some(None) = self.events.pop_front() {
                self.last_evicted_gap = self.first_number;
            }
            self.first_number += 1;
        }
        self.events.push_back(event);
    }

    /// Appends events.
    pub(in crate::dispatch) fn push_all(&mut self, events: Vec<TaskEvent>) {
        events.into_iter().for_each(|event| self.push(Some(event)));
    }

    /// Appends a gap: events may have been missed.
    pub(in crate::dispatch) fn push_gap(&mut self) {
        self.push(None);
    }

    /// Returns at most `limit` events of `queues` (empty: all) after a number, and the number read up to. There may be
    /// more events, even after an empty read, unless that number is the latest.
    pub(in crate::dispatch) fn read_after(
        &self,
        after_number: u64,
        queues: &[QueueName],
        limit: usize,
    ) -> (Vec<BufferedEvent>, u64) {
        let mut events = Vec::new();
        let mut number = after_number.max(self.first_number - 1);
        if number > after_number {
            // The number is unknown if a gap was overwritten among them.
            let count = (self.last_evicted_gap <= after_number).then_some(number - after_number);
            events.push(BufferedEvent { number, data: EventData::Gap(count) });
        }
        let skipped = usize::try_from(number + 1 - self.first_number).unwrap_or(usize::MAX);
        for event in self.events.iter().skip(skipped).take(SCAN_LIMIT) {
            if events.len() >= limit {
                break;
            }
            number += 1;
            let data = match event {
                None => {
                    // Consecutive gaps are one gap.
                    events.pop_if(|last: &mut BufferedEvent| last.data == EventData::Gap(None));
                    EventData::Gap(None)
                }
                Some(task_event) if queues.is_empty() || queues.contains(&task_event.queue) => {
                    EventData::Change(task_event.clone())
                }
                Some(_) => continue,
            };
            events.push(BufferedEvent { number, data });
        }
        (events, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::TaskId;
    use crate::domain::state::State;
    use crate::domain::time::TimestampMs;
    use proptest::prelude::*;

    fn task_event(number: u64) -> TaskEvent {
        let id = TaskId::from_bytes(&u128::from(number).to_be_bytes()).unwrap();
        let queue = QueueName::parse(if number.is_multiple_of(2) { "even" } else { "odd" }).unwrap();
        TaskEvent { id, queue, from: None, to: Some(State::Ready), at: TimestampMs(0) }
    }

    proptest! {
        #[test]
        fn reader_gets_every_event_or_a_gap_with_its_count(
            // Events appended (0: a gap), whether the reader reads then, and the limit of its reads.
            steps in proptest::collection::vec((0u64..12, any::<bool>(), 1usize..6), 1..60),
        ) {
            let mut buffer = EventBuffer::new(8);
            // All events, by number less 1; `None`: a gap.
            let (mut history, mut seen) = (Vec::new(), 0);
            for (count, reads, limit) in steps {
                if count == 0 {
                    buffer.push_gap();
                    history.push(None);
                } else {
                    let next = history.len() as u64;
                    let events: Vec<TaskEvent> = (next..next + count).map(task_event).collect();
                    history.extend(events.iter().cloned().map(Some));
                    buffer.push_all(events);
                }
                prop_assert_eq!(buffer.latest_number(), history.len() as u64);
                while reads && seen < buffer.latest_number() {
                    let (events, position) = buffer.read_after(seen, &[], limit);
                    prop_assert!(!events.is_empty() && events.len() <= limit);
                    for event in events {
                        // Each event covers all numbers after the previous one.
                        let covered = &history[usize::try_from(seen).unwrap()..usize::try_from(event.number).unwrap()];
                        let gaps = covered.iter().filter(|entry| entry.is_none()).count();
                        match event.data {
                            EventData::Change(received) => prop_assert_eq!(covered, [Some(received)]),
                            EventData::Gap(Some(count)) => prop_assert_eq!((covered.len() as u64, gaps), (count, 0)),
                            EventData::Gap(None) if seen + 1 < buffer.first_number => prop_assert!(gaps > 0),
                            EventData::Gap(None) => prop_assert!(gaps > 0 && gaps == covered.len()),
                        }
                        seen = event.number;
                    }
                    prop_assert_eq!(seen, position);
                }
            }
        }
    }

    #[test]
    fn evicted_gap_is_reported_only_to_readers_before_it() {
        let mut buffer = EventBuffer::new(2);
        buffer.push_gap();
        buffer.push_all((2..5).map(task_event).collect());
        let data = |seen| buffer.read_after(seen, &[], 1).0[0].data.clone();
        assert_eq!(data(0), EventData::Gap(None));
        assert_eq!(data(1), EventData::Gap(Some(1)));
    }

    #[test]
    fn events_of_other_queues_are_skipped() {
        let mut buffer = EventBuffer::new(8);
        buffer.push_all((1..6).map(task_event).collect());
        let (events, seen) = buffer.read_after(0, &[QueueName::parse("even").unwrap()], 100);
        assert_eq!((events.iter().map(|event| event.number).collect::<Vec<_>>(), seen), (vec![2, 4], 5));
    }

    #[test]
    fn read_is_bounded_and_the_next_one_continues() {
        let mut buffer = EventBuffer::new(3 * SCAN_LIMIT);
        buffer.push_all(vec![task_event(1); 2 * SCAN_LIMIT]);
        buffer.push_all(vec![task_event(2)]);
        let (even, scanned) = ([QueueName::parse("even").unwrap()], SCAN_LIMIT as u64);
        assert_eq!(buffer.read_after(0, &even, 1), (vec![], scanned));
        assert_eq!(buffer.read_after(scanned, &even, 1), (vec![], 2 * scanned));
        assert_eq!(buffer.read_after(2 * scanned, &even, 1).0.len(), 1);
    }
}
