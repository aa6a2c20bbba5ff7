//! Where the masters of the shards are, and every connection to them.
//!
//! Calls, pub/sub, replication and the embedded Redis all get their connections here. This is the only code that
//! distinguishes one Redis from a Cluster; another way to find a master is another arm of [`Topology`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::cluster::ClusterClientBuilder;
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, ProtocolVersion, RedisError, RedisResult, Value, cmd,
};
use deadpool_redis::{Manager, Pool, Runtime, Timeouts};

use super::config::{RedisConfig, tcp_settings};
use crate::domain::slot::Slot;
use crate::store::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for one command. The work of a script is bounded far below it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The masters of all shards.
pub(super) enum Topology {
    /// One Redis is the master of every shard.
    Single {
        config: RedisConfig,
        /// Opens connections. Calls share one of them.
        pool: Pool,
        /// The connection that calls share. `None`: the next call opens it.
        shared: Mutex<Option<MultiplexedConnection>>,
    },
    /// Each shard lies on one master of a Cluster. The connection follows redirects and reconnects by itself.
    Cluster { config: RedisConfig, shared: ClusterConnection },
}

impl Topology {
    /// Takes the Redis at the configured address as the only master. Opens no connection.
    pub(super) fn single(config: RedisConfig) -> Result<Self> {
        let timeouts =
            Timeouts { wait: Some(CONNECT_TIMEOUT), create: Some(CONNECT_TIMEOUT), recycle: Some(CONNECT_TIMEOUT) };
        let pool = Pool::builder(Manager::new_with_config(config.connection_info()?, connection_config())?)
            .max_size(2)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Unexpected(error.to_string()))?;
        Ok(Topology::Single { config, pool, shared: Mutex::new(None) })
    }

    /// Connects to the Cluster that the configured address is a node of.
    pub(super) async fn cluster(config: RedisConfig) -> Result<Self> {
        let shared = cluster_builder(&config)?.build()?.get_async_connection().await?;
        Ok(Topology::Cluster { config, shared })
    }

    pub(super) fn is_cluster(&self) -> bool {
        match self {
            Topology::Single { .. } => false,
            Topology::Cluster { .. } => true,
        }
    }

    /// Returns the connection that calls share. No blocking command is ever sent on it.
    pub(super) async fn connection(&self) -> RedisResult<Connection> {
        match self {
            Topology::Single { pool, shared, .. } => {
                if let Some(connection) = shared.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                    return Ok(Connection::Single(connection.clone()));
                }
                // Boxed: calls, which nearly all find a connection, neither hold room for it nor move it.
                let pooled = Box::pin(pool.get()).await.map_err(no_connection)?;
                let connection: MultiplexedConnection = (*pooled).clone();
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
                Ok(Connection::Single(connection))
            }
            Topology::Cluster { shared, .. } => Ok(Connection::Cluster(shared.clone())),
        }
    }

    /// Drops the shared connection: the next call opens another one. A Cluster's connection replaces itself.
    pub(super) fn discard(&self) {
        match self {
            Topology::Single { pool, shared, .. } => {
                pool.retain(|_, _| false);
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            Topology::Cluster { .. } => {}
        }
    }

    /// Returns the error if the configured node of a Cluster rejects the user or the password: the client of a Cluster does
    /// not tell why it has no connection.
    pub(super) async fn rejection(&self) -> Option<Error> {
        let Topology::Cluster { config, .. } = self else { return None };
        let client = redis::Client::open(config.connection_info().ok()?).ok()?;
        let opened = client.get_multiplexed_async_connection_with_config(&connection_config()).await;
        opened.err().map(Error::from).filter(|error| matches!(error, Error::Unauthenticated(_)))
    }

    /// Opens a connection for subscriptions. `on_push` gets each pushed message where the connection is read.
    pub(super) async fn subscriber(&self, on_push: impl AsyncPushSender) -> Result<Connection> {
        match self {
            Topology::Single { config, .. } => {
                let info = config.connection_info()?;
                let resp3 = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
                let client = redis::Client::open(info.set_redis_settings(resp3))?;
                let config = connection_config().set_push_sender(on_push);
                Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Topology::Cluster { config, .. } => {
                let builder = cluster_builder(config)?.use_protocol(ProtocolVersion::RESP3).push_sender(on_push);
                Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
            }
        }
    }
}

/// A connection to the masters. Dropping the last clone closes it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Opens one connection to the Redis at `url`, with one timeout for connecting and for each reply.
    pub(super) async fn open(url: &str, timeout: Duration) -> RedisResult<Self> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
        let client = redis::Client::open(url)?;
        Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    /// Whether the connection is opened again after a break, without its subscriptions.
    pub(super) fn reconnects(&self) -> bool {
        match self {
            Connection::Single(_) => false,
            Connection::Cluster(_) => true,
        }
    }

    /// Sends one command to the master of the key it names.
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let reply = match self {
            Connection::Single(connection) => connection.req_packed_command(command).await,
            Connection::Cluster(connection) => connection.req_packed_command(command).await,
        };
        reply.and_then(Value::extract_error)
    }

    /// Sends commands together and returns one reply for each. All keys lie in one Redis slot. A command on a key of
    /// another type has the error as its reply; any other error is the pipeline's.
    pub(super) async fn send_pipeline(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let count = pipeline.len();
        let replies = match self {
            Connection::Single(connection) => connection.req_packed_commands(pipeline, 0, count).await,
            Connection::Cluster(connection) => connection.req_packed_commands(pipeline, 0, count).await,
        };
        let keep_wrong_type = |reply| match reply {
            Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Value::ServerError(error)),
            reply => reply.extract_error(),
        };
        replies?.into_iter().map(keep_wrong_type).collect()
    }

    /// Sends a command that names no key to the master of `key`.
    pub(super) async fn send_to_master_of(&mut self, key: &[u8], command: &Cmd) -> RedisResult<Value> {
        match self {
            Connection::Single(_) => self.send(command).await,
            Connection::Cluster(connection) => {
                let slot = Slot::of_key(key).number();
                let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                let reply = connection.route_command(command.clone(), RoutingInfo::SingleNode(route)).await;
                reply.and_then(Value::extract_error)
            }
        }
    }

    /// Sends a command to every master and returns one reply for each.
    pub(super) async fn send_to_masters(&mut self, command: &Cmd) -> RedisResult<Vec<Value>> {
        match self {
            Connection::Single(_) => Ok(vec![self.send(command).await?]),
            Connection::Cluster(connection) => {
                let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let reply = connection.route_command(command.clone(), route).await;
                match reply.and_then(Value::extract_error)? {
                    Value::Map(replies) => Ok(replies.into_iter().map(|(_node, reply)| reply).collect()),
                    reply => Ok(vec![reply]),
                }
            }
        }
    }

    /// Subscribes to a sharded channel on the master of its slot.
    pub(super) async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Connection::Single(connection) => cmd("SSUBSCRIBE").arg(channel).exec_async(connection).await,
            Connection::Cluster(connection) => connection.ssubscribe(channel).await,
        }
    }
}

fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
}

fn cluster_builder(config: &RedisConfig) -> Result<ClusterClientBuilder> {
    let mut builder = ClusterClientBuilder::new(vec![config.connection_info()?])
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(RESPONSE_TIMEOUT)
        .retries(1)
        .tcp_settings(tcp_settings());
    if let Some(certificates) = config.tls_certificates() {
        builder = builder.certs(certificates);
    }
    Ok(builder)
}

fn no_connection(error: deadpool_redis::PoolError) -> RedisError {
    let kind = match &error {
        deadpool_redis::PoolError::Backend(error) if error.kind() == ErrorKind::AuthenticationFailed => {
            ErrorKind::AuthenticationFailed
        }
        _ => ErrorKind::Io,
    };
    RedisError::from((kind, "no connection", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn future_of_a_call_has_no_room_for_opening_a_connection() {
        let config = RedisConfig { url: "redis://127.0.0.1:1".into(), ..RedisConfig::default() };
        let topology = Topology::single(config).unwrap();
        let bytes = std::mem::size_of_val(&topology.connection());
        assert!(bytes < 256, "{bytes}");
    }
}
