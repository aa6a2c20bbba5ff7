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
use super::super::overviews::Seen;
use super::requests::Series;
use crate::domain::state::State;
use crate::measure::Distribution;
use crate::store::Error;
use crate::store::gate::Loss;
use crate::store::views::overview::{Depths, Overview};
use crate::store::views::queues::Counts;

/// What is written down.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) api: Api,
    pub(super) seen: Result<Seen, Error>,
}

impl Collector for Families {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.requests(&mut page)?;
        self.door(&mut page)?;
        self.tasks(&mut page)?;
        if let Ok(seen) = &self.seen {
            data_set(&mut page, &seen.all)?;
            if let Ok(depths) = &seen.depths {
                queues(&mut page, depths)?;
            }
        }
        self.dispatch(&mut page)?;
        self.upkeep(&mut page)?;
        self.redis(&mut page)
    }
}

impl Families {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.info("slotwheel_build", "What is running.", &version)?;
        let since = self.api.meters.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "When this server started, since 1970-01-01 by the machine's clock.";
        page.gauge("process_start_time", help, SECONDS, since.as_secs_f64())
    }

    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let series = || self.api.meters.requests.series().iter();
        let name = |of: &Series| [("method", of.method), ("route", of.route)];
        let statuses =
            series().flat_map(|of| of.statuses().map(move |(status, count)| (of, status.to_string(), count)));
        page.counters(
            "slotwheel_http_requests",
            "Requests that the router answered.",
            statuses.map(|(of, status, count)| {
                let [method, route] = name(of);
                ([(method.0, method.1.to_owned()), (route.0, route.1.to_owned()), ("code", status)], count)
            }),
        )?;
        page.histograms(
            "slotwheel_http_request_duration",
            "From the head of a request until the head of its answer, of those that did not come to wait for \
             something and were answered with less than 500.",
            SECONDS,
            series().map(|of| (name(of), of.durations.read())),
        )?;
        page.histograms(
            "slotwheel_http_poll_duration",
            "The same of requests that came to wait for something (wait_ms over 0), if only for a moment: how long \
             workers wait, not how fast this server is.",
            SECONDS,
            series().map(|of| (name(of), of.polls.read())),
        )?;
        let abandoned = series().map(|of| (name(of), of.abandoned.read()));
        page.counters(
            "slotwheel_http_requests_abandoned",
            "Requests that were not answered: their client went, or they were cut off.",
            abandoned.filter(|(_, count)| *count > 0),
        )
    }

    fn door(&self, page: &mut Page<'_>) -> fmt::Result {
        let door = &self.api.door;
        page.gauge("slotwheel_connections", "Connections that are open.", None, whole(door.connections()))?;
        let help = "Memory that request bodies take.";
        page.gauge("slotwheel_body", help, BYTES, whole(door.body_bytes()))?;
        // Each stands on its own: what they count is of different kinds, and their sum means nothing.
        for (name, help, count) in door.counts().read() {
            page.counter(&format!("slotwheel_{name}"), help, count)?;
        }
        let polls = self.api.dispatch.polls();
        let help = "Requests that wait, for tasks, for a task's end or for events.";
        page.gauge("slotwheel_waiting_polls", help, None, whole(polls.waiting()))?;
        let help = "Requests that were not let wait, for whatever, because too many did.";
        page.counter("slotwheel_polls_refused", help, polls.refused())
    }

    fn tasks(&self, page: &mut Page<'_>) -> fmt::Result {
        let transitions = self.api.store().client().meters().transitions.read();
        page.counters(
            "slotwheel_transitions",
            "What this server brought about: attempts that failed and leases that ran out, and beside them the tasks \
             that are dead or cancelled by that.",
            transitions.into_iter().map(|(name, _, count)| ([("transition", name)], count)),
        )
    }

    fn dispatch(&self, page: &mut Page<'_>) -> fmt::Result {
        let meters = self.api.dispatch.meters();
        let none: [(&str, &str); 0] = [];
        page.histograms(
            "slotwheel_handout_duration",
            "Until a waiter had its tasks, from when the shard's pump had a reason to look: a waiter or a hint came, a \
             sweep found something, or the call before left something.",
            SECONDS,
            [(none, meters.handouts())],
        )?;
        let help = "Waiters for whom one call of a pump looked.";
        page.histograms("slotwheel_pump_call_waiters", help, None, [(none, meters.waiters())])?;
        let help = "Tasks that one call of a pump brought.";
        page.histograms("slotwheel_pump_call_tasks", help, None, [(none, meters.tasks())])?;
        let gathered = self.api.dispatch.gathered();
        page.histograms(
            "slotwheel_gather_call_items",
            "Items of concurrent requests that went into one call.",
            None,
            gathered.into_iter().map(|(verb, sizes)| ([("verb", verb)], sizes)),
        )?;
        let help = "Leases given back that nobody took: their client had gone, or had been told that nothing came.";
        page.counter("slotwheel_leases_given_back", help, meters.given_back())?;
        page.counters(
            "slotwheel_signals_heard",
            "What scripts published and this server heard; missed: the connection was made anew.",
            meters.signals().read().into_iter().map(|(name, _, count)| ([("signal", name)], count)),
        )?;
        let help = "Looks for what hints may have missed, one a shard.";
        page.counter("slotwheel_sweeps", help, meters.sweeps())
    }

    fn upkeep(&self, page: &mut Page<'_>) -> fmt::Result {
        let meters = self.api.upkeep.meters();
        page.histograms(
            "slotwheel_upkeep_lag",
            "How late this server's upkeep found what was due: delays, retries and leases; deadlines; retentions.",
            SECONDS,
            meters.lags().into_iter().map(|(work, lags)| ([("work", work)], lags)),
        )?;
        page.counter("slotwheel_upkeep_failures", "Turns of upkeep that failed.", meters.failures())
    }

    fn redis(&self, page: &mut Page<'_>) -> fmt::Result {
        let client = self.api.store().client();
        let gates = || self.api.store().shards().iter().map(|shard| &shard.gate);
        let help = "Whether Redis answered this reading in time, in all shards, and its data is served.";
        page.gauge("slotwheel_redis_up", help, None, i64::from(self.seen.is_ok()))?;
        let away = gates().filter(|gate| gate.is_away()).count();
        page.gauge(
            "slotwheel_shards_away",
            "Shards that did not answer when they were last called.",
            None,
            whole(away),
        )?;
        page.gauges(
            "slotwheel_data_loss",
            "Shards whose data is not what it was, until an operator accepts it.",
            None,
            Loss::ALL.map(|loss| {
                let shards = gates().filter(|gate| gate.loss() == Some(loss)).count();
                ([("reason", loss.as_str())], whole(shards))
            }),
        )?;
        page.histograms(
            "slotwheel_redis_call_duration",
            "Calls of Redis by script, until they were answered or given up; command: those of no script.",
            SECONDS,
            client.durations().into_iter().map(|(call, times)| ([("call", call)], times)),
        )?;
        page.counters(
            "slotwheel_redis_errors",
            "Calls of Redis that were given up, those for which too few replicas were there among them.",
            client.meters().errors.read().into_iter().map(|(kind, _, count)| ([("kind", kind)], count)),
        )?;
        let help = "Calls of Redis that were sent again because it was away, or said later.";
        page.counter("slotwheel_redis_calls_repeated", help, client.meters().repeated.read())?;
        let help = "Calls of Redis that were not made because the shard was known to be away, or its data lost.";
        page.counter("slotwheel_redis_calls_refused", help, gates().map(|gate| gate.refused()).sum())
    }
}

