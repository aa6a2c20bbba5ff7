//! An axum handler that does nothing, in its own process: the minimum cost of a request.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::adapters::{Adapter, Capability, Client, Job, Role, Settings, Task};
use crate::http::Http;
use crate::processes::{Directory, Process, free_port};

/// `slotwheel-bench empty-server <address>`: serves until it is killed.
pub fn serve(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Reads the body, as any handler must.
        let handler = async |_body: String| (axum::http::StatusCode::CREATED, "");
        let router = axum::Router::new().route("/tasks", axum::routing::post(handler));
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |io| drop(io.set_nodelay(true))), router).await?;
        Ok(())
    })
}

/// The handler's process.
pub struct EmptyServer {
    server: Process,
    address: SocketAddr,
    _directory: Directory,
}

impl Adapter for EmptyServer {
    const CAPABILITIES: &[Capability] = &[];
    type Client = Connection;

    async fn start(settings: &Settings) -> Result<Self> {
        let directory = Directory::fresh(settings, "empty")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["empty-server", &address.to_string()]);
        let mut server = Process::start(command, directory.path())?;
        server.until(async || Http::connect(address).await.is_ok()).await.context("the empty handler")?;
        Ok(Self { server, address, _directory: directory })
    }

    fn version(&self) -> String {
        "an axum 0.8 handler that reads the body and does nothing".to_owned()
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Server, self.server.pid())]
    }

    async fn connect(&self) -> Result<Connection> {
        Ok(Connection(Http::connect(self.address).await?))
    }
}

/// A connection that sends requests; it has no tasks.
pub struct Connection(Http);

impl Connection {
    /// Sends one request with the body of a submit.
    async fn ask(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        let body = format!("{{\"queue\":\"{queue}\",\"payload\":{}}}", task.payload);
        self.0.post("/tasks", body.as_bytes()).await?.expect(201)?;
        Ok(())
    }
}

/// The empty handler has no tasks.
pub struct Nothing;

impl Job for Nothing {
    fn number(&self) -> u64 {
        0
    }
}

impl Client for Connection {
    type Job = Nothing;

    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        self.ask(queue, task).await
    }

    async fn take(&mut self, _queue: &str, _max: usize, _wait: Duration) -> Result<Vec<Nothing>> {
        bail!("it has no tasks")
    }

    async fn finish(&mut self, _queue: &str, _job: &Nothing) -> Result<()> {
        bail!("it has no tasks")
    }
}
