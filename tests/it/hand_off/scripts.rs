//! The submit script with offers: which tasks it hands over, to which request, and what it leaves.

use slotwheel::domain::claim_id::ClaimId;
use slotwheel::domain::queue::QueueSettings;
use slotwheel::domain::task::{Dedupe, DedupeMode, NewTask, StartTime};
use slotwheel::store::ops::apply_settings::apply_settings;
use slotwheel::store::ops::claim::WaiterRequest;
use slotwheel::store::ops::release::{Release, Releaser, release};
use slotwheel::store::ops::resolve_hand_offs::resolve_hand_offs;
use slotwheel::store::ops::submit::{Offers, submit};
use slotwheel::store::ops::{WhenFull, complete};
use slotwheel::store::{Caller, views};

use crate::support::script_lab::{Lab, document, id, queue, task, want};

async fn complete(lab: &Lab, n: u16) {
    let done = complete::Completion { lease_ref: lab.held(n), result: document("1") };
    Box::pin(complete::complete(lab.shard(), &mut Caller::new(), &[done], WhenFull::Store)).await.unwrap();
}

/// Submits with offers for queue `q`. Returns the request and the number of each task handed over, and the tasks that a
/// claim then finds ready, in order.
async fn submit_to(lab: &Lab, requests: &[WaiterRequest], tasks: &[NewTask]) -> (Vec<(usize, u16)>, Vec<u16>) {
    // Boxed: a test that calls this many times has one stack.
    let hand_offs = Box::pin(lab.submit_to(&["q", "r"], requests, tasks)).await.expect("a reply");
    let number = |id_of| (10..60).find(|n| id(*n) == id_of).expect("a number");
    for one in &hand_offs {
        assert_eq!(tasks[one.task].id, one.id);
    }
    let handed = hand_offs.iter().map(|one| (one.request, number(one.id))).collect();
    let ready = Box::pin(lab.claim(&["q", "r"], &[want(100, None, 2)])).await.expect("tasks");
    (handed, ready.into_iter().map(|task| number(task.id)).collect())
}

#[tokio::test]
async fn tasks_go_to_the_first_offers_with_room_in_their_order() {
    let lab = Lab::start().await;
    let offers = [want(2, None, 1), want(1, None, 1), want(5, None, 1)];
    let tasks = [task(11), task(21), task(12), task(22)];
    assert_eq!(submit_to(&lab, &offers, &tasks).await, (vec![(0, 11), (0, 21), (1, 12), (2, 22)], vec![]));
    let tasks = [task(13), task(23), task(14)];
    assert_eq!(submit_to(&lab, &offers[..1], &tasks).await, (vec![(0, 13), (0, 23)], vec![14]));
    lab.end().await;
}

#[tokio::test]
async fn task_is_not_handed_over_while_another_of_its_queue_is_ready() {
    let lab = Lab::start().await;
    lab.submit(&[task(11)]).await.unwrap();
    let urgent = NewTask { priority: 9, ..task(21) };
    let other = NewTask { queue: queue("r"), ..task(31) };
    assert_eq!(submit_to(&lab, &[want(3, None, 2)], &[urgent, other]).await, (vec![(0, 31)], vec![21, 11]));
    lab.end().await;
}

#[tokio::test]
async fn tasks_of_the_highest_priority_of_a_call_go_first() {
    let lab = Lab::start().await;
    let urgent = |n| NewTask { priority: 7, ..task(n) };
    let tasks = [task(11), urgent(21), task(12), urgent(22)];
    assert_eq!(submit_to(&lab, &[want(3, None, 1)], &tasks).await, (vec![(0, 21), (0, 22), (0, 11)], vec![12]));
    lab.end().await;
}

