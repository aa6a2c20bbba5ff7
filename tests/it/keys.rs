//! Turns by key: the keys of a slot are served in turn, one task each, and the tasks of a key in their order.

mod damage;
mod reference;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};
use slotwheel::domain::digest::KeyDigest;
use slotwheel::domain::id::TaskId;
use slotwheel::domain::task::NewTask;
use slotwheel::store::Caller;
use slotwheel::store::ops::cancel::cancel;
use slotwheel::store::ops::release::{Release, Releaser, release};
use slotwheel::store::ops::retry::retry;

use crate::support::script_lab::{Lab, id, in_one_slot, of_key, want};
use crate::support::{Fixture, text};

/// Keys of one slot, in the order in which a pass serves them.
fn keys(count: usize) -> Vec<String> {
    let mut keys: Vec<String> = (0..count).map(|n| format!("{{s}}{n}")).collect();
    keys.sort_by_key(|key| KeyDigest::of_key(key.as_bytes()));
    keys
}

/// Claims `count` tasks of queue `q`, `max` in a call.
async fn claim(lab: &Lab, count: usize, max: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let claimed = lab.claim(&["q"], &[want(max.min(count - ids.len()), None, 1)]).await.expect("tasks");
        assert!(!claimed.is_empty(), "{} of {count}", ids.len());
        ids.extend(claimed.iter().map(|task| task.id));
    }
    ids
}

async fn submit(lab: &Lab, tasks: &[NewTask]) {
    lab.submit(tasks).await.expect("stored");
}

fn ids(numbers: &[u16]) -> Vec<TaskId> {
    numbers.iter().map(|n| id(*n)).collect()
}

/// 500 keys of one slot: one has 20,000 tasks, and then the others have two each.
async fn noisy_key() -> Fixture {
    let fixture = Fixture::with_shards(1).await;
    let noisy = json!({"tasks": vec![json!({"queue": "q", "key": "{s}noisy"}); 1000]});
    for _ in 0..20 {
        fixture.http.post("/tasks/batch", &noisy).await.expect(200);
    }
    let quiet: Vec<Value> =
        (0..998).map(|n| json!({"queue": "q", "key": format!("{{s}}{}", n % 499), "payload": n / 499})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": quiet})).await.expect(200);
    fixture
}

/// The first 1,000 tasks have two of each key, and the first 500 one.
fn check_turns(claimed: &[Value]) {
    for (first, last) in [(0, 500), (500, 1000)] {
        let turn: BTreeSet<&str> = claimed[first..last].iter().map(|task| text(&task["key"])).collect();
        assert_eq!(turn.len(), 500, "{first}..{last}");
    }
    let mut last_payload = BTreeMap::new();
    for task in claimed.iter().filter(|task| task["key"] != "{s}noisy") {
        let (key, payload) = (text(&task["key"]), task["payload"].as_i64().expect("a number"));
        assert!(last_payload.insert(key, payload).is_none_or(|last| last < payload), "{key} in order");
    }
}

async fn check_claims_of(max: u32) {
    let fixture = noisy_key().await;
    let mut claimed = Vec::new();
    while claimed.len() < 1000 {
        claimed.extend(fixture.claim_now("q", max).await);
    }
    check_turns(&claimed);
    fixture.end().await;
}

#[tokio::test]
async fn keys_of_a_slot_are_served_in_turn_one_task_at_a_time() {
    check_claims_of(1).await;
}

#[tokio::test]
async fn keys_of_a_slot_are_served_in_turn_a_hundred_at_a_time() {
    check_claims_of(100).await;
}

#[tokio::test]
async fn keys_of_a_slot_are_served_in_turn_for_64_waiters() {
    let fixture = noisy_key().await;
    let mut claimed = Vec::new();
    while claimed.len() < 1000 {
        claimed.extend(join_all((0..64).map(|_| fixture.claim_now("q", 1))).await.into_iter().flatten());
    }
    // Of a round of 64 requests, the order of the replies is not that of the claims.
    let keys: BTreeSet<&str> = claimed[..576].iter().map(|task| text(&task["key"])).collect();
    assert_eq!(keys.len(), 500);
    fixture.end().await;
}

#[tokio::test]
async fn pass_goes_on_where_a_call_has_stopped() {
    let lab = Lab::start().await;
    let keys = keys(4);
    for (place, key) in keys.iter().enumerate() {
        let first = 1000 + 100 * place as u16;
        submit(&lab, &of_key(key, first..first + 5 - place as u16)).await;
    }
    let expected = ids(&[1000, 1100, 1200, 1300, 1001, 1101, 1201, 1301, 1002, 1102, 1202, 1003, 1103, 1004]);
    let start = lab.save().await;
    for max in 1..=14 {
        lab.restore(&start).await;
        assert_eq!(claim(&lab, 14, max).await, expected, "{max} in a call");
        let empty = lab.claim(&["q"], &[want(1, None, 1)]).await.expect("no task");
        assert!(empty.is_empty());
    }
    lab.end().await;
}

#[tokio::test]
async fn second_turn_of_a_call_takes_the_second_task_of_each_key() {
    let lab = Lab::start().await;
    let keys = keys(3);
    for (place, key) in keys.iter().enumerate() {
        let first = 1000 + 100 * place as u16;
        submit(&lab, &of_key(key, first..first + 40)).await;
    }
    let expected: Vec<u16> = (0..40).flat_map(|n| [1000 + n, 1100 + n, 1200 + n]).collect();
    assert_eq!(claim(&lab, 120, 100).await, ids(&expected));
    lab.end().await;
}

#[tokio::test]
async fn new_keys_do_not_prolong_a_pass() {
    let lab = Lab::start().await;
    let keys = keys(200);
    // The first and the last key wait, in the middle of a pass.
    submit(&lab, &of_key(&keys[0], 1000..1010)).await;
    submit(&lab, &of_key(&keys[199], 1100..1110)).await;
    let other = NewTask { key_digest: None, ..of_key("other", 2000..2001).remove(0) };
    submit(&lab, &[other]).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1000]));
    for (n, key) in keys[1..199].iter().enumerate() {
        let first = 3000 + 10 * n as u16;
        submit(&lab, &of_key(key, first..first + 1)).await;
    }
    // The rest of the pass, the slot that waits behind it, and then the new keys.
    assert_eq!(claim(&lab, 3, 1).await, ids(&[1100, 2000, 1001]));
    let next = claim(&lab, 199, 50).await;
    assert_eq!(next[..198], ids(&(0..198).map(|n| 3000 + 10 * n).collect::<Vec<u16>>()));
    assert_eq!(next[198], id(1101));
    lab.end().await;
}

