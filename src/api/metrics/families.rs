//! All families of `/metrics`, in the order in which they are shown. docs/metrics.md has the same list.
//!
//! Labels are bounded: by routes, states, scripts, kinds of what happened, and 100 queues.

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

use super::super::Api;
use super::requests::Series;
use crate::api::status_cache::Status;
use crate::domain::state::State;
use crate::metrics::HistogramSnapshot;
use crate::store::Error;
use crate::store::circuit_breaker::DataLoss;
use crate::store::views::queue_stats::{DatasetStats, QueueStatsList};
use crate::store::views::queues::Counts;

/// What is written down.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) api: Api,
    pub(super) status: Result<Status, Error>,
}

impl Collector for Families {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = FamilyEncoder(encoder);
        self.process(&mut page)?;
        self.requests(&mut page)?;
        self.http_server(&mut page)?;
        self.tasks(&mut page)?;
        if let Ok(seen) = &self.status {
            dataset(&mut page, &seen.dataset)?;
            if let Ok(depths) = &seen.queues {
                queues(&mut page, depths)?;
            }
        }
        self.dispatch(&mut page)?;
        self.upkeep(&mut page)?;
        self.redis(&mut page)
    }
}

impl Families {
    fn process(&self, page: &mut FamilyEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.info("slotwheel_build", "What is running.", &version)?;
        let since = self.api.metrics.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "When this server started, since 1970-01-01 by the machine's clock.";
        page.gauge("process_start_time", help, SECONDS, since.as_secs_f64())
    }

    fn requests(&self, page: &mut FamilyEncoder<'_>) -> fmt::Result {
        let series = || self.api.metrics.requests.series().iter();
        let labels = |of: &Series| [("method", of.method), ("route", of.route)];
        let statuses =
            series().flat_map(|of| of.statuses().map(move |(status, count)| (of, status.to_string(), count)));
        page.counters(
            "slotwheel_http_requests",
            "Requests that the router answered.",
            statuses.map(|(of, status, count)| {
                let [method, route] = labels(of);
                ([(method.0, method.1.to_owned()), (route.0, route.1.to_owned()), ("code", status)], count)
            }),
        )?;
        page.histograms(
            "slotwheel_http_request_duration",
            "From the head of a request until the head of its answer, of those that did not come to wait for \
             something and were answered with less than 500.",
            SECONDS,
            series().map(|of| (labels(of), of.durations.read())),
        )?;
        page.histograms(
            "slotwheel_http_long_poll_duration",
            "The same of requests that came to wait for something (wait_ms over 0), if only for a moment: how long \
             workers wait, not how fast this server is.",
            SECONDS,
            series().map(|of| (labels(of), of.long_polls.read())),
        )?;
        let abandoned = series().map(|of| (labels(of), of.abandoned.read()));
        page.counters(
            "slotwheel_http_requests_abandoned",
            "Requests that were not answered: their client went, or they were cut off.",
            abandoned.filter(|(_, count)| *count > 0),
        )
    }

    fn http_server(&self, page: &mut FamilyEncoder<'_>) -> fmt::Result {
        let server = &self.api.server;
        page.gauge("slotwheel_connections", "Connections that are open.", None, to_i64(server.open_connections()))?;
        let help = "Memory that request bodies take.";
        page.gauge("slotwheel_body_memory", help, BYTES, to_i64(server.body_memory_bytes()))?;
        let metrics = server.metrics();
        let help = "Connections that the server accepted.";
        page.counter("slotwheel_connections_accepted", help, metrics.connections_accepted.read())?;
        page.counters(
            "slotwheel_connections_closed",
            "Connections that the server closed, by reason.",
            metrics.connections_closed.read().into_iter().map(|(reason, _, count)| ([("reason", reason)], count)),
        )?;
        page.counters(
            "slotwheel_connections_rejected",
            "Connections that the server rejected at a limit, by reason.",
            metrics.connections_rejected.read().into_iter().map(|(reason, _, count)| ([("reason", reason)], count)),
        )?;
        page.counters(
            "slotwheel_requests_rejected",
            "Requests that the server rejected before a handler had all of them, by reason.",
            metrics.requests_rejected.read().into_iter().map(|(reason, _, count)| ([("reason", reason)], count)),
        )?;
        let limit = self.api.dispatch.poll_limit();
        let help = "Requests that wait, for tasks, for a task's end or for events.";
        page.gauge("slotwheel_waiting_requests", help, None, to_i64(limit.waiting()))?;
        let help = "Requests that were not let wait, for whatever, because too many did.";
        page.counter("slotwheel_waiting_requests_rejected", help, limit.refused())
    }

