//! Wiring: the only module that sees everything.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::accept::{self, Door, Stop};
use crate::api::{self, Api, Meters};
use crate::config::{Config, Durability, Redis};
use crate::dispatch::Dispatch;
use crate::spans::Spans;
use crate::store::client::Target;
use crate::store::found::{Founded, found};
use crate::store::managed::Managed;
use crate::store::replicas::Replicas;
use crate::store::{self, Client, Store, check, pulse, signal};
use crate::upkeep::Upkeep;

/// How long a Redis that is named may take to answer for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// Serves on `listener` until `stop`, then ends in good order: who waits gets an empty answer, what was begun is
/// finished, the managed Redis is stopped.
///
/// # Errors
/// When it cannot start: no Redis, one that is not fit, or a data set that does not fit the settings.
pub async fn run(config: Config, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let meters = Meters::start();
    let (target, managed) = tokio::select! {
        found = redis(&config) => found?,
        () = stop.cancelled() => return Ok(()),
    };
    let keeper_stop = CancellationToken::new();
    let keeper = managed.map(|managed| tokio::spawn(managed.keep(keeper_stop.clone())));
    let served = serve(&config, target, listener, meters, stop).await;
    keeper_stop.cancel();
    if let Some(keeper) = keeper {
        keeper.await.context("the keeper of the managed Redis failed")?;
    }
    served
}

async fn serve(
    config: &Config,
    target: Target,
    listener: TcpListener,
    meters: Arc<Meters>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (store, founded) = tokio::select! {
        opened = open(config, target) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let tasks = TaskTracker::new();
    // Told to stop, it first says so and serves on, so that others see it; then it closes.
    let closing = CancellationToken::new();
    tokio::spawn(close_later(stop.clone(), config.drain, closing.clone()));
    let spans = Spans::to(config.otlp_endpoint.as_deref()).context("the exporter of spans")?;
    let dispatch = Dispatch::start(store.clone(), config.sweep, &config.limits, spans.clone(), &tasks, &closing);
    let upkeep = Upkeep::start(&store, &founded, config.sweep, &spans, &tasks, &closing);
    let hearing = tokio::spawn(hear(store.clone(), dispatch.clone(), upkeep.clone()));
    let door = Door::new(&config.limits, Stop::new(stop, closing));
    let router = api::router(Api {
        dispatch: dispatch.clone(),
        upkeep,
        durability: config.durability,
        door: door.clone(),
        meters,
        overviews: Arc::default(),
    });
    tracing::info!(address = %listener.local_addr()?, shards = store.layout().count(), "listening");
    // A part of the time is kept for what those who were cut off have begun.
    let closed = accept::serve(listener, router, door, config.shutdown.mul_f64(0.8)).await;
    // What was handed to the gates and pumps is finished; they end when nobody can hand them anything any more.
    hearing.abort();
    let _ = hearing.await;
    drop(dispatch);
    tasks.close();
    if tokio::time::timeout_at(closed + config.shutdown, tasks.wait()).await.is_err() {
        tracing::warn!("some work was not finished in time");
    }
    spans.finish().await;
    tracing::info!("stopped");
    Ok(())
}

/// Ends the second step of stopping's wait for the first.
async fn close_later(stop: CancellationToken, drain: Duration, closing: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
    closing.cancel();
}

/// The Redis of the settings for somebody who looks at it beside a server: the managed one is started only if no
/// server keeps it running.
pub async fn attach(config: &Config) -> anyhow::Result<(Target, Option<Managed>)> {
    if let Redis::Managed(directory) = &config.redis
        && let Some(url) = Managed::running(directory).await
    {
        return Ok((Target { url, ..Target::default() }, None));
    }
    redis(config).await
}

/// The Redis of the settings: where it is, and the keeper if it is our own.
pub async fn redis(config: &Config) -> anyhow::Result<(Target, Option<Managed>)> {
    let (url, ca, managed) = match &config.redis {
        Redis::Managed(directory) => {
            let managed = Managed::start(directory, config.durability).await?;
            (managed.url(), None, Some(managed))
        }
        Redis::At { url, ca } => (url.clone(), ca.clone(), None),
    };
    let ca_certificates = match ca {
        Some(path) => Some(std::fs::read(&path).with_context(|| format!("the certificates in {}", path.display()))?),
        None => None,
    };
    let target = Target {
        url,
        ca_certificates,
        offset: config.testing.time_offset.clone(),
        prelude: config.testing.prelude.clone(),
    };
    Ok((target, managed))
}

/// Connects, checks what it finds, and opens the data set.
///
/// # Errors
/// When Redis does not answer, is not fit, or the data set does not fit the settings.
async fn open(config: &Config, target: Target) -> anyhow::Result<(Store, Founded)> {
    let client = connect(target.clone()).await?;
    for finding in check::check(&client, config.durability).await? {
        if finding.fatal {
            anyhow::bail!("this Redis cannot keep tasks: {}", finding.text);
        }
        tracing::warn!("about this Redis: {}", finding.text);
    }
    let founded = found(&client, &config.prefix, config.shards).await?;
    let replicas = match config.durability {
        Durability::AsRedis | Durability::Fsync | Durability::Everysec => None,
        Durability::Replicated(wanted) => Some(Replicas::connect(&target, wanted).await?),
    };
    let store = Store::new(Arc::new(client), founded.shards, &config.prefix).with_replicas(replicas);
    pulse::begin(&store, &founded).await?;
    Ok((store, founded))
}

/// Connects to a Redis that works: one that loads its data is waited for, however long it takes.
async fn connect(target: Target) -> anyhow::Result<Client> {
    let mut deadline = Instant::now() + FIRST_ANSWER;
    loop {
        let error = match Client::connect(target.clone()).await {
            Ok(client) => match client.ping().await {
                Ok(()) => return Ok(client),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error {
            store::Error::Unavailable(why) if Instant::now() < deadline => {
                if why.contains("LOADING") {
                    deadline = Instant::now() + FIRST_ANSWER;
                }
                tracing::info!(why, "waiting for Redis");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            error => return Err(error).context("no answer of Redis"),
        }
    }
}

/// Passes on what scripts say to both engines, which do not know each other.
async fn hear(store: Store, dispatch: Arc<Dispatch>, upkeep: Arc<Upkeep>) {
    let (out, mut signals) = mpsc::unbounded_channel();
    let passing_on = async {
        while let Some(signal) = signals.recv().await {
            dispatch.hear(&signal);
            upkeep.hear(&signal);
        }
    };
    // Of one task with what it hears, so that both end when it does.
    tokio::select! {
        () = signal::hear(store, out) => {}
        () = passing_on => {}
    }
}