#[tokio::test]
async fn released_task_is_the_next_of_its_key() {
    for by in [Releaser::Worker, Releaser::Undelivered] {
        let lab = Lab::start().await;
        let keys = keys(2);
        submit(&lab, &of_key(&keys[0], 1000..1003)).await;
        submit(&lab, &of_key(&keys[1], 1100..1103)).await;
        assert_eq!(claim(&lab, 1, 1).await, ids(&[1000]));
        let releases = [Release { lease_ref: lab.held(1000), by, delay_ms: 0 }];
        release(lab.shard(), &mut Caller::new(), &releases).await.expect("released");
        // The pass is in the middle: the key that was served waits for the next one.
        assert_eq!(claim(&lab, 6, 1).await, ids(&[1100, 1000, 1101, 1001, 1102, 1002]), "{by:?}");
        lab.end().await;
    }
}

#[tokio::test]
async fn undelivered_task_comes_first_if_its_slot_has_no_other_keyed_task() {
    let lab = Lab::start().await;
    let give_back = async || {
        let releases = [Release { lease_ref: lab.held(1000), by: Releaser::Undelivered, delay_ms: 0 }];
        release(lab.shard(), &mut Caller::new(), &releases).await.expect("released");
    };
    submit(&lab, &of_key("a", 1000..1001)).await;
    submit(&lab, &in_one_slot(1100..1102)).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1000]));
    give_back().await;
    assert_eq!(claim(&lab, 2, 1).await, ids(&[1000, 1100]));
    // With another task, a turn in front would be one of all keys of the slot.
    submit(&lab, &of_key("b", 1200..1201)).await;
    give_back().await;
    submit(&lab, &in_one_slot(1300..1301)).await;
    let mut keyed = claim(&lab, 4, 1).await;
    assert_eq!((keyed.remove(0), keyed.pop()), (id(1101), Some(id(1300))));
    keyed.sort_unstable();
    assert_eq!(keyed, ids(&[1000, 1200]));
    lab.end().await;
}