    fn tasks(&self, page: &mut FamilyEncoder<'_>) -> fmt::Result {
        let transitions = self.api.store().client().metrics().transitions.read();
        page.counters(
            "slotwheel_transitions",
            "What this server brought about: attempts that failed and leases that ran out, and beside them the tasks \
             that are dead or cancelled by that.",
            transitions.into_iter().map(|(name, _, count)| ([("transition", name)], count)),
        )
    }

    fn dispatch(&self, page: &mut FamilyEncoder<'_>) -> fmt::Result {
        let metrics = self.api.dispatch.metrics();
        let none: [(&str, &str); 0] = [];
        page.histograms(
            "slotwheel_delivery_duration",
            "Until a waiter had its tasks, from when the shard's pump had a reason to look: a waiter or a hint came, a \
             sweep found something, or the call before left something.",
            SECONDS,
            [(none, metrics.delivery_duration())],
        )?;
        let help = "Waiters for whom one call of a pump looked.";
        page.histograms("slotwheel_claim_call_waiters", help, None, [(none, metrics.call_waiters())])?;
        let help = "Tasks that one call of a pump brought.";
        page.histograms("slotwheel_claim_call_tasks", help, None, [(none, metrics.call_tasks())])?;
        let batches = self.api.dispatch.batch_items();
        page.histograms(
            "slotwheel_batch_items",
            "Items of concurrent requests that went into one call.",
            None,
            batches.into_iter().map(|(verb, sizes)| ([("operation", verb)], sizes)),
        )?;
        let help = "Leases given back that nobody took: their client had gone, or had been told that nothing came.";
        page.counter("slotwheel_undelivered_leases_released", help, metrics.undelivered_released())?;
        page.counters(
            "slotwheel_wakeups",
            "What scripts published and this server heard; missed: the connection was made anew.",
            metrics.wakeups().read().into_iter().map(|(name, _, count)| ([("kind", name)], count)),
        )?;
        let help = "Looks for what hints may have missed, one a shard.";
        page.counter("slotwheel_polls", help, metrics.polls())
    }

    fn upkeep(&self, page: &mut FamilyEncoder<'_>) -> fmt::Result {
        let metrics = self.api.upkeep.metrics();
        page.histograms(
            "slotwheel_upkeep_lag",
            "How late this server's upkeep found what was due: delays, retries and leases; deadlines; retentions.",
            SECONDS,
            metrics.lags().into_iter().map(|(work, lags)| ([("work", work)], lags)),
        )?;
        page.counter("slotwheel_upkeep_failures", "Turns of upkeep that failed.", metrics.failures())
    }

