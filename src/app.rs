//! Wiring: the only module that sees everything.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api, RequestMetrics};
use crate::config::{Config, Durability, RedisSource};
use crate::dispatch::Dispatch;
use crate::http_server::{self, ServerState, ShutdownTokens};
use crate::spans::Spans;
use crate::store;
use crate::store::dataset::identity::{Dataset, open_or_create};
use crate::store::dataset::loss_detector;
use crate::store::notify::wakeups;
use crate::store::ops;
use crate::store::redis::config::RedisConfig;
use crate::store::redis::embedded::EmbeddedRedis;
use crate::store::redis::preflight;
use crate::store::redis::replication::Replication;
use crate::store::{Client, Store};
use crate::upkeep::Upkeep;

/// How long a Redis that is named may take to answer for the first time.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves on `listener` until `stop`, then ends in good order: who waits gets an empty answer, what was begun is
/// finished, the managed Redis is stopped.
///
/// # Errors
/// When it cannot start: no Redis, one that is not fit, or a data set that does not fit the settings.
pub async fn run(config: Config, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let started_at = SystemTime::now();
    let (redis_config, embedded) = tokio::select! {
        prepared = redis(&config) => prepared?,
        () = stop.cancelled() => return Ok(()),
    };
    let supervisor_stop = CancellationToken::new();
    let redis_supervisor = embedded.map(|embedded| tokio::spawn(embedded.supervise(supervisor_stop.clone())));
    let outcome = serve(&config, redis_config, listener, started_at, stop).await;
    supervisor_stop.cancel();
    if let Some(redis_supervisor) = redis_supervisor {
        redis_supervisor.await.context("the keeper of the managed Redis failed")?;
    }
    outcome
}

