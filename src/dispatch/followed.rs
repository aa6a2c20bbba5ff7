//! Tasks that are followed on their way through this server: their spans are sent when they have been submitted, handed
//! out, and when their leases end. What a span tells of a lease, Redis is asked before the lease can end: after that
//! the task may have begun another. Which server gave it does not matter.
//!
//! Where no spans are sent, each function here returns at once, and nothing is asked or kept.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use crate::domain::id::TaskId;
use crate::domain::task::{Claimed, NewTask};
use crate::spans::{End, Followed, Spans, Stretch, instant};
use crate::store::ops::submit::Submitted;
use crate::store::ops::{Ended, Held};
use crate::store::views::courses::{Course, courses};
use crate::store::views::horizon::horizon;
use crate::store::{Result, Shard, Store};

/// A span for which Redis has to be asked longer is lost: work does not wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Follows tasks.
#[derive(Debug)]
pub(super) struct Follow {
    spans: Spans,
    store: Store,
}

/// Submits on their way.
#[derive(Debug)]
pub(super) struct Submits {
    begun: Instant,
    /// Each in its place.
    tasks: Vec<Option<Followed>>,
}

/// Waits that end when a client has the tasks.
#[derive(Debug)]
pub(super) struct Waits {
    spans: Spans,
    waits: Vec<(Followed, SystemTime, SystemTime)>,
}

/// A lease that is about to end.
#[derive(Debug)]
pub(super) struct Ending {
    followed: Followed,
    course: Course,
    /// When this was found out, by Redis' clock and by ours.
    seen: (SystemTime, Instant),
}

impl Follow {
    pub(super) fn new(spans: Spans, store: &Store) -> Self {
        Follow { spans, store: store.clone() }
    }

    /// Tasks are about to be submitted.
    pub(super) fn submits(&self, tasks: &[NewTask]) -> Option<Submits> {
        if !self.spans.are_on() {
            return None;
        }
        let follow = |task: &NewTask| self.spans.follow(task.id, &task.queue, &task.labels);
        Some(Submits { begun: Instant::now(), tasks: tasks.iter().map(follow).collect() })
    }

    /// They were submitted, each with its outcome.
    pub(super) fn submitted(&self, submits: Option<Submits>, outcomes: &[Result<Submitted>]) {
        let Some(submits) = submits else { return };
        for (followed, outcome) in submits.tasks.iter().zip(outcomes) {
            if let (Some(followed), Ok(Submitted::Created { at, .. })) = (followed, outcome) {
                let stored = instant(*at);
                let begun = stored.checked_sub(submits.begun.elapsed()).unwrap_or(stored);
                self.spans.send(followed, &Stretch::Submit, begun, stored);
            }
        }
    }

    /// Tasks of one shard are about to be handed out: the waits that end with that, if any is followed.
    pub(super) async fn waits(&self, tasks: &[Claimed]) -> Option<Box<Waits>> {
        if !self.spans.are_on() {
            return None;
        }
        // Apart, here and below, so that it takes no room in requests that wait.
        Box::pin(timeout(PATIENCE, self.read_waits(tasks))).await.ok().flatten()
    }

    async fn read_waits(&self, tasks: &[Claimed]) -> Option<Box<Waits>> {
        let follow = |task: &Claimed| Some((self.spans.follow(task.id, &task.queue, &task.labels)?, task.lease));
        let (handed, ids): (Vec<_>, Vec<TaskId>) =
            tasks.iter().filter_map(|task| Some((follow(task)?, task.id))).unzip();
        let found = read(self.store.shard_of_id(ids.first()?), &ids).await;
        let wait = |((followed, lease), course): (_, Option<Course>)| {
            let course = course.filter(|course| course.lease == lease)?;
            Some((followed, instant(course.ready), instant(course.begun)))
        };
        let waits = handed.into_iter().zip(found).filter_map(wait).collect();
        Some(Box::new(Waits { spans: self.spans.clone(), waits }))
    }

    /// Leases are about to end, if their tokens hold. Each in its place; empty where none is followed.
    pub(super) async fn endings<'a>(&self, leases: impl Iterator<Item = &'a Held> + Send) -> Vec<Option<Ending>> {
        if !self.spans.are_on() {
            return Vec::new();
        }
        let leases: Vec<&Held> = leases.collect();
        Box::pin(timeout(PATIENCE, self.read_endings(&leases))).await.unwrap_or_default()
    }

    async fn read_endings(&self, leases: &[&Held]) -> Vec<Option<Ending>> {
        let mut endings: Vec<Option<Ending>> = leases.iter().map(|_| None).collect();
        for shard in self.store.shards() {
            let here: Vec<(usize, &Held)> = leases
                .iter()
                .enumerate()
                .filter(|(_, held)| self.store.shard_of_id(&held.id).index == shard.index)
                .map(|(place, held)| (place, *held))
                .collect();
            if here.is_empty() {
                continue;
            }
            let ids: Vec<TaskId> = here.iter().map(|(_, held)| held.id).collect();
            let found = read(shard, &ids).await;
            let Ok(now) = horizon(shard).await.map(|seen| (instant(seen.now), Instant::now())) else { continue };
            for ((place, held), course) in here.into_iter().zip(found) {
                let ending = course.filter(|course| held.lease == Some(course.lease)).and_then(|course| {
                    let followed = self.spans.follow(held.id, &course.queue, &course.labels)?;
                    Some(Ending { followed, course, seen: now })
                });
                if let Some(slot) = endings.get_mut(place) {
                    *slot = ending;
                }
            }
        }
        endings
    }

    /// They were reported to have ended, each with its outcome.
    pub(super) fn ended<'a>(
        &self,
        endings: Vec<Option<Ending>>,
        end: End,
        outcomes: impl IntoIterator<Item = &'a Result<Ended>>,
    ) {
        for (ending, outcome) in endings.into_iter().zip(outcomes) {
            if let (Some(Ending { followed, course, seen }), Ok(Ended::Done { repeated: false, .. })) =
                (ending, outcome)
            {
                let Course { worker, attempt, begun, .. } = course;
                let to = seen.0 + seen.1.elapsed();
                self.spans.send(&followed, &Stretch::Execution { worker, attempt, end }, instant(begun), to);
            }
        }
    }
}

impl Waits {
    /// The client has the tasks.
    pub(super) fn end(&self) {
        for (followed, from, to) in &self.waits {
            self.spans.send(followed, &Stretch::Waiting, *from, *to);
        }
    }
}

/// What is known of the tasks; nothing where Redis does not say: their spans are lost, and nothing else.
async fn read(shard: &Shard, ids: &[TaskId]) -> Vec<Option<Course>> {
    courses(shard, ids).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "spans are lost");
        ids.iter().map(|_| None).collect()
    })
}
