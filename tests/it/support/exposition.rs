//! Parses `/metrics`, and panics if it breaks the OpenMetrics text format or the older Prometheus text format.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a sample, by name.
pub type Labels = BTreeMap<String, String>;

/// A family of metrics.
#[derive(Clone, Debug, Default)]
pub struct Family {
    pub help: String,
    pub kind: String,
    pub unit: Option<String>,
    /// Samples by name.
    pub samples: Vec<(String, Labels, f64)>,
}

/// All families by name.
#[derive(Clone, Debug)]
pub struct Exposition(pub BTreeMap<String, Family>);

impl Exposition {
    /// Parses OpenMetrics text.
    #[track_caller]
    pub fn open(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").expect("an end");
        Self::read(text, |kind| match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            "gauge" => &[""],
            other => panic!("a type {other}"),
        })
    }

    /// Parses the older Prometheus text.
    #[track_caller]
    pub fn older(text: &str) -> Self {
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
        Self::read(text, |kind| match kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            "counter" | "gauge" => &[""],
            other => panic!("a type {other}"),
        })
    }

    #[track_caller]
    fn read(text: &str, suffixes: impl Fn(&str) -> &'static [&'static str]) -> Self {
        assert!(text.ends_with('\n'));
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(said) = line.strip_prefix("# HELP ") {
                let (name, help) = said.split_once(' ').expect("help");
                assert!(is_name(name) && !help.trim().is_empty() && !help.contains('\\'), "{line}");
                let family = Family { help: help.into(), ..Family::default() };
                assert!(families.insert(name.into(), family).is_none(), "{name} comes twice");
                current = name.into();
                continue;
            }
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family for {line}"));
            if let Some(said) = line.strip_prefix("# TYPE ") {
                let (name, kind) = said.split_once(' ').expect("a type");
                assert!(name == current && family.kind.is_empty(), "{line}");
                family.kind = kind.into();
            } else if let Some(said) = line.strip_prefix("# UNIT ") {
                let (name, unit) = said.split_once(' ').expect("a unit");
                assert!(name == current && family.unit.is_none() && family.samples.is_empty(), "{line}");
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
                family.unit = Some(unit.into());
            } else {
                let (name, labels, value) = sample(line);
                let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
                assert!(suffixes(&family.kind).contains(&suffix), "{line}: a {} has no {suffix}", family.kind);
                family.samples.push((name, labels, value));
            }
        }
        for (name, family) in &families {
            family.check(name);
        }
        Exposition(families)
    }

    /// The value of the sample with exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = self.samples().find(|(own, labels, _)| own == name && *labels == wanted);
        found.map(|(_, _, value)| *value)
    }

    /// The same, with 0 for a missing sample.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.value(name, labels).unwrap_or(0.0)
    }

    /// The sum of all samples of this name.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples().filter(|(own, _, _)| own == name).map(|(_, _, value)| value).sum()
    }

    pub fn samples(&self) -> impl Iterator<Item = &(String, Labels, f64)> {
        self.0.values().flat_map(|family| &family.samples)
    }

    /// The values of a label.
    pub fn values_of(&self, label: &str) -> BTreeSet<&str> {
        self.samples().filter_map(|(_, labels, _)| labels.get(label).map(String::as_str)).collect()
    }

    /// The sample names of all families, present or possible.
    pub fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (name, family) in &self.0 {
            let suffixes: &[&str] = match family.kind.as_str() {
                // In the older text, a family has the name of its samples.
                "counter" if !name.ends_with("_total") => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
        }
        names
    }
}

impl Family {
    /// Checks that hold for every family.
    #[track_caller]
    fn check(&self, name: &str) {
        assert!(!self.kind.is_empty(), "{name} has no type");
        let mut seen = BTreeSet::new();
        for (sample, labels, value) in &self.samples {
            assert!(seen.insert((sample, labels)), "{sample} {labels:?} comes twice");
            assert!(value.is_finite(), "{sample} is {value}");
            assert!(self.kind == "gauge" || *value >= 0.0, "{sample} is {value}");
        }
        if self.kind == "histogram" {
            self.check_buckets(name);
        }
    }

    #[track_caller]
    fn check_buckets(&self, name: &str) {
        let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
        for (sample, labels, value) in &self.samples {
            let mut labels = labels.clone();
            if sample.ends_with("_bucket") {
                let end = labels.remove("le").expect("an end");
                buckets.entry(labels).or_default().push((number(&end), *value));
            } else if sample.ends_with("_count") {
                counts.insert(labels, *value);
            }
        }
        assert_eq!(buckets.keys().collect::<Vec<_>>(), counts.keys().collect::<Vec<_>>(), "{name}");
        for (labels, buckets) in buckets {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, counts[&labels])), "{name} {labels:?}");
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

#[track_caller]
fn number(text: &str) -> f64 {
    if text == "+Inf" {
        return f64::INFINITY;
    }
    assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte)), "{text} is no number");
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

/// `name{label="value",…} number`
#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line} is no sample"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, behind) = inside.split_once("=\"").unwrap_or_else(|| panic!("{line}: no label"));
            let (value, behind) = behind.split_once('"').unwrap_or_else(|| panic!("{line}: no value"));
            // Our label values need no escaping.
            assert!(is_name(label) && !value.contains('\\'), "{line}");
            assert!(labels.insert(label.into(), value.into()).is_none(), "{line}: {label} twice");
            match behind.strip_prefix(',') {
                Some(next) => inside = next,
                None => {
                    rest = behind.strip_prefix('}').unwrap_or_else(|| panic!("{line}: no end of labels"));
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}: no value"));
    (name.into(), labels, number(value))
}
