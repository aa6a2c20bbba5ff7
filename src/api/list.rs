//! `GET /tasks`: lists the tasks of a queue in one state, page by page.

use axum::extract::State as Shared;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::extract::Query;
use super::json::shapes::TaskJson;
use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use crate::domain::digest::KeyDigest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::Task;
use crate::store::views::page::{Position, is_newest_first, page_by_time};
use crate::store::views::ready::{MAX_KEYED_SEQ, MAX_SEQ, ReadyPosition, ready_tasks};
use crate::store::views::tasks::tasks;

#[derive(Serialize)]
struct Page<'a> {
    tasks: Vec<TaskJson<'a>>,
    next_cursor: Option<&'a str>,
}

pub(super) async fn list(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let queue = QueueName::parse(&query.required("queue")?).ok_or_else(|| Problem::invalid_queue("?queue"))?;
    let state = query.required("state")?;
    let state = State::parse(&state).ok_or_else(|| {
        let states = State::ALL.map(State::as_str).join(", ");
        Problem::at("?state", Code::InvalidValue, format!("state must be one of {states}"))
    })?;
    let tag = query.optional("tag");
    if tag.as_ref().is_some_and(|tag| tag.is_empty() || tag.len() > limits::MAX_TAG_BYTES) {
        return Err(Problem::at("?tag", Code::TooLong, "tag must have 1 to 128 bytes"));
    }
    let limit = query.int("limit", limits::PAGE_SIZE)?.unwrap_or(limits::PAGE_SIZE.default);
    let cursor = query.optional("cursor");
    query.deny_unknown()?;
    let limit = usize::try_from(limit).unwrap_or(1);
    let (tasks_read, next) = match state {
        State::Ready => ready_page(&api, &queue, cursor.as_deref(), limit).await?,
        _ => timed_page(&api, &queue, state, cursor.as_deref(), limit).await?,
    };
    let tasks = tasks_read.iter().filter(|task| task.state == state);
    let tasks = tasks.filter(|task| tag.as_ref().is_none_or(|tag| task.attributes.tags.contains(tag)));
    let mut response = response::ok(&Page { tasks: tasks.map(TaskJson::from).collect(), next_cursor: next.as_deref() });
    if let Some(next) = next {
        let tag = tag.map(|tag| format!("&tag={}", percent_encode(&tag))).unwrap_or_default();
        let link = format!("</tasks?queue={queue}&state={state}&limit={limit}{tag}&cursor={next}>; rel=\"next\"");
        set_next_link(&mut response, &link);
    }
    Ok(response)
}

/// Encodes a text for a query string.
pub(super) fn percent_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Sets the `Link` header to the next page.
pub(super) fn set_next_link(response: &mut Response, link: &str) {
    if let Ok(link) = HeaderValue::from_str(link) {
        response.headers_mut().insert(header::LINK, link);
    }
}

pub(super) fn invalid_cursor() -> Problem {
    Problem::at("?cursor", Code::InvalidCursor, "cursor must be the next_cursor of an earlier page of the same list")
}

type TaskPage = (Vec<Task>, Option<String>);

/// Reads a page of ready tasks, ordered by priority and slot.
async fn ready_page(api: &Api, queue: &QueueName, cursor: Option<&str>, limit: usize) -> Result<TaskPage, Problem> {
    let after = cursor.map(|cursor| decode_ready_cursor(cursor).ok_or_else(invalid_cursor)).transpose()?;
    let (mut ids, mut next) = ready_tasks(api.store(), queue, after, limit).await?;
    let (mut found, mut covered) = tasks(api.store(), &ids).await?;
    while covered < ids.len() {
        // The size limit was reached before `limit` tasks: the page is cut, and read again for the position of its end.
        (ids, next) = ready_tasks(api.store(), queue, after, covered).await?;
        (found, covered) = tasks(api.store(), &ids).await?;
    }
    let next = next.map(encode_ready_cursor);
    Ok((found, next))
}

