//! The environment variables of OpenTelemetry that decide whether and where spans are sent.

use std::env;

use crate::config::{Config, ConfigError, RawConfig};

/// The collector's URL, if the setting `otlp_endpoint` is absent.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// `true` sends no span.
const SDK_DISABLED: &str = "OTEL_SDK_DISABLED";
/// `none` sends no span.
const TRACES_EXPORTER: &str = "OTEL_TRACES_EXPORTER";
/// The protocol of the collector, for spans and for all signals.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// The protocol that the server speaks.
const SUPPORTED_PROTOCOL: &str = "http/protobuf";

/// Resolves the settings of a server, with the variables as further sources of `otlp_endpoint`.
///
/// # Errors
/// If a setting is invalid, or a variable asks for a protocol that the server does not speak.
pub(super) fn resolve(mut raw: RawConfig) -> anyhow::Result<Config> {
    if !cfg!(feature = "otlp") {
        return Ok(raw.resolve()?);
    }
    if is_set_to(SDK_DISABLED, "true") || is_set_to(TRACES_EXPORTER, "none") {
        raw.otlp_endpoint = None;
        return Ok(raw.resolve()?);
    }
    let is_from_variable = raw.otlp_endpoint.is_none();
    if is_from_variable {
        raw.otlp_endpoint = env::var(ENDPOINT).ok();
    }
    let config = raw.resolve().map_err(|error| match error {
        ConfigError::Setting { name: "otlp_endpoint", value, reason } if is_from_variable => {
            anyhow::anyhow!("the variable {ENDPOINT} is {value}: {reason}")
        }
        other => other.into(),
    })?;
    let set =
        |name: &&str| env::var(name).ok().filter(|value| !value.is_empty()).map(|value| ((*name).to_owned(), value));
    if let Some((name, protocol)) = PROTOCOLS.iter().find_map(set)
        && config.otlp_endpoint.is_some()
        && protocol != SUPPORTED_PROTOCOL
    {
        anyhow::bail!(
            "the variable {name} is {protocol}: spans are sent as {SUPPORTED_PROTOCOL} only. Set it to that, and the \
             endpoint to the collector's port for HTTP, usually 4318"
        );
    }
    Ok(config)
}

fn is_set_to(name: &str, value: &str) -> bool {
    env::var(name).is_ok_and(|set| set.trim().eq_ignore_ascii_case(value))
}
