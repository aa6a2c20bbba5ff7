//! For each invariant: a history that breaks it alone, and a neighbour, one word different, that breaks none.
//!
//! These histories have no clock readings: the processes' clocks are the shard's. A claim at 1003 ms with a lease of 1
//! s returns `until` 2003.

use std::collections::BTreeSet;

use super::{Invariant, check, read};

const SUBMIT: &str = r#"
{"at":1000000,"client":"p","op":1,"invoke":{"submit":{"queue":"q","items":[{"name":"a"}]}}}
{"at":1002000,"client":"p","op":1,"ok":{"submitted":[{"created":{"id":"A"}}]}}"#;

const CLAIM: &str = r#"
{"at":1003000,"client":"w","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1005000,"client":"w","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"t","until":2003,"attempt":1}]}}"#;

const COMPLETE: &str = r#"
{"at":1006000,"client":"w","op":2,"invoke":{"complete":{"id":"A","token":"t","result":"r"}}}
{"at":1008000,"client":"w","op":2,"ok":{"ended":{"state":"completed"}}}"#;

const READ: &str = r#"
{"at":9000000,"client":"z","op":1,"invoke":{"tasks":{"queue":"q"}}}
{"at":9001000,"client":"z","op":1,"ok":{"tasks":[{"id":"A","name":"a","state":"completed","attempts":0,"max_attempts":5,"acquired":1,"result":"r","created_at":1001,"finished_at":1007}]}}"#;

/// Asserts that the history breaks this invariant alone, and that it is valid with `good` in place of `bad`.
#[track_caller]
fn only(invariant: Invariant, history: &[&str], bad: &str, good: &str) {
    let history = history.concat();
    assert_eq!(history.matches(bad).count(), 1, "{bad} must occur once");
    let found: Vec<_> = check(&read(history.as_bytes())).findings;
    let broken: BTreeSet<Invariant> = found.iter().map(|finding| finding.invariant).collect();
    assert_eq!(broken, BTreeSet::from([invariant]), "{found:#?}");
    let found = check(&read(history.replace(bad, good).as_bytes())).findings;
    assert!(found.is_empty(), "the valid neighbour: {found:#?}");
}