pub(super) fn encode_ready_cursor(ReadyPosition { priority, slot, key_digest, seq }: ReadyPosition) -> String {
    let key_digest = key_digest.map(|digest| format!("-{digest}")).unwrap_or_default();
    format!("{priority}-{}-{seq}{key_digest}", slot.number())
}

pub(super) fn decode_ready_cursor(cursor: &str) -> Option<ReadyPosition> {
    let mut parts = cursor.splitn(4, '-');
    let priority = parts.next()?.parse().ok().filter(|priority| *priority <= 9)?;
    let slot = Slot::new(parts.next()?.parse().ok()?)?;
    let seq: i64 = parts.next()?.parse().ok()?;
    let key_digest = parts.next().map(|digest| KeyDigest::parse(digest).ok_or(())).transpose().ok()?;
    let max_seq = if key_digest.is_some() { MAX_KEYED_SEQ } else { MAX_SEQ };
    let seq = (0..=max_seq).contains(&seq).then_some(seq)?;
    let position = ReadyPosition { priority, slot, key_digest, seq };
    (encode_ready_cursor(position) == cursor).then_some(position)
}

/// Reads a page of tasks in another state, ordered by a time.
async fn timed_page(
    api: &Api,
    queue: &QueueName,
    state: State,
    cursor: Option<&str>,
    limit: usize,
) -> Result<TaskPage, Problem> {
    let after = cursor.map(|cursor| decode_cursor(cursor).ok_or_else(invalid_cursor)).transpose()?;
    let shards = api.store().shards().iter();
    // One task more than the page holds shows whether there is a next page.
    let pages = try_join_all(shards.map(|shard| page_by_time(shard, queue, state, after, limit + 1))).await?;
    let mut positions: Vec<Position> = pages.into_iter().flatten().collect();
    positions.sort_unstable_by_key(|position| (position.score, position.id));
    if is_newest_first(state) {
        positions.reverse();
    }
    let has_more = positions.len() > limit;
    positions.truncate(limit);
    let ids: Vec<TaskId> = positions.iter().map(|position| position.id).collect();
    let (found, covered) = tasks(api.store(), &ids).await?;
    let last = match covered < positions.len() {
        true => covered.checked_sub(1).and_then(|last| positions.get(last)),
        false if has_more => positions.last(),
        false => None,
    };
    Ok((found, last.copied().map(encode_cursor)))
}

pub(super) fn encode_cursor(Position { score, id }: Position) -> String {
    format!("{score}_{id}")
}

pub(super) fn decode_cursor(cursor: &str) -> Option<Position> {
    let (score, id) = cursor.split_once('_')?;
    let score: i64 = score.parse().ok()?;
    let position = Position { score: (0..1 << 53).contains(&score).then_some(score)?, id: TaskId::parse(id)? };
    (encode_cursor(position) == cursor).then_some(position)
}

#[cfg(test)]
mod tests {
    use crate::api::list::*;

    #[test]
    fn position_has_exactly_one_cursor() {
        for cursor in ["9-16383-7", "9-16383-7-00000000000000ff"] {
            assert!(decode_ready_cursor(cursor).is_some(), "{cursor}");
        }
        let keyed = ["9-1-7-", "9-1-7-ff", "9-1-7-00000000000000FF", "9-1-281474976710656-00000000000000ff"];
        for other in ["+9-16383-7", "9-016383-7", "9-16383-07", "9-16383--7", "10-0-0"].into_iter().chain(keyed) {
            assert!(decode_ready_cursor(other).is_none(), "{other}");
        }
        assert!(decode_cursor("7_019cadd4-669a-7438-89af-2a74de452329").is_some());
        for other in ["+7_019cadd4-669a-7438-89af-2a74de452329", "7_019CADD4-669a-7438-89af-2a74de452329"] {
            assert!(decode_cursor(other).is_none(), "{other}");
        }
    }
}