#[tokio::test]
async fn offer_takes_from_the_first_of_its_queues() {
    let lab = Lab::start().await;
    let other = NewTask { queue: queue("r"), ..task(31) };
    let tasks = [other.clone(), task(11)];
    assert_eq!(submit_to(&lab, &[want(1, None, 2)], &tasks).await, (vec![(0, 11)], vec![31]));
    let reversed = WaiterRequest { queues: vec![1, 0], ..want(1, None, 2) };
    let tasks = [task(12), NewTask { id: id(32), ..other }];
    assert_eq!(submit_to(&lab, &[reversed], &tasks).await, (vec![(0, 32)], vec![12]));
    lab.end().await;
}

#[tokio::test]
async fn paused_queue_hands_nothing_over() {
    let lab = Lab::start().await;
    let pause = QueueSettings { paused: true };
    apply_settings(lab.shard(), &mut Caller::new(), &queue("q"), 1, &pause).await.unwrap();
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &[task(11)]).await, (vec![], vec![]));
    apply_settings(lab.shard(), &mut Caller::new(), &queue("q"), 2, &QueueSettings::default()).await.unwrap();
    assert_eq!(lab.claim(&["q"], &[want(1, None, 1)]).await.unwrap()[0].id, id(11));
    lab.end().await;
}

#[tokio::test]
async fn new_ready_tasks_are_handed_over_and_no_others() {
    let lab = Lab::start().await;
    let keyed = |n, mode| {
        let dedupe = Some(Dedupe { digest: slotwheel::domain::digest::Digest::of(&[b"d"]), mode, window_ms: None });
        NewTask { dedupe, ..task(n) }
    };
    let later = NewTask { start: StartTime::After(60_000), ..task(11) };
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &[later]).await, (vec![], vec![]));
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &[keyed(12, DedupeMode::Keep)]).await, (vec![(0, 12)], vec![]));
    // The holder is leased: one task exists, the other waits for its end.
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &[keyed(13, DedupeMode::Keep)]).await, (vec![], vec![]));
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &[keyed(14, DedupeMode::Replace)]).await, (vec![], vec![]));
    complete(&lab, 12).await;
    // The successor is made ready, not the new task.
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &[keyed(15, DedupeMode::Debounce)]).await, (vec![], vec![14]));
    complete(&lab, 14).await;
    // A task that this call makes ready by a replacement comes before the new one.
    let delayed = NewTask { start: StartTime::After(60_000), ..keyed(16, DedupeMode::Debounce) };
    lab.submit(&[delayed]).await.unwrap();
    let tasks = [keyed(17, DedupeMode::Debounce), task(41)];
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &tasks).await, (vec![], vec![16, 41]));
    // A submit that is sent again stores nothing, and hands nothing over.
    assert_eq!(submit_to(&lab, &[want(1, None, 1)], &[task(41)]).await, (vec![], vec![]));
    lab.end().await;
}

#[tokio::test]
async fn hand_off_leases_as_a_claim_does() {
    let lab = Lab::start().await;
    let short = NewTask { max_run_ms: 5000, expires_in_ms: Some(600_000), ..task(11) };
    let claim = ClaimId::of_leases("lease", b"c");
    let request = WaiterRequest { claim_id: Some(claim), ..want(1, None, 1) };
    let hand_off = lab.submit_to(&["q"], &[request], &[short]).await.unwrap()[0];

    let [leased] = &views::claims::claimed(&lab.store, &claim).await.unwrap().expect("the same queues")[..] else {
        panic!("the claim id has one task");
    };
    assert_eq!((leased.lease, leased.lease_until), (hand_off.lease, hand_off.lease_until));
    assert_eq!(leased.lease_until.0 - leased.created_at.0, 5000, "a lease is at most max_run_ms long");
    let shown = views::tasks::task(&lab.store, id(11)).await.unwrap().expect("a task");
    assert_eq!((shown.acquired, shown.worker.as_deref(), shown.attempts), (1, Some("w"), 0));
    lab.end().await;
}

