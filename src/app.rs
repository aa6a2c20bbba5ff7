//! Wiring: the only module that knows all others.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api, RequestMetrics};
use crate::background;
use crate::config::{Config, Durability, RedisSource};
use crate::dispatch::Dispatch;
use crate::http_server::{self, ServerState, ShutdownTokens};
use crate::spans::Spans;
use crate::store;
use crate::store::dataset::identity::{Dataset, first_shard_keys, open_or_create};
use crate::store::dataset::loss_detector;
use crate::store::notify::wakeups;
use crate::store::ops;
use crate::store::permissions;
use crate::store::redis::config::RedisConfig;
use crate::store::redis::embedded::EmbeddedRedis;
use crate::store::redis::preflight;
use crate::store::redis::replication::Replication;
use crate::store::{Client, Store};
use crate::upkeep::Upkeep;

/// Time for Redis to answer at start-up. It restarts while Redis loads its data.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves on `listener` until `stop`, then shuts down: waiting requests are answered without tasks, requests in progress
/// finish, and the embedded Redis stops.
///
/// # Errors
/// If the server cannot start: Redis is unavailable or unsuitable, or the data set does not match the settings.
pub async fn run(config: Config, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let started_at = SystemTime::now();
    let (redis_config, embedded) = tokio::select! {
        prepared = prepare_redis(&config) => prepared?,
        () = stop.cancelled() => return Ok(()),
    };
    let supervisor_stop = CancellationToken::new();
    let redis_supervisor = embedded
        .map(|embedded| tokio::spawn(background::run("redis_supervisor", embedded.supervise(supervisor_stop.clone()))));
    let outcome = serve(&config, redis_config, listener, started_at, stop).await;
    supervisor_stop.cancel();
    if let Some(redis_supervisor) = redis_supervisor {
        redis_supervisor.await.context("the supervisor of the embedded Redis failed")?;
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
    let Opened { store, dataset, redis_version } = tokio::select! {
        opened = open_store(config, redis_config) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let tasks = TaskTracker::new();
    // Shutdown has two steps. From `stop` on, /readyz returns 503, and the server continues to serve for the drain time.
    // From `closing` on, it accepts no connection, and waiting requests are answered.
    let closing = CancellationToken::new();
    tokio::spawn(background::run("drain", close_after_drain(stop.clone(), config.drain, closing.clone())));
    let spans = Spans::with_endpoint(config.otlp_endpoint.as_deref()).context("the span exporter")?;
    let dispatch =
        Dispatch::start(store.clone(), config.poll_interval, &config.limits, spans.clone(), &tasks, &closing);
    let upkeep =
        Upkeep::start(&store, &dataset, config.poll_interval, config.max_ended_per_queue, &spans, &tasks, &closing);
    let wakeup_forwarder = tokio::spawn(background::run(
        "wakeup_forwarder",
        forward_wakeups(store.clone(), dispatch.clone(), upkeep.clone()),
    ));
    let server_state = ServerState::new(&config.limits, ShutdownTokens::new(stop, closing), api::render_rejection);
    let routes = api::route_table();
    let api = Api {
        dispatch: dispatch.clone(),
        upkeep,
        durability: config.durability,
        server: server_state.clone(),
        request_metrics: Arc::new(RequestMetrics::new(&routes)),
        started_at,
        status_cache: Arc::default(),
    };
    let router = Arc::new(api::Router::new(api, routes));
    let address = listener.local_addr()?;
    tracing::info!(
        %address,
        contract = format!("http://{}/openapi.yaml", reachable(address)),
        data = %config.redis,
        redis_version,
        shards = store.layout().count(),
        "listening"
    );
    // The last fifth of the time is reserved for the Redis calls of disconnected requests.
    let closed = http_server::serve(listener, router, server_state, config.shutdown_timeout.mul_f64(0.8)).await;
    // The claim loops and batchers finish the work that they have received. They end when their last sender is dropped.
    wakeup_forwarder.abort();
    let _ = wakeup_forwarder.await;
    drop(dispatch);
    tasks.close();
    if tokio::time::timeout_at(closed + config.shutdown_timeout, tasks.wait()).await.is_err() {
        tracing::warn!("shutdown timed out with unfinished work");
    }
    spans.flush().await;
    tracing::info!("stopped");
    Ok(())
}

/// Returns an address at which this machine reaches a server that listens on `address`: loopback instead of an unspecified IP.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Cancels `closing` when the drain time after `stop` has passed.
async fn close_after_drain(stop: CancellationToken, drain: Duration, closing: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
    closing.cancel();
}

/// Returns the Redis of the settings, for inspection while servers may run. The embedded Redis is started only if no server
/// runs it.
pub async fn redis_for_inspection(config: &Config) -> anyhow::Result<(RedisConfig, Option<EmbeddedRedis>)> {
    if let RedisSource::Embedded(directory) = &config.redis
        && let Some(url) = EmbeddedRedis::running_url(directory).await
    {
        return Ok((RedisConfig { url, ..RedisConfig::default() }, None));
    }
    prepare_redis(config).await
}

/// Returns the connection settings of the Redis. Starts the embedded Redis if the settings select it.
pub async fn prepare_redis(config: &Config) -> anyhow::Result<(RedisConfig, Option<EmbeddedRedis>)> {
    let (url, ca, embedded) = match &config.redis {
        RedisSource::Embedded(directory) => {
            let embedded = EmbeddedRedis::start(directory, config.durability, config.embedded_max_memory).await?;
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
        clock_offset: config.test_hooks.clock_offset.clone(),
        injected_lua: config.test_hooks.injected_lua.clone(),
    };
    Ok((redis_config, embedded))
}

/// An open data set.
struct Opened {
    store: Store,
    dataset: Dataset,
    redis_version: String,
}

/// Connects, checks the Redis, and opens or creates the data set.
///
/// # Errors
/// If Redis is unavailable or unsuitable, or the data set does not match the settings.
async fn open_store(config: &Config, redis_config: RedisConfig) -> anyhow::Result<Opened> {
    let client = connect(redis_config.clone()).await?;
    let is_replicated = matches!(config.durability, Durability::Replicated(_));
    let first_shard = first_shard_keys(&config.prefix);
    if let Some(missing) = permissions::missing(&client, &first_shard, &config.prefix, is_replicated).await? {
        anyhow::bail!("the user of Redis lacks permissions: {missing}");
    }
    for issue in preflight::check_config(&client, config.durability).await? {
        if issue.is_fatal {
            anyhow::bail!("Redis is unsuitable: {}", issue.message);
        }
        tracing::warn!("Redis configuration: {}", issue.message);
    }
    let redis_version = preflight::version(&client).await?;
    let dataset = open_or_create(&client, &config.prefix, config.shards).await?;
    let replicas = match config.durability {
        Durability::AsConfigured | Durability::Fsync | Durability::Everysec => None,
        Durability::Replicated(required) => Some(Replication::connect(&redis_config, required).await?),
    };
    let store = Store::new(Arc::new(client), dataset.shards, &dataset.id, &config.prefix).with_replication(replicas);
    // Before anything else reads the clock.
    store.touch_clocks().await?;
    loss_detector::write_markers_once(&store, &dataset).await?;
    Ok(Opened { store, dataset, redis_version })
}

/// Connects to Redis. Waits without limit while Redis loads its data.
async fn connect(redis_config: RedisConfig) -> anyhow::Result<Client> {
    let mut deadline = Instant::now() + STARTUP_TIMEOUT;
    loop {
        let error = match Client::connect(redis_config.clone(), ops::ALL).await {
            Ok(client) => match client.ping().await {
                // The check of permissions names all that are missing.
                Ok(()) | Err(store::Error::Denied(_)) => return Ok(client),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error {
            store::Error::Unavailable(reason) if Instant::now() < deadline => {
                if reason.contains("LOADING") {
                    deadline = Instant::now() + STARTUP_TIMEOUT;
                }
                tracing::info!(reason, "waiting for Redis");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            error => return Err(error).context("connecting to Redis failed"),
        }
    }
}

/// Forwards wake-ups to dispatch and upkeep, which do not know each other.
async fn forward_wakeups(store: Store, dispatch: Arc<Dispatch>, upkeep: Arc<Upkeep>) {
    let (sender, mut wakeups) = mpsc::unbounded_channel();
    let forward = async {
        while let Some(wakeup) = wakeups.recv().await {
            dispatch.on_wakeup(&wakeup);
            upkeep.on_wakeup(&wakeup);
        }
    };
    // Both futures run in one task, so that aborting it ends both.
    tokio::select! {
        () = wakeups::subscribe(store, sender) => {}
        () = forward => {}
    }
}
