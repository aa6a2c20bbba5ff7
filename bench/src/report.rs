//! The report: tables in Markdown.

use std::collections::BTreeMap;
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
    text += &figures(labels, rounds, absent);
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
        "| system | CPU s per 1000 tasks | server | Redis | tasks/s | requests/s | CPU of the load |".to_owned();
    let names: String = verbs.iter().map(|verb| format!(" {}, p50 / p99 ms |", name(*verb))).collect();
    let _ = writeln!(text, "{names}\n|---|---|---|---|---|---|---|{}", "---|".repeat(verbs.len()));
    for label in labels {
        if let Some(why) = absent.get(label) {
            let _ = writeln!(text, "| {label} | {why} |{}", " |".repeat(5 + verbs.len()));
            continue;
        }
        let _ = write!(
            text,
            "| {label} | {:.4} | {:.4} | {:.4} | {:.0} | {:.0} | {:.0} % |",
            median(rounds, label, |one| one.cost() / 1000.0),
            median(rounds, label, |one| one.server / one.tasks as f64 * 1000.0),
            median(rounds, label, |one| one.redis_cost() / 1000.0),
            median(rounds, label, Measured::rate),
            median(rounds, label, |one| one.requests as f64 / one.seconds),
            median(rounds, label, |one| one.generator / one.seconds * 100.0),
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

/// A workload's own figures, as medians.
fn figures(labels: &[String], rounds: &[Round], absent: &Absent) -> String {
    let all = rounds.iter().flat_map(Round::values).max_by_key(|one| one.figures.len());
    let names: Vec<&'static str> = all.map(|one| one.figures.keys().copied().collect()).unwrap_or_default();
    if names.is_empty() && rounds.iter().any(|round| !round.is_empty()) {
        return String::new();
    }
    let columns = names.len().max(1);
    let mut text = format!("\n| system | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(columns));
    for label in labels {
        let cells: Vec<String> = names
            .iter()
            .map(|name| median(rounds, label, |one| one.figures.get(name).copied().unwrap_or(f64::NAN)))
            .map(|figure| if figure.is_nan() { "–".to_owned() } else { format!("{figure:.2}") })
            .collect();
        let cells = absent.get(label).cloned().unwrap_or_else(|| cells.join(" | "));
        let _ = writeln!(text, "| {label} | {cells} |");
    }
    text
}

/// Ratios by pairs: the first entry to every other, except to other kinds of work of the same system.
fn ratios(entries: &[Entry], rounds: &[Round]) -> String {
    let Some((first, others)) = entries.split_first() else { return String::new() };
    let mut text = String::new();
    for other in others.iter().filter(|other| other.kind != first.kind || other.script == first.script) {
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
        let server = ratio(|one| one.server / one.tasks as f64);
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
    }
}