#[tokio::test]
async fn cancelled_tasks_of_a_key_leave_no_debt() {
    let lab = Lab::start().await;
    let keys = keys(3);
    submit(&lab, &of_key(&keys[0], 1000..1003)).await;
    submit(&lab, &of_key(&keys[1], 2000..2500)).await;
    submit(&lab, &of_key(&keys[2], 1100..1103)).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1000]));
    let cancelled: Vec<TaskId> = (2000..2499).map(id).collect();
    for ids in cancelled.chunks(100) {
        cancel(lab.shard(), &mut Caller::new(), ids).await.expect("cancelled");
    }
    assert_eq!(claim(&lab, 6, 1).await, ids(&[2499, 1100, 1001, 1101, 1002, 1102]));
    lab.end().await;
}

#[tokio::test]
async fn expired_task_that_is_retried_comes_behind_the_others_of_its_key() {
    let lab = Lab::start().await;
    let expiring = of_key("a", 1000..1001).remove(0);
    submit(&lab, &[NewTask { expires_in_ms: Some(1000), ..expiring }]).await;
    submit(&lab, &of_key("a", 1100..1101)).await;
    lab.at(2000);
    retry(lab.shard(), &mut Caller::new(), &[id(1000)]).await.expect("retried");
    assert_eq!(claim(&lab, 2, 1).await, ids(&[1100, 1000]));
    lab.end().await;
}

#[tokio::test]
async fn pass_ends_with_the_tasks_of_its_slot() {
    let lab = Lab::start().await;
    let keys = keys(2);
    submit(&lab, &of_key(&keys[0], 1000..1001)).await;
    submit(&lab, &of_key(&keys[1], 1100..1101)).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1000]));
    cancel(lab.shard(), &mut Caller::new(), &[id(1100)]).await.expect("cancelled");
    // A new pass begins with the first key, and comes before what was submitted later.
    submit(&lab, &of_key(&keys[0], 1200..1201)).await;
    submit(&lab, &of_key(&keys[1], 1300..1301)).await;
    submit(&lab, &in_one_slot(1400..1401)).await;
    assert_eq!(claim(&lab, 3, 1).await, ids(&[1200, 1300, 1400]));
    lab.end().await;
}

#[tokio::test]
async fn tasks_without_a_key_are_one_key_beside_those_of_their_slot() {
    let lab = Lab::start().await;
    submit(&lab, &in_one_slot(1000..1003)).await;
    let keys = keys(2);
    submit(&lab, &of_key(&keys[0], 1100..1103)).await;
    submit(&lab, &of_key(&keys[1], 1200..1203)).await;
    let expected = ids(&[1000, 1100, 1200, 1001, 1101, 1201, 1002, 1102, 1202]);
    assert_eq!(claim(&lab, 9, 2).await, expected);
    lab.end().await;
}

#[tokio::test]
async fn higher_priority_in_a_pass_comes_first_and_the_pass_goes_on() {
    let lab = Lab::start().await;
    let keys = keys(2);
    submit(&lab, &of_key(&keys[0], 1000..1002)).await;
    submit(&lab, &of_key(&keys[1], 1100..1102)).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1000]));
    let urgent = |key: &str, n| NewTask { priority: 9, ..of_key(key, n..n + 1).remove(0) };
    submit(&lab, &[urgent(&keys[0], 1200), urgent(&keys[1], 1300)]).await;
    assert_eq!(claim(&lab, 5, 1).await, ids(&[1200, 1300, 1100, 1001, 1101]));
    lab.end().await;
}

#[tokio::test]
async fn list_of_a_slot_with_many_keys_is_whole_and_in_order() {
    let fixture = Fixture::with_shards(1).await;
    let tasks: Vec<Value> = (0..300).map(|n| json!({"queue": "q", "key": format!("{{s}}{}", n % 150)})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    fixture.submit_with(json!({"queue": "q", "key": "alone"})).await;
    fixture.submit("q", json!("without a key")).await;
    let mut orders = Vec::new();
    for limit in [1, 7, 1000] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/tasks?queue=q&state=ready&limit={limit}{cursor}");
            let page = fixture.http.get(&path).await.expect(200);
            found.extend(page["tasks"].as_array().expect("a list").iter().map(|task| text(&task["id"]).to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 302, "pages of {limit}");
        orders.push(found);
    }
    assert!(orders.iter().all(|order| *order == orders[0] && order.len() == 302));
    fixture.end().await;
}
