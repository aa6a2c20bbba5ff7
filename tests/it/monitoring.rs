//! The dashboard, the alerts and the list of families name existing metrics and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::metrics::{metrics, use_it};
use crate::support::exposition::Exposition;
use crate::support::{Fixture, text};

/// Labels added by Prometheus, or of histogram samples alone.
const COMMON: [&str; 3] = ["job", "instance", "le"];
/// Labels with all their values present from the start.
const COMPLETE: [&str; 4] = ["state", "transition", "kind", "reason"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The metric names in `text`, each with the label matchers right after it.
fn selectors(text: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = ["slotwheel_", "process_"].iter().filter_map(|begin| rest.find(begin)).min() {
        rest = &rest[start..];
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        rest = behind;
        let inside =
            behind.strip_prefix('{').and_then(|behind| behind.split_once('}')).map_or("", |(inside, _)| inside);
        let matchers = inside.split(',').map(str::trim).filter(|matcher| !matcher.is_empty());
        let label = |matcher: &'_ str| matcher.find(['=', '!']).unwrap_or(matcher.len());
        let parted = matchers.map(|matcher| matcher.split_at(label(matcher)));
        found.push((name, parted.map(|(name, rest)| (name, rest.trim_start_matches(['=', '!', '~']))).collect()));
    }
    found
}

/// The family of a sample name.
fn family_of(there: &Exposition, sample: &str) -> Option<String> {
    let suffixes = ["", "_total", "_bucket", "_sum", "_count", "_info"].into_iter();
    let families = suffixes.filter_map(|suffix| sample.strip_suffix(suffix));
    there
        .names()
        .contains(sample)
        .then(|| families.into_iter().find(|name| there.0.contains_key(*name)))?
        .map(str::to_owned)
}

/// The rows of the list: type and labels of each family.
fn listed() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut listed = BTreeMap::new();
    let list = read("docs/metrics.md");
    for row in list.lines().filter(|line| line.starts_with("| `slotwheel_") || line.starts_with("| `process_")) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (name, kind) = (cells.next().unwrap().trim_matches('`'), cells.next().unwrap());
        let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap_or((name, ""));
        let family = match kind {
            "counter" => name.strip_suffix("_total").unwrap(),
            "info" => name.strip_suffix("_info").unwrap(),
            _ => name,
        };
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        assert!(listed.insert(family.to_owned(), (kind.to_owned(), labels)).is_none(), "{family} is listed twice");
    }
    listed
}

/// The labels in grouping and joining clauses of `text`.
fn groups(text: &str) -> impl Iterator<Item = &str> {
    let behind = |word| text.split(word).skip(1).filter_map(|behind: &str| behind.split_once(')'));
    let lists =
        ["by (", "on (", "without (", "ignoring (", "group_left (", "group_right ("].into_iter().flat_map(behind);
    lists.flat_map(|(list, _)| list.split(',')).map(str::trim).filter(|label| !label.is_empty())
}

/// Unknown metrics, labels and label values in `text`.
fn unknown(there: &Exposition, text: &str) -> Vec<String> {
    let listed = listed();
    let mut wrong = Vec::new();
    let is_label = |label| COMMON.contains(&label) || listed.values().any(|(_, labels)| labels.contains(label));
    // A metric of Prometheus itself.
    let is_known = |label| is_label(label) || label == "alertname";
    wrong.extend(groups(text).filter(|label| !is_known(label)).map(|label| format!("by {label}")));
    let routes: BTreeSet<&str> = slotwheel::api::route_table().iter().map(|(_, route, _)| *route).collect();
    for (name, labels) in selectors(text) {
        let Some(family) = family_of(there, name) else {
            wrong.push(name.to_owned());
            continue;
        };
        for (label, wanted) in labels {
            if !COMMON.contains(&label) && !listed[&family].1.contains(label) {
                wrong.push(format!("{name}{{{label}}}"));
            }
            let known = match label {
                "route" => &routes,
                label if COMPLETE.contains(&label) => &there.values_of(label),
                _ => continue,
            };
            let values = wanted.trim_matches('"').split('|').filter(|value| !value.starts_with('$'));
            wrong.extend(values.filter(|value| !known.contains(value)).map(|value| format!("{label}={value}")));
        }
    }
    wrong
}

#[tokio::test]
async fn dashboard_and_alerts_name_existing_metrics() {
    let fixture = Fixture::start().await;
    use_it(&fixture).await;
    let there = metrics(&fixture).await;
    let none: [&str; 0] = [];
    assert_eq!(unknown(&there, r#"sum(slotwheel_tasks{job=~"$job",state=~"ready|dead"}) > 1"#), none);
    let wrong = unknown(&there, r#"slotwheel_task + slotwheel_tasks{queue="q", state!="raedy"}"#);
    assert_eq!(wrong, ["slotwheel_task", "slotwheel_tasks{queue}", "state=raedy"]);
    let wrong = unknown(&there, r#"sum by (job, verbb) (slotwheel_http_requests_total{route="/raedyz"})"#);
    assert_eq!(wrong, ["by verbb", "route=/raedyz"]);

    let board: Value = serde_json::from_str(&read("deploy/grafana/slotwheel.json")).unwrap();
    let mut asked = 0;
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64()), "{} has the id of another", panel["title"]);
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(unknown(&there, text(&target["expr"])), none, "{}", panel["title"]);
            asked += 1;
        }
    }
    assert!(asked > 40);
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    assert_eq!(unknown(&there, &rules), none);
    assert_eq!(unknown(&there, &tests), none);
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = text(&rule["alert"]);
        assert!(text(&rule["annotations"]["runbook"]).len() > 40, "{name} does not say what to do");
        assert!(tests.contains(&format!("\"{name}\"")), "{name} is not tested");
    }
    fixture.end().await;
}

#[tokio::test]
async fn metrics_doc_lists_each_family_with_its_type_and_labels() {
    let fixture = Fixture::start().await;
    use_it(&fixture).await;
    let there = metrics(&fixture).await;
    let listed = listed();
    assert_eq!(listed.keys().collect::<Vec<_>>(), there.0.keys().collect::<Vec<_>>());
    for (name, family) in &there.0 {
        let (kind, labels) = &listed[name];
        assert_eq!(&family.kind, kind, "{name}");
        for (sample, own, _) in &family.samples {
            let own: BTreeSet<String> = own.keys().filter(|label| *label != "le").cloned().collect();
            assert_eq!(&own, labels, "{sample}");
        }
    }
    fixture.end().await;
}
