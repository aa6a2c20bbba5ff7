//! The report: tables in Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::load::{Measured, Times, Verb};
use crate::stats::{Estimate, Verdict, Wanted};
use crate::workloads::{Entry, Round, Workload};

/// Reasons of the systems without figures, by label.
pub type Absent = BTreeMap<String, String>;

/// Returns the report of one workload.
pub fn workload(workload: &Workload, rounds: &[Round], absent: &Absent) -> String {
    let labels: &Vec<String> = &workload.entries.iter().map(|entry| entry.label.clone()).collect();
    let mut text = format!("\n## ({}) {}\n\n", workload.id, workload.title);
    // Workloads without a window have only their own figures.
    if rounds.iter().flat_map(Round::values).any(|one| one.seconds > 0.0) {
        text += &systems(labels, rounds, absent);
        text += &ratios(&workload.entries, rounds);
    }
    text += &if workload.course { course(labels, rounds, absent) } else { figures(labels, rounds, absent) };
    text += &goals(workload, rounds);
    text
}

fn of<'a>(rounds: &'a [Round], label: &'a str) -> impl Iterator<Item = &'a Measured> {
    rounds.iter().filter_map(move |round| round.get(label))
}

fn median(rounds: &[Round], label: &str, figure: impl Fn(&Measured) -> f64) -> f64 {
    Estimate::of(of(rounds, label).map(figure).collect()).map_or(f64::NAN, |estimate| estimate.median)
}