#[tokio::test]
async fn hand_off_without_a_client_returns_to_its_position() {
    let lab = Lab::start().await;
    let first = NewTask { expires_in_ms: Some(600_000), max_acquired: 1, ..task(11) };
    lab.submit_to(&["q"], &[want(1, None, 1)], &[first]).await.unwrap();
    lab.submit(&[task(21), task(12)]).await.unwrap();

    let undelivered = Release { lease_ref: lab.held(11), by: Releaser::Undelivered, delay_ms: 0 };
    release(lab.shard(), &mut Caller::new(), &[undelivered]).await.unwrap();
    let claimed = lab.claim(&["q"], &[want(3, None, 1)]).await.unwrap();
    assert_eq!(claimed.iter().map(|task| task.id).collect::<Vec<_>>(), [id(11), id(21), id(12)]);
    // The delivery that did not happen does not count for max_acquired.
    let by_worker = |n| Release { lease_ref: lab.held(n), by: Releaser::Worker, delay_ms: 0 };
    release(lab.shard(), &mut Caller::new(), &[by_worker(21)]).await.unwrap();
    assert_eq!(lab.claim(&["q"], &[want(1, None, 1)]).await.unwrap()[0].id, id(21));
    lab.end().await;
}

#[tokio::test]
async fn submit_of_unknown_outcome_is_resolved_to_its_hand_offs() {
    let lab = Lab::start().await;
    let offers = Offers { queues: vec![queue("q")], requests: vec![want(2, None, 1)], max_tasks: 3 };
    let mut caller = Caller::new();
    let reply = submit(lab.shard(), &mut caller, &[task(11), task(12), task(13)], &offers).await.unwrap();
    for _ in 0..2 {
        let resolved = resolve_hand_offs(lab.shard(), &caller).await.unwrap();
        let leases: Vec<_> = resolved.iter().map(|lease| (lease.id, lease.lease)).collect();
        let expected = reply.hand_offs.iter().map(|one| (one.id, Some(one.lease))).collect::<Vec<_>>();
        assert_eq!((leases.len(), leases), (2, expected));
    }

    // This one is stopped before its first write. It leaves nothing, and its number is taken.
    lab.stop_at(5).await;
    assert!(submit(lab.shard(), &mut caller, &[task(21)], &offers).await.is_err());
    lab.stop_at(0).await;
    assert!(resolve_hand_offs(lab.shard(), &caller).await.unwrap().is_empty());
    assert!(views::tasks::task(&lab.store, id(21)).await.unwrap().is_none());
    lab.end().await;
}

/// Returns the number of commands with which a call of the lab's scripts succeeds.
macro_rules! commands_of {
    ($lab:ident, $call:expr) => {{
        let saved = $lab.save().await;
        let mut commands = 0;
        loop {
            $lab.restore(&saved).await;
            $lab.stop_at(commands + 1).await;
            let outcome = $call.await;
            $lab.stop_at(0).await;
            if outcome.is_ok() {
                break commands;
            }
            commands += 1;
        }
    }};
}

#[tokio::test]
async fn life_with_a_waiting_worker_takes_two_thirds_of_the_commands() {
    let lab = Lab::start().await;
    // The first life makes the queue known, and the second has the counters of statistics.
    for n in [11, 12] {
        lab.submit_to(&["q"], &[want(1, None, 1)], &[task(n)]).await.unwrap();
        complete(&lab, n).await;
    }
    let done = |n| [complete::Completion { lease_ref: lab.held(n), result: document("1") }];
    let submitted = commands_of!(lab, lab.submit(&[task(13)]));
    let claimed = commands_of!(lab, lab.claim(&["q"], &[want(1, None, 1)]));
    complete(&lab, 13).await;
    let handed_over = commands_of!(lab, lab.submit_to(&["q"], &[want(1, None, 1)], &[task(14)]));
    let completed = commands_of!(lab, async {
        let mut caller = Caller::new();
        complete::complete(lab.shard(), &mut caller, &done(14), WhenFull::Store).await
    });
    println!(
        "{submitted} commands of submit, {claimed} of claim, {handed_over} with a hand-off, {completed} of complete"
    );
    assert!(3 * (handed_over + completed) <= 2 * (submitted + claimed + completed));
    lab.end().await;
}
