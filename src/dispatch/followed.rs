//! Tasks that are followed on their way through this server: their spans are sent when they have been submitted, handed
//! out, and when their leases end. What a span tells of a lease, Redis is asked before the lease can end: after that
//! the task may have begun another. Which server gave it does not matter.
//!
//! Where no spans are sent, each function here returns at once, and nothing is asked or kept.

use std::time::SystemTime;

use futures_util::future::{join_all, try_join};
use tokio::time::{Instant, timeout};

use crate::domain::id::TaskId;
use crate::domain::task::{Claimed, NewTask};
use crate::spans::{End, Followed, PATIENCE, Spans, Stretch, instant};
use crate::store::ops::submit::Submitted;
use crate::store::ops::{Ended, Held};
use crate::store::views::courses::{Course, Wait, courses, waits};
use crate::store::views::horizon::horizon;
use crate::store::{Error, Result, Shard, Store};

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
                // Most of the time goes by once Redis has it, until it is as durable as is wanted; and drawn the other
                // way, it would begin before its client's request.
                let begun = instant(*at);
                self.spans.send(followed, &Stretch::Submit, begun, begun + submits.begun.elapsed());
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
        let found = waits(self.store.shard_of_id(ids.first()?), &ids).await.map_err(lost).ok()?;
        let wait = |((followed, lease), wait): (_, Option<Wait>)| {
            // One that has ended by now is remembered with its token, and the task may be ready anew.
            let wait = wait.filter(|wait| wait.lease == lease && wait.ready <= wait.begun)?;
            Some((followed, instant(wait.ready), instant(wait.begun)))
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
        let found = join_all(self.store.shards().iter().map(|shard| self.endings_in(shard, leases))).await;
        for (place, ending) in found.into_iter().flatten() {
            if let Some(slot) = endings.get_mut(place) {
                *slot = Some(ending);
            }
        }
        endings
    }

    /// Those of one shard, each with its place; none where Redis does not say: their spans are lost, and nothing else.
    async fn endings_in(&self, shard: &Shard, leases: &[&Held]) -> Vec<(usize, Ending)> {
        let is_here = |(_, held): &(usize, &&Held)| self.store.shard_of_id(&held.id).index == shard.index;
        let here: Vec<(usize, &&Held)> = leases.iter().enumerate().filter(is_here).collect();
        if here.is_empty() {
            return Vec::new();
        }
        let ids: Vec<TaskId> = here.iter().map(|(_, held)| held.id).collect();
        let now = async { horizon(shard).await.map(|seen| (instant(seen.now), Instant::now())) };
        let Ok((found, seen)) = try_join(courses(shard, &ids), now).await.map_err(lost) else { return Vec::new() };
        let ending = |((place, held), course): ((usize, &&Held), Option<Course>)| {
            let course = course.filter(|course| held.lease == Some(course.lease))?;
            let followed = self.spans.follow(held.id, &course.queue, &course.labels)?;
            Some((place, Ending { followed, course, seen }))
        };
        here.into_iter().zip(found).filter_map(ending).collect()
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

/// Says why nothing is known of tasks whose spans would have been sent.
fn lost(error: Error) {
    tracing::debug!(%error, "spans are lost");
}
