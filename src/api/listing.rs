//! `GET /tasks`: the tasks of a queue in one state, page by page.

use axum::extract::State as Shared;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::extract::Query;
use super::problem::{Code, Problem};
use super::shapes::TaskShape;
use super::{Api, reply};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::Task;
use crate::store::views::page::{Place, by_time, newest_first};
use crate::store::views::tasks::{ReadyPlace, ready, tasks};

#[derive(Serialize)]
struct Page<'a> {
    tasks: Vec<TaskShape<'a>>,
    next_cursor: Option<&'a str>,
}

pub(super) async fn list(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let queue = QueueName::parse(&query.need("queue")?).ok_or_else(|| Problem::invalid_queue("?queue"))?;
    let state = query.need("state")?;
    let state = State::parse(&state).ok_or_else(|| {
        let all = State::ALL.map(State::as_str).join(", ");
        Problem::at("?state", Code::InvalidValue, format!("state must be one of {all}"))
    })?;
    let tag = query.take("tag");
    if tag.as_ref().is_some_and(|tag| tag.is_empty() || tag.len() > limits::TAG_BYTES) {
        return Err(Problem::at("?tag", Code::TooLong, "a tag has 1 to 128 bytes"));
    }
    let limit = query.int("limit", limits::PAGE)?.unwrap_or(limits::PAGE.default);
    let cursor = query.take("cursor");
    query.finish()?;
    let limit = usize::try_from(limit).unwrap_or(1);
    let (found, next) = match state {
        State::Ready => in_order(&api, &queue, cursor.as_deref(), limit).await?,
        _ => timed(&api, &queue, state, cursor.as_deref(), limit).await?,
    };
    let tasks = found.iter().filter(|task| task.state == state);
    let tasks = tasks.filter(|task| tag.as_ref().is_none_or(|tag| task.labels.tags.contains(tag)));
    let mut response = reply::ok(&Page { tasks: tasks.map(TaskShape::from).collect(), next_cursor: next.as_deref() });
    if let Some(next) = next {
        let tag = tag.map(|tag| format!("&tag={}", encoded(&tag))).unwrap_or_default();
        let link = format!("</tasks?queue={queue}&state={state}&limit={limit}{tag}&cursor={next}>; rel=\"next\"");
        mark_next(&mut response, &link);
    }
    Ok(response)
}

/// The text as it may stand in a query.
pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Says where the next page is.
pub(super) fn mark_next(response: &mut Response, link: &str) {
    if let Ok(link) = HeaderValue::from_str(link) {
        response.headers_mut().insert(header::LINK, link);
    }
}

pub(super) fn bad_cursor() -> Problem {
    Problem::at("?cursor", Code::InvalidCursor, "a cursor is the next_cursor of an earlier page of the same list")
}

type Found = (Vec<Task>, Option<String>);

/// Ready tasks, by priority, slot and seq.
async fn in_order(api: &Api, queue: &QueueName, cursor: Option<&str>, limit: usize) -> Result<Found, Problem> {
    let after = cursor.map(|cursor| read_ready(cursor).ok_or_else(bad_cursor)).transpose()?;
    let (mut ids, mut next) = ready(api.store(), queue, after, limit).await?;
    let (mut found, mut covered) = tasks(api.store(), &ids).await?;
    while covered < ids.len() {
        // The documents filled the page before its limit did: it is made shorter, and read anew for its end's place.
        (ids, next) = ready(api.store(), queue, after, covered).await?;
        (found, covered) = tasks(api.store(), &ids).await?;
    }
    let next = next.map(write_ready);
    Ok((found, next))
}

pub(super) fn write_ready(ReadyPlace { priority, slot, seq }: ReadyPlace) -> String {
    format!("{priority}-{}-{seq}", slot.number())
}

pub(super) fn read_ready(cursor: &str) -> Option<ReadyPlace> {
    let mut parts = cursor.splitn(3, '-');
    let priority = parts.next()?.parse().ok().filter(|priority| *priority <= 9)?;
    let slot = Slot::new(parts.next()?.parse().ok()?)?;
    let seq: i64 = parts.next()?.parse().ok()?;
    let place = ReadyPlace { priority, slot, seq: (0..1 << 53).contains(&seq).then_some(seq)? };
    (write_ready(place) == cursor).then_some(place)
}

/// Other tasks, by a time.
async fn timed(
    api: &Api,
    queue: &QueueName,
    state: State,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Found, Problem> {
    let after = cursor.map(|cursor| read_place(cursor).ok_or_else(bad_cursor)).transpose()?;
    let shards = api.store().shards().iter();
    // One more than the page holds tells whether there is another.
    let pages = try_join_all(shards.map(|shard| by_time(shard, queue, state, after, limit + 1))).await?;
    let mut places: Vec<Place> = pages.into_iter().flatten().collect();
    places.sort_unstable_by_key(|place| (place.score, place.id));
    if newest_first(state) {
        places.reverse();
    }
    let more = places.len() > limit;
    places.truncate(limit);
    let ids: Vec<TaskId> = places.iter().map(|place| place.id).collect();
    let (found, covered) = tasks(api.store(), &ids).await?;
    let last = match covered < places.len() {
        true => covered.checked_sub(1).and_then(|last| places.get(last)),
        false if more => places.last(),
        false => None,
    };
    Ok((found, last.copied().map(write_place)))
}

pub(super) fn write_place(Place { score, id }: Place) -> String {
    format!("{score}_{id}")
}

pub(super) fn read_place(cursor: &str) -> Option<Place> {
    let (score, id) = cursor.split_once('_')?;
    let score: i64 = score.parse().ok()?;
    let place = Place { score: (0..1 << 53).contains(&score).then_some(score)?, id: TaskId::parse(id)? };
    (write_place(place) == cursor).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_cursor() {
        assert!(read_ready("9-16383-7").is_some());
        for other in ["+9-16383-7", "9-016383-7", "9-16383-07", "9-16383--7", "10-0-0"] {
            assert!(read_ready(other).is_none(), "{other}");
        }
        assert!(read_place("7_019cadd4-669a-7438-89af-2a74de452329").is_some());
        for other in ["+7_019cadd4-669a-7438-89af-2a74de452329", "7_019CADD4-669a-7438-89af-2a74de452329"] {
            assert!(read_place(other).is_none(), "{other}");
        }
    }
}
