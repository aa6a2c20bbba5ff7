//! Tasks that cannot be handed out, and damaged slot queues.

use deadpool_redis::redis::cmd;
use slotwheel::domain::digest::{Digest, KeyDigest};
use slotwheel::domain::task::{Dedupe, DedupeMode, NewTask};
use slotwheel::store::audit::{audit, repair};
use slotwheel::store::ops::expire_tasks::expire_tasks;
use slotwheel::store::record::fields;
use slotwheel::store::views::queue_records::KeyedMember;
use slotwheel::store::{Caller, Store};

use super::{claim, ids, keys, submit};
use crate::support::script_lab::{Lab, id, of_key, want};

/// The field of a task without which it cannot be handed out.
async fn drop_document(lab: &Lab, n: u16) {
    let key = lab.shard().keys.task(&id(n));
    lab.ask::<()>(cmd("HDEL").arg(key).arg(fields::DOCUMENT)).await;
}

#[tokio::test]
async fn unreadable_tasks_of_a_key_block_no_other_of_it() {
    let lab = Lab::start().await;
    submit(&lab, &of_key("a", 1000..1031)).await;
    for n in 1000..1030 {
        drop_document(&lab, n).await;
    }
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1030]));
    let empty = lab.claim(&["q"], &[want(1, None, 1)]).await.expect("no task");
    assert!(empty.is_empty());
    // The next task of the key comes before those that were set back.
    submit(&lab, &of_key("a", 1100..1101)).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1100]));
    repair_all(&lab.store).await;
    lab.end().await;
}

#[tokio::test]
async fn many_keys_with_unreadable_tasks_keep_no_task_of_a_lower_priority() {
    let lab = Lab::start().await;
    for n in 0..600 {
        let task = of_key(&n.to_string(), 2000 + n..2001 + n).remove(0);
        submit(&lab, &[NewTask { priority: 9, ..task }]).await;
        drop_document(&lab, 2000 + n).await;
    }
    submit(&lab, &of_key("a", 1000..1001)).await;
    let mut claimed = Vec::new();
    for _ in 0..3 {
        claimed.extend(lab.claim(&["q"], &[want(1, None, 1)]).await.expect("a reply").iter().map(|task| task.id));
    }
    assert_eq!(claimed, ids(&[1000]));
    repair_all(&lab.store).await;
    lab.end().await;
}

#[tokio::test]
async fn task_that_was_set_back_is_claimed_once_it_is_readable() {
    let lab = Lab::start().await;
    submit(&lab, &of_key("a", 1000..1002)).await;
    let key = lab.shard().keys.task(&id(1000));
    let document: Vec<u8> = lab.ask(cmd("HGET").arg(&key).arg(fields::DOCUMENT)).await;
    drop_document(&lab, 1000).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1001]));
    lab.ask::<()>(cmd("HSET").arg(&key).arg(fields::DOCUMENT).arg(document)).await;
    assert_eq!(claim(&lab, 1, 1).await, ids(&[1000]));
    lab.end().await;
}

/// Submits a task with a dedupe key again with another priority, and stops that call at each of its commands. The task may then
/// be in two slot queues: claims give it once.
async fn check_stopped_replace(key: Option<&str>) {
    let lab = Lab::start().await;
    let dedupe = |mode| Some(Dedupe { digest: Digest::of(&[b"d"]), mode, window_ms: None });
    let key_digest = key.map(|key| KeyDigest::of_key(key.as_bytes()));
    let first = NewTask { key_digest, dedupe: dedupe(DedupeMode::Keep), ..of_key("a", 1000..1001).remove(0) };
    submit(&lab, &[first]).await;
    let start = lab.save().await;
    let second = of_key("a", 1001..1002).remove(0);
    let second = NewTask { key_digest, dedupe: dedupe(DedupeMode::Replace), priority: 9, ..second };
    for at in 1.. {
        lab.restore(&start).await;
        lab.stop_at(at).await;
        let is_whole = lab.submit(std::slice::from_ref(&second)).await.is_ok();
        lab.stop_at(0).await;
        let mut claimed = Vec::new();
        for _ in 0..3 {
            claimed.extend(lab.claim(&["q"], &[want(5, None, 1)]).await.expect("a reply").iter().map(|task| task.id));
        }
        assert_eq!(claimed, ids(&[1000]), "stopped at {at}");
        if is_whole {
            break;
        }
    }
    lab.end().await;
}

#[tokio::test]
async fn task_in_two_slot_queues_is_claimed_once() {
    check_stopped_replace(Some("a")).await;
    check_stopped_replace(None).await;
}

