//! Spans as OpenTelemetry has them, sent as protobuf over HTTP. Names and attributes are those of its conventions for
//! messaging, where they have any.
//!
//! A thread of its own gathers spans and sends them; nobody waits for it. What it cannot send is dropped, and it says so
//! in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::{TaskSpan, TracedTask};

/// How long the last spans may take when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Exporter {
    /// To the collector at `endpoint`. What else there is to set is set by OpenTelemetry's own variables.
    pub(super) fn new(endpoint: &str) -> anyhow::Result<Self> {
        let traces_url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(traces_url)
            .build()?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        // What a variable says counts; where none does, there is still a name, which says as much.
        let service_name = Resource::builder().build().get(&Key::from_static_str("service.name"));
        if service_name.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
            resource = resource.with_service_name("slotwheel");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        let tracer = provider.tracer("slotwheel");
        Ok(Exporter { provider, tracer })
    }

    pub(super) fn send(&self, task: &TracedTask, task_span: &TaskSpan, start: SystemTime, end: SystemTime) {
        let TracedTask { parent, tracestate: state, id, queue } = task;
        let tracestate = state.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
        let (trace_id, span_id) = (TraceId::from_bytes(parent.trace_id), SpanId::from_bytes(parent.span_id));
        let parent = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, tracestate);
        let mut attributes = vec![
            KeyValue::new("messaging.system", "slotwheel"),
            KeyValue::new("messaging.destination.name", queue.as_str().to_owned()),
            KeyValue::new("messaging.message.id", id.to_string()),
            KeyValue::new("messaging.operation.name", task_span.name()),
        ];
        let (kind, status) = match task_span {
            TaskSpan::Submit => {
                attributes.push(KeyValue::new("messaging.operation.type", "send"));
                (SpanKind::Server, Status::Unset)
            }
            TaskSpan::Waiting => (SpanKind::Internal, Status::Unset),
            TaskSpan::Execution { worker, attempt, end } => {
                attributes.push(KeyValue::new("messaging.operation.type", "process"));
                attributes.push(KeyValue::new("messaging.client.id", worker.clone()));
                attributes.push(KeyValue::new("slotwheel.attempt", i64::from(*attempt)));
                attributes.push(KeyValue::new("slotwheel.outcome", end.as_str()));
                if end.is_error() {
                    attributes.push(KeyValue::new("error.type", end.as_str()));
                    (SpanKind::Internal, Status::error(end.as_str()))
                } else {
                    (SpanKind::Internal, Status::Unset)
                }
            }
        };
        let builder = self.tracer.span_builder(format!("{} {}", task_span.name(), queue.as_str()));
        let builder = builder.with_kind(kind).with_start_time(start).with_attributes(attributes);
        let mut span = builder.start_with_context(&self.tracer, &Context::new().with_remote_span_context(parent));
        span.set_status(status);
        span.end_with_timestamp(end);
    }
}

/// Sends what is left, on a thread that may wait.
pub(super) async fn flush(exporter: Arc<Exporter>) {
    let sent = tokio::task::spawn_blocking(move || exporter.provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
        Err(error) => tracing::warn!(%error, "the last spans were not sent"),
    }
}
