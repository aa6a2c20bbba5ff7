//! All metric families of `/metrics`, in the order of the response. docs/metrics.md has the same list.
//!
//! Every label is bounded: by the routes, states, scripts, kinds, and 100 queues.

use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric as _, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::api::request_metrics::Series;
use crate::api::state::Api;
use crate::api::status_cache::Status;
use crate::degradations::Reason;
use crate::domain::state::State;
use crate::logging;
use crate::metrics::HistogramSnapshot;
use crate::store::Error;
use crate::store::error::DataLoss;
use crate::store::memory::memory_totals;
use crate::store::views::queue_stats::{DatasetStats, QueueStatsList};
use crate::store::views::queues::Counts;

/// The metrics of one response.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) api: Api,
    pub(super) status: Result<Status, Error>,
}

impl Collector for Families {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut encoder = FamilyEncoder(encoder);
        self.process(&mut encoder)?;
        self.requests(&mut encoder)?;
        self.http_server(&mut encoder)?;
        self.tasks(&mut encoder)?;
        if let Ok(status) = &self.status {
            dataset(&mut encoder, &status.dataset)?;
            if let Ok(stats) = &status.queues {
                queues(&mut encoder, stats)?;
            }
        }
        self.dispatch(&mut encoder)?;
        self.upkeep(&mut encoder)?;
        self.redis(&mut encoder)
    }
}

impl Families {
    fn process(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder.info("slotwheel_build", "The version that is running.", &version)?;
        let started_at = self.api.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "Log lines dropped because nothing reads stderr.";
        encoder.counter("slotwheel_log_lines_dropped", help, logging::dropped_lines())?;
        let help = "Start time of this process, in seconds since 1970-01-01 by the system clock.";
        encoder.gauge("process_start_time", help, SECONDS, started_at.as_secs_f64())
    }

    fn requests(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        let series = || self.api.request_metrics.series().iter();
        let labels = |series: &Series| [("method", series.method), ("route", series.route)];
        let statuses = series().flat_map(|series| {
            series.statuses().map(move |(status, count)| {
                let [method, route] = labels(series).map(|(name, value)| (name, value.to_owned()));
                ([method, route, ("code", status.to_string())], count)
            })
        });
        encoder.counters("slotwheel_http_requests", "Responses by method, route and status.", statuses)?;
        encoder.histograms(
            "slotwheel_http_request_duration",
            "Time from a request's head to its response's head. Long polls and server errors are left out.",
            SECONDS,
            series().map(|series| (labels(series), series.durations.read())),
        )?;
        encoder.histograms(
            "slotwheel_http_long_poll_duration",
            "The same time for long polls: requests with a wait_ms above 0. It shows how long clients wait for tasks, \
             not how fast the server is.",
            SECONDS,
            series().map(|series| (labels(series), series.long_polls.read())),
        )?;
        encoder.counters(
            "slotwheel_http_requests_abandoned",
            "Requests without a response: the client disconnected, or the server closed the connection.",
            series().filter_map(|series| Some((labels(series), series.abandoned()?))),
        )
    }

    fn http_server(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        let server = &self.api.server;
        encoder.gauge("slotwheel_connections", "Open connections.", None, to_i64(server.open_connections()))?;
        let help = "Memory reserved for request bodies.";
        encoder.gauge("slotwheel_body_memory", help, BYTES, to_i64(server.body_memory_bytes()))?;
        let metrics = server.metrics();
        encoder.all_counters(metrics.counters.read())?;
        encoder.counters(
            "slotwheel_connections_closed",
            "Connections that the server closed, by reason.",
            by_label("reason", metrics.connections_closed.read()),
        )?;
        encoder.counters(
            "slotwheel_connections_rejected",
            "Connections that the server rejected at a limit, by reason.",
            by_label("reason", metrics.connections_rejected.read()),
        )?;
        encoder.counters(
            "slotwheel_requests_rejected",
            "Requests that the server rejected before a handler had all of them, by reason.",
            by_label("reason", metrics.requests_rejected.read()),
        )?;
        let limit = self.api.dispatch.poll_limit();
        let help = "Requests that wait for tasks, for a task's end or for events.";
        encoder.gauge("slotwheel_waiting_requests", help, None, to_i64(limit.waiting()))?;
        let help = "Requests that could not wait because the limit of waiting requests was reached.";
        encoder.counter("slotwheel_waiting_requests_rejected", help, limit.rejected())
    }

    fn tasks(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        encoder.counters(
            "slotwheel_transitions",
            "Transitions of tasks made by this server. A failed attempt or an expired lease that ends its task counts \
             twice: once as failed or lease_expired, once as dead or cancelled.",
            by_label("transition", self.api.store().client().metrics().transitions.read()),
        )
    }

