//! Every script is stopped at each of its calls to Redis, in many states. What it leaves is what was there, or complete, or
//! the audit reports it; then a repair makes it right, and no task is lost, doubled, or stuck.

mod scenarios;

use std::collections::{BTreeMap, BTreeSet};

use slotwheel::domain::state::State;
use slotwheel::store::audit::{audit, repair};
use slotwheel::store::{Error, ops};

use crate::support::script_lab::{Content, Lab};
use scenarios::Scenario;

/// What was seen at the calls at which one script was stopped.
#[derive(Default, Debug)]
struct Seen {
    points: usize,
    unchanged: usize,
    complete: usize,
    mended: usize,
}

#[tokio::test]
async fn script_stopped_at_any_command_leaves_what_doctor_repairs() {
    let lab = Lab::start().await;
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    for scenario in scenarios::all() {
        play(&lab, &scenario, seen.entry(scenario.script).or_default()).await;
    }
    println!("{:<10} {:>6} {:>9} {:>8} {:>6}", "script", "points", "unchanged", "complete", "mended");
    for (script, Seen { points, unchanged, complete, mended }) in &seen {
        println!("{script:<10} {points:>6} {unchanged:>9} {complete:>8} {mended:>6}");
    }
    for script in ops::ALL {
        assert!(seen.get(script.name).is_some_and(|seen| seen.points > 0), "{} has no scenario", script.name);
    }
    lab.end().await;
}

/// Stops the scenario's call at its first call to Redis, its second, and so on, until it ends before it is stopped.
async fn play(lab: &Lab, scenario: &Scenario, seen: &mut Seen) {
    let Scenario { script, name, before, call } = scenario;
    lab.forget_all().await;
    before(lab).await.expect("a state to begin with");
    let saved = lab.save().await;
    let old = lab.content().await;
    call(lab).await.unwrap_or_else(|error| panic!("{script}, {name}: {error}"));
    let new = lab.content().await;
    for at in 1.. {
        let place = format!("{script}, {name}, stopped at call {at}");
        lab.restore(&saved).await;
        lab.stop_at(at).await;
        let outcome = call(lab).await;
        lab.stop_at(0).await;
        match outcome {
            Ok(()) => {
                assert_eq!(differences(&lab.content().await, &new), [""; 0], "{place}: not stopped");
                return;
            }
            Err(Error::Unexpected(why)) if why.contains("ABORTED") => {}
            Err(error) => panic!("{place}: {error}"),
        }
        seen.points += 1;
        let left = lab.content().await;
        if left == old {
            seen.unchanged += 1;
            continue;
        }
        let findings = audit(&lab.store).await.expect("an audit").findings;
        if findings.is_empty() {
            assert_eq!(differences(&left, &new), [""; 0], "{place}: the audit sees nothing");
            seen.complete += 1;
            continue;
        }
        let rest = repair(&lab.store, |_| {}).await.expect("a repair").findings;
        assert!(rest.is_empty(), "{place}: found {findings:#?}, and {rest:#?} after the repair");
        nothing_is_lost(lab, &place, &old, script == &"delete").await;
        seen.mended += 1;
    }
}

/// What only one of both has. Tokens are left out, since a new lease has another in each run, and `due`, which may hold
/// an earlier time than the first: the audit sees that it holds none that is too late.
fn differences(a: &Content, b: &Content) -> Vec<String> {
    let has = |line: &[u8], part: &[u8]| line.windows(part.len()).any(|window| window == part);
    let lines = a.symmetric_difference(b).filter(|line| !has(line, b"\x01t\x01") && !has(line, b"}:due\x01"));
    lines.map(|line| String::from_utf8_lossy(line).escape_debug().to_string()).collect()
}

/// Every task of before is there; each that lives ends, handed out once at most; none that had ended is handed out.
async fn nothing_is_lost(lab: &Lab, place: &str, old: &Content, may_go: bool) {
    let (had, has) = (lab.tasks(old), lab.tasks(&lab.content().await));
    for (id, state) in &had {
        assert!(may_go || has.contains_key(id), "{place}: task {id}, {state}, is lost");
    }
    let worked = lab.drain().await.unwrap_or_else(|error| panic!("{place}: {error}"));
    let once: BTreeSet<_> = worked.iter().collect();
    assert_eq!(once.len(), worked.len(), "{place}: handed out twice");
    let ended = lab.tasks(&lab.content().await);
    for (id, state) in &has {
        assert!(ended[id].has_ended(), "{place}: task {id}, {state}, is stuck: {}", ended[id]);
        assert!(!state.has_ended() || !once.contains(id), "{place}: task {id}, {state}, is handed out again");
        let worked = ended[id] == State::Completed && !state.has_ended();
        assert_eq!(worked, once.contains(id), "{place}: task {id}, {state}, {}", ended[id]);
    }
    let findings = audit(&lab.store).await.expect("an audit").findings;
    assert!(findings.is_empty(), "{place}: {findings:#?} after all is worked off");
}