async fn serve(
    config: &Config,
    redis_config: RedisConfig,
    listener: TcpListener,
    started_at: SystemTime,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (store, dataset) = tokio::select! {
        opened = open_store(config, redis_config) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let tasks = TaskTracker::new();
    // Told to stop, it first says so and serves on, so that others see it; then it closes.
    let closing = CancellationToken::new();
    tokio::spawn(close_after_drain(stop.clone(), config.drain, closing.clone()));
    let spans = Spans::with_endpoint(config.otlp_endpoint.as_deref()).context("the exporter of spans")?;
    let dispatch =
        Dispatch::start(store.clone(), config.poll_interval, &config.limits, spans.clone(), &tasks, &closing);
    let upkeep = Upkeep::start(&store, &dataset, config.poll_interval, &spans, &tasks, &closing);
    let wakeup_forwarder = tokio::spawn(forward_wakeups(store.clone(), dispatch.clone(), upkeep.clone()));
    let server_state = ServerState::new(&config.limits, ShutdownTokens::new(stop, closing), api::render_rejection);
    let router = api::router(Api {
        dispatch: dispatch.clone(),
        upkeep,
        durability: config.durability,
        server: server_state.clone(),
        request_metrics: Arc::new(RequestMetrics::new(&api::route_table())),
        started_at,
        status_cache: Arc::default(),
    });
    tracing::info!(address = %listener.local_addr()?, shards = store.layout().count(), "listening");
    // A part of the time is kept for what those who were cut off have begun.
    let closed = http_server::serve(listener, router, server_state, config.shutdown_timeout.mul_f64(0.8)).await;
    // What was handed to the gates and pumps is finished; they end when nobody can hand them anything any more.
    wakeup_forwarder.abort();
    let _ = wakeup_forwarder.await;
    drop(dispatch);
    tasks.close();
    if tokio::time::timeout_at(closed + config.shutdown_timeout, tasks.wait()).await.is_err() {
        tracing::warn!("some work was not finished in time");
    }
    spans.flush().await;
    tracing::info!("stopped");
    Ok(())
}

/// Ends the second step of stopping's wait for the first.
async fn close_after_drain(stop: CancellationToken, drain: Duration, closing: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
    closing.cancel();
}

/// The Redis of the settings for somebody who looks at it beside a server: the managed one is started only if no
/// server keeps it running.
pub async fn redis_for_inspection(config: &Config) -> anyhow::Result<(RedisConfig, Option<EmbeddedRedis>)> {
    if let RedisSource::Embedded(directory) = &config.redis
        && let Some(url) = EmbeddedRedis::running_url(directory).await
    {
        return Ok((RedisConfig { url, ..RedisConfig::default() }, None));
    }
    redis(config).await
}

/// The Redis of the settings: where it is, and the keeper if it is our own.
pub async fn redis(config: &Config) -> anyhow::Result<(RedisConfig, Option<EmbeddedRedis>)> {
    let (url, ca, embedded) = match &config.redis {
        RedisSource::Embedded(directory) => {
            let embedded = EmbeddedRedis::start(directory, config.durability).await?;
            (embedded.url(), None, Some(embedded))
        }
        RedisSource::External { url, ca } => (url.clone(), ca.clone(), None),
    };
    let ca_certificates = match ca {
        Some(path) => Some(std::fs::read(&path).with_context(|| format!("the certificates in {}", path.display()))?),
        None => None,
    };
    let redis_config = RedisConfig {
        url,
        ca_certificates,
        clock_offset: config.test_hooks.time_offset.clone(),
        injected_lua: config.test_hooks.script_prefix.clone(),
    };
    Ok((redis_config, embedded))
}

/// Connects, checks what it finds, and opens the data set.
///
/// # Errors
/// When Redis does not answer, is not fit, or the data set does not fit the settings.
async fn open_store(config: &Config, redis_config: RedisConfig) -> anyhow::Result<(Store, Dataset)> {
    let client = connect(redis_config.clone()).await?;
    for finding in preflight::check_config(&client, config.durability).await? {
        if finding.is_fatal {
            anyhow::bail!("this Redis cannot keep tasks: {}", finding.message);
        }
        tracing::warn!("about this Redis: {}", finding.message);
    }
    let dataset = open_or_create(&client, &config.prefix, config.shards).await?;
    let replicas = match config.durability {
        Durability::AsConfigured | Durability::Fsync | Durability::Everysec => None,
        Durability::Replicated(required) => Some(Replication::connect(&redis_config, required).await?),
    };
    let store = Store::new(Arc::new(client), dataset.shards, &config.prefix).with_replication(replicas);
    loss_detector::write_markers_once(&store, &dataset).await?;
    Ok((store, dataset))
}

/// Connects to a Redis that works: one that loads its data is waited for, however long it takes.
async fn connect(redis_config: RedisConfig) -> anyhow::Result<Client> {
    let mut deadline = Instant::now() + STARTUP_TIMEOUT;
    loop {
        let error = match Client::connect(redis_config.clone(), ops::ALL).await {
            Ok(client) => match client.ping().await {
                Ok(()) => return Ok(client),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error {
            store::Error::Unavailable(why) if Instant::now() < deadline => {
                if why.contains("LOADING") {
                    deadline = Instant::now() + STARTUP_TIMEOUT;
                }
                tracing::info!(why, "waiting for Redis");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            error => return Err(error).context("no answer of Redis"),
        }
    }
}

/// Passes on what scripts say to both engines, which do not know each other.
async fn forward_wakeups(store: Store, dispatch: Arc<Dispatch>, upkeep: Arc<Upkeep>) {
    let (sender, mut wakeups) = mpsc::unbounded_channel();
    let forward = async {
        while let Some(wakeup) = wakeups.recv().await {
            dispatch.on_wakeup(&wakeup);
            upkeep.on_wakeup(&wakeup);
        }
    };
    // Of one task with what it hears, so that both end when it does.
    tokio::select! {
        () = wakeups::subscribe(store, sender) => {}
        () = forward => {}
    }
}
