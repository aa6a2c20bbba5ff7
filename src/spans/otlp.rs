//! Export of spans by OTLP: protobuf over HTTP. Names and attributes follow OpenTelemetry's conventions for messaging,
//! where it has any.
//!
//! A separate thread batches and exports spans, so requests never wait for it. Spans that it cannot export are dropped
//! and logged.

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

use super::task_span::{TaskSpan, TracedTask};

/// Time limit of the last export when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Exporter {
    /// Returns an exporter to the collector at `endpoint`. OpenTelemetry's environment variables set everything else.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up. The collector is not contacted.
    pub(super) fn new(endpoint: &str) -> anyhow::Result<Self> {
        let traces_url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(traces_url)
            .build()?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        // A name set by a variable takes precedence. Without one, the SDK's default is `unknown_service`.
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
        let TracedTask { parent, tracestate, id, queue } = task;
        let tracestate = tracestate.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
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
            TaskSpan::Execution { worker, attempt, outcome } => {
                attributes.push(KeyValue::new("messaging.operation.type", "process"));
                attributes.push(KeyValue::new("messaging.client.id", worker.clone()));
                attributes.push(KeyValue::new("slotwheel.attempt", i64::from(*attempt)));
                attributes.push(KeyValue::new("slotwheel.outcome", outcome.as_str()));
                if outcome.is_error() {
                    attributes.push(KeyValue::new("error.type", outcome.as_str()));
                    (SpanKind::Internal, Status::error(outcome.as_str()))
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

/// Exports the queued spans on a thread that may block, for at most [`FLUSH_TIMEOUT`].
pub(super) async fn flush(exporter: Arc<Exporter>) {
    let sent = tokio::task::spawn_blocking(move || exporter.provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "exporting the last spans failed"),
        Err(error) => tracing::warn!(%error, "exporting the last spans failed"),
    }
}