fn states(counts: Counts) -> [((&'static str, &'static str), i64); State::ALL.len()] {
    State::ALL.map(|state| (("state", state.as_str()), counts.of(state)))
}

/// How the data set stands. Each server says the same.
fn data_set(page: &mut Page<'_>, seen: &Overview) -> fmt::Result {
    let totals = states(seen.totals).map(|(state, count)| ([state], count));
    page.gauges("slotwheel_tasks", "Tasks of all queues by state.", None, totals)?;
    let help =
        "For how long the first thing that upkeep has to do has been due, whichever server does it; 0: nothing is.";
    page.gauge("slotwheel_upkeep_overdue", help, SECONDS, seconds(seen.overdue_ms))
}

/// And its queues, one by one.
fn queues(page: &mut Page<'_>, depths: &Depths) -> fmt::Result {
    page.gauges(
        "slotwheel_queue_tasks",
        "Tasks by queue and state, of 100 queues at most.",
        None,
        depths.queues.iter().flat_map(|queue| {
            states(queue.counts).map(|(state, count)| ([("queue", queue.name.as_str()), state], count))
        }),
    )?;
    let ages = depths.queues.iter().filter_map(|queue| Some((queue, queue.oldest_ready_age_ms?)));
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
        depths.queues.iter().map(|queue| ([("queue", queue.name.as_str())], i64::from(queue.paused))),
    )?;
    let help = "Whether there are more queues than are shown.";
    page.gauge("slotwheel_queues_truncated", help, None, i64::from(depths.truncated))
}

static UNIT_SECONDS: Unit = Unit::Seconds;
static UNIT_BYTES: Unit = Unit::Bytes;
const SECONDS: Option<&Unit> = Some(&UNIT_SECONDS);
const BYTES: Option<&Unit> = Some(&UNIT_BYTES);

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What is written on.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
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
        list: impl IntoIterator<Item = ([(&'static str, &'static str); N], Distribution)>,
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
