//! What traces bring about, by the model alone: a comparison says nothing of what never happens.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use proptest_state_machine::ReferenceStateMachine as _;

use super::Reply;
use super::calls::{Call, Step};
use super::generate::Trace;

/// An answer in a few words.
fn outcome(reply: &Reply) -> Vec<String> {
    let word = |found: &Result<String, super::Problem>| match found {
        Ok(word) => word.clone(),
        Err(of) => format!("{} of {:?}", of.1, of.2),
    };
    match reply {
        Reply::Task(status, task) => vec![format!("{status} {}", task.state)],
        Reply::Gone(status, _) => vec![format!("{status} gone")],
        Reply::Batch(items) => items.iter().flat_map(outcome).collect(),
        Reply::Claimed(claimed) => vec![claims(claimed)],
        Reply::Moved(_, ended) => vec![format!("{}{}", ended.state, if ended.repeated { " again" } else { "" })],
        Reply::Completed(results, then) => {
            let results = results.iter().map(|result| word(&result.clone().map(|state| state.to_string())));
            results.chain(then.as_ref().map(|claimed| format!("then {}", claims(claimed)))).collect()
        }
        Reply::Beats(beats) => {
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

#[test]
fn traces_reach_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let traces = Trace::sequential_strategy(40..41);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..400 {
        let (mut trace, steps, _) = traces.new_tree(&mut runner).expect("a trace").current();
        for step in steps {
            let before = trace.model.clone();
            trace = Trace::apply(trace, &step);
            let mut note = |what: String| *seen.entry(what).or_default() += 1;
            if let Step::Send { call, .. } = &step {
                let verb = format!("{call:?}");
                let verb = verb.split([' ', ':']).next().unwrap_or_default().to_owned();
                let verb = if matches!(call, Call::CompleteBatch(..)) { "batch".to_owned() } else { verb };
                trace
                    .replies
                    .iter()
                    .flat_map(|(_, reply)| outcome(reply))
                    .for_each(|what| note(format!("{verb}: {what}")));
            }
            let mut last = before;
            for stop in &trace.stops {
                for (name, task) in &last.tasks {
                    let now = stop.model.tasks.get(name).map_or("gone".to_owned(), |task| task.state.to_string());
                    if now != task.state.to_string() {
                        note(format!("time: {} to {now}", task.state));
                    }
                }
                last = stop.model.clone();
            }
        }
    }
    for (what, count) in &seen {
        eprintln!("{count:6} {what}");
    }
}