async fn repair_all(store: &Store) {
    let rest = repair(store, |_| {}).await.expect("a repair").findings;
    assert!(rest.is_empty(), "{rest:#?}");
}

#[tokio::test]
async fn expired_tasks_of_a_key_are_passed_over() {
    let lab = Lab::start().await;
    let keys = keys(2);
    let expiring = of_key(&keys[0], 1000..1020);
    let expiring: Vec<NewTask> =
        expiring.into_iter().map(|task| NewTask { expires_in_ms: Some(1000), ..task }).collect();
    submit(&lab, &expiring).await;
    submit(&lab, &of_key(&keys[0], 1100..1101)).await;
    submit(&lab, &of_key(&keys[1], 1200..1201)).await;
    lab.at(2000);
    let mut claimed = claim(&lab, 2, 1).await;
    claimed.sort_unstable();
    assert_eq!(claimed, ids(&[1100, 1200]));
    expire_tasks(lab.shard(), &mut Caller::new(), 500).await.expect("expired");
    lab.end().await;
}

#[tokio::test]
async fn malformed_member_keeps_no_task_of_its_slot() {
    let lab = Lab::start().await;
    let keys = keys(2);
    submit(&lab, &of_key(&keys[0], 1000..1002)).await;
    submit(&lab, &of_key(&keys[1], 1100..1102)).await;
    for member in ["", "x", "ten bytes.", "as long as the start of one"] {
        lab.ask::<()>(cmd("ZADD").arg(lab.key("slot:q:4:1:k")).arg(0).arg(member)).await;
    }
    assert_eq!(claim(&lab, 4, 1).await, ids(&[1000, 1100, 1001, 1101]));
    assert!(lab.claim(&["q"], &[want(1, None, 1)]).await.expect("no task").is_empty());
    repair_all(&lab.store).await;
    lab.end().await;
}

/// Damages the keyed slot queue of two keys, which the audit must find, and the repair must correct.
async fn check_damage(damage: impl AsyncFn(&Lab, &[u8], KeyedMember)) {
    let lab = Lab::start().await;
    let keys = keys(2);
    submit(&lab, &of_key(&keys[0], 1000..1003)).await;
    submit(&lab, &of_key(&keys[1], 1100..1103)).await;
    claim(&lab, 1, 1).await;
    let key = lab.key("slot:q:4:1:k");
    let members = lab.ask::<Vec<Vec<u8>>>(cmd("ZRANGE").arg(&key).arg(0).arg(-1)).await;
    let member = members.iter().map(|member| KeyedMember::parse(member).expect("a member"));
    let member = member.into_iter().find(|member| member.id == id(1101)).expect("its member");
    damage(&lab, &key, member).await;
    assert!(!audit(&lab.store).await.expect("an audit").findings.is_empty());
    repair_all(&lab.store).await;
    assert_eq!(claim(&lab, 5, 1).await, ids(&[1100, 1001, 1101, 1002, 1102]));
    lab.end().await;
}

#[tokio::test]
async fn damaged_member_is_found_and_repaired() {
    check_damage(async |lab, key, member| {
        lab.ask::<()>(cmd("ZADD").arg(key).arg(1).arg(member.to_bytes())).await;
    })
    .await;
    check_damage(async |lab, key, member| {
        lab.ask::<()>(cmd("ZREM").arg(key).arg(member.to_bytes())).await;
    })
    .await;
    check_damage(async |lab, key, member| {
        let second = KeyedMember { seq: member.seq + 100, ..member };
        lab.ask::<()>(cmd("ZADD").arg(key).arg(0).arg(second.to_bytes())).await;
    })
    .await;
    check_damage(async |lab, key, member| {
        let other = KeyedMember { key_digest: KeyDigest::of_key(b"other"), ..member };
        lab.ask::<()>(cmd("ZREM").arg(key).arg(member.to_bytes())).await;
        lab.ask::<()>(cmd("ZADD").arg(key).arg(0).arg(other.to_bytes())).await;
    })
    .await;
    check_damage(async |lab, key, member| {
        lab.ask::<()>(cmd("ZADD").arg(key).arg(0).arg("no member")).await;
        let gone = KeyedMember { id: id(3000), ..member };
        lab.ask::<()>(cmd("ZADD").arg(key).arg(0).arg(gone.to_bytes())).await;
    })
    .await;
    check_damage(async |lab, _, _| {
        lab.ask::<()>(cmd("ZREM").arg(lab.key("wheel:q")).arg("4:1:k")).await;
    })
    .await;
}
