//! What a pick-up is held against: one HTTP round trip to the empty handler, then one `PING` to a Redis, on the same
//! machine and at the same load.

use anyhow::{Result, ensure};
use futures_util::future::{LocalBoxFuture, try_join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::systems::Contender;
use crate::empty_server::Empty;
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, Run, open};
use crate::processes::Redis;
use crate::adapters::{Client as _, Role, Settings, Side as _, Task};
use crate::workloads::{QUEUE, Script, pickup};

/// The handler, and a Redis.
pub struct Bare {
    empty: Empty,
    redis: Redis,
}

impl Bare {
    /// Starts both.
    pub async fn start(settings: &Settings) -> Result<Self> {
        Ok(Self { empty: Empty::start(settings).await?, redis: Redis::start(settings, "bare", &[]).await? })
    }

    async fn run(&self, plan: &Plan) -> Result<Measured> {
        let ledger = Ledger::default();
        let run = Run::new(&ledger, plan);
        let senders = try_join_all((0..pickup::SENDERS).map(async |_| {
            let redis = TcpStream::connect(("127.0.0.1", self.redis.port())).await?;
            redis.set_nodelay(true)?;
            anyhow::Ok((self.empty.connect().await?, redis))
        }));
        let mut processes = self.empty.processes();
        processes.push((Role::Redis, self.redis.pid()));
        let spent = open(&run, plan, pickup::RATE, &processes, senders.await?, async |(http, redis), due| {
            let (_, payload) = run.next();
            http.submit(QUEUE, Task { payload: &payload, key: None }).await?;
            redis.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            redis.read_exact(&mut answer).await?;
            ensure!(&answer == b"+PONG\r\n", "a PING was answered otherwise");
            run.arrived(due);
            Ok(())
        });
        let spent = spent.await?;
        Ok(run.measured(spent))
    }
}

impl Contender for Bare {
    fn version(&self) -> String {
        "one request to the empty handler, then one PING".to_owned()
    }

    fn round<'a>(&'a self, _script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>> {
        Box::pin(self.run(plan))
    }
}
