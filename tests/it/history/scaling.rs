//! The checker's work grows with the history's length, not with its square.

use std::fmt::Write as _;

use super::{check, read};

/// A history without faults: `tasks` tasks, each submitted, claimed and completed; every fifth fails first.
fn healthy(tasks: u64) -> String {
    let mut text = String::new();
    let mut reads = Vec::new();
    for n in 0..tasks {
        let (at, queue, slot) = (1_000_000 + n as i64 * 10_000, n % 7, n % 50);
        let ms = at / 1000;
        let mut line = |event: String| writeln!(text, "{event}").expect("a string");
        let told = |at: i64, client: &str, op: u64, what: &str| {
            format!(r#"{{"at":{at},"client":"{client}{}","op":{op},{what}}}"#, n % 11)
        };
        let dedupe = if n % 3 == 0 { format!(r#","dedupe":"k{}""#, n % 9) } else { String::new() };
        let submit = format!(r#""invoke":{{"submit":{{"queue":"q{queue}","items":[{{"name":"n{n}"{dedupe}}}]}}}}"#);
        line(told(at, "p", n, &submit));
        line(told(
            at + 1000,
            "p",
            n,
            &format!(r#""ok":{{"submitted":[{{"created":{{"id":"t{n}","slot":{slot}}}}}]}}"#),
        ));
        let failures = u64::from(n % 5 == 0);
        for attempt in 0..=failures {
            let (at, ms, op) = (at + attempt as i64 * 3000, ms + attempt as i64 * 3, 2 * attempt);
            let (op, last) = (4 * n + op, attempt == failures);
            let claimed = format!(
                r#""ok":{{"claimed":[{{"id":"t{n}","name":"n{n}","token":"l{n}.{attempt}","until":{},"attempt":{}}}]}}"#,
                ms + 2002,
                attempt + 1
            );
            let held = format!(r#""id":"t{n}","token":"l{n}.{attempt}""#);
            let (report, state) = match last {
                true => (format!(r#""invoke":{{"complete":{{{held},"result":"n{n}"}}}}"#), "completed"),
                false => (format!(r#""invoke":{{"fail":{{{held}}}}}"#), "ready"),
            };
            line(told(at + 1500, "w", op, r#""invoke":{"claim":{"lease_ms":2000}}"#));
            line(told(at + 3100, "w", op, &claimed));
            line(told(at + 3200, "w", op + 1, &report));
            line(told(at + 4000, "w", op + 1, &format!(r#""ok":{{"ended":{{"state":"{state}"}}}}"#)));
        }
        reads.push(format!(
            r#"{{"id":"t{n}","name":"n{n}","state":"completed","attempts":{failures},"max_attempts":5,"acquired":{},"result":"n{n}","created_at":{ms},"finished_at":{}}}"#,
            failures + 1,
            ms + 7
        ));
    }
    for queue in 0..7 {
        let at = 2_000_000 + tasks as i64 * 10_000;
        let own: Vec<&str> = reads.iter().skip(queue).step_by(7).map(String::as_str).collect();
        writeln!(text, r#"{{"at":{at},"client":"z","op":{queue},"invoke":{{"tasks":{{"queue":"q{queue}"}}}}}}"#)
            .unwrap();
        let list = own.join(",");
        writeln!(text, r#"{{"at":{},"client":"z","op":{queue},"ok":{{"tasks":[{list}]}}}}"#, at + 1).unwrap();
    }
    text
}

#[test]
fn check_of_twice_the_history_takes_about_twice_the_work() {
    let checked = [20_000, 40_000].map(|tasks| {
        let events = read(healthy(tasks).as_bytes());
        let verdict = check(&events);
        assert!(verdict.findings.is_empty(), "{:#?}", &verdict.findings[..verdict.findings.len().min(5)]);
        assert_eq!(verdict.tasks as u64, tasks);
        (events.len(), verdict.steps)
    });
    let [(_, once), (events, twice)] = checked;
    assert!(events > 200_000, "{events}");
    // n log n is a little more than double; a square would be four times.
    assert!(twice < once * 23 / 10, "{once} steps became {twice}");
    assert!(twice < events as u64 * 40, "{twice} steps for {events} events");
}