#[test]
fn missing_task_is_rejected() {
    let other = r#"
{"at":1000000,"client":"p","op":2,"invoke":{"submit":{"queue":"q","items":[{"name":"b"}]}}}
{"at":1002000,"client":"p","op":2,"ok":{"submitted":[{"created":{"id":"B"}}]}}"#;
    let answer = r#""client":"p","op":2,"ok":{"submitted":[{"created":{"id":"B"}}]}"#;
    let history = [SUBMIT, CLAIM, COMPLETE, other, READ];
    only(Invariant::Lost, &history, answer, r#""client":"p","op":2,"unknown":"no answer""#);
}

#[test]
fn task_that_never_ends_is_rejected() {
    let history = [SUBMIT, &READ.replace(r#","result":"r""#, "").replace(r#""acquired":1"#, r#""acquired":0"#)];
    let history = [history[0], &history[1].replace(r#""state":"completed""#, r#""state":"ready""#)];
    only(Invariant::Lost, &history, r#""state":"ready""#, r#""state":"expired""#);
}

#[test]
fn two_completions_are_rejected() {
    let second = r#"
{"at":2010000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":2012000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"u","until":3011,"attempt":2}]}}
{"at":2013000,"client":"v","op":2,"invoke":{"complete":{"id":"A","token":"u","result":"s"}}}
{"at":2014000,"client":"v","op":2,"ok":{"ended":{"state":"completed"}}}"#;
    let first = COMPLETE
        .replace(r#""ok":{"ended":{"state":"completed"}}"#, r#""ok":{"ended":{"state":"completed","run_at":null}}"#);
    let read = READ.replace(r#""acquired":1"#, r#""acquired":2"#).replace(r#""result":"r""#, r#""result":"s""#);
    let read = read.replace(r#""attempts":0"#, r#""attempts":1"#);
    // The first lease expired if its completion was rejected; the attempts are those of that case.
    let found = check(&super::read([SUBMIT, CLAIM, &first, second, &read].concat().as_bytes())).findings;
    assert!(found.iter().any(|finding| finding.invariant == Invariant::CompletedOnce), "{found:#?}");
    let attempts = second.replace(r#""attempt":2"#, r#""attempt":1"#);
    let history = [SUBMIT, CLAIM, COMPLETE, &attempts, &read.replace(r#""attempts":1"#, r#""attempts":0"#)];
    let completed = r#""client":"w","op":2,"invoke":{"complete":{"id":"A","token":"t","result":"r"}}}
{"at":1008000,"client":"w","op":2,"ok":{"ended":{"state":"completed"}}"#;
    let released = r#""client":"w","op":2,"invoke":{"release":{"id":"A","token":"t"}}}
{"at":1008000,"client":"w","op":2,"ok":{"ended":{"state":"ready"}}"#;
    only(Invariant::CompletedOnce, &history, completed, released);
}

#[test]
fn overwritten_result_is_rejected() {
    let history = [SUBMIT, CLAIM, COMPLETE, &READ.replace(r#""state":"completed""#, r#""state":"cancelled""#)];
    only(Invariant::CompletedOnce, &history, r#""state":"cancelled""#, r#""state":"completed""#);
}

#[test]
fn two_leases_at_once_are_rejected() {
    let second = r#"
{"at":1900000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":2030000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"u","until":2990,"attempt":2}]}}"#;
    let read = READ.replace(r#""acquired":1"#, r#""acquired":2"#).replace(r#","result":"r""#, "");
    let read = read.replace(r#""attempts":0"#, r#""attempts":2"#).replace("completed", "cancelled");
    let history = [SUBMIT, CLAIM, second, &read];
    only(Invariant::LeasesApart, &history, r#""until":2990"#, r#""until":3003"#);
}

#[test]
fn lease_extended_by_heartbeat_overlaps_no_other() {
    let beat = r#"
{"at":1500000,"client":"w","op":3,"invoke":{"heartbeat":{"id":"A","token":"t"}}}
{"at":1502000,"client":"w","op":3,"ok":{"held":{"until":2501}}}
{"at":2100000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":2130000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"u","until":3101,"attempt":2}]}}"#;
    let read = READ.replace(r#""acquired":1"#, r#""acquired":2"#).replace(r#","result":"r""#, "");
    let read = read.replace(r#""attempts":0"#, r#""attempts":2"#).replace("completed", "cancelled");
    let history = [SUBMIT, CLAIM, beat, &read];
    only(Invariant::LeasesApart, &history, r#""ok":{"held":{"until":2501}}"#, r#""fail":"lease_lost""#);
}

#[test]
fn delay_cut_short_is_rejected() {
    let submit = SUBMIT.replace(r#""name":"a""#, r#""name":"a","delay_ms":10"#);
    only(Invariant::NotEarly, &[&submit, CLAIM, COMPLETE, READ], r#""delay_ms":10"#, r#""delay_ms":4"#);
}

#[test]
fn retry_before_its_time_is_rejected() {
    let failed = r#"
{"at":1006000,"client":"w","op":2,"invoke":{"fail":{"id":"A","token":"t"}}}
{"at":1008000,"client":"w","op":2,"ok":{"ended":{"state":"scheduled","run_at":1107}}}
{"at":1100000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1109000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"u","until":2106,"attempt":2}]}}
{"at":1110000,"client":"v","op":2,"invoke":{"complete":{"id":"A","token":"u","result":"r"}}}
{"at":1112000,"client":"v","op":2,"ok":{"ended":{"state":"completed"}}}"#;
    let read = READ.replace(r#""attempts":0"#, r#""attempts":1"#).replace(r#""acquired":1"#, r#""acquired":2"#);
    only(Invariant::NotEarly, &[SUBMIT, CLAIM, failed, &read], r#""until":2106"#, r#""until":2107"#);
}

#[test]
fn invented_attempt_is_rejected() {
    let read = READ.replace(r#""attempts":0"#, r#""attempts":1"#);
    only(Invariant::Attempts, &[SUBMIT, CLAIM, COMPLETE, &read], r#""attempts":1"#, r#""attempts":0"#);
}

#[test]
fn uncounted_delivery_is_rejected() {
    let read = READ.replace(r#""acquired":1"#, r#""acquired":0"#);
    only(Invariant::Attempts, &[SUBMIT, CLAIM, COMPLETE, &read], r#""acquired":0"#, r#""acquired":1"#);
}

#[test]
fn expired_lease_without_an_attempt_is_rejected() {
    let second = r#"
{"at":2100000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":2109000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"u","until":3106,"attempt":1}]}}
{"at":2110000,"client":"v","op":2,"invoke":{"complete":{"id":"A","token":"u","result":"r"}}}
{"at":2112000,"client":"v","op":2,"ok":{"ended":{"state":"completed"}}}"#;
    let read = READ.replace(r#""attempts":0"#, r#""attempts":1"#).replace(r#""acquired":1"#, r#""acquired":2"#);
    let history = [SUBMIT, CLAIM, second, &read];
    only(Invariant::Attempts, &history, r#""until":3106,"attempt":1"#, r#""until":3106,"attempt":2"#);
}

#[test]
fn task_overtaken_by_another_of_its_key_is_rejected() {
    let tasks = r#"
{"at":1000000,"client":"p","op":1,"invoke":{"submit":{"queue":"q","items":[{"name":"a"}]}}}
{"at":1002000,"client":"p","op":1,"ok":{"submitted":[{"created":{"id":"A","slot":7}}]}}
{"at":1003000,"client":"p","op":2,"invoke":{"submit":{"queue":"q","items":[{"name":"b"}]}}}
{"at":1005000,"client":"p","op":2,"ok":{"submitted":[{"created":{"id":"B","slot":7}}]}}
{"at":1010000,"client":"w","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1012000,"client":"w","op":1,"ok":{"claimed":[{"id":"B","name":"b","token":"u","until":2011,"attempt":1}]}}
{"at":1011000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1016000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"t","until":2014,"attempt":1}]}}
{"at":9000000,"client":"z","op":1,"invoke":{"tasks":{"queue":"q"}}}
{"at":9001000,"client":"z","op":1,"ok":{"tasks":[{"id":"A","name":"a","state":"dead","attempts":1,"max_attempts":1,"acquired":1,"created_at":1001,"finished_at":2014},{"id":"B","name":"b","state":"dead","attempts":1,"max_attempts":1,"acquired":1,"created_at":1004,"finished_at":2011}]}}"#;
    // One script call may have served both.
    only(Invariant::Order, &[tasks], r#""until":2014"#, r#""until":2011"#);
    // Another slot has its own order.
    only(Invariant::Order, &[tasks], r#"{"id":"B","slot":7}"#, r#"{"id":"B","slot":8}"#);
    // So has another key of the slot.
    only(Invariant::Order, &[tasks], r#"{"name":"b"}"#, r#"{"name":"b","key":"k"}"#);
}

#[test]
fn batch_out_of_order_is_rejected() {
    let tasks = r#"
{"at":1000000,"client":"p","op":1,"invoke":{"submit":{"queue":"q","items":[{"name":"a"},{"name":"b"}]}}}
{"at":1002000,"client":"p","op":1,"ok":{"submitted":[{"created":{"id":"A"}},{"created":{"id":"B"}}]}}
{"at":1010000,"client":"w","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1012000,"client":"w","op":1,"ok":{"claimed":[{"id":"B","name":"b","token":"u","until":2011,"attempt":1}]}}
{"at":1011000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1016000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"t","until":2014,"attempt":1}]}}
{"at":9000000,"client":"z","op":1,"invoke":{"tasks":{"queue":"q"}}}
{"at":9001000,"client":"z","op":1,"ok":{"tasks":[{"id":"A","name":"a","state":"dead","attempts":1,"max_attempts":1,"acquired":1,"created_at":1001,"finished_at":2014},{"id":"B","name":"b","state":"dead","attempts":1,"max_attempts":1,"acquired":1,"created_at":1004,"finished_at":2011}]}}"#;
    only(Invariant::Order, &[tasks], r#"[{"name":"a"},{"name":"b"}]"#, r#"[{"name":"a","priority":3},{"name":"b"}]"#);
}

#[test]
fn token_given_twice_is_rejected() {
    let other = r#"
{"at":1000000,"client":"p","op":2,"invoke":{"submit":{"queue":"r","items":[{"name":"b"}]}}}
{"at":1002000,"client":"p","op":2,"ok":{"submitted":[{"created":{"id":"B"}}]}}
{"at":1003000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1005000,"client":"v","op":1,"ok":{"claimed":[{"id":"B","name":"b","token":"t","until":2003,"attempt":1}]}}"#;
    let second = r#""name":"b","token":"t""#;
    only(Invariant::TokensFresh, &[SUBMIT, CLAIM, COMPLETE, other, READ], second, r#""name":"b","token":"u""#);
}

#[test]
fn completion_after_the_lease_is_rejected() {
    let late = COMPLETE.replace("1006000", "2003001").replace("1008000", "2005000");
    let read = READ.replace("1007", "2004");
    only(Invariant::StaleTokens, &[SUBMIT, CLAIM, &late, &read], r#"{"at":2003001"#, r#"{"at":2003000"#);
}

#[test]
fn completion_after_a_prolonged_lease_is_rejected() {
    let outage = r#"
{"at":1900000,"outage":{"from":1900,"until":4000}}"#;
    let late = COMPLETE.replace("1006000", "4104001").replace("1008000", "4105000");
    let read = READ.replace("1007", "4104");
    only(Invariant::StaleTokens, &[SUBMIT, CLAIM, outage, &late, &read], r#"{"at":4104001"#, r#"{"at":4104000"#);
}

#[test]
fn completion_after_a_release_is_rejected() {
    let released = r#"
{"at":1005100,"client":"w","op":5,"invoke":{"release":{"id":"A","token":"t"}}}
{"at":1005200,"client":"w","op":5,"ok":{"ended":{"state":"ready"}}}"#;
    let refused = r#""client":"w","op":5,"fail":"lease_lost""#;
    let answer = r#""client":"w","op":5,"ok":{"ended":{"state":"ready"}}"#;
    only(Invariant::StaleTokens, &[SUBMIT, CLAIM, released, COMPLETE, READ], answer, refused);
}

#[test]
fn rejected_completion_that_stored_its_result_is_rejected() {
    let refused = COMPLETE.replace(r#""ok":{"ended":{"state":"completed"}}"#, r#""fail":"lease_lost""#);
    let read = READ.replace(r#""attempts":0"#, r#""attempts":1"#);
    let history = [SUBMIT, CLAIM, &refused, &read.replace("completed", "cancelled")];
    only(Invariant::StaleTokens, &history, r#""acquired":1,"result":"r""#, r#""acquired":1,"result":null"#);
}

#[test]
fn counts_that_do_not_add_up_are_rejected() {
    let sample = r#"
{"at":1500000,"client":"s","op":1,"invoke":{"counts":{"queue":"q"}}}
{"at":1501000,"client":"s","op":1,"ok":{"counts":{"submitted":1,"completed":1,"ready":1}}}"#;
    let history = [SUBMIT, CLAIM, COMPLETE, sample, READ];
    only(Invariant::Conservation, &history, r#""completed":1,"ready":1"#, r#""completed":1"#);
}

#[test]
fn counts_below_what_clients_saw_are_rejected() {
    let sample = r#"
{"at":1500000,"client":"s","op":1,"invoke":{"counts":{"queue":"q"}}}
{"at":1501000,"client":"s","op":1,"ok":{"counts":{"submitted":1,"ready":1}}}"#;
    only(Invariant::Conservation, &[SUBMIT, CLAIM, COMPLETE, sample, READ], r#","ready":1"#, r#","completed":1"#);
}

#[test]
fn counts_of_missing_tasks_are_rejected() {
    let sample = r#"
{"at":9500000,"client":"s","op":1,"invoke":{"counts":{"queue":"q"}}}
{"at":9501000,"client":"s","op":1,"ok":{"counts":{"submitted":2,"completed":1,"cancelled":1}}}
{"at":1000000,"client":"p","op":2,"invoke":{"submit":{"queue":"q","items":[{"name":"b"}]}}}"#;
    let history = [SUBMIT, CLAIM, COMPLETE, READ, sample];
    let good = r#"{"submitted":1,"completed":1}"#;
    only(Invariant::Conservation, &history, r#"{"submitted":2,"completed":1,"cancelled":1}"#, good);
}

#[test]
fn invented_payload_is_rejected() {
    let claim = CLAIM.replace(r#""name":"a""#, r#""name":"b""#);
    only(Invariant::Submitted, &[SUBMIT, &claim, COMPLETE, READ], r#""name":"b""#, r#""name":"a""#);
}

#[test]
fn invented_result_is_rejected() {
    let read = READ.replace(r#""result":"r""#, r#""result":"s""#);
    // The outcome of the completion is unknown.
    let unknown = COMPLETE.replace(r#""ok":{"ended":{"state":"completed"}}"#, r#""unknown":"no answer""#);
    let read = read.replace(r#""attempts":0"#, r#""attempts":1"#);
    let history = [SUBMIT, CLAIM, &unknown, &read];
    only(
        Invariant::Submitted,
        &history,
        r#""attempts":1,"max_attempts":5,"acquired":1,"result":"s""#,
        r#""attempts":0,"max_attempts":5,"acquired":1,"result":"r""#,
    );
}

#[test]
fn shard_clock_that_follows_a_step_is_rejected() {
    let readings = r#"
{"at":1000000,"process":"m","clock":{"time_us":1000000,"within_us":100}}
{"at":1050000,"process":"m","clock":{"time_us":4050000,"within_us":100}}"#;
    // A server measures a step with the delay of its connection.
    only(Invariant::ClockKeepsPace, &[SUBMIT, CLAIM, COMPLETE, READ, readings], "4050000", "2050000");
    only(Invariant::ClockKeepsPace, &[SUBMIT, CLAIM, COMPLETE, READ, readings], "4050000", "-899900");
}

#[test]
fn order_of_times_closer_than_a_fall_of_the_clock_is_open() {
    // The clock falls by 100 ms or by 2 ms between a completion, reported by 1008, and another claim at 1096.
    let readings = r#"
{"at":500000,"process":"","clock":{"time_us":500000,"within_us":100}}
{"at":1050000,"process":"","clock":{"time_us":1050000,"within_us":100}}
{"at":1100000,"process":"","clock":{"time_us":1000000,"within_us":100}}"#;
    let second = r#"
{"at":1096000,"client":"v","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1099000,"client":"v","op":1,"ok":{"claimed":[{"id":"A","name":"a","token":"u","until":2096,"attempt":1}]}}"#;
    let read = READ.replace(r#""acquired":1"#, r#""acquired":2"#);
    let history = [readings, SUBMIT, CLAIM, COMPLETE, second, &read].concat();
    let found = |history: &str| check(&super::read(history.as_bytes())).of(Invariant::CompletedOnce);
    assert_eq!(found(&history), 0);
    assert_eq!(found(&history.replace(r#""time_us":1000000"#, r#""time_us":1098000"#)), 1);
}

#[test]
fn shard_clock_at_rest_longer_than_its_outage_is_rejected() {
    let readings = r#"
{"at":1000000,"process":"m","clock":{"time_us":9000000,"within_us":100}}
{"at":4000000,"process":"m","clock":{"time_us":6900000,"within_us":100}}"#;
    only(Invariant::ClockKeepsPace, &[SUBMIT, CLAIM, COMPLETE, READ, readings], "6900000", "7100000");
}

const KEYED: &str = r#"
{"at":1000000,"client":"p","op":1,"invoke":{"submit":{"queue":"q","items":[{"name":"a","dedupe":"k"}]}}}
{"at":1002000,"client":"p","op":1,"ok":{"submitted":[{"created":{"id":"A"}}]}}"#;

#[test]
fn dedupe_key_of_a_live_task_given_away_is_rejected() {
    let other = r#"
{"at":1100000,"client":"p","op":2,"invoke":{"submit":{"queue":"q","items":[{"name":"b","dedupe":"k"}]}}}
{"at":1102000,"client":"p","op":2,"ok":{"submitted":[{"created":{"id":"B"}}]}}
{"at":9000000,"client":"z","op":1,"invoke":{"tasks":{"queue":"q"}}}
{"at":9001000,"client":"z","op":1,"ok":{"tasks":[{"id":"A","name":"a","state":"expired","attempts":0,"max_attempts":1,"acquired":0,"created_at":1001,"finished_at":1102},{"id":"B","name":"b","state":"expired","attempts":0,"max_attempts":1,"acquired":0,"created_at":1101,"finished_at":2011}]}}"#;
    only(Invariant::Dedupe, &[KEYED, other], r#""finished_at":1102"#, r#""finished_at":1101"#);
}

#[test]
fn successor_created_before_the_last_lease_expired_is_rejected() {
    let other = r#"
{"at":1100000,"client":"p","op":2,"invoke":{"submit":{"queue":"q","items":[{"name":"b","dedupe":"k"}]}}}
{"at":1902000,"client":"p","op":2,"ok":{"submitted":[{"created":{"id":"B"}}]}}
{"at":9000000,"client":"z","op":1,"invoke":{"tasks":{"queue":"q"}}}
{"at":9001000,"client":"z","op":1,"ok":{"tasks":[{"id":"A","name":"a","state":"dead","attempts":1,"max_attempts":1,"acquired":1,"created_at":1001,"finished_at":2100},{"id":"B","name":"b","state":"expired","attempts":0,"max_attempts":1,"acquired":0,"created_at":2002,"finished_at":3011}]}}"#;
    only(Invariant::Dedupe, &[KEYED, CLAIM, other], r#""created_at":2002"#, r#""created_at":2003"#);
}

#[test]
fn dedupe_key_that_outlives_its_task_is_rejected() {
    let other = r#"
{"at":1100000,"client":"p","op":2,"invoke":{"submit":{"queue":"q","items":[{"name":"b","dedupe":"k"}]}}}
{"at":1102000,"client":"p","op":2,"ok":{"submitted":[{"kept":{"id":"A"}}]}}
{"at":9000000,"client":"z","op":1,"invoke":{"tasks":{"queue":"q"}}}
{"at":9001000,"client":"z","op":1,"ok":{"tasks":[{"id":"A","name":"a","state":"expired","attempts":0,"max_attempts":1,"acquired":0,"created_at":1001,"finished_at":1098}]}}"#;
    only(Invariant::Dedupe, &[KEYED, other], r#""finished_at":1098"#, r#""finished_at":1100"#);
}

#[test]
fn submit_that_created_two_tasks_is_rejected() {
    let submit = r#"
{"at":1000000,"client":"p","op":1,"invoke":{"submit":{"queue":"r","items":[{"name":"a"}]}}}
{"at":1002000,"client":"p","op":1,"unknown":"no answer"}
{"at":1003000,"client":"p","op":1,"attempt":2,"invoke":{"submit":{"queue":"r","items":[{"name":"a"}]}}}
{"at":1004000,"client":"p","op":1,"attempt":2,"ok":{"submitted":[{"created":{"id":"A"}}]}}
{"at":1005000,"client":"w","op":1,"invoke":{"claim":{"lease_ms":1000}}}
{"at":1006000,"client":"w","op":1,"ok":{"claimed":[{"id":"B","name":"a","token":"t","until":2005,"attempt":1}]}}"#;
    only(Invariant::Unknown, &[submit], r#""id":"B""#, r#""id":"A""#);
}

#[test]
fn rejected_submit_that_took_effect_is_rejected() {
    let submit = SUBMIT.replace(r#""ok":{"submitted":[{"created":{"id":"A"}}]}"#, r#""fail":"out_of_range""#);
    let unknown = r#""unknown":"unavailable""#;
    only(Invariant::Unknown, &[&submit, CLAIM, COMPLETE, READ], r#""fail":"out_of_range""#, unknown);
}

#[test]
fn unknown_outcome_that_is_seen_later_is_accepted() {
    let later = r#"
{"at":1007000,"client":"w","op":9,"invoke":{"cancel":{"id":"A"}}}
{"at":1007500,"client":"w","op":9,"unknown":"no answer"}
{"at":1008500,"client":"w","op":9,"attempt":1,"fail":"already_ended"}"#;
    let second = r#""client":"w","op":9,"attempt":1,"fail""#;
    // Another request of it may be answered.
    let sent = "\"client\":\"w\",\"op\":9,\"attempt\":2,\"invoke\":{\"cancel\":{\"id\":\"A\"}}}\n{\"at\":1008600,\"client\":\"w\",\"op\":9,\"attempt\":2,\"fail\"";
    only(Invariant::Unknown, &[SUBMIT, CLAIM, COMPLETE, later, READ], second, sent);
}
