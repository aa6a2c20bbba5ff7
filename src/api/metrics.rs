//! `/metrics`: what this process knows of itself, as OpenMetrics. Nothing is asked of Redis, so it answers whatever
//! has happened there.

use axum::extract::State as Shared;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Api;
use super::problem::{Code, Problem};
use crate::store::gate::Loss;

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

pub(super) async fn read(Shared(api): Shared<Api>) -> Result<Response, Problem> {
    let mut text = String::new();
    encode(&mut text, &registry(&api)).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Problem::new(Code::Internal, "the server's log says more")
    })?;
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, OPENMETRICS);
    Ok(response)
}

/// Made for each reading: the figures themselves live where they arise.
fn registry(api: &Api) -> Registry {
    let mut registry = Registry::with_prefix("slotwheel");
    let gates = || api.store().shards().iter().map(|shard| &shard.gate);
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);

    let away = Gauge::<i64>::default();
    away.set(count(gates().filter(|gate| gate.is_away()).count()));
    registry.register("shards_away", "Shards that did not answer when they were last called", away);

    let lost = Family::<[(&str, &str); 1], Gauge>::default();
    for loss in Loss::ALL {
        let shards = gates().filter(|gate| gate.loss() == Some(loss)).count();
        lost.get_or_create(&[("reason", loss.as_str())]).set(count(shards));
    }
    let help = "Shards whose data is not what it was, until an operator accepts it";
    registry.register("data_loss", help, lost);

    let connections = Gauge::<i64>::default();
    connections.set(count(api.door.connections()));
    registry.register("connections", "Connections that are open", connections);

    let bodies = Gauge::<i64>::default();
    bodies.set(count(api.door.body_bytes()));
    registry.register_with_unit("body", "Memory that request bodies take", Unit::Bytes, bodies);

    // Each stands on its own: what they count is of different kinds, and their sum means nothing.
    for (name, help, number) in api.door.counts().read() {
        let counter = Counter::<u64>::default();
        counter.inc_by(number);
        registry.register(name, help.trim_end_matches('.'), counter);
    }

    let waiting = Gauge::<i64>::default();
    waiting.set(count(api.dispatch.polls().waiting()));
    registry.register("waiting_polls", "Requests that wait, for tasks or for a task's end", waiting);

    let refused = Counter::<u64>::default();
    refused.inc_by(api.dispatch.polls().refused());
    registry.register("polls_refused", "Requests that were not let wait because too many did", refused);
    registry
}
