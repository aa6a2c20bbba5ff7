//! The text format that was there before OpenMetrics: `curl` shows it, and `promtool check metrics` reads it.

/// The same metrics. A counter's name there is that of its samples, `_total` and all; an info is a gauge; there are no
/// units and no end.
pub(super) fn to_prometheus_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // What the samples of a family are called beyond its name is known once its type is.
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ').map(|(_, said)| said);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let help = help.take().unwrap_or_default();
            text.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_take_the_name_of_their_samples() {
        let openmetrics = "\
            # HELP a_seconds The first.\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds 1.5\n\
            # HELP b The second, of all.\n# TYPE b counter\nb_total{x=\"# y\"} 2\n\
            # HELP c The third.\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";
        let text = "\
            # HELP a_seconds The first.\n# TYPE a_seconds gauge\na_seconds 1.5\n\
            # HELP b_total The second, of all.\n# TYPE b_total counter\nb_total{x=\"# y\"} 2\n\
            # HELP c_info The third.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n";
        assert_eq!(to_prometheus_text(openmetrics), text);
    }
}