    fn dispatch(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        let metrics = self.api.dispatch.metrics();
        encoder.all_histograms(metrics.histograms.read())?;
        encoder.histograms(
            "slotwheel_batch_items",
            "Items of concurrent requests that were sent in one script call, by operation.",
            None,
            self.api.dispatch.batch_items().into_iter().map(|(operation, sizes)| ([("operation", operation)], sizes)),
        )?;
        encoder.all_counters(metrics.counters.read())?;
        encoder.counters(
            "slotwheel_wakeups",
            "Wake-ups received from Redis, by kind. gap: the connection was opened anew, so some may be missing.",
            by_label("kind", metrics.wakeups.read()),
        )
    }

    fn upkeep(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        let metrics = self.api.upkeep.metrics();
        encoder.histograms(
            "slotwheel_upkeep_lag",
            "Time from due until a turn of upkeep at this server took work. expire_leases and promote share one due time.",
            SECONDS,
            metrics.lags().into_iter().map(|(job, lags)| ([("upkeep_job", job)], lags)),
        )?;
        encoder.histograms(
            "slotwheel_upkeep_run_duration",
            "Duration of the runs of a job of upkeep, including failed ones.",
            SECONDS,
            metrics.run_durations().into_iter().map(|(job, durations)| ([("upkeep_job", job)], durations)),
        )?;
        encoder.counters(
            "slotwheel_upkeep_failures",
            "Failed runs of a job of upkeep.",
            metrics.failures().into_iter().map(|(job, count)| ([("upkeep_job", job)], count)),
        )?;
        encoder.counters(
            "slotwheel_upkeep_postponed",
            "Entries that a job of upkeep could not process, and postponed by a minute.",
            metrics.postponed().into_iter().map(|(job, count)| ([("upkeep_job", job)], count)),
        )
    }

    fn memory(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        let store = self.api.store();
        encoder.counters(
            "slotwheel_history_deleted",
            "Ended tasks that this server deleted before the end of their retention, by reason.",
            by_label("reason", store.client().metrics().history_deleted.read()),
        )?;
        let Some(totals) = memory_totals(store.shards().iter().map(|shard| &*shard.memory)) else { return Ok(()) };
        let help = "Memory in use by all masters, as last read by this server.";
        encoder.gauge("slotwheel_redis_memory", help, BYTES, to_i64(totals.used))?;
        let help = "Sum of maxmemory of all masters; 0 if a master has no limit.";
        encoder.gauge("slotwheel_redis_max_memory", help, BYTES, to_i64(totals.max.unwrap_or(0)))?;
        let help = "Used share of maxmemory of the fullest master; 0 if no master has a limit.";
        encoder.gauge("slotwheel_redis_memory_used_ratio", help, None, totals.fullest.unwrap_or(0.0))?;
        let help = "Estimated memory of ended tasks.";
        encoder.gauge("slotwheel_history_memory", help, BYTES, to_i64(totals.history.bytes))
    }

    fn redis(&self, encoder: &mut FamilyEncoder<'_>) -> fmt::Result {
        let client = self.api.store().client();
        let breakers = || self.api.store().shards().iter().map(|shard| &shard.breaker);
        let help = "1 if every shard answered this reading in time and no data loss is detected, else 0.";
        encoder.gauge("slotwheel_redis_up", help, None, i64::from(self.status.is_ok()))?;
        let unavailable = breakers().filter(|breaker| breaker.is_open()).count();
        let help = "Shards whose circuit breaker is open: their last call was not answered.";
        encoder.gauge("slotwheel_shards_unavailable", help, None, to_i64(unavailable))?;
        encoder.gauges(
            "slotwheel_data_loss",
            "Shards with a detected data loss that no operator has accepted yet, by reason.",
            None,
            DataLoss::ALL.map(|loss| {
                let shards = breakers().filter(|breaker| breaker.data_loss() == Some(loss)).count();
                ([("reason", loss.as_str())], to_i64(shards))
            }),
        )?;
        self.memory(encoder)?;
        let shifts = self.api.store().shards().iter().map(|shard| shard.clock.shift_ms());
        let shift_ms = shifts.max_by_key(|shift| shift.unsigned_abs()).unwrap_or(0);
        let help = "Largest shift of a shard's clock against Redis' clock: by so much Redis' clock was set.";
        encoder.gauge("slotwheel_clock_shift", help, SECONDS, seconds(shift_ms))?;
        let degradations = self.api.store().degradations();
        encoder.gauges(
            "slotwheel_degradations",
            "Degradations that /readyz lists, by reason.",
            None,
            Reason::ALL.iter().map(|reason| ([("reason", reason.as_str())], to_i64(degradations.count(*reason)))),
        )?;
        encoder.histograms(
            "slotwheel_redis_call_duration",
            "Time of a Redis call until its answer or its failure, by script; command: calls without a script.",
            SECONDS,
            client.call_durations().into_iter().map(|(call, times)| ([("call", call)], times)),
        )?;
        encoder.counters(
            "slotwheel_redis_errors",
            "Failed Redis calls, by kind. unconfirmed: too few replicas confirmed a submit.",
            by_label("kind", client.metrics().errors.read()),
        )?;
        encoder.all_counters(client.metrics().counters.read())?;
        let help = "Redis calls that were not sent: the circuit breaker was open, or a data loss was detected.";
        encoder.counter("slotwheel_redis_calls_rejected", help, breakers().map(|breaker| breaker.rejected()).sum())
    }
}