    fn redis(&self, page: &mut FamilyEncoder<'_>) -> fmt::Result {
        let client = self.api.store().client();
        let breakers = || self.api.store().shards().iter().map(|shard| &shard.breaker);
        let help = "Whether Redis answered this reading in time, in all shards, and its data is served.";
        page.gauge("slotwheel_redis_up", help, None, i64::from(self.status.is_ok()))?;
        let unavailable = breakers().filter(|gate| gate.is_open()).count();
        page.gauge(
            "slotwheel_shards_unavailable",
            "Shards that did not answer when they were last called.",
            None,
            to_i64(unavailable),
        )?;
        page.gauges(
            "slotwheel_data_loss",
            "Shards whose data is not what it was, until an operator accepts it.",
            None,
            DataLoss::ALL.map(|loss| {
                let shards = breakers().filter(|gate| gate.data_loss() == Some(loss)).count();
                ([("reason", loss.as_str())], to_i64(shards))
            }),
        )?;
        page.histograms(
            "slotwheel_redis_call_duration",
            "Calls of Redis by script, until they were answered or given up; command: those of no script.",
            SECONDS,
            client.call_durations().into_iter().map(|(call, times)| ([("call", call)], times)),
        )?;
        page.counters(
            "slotwheel_redis_errors",
            "Calls of Redis that were given up, those for which too few replicas were there among them.",
            client.metrics().errors.read().into_iter().map(|(kind, _, count)| ([("kind", kind)], count)),
        )?;
        let help = "Calls of Redis that were sent again because it was away, or said later.";
        page.counter("slotwheel_redis_retries", help, client.metrics().retries.read())?;
        let help = "Calls of Redis that were not made because the shard was known to be away, or its data lost.";
        page.counter("slotwheel_redis_calls_rejected", help, breakers().map(|gate| gate.refused()).sum())
    }
}

fn labelled_counts(counts: Counts) -> [((&'static str, &'static str), i64); State::ALL.len()] {
    State::ALL.map(|state| (("state", state.as_str()), counts.in_state(state)))
}

/// How the data set stands. Each server says the same.
fn dataset(page: &mut FamilyEncoder<'_>, stats: &DatasetStats) -> fmt::Result {
    let totals = labelled_counts(stats.totals).map(|(state, count)| ([state], count));
    page.gauges("slotwheel_tasks", "Tasks of all queues by state.", None, totals)?;
    let help =
        "For how long the first thing that upkeep has to do has been due, whichever server does it; 0: nothing is.";
    page.gauge("slotwheel_upkeep_overdue", help, SECONDS, seconds(stats.overdue_ms))
}

/// And its queues, one by one.
fn queues(page: &mut FamilyEncoder<'_>, stats: &QueueStatsList) -> fmt::Result {
    page.gauges(
        "slotwheel_queue_tasks",
        "Tasks by queue and state, of 100 queues at most.",
        None,
        stats.queues.iter().flat_map(|queue| {
            labelled_counts(queue.counts).map(|(state, count)| ([("queue", queue.name.as_str()), state], count))
        }),
    )?;
    let ages = stats.queues.iter().filter_map(|queue| Some((queue, queue.oldest_ready_age_ms?)));
    page.gauges(
        "slotwheel_queue_oldest_ready_age",
        "For how long the oldest ready task has been so, as far as its queue's slots are looked at.",
        SECONDS,
        ages.map(|(queue, ms)| ([("queue", queue.name.as_str())], seconds(ms))),
    )?;
    page.gauges(
        "slotwheel_queue_paused",
        "Whether the queue is paused.",
        None,
        stats.queues.iter().map(|queue| ([("queue", queue.name.as_str())], i64::from(queue.paused))),
    )?;
    let help = "Whether there are more queues than are shown.";
    page.gauge("slotwheel_queues_truncated", help, None, i64::from(stats.truncated))
}

static UNIT_SECONDS: Unit = Unit::Seconds;
static UNIT_BYTES: Unit = Unit::Bytes;
const SECONDS: Option<&Unit> = Some(&UNIT_SECONDS);
const BYTES: Option<&Unit> = Some(&UNIT_BYTES);

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What is written on.
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

    /// Of those with labels only the ones that have values.
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

/// What a gauge shows.
trait Value: EncodeGaugeValue + fmt::Debug + Send + Sync + 'static {}
impl Value for i64 {}
impl Value for f64 {}
