//! The command line.

mod doctor;
mod log;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::config::{Config, ConfigError, RawConfig};

/// An HTTP task dispatcher over Redis
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; what happens when no command is given
    Serve(ConfigArgs),
    /// Check a Redis and the data set on it, and say what is wrong
    Doctor {
        #[command(flatten)]
        settings: ConfigArgs,
        #[command(flatten)]
        repair_options: RepairOptions,
    },
    /// Exit with 0 if the server answers /readyz with 200
    Healthcheck(ConfigArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// A file of settings, in the form of config.default.toml
    #[arg(long, env = "SLOTWHEEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    raw: RawConfig,
}

/// What the doctor may do about what is wrong.
#[derive(Debug, Args)]
struct RepairOptions {
    /// Mend what is wrong, beside servers at work if there are any; no task is lost by it
    #[arg(long)]
    repair: bool,
    /// Have servers that noticed a loss of data take the data set as it is; one that is gone is founded anew
    #[arg(long)]
    accept_loss: bool,
}

/// Where all programs that send spans are told to send them.
const OTLP_ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

impl ConfigArgs {
    fn read_raw(self) -> anyhow::Result<RawConfig> {
        let file = match self.config {
            None => RawConfig::default(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("the settings file {}", path.display()))?;
                RawConfig::from_toml(&path, &text)?
            }
        };
        Ok(self.raw.merge_under(file))
    }

    fn resolve(self) -> anyhow::Result<Config> {
        Ok(self.read_raw()?.resolve()?)
    }

    /// The same for a program that sends spans, if it can: then it is meant by the variable too.
    fn resolve_to_serve(self) -> anyhow::Result<Config> {
        let mut raw = self.read_raw()?;
        if !cfg!(feature = "otlp") || raw.otlp_endpoint.is_some() {
            return Ok(raw.resolve()?);
        }
        raw.otlp_endpoint = std::env::var(OTLP_ENDPOINT_VARIABLE).ok();
        raw.resolve().map_err(|error| match error {
            ConfigError::Setting { name: "otlp_endpoint", value, reason: why } => {
                anyhow::anyhow!("the variable {OTLP_ENDPOINT_VARIABLE} is {value}: {why}")
            }
            other => other.into(),
        })
    }
}

/// Does what the arguments say; what to exit with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Both that the TLS stack could use are known to it; it wants to be told which.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(settings) => run_command(settings.resolve_to_serve(), serve),
        Command::Doctor { settings, repair_options: remedies } => {
            run_command(settings.resolve(), |config| doctor::run(config, remedies))
        }
        Command::Healthcheck(settings) => run_command(settings.resolve(), healthcheck),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("slotwheel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_command<F: Future<Output = anyhow::Result<ExitCode>>>(
    config: anyhow::Result<Config>,
    command: impl FnOnce(Config) -> F,
) -> anyhow::Result<ExitCode> {
    let config = config?;
    let filter = EnvFilter::try_new(&config.log).context("the setting log")?;
    log::init(filter, config.log_format);
    let threads = config.threads.map_or_else(default_threads, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?.block_on(command(config))
}

/// One for each processor but one: a Redis beside it is one more that works. docs/performance.md has the figures.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() - 1).max(1))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    // What a shell gives is often 1024 of what it may give; each connection is a file.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    if !config.listen.ip().is_loopback() {
        tracing::warn!(
            address = %config.listen,
            "whoever reaches this address can do everything: there is no authentication yet (--insecure)"
        );
    }
    let stop = CancellationToken::new();
    let stop_on_signal = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = shutdown_signal().await {
            tracing::error!(%error, "signals cannot be heard");
            return;
        }
        tracing::info!("stopping");
        stop_on_signal.cancel();
    });
    app::run(config, listener, stop).await?;
    Ok(ExitCode::SUCCESS)
}

async fn shutdown_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn healthcheck(config: Config) -> anyhow::Result<ExitCode> {
    let mut address = config.listen;
    if address.ip().is_unspecified() {
        let loopback = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let reply =
        tokio::time::timeout(Duration::from_secs(5), request_readiness(address)).await.context("no answer in 5 s")?;
    let status = reply.with_context(|| format!("no answer from {address}"))?;
    println!("{address} answers {status}");
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn request_readiness(address: std::net::SocketAddr) -> anyhow::Result<hyper::StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/readyz")
        .header(hyper::header::HOST, address.to_string())
        .body(http_body_util::Empty::<bytes::Bytes>::new())?;
    Ok(sender.send_request(request).await?.status())
}