/// Gives each counter of a table its name as the value of one label.
fn by_label(
    label: &'static str,
    counters: Vec<(&'static str, &'static str, u64)>,
) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
    counters.into_iter().map(move |(name, _, count)| ([(label, name)], count))
}

fn labelled_counts(counts: Counts) -> [((&'static str, &'static str), i64); State::ALL.len()] {
    State::ALL.map(|state| (("state", state.as_str()), counts.in_state(state)))
}

/// Writes the totals of the data set. Every server shows the same values.
fn dataset(encoder: &mut FamilyEncoder<'_>, stats: &DatasetStats) -> fmt::Result {
    let totals = labelled_counts(stats.totals).map(|(state, count)| ([state], count));
    encoder.gauges("slotwheel_tasks", "Tasks of all queues, by state.", None, totals)?;
    let help = "Time since the oldest due upkeep work was due, in any shard; 0 if none is due.";
    encoder.gauge("slotwheel_upkeep_overdue", help, SECONDS, seconds(stats.overdue_ms))
}

/// Writes the state of each queue. Every server shows the same values.
fn queues(encoder: &mut FamilyEncoder<'_>, stats: &QueueStatsList) -> fmt::Result {
    encoder.gauges(
        "slotwheel_queue_tasks",
        "Tasks by queue and state, of at most 100 queues.",
        None,
        stats.queues.iter().flat_map(|queue| {
            labelled_counts(queue.counts).map(|(state, count)| ([("queue", queue.name.as_str()), state], count))
        }),
    )?;
    let ages = stats.queues.iter().filter_map(|queue| Some((queue, queue.oldest_ready_age_ms?)));
    encoder.gauges(
        "slotwheel_queue_oldest_ready_age",
        "Time since the oldest ready task became ready, among the slots that are read for each queue.",
        SECONDS,
        ages.map(|(queue, ms)| ([("queue", queue.name.as_str())], seconds(ms))),
    )?;
    encoder.gauges(
        "slotwheel_queue_paused",
        "1 if the queue is paused, else 0.",
        None,
        stats.queues.iter().map(|queue| ([("queue", queue.name.as_str())], i64::from(queue.paused))),
    )?;
    let help = "1 if there are more queues than are shown, else 0.";
    encoder.gauge("slotwheel_queues_truncated", help, None, i64::from(stats.truncated))
}

static UNIT_SECONDS: Unit = Unit::Seconds;
static UNIT_BYTES: Unit = Unit::Bytes;
const SECONDS: Option<&Unit> = Some(&UNIT_SECONDS);
const BYTES: Option<&Unit> = Some(&UNIT_BYTES);

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn to_i64(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// Writes families in the text format.
struct FamilyEncoder<'a>(DescriptorEncoder<'a>);

impl FamilyEncoder<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn info(&mut self, name: &str, help: &str, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.family(name, help, None, MetricType::Info)?.encode_info(labels)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: impl Value) -> fmt::Result {
        ConstGauge::new(value).encode(self.family(name, help, unit, MetricType::Gauge)?)
    }

    fn gauges<L: EncodeLabelSet, V: Value>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        list: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, unit, MetricType::Gauge)?;
        list.into_iter().try_for_each(|(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?))
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        ConstCounter::new(count).encode(self.family(name, help, None, MetricType::Counter)?)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        list: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, None, MetricType::Counter)?;
        list.into_iter().try_for_each(|(labels, count)| ConstCounter::new(count).encode(family.encode_family(&labels)?))
    }

    /// Writes a table of counters without labels.
    fn all_counters(&mut self, counters: Vec<(&'static str, &'static str, u64)>) -> fmt::Result {
        counters.into_iter().try_for_each(|(name, help, count)| self.counter(&format!("slotwheel_{name}"), help, count))
    }

    /// Writes a table of histograms without labels.
    fn all_histograms(&mut self, histograms: Vec<(&'static str, &'static str, HistogramSnapshot)>) -> fmt::Result {
        let none: [(&str, &str); 0] = [];
        histograms.into_iter().try_for_each(|(name, help, values)| {
            let unit = values.is_time.then_some(&UNIT_SECONDS);
            self.histograms(&format!("slotwheel_{name}"), help, unit, [(none, values)])
        })
    }

    /// Writes histograms of one family. With labels, a histogram without values is left out.
    fn histograms<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        list: impl IntoIterator<Item = ([(&'static str, &'static str); N], HistogramSnapshot)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, unit, MetricType::Histogram)?;
        for (labels, values) in list {
            let (sum, count) = (values.sum, values.count());
            if N == 0 {
                family.encode_histogram::<NoLabelSet>(sum, count, &values.buckets, None)?;
            } else if count > 0 {
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &values.buckets, None)?;
            }
        }
        Ok(())
    }
}

/// The value of a gauge.
trait Value: EncodeGaugeValue + fmt::Debug + Send + Sync + 'static {}
impl Value for i64 {}
impl Value for f64 {}
