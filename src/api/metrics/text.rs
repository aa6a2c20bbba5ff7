//! The Prometheus text format, older than OpenMetrics: for `curl` and `promtool check metrics`.

/// Converts OpenMetrics to the Prometheus text format. A counter has the name of its samples, with `_total`. An info is
/// a gauge. Units and the end mark are left out.
pub(super) fn to_prometheus_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // The suffix of the samples depends on the type, which follows the help text.
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
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
