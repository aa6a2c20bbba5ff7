//! Log output. A line written during a request carries the request's id.
//!
//! In JSON, each line is one object: `timestamp`, `level`, `target`, `message`, `fields`, and `request_id` if there is
//! one.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::api::RequestId;
use crate::config::LogFormat;
use crate::logging;

/// Installs the log of this process, on stderr.
///
/// # Errors
/// If the thread that writes it cannot be started.
pub(super) fn init(filter: EnvFilter, format: LogFormat) -> std::io::Result<()> {
    let buffer = logging::stderr_buffer()?;
    // A log that cannot be written must not stop the server. With internal errors enabled, tracing-subscriber prints
    // its own errors to stderr, and panics if stderr is closed.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || buffer).log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(ansi).event_format(TextFormat(Format::default().with_ansi(ansi))).init();
        }
        LogFormat::Json => log.event_format(JsonFormat).init(),
    }
    Ok(())
}

/// Text for people: the format of tracing-subscriber, followed by the request id.
struct TextFormat(Format);

impl<S, N> FormatEvent<S, N> for TextFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(id) = RequestId::current() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} request_id={}", line.trim_end(), id.as_str())
    }
}

/// JSON for programs.
struct JsonFormat;

#[derive(Serialize)]
struct LogLine<'a> {
    timestamp: String,
    level: &'a str,
    target: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
    fields: &'a Map<String, Value>,
}

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut recorded = RecordedFields::default();
        event.record(&mut recorded);
        let line = LogLine {
            timestamp: format!("{:.6}", jiff::Timestamp::now()),
            level: event.metadata().level().as_str(),
            target: recorded.target.as_deref().unwrap_or(event.metadata().target()),
            message: &recorded.message,
            request_id: RequestId::current(),
            fields: &recorded.fields,
        };
        writer.write_str(&serde_json::to_string(&line).map_err(|_| fmt::Error)?)?;
        writer.write_char('\n')
    }
}

/// Message and fields of a log event.
#[derive(Default)]
struct RecordedFields {
    message: String,
    /// Target of an event from the crate `log`; tracing reports one target for all of these.
    target: Option<String>,
    fields: Map<String, Value>,
}

impl RecordedFields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(text)) => self.target = Some(text),
            // Source position within a library.
            ("log.module_path" | "log.file" | "log.line", _) => {}
            (name, value) => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for RecordedFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}
