//! Stops every script at each of its calls of Redis, in many states. The state afterwards is unchanged, or complete, or the
//! audit reports it; then a repair corrects it, and no task is lost, doubled, or stuck.

mod scenarios;

use std::collections::{BTreeMap, BTreeSet};

use slotwheel::domain::state::State;
use slotwheel::store::audit::{audit, repair};
use slotwheel::store::record::fields;
use slotwheel::store::{Error, ops};

use crate::support::script_lab::{Content, Lab};
use scenarios::Scenario;

/// Results of one script: calls at which it was stopped, by the state afterwards.
#[derive(Default, Debug)]
struct Results {
    points: usize,
    unchanged: usize,
    complete: usize,
    repaired: usize,
}

#[tokio::test]
async fn script_stopped_at_any_command_leaves_what_doctor_repairs() {
    let lab = Lab::start().await;
    let mut results: BTreeMap<&str, Results> = BTreeMap::new();
    for scenario in scenarios::all() {
        run(&lab, &scenario, results.entry(scenario.script).or_default()).await;
    }
    println!("{:<20} {:>6} {:>9} {:>8} {:>8}", "script", "points", "unchanged", "complete", "repaired");
    for (script, Results { points, unchanged, complete, repaired }) in &results {
        println!("{script:<20} {points:>6} {unchanged:>9} {complete:>8} {repaired:>8}");
    }
    for script in ops::ALL {
        assert!(results.get(script.name).is_some_and(|results| results.points > 0), "{} has no scenario", script.name);
    }
    lab.end().await;
}

/// Stops the scenario's script at its first call of Redis, its second, and so on, until it ends before it is stopped.
async fn run(lab: &Lab, scenario: &Scenario, results: &mut Results) {
    let Scenario { script, name, before, call } = scenario;
    lab.forget_all().await;
    before(lab).await.expect("the state before the call");
    let saved = lab.save().await;
    let old = lab.content().await;
    call(lab).await.unwrap_or_else(|error| panic!("{script}, {name}: {error}"));
    let new = lab.content().await;
    for at in 1.. {
        let case = format!("{script}, {name}, stopped at call {at}");
        lab.restore(&saved).await;
        lab.stop_at(at).await;
        let outcome = call(lab).await;
        lab.stop_at(0).await;
        match outcome {
            Ok(()) => {
                assert_eq!(differences(&lab.content().await, &new), [""; 0], "{case}: not stopped");
                return;
            }
            Err(Error::Unexpected(text)) if text.contains("ABORTED") => {}
            Err(error) => panic!("{case}: {error}"),
        }
        results.points += 1;
        let left = lab.content().await;
        if differences(&left, &old).is_empty() {
            results.unchanged += 1;
            continue;
        }
        let findings = audit(&lab.store).await.expect("an audit").findings;
        if findings.is_empty() {
            assert_eq!(differences(&left, &new), [""; 0], "{case}: the audit finds nothing");
            results.complete += 1;
            continue;
        }
        let rest = repair(&lab.store, |_| {}).await.expect("a repair").findings;
        assert!(rest.is_empty(), "{case}: found {findings:#?}, and {rest:#?} after the repair");
        assert_nothing_lost(lab, &case, &old, ["delete", "purge_ended"].contains(script)).await;
        results.repaired += 1;
    }
}

/// Lines that only one of both has. Tokens are left out, because a lease has another token in each run. `due` is left out,
/// also of the records, and `ended_due`, because they may hold a time before the first; the audit checks that their times are
/// not too late.
fn differences(a: &Content, b: &Content) -> Vec<String> {
    let place = |line: &[u8], part: &[u8]| line.windows(part.len()).position(|window| window == part);
    let end_of = |line: &[u8], field| {
        let name = format!("\x01{field}\x01");
        place(line, name.as_bytes()).map(|at| at + name.len())
    };
    let without_token = |line: &Vec<u8>| match (end_of(line, fields::LEASE), end_of(line, fields::FOLLOWERS)) {
        // The token is behind the version.
        (Some(at), _) => [&line[..=at], &line[at + 17..]].concat(),
        // Each token is behind the id of its task.
        (_, Some(at)) => {
            [&line[..at], &line[at..].chunks(32).map(|lease| &lease[..16]).collect::<Vec<_>>().concat()].concat()
        }
        (None, None) => line.clone(),
    };
    let [a, b] = [a, b].map(|content| content.iter().map(without_token).collect::<Content>());
    let is_early = |line: &[u8]| place(line, b"}:due\x01").or(place(line, b"}:ended_due\x01")).is_some();
    let lines = a.symmetric_difference(&b).filter(|line| !is_early(line));
    lines.map(|line| String::from_utf8_lossy(line).escape_debug().to_string()).collect()
}

/// No task is missing. Each live task ends and is leased at most once; no ended task is leased.
async fn assert_nothing_lost(lab: &Lab, case: &str, old: &Content, may_be_deleted: bool) {
    let (before, after) = (lab.tasks(old), lab.tasks(&lab.content().await));
    for (id, state) in &before {
        assert!(may_be_deleted || after.contains_key(id), "{case}: task {id}, {state}, is lost");
    }
    let worked = lab.drain().await.unwrap_or_else(|error| panic!("{case}: {error}"));
    let once: BTreeSet<_> = worked.iter().collect();
    assert_eq!(once.len(), worked.len(), "{case}: leased twice");
    let ended = lab.tasks(&lab.content().await);
    for (id, state) in &after {
        assert!(ended[id].has_ended(), "{case}: task {id}, {state}, is stuck: {}", ended[id]);
        assert!(!state.has_ended() || !once.contains(id), "{case}: task {id}, {state}, is leased again");
        let worked = ended[id] == State::Completed && !state.has_ended();
        assert_eq!(worked, once.contains(id), "{case}: task {id}, {state}, {}", ended[id]);
    }
    let findings = audit(&lab.store).await.expect("an audit").findings;
    assert!(findings.is_empty(), "{case}: {findings:#?} after all tasks have ended");
}
