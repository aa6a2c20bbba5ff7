//! Outcomes that random traces reach, by the model alone: a comparison proves nothing about an outcome that never
//! occurs.

use std::collections::BTreeSet;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use proptest_state_machine::ReferenceStateMachine as _;

use super::generate::Trace;
use super::steps::{Call, Step};
use super::{Model, Reply, WheelEntry};

/// An answer in a few words.
fn outcome(reply: &Reply) -> Vec<String> {
    let word = |found: &Result<String, super::Problem>| match found {
        Ok(word) => word.clone(),
        Err(of) => of.2.map_or(of.1.to_owned(), |state| format!("{} {state}", of.1)),
    };
    match reply {
        Reply::Task(status, task) if task.after.is_some() => vec![format!("{status} after")],
        Reply::Task(status, task) => vec![format!("{status} {}", task.state)],
        Reply::Gone(status, _) => vec![format!("{status} gone")],
        Reply::Batch(items) => items.iter().flat_map(outcome).collect(),
        Reply::Claimed(claimed) => vec![claims(claimed)],
        Reply::Met(submitted, claimed) => {
            outcome(submitted).into_iter().map(|what| format!("{what} then {}", claims(claimed))).collect()
        }
        Reply::Transitioned(_, ended) => vec![format!("{}{}", ended.state, if ended.repeated { " again" } else { "" })],
        Reply::Completed(results, then) => {
            let results = results.iter().map(|result| word(&result.clone().map(|state| state.to_string())));
            results
                .chain(then.as_ref().map(|claimed| match claimed {
                    Ok(claimed) => format!("then {}", claims(claimed)),
                    Err(problem) => format!("then {}", problem.1),
                }))
                .collect()
        }
        Reply::Returned(results) => {
            results.iter().map(|result| word(&result.clone().map(|ended| ended.state.to_string()))).collect()
        }
        Reply::Heartbeats(beats) => {
            let flag = |cancel: bool| if cancel { "held and called off".to_owned() } else { "held".to_owned() };
            beats.iter().map(|beat| word(&beat.clone().map(|(_, cancel)| flag(cancel)))).collect()
        }
        Reply::Queue(_, paused) => vec![format!("paused: {paused}")],
        Reply::Purged(moved) => vec![(if *moved > 0 { "some" } else { "none" }).to_owned()],
        Reply::Nothing => vec!["done".to_owned()],
        Reply::Problem(of) => vec![word(&Err(of.clone()))],
    }
}

fn claims(claimed: &super::Claimed) -> String {
    match (claimed.tasks.len(), claimed.ordered) {
        (0, _) => "none".to_owned(),
        (_, false) => "the same again".to_owned(),
        (1, true) => "one".to_owned(),
        (_, true) => "many".to_owned(),
    }
}

/// By verb, what traces must bring about.
const WANTED: &[(&str, &str)] = &[
    ("submit", "201 ready, 201 scheduled, 200 ready, 200 scheduled, 200 leased, invalid_time"),
    ("submit", "201 leased, 201 completed, 201 gone, idempotency_mismatch"),
    ("submit", "201 after, 200 after"),
    ("claim", "none, one, many, the same again, claim_id_mismatch"),
    (
        "meet",
        "201 ready then one, 201 ready then none, 201 scheduled then none, 200 leased then none, 200 ready then one",
    ),
    ("complete", "completed, then none, then one, then many, then the same again, task_not_found"),
    ("batch", "completed, then none, then one, then many, then the same again, task_not_found"),
    ("fail", "ready, ready again, scheduled, scheduled again, dead, dead again, cancelled, cancelled again"),
    ("release", "ready, ready again, scheduled, scheduled again, dead, dead again, cancelled, cancelled again"),
    ("release", "task_not_found"),
    ("heartbeat", "held, held and called off, task_not_found"),
    ("fail-batch", "ready, scheduled, dead, cancelled, task_not_found"),
    ("release-batch", "ready, scheduled, dead, cancelled, task_not_found"),
    ("revoke", "200 ready, 200 scheduled, 200 cancelled, not_leased ready, not_leased leased, not_leased completed"),
    ("run", "200 ready, not_waiting leased, not_waiting completed, not_waiting dead, task_not_found"),
    ("cancel", "200 cancelled, 200 leased, already_ended completed, already_ended dead, already_ended expired"),
    (
        "retry",
        "200 ready, not_retryable completed, not_retryable leased, dedupe_conflict dead, dedupe_conflict expired",
    ),
    ("delete", "done, not_ended leased, not_ended ready, not_ended scheduled, task_not_found"),
    ("purge", "some, none"),
    ("remove", "some, none, queue_not_empty"),
    ("turn", "a slot comes to the rear, a slot goes on to the rear, a pass is in the middle"),
    ("time", "a lease is prolonged"),
    ("time", "scheduled to ready, leased to ready, leased to scheduled, leased to dead, leased to cancelled"),
    ("time", "leased to expired, ready to expired, scheduled to expired, completed to gone, dead to gone"),
];

