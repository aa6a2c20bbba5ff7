//! The lower bound of a pick-up: one HTTP round trip to the empty handler, then one `PING` to Redis, on the same
//! machine and at the same load.

use anyhow::{Result, bail, ensure};
use futures_util::future::{LocalBoxFuture, try_join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::adapters::{Adapter as _, Client as _, Role, Settings, Task};
use crate::empty_server::EmptyServer;
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, Run, Verb};
use crate::open_loop::open;
use crate::processes::Redis;
use crate::spent::Observed;
use crate::systems::System;
use crate::workloads::{QUEUE, Script, pickup};

/// The empty handler and a Redis.
pub struct RoundTrip {
    empty: EmptyServer,
    redis: Redis,
}

impl RoundTrip {
    /// Starts both.
    pub async fn start(settings: &Settings) -> Result<Self> {
        Ok(Self { empty: EmptyServer::start(settings).await?, redis: Redis::start(settings, "bare", &[]).await? })
    }

    async fn run(&self, senders: usize, plan: &Plan) -> Result<Measured> {
        let ledger = Ledger::default();
        let run = Run::new(&ledger, plan);
        let senders = try_join_all((0..senders).map(async |_| {
            let redis = TcpStream::connect(("127.0.0.1", self.redis.port())).await?;
            redis.set_nodelay(true)?;
            anyhow::Ok((self.empty.connect().await?, redis))
        }));
        let mut processes = self.empty.processes();
        processes.push((Role::Redis, self.redis.pid()));
        let observed = Observed::new(processes, None)?;
        let window = open(&run, plan, pickup::RATE, &observed, senders.await?, async |(http, redis), due| {
            let (_, payload) = run.next();
            http.submit(QUEUE, Task { payload: &payload, key: None }).await?;
            redis.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            redis.read_exact(&mut answer).await?;
            ensure!(&answer == b"+PONG\r\n", "a PING was answered otherwise");
            run.arrived(Verb::PickUp, due);
            Ok(())
        });
        let window = window.await?;
        Ok(run.measured(window))
    }
}

impl System for RoundTrip {
    fn version(&self) -> String {
        "one request to the empty handler, then one PING".to_owned()
    }

    fn round<'a>(&'a self, script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>> {
        Box::pin(async move {
            let Script::PickUp { senders, .. } = *script else { bail!("it has no other work than pick-ups") };
            self.run(senders, plan).await
        })
    }
}