/// One row per system: medians of its rounds, and the times of all its rounds together.
fn systems(labels: &[String], rounds: &[Round], absent: &Absent) -> String {
    let verbs: Vec<Verb> = {
        let mut found: Vec<Verb> =
            rounds.iter().flat_map(Round::values).flat_map(|one| one.latencies.keys()).copied().collect();
        found.sort();
        found.dedup();
        found
    };
    let mut text =
        "| system | CPU s per 1000 tasks | server | Redis | scripts a task | commands a task | tasks/s | requests/s | CPU of the load |"
            .to_owned();
    let names: String = verbs.iter().map(|verb| format!(" {}, p50 / p99 ms |", name(*verb))).collect();
    let _ = writeln!(text, "{names}\n|---|---|---|---|---|---|---|---|---|{}", "---|".repeat(verbs.len()));
    for label in labels {
        if let Some(why) = absent.get(label) {
            let _ = writeln!(text, "| {label} | {why} |{}", " |".repeat(7 + verbs.len()));
            continue;
        }
        let _ = write!(
            text,
            "| {label} | {:.4} | {:.4} | {:.4} | {} | {} | {:.0} | {:.0} | {:.0} % |",
            median(rounds, label, |one| one.cost() / 1000.0),
            median(rounds, label, |one| one.server_cost() / 1000.0),
            median(rounds, label, |one| one.redis_cost() / 1000.0),
            cell(median(rounds, label, Measured::scripts)),
            cell(median(rounds, label, Measured::commands)),
            median(rounds, label, Measured::rate),
            median(rounds, label, |one| one.requests as f64 / one.seconds),
            median(rounds, label, |one| one.spent.generator / one.seconds * 100.0),
        );
        for verb in &verbs {
            let mut all: Option<Times> = None;
            for times in of(rounds, label).filter_map(|one| one.latencies.get(verb)) {
                match &mut all {
                    Some(all) => all.add(times).expect("all have the same precision"),
                    None => all = Some(times.clone()),
                }
            }
            let ms = |times: &Times, quantile| times.value_at_quantile(quantile) as f64 / 1e6;
            let cell = all.map(|all| format!("{:.2} / {:.2}", ms(&all, 0.5), ms(&all, 0.99)));
            let _ = write!(text, " {} |", cell.unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

/// A figure, or a dash if there is none.
fn cell(figure: f64) -> String {
    if figure.is_nan() { "–".to_owned() } else { format!("{figure:.2}") }
}

/// The names of a workload's own figures.
fn names(rounds: &[Round]) -> BTreeSet<&'static str> {
    rounds.iter().flat_map(Round::values).flat_map(|one| one.figures.keys().copied()).collect()
}

/// A workload's own figures, as medians.
fn figures(labels: &[String], rounds: &[Round], absent: &Absent) -> String {
    let names: Vec<&'static str> = names(rounds).into_iter().collect();
    if names.is_empty() && rounds.iter().any(|round| !round.is_empty()) {
        return String::new();
    }
    let columns = names.len().max(1);
    let mut text = format!("\n| system | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(columns));
    for label in labels {
        let cells: Vec<String> = names
            .iter()
            .map(|name| median(rounds, label, |one| one.figures.get(name).copied().unwrap_or(f64::NAN)))
            .map(cell)
            .collect();
        let cells = absent.get(label).cloned().unwrap_or_else(|| cells.join(" | "));
        let _ = writeln!(text, "| {label} | {cells} |");
    }
    text
}

/// The course of a load through all rounds: each figure in the first and the last round, and the ratios of the rounds of
/// the second half to those of the first.
fn course(labels: &[String], rounds: &[Round], absent: &Absent) -> String {
    type Figure = Box<dyn Fn(&Measured) -> f64>;
    let mut shown: Vec<(&str, Figure)> = vec![
        ("CPU s per 1000 tasks", Box::new(|one| one.cost() / 1000.0)),
        ("server", Box::new(|one| one.server_cost() / 1000.0)),
        ("Redis", Box::new(|one| one.redis_cost() / 1000.0)),
    ];
    for name in names(rounds) {
        shown.push((name, Box::new(move |one| one.figures.get(name).copied().unwrap_or(f64::NAN))));
    }
    let mut text =
        "\n| system | figure | first round | last round | second half to first half |\n|---|---|---|---|---|\n"
            .to_owned();
    for label in labels.iter().filter(|label| !absent.contains_key(*label)) {
        let course: Vec<&Measured> = of(rounds, label).collect();
        let (Some(first), Some(last)) = (course.first(), course.last()) else { continue };
        let half = course.len() / 2;
        for (name, figure) in &shown {
            let ratios = course.iter().zip(&course[course.len() - half..]).take(half);
            let ratios = ratios.map(|(early, late)| figure(late) / figure(early)).filter(|ratio| ratio.is_finite());
            let ratio = Estimate::of(ratios.collect()).map_or_else(|| "–".to_owned(), |estimate| show(&estimate));
            let _ = writeln!(text, "| {label} | {name} | {:.4} | {:.4} | {ratio} |", figure(first), figure(last));
        }
    }
    text
}

/// Ratios by pairs: the first entry of a case to each of its others, except to other kinds of work of the same system.
fn ratios(entries: &[Entry], rounds: &[Round]) -> String {
    let mut text = String::new();
    for (place, other) in entries.iter().enumerate() {
        let Some(first) = entries[..place].iter().find(|first| first.case == other.case) else { continue };
        if other.kind == first.kind && other.script != first.script {
            continue;
        }
        let (first, other) = (&first.label, &other.label);
        let pairs: Vec<(&Measured, &Measured)> =
            rounds.iter().filter_map(|round| Some((round.get(first)?, round.get(other)?))).collect();
        let ratio = |figure: fn(&Measured) -> f64| {
            let ratios = pairs.iter().map(|(one, other)| figure(one) / figure(other)).filter(|ratio| ratio.is_finite());
            Estimate::of(ratios.collect()).map_or_else(|| "–".to_owned(), |estimate| show(&estimate))
        };
        if pairs.is_empty() {
            continue;
        }
        let server = ratio(Measured::server_cost);
        let (cost, redis, rate) = (ratio(Measured::cost), ratio(Measured::redis_cost), ratio(Measured::rate));
        let _ = writeln!(text, "| {first} to {other} | {cost} | {server} | {redis} | {rate} |");
    }
    if text.is_empty() {
        return text;
    }
    let head = "\n| ratio of pairs, 95 % interval | CPU per task | server | Redis | tasks/s |\n|---|---|---|---|---|\n";
    format!("{head}{text}")
}

fn goals(workload: &Workload, rounds: &[Round]) -> String {
    let mut text = String::new();
    for goal in &workload.goals {
        let figures: Vec<f64> = rounds.iter().filter_map(|round| (goal.figure)(round)).collect();
        let (measured, verdict) = match Estimate::of(figures) {
            None => ("not measured".to_owned(), "–"),
            Some(estimate) if workload.once => {
                (format!("{:.2}", estimate.median), word(goal.wanted.verdict(&estimate.as_it_is())))
            }
            Some(estimate) => (show(&estimate), word(goal.wanted.verdict(&estimate))),
        };
        let _ = writeln!(text, "| {} | {measured} | {} | {verdict} |", goal.text, bound(goal.wanted));
    }
    if text.is_empty() { text } else { format!("\n| goal | measured | wanted | |\n|---|---|---|---|\n{text}") }
}

fn show(estimate: &Estimate) -> String {
    let Estimate { median, interval, of } = estimate;
    match interval {
        Some((low, high)) => format!("{median:.3} ({low:.3} to {high:.3})"),
        None => format!("{median:.3} (no interval of {of})"),
    }
}

fn bound(wanted: Wanted) -> String {
    match wanted {
        Wanted::AtMost(bound) => format!("at most {bound:.2}"),
        Wanted::AtLeast(bound) => format!("at least {bound:.2}"),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "**does not hold**",
        Verdict::Undecided => "undecided",
    }
}

fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Submit => "submit",
        Verb::Take => "claim",
        Verb::Finish => "complete",
        Verb::FinishAndTake => "complete and claim",
        Verb::SubmitMany => "submit a batch",
        Verb::FinishMany => "complete a batch",
        Verb::PickUp => "pick-up",
        Verb::Life => "life",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spent::Spent;
    use crate::systems::Kind;
    use crate::workloads::Script;

    /// A round with the processor time of each label, in seconds for a thousand tasks.
    fn round(times: &[(&str, f64)]) -> Round {
        let measured = |server: f64| Measured {
            seconds: 1.0,
            tasks: 1000,
            spent: Spent { server, ..Spent::default() },
            figures: [("MB of Redis", server * 10.0)].into(),
            ..Measured::default()
        };
        times.iter().map(|(label, server)| ((*label).to_owned(), measured(*server))).collect()
    }

    #[test]
    fn ratios_compare_entries_of_one_case() {
        let life = Script::Life { keyed: false };
        let entries: Vec<Entry> = ["few", "many"]
            .into_iter()
            .flat_map(|case| [Kind::Slotwheel, Kind::Other].map(|kind| Entry::of_case(kind, life, case)))
            .collect();
        let rounds =
            [round(&[("slotwheel, few", 1.0), ("other, few", 2.0), ("slotwheel, many", 3.0), ("other, many", 4.0)])];
        let text = ratios(&entries, &rounds);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| slotwheel")).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(rows[0].starts_with("| slotwheel, few to other, few | 0.500 "), "{text}");
        assert!(rows[1].starts_with("| slotwheel, many to other, many | 0.750 "), "{text}");
    }

    #[test]
    fn course_compares_the_first_round_with_the_last_and_both_halves() {
        // From the first half to the second: 1 to 3, 2 to 4, and the middle one of five rounds belongs to neither.
        let rounds: Vec<Round> = [1.0, 2.0, 9.0, 3.0, 4.0].map(|time| round(&[("slotwheel", time)])).into();
        let text = course(&["slotwheel".to_owned()], &rounds, &Absent::new());
        assert!(text.contains("| slotwheel | server | 1.0000 | 4.0000 | 2.500 (no interval of 2) |"), "{text}");
        assert!(text.contains("| slotwheel | MB of Redis | 10.0000 | 40.0000 | 2.500 (no interval of 2) |"), "{text}");
    }
}