/// The change of a step to the turns of a queue's slots of priority 4, if there are several.
fn turned(before: &Model, after: &Model) -> Option<&'static str> {
    let slots = |model: &Model| -> Vec<WheelEntry> {
        let wheel = model.queues.get("q").map(|queue| queue.wheel.clone()).unwrap_or_default();
        wheel.into_iter().filter(|(priority, ..)| *priority == 4).collect()
    };
    let is_in_pass = |model: &Model| model.queues.get("q").is_some_and(|queue| !queue.passes.is_empty());
    if !is_in_pass(before) && is_in_pass(after) {
        return Some("a pass is in the middle");
    }
    let (before, after) = (slots(before), slots(after));
    let first = *before.first()?;
    match after.as_slice() {
        [rest @ .., new] if rest == before && !before.contains(new) => Some("a slot comes to the rear"),
        [rest @ .., last] if *last == first && rest == &before[1..] && !rest.is_empty() => {
            Some("a slot goes on to the rear")
        }
        _ => None,
    }
}

#[test]
fn random_traces_reach_every_outcome() {
    let mut seen = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    let traces = Trace::sequential_strategy(40..41);
    for _ in 0..600 {
        let (mut trace, steps, _) = traces.new_tree(&mut runner).expect("a trace").current();
        for step in steps {
            let mut last = trace.model.clone();
            trace = Trace::apply(trace, &step);
            if let Step::Send { call, .. } = &step {
                let words = format!("{call:?}");
                let first = words.split([' ', ':']).next().unwrap_or_default();
                let verb = if matches!(call, Call::CompleteBatch(..)) { "batch" } else { first };
                let outcomes = trace.replies.iter().flat_map(|(_, reply)| outcome(reply));
                seen.extend(outcomes.map(|what| format!("{verb}: {what}")));
            }
            seen.extend(turned(&last, &trace.model).map(|how| format!("turn: {how}")));
            for stop in &trace.stops {
                for (name, task) in &last.tasks {
                    let now = stop.model.tasks.get(name).map_or("gone".to_owned(), |task| task.state.to_string());
                    seen.insert(format!("time: {} to {now}", task.state));
                    let until = |task: &super::Task| Some((task.acquired, task.lease.as_ref()?.until));
                    let later = stop.model.tasks.get(name).and_then(until);
                    if until(task)
                        .is_some_and(|(nth, before)| later.is_some_and(|(n, after)| n == nth && after > before))
                    {
                        seen.insert("time: a lease is prolonged".to_owned());
                    }
                }
                last = stop.model.clone();
            }
        }
    }
    let lost = ["ready", "scheduled", "leased", "completed", "dead", "cancelled", "expired"];
    let refused = ["complete", "batch", "fail", "fail-batch", "release", "release-batch", "heartbeat"];
    let refused = refused.iter().flat_map(|verb| lost.map(|state| format!("{verb}: lease_lost {state}")));
    let done = WANTED.iter().flat_map(|(verb, all)| all.split(", ").map(move |what| format!("{verb}: {what}")));
    let missing: Vec<String> = done.chain(refused).filter(|what| !seen.contains(what)).collect();
    assert!(missing.is_empty(), "no trace reaches {missing:#?}");
}
